"""What a network predicts of one image, as Python and notebooks get it."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segtrain.data.label_files import FileForm, with_colors, write_label_map
from segtrain.labels import Label
from segtrain.terminal import percent
from segtrain.visualize import add_legend, blend, count_shares, find_occurring


class Prediction:
    """The class of every pixel of an image; a notebook shows it as its overlay.

    numpy takes it as the array `classes`.

    Attributes:
        classes: uint8 (H, W), train ids 0..K-1.
        labels: The classes in the order of their train ids.
    """

    def __init__(self, classes: npt.NDArray[np.uint8], labels: Sequence[Label], image: npt.NDArray[np.uint8],
                 compute_probabilities: Callable[[], npt.NDArray[np.float32]], form: FileForm) -> None:
        self.classes, self.labels = classes, tuple(labels)
        self._image, self._compute, self._form = image, compute_probabilities, form
        self._probabilities: npt.NDArray[np.float32] | None = None

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """The probability of each class at every pixel, float32 (K, H, W); computed when it is first asked for."""
        if self._probabilities is None:
            self._probabilities = self._compute()
        return self._probabilities

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels that each class has, for the classes that occur, the largest first."""
        return count_shares(self.classes, self.labels)

    def overlay(self, *, legend: bool = True) -> Image.Image:
        """Draw the colors of the classes over the image, with a legend below."""
        drawn = blend(self._image, self.classes, self.labels)
        return Image.fromarray(add_legend(drawn, find_occurring(self.classes, self.labels)) if legend else drawn)

    def save(self, path: str | Path) -> None:
        """Write the label map as PNG, as task=predict does.

        Raises:
            UserError: If it cannot be written.
        """
        write_label_map(Path(path).expanduser(), self.classes, self.labels, with_colors(self._form, self.labels))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        array = self.classes if dtype is None else self.classes.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __repr__(self) -> str:
        height, width = self.classes.shape
        shares = ", ".join(f"{name} {percent(share, 1)} %" for name, share in self.shares.items())
        return f"Prediction({height}x{width}: {shares})"

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.overlay().save(file, format="PNG")
        return file.getvalue()
