"""What is known of samples whose files have not changed since they were read, kept on the disk.

A file counts as unchanged if path, size and times are the same. The folder may be deleted at any time, and what others
write there may make segtrain read a sample anew, or believe a wrong digest, but neither run anything nor fail.
"""

import json
import logging
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import PIL
import pydantic
from pydantic import Field

from segtrain.data.base import Dataset, View
from segtrain.data.survey import Content
from segtrain.files import atomic_path, open_regular
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.schemas import Byte, Count, Message, Text

log = logging.getLogger(__name__)
MAX_BYTES = 500_000_000  # a sample takes some hundred
SETTLED_NS = 2 * 10**9  # a file changed later than this before it was read might change again unseen
CODE = ("data", "labels.py", "metrics/instances.py", "metrics/confusion.py")  # what decides on the content of a sample
Number = Annotated[int, Field(ge=-(2**63), lt=2**64)]
FileState = tuple[Text, Number, Number, Number]  # absolute path, size, and the times of its content and of its entry


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class Entry:
    """One sample.

    Attributes:
        files: The state of all files that its content follows from; size -1 of one that is not there.
        orientation: How its image is turned.
        size: Height and width.
        pixels: Of each train id.
        digests: `checksum`, `image_digest` (its first part), `target_digest` of `Content`.
        near_hash: Likewise.
        objects: Of each class with objects: train id, pixels, and how many objects.
    """

    files: Annotated[list[FileState], Field(max_length=1000)]
    orientation: Annotated[int, Field(ge=1, le=8)]
    size: tuple[Count, Count]
    pixels: Annotated[list[tuple[Byte, Count]], Field(max_length=256)]
    digests: tuple[Number, Number, Number]
    near_hash: Number | None
    objects: Annotated[list[tuple[Byte, Count, Count]], Field(max_length=256)]

    @property
    def content(self) -> Content:
        """The same as it was measured."""
        checksum, image, target = self.digests
        return Content(self.size, dict(self.pixels), checksum, (image, self.near_hash), target, self.near_hash)

    def is_sound(self, num_classes: int) -> bool:
        """Return whether it may be of a sample of a dataset."""
        return (sum(count for _, count in self.pixels) == self.size[0] * self.size[1]
                and all(train_id < num_classes or train_id == IGNORE_INDEX for train_id, _ in self.pixels)
                and all(train_id < num_classes and count for train_id, _, count in self.objects))


def make_entry(files: list[FileState], orientation: int, content: Content,
               objects: Sequence[tuple[int, int, int]]) -> Entry:
    """Return what is kept of a sample."""
    return Entry(files, orientation, content.size, list(content.pixels.items()),
                 (content.checksum, content.image_digest[0], content.target_digest), content.near_hash, list(objects))


class _File(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    entries: Annotated[dict[Text, Entry], Field(max_length=10_000_000)]
    remarks: Annotated[dict[Text, list[Message]], Field(max_length=1000)]  # of a dataset, by the digest of its names


class SurveyCache:
    """The entries of a dataset's samples; without effect for one that does not tell what its samples follow from."""

    def __init__(self, dataset: Dataset, instances: str | None) -> None:
        self._path = None
        self._started = time.time_ns()
        self._states: dict[Path, FileState] = {}
        self._origins = [_find_origin(dataset, index) for index in range(len(dataset.names))]
        origins = list(dict.fromkeys(origin for origin, _ in self._origins))
        self._known = _File(entries={}, remarks={})
        if not self._origins or not all(origin.settings and _is_own(origin) for origin in origins):
            return
        first, place = self._origins[0]
        if first.list_sources(place) is None or dataset.form.channels is not None:
            return  # rasters may have files beside them that nobody names
        numbers = {origin: number for number, origin in enumerate(origins)}
        self._names = [_escape(f"{numbers[origin]}:{origin.names[index]}") for origin, index in self._origins]
        self._files = [[self._stat(path) for path in origin.list_sources(index) or ()]
                       for origin, index in self._origins]
        told = [[origin.settings for origin in origins], _list_labels(dataset.labels), instances, repr(dataset.form),
                _digest_code()]
        self._path = find_folder() / f"{sha256(json.dumps(told).encode()).hexdigest()}.json"
        self._all = sha256("\n".join(self._names).encode()).hexdigest()
        self._known = _load(self._path, len(dataset.labels))

    @property
    def remarks(self) -> list[str] | None:
        """What the dataset had to remark when all these samples had been read; None: not known."""
        return None if self._path is None else self._known.remarks.get(self._all)

    def find(self) -> dict[int, Entry]:
        """Return the entries of the samples whose files are as they were, by the samples' numbers."""
        if self._path is None:
            return {}
        found = ((index, self._known.entries.get(name)) for index, name in enumerate(self._names))
        return {index: entry for index, entry in found if entry is not None and entry.files == self._files[index]}

    def list_files(self, index: int) -> list[FileState]:
        """Return the state of a sample's files before it was read."""
        return [] if self._path is None else self._files[index]

    def save(self, entries: dict[int, Entry], remarks: Sequence[str]) -> None:
        """Keep entries, of files that have not just been written; what cannot be written is read again next time."""
        if self._path is None or not entries:
            return
        newest = self._started - SETTLED_NS
        for index, entry in entries.items():
            if all(max(times) < newest for _, _, *times in entry.files):
                self._known.entries[self._names[index]] = entry
        self._known.remarks[self._all] = [_escape(remark) for remark in remarks]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._path, f"{self._path.name}.{uuid.uuid4().hex}.tmp") as temporary, \
                    temporary.open("xb") as file:
                file.write(self._known.model_dump_json().encode())
        except OSError as error:
            log.warning("warning: what was found in the data cannot be kept in %s (%s), so it is read again each time: "
                        "make room, or set the environment variable XDG_CACHE_HOME to another folder",
                        self._path.parent, error)

    def _stat(self, path: Path) -> FileState:
        """Return the state of a file, which several samples may have in common."""
        state = self._states.get(path)
        if state is None:
            name = _escape(str(path.absolute()))
            try:
                found = path.stat()
                state = (name, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            except OSError:
                state = (name, -1, 0, 0)
            self._states[path] = state
        return state


def find_folder() -> Path:
    """Return the folder of all surveys: segtrain/surveys below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segtrain" / "surveys"


def _escape(name: str) -> str:
    """Return a name as text that JSON takes: on Linux it may be of any bytes."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _load(path: Path, num_classes: int) -> _File:
    """Read what is kept; nothing, if it is not there or not what it must be."""
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
        known = _File.model_validate_json(data if len(data) <= MAX_BYTES else b"")
    except (OSError, ValueError, RecursionError):
        return _File(entries={}, remarks={})
    return known if all(entry.is_sound(num_classes) for entry in known.entries.values()) else _File(
        entries={}, remarks={})


def _find_origin(dataset: Dataset, index: int) -> tuple[Dataset, int]:
    """Return the dataset that reads a sample's files, and its number there."""
    while isinstance(dataset, View):
        dataset, index = dataset.source(index)
    return dataset, index


def _is_own(dataset: Dataset) -> bool:
    """Return whether a dataset is of a class of segtrain's: others may read what they do not tell."""
    return type(dataset).__module__.startswith("segtrain.")


def _list_labels(labels: Sequence[Label]) -> list[dict[str, object]]:
    return [asdict(label) for label in labels]


@cache
def _digest_code() -> str:
    """Return a digest of what reads the files: other code or libraries may see something else in them."""
    root = Path(__file__).parents[1]
    files = [file for name in CODE for file in ([root / name] if name.endswith(".py") else sorted(
        (root / name).rglob("*.py")))]
    digest = sha256(f"{PIL.__version__} {cv2.__version__} {np.__version__}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
