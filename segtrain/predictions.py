"""Predictions as index pictures, in the file names and with the values that a dataset's benchmark wants."""

from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.datasets.base import Dataset
from segtrain.errors import UserError
from segtrain.files import write_whole


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
    """Write a prediction as PNG: 8-bit train ids, or the label ids and the palette that the dataset asks for.

    Args:
        folder: Of all predictions.
        data: The split.
        index: The sample's number.
        pred: (H, W) train ids, any integer dtype.

    Raises:
        UserError: If it cannot be written.
    """
    path = prediction_path(folder, data, index)
    values = np.arange(256, dtype=np.uint8)
    if getattr(data, "file_labels", None):
        values[:len(data.labels)] = [label.label_id for label in data.labels]
    picture = Image.fromarray(values[pred])
    palette = getattr(data, "prediction_palette", None)
    if palette is not None:
        picture.putpalette(np.asarray(palette, dtype=np.uint8).tobytes())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent} cannot be made ({error}): choose another folder with "
                        "hydra.run.dir=.") from error
    write_whole(path, lambda file: picture.save(file, format="PNG"))
