"""What is wrong with a dataset, as findings: errors, with which training would fail, and warnings."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.base import Dataset
from segtrain.data.doctor.hashes import differing_bits, find_equal, nearest_hash
from segtrain.data.doctor.inspection import Content, Split, class_pixels, usable_samples
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.data.statistics import all_void

ERROR, WARNING = "error", "warning"
BLENDED = 0.15  # of the boundaries: interpolation leaves 0.17 and more, drawn masks have 0.1 at most


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


def merge_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, those that several splits share only once: of a class file, of the whole dataset."""
    found: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = (finding.severity, finding.kind, finding.message)
        found[key] = (replace(found[key], splits=[*found[key].splits, *finding.splits]) if key in found else finding)
    return list(found.values())


def check_split(split: Split, crop: Sequence[int]) -> list[Finding]:
    """Return what is wrong within one split; `crop` is the height and width of dataset.crop."""
    def finding(severity: str, kind: str, message: str, files: Iterable[str] = ()) -> Finding:
        return Finding(severity, kind, [split.name], message, list(files))

    found = [finding(ERROR, "unusable", seen.fault, [seen.file]) for seen in split.seen if seen.fault is not None]
    used = usable_samples(split)
    if used and not any(content.labelled for _, content in used):
        return [*found, finding(ERROR, "all_void", all_void(len(used), used[0][0].file))]
    found += [finding(WARNING, "void", f"{seen.file} is void in every pixel: remove it, or label it.", [seen.file])
              for seen, content in used if not content.labelled]
    found += [finding(WARNING, "flat", f"{seen.image} has hardly any contrast: look whether it is blank.",
                      [seen.image]) for seen, content in used if content.near_hash is None]
    pixels = dict(zip([label.name for label in split.labels], class_pixels(split), strict=True))
    shown = [name for name, count in pixels.items() if count]
    effect = "it cannot be learnt" if split.name == "train" else "it is not scored"
    if 2 * len(used) < len(split.seen):
        pass  # what most images are refused for comes first: the few others say little about the classes
    elif len(shown) == 1 and len(pixels) > 1:
        first = used[0][0].file
        found.append(finding(WARNING, "one_class", f"every labelled pixel of {split.name} is {shown[0]}, the first "
                             f"mask is {first}: there is nothing to tell apart; look how the masks are saved, and "
                             "what is void.", [first]))
    elif shown:
        found += [finding(WARNING, "absent_class", f"no pixel of {split.name} is of the class {name}: {effect}.")
                  for name, count in pixels.items() if not count]
    found += [finding(WARNING, "remark", remark) for remark in split.remarks]
    return [*found, *_sizes(split, crop), *_same_within(split), *_suspicious(split), *_kinds(split)]


def _sizes(split: Split, crop: Sequence[int]) -> list[Finding]:
    used = usable_samples(split)
    found = []
    sizes = Counter(content.size for _, content in used)
    if len(sizes) > 1:
        (height, width), count = sizes.most_common(1)[0]
        other = [seen.file for seen, content in used if content.size != (height, width)]
        found.append(Finding(
            WARNING, "sizes", [split.name], f"the images of {split.name} have {len(sizes)} sizes: {count} are "
            f"{width}x{height}, {len(other)} are not, the first is {other[0]}. Validation takes those of one size at "
            "once.", other))
    small = [seen.image for seen, content in used if content.size[0] < crop[0] or content.size[1] < crop[1]]
    if small and split.name == "train":
        found.append(Finding(
            WARNING, "smaller_than_crop", [split.name], f"{len(small)} of {len(used)} images are smaller than "
            f"dataset.crop={list(crop)} and padded with void in training, the first is {small[0]}.", small))
    return found


def _suspicious(split: Split) -> list[Finding]:
    """Return files that can be read, and look as if they had been damaged before."""
    def finding(kind: str, message: str, files: list[str]) -> Finding:
        return Finding(WARNING, kind, [split.name], message, files)

    found = []
    for seen, content in usable_samples(split):
        if content.grey_rows >= max(8, content.size[0] // 16):
            found.append(finding("cut_off", f"{seen.image} is grey, #808080, in its lowest {content.grey_rows} of "
                                 f"{content.size[0]} rows, as a JPEG that was cut off: fetch it anew, or remove it.",
                                 [seen.image]))
        if content.blended is not None and content.blended > BLENDED:
            found.append(finding("interpolated", f"{seen.file} has values in between at {100 * content.blended:.0f} % "
                                 "of the boundaries of its classes, as a mask that was resized with interpolation: "
                                 "save it anew, resized with nearest.", [seen.file]))
        if content.mixed_objects:
            found.append(finding("mixed_objects", f"{content.mixed_objects} of the {content.num_objects} objects in "
                                 f"the instance map of {seen.file} lie on several classes, a tenth or more outside "
                                 "their own: look whether the map belongs to this mask.", [seen.file]))
    names: dict[tuple[int, int, int], list[str]] = {}
    for label in split.labels:
        names.setdefault(label.color, []).append(label.name)
    found += [finding("same_color", f"the classes {' and '.join(doubled)} have the same colour: no image tells them "
                      "apart; give each its own in the class file.", []) for doubled in names.values()
              if len(doubled) > 1]
    turned = [seen for seen, _ in usable_samples(split) if seen.orientation != 1]
    if turned:
        found.append(finding("exif", f"{len(turned)} images of {split.name} are turned or mirrored as their EXIF "
                             f"orientation says, the first is {turned[0].image} ({turned[0].orientation}): their masks "
                             "must show the upright view; look at them, or save the images upright.",
                             [seen.image for seen in turned]))
    return found


def _kinds(split: Split) -> list[Finding]:
    """Return the files whose mode or bits are not those of most others, whatever their format."""
    found = []
    for what in ("image", "mask"):
        kinds = {seen.image if what == "image" else seen.file: kind.partition(", ")[2]
                 for seen, _ in usable_samples(split)
                 if (kind := seen.image_kind if what == "image" else seen.mask_kind) is not None}
        counts = Counter(kinds.values())
        if len(counts) > 1:
            usual, count = counts.most_common(1)[0]
            files = [file for file, kind in kinds.items() if kind != usual]
            found.append(Finding(
                WARNING, f"{what}_kinds", [split.name], f"{count} {what}s of {split.name} are {usual}, {len(files)} "
                f"are not, the first is {files[0]} ({kinds[files[0]]}): look whether they show the same.", files))
    return found


def _same_within(split: Split) -> list[Finding]:
    used = usable_samples(split)
    found = []
    for group in find_equal([content.image_digest for _, content in used]):
        files = [used[place][0].image for place in group]
        masks = "with the same mask" if len({used[place][1].target_digest for place in group}) == 1 else (
            "with different masks, which contradict each other")
        found.append(Finding(WARNING, "duplicate", [split.name], f"{' and '.join(files)} are the same image, {masks}: "
                             "keep one of them.", files))
    return found


# ---- files that no sample uses


def find_unused_files(datasets: Sequence[Dataset]) -> list[Finding]:
    """Return the images that lie among the masks and belong to no sample: masks without an image.

    Only datasets that tell the files of their samples can be asked.
    """
    used: set[Path] = set()
    endings: dict[Path, set[str]] = {}  # by folder, what masks are called behind their samples: "", "_mask", "_L"
    for dataset in datasets:
        for index, name in enumerate(dataset.names):
            image, mask = dataset.paths(index)
            used |= {path for path in (image, mask) if path is not None}
            if mask is not None:
                last = name.rpartition("/")[2]
                endings.setdefault(mask.parent, set()).add(
                    mask.stem.removeprefix(last) if mask.stem.startswith(last) else "")
    found = []
    for folder, known in endings.items():
        alone = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
                       and path.stem.endswith(tuple(known)) and not path.name.startswith(".") and path not in used
                       and not path.is_dir())
        if alone:
            found.append(Finding(WARNING, "unused", [], f"{len(alone)} images in {folder}, among the masks, belong "
                                 f"to no sample that was read, the first is {alone[0]}: add its image, or leave it.",
                                 [str(path) for path in alone]))
    return found


# ---- between splits


def compare_splits(splits: Sequence[Split], near_distance: int | None) -> tuple[list[Finding], list[dict[str, Any]]]:
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
        count = sum(len(finding.files) - 1 for finding in exact) + len(near)
        findings += exact + near
        leaks.append({"of": second.name, "in": first.name, "images": total,
                      "exact": sum(len(finding.files) - 1 for finding in exact),
                      "near": None if near_distance is None else len(near), "near_distance": near_distance,
                      "share": count / total if total else None})
    return findings, leaks


def _exact(first: Split, second: Split) -> list[Finding]:
    """Return a finding for each image of the first split that is in the second; its files start with that image."""
    known = {content.image_digest: (seen.image, content.target_digest) for seen, content in usable_samples(first)}
    copies: dict[bytes, list[str]] = {}
    contradicted: set[bytes] = set()
    for seen, content in usable_samples(second):
        if content.image_digest in known:
            copies.setdefault(content.image_digest, []).append(seen.image)
            if content.target_digest != known[content.image_digest][1]:
                contradicted.add(content.image_digest)
    return [Finding(WARNING, "duplicate_across", [first.name, second.name],
                    f"{known[key][0]} ({first.name}) and {' and '.join(files)} ({second.name}) are the same "
                    f"image{', with different masks' if key in contradicted else ''}: the scores come out "
                    f"{'wrong' if key in contradicted else 'too good'}, keep it in one split.", [known[key][0], *files])
            for key, files in copies.items()]


def _near(first: Split, second: Split, most: int) -> list[Finding]:
    same_images = {content.image_digest for content in first.usable}
    hashed = [(seen.image, content.near_hash) for seen, content in usable_samples(first)
              if content.near_hash is not None]
    if not hashed:
        return []
    hashes = np.array([near_hash for _, near_hash in hashed], dtype=np.uint64)
    found = []
    for seen, content in usable_samples(second):
        if content.near_hash is None or content.image_digest in same_images:
            continue
        place, distance = nearest_hash(content.near_hash, hashes)
        if distance <= most:
            found.append(Finding(
                WARNING, "near_duplicate", [first.name, second.name], f"{seen.image} ({second.name}) looks like "
                f"{hashed[place][0]} ({first.name}): {distance} of 64 bits of their hashes differ.",
                [hashed[place][0], seen.image]))
    return found


def find_unlearnt_classes(splits: Sequence[Split]) -> list[Finding]:
    """Return the classes that train lacks and another split shows."""
    train = next((split for split in splits if split.name == "train" and split.usable), None)
    if train is None:
        return []
    absent = [label for label, count in zip(train.labels, class_pixels(train), strict=True) if not count]
    found = []
    for split in splits:
        for label in absent:
            files = [seen.file for seen, content in usable_samples(split) if label.train_id in content.pixels]
            if files:
                found.append(Finding(
                    WARNING, "unlearnt_class", ["train", split.name], f"no image of train shows the class "
                    f"{label.name}, but {len(files)} of {split.name} do, the first is {files[0]}: move some to train, "
                    "or leave the class out.", files))
    return found


def find_same_masks(splits: Sequence[Split], near_distance: int) -> list[Finding]:
    """Return masks that are the same, pixel by pixel, for images that are not; plain masks may well be.

    Args:
        splits: All of them; the masks may lie in one or in several.
        near_distance: Most bits in which the hashes of images differ that count as one.
    """
    used = [(split.name, seen, content) for split in splits for seen, content in usable_samples(split)
            if not content.is_plain]
    found = []
    for group in find_equal([content.target_digest for _, _, content in used]):
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
