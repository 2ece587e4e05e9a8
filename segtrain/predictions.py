"""Predictions as index pictures, in the file names and with the values that a dataset's benchmark wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.datasets.base import Dataset
from segtrain.errors import UserError
from segtrain.files import write_whole
from segtrain.labels import Label

MARKER = "predicted_by.json"  # in a folder of predictions that task=predict wrote: of which checkpoint they are


@dataclass(frozen=True)
class FileForm:
    """What the index picture of a prediction holds.

    Attributes:
        label_ids: Whether its values are label ids; else they are train ids.
        palette: The colour of each value, (red, green, blue); None for a grey picture.
    """

    label_ids: bool = False
    palette: Sequence[Sequence[int]] | None = None


def file_form(data: Dataset) -> FileForm:
    """Return what predictions of a dataset hold: 8-bit train ids, or the label ids and the palette that it asks for."""
    palette = getattr(data, "prediction_palette", None)
    return FileForm(bool(getattr(data, "file_labels", None)),
                    None if palette is None else [list(color) for color in palette])


def prediction_path(folder: Path, data: Dataset, index: int) -> Path:
    """Return where the prediction of a sample belongs: the sample's name below the folder, subfolders included.

    Raises:
        UserError: If the name would lead out of the folder.
    """
    path = folder / f"{data.names[index]}{getattr(data, 'prediction_ending', '')}.png"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{data.files(index)}: its name {data.names[index]} leads out of the folder of the "
                        "predictions: name the image by a path below its dataset.")
    return path


def write_prediction(folder: Path, data: Dataset, index: int, pred: np.ndarray) -> None:
    """Write the prediction of a sample as PNG.

    Args:
        folder: Of all predictions.
        data: The split.
        index: The sample's number.
        pred: (H, W) train ids, any integer dtype.

    Raises:
        UserError: If it cannot be written.
    """
    write_index_picture(prediction_path(folder, data, index), pred, data.labels, file_form(data))


def write_index_picture(path: Path, pred: np.ndarray, labels: Sequence[Label], form: FileForm) -> None:
    """Write a prediction as an 8-bit PNG.

    Args:
        path: The file; its folder is made.
        pred: (H, W) train ids, any integer dtype.
        labels: The classes.
        form: What the file is to hold.

    Raises:
        UserError: If it cannot be written.
    """
    picture = Image.fromarray(file_values(labels, form)[pred])
    if form.palette is not None:
        picture.putpalette(np.asarray(form.palette, dtype=np.uint8).tobytes())
    make_folder(path.parent)
    write_whole(path, lambda file: picture.save(file, format="PNG"))


def file_values(labels: Sequence[Label], form: FileForm) -> np.ndarray:
    """Return the value that stands in a file for each train id, uint8 (256,)."""
    values = np.arange(256, dtype=np.uint8)
    if form.label_ids:
        values[:len(labels)] = [label.label_id for label in labels]
    return values


def make_folder(folder: Path) -> None:
    """Make a folder of predictions, and those above it; UserError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error}): choose another folder with "
                        "hydra.run.dir=.") from error
