"""Embed the images that a report shows as data URIs."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from segtrain.inference.selection import encode_map
from segtrain.labels import IGNORE_INDEX
from segtrain.run.images import SavedImage, read_images
from segtrain.terminal import percent, printable

MOST_BYTES = 3_000_000  # of all images of a page, before base64 adds a third
SMALL = 240             # pixels of the longer side in the table of a sweep


@dataclass(frozen=True)
class EmbeddedImage:
    """An image of a page: three data:image/... URIs, its caption, and a word for its thumbnail."""

    name: str
    caption: str
    short: str
    image: str
    target: str
    prediction: str


@dataclass(frozen=True)
class Viewer:
    """The images of a page.

    Attributes:
        classes: Names and colors by train id, as JSON.
        images: What is shown.
        left_out: How many are not shown because the page would become too large.
    """

    classes: str
    images: Sequence[EmbeddedImage]
    left_out: int


def embed_images(folder: Path, most_bytes: int = MOST_BYTES) -> Viewer | None:
    """Embed the images of a run; None if it has none.

    Raises:
        UserError: If they cannot be read.
    """
    classes, saved = read_images(folder)
    colors = {number: color for number, (_, color) in enumerate(classes)}
    numbers: dict[str, int] = {}
    images: list[EmbeddedImage] = []
    for image in saved:
        target, pred = (encode_map(ids, colors) for ids in (image.target, image.pred))
        most_bytes -= len(image.jpeg) + len(target) + len(pred)
        if most_bytes < 0:
            break
        numbers[image.kind] = numbers.get(image.kind, 0) + 1
        images.append(_embed(image, numbers[image.kind], target, pred))
    names = [{"name": printable(name), "color": color} for name, color in classes]
    return Viewer(json.dumps(names), images, len(saved) - len(images)) if images else None


def embed_examples(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Return the addresses of the examples of a run by name, small: input, target and prediction.

    Raises:
        UserError: If they cannot be read.
    """
    classes, saved = read_images(folder)
    colors = {number: color for number, (_, color) in enumerate(classes)}
    found = {}
    for example in (image for image in saved if image.kind == "example"):
        step = -(-max(example.target.shape) // SMALL)
        maps = [_address("png", encode_map(ids[::step, ::step].copy(), colors))
                for ids in (example.target, example.pred)]
        with Image.open(io.BytesIO(example.jpeg)) as image, io.BytesIO() as file:
            image.thumbnail((SMALL, SMALL))
            image.save(file, "JPEG", quality=80)
            found[printable(example.name)] = (_address("jpeg", file.getvalue()), maps[0], maps[1])
    return found


def _embed(image: SavedImage, number: int, target: bytes, pred: bytes) -> EmbeddedImage:
    score = "no labelled pixel" if image.miou is None else f"mIoU {percent(image.miou)} %"
    kind = {"worst": f"{number}. worst", "best": f"{number}. best", "example": f"example {number}"}[image.kind]
    short = kind if image.miou is None else f"{kind} · {percent(image.miou, 0)} %"
    void = " Black is void." if (image.target == IGNORE_INDEX).any() else ""
    return EmbeddedImage(image.name, f"{kind}: {image.name}, {score}.{void}", short, _address("jpeg", image.jpeg),
                         _address("png", target), _address("png", pred))


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
