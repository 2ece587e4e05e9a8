"""Label files of predictions: write them as a dataset's benchmark wants them, find them again, tell what they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic
from PIL import Image

from segtrain.data.base import Dataset
from segtrain.data.class_identity import to_original
from segtrain.data.discovery import find_by_name, list_images
from segtrain.errors import UserError
from segtrain.files import read_json, refuse_unwritable, write_file
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.schemas import MOST_CLASSES, Byte, Part, Text, check_content

MARKER = "predicted_by.json"  # in a folder of predictions that task=predict wrote: of which checkpoint they are
UNKNOWN = -1  # in the table of predicted ids: a value that means nothing


class WrittenClass(Part):
    """A class in predicted_by.json, and its value in the label files."""

    name: Text
    value: Byte


class PredictedBy(Part):
    """predicted_by.json."""

    file_format: Literal[1] = 1
    checkpoint: Text
    sha256: Text
    input: Text
    inference: dict[Text, Any]
    classes: Annotated[list[WrittenClass], pydantic.Field(max_length=MOST_CLASSES)]


def read_marker(marker: Path) -> dict[str, Any]:
    """Read predicted_by.json; UserError if segtrain did not write it."""
    content: dict[str, Any] = read_json(marker)
    check_content(PredictedBy, content, marker, "remove it if the predictions beside it are of another program, or "
                  "choose another folder")
    return content


@dataclass(frozen=True)
class FileForm:
    """What the label file of a prediction holds."""

    label_ids: bool = False  # whether its values are label ids; else they are train ids
    palette: Sequence[Sequence[int]] | None = None  # (red, green, blue) of each value; None for grey values


def find_predictions(data: Dataset, folder: Path) -> tuple[list[Path], list[Path]]:
    """Find the predictions of a split, PNG files below a folder.

    Where the dataset has `file_labels`, a prediction's file name begins with its sample's name, in any folder.
    Elsewhere its relative path without suffix is the sample's name, or has the stem of its target file in place of it.
    A sample without a prediction, or with several, is an error.

    Returns:
        The file of each sample, and those that belong to none.
    """
    found = [path for path in list_images(folder, "task.predictions") if path.suffix.lower() == ".png"]
    owners = _match_by_beginning(data, found) if data.file_labels else _match_by_path(data, found, folder)
    doubled = [index for index, paths in enumerate(owners) if len(paths) > 1]
    if doubled:
        first, second = owners[doubled[0]][:2]
        raise UserError(f"{first} and {second} are both predictions of {data.names[doubled[0]]}: keep one of them"
                        f"{f' (so it is with {len(doubled)} of {len(owners)} targets)' if len(doubled) > 1 else ''}.",
                        [str(path) for index in doubled for path in owners[index]])
    missing = [index for index, paths in enumerate(owners) if not paths]
    if missing:
        name = data.names[missing[0]]
        raise UserError(f"{len(missing)} of {len(owners)} targets have no prediction below {folder}, the first is "
                        f"{data.locate(missing[0])}: add {name}{'*' if data.file_labels else ''}.png, or check "
                        "task.predictions.", [data.locate(index) for index in missing])
    used = {path for paths in owners for path in paths}
    return [paths[0] for paths in owners], [path for path in found if path not in used]


def _match_by_beginning(data: Dataset, found: Sequence[Path]) -> list[list[Path]]:
    places = {name: index for index, name in enumerate(data.names)}
    lengths = sorted({len(name) for name in places}, reverse=True)
    owners: list[list[Path]] = [[] for _ in places]
    for path in found:
        name = next((path.stem[:length] for length in lengths if path.stem[:length] in places), None)
        if name is not None:
            owners[places[name]].append(path)
    return owners


def _match_by_path(data: Dataset, found: Sequence[Path], folder: Path) -> list[list[Path]]:
    by_stem = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
    if len(by_stem) < len(found):
        find_by_name(folder, "task.predictions")  # says which two differ in their suffix only
    names = set(data.names)
    owners = []
    for index, name in enumerate(data.names):
        other = (PurePosixPath(name).parent / Path(data.locate(index)).stem).as_posix()
        stems = dict.fromkeys((name, other) if other not in names else (name,))
        owners.append([by_stem[stem] for stem in stems if stem in by_stem])
    return owners


def list_other_labels(data: Dataset) -> tuple[Label, ...]:
    """Return the labels that a prediction may hold beside the classes."""
    return tuple(label for label in data.file_labels if label.train_id == IGNORE_INDEX)


def read_written_classes(folder: Path) -> dict[str, int] | None:
    """Return the value of each class in the predictions of a folder, by name; None if task=predict did not write them.

    Raises:
        UserError: If its file that says so is damaged.
    """
    marker = next((path for path in (folder / MARKER, folder.parent / MARKER) if path.is_file()), None)
    if marker is None:
        return None
    return {entry["name"]: entry["value"] for entry in read_marker(marker)["classes"]}


def map_predicted_ids(data: Dataset, written: Mapping[str, int] | None = None) -> npt.NDArray[np.int64]:
    """Return what each value of a prediction means.

    Args:
        data: The dataset.
        written: The value of each class by its name, where it is known; else it is that of `make_file_form`.

    Returns:
        Shape (256,), int64: 0..K-1 the classes, K..P-1 the labels of `list_other_labels`, P no class, UNKNOWN.

    Raises:
        UserError: If the predictions are of other classes; it lists both.
    """
    num_classes, others, names = len(data.labels), list_other_labels(data), [label.name for label in data.labels]
    if written is None:
        values = map_file_values(data.labels, make_file_form(data))
        written = {label.name: int(values[label.train_id]) for label in data.labels}
    if written.keys() != set(names):
        raise UserError(f"the predictions are of the classes {', '.join(written)}, but the dataset has "
                        f"{', '.join(names)}: score them on the dataset of their network.")
    table = np.full(256, UNKNOWN, np.int64)
    if data.file_labels:
        for place, label in enumerate(others):
            table[label.label_id] = num_classes + place
    else:
        table[IGNORE_INDEX] = num_classes
    for label in data.labels:
        table[written[label.name]] = label.train_id
    return table


def make_file_form(data: Dataset) -> FileForm:
    """Return what predictions of a dataset hold: 8-bit train ids, or the label ids and the palette that it asks for."""
    palette = data.prediction_palette
    return FileForm(bool(data.file_labels), None if palette is None else [list(color) for color in palette])


def with_colors(form: FileForm, labels: Sequence[Label]) -> FileForm:
    """Return a form whose files show the colors of the classes, unless it has a palette of its own."""
    if form.palette is not None:
        return form
    palette = np.zeros((256, 3), np.uint8)
    values = map_file_values(labels, form)
    for label in labels:
        palette[values[label.train_id]] = label.color
    return replace(form, palette=palette.tolist())


def locate_prediction(folder: Path, data: Dataset, index: int) -> Path:
    """Return where the prediction of a sample belongs: the sample's name below the folder, subfolders included."""
    path = folder / f"{data.names[index]}{data.prediction_ending}.png"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{data.locate(index)}: its name {data.names[index]} leads out of the folder of the "
                        "predictions: name the image by a path below its dataset.")
    return path


def write_prediction(folder: Path, data: Dataset, index: int, pred: np.ndarray) -> None:
    """Write the prediction of a sample, (H, W) train ids, as PNG below a folder; UserError if it cannot be written."""
    data, pred = to_original(data, pred)
    write_label_map(locate_prediction(folder, data, index), pred, data.labels, make_file_form(data))


def write_label_map(path: Path, pred: np.ndarray, labels: Sequence[Label], form: FileForm) -> None:
    """Write a prediction, (H, W) train ids of any integer dtype, as an 8-bit PNG; its folder is made."""
    image = Image.fromarray(map_file_values(labels, form)[pred])
    if form.palette is not None:
        image.putpalette(np.asarray(form.palette, dtype=np.uint8).tobytes())
    make_folder(path.parent)
    write_file(path, lambda file: image.save(file, format="PNG"))


def map_file_values(labels: Sequence[Label], form: FileForm) -> np.ndarray:
    """Return the value that stands in a file for each train id, uint8 (256,)."""
    values = np.arange(256, dtype=np.uint8)
    if form.label_ids:
        values[:len(labels)] = [label.label_id for label in labels]
    return values


def make_folder(folder: Path) -> None:
    """Make a folder of predictions, and those above it."""
    with refuse_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
