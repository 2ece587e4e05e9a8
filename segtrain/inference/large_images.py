"""Images that are too large to be read whole: their windows are read when they are predicted."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segtrain.data.image_form import ImageForm, read_pixels, read_shape
from segtrain.data.rasters import is_tiff
from segtrain.errors import UserError

MOST_PIXELS = 2**25  # of an image that is read whole; larger ones are predicted in windows anyway
STRIP = 512  # rows that are read at once where all of an image passes by
DRAWN_SIDE = 4096  # pixels, of the longer side of what is drawn of such an image


class LargeImage:
    """A TIFF as a batch of one image, (1, H, W, C), of which [number, rows, columns] reads a window."""

    def __init__(self, path: Path, form: ImageForm, size: tuple[int, int]) -> None:
        self._path, self._form = path, form
        self.shape = (1, *size, form.num_channels)

    def __getitem__(self, place: tuple[int, slice, slice]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(read_pixels(self._path, self._form, place[1:]).image))

    def survey(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Read the image once, strip by strip.

        Returns:
            The image with every n-th pixel alone, of at most DRAWN_SIDE a side, (H / n, W / n, C); and where it has no
            data, bool (H, W), None if it has everywhere.
        """
        height, width = self.shape[1:3]
        step = -(-max(height, width) // DRAWN_SIDE)
        nodata, lines = np.zeros((height, width), bool), []
        for top in range(0, height, STRIP):
            pixels = read_pixels(self._path, self._form, (slice(top, min(height, top + STRIP)), slice(0, width)))
            lines.append(pixels.image[-top % step::step, ::step].copy())
            if pixels.nodata is not None:
                nodata[top:top + STRIP] = pixels.nodata
        return np.concatenate(lines), nodata if nodata.any() else None


def open_large(path: Path, form: ImageForm) -> LargeImage | None:
    """Return an image to be read in windows; None of one that is small enough, or of another kind than TIFF."""
    if not is_tiff(path):
        return None
    try:
        size = read_shape(path)
    except UserError:  # whatever is wrong is reported when it is read
        return None
    return LargeImage(path, form, size) if size[0] * size[1] > MOST_PIXELS else None
