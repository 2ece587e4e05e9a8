"""What is wrong with a dataset, as findings: errors, with which training would fail, and warnings."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.datasets.base import Dataset
from segtrain.datasets.checkup import Content, Seen, Split, class_pixels, paths_of
from segtrain.datasets.duplicates import nearest_hash, same
from segtrain.datasets.pictures import PICTURE_SUFFIXES
from segtrain.datasets.survey import all_void

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ERROR or WARNING.
        kind: A word that findings of one kind share.
        splits: Where it was found.
        message: What it is, with its file or key.
        files: All files concerned.
    """

    severity: str
    kind: str
    splits: list[str]
    message: str
    files: list[str]


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, those that several splits share only once: of a class file, of the whole dataset."""
    found: dict[tuple[str, str, str], Finding] = {}
    for each in findings:
        key = (each.severity, each.kind, each.message)
        found[key] = replace(found[key], splits=[*found[key].splits, *each.splits]) if key in found else each
    return list(found.values())


def in_split(split: Split, crop: Sequence[int]) -> list[Finding]:
    """Return what is wrong within one split; `crop` is the height and width of dataset.crop."""
    def finding(severity: str, kind: str, message: str, files: Iterable[str] = ()) -> Finding:
        return Finding(severity, kind, [split.name], message, list(files))

    found = [finding(ERROR, "unusable", each.fault, [each.file]) for each in split.seen if each.fault is not None]
    used = _used(split)
    if used and not any(content.labelled for _, content in used):
        return [*found, finding(ERROR, "all_void", all_void(len(used), used[0][0].file))]
    found += [finding(WARNING, "void", f"{each.file} is void in every pixel: remove it, or label it.", [each.file])
              for each, content in used if not content.labelled]
    found += [finding(WARNING, "flat", f"{each.image} has hardly any contrast: look whether it is blank.",
                      [each.image]) for each, content in used if content.near_hash is None]
    effect = "it cannot be learnt" if split.name == "train" else "it is not scored"
    found += [finding(WARNING, "absent_class", f"no pixel of {split.name} is of the class {label.name}: {effect}.")
              for label, count in zip(split.labels, class_pixels(split), strict=True) if used and not count]
    found += [finding(WARNING, "remark", remark) for remark in split.remarks]
    return [*found, *_sizes(split, crop), *_same_within(split)]


def _used(split: Split) -> list[tuple[Seen, Content]]:
    return [(each, each.content) for each in split.seen if each.content is not None]


def _sizes(split: Split, crop: Sequence[int]) -> list[Finding]:
    used = _used(split)
    found = []
    sizes = Counter(content.size for _, content in used)
    if len(sizes) > 1:
        (height, width), count = sizes.most_common(1)[0]
        other = [each.file for each, content in used if content.size != (height, width)]
        found.append(Finding(
            WARNING, "sizes", [split.name], f"the images of {split.name} have {len(sizes)} sizes: {count} are "
            f"{width}x{height}, {len(other)} are not, the first is {other[0]}. Validation takes those of one size at "
            "once.", other))
    small = [each.file for each, content in used if content.size[0] < crop[0] or content.size[1] < crop[1]]
    if small and split.name == "train":
        found.append(Finding(
            WARNING, "smaller_than_crop", [split.name], f"{len(small)} of {len(used)} images are smaller than "
            f"dataset.crop={list(crop)} and padded with void in training, the first is {small[0]}.", small))
    return found


def _same_within(split: Split) -> list[Finding]:
    used = _used(split)
    found = []
    for group in same([content.image_digest for _, content in used]):
        files = [used[place][0].image for place in group]
        masks = "with the same mask" if len({used[place][1].target_digest for place in group}) == 1 else (
            "with different masks, which contradict each other")
        found.append(Finding(WARNING, "duplicate", [split.name], f"{' and '.join(files)} are the same image, {masks}: "
                             "keep one of them.", files))
    return found


# ---- from split to split


def across_splits(splits: Sequence[Split], near_distance: int | None) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Look for images of one split that stand in another, too.

    Args:
        splits: In their order, train first: each is compared with those before it.
        near_distance: Most bits in which the hashes of near-duplicates differ; None: only the same images are found.

    Returns:
        The findings; and for each pair of splits a summary: how many images of one are in the other.
    """
    findings: list[Finding] = []
    leaks: list[dict[str, Any]] = []
    for first, second in combinations(splits, 2):
        exact = _exact(first, second)
        near = [] if near_distance is None else _near(first, second, near_distance)
        total = len(second.usable)
        count = sum(len(each.files) - 1 for each in exact) + len(near)
        findings += exact + near
        leaks.append({"of": second.name, "in": first.name, "images": total,
                      "exact": sum(len(each.files) - 1 for each in exact),
                      "near": None if near_distance is None else len(near), "near_distance": near_distance,
                      "share": count / total if total else None})
    return findings, leaks


def _exact(first: Split, second: Split) -> list[Finding]:
    """Return a finding for each image of the first split that is in the second; its files start with that image."""
    known = {content.image_digest: each.image for each, content in _used(first)}
    copies: dict[bytes, list[str]] = {}
    for each, content in _used(second):
        if content.image_digest in known:
            copies.setdefault(content.image_digest, []).append(each.image)
    return [Finding(WARNING, "duplicate_across", [first.name, second.name],
                    f"{known[key]} ({first.name}) and {' and '.join(files)} ({second.name}) are the same image: the "
                    "scores come out too good, keep it in one split.", [known[key], *files])
            for key, files in copies.items()]


def _near(first: Split, second: Split, most: int) -> list[Finding]:
    same_images = {content.image_digest for content in first.usable}
    hashed = [(each.image, content.near_hash) for each, content in _used(first) if content.near_hash is not None]
    if not hashed:
        return []
    hashes = np.array([near_hash for _, near_hash in hashed], dtype=np.uint64)
    found = []
    for each, content in _used(second):
        if content.near_hash is None or content.image_digest in same_images:
            continue
        place, distance = nearest_hash(content.near_hash, hashes)
        if distance <= most:
            found.append(Finding(
                WARNING, "near_duplicate", [first.name, second.name], f"{each.image} ({second.name}) looks like "
                f"{hashed[place][0]} ({first.name}): {distance} of 64 bits of their hashes differ.",
                [hashed[place][0], each.image]))
    return found


# ---- files that no sample uses


def unused_files(datasets: Sequence[Dataset]) -> list[Finding]:
    """Return the pictures that lie among the masks and belong to no sample: masks without an image.

    Only datasets that tell the files of their samples can be asked.
    """
    used: set[Path] = set()
    folders: dict[Path, None] = {}
    for dataset in datasets:
        for index in range(len(dataset.names)):
            image, mask = paths_of(dataset, index)
            used |= {path for path in (image, mask) if path is not None}
            if mask is not None:
                folders[mask.parent] = None
    found = []
    for folder in folders:
        alone = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES
                       and not path.name.startswith(".") and path not in used)
        if alone:
            found.append(Finding(WARNING, "unused", [], f"{len(alone)} pictures in {folder}, among the masks, belong "
                                 f"to no sample that was read, the first is {alone[0]}: add its image, or leave it.",
                                 [str(path) for path in alone]))
    return found
