"""Compare the samples of a split with those that a checkpoint was trained and chosen on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

from segtrain.config.schema import Config
from segtrain.data.base import Dataset
from segtrain.data.statistics import compute_statistics
from segtrain.errors import list_first
from segtrain.labels import Label


@dataclass(frozen=True)
class SampleChanges:
    """What differs in a split; false if nothing does."""

    changed: list[str]  # files whose image, mask, or what its values mean are not what they were
    missing: list[str]  # names
    new: list[str]  # files

    def __bool__(self) -> bool:
        return any((self.changed, self.missing, self.new))

    def __str__(self) -> str:
        kinds = (("changed", self.changed), ("missing", self.missing), ("new", self.new))
        return ", ".join(f"{len(items)} {kind} ({list_first(items)})" for kind, items in kinds if items)


def record_names(data: Dataset) -> list[str]:
    """Return the names of the samples as a checkpoint holds them: what is not UTF-8 in them is escaped."""
    return [name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in data.names]


def find_changed_samples(saved: Mapping[str, Any], split: str, data: Dataset,
                         digests: Sequence[int] | None = None) -> SampleChanges:
    """Compare a split with what a checkpoint records of it; one that it does not record has no changes.

    Args:
        saved: The checkpoint.
        digests: Of the content of each sample, `DatasetStatistics.digests`; None: compare the names only.
    """
    former = saved.get("names", {}).get(split)
    if former is None:
        return SampleChanges([], [], [])
    places = {name: index for index, name in enumerate(record_names(data))}
    known = dict(zip(former, saved["samples"][split], strict=True))
    changed = [index for name, index in places.items()
               if digests is not None and name in known and digests[index] != known[name]]
    new = [index for name, index in places.items() if name not in known]
    return SampleChanges([data.locate(index) for index in changed], [name for name in former if name not in places],
                         [data.locate(index) for index in new])


def list_classes(labels: Sequence[Label]) -> list[list[Any]]:
    """Return what scores take from the classes beside their pixels: names, which have instances, categories."""
    return sorted([label.name, label.has_instances, label.category] for label in labels)


def digest_split(data: Dataset, digests: Sequence[int]) -> str:
    """Return one digest of a split: its classes, its names, and the content of its samples."""
    content = [list_classes(data.labels), list(data.names), list(digests)]
    return sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Split:
    key: str  # what its content follows from
    data: Dataset = field(compare=False)


def read_digests(cfg: Config[Any], split: str, data: Dataset) -> list[int]:
    """Return the digests of a split's samples; the jobs of a sweep that share it read it once.

    Args:
        data: The split that cfg describes, its classes in any order.
    """
    files = [path for index in range(len(data.names)) for path in data.paths(index) if path and path.exists()]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = json.dumps([cfg.dataset.plain(), split, [asdict(label) for label in data.labels], data.names, stats])
    return _read_digests(_Split(key, data))


@lru_cache(maxsize=4)
def _read_digests(split: _Split) -> list[int]:
    return compute_statistics(split.data, None, may_be_void=True).digests
