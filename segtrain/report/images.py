"""Pictures of a run as data URIs: the examples that TensorBoard has, the images that were predicted worst."""

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

MOST_WORST = 8
WIDTH = 1100          # pixels, of the widest picture
MOST_PIXELS = 3_000_000
MOST_PNG = 300_000    # bytes up to which a picture stays a PNG, without loss
EXAMPLES = re.compile(r"val/examples(/\d+)?")  # runs before 0.1.0 had a tag for each picture


@dataclass(frozen=True)
class Picture:
    """A picture for the report.

    Attributes:
        uri: The picture itself, data:image/...
        width, height: In pixels.
        title: Said below it, and read out in its place.
    """

    uri: str
    width: int
    height: int
    title: str


def examples(folder: Path, step: int | None) -> tuple[list[Picture], int | None]:
    """Return the example pictures of a training from its event files.

    Args:
        folder: The run directory.
        step: The step whose pictures are wanted; the latest are taken if there are none of it, or if None is given.

    Returns:
        The pictures, and the step that they are of.
    """
    latest: dict[str, bytes] = {}
    latest_step: int | None = None
    wanted: dict[str, bytes] = {}
    for found_step, tag, content in _event_pictures(folder):
        if latest_step is None:
            latest_step = found_step
        if found_step == latest_step:
            latest.setdefault(tag, content)
        if found_step == step:
            wanted.setdefault(tag, content)
        if step is None or found_step < step:
            break
    chosen, of_step = (wanted, step) if wanted else (latest, latest_step)
    said = "input, target and prediction of validation images, side by side"
    pictures = [_picture(chosen[tag], said) for tag in sorted(chosen)]
    return [each for each in pictures if each is not None], of_step


def worst(folder: Path) -> tuple[list[Picture], int]:
    """Return the worst images of an evaluation, the worst first, and how many there are."""
    paths = sorted((folder / "worst").glob("*.png"))
    pictures = [_picture(path.read_bytes(), _worst_title(path.stem)) for path in paths[:MOST_WORST]]
    return [each for each in pictures if each is not None], len(paths)


def _worst_title(stem: str) -> str:
    found = re.fullmatch(r"(\d+)_miou_([\d.]+)_(.*)", stem)
    if found is None:
        return stem
    return f"{int(found[1])}. {found[3]}: mIoU {float(found[2]):.2f} %; input, target, prediction, errors in red"


def _picture(content: bytes, title: str) -> Picture | None:
    """Shrink an encoded picture, and encode it again where that makes it smaller; None if it is damaged."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
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
    return Picture(uri, pixels.shape[1], pixels.shape[0], title)


def _event_pictures(folder: Path) -> Iterator[tuple[int, str, bytes]]:
    """Yield step, tag and encoded picture of every example, the latest first."""
    from tensorboard.compat.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.out.tfevents.*"), key=_written, reverse=True):
        with path.open("rb") as file:
            for place, length in reversed(_records(path)):
                file.seek(place)
                event = Event.FromString(file.read(length))
                for value in event.summary.value:
                    if value.HasField("image") and EXAMPLES.fullmatch(value.tag):
                        yield event.step, value.tag, value.image.encoded_image_string


def _written(path: Path) -> tuple[int, str]:
    """Sort event files by the time in their names."""
    found = re.search(r"tfevents\.(\d+)\.", path.name)
    return int(found[1]) if found else 0, path.name


def _records(path: Path) -> list[tuple[int, int]]:
    """Find the records of an event file that are large enough for a picture: place and length.

    TensorBoard's own reader checks every byte in Python, at 3 MB/s; long runs leave gigabytes. A record is its length,
    uint64, a checksum of it, the event, and a checksum. One that was cut off by a crash is left out.
    """
    found = []
    size = path.stat().st_size
    with path.open("rb") as file:
        place = 0
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack("<Q", head[:8])
            place += 12
            if place + length > size:
                break
            if length > 80:
                found.append((place, length))
            place += length + 4
            file.seek(place)
    return found
