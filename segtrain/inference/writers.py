"""Write predictions: label maps, overlays, and probabilities from the top down, in bounded memory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segtrain.data.label_files import MARKER, FileForm, make_folder, write_label_map
from segtrain.errors import UserError
from segtrain.files import locked, write_file, write_text
from segtrain.inference.inputs import Item
from segtrain.labels import Label
from segtrain.visualize import add_legend, blend, find_occurring

FOLDERS = ("predictions", "overlays", "probabilities", "videos")
JPEG_QUALITY = 90
JPEG_SIDE = 65500  # the longest that the format allows


def claim_folder(output: Path, own: Mapping[str, Any]) -> None:
    """Mark a folder as that of this checkpoint's predictions.

    Args:
        output: The folder; it is made.
        own: `checkpoint`, its `sha256`, `input`, `inference` and `classes`, of which all but the first must agree with
            those of the folder's earlier predictions.

    Raises:
        UserError: If the folder holds other predictions, or other files.
    """
    make_folder(output)
    marker = output / MARKER
    with locked(marker, "choose another task.output="):  # shards may start together
        if not marker.exists():
            other = next((output / name for name in FOLDERS if (output / name).is_dir()
                          and any((output / name).iterdir())), None)
            if other is not None:
                raise UserError(f"{other} holds files, but {output} has no {MARKER}, so they are not predictions "
                                "of task=predict: choose another task.output=.")
            write_text(marker, json.dumps(own, indent=1) + "\n")
            return
    try:
        before = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{marker} cannot be read ({error}): choose another task.output=.") from error
    for key, what in (("sha256", "another checkpoint"), ("input", "another task.input"),
                      ("inference", "other windows, overlap or flip"), ("classes", "other classes")):
        if before.get(key) != own[key]:
            shown = "checkpoint" if key == "sha256" else key
            raise UserError(f"{output} holds predictions of {what} ({before.get(shown)}): choose another task.output=, "
                            "a folder should not mix predictions.")


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Outputs:
    """Where predictions go, and which files are written.

    Attributes:
        folder: The folder above predictions/, overlays/, probabilities/ and videos/.
        labels: The classes.
        form: What label maps hold.
        overlays: Whether to write overlays of images and their predictions, too.
        probabilities: Whether to write the probabilities of all classes, too.
    """

    folder: Path
    labels: Sequence[Label]
    form: FileForm
    overlays: bool
    probabilities: bool

    def path(self, kind: str, item: Item, suffix: str) -> Path:
        """Return the file of one kind of output; its folder is made."""
        path = self.folder / kind / f"{item.name}{suffix}"
        make_folder(path.parent)
        return path

    def is_done(self, item: Item) -> bool:
        """Return whether all of an item's outputs are there and are not older than it is."""
        wanted = [("videos", ".mp4")] if item.is_video else [("predictions", ".png")]
        if not item.is_video:
            wanted += [("overlays", ".jpg")] * self.overlays + [("probabilities", ".npy")] * self.probabilities
        paths = [self.folder / kind / f"{item.name}{suffix}" for kind, suffix in wanted]
        return all(path.is_file() and path.stat().st_mtime >= item.path.stat().st_mtime for path in paths)

    def write(self, item: Item, image: np.ndarray, pred: np.ndarray) -> Item:
        """Write an image's overlay and its label map; image is uint8 (H, W, 3), pred uint8 (H, W) train ids."""
        if self.overlays:
            drawn = blend(image, pred, self.labels)
            if max(drawn.shape) <= JPEG_SIDE:
                drawn = add_legend(drawn, find_occurring(pred, self.labels))
            scale = min(1.0, JPEG_SIDE / max(drawn.shape))
            if scale < 1:
                drawn = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            write_file(self.path("overlays", item, ".jpg"),
                        lambda file: Image.fromarray(drawn).save(file, format="JPEG", quality=JPEG_QUALITY))
        # last: where it exists, everything does
        write_label_map(self.path("predictions", item, ".png"), pred, self.labels, self.form)
        return item


class ProbabilityFile:
    """A float16 array (K, H, W), for numpy.load(path, mmap_mode="r"), under a temporary name until it is whole.

    As a context manager it gets its name at the end, or, after an error, is removed.

    Args:
        path: The file, .npy; its folder must exist.
        shape: (K, H, W).

    Raises:
        UserError: If it cannot be written, now or later.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._path, self._temporary, self._shape = path, path.with_name(f"{path.name}.tmp"), shape
        try:
            self._file = self._temporary.open("wb")
            np.lib.format.write_array_header_1_0(
                self._file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        except OSError as error:
            raise self._refusal(error) from error
        self._start = self._file.tell()

    def __enter__(self) -> "ProbabilityFile":
        return self

    def write(self, top: int, probabilities: np.ndarray) -> None:
        """Write the rows from `top` on, (K, rows, W), any float dtype."""
        num_classes, height, width = self._shape
        values = probabilities.astype("<f2")
        try:
            for number in range(num_classes):
                self._file.seek(self._start + 2 * width * (number * height + top))
                self._file.write(values[number].tobytes())
        except OSError as error:
            raise self._refusal(error) from error

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._file.close()
            if kind is None:
                self._temporary.replace(self._path)
        except OSError as failed:
            raise self._refusal(failed) from failed
        finally:
            self._temporary.unlink(missing_ok=True)

    def _refusal(self, error: OSError) -> UserError:
        return UserError(f"{self._path} cannot be written ({error}): make room or choose another folder with "
                         "task.output=; what was written before is kept.")
