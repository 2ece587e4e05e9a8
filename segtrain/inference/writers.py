"""Write predictions: label maps, overlays and probabilities; of georeferenced images, GeoTIFFs."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segtrain.data.image_form import RGB, ImageForm, Pixels
from segtrain.data.label_files import MARKER, FileForm, make_folder, map_file_values, read_marker, write_label_map
from segtrain.data.rasters import is_tiff, read_georeference, write_geotiff
from segtrain.errors import UserError
from segtrain.files import atomic_path, locked, write_file, write_text
from segtrain.inference.inputs import OUTPUT_FOLDERS, Item
from segtrain.inference.large_images import LargeImage
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.terminal import percent
from segtrain.visualize import add_legend, blend, colorize, count_shares, find_occurring

log = logging.getLogger(__name__)

JPEG_QUALITY = 90
JPEG_SIDE = 65500  # the longest that the format allows


def claim_folder(output: Path, own: Mapping[str, Any]) -> None:
    """Make a folder, and mark it as that of this checkpoint's predictions.

    Args:
        output: The folder.
        own: `checkpoint`, its `sha256`, `input`, `inference` and `classes`. All but the first must equal those of
            earlier predictions in the folder.

    Raises:
        UserError: If the folder holds other predictions, or other files.
    """
    make_folder(output)
    marker = output / MARKER
    with locked(marker, "choose another task.output="):  # shards may start together
        if not marker.exists():
            other = next((output / name for name in OUTPUT_FOLDERS if (output / name).is_dir()
                          and any((output / name).iterdir())), None)
            if other is not None:
                raise UserError(f"{other} holds files, but {output} has no {MARKER}, so they are not predictions "
                                "of task=predict: choose another task.output=.")
            write_text(marker, json.dumps({"file_format": 1, **own}, indent=1) + "\n")
            return
    before = read_marker(marker)
    for key, what in (("sha256", "another checkpoint"), ("input", "another task.input"),
                      ("inference", "other windows, overlap, flip or scales"), ("classes", "other classes")):
        if before.get(key) != own[key]:
            shown = "checkpoint" if key == "sha256" else key
            raise UserError(f"{output} holds predictions of {what} ({before.get(shown)}): choose another task.output=, "
                            "a folder should not mix predictions.")


@dataclass(frozen=True)
class Outputs:
    """Where predictions go, and which files are written beside label maps.

    Attributes:
        folder: The folder above OUTPUT_FOLDERS.
        form: What label maps hold.
        image_form: What images are read as.
    """

    folder: Path
    labels: Sequence[Label]
    form: FileForm
    overlays: bool
    probabilities: bool
    image_form: ImageForm = RGB

    def path(self, kind: str, item: Item, suffix: str) -> Path:
        """Return the file of a kind of output, and make its folder."""
        path = self.folder / kind / f"{item.name}{suffix}"
        make_folder(path.parent)
        return path

    def is_done(self, item: Item) -> bool:
        """Return whether all of an item's outputs exist and are not older than the item."""
        if item.stream is not None:
            return False
        wanted = [("videos", ".mp4")] if item.is_video else [("predictions", ".png")]
        if not item.is_video:
            wanted += [("overlays", ".jpg")] * self.overlays + [("probabilities", ".npy")] * self.probabilities
        paths = [self.folder / kind / f"{item.name}{suffix}" for kind, suffix in wanted]
        return all(path.is_file() and path.stat().st_mtime >= item.path.stat().st_mtime for path in paths)

    def write(self, item: Item, image: Pixels | LargeImage, pred: np.ndarray) -> Item:
        """Write an image's overlay and its label map, uint8 (H, W) train ids; of a GeoTIFF that is one, too.

        Where the image has no data, pred becomes void.
        """
        read, nodata = (None, None) if isinstance(image, LargeImage) else (image.image, image.nodata)
        if isinstance(image, LargeImage) and (self.overlays or self.image_form.channels is not None):
            read, nodata = image.survey()
        if nodata is not None:
            pred[nodata] = IGNORE_INDEX
        if self.overlays and read is not None:
            step = -(-len(pred) // len(read))
            drawn = blend(self.image_form.draw(read), np.ascontiguousarray(pred[::step, ::step]), self.labels)
            if max(drawn.shape) <= JPEG_SIDE:
                drawn = add_legend(drawn, find_occurring(pred, self.labels))
            scale = min(1.0, JPEG_SIDE / max(drawn.shape))
            if scale < 1:
                drawn = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            write_file(self.path("overlays", item, ".jpg"),
                       lambda file: Image.fromarray(drawn).save(file, format="JPEG", quality=JPEG_QUALITY))
        shares = ", ".join(f"{name} {percent(share, 1)} %" for name, share in count_shares(pred, self.labels).items())
        log.info("%s: %s", item.path, shares)
        georeference = read_georeference(item.path) if is_tiff(item.path) else []
        if georeference:
            values = map_file_values(self.labels, self.form)
            colors = np.zeros((256, 3), np.uint8)
            colors[values] = colorize(np.arange(256), self.labels)
            write_geotiff(self.path("geotiffs", item, ".tif"), values[pred], georeference, int(values[IGNORE_INDEX]),
                          colors)
        # last: where it exists, all outputs do
        write_label_map(self.path("predictions", item, ".png"), pred, self.labels, self.form)
        return item


@contextmanager
def open_probabilities(path: Path, shape: tuple[int, int, int]) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Open a float16 array (K, H, W), for numpy.load(path, mmap_mode="r"), that is written in bounded memory.

    The file gets its name at the end; after an error nothing stays.

    Yields:
        A function that takes the number of a row, and the rows from there on, (K, rows, W) of any float dtype.

    Raises:
        UserError: If it cannot be written.
    """
    _, height, width = shape
    try:
        with atomic_path(path) as temporary, temporary.open("xb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            start = file.tell()

            def write(top: int, probabilities: np.ndarray) -> None:
                for number, rows in enumerate(probabilities.astype("<f2")):
                    file.seek(start + 2 * width * (number * height + top))
                    file.write(rows.tobytes())

            yield write
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}): make room or choose another folder with task.output=; "
                        "what was written before is kept.") from error
