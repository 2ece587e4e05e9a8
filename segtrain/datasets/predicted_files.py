"""Predicted label files: which one belongs to which sample, and what their values mean."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from segtrain.datasets.base import Dataset
from segtrain.datasets.pairs import by_name, pictures_below
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label

UNKNOWN = -1  # in the table of predicted ids: a value that means nothing


def find_predictions(data: Dataset, folder: Path) -> tuple[list[Path], list[Path]]:
    """Find the predictions of a split, PNG files below a folder.

    Where the dataset has `file_labels`, a prediction's file name begins with its sample's name, in whatever folder.
    Elsewhere its relative path without suffix is the sample's name, or has the stem of its target file in place of it.

    Returns:
        The file of each sample, and those that belong to none.

    Raises:
        UserError: If a sample has no prediction or several; it names the first and holds them all.
    """
    found = [path for path in pictures_below(folder, "task.predictions") if path.suffix.lower() == ".png"]
    owners = _by_beginning(data, found) if file_labels(data) else _by_path(data, found, folder)
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
                        f"{data.files(missing[0])}: add {name}{'*' if file_labels(data) else ''}.png, or check "
                        "task.predictions.", [data.files(index) for index in missing])
    used = {path for paths in owners for path in paths}
    return [paths[0] for paths in owners], [path for path in found if path not in used]


def _by_beginning(data: Dataset, found: Sequence[Path]) -> list[list[Path]]:
    places = {name: index for index, name in enumerate(data.names)}
    lengths = sorted({len(name) for name in places}, reverse=True)
    owners: list[list[Path]] = [[] for _ in places]
    for path in found:
        name = next((path.stem[:length] for length in lengths if path.stem[:length] in places), None)
        if name is not None:
            owners[places[name]].append(path)
    return owners


def _by_path(data: Dataset, found: Sequence[Path], folder: Path) -> list[list[Path]]:
    by_stem = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
    if len(by_stem) < len(found):
        by_name(folder, "task.predictions")  # says which two differ in their suffix only
    names = set(data.names)
    owners = []
    for index, name in enumerate(data.names):
        other = (PurePosixPath(name).parent / Path(data.files(index)).stem).as_posix()
        stems = dict.fromkeys((name, other) if other not in names else (name,))
        owners.append([by_stem[stem] for stem in stems if stem in by_stem])
    return owners


def file_labels(data: Dataset) -> tuple[Label, ...]:
    """Return the labels whose ids a dataset's predictions hold; none where they hold train ids."""
    return getattr(data, "file_labels", None) or ()


def other_labels(data: Dataset) -> tuple[Label, ...]:
    """Return the labels that a prediction may hold beside the classes."""
    return tuple(label for label in file_labels(data) if label.train_id == IGNORE_INDEX)


def predicted_ids(data: Dataset) -> npt.NDArray[np.int64]:
    """Return what each value of a prediction means.

    Returns:
        Shape (256,), int64: 0..K-1 the classes, K..P-1 the labels of `other_labels`, P no class, UNKNOWN.
    """
    num_classes, others = len(data.labels), other_labels(data)
    table = np.full(256, UNKNOWN, np.int64)
    if file_labels(data):
        for label in data.labels:
            table[label.label_id] = label.train_id
        for place, label in enumerate(others):
            table[label.label_id] = num_classes + place
    else:
        table[:num_classes] = range(num_classes)
        table[IGNORE_INDEX] = num_classes
    return table
