"""Drawn masks on the disk, named by everything that their pixels depend on; the folder may be deleted at any time."""

import logging
import os
import struct
import uuid
import zlib
from pathlib import Path

import numpy as np

from segtrain.files import atomic_path, open_regular
from segtrain.labels import IGNORE_INDEX

log = logging.getLogger(__name__)
HEADER = struct.Struct("<8sIII")  # KIND, width, height, number of runs; their lengths, train ids and objects follow
KIND = b"segmask1"
BYTES_PER_RUN = 4 + 1 + 4
_complained: set[Path] = set()


def find_folder() -> Path:
    """Return the folder of all drawn masks: segtrain/masks below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segtrain" / "masks"


def load(key: str, size: tuple[int, int], num_classes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the train ids and the object numbers of a drawing; None if it is not there, or is not what it must be."""
    most = HEADER.size + BYTES_PER_RUN * size[0] * size[1]
    try:
        with open_regular(_locate(key)) as file:
            data = zlib.decompressobj().decompress(file.read(most + 1024), most)
        kind, width, height, count = HEADER.unpack_from(data)
    except (OSError, zlib.error, struct.error):
        return None
    if kind != KIND or (width, height) != size or len(data) != HEADER.size + BYTES_PER_RUN * count:
        return None
    lengths = np.frombuffer(data, "<u4", count, HEADER.size)
    train_ids = np.frombuffer(data, np.uint8, count, HEADER.size + 4 * count)
    objects = np.frombuffer(data, "<i4", count, HEADER.size + 5 * count)
    unknown = (train_ids >= num_classes) & (train_ids != IGNORE_INDEX)
    if lengths.sum(dtype=np.int64) != width * height or unknown.any():
        return None
    instances = np.repeat(objects.astype(np.int32), lengths) if objects.any() else np.zeros(width * height, np.int32)
    return np.repeat(train_ids, lengths).reshape(height, width), instances.reshape(height, width)


def save(key: str, target: np.ndarray, objects: np.ndarray) -> None:
    """Keep a drawing as run lengths; what cannot be written is drawn again next time, which is said once.

    Several processes may do so at the same time: they write the same under names of their own, and rename.
    """
    height, width = target.shape
    ids, numbers = target.ravel(), objects.ravel()
    changes = ids[1:] != ids[:-1]
    if numbers.any():
        changes |= numbers[1:] != numbers[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=ids.size)
    data = b"".join([HEADER.pack(KIND, width, height, len(starts)), lengths.astype("<u4").tobytes(),
                     ids[starts].tobytes(), numbers[starts].astype("<i4").tobytes()])
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
