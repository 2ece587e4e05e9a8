"""Embed the images of a run as data URIs: validation examples, and the images that were predicted worst."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segtrain.files import open_regular
from segtrain.run.trackers import EXAMPLES

MOST_WORST = 8
WIDTH = 1100          # pixels, of the widest image
MOST_PIXELS = 3_000_000
MOST_PNG = 300_000    # bytes up to which an image stays a PNG, without loss


@dataclass(frozen=True)
class EmbeddedImage:
    """An image of the report: its data:image/... URI, its size in pixels, and its caption or alternative text."""

    uri: str
    width: int
    height: int
    title: str


def embed_examples(folder: Path) -> EmbeddedImage | None:
    """Return the validation examples of a training's best epoch; None if there are none."""
    return _embed(folder / EXAMPLES, "input, target and prediction of validation images, side by side")


def embed_worst(folder: Path) -> tuple[list[EmbeddedImage], int]:
    """Return the worst images of an evaluation, the worst first, and how many there are."""
    paths = sorted((folder / "worst").glob("*.png"))
    embedded = [_embed(path, _describe_worst(path.stem)) for path in paths[:MOST_WORST]]
    return [image for image in embedded if image is not None], len(paths)


def _describe_worst(stem: str) -> str:
    found = re.fullmatch(r"(\d+)_miou_([\d.]+)_(.*)", stem)
    if found is None:
        return stem
    return f"{int(found[1])}. {found[3]}: mIoU {float(found[2]):.2f} %; input, target, prediction, errors in red"


def _embed(path: Path, title: str) -> EmbeddedImage | None:
    """Shrink an image, and encode it again where that makes it smaller; None if it is missing or damaged."""
    try:
        with open_regular(path) as file:
            pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    scale = min(1.0, WIDTH / width, (MOST_PIXELS / (width * height)) ** 0.5)
    if scale < 1:
        size = max(1, round(scale * width)), max(1, round(scale * height))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    kind, encoded = "png", cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    if len(encoded) > MOST_PNG:
        kind, encoded = "jpeg", cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
    uri = f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
    return EmbeddedImage(uri, pixels.shape[1], pixels.shape[0], title)
