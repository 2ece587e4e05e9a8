"""Write and read images.json, the images of a run that its report shows."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from segtrain.errors import UserError
from segtrain.files import write_text
from segtrain.labels import IGNORE_INDEX, Label

IMAGES = "images.json"
MOST_SIDE = 4096  # pixels
REMEDY = "remove it: the report then shows no images"


@dataclass(frozen=True)
class SavedImage:
    """An image of a run with its target and its prediction.

    Attributes:
        kind: "worst", "best" or "example".
        miou: Its own mIoU; None without a labelled pixel.
        jpeg: The image, a JPEG file.
        target: uint8 (H, W) train ids, 255 = void.
        pred: uint8 (H, W) train ids.
    """

    kind: str
    name: str
    miou: float | None
    jpeg: bytes
    target: np.ndarray
    pred: np.ndarray


def write_images(run_dir: Path, labels: Sequence[Label], entries: Sequence[Mapping[str, Any]]) -> None:
    """Write images.json of entries that `Selection.encode` made; remove it where there are none.

    Raises:
        UserError: If it cannot be written.
    """
    path = run_dir / IMAGES
    if entries:
        classes = [{"name": label.name, "color": list(label.color)} for label in labels]
        write_text(path, json.dumps({"file_format": 1, "classes": classes, "images": entries}) + "\n")
    else:
        path.unlink(missing_ok=True)  # of a former best epoch


def read_images(run_dir: Path) -> tuple[list[tuple[str, list[int]]], list[SavedImage]]:
    """Return names and colors of the classes by train id, and the images; nothing without a file.

    Raises:
        UserError: If the file cannot be read, or holds anything else.
    """
    from segtrain.run.file_schemas import ShownImages  # slow to import: --help must not wait for it
    from segtrain.schemas import read_checked

    path = run_dir / IMAGES
    if not path.exists():
        return [], []
    content = read_checked(path, ShownImages, REMEDY)
    classes = [(entry.name, list(entry.color)) for entry in content.classes]
    known = {*range(len(classes)), IGNORE_INDEX}
    images = []
    for entry in content.images:
        try:
            files = [base64.b64decode(text, validate=True) for text in (entry.image, entry.target, entry.prediction)]
            jpeg, *maps = (_open(data, kind) for data, kind in zip(files, ("JPEG", "PNG", "PNG"), strict=True))
            target, pred = map(np.asarray, maps)
            jpeg.load()
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
            raise UserError(f"{path} is damaged: {entry.name}: {error}; {REMEDY}.") from error
        if not target.shape == pred.shape == jpeg.size[::-1] or not known.issuperset({*np.unique([target, pred])}):
            raise UserError(f"{path} is damaged: {entry.name} has no label maps of its size and classes; {REMEDY}.")
        images.append(SavedImage(entry.kind, entry.name, entry.miou, files[0], target, pred))
    return classes, images


def _open(data: bytes, kind: str) -> Image.Image:
    """Open an image file of a kind; ValueError if it is too large to be one of segtrain's."""
    image = Image.open(io.BytesIO(data), formats=[kind])
    if max(image.size) > MOST_SIDE or image.mode not in {"JPEG": ("RGB",), "PNG": ("P",)}[kind]:
        raise ValueError(f"not a {kind} file that segtrain wrote")
    return image
