"""Drawn masks on the disk, named by everything that their pixels depend on; the folder may be deleted at any time."""

import logging
import os
import struct
import uuid
import zlib
from pathlib import Path

import numpy as np

from segtrain.data.formats.regions import Drawing
from segtrain.files import atomic_path, open_regular
from segtrain.labels import IGNORE_INDEX

log = logging.getLogger(__name__)
HEADER = struct.Struct("<8sIIII")  # KIND, width, height, and the numbers of runs and of buried regions, which follow
KIND = b"segmask1"
BYTES_PER_RUN = 4 + 1 + 4
_complained: set[Path] = set()


def find_folder() -> Path:
    """Return the folder of all drawn masks: segtrain/masks below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segtrain" / "masks"


def load(key: str, size: tuple[int, int], num_classes: int, num_regions: int) -> Drawing | None:
    """Return a drawing; None if it is not there, or is not what it must be."""
    most = HEADER.size + BYTES_PER_RUN * size[0] * size[1] + 4 * num_regions
    try:
        with open_regular(_locate(key)) as file:
            data = zlib.decompressobj().decompress(file.read(most + 1024), most)
        kind, width, height, count, num_buried = HEADER.unpack_from(data)
    except (OSError, zlib.error, struct.error):
        return None
    if kind != KIND or (width, height) != size or len(data) != HEADER.size + BYTES_PER_RUN * count + 4 * num_buried:
        return None
    lengths = np.frombuffer(data, "<u4", count, HEADER.size)
    train_ids = np.frombuffer(data, np.uint8, count, HEADER.size + 4 * count)
    objects = np.frombuffer(data, "<i4", count, HEADER.size + 5 * count)
    buried = np.frombuffer(data, "<u4", num_buried, HEADER.size + BYTES_PER_RUN * count)
    unknown = (train_ids >= num_classes) & (train_ids != IGNORE_INDEX)
    if lengths.sum(dtype=np.int64) != width * height or unknown.any() or (buried >= num_regions).any():
        return None
    instances = np.repeat(objects.astype(np.int32), lengths) if objects.any() else np.zeros(width * height, np.int32)
    target = np.repeat(train_ids, lengths).reshape(height, width)
    return Drawing(target, instances.reshape(height, width), tuple(buried.tolist()))


def save(key: str, drawing: Drawing) -> None:
    """Keep a drawing as run lengths; what cannot be written is drawn again next time, which is said once.

    Several processes may do so at the same time: they write the same under names of their own, and rename.
    """
    height, width = drawing.target.shape
    ids, numbers = drawing.target.ravel(), drawing.objects.ravel()
    changes = ids[1:] != ids[:-1]
    if numbers.any():
        changes |= numbers[1:] != numbers[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=ids.size)
    data = b"".join([HEADER.pack(KIND, width, height, len(starts), len(drawing.buried)),
                     lengths.astype("<u4").tobytes(), ids[starts].tobytes(), numbers[starts].astype("<i4").tobytes(),
                     np.array(drawing.buried, "<u4").tobytes()])
    path = _locate(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, f"{path.name}.{uuid.uuid4().hex}.tmp") as temporary, temporary.open("xb") as file:
            file.write(zlib.compress(data, 1))
    except OSError as error:
        folder = find_folder()
        if folder not in _complained:
            _complained.add(folder)
            log.warning("warning: drawn masks cannot be kept in %s (%s), so they are drawn again each time: make room, "
                        "or set the environment variable XDG_CACHE_HOME to another folder", folder, error)


def _locate(key: str) -> Path:
    return find_folder() / key[:2] / key[2:]
