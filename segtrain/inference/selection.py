"""Keep the images of a split that a report shows: the worst, the best, and some examples."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import Tensor

from segtrain.data.image_form import RGB
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.metrics.scores import mean, ratio
from segtrain.visualize import VOID_COLOR, shrink

JPEG_QUALITY = 85
KINDS = ("worst", "best", "example")


@dataclass(frozen=True)
class ShownImage:
    """An image with its target and its prediction, shrunk.

    Attributes:
        index: Its number in the split.
        miou: Its own mIoU; None without a labelled pixel.
        image: uint8 (H, W, 3) RGB.
        target: uint8 (H, W) train ids, 255 = void.
        pred: uint8 (H, W) train ids.
    """

    index: int
    miou: float | None
    image: np.ndarray
    target: np.ndarray
    pred: np.ndarray

    def encode(self, kind: str, name: str, labels: Sequence[Label]) -> dict[str, Any]:
        """Return an entry of images.json: the image as JPEG, target and prediction as PNGs of ids, in base64."""
        pixels = cv2.cvtColor(self.image, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        maps = {key: encode_map(ids, {label.train_id: label.color for label in labels})
                for key, ids in (("target", self.target), ("prediction", self.pred))}
        return {"kind": kind, "name": name, "miou": self.miou,
                **{key: base64.b64encode(data).decode() for key, data in {"image": jpeg, **maps}.items()}}


def encode_map(ids: np.ndarray, colors: Mapping[int, Sequence[int]]) -> bytes:
    """Return a label map, uint8 (H, W), as a PNG whose values are the ids and whose palette has their colors."""
    palette = np.zeros((256, 3), np.uint8)
    palette[IGNORE_INDEX] = VOID_COLOR
    for train_id, color in colors.items():
        palette[train_id] = color
    image, file = Image.fromarray(ids), io.BytesIO()
    image.putpalette(palette.tobytes())
    image.save(file, "PNG", bits=8, compress_level=9)  # 8 bits, so that a reader finds the ids byte by byte
    return file.getvalue()


@dataclass
class Selection:
    """The images of a split to show, chosen while it is scored.

    Attributes:
        count: How many of the worst to keep, and of the best.
        examples: The numbers of further images to keep.
        draw: Makes uint8 (H, W, 3) of an image of the split, (H, W, C).
    """

    count: int
    examples: frozenset[int] = frozenset()
    draw: Callable[[np.ndarray], np.ndarray] = RGB.draw
    _worst: list[ShownImage] = field(default_factory=list)
    _best: list[ShownImage] = field(default_factory=list)
    _examples: list[ShownImage] = field(default_factory=list)

    def add(self, indices: Sequence[int], counts: Tensor, images: Tensor, targets: Tensor, preds: Tensor) -> None:
        """Consider N images of the split.

        Args:
            counts: Their `class_counts`, (N, 3, K).
            images: (N, H, W, C).
            targets: Train ids (N, H, W).
            preds: Train ids (N, H, W).
        """
        if not self.count and self.examples.isdisjoint(indices):
            return
        for number, (index, (correct, false_positives, missed)) in enumerate(
                zip(indices, counts.cpu().numpy(), strict=True)):
            miou = mean(list(map(ratio, correct, correct + false_positives + missed)))
            if index in self.examples or self._is_wanted(miou):
                target, pred = (maps[number].cpu().numpy().astype(np.uint8) for maps in (targets, preds))
                image, small = shrink(self.draw(images[number].cpu().numpy()), target)
                small_pred = cv2.resize(pred, small.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)
                self.merge([ShownImage(index, miou, image, small, small_pred)])

    def merge(self, images: Iterable[ShownImage]) -> None:
        """Consider images that are shrunk already, such as those that other processes kept."""
        found = {image.index: image for image in (*self.images(), *images)}.values()
        scored = [image for image in found if image.miou is not None]
        self._worst = sorted(scored, key=lambda image: (image.miou, image.index))[:self.count]
        self._best = sorted(scored, key=lambda image: (-(image.miou or 0), image.index))[:self.count]
        self._examples = sorted((image for image in found if image.index in self.examples),
                                key=lambda image: image.index)

    def images(self) -> list[ShownImage]:
        """Return all images that are kept; some are there more than once."""
        return [*self._worst, *self._best, *self._examples]

    def encode(self, names: Sequence[str], labels: Sequence[Label]) -> list[dict[str, Any]]:
        """Return the entries of images.json: the worst first, then the best that are not among them, then examples."""
        worst = {image.index for image in self._worst}
        best = [image for image in self._best if image.index not in worst]
        return [image.encode(kind, names[image.index], labels)
                for kind, images in zip(KINDS, (self._worst, best, self._examples), strict=True) for image in images]

    def _is_wanted(self, miou: float | None) -> bool:
        if miou is None or not self.count:
            return False
        return (len(self._worst) < self.count or miou <= (self._worst[-1].miou or 0)
                or miou >= (self._best[-1].miou or 0))
