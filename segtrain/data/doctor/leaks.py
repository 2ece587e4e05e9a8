"""What is wrong between splits: images that stand in several, masks of other images, classes that cannot be learnt."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from segtrain.data.doctor.findings import WARNING, Finding
from segtrain.data.doctor.hashes import differing_bits, nearest_hash, same
from segtrain.data.doctor.inspection import Content, Split, class_pixels, used_of


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
    known = {content.image_digest: (each.image, content.target_digest) for each, content in used_of(first)}
    copies: dict[bytes, list[str]] = {}
    contradicted: set[bytes] = set()
    for each, content in used_of(second):
        if content.image_digest in known:
            copies.setdefault(content.image_digest, []).append(each.image)
            if content.target_digest != known[content.image_digest][1]:
                contradicted.add(content.image_digest)
    return [Finding(WARNING, "duplicate_across", [first.name, second.name],
                    f"{known[key][0]} ({first.name}) and {' and '.join(files)} ({second.name}) are the same "
                    f"image{', with different masks' if key in contradicted else ''}: the scores come out "
                    f"{'wrong' if key in contradicted else 'too good'}, keep it in one split.", [known[key][0], *files])
            for key, files in copies.items()]


def _near(first: Split, second: Split, most: int) -> list[Finding]:
    same_images = {content.image_digest for content in first.usable}
    hashed = [(each.image, content.near_hash) for each, content in used_of(first) if content.near_hash is not None]
    if not hashed:
        return []
    hashes = np.array([near_hash for _, near_hash in hashed], dtype=np.uint64)
    found = []
    for each, content in used_of(second):
        if content.near_hash is None or content.image_digest in same_images:
            continue
        place, distance = nearest_hash(content.near_hash, hashes)
        if distance <= most:
            found.append(Finding(
                WARNING, "near_duplicate", [first.name, second.name], f"{each.image} ({second.name}) looks like "
                f"{hashed[place][0]} ({first.name}): {distance} of 64 bits of their hashes differ.",
                [hashed[place][0], each.image]))
    return found


def unlearnt_classes(splits: Sequence[Split]) -> list[Finding]:
    """Return the classes that train lacks and another split shows."""
    train = next((split for split in splits if split.name == "train" and split.usable), None)
    if train is None:
        return []
    absent = [label for label, count in zip(train.labels, class_pixels(train), strict=True) if not count]
    found = []
    for split in splits:
        for label in absent:
            files = [each.file for each, content in used_of(split) if label.train_id in content.pixels]
            if files:
                found.append(Finding(
                    WARNING, "unlearnt_class", ["train", split.name], f"no image of train shows the class "
                    f"{label.name}, but {len(files)} of {split.name} do, the first is {files[0]}: move some to train, "
                    "or leave the class out.", files))
    return found


def same_masks(splits: Sequence[Split], near_distance: int) -> list[Finding]:
    """Return masks that are the same, pixel by pixel, for images that are not; plain masks may well be.

    Args:
        splits: All of them; the masks may lie in one or in several.
        near_distance: Most bits in which the hashes of images differ that count as one.
    """
    used = [(split.name, each, content) for split in splits for each, content in used_of(split)
            if not content.is_plain]
    found = []
    for group in same([content.target_digest for _, _, content in used]):
        first = used[group[0]][2]
        others = [place for place in group if not _alike(first, used[place][2], near_distance)]
        if others:
            files = [used[place][1].file for place in (group[0], *others)]
            found.append(Finding(
                WARNING, "same_mask", list(dict.fromkeys(used[place][0] for place in (group[0], *others))),
                f"{' and '.join(files)} are the same mask, pixel by pixel, but their images differ: look whether one "
                "was saved for another.", files))
    return found


def _alike(one: Content, other: Content, near_distance: int) -> bool:
    if one.near_hash is None or other.near_hash is None:
        return one.image_digest == other.image_digest
    return differing_bits(one.near_hash, other.near_hash) <= near_distance
