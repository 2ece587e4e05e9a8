"""Cityscapes' polygons, drawn once as label ids and instance ids, as the dataset's own tools draw them."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from segtrain.datasets.pictures import decode
from segtrain.errors import UserError
from segtrain.labels import CITYSCAPES_LABELS
from segtrain.suggest import nearest

LABELS = {label.name: label for label in CITYSCAPES_LABELS}
GROUP = "group"  # ends the label of an area of objects that could not be told apart
MAX_PIXELS = 2**26  # 32 times a picture of Cityscapes
PER_CLASS = 1000  # an object's number is its label id times this, plus its place among the objects of its class


def rendered(path: Path, ending: str) -> Path:
    """Return the drawing of a polygon file out of the user's cache, drawn now if it is not there yet.

    The cache is segtrain/cityscapes below $XDG_CACHE_HOME or ~/.cache; a polygon file that changes is drawn anew.

    Args:
        path: A file *_gtFine_polygons.json.
        ending: "labelIds" or "instanceIds".

    Raises:
        UserError: If the file cannot be drawn or the drawing not be kept.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): restore it.") from error
    version = hashlib.sha256(f"{path.absolute()} {state.st_mtime_ns} {state.st_size}".encode()).hexdigest()[:16]
    frame = path.name.removesuffix("_polygons.json")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segtrain" / "cityscapes"
    found = folder / f"{frame}_{version}_{ending}.png"
    if not found.exists():
        drawings = dict(zip(("labelIds", "instanceIds"), draw(path), strict=True))
        for kind, drawing in drawings.items():
            _save(drawing, folder / f"{frame}_{version}_{kind}.png")
    return found


def draw(path: Path) -> tuple[Image.Image, Image.Image]:
    """Draw the polygons of a file in their order, later ones over earlier ones.

    Returns:
        Label ids, 8 bits a pixel; instance ids, 16 bits: label id * 1000 + number for a single object, the label id
        elsewhere.

    Raises:
        UserError: If the file is no polygon file or names a label that Cityscapes does not have.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size = int(content["imgWidth"]), int(content["imgHeight"])
        objects = [(str(item["label"]), [(point[0], point[1]) for point in item["polygon"]])
                   for item in content["objects"] if not item.get("deleted", 0)]
        if not 0 < size[0] * size[1] <= MAX_PIXELS:
            raise ValueError(f"its size is {size[0]}x{size[1]}")
        label_ids, instance_ids = Image.new("L", size), Image.new("I", size)
        _draw_all(objects, ImageDraw.Draw(label_ids), ImageDraw.Draw(instance_ids), path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
            RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is not a polygon file of Cityscapes ({reason}): replace it.") from error
    return label_ids, Image.fromarray(np.asarray(instance_ids).astype(np.uint16))  # Pillow 13 saves no 32 bits as PNG


def _draw_all(objects: list[tuple[str, list[Any]]], label_pen: Any, instance_pen: Any, path: Path) -> None:
    seen: dict[str, int] = {}
    for name, polygon in objects:
        is_group = name not in LABELS and name.endswith(GROUP)
        label = LABELS.get(name.removesuffix(GROUP) if is_group else name)
        if label is None:
            raise UserError(f"{path} holds an object of the label {name!r}, which Cityscapes does not have: "
                            f"correct it.{nearest(name, LABELS)}")
        if label.label_id < 0:
            continue
        number = label.label_id
        if label.has_instances and not is_group:
            number = PER_CLASS * label.label_id + seen.get(label.name, 0)
            seen[label.name] = seen.get(label.name, 0) + 1
        label_pen.polygon(polygon, fill=label.label_id)
        instance_pen.polygon(polygon, fill=number)


def read_instance_ids(path: Path) -> np.ndarray:
    """Read a map of instance ids, 16 bits a pixel, as int32 (H, W).

    Raises:
        UserError: If the file cannot be decoded.
    """
    def numbers(picture: Image.Image) -> np.ndarray:
        if picture.mode not in ("I", "I;16", "I;16B", "L"):
            raise ValueError(f"it is of mode {picture.mode}, not of 16 bits a pixel")
        return np.asarray(picture).astype(np.int32)

    return decode(path, numbers)


def _save(drawing: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all, whoever else writes it at the same time."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            drawing.save(file, format="PNG")
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"{path}, a drawing of Cityscapes' polygons, cannot be written ({error}): make room, or set "
                        "the environment variable XDG_CACHE_HOME to another folder.") from error
