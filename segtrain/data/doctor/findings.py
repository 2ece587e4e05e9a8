"""What is wrong with a dataset, as findings: errors, with which training would fail, and warnings."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.base import Dataset
from segtrain.data.checks import DOCTOR, READ, SURVEYED, WARNED, check
from segtrain.data.hashes import find_equal, find_nearest_hash
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.data.statistics import describe_all_void, describe_one_class
from segtrain.data.survey import Content, Split

ERROR, WARNING = "error", "warning"
BLENDED = 0.15  # of the boundaries: interpolation leaves 0.17 and more, drawn masks have 0.1 at most


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with its file or key in the message."""

    severity: str  # ERROR or WARNING
    kind: str  # a word that findings of one kind share
    splits: list[str]  # where it was found
    message: str
    files: list[str] = field(default_factory=list)  # all that are concerned


def find_all(splits: Sequence[Split], datasets: Mapping[str, Dataset], crop: Sequence[int], near_distance: int | None,
             *, find_unused: bool, others: Sequence[Finding] = ()) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Return what is wrong with a dataset, as far as its splits were looked at, and the summary of `compare_splits`.

    Args:
        splits: The splits, of the doctor, or of a training, which looks less closely.
        datasets: Their datasets, by name.
        crop: Height and width of dataset.crop.
        near_distance: See `compare_splits`.
        find_unused: Whether to look for files that no sample uses.
        others: What was found before.
    """
    across, leaks = compare_splits(splits, near_distance)
    found = [*others, *(finding for split in splits for finding in check_split(split, crop)), *across,
             *find_same_masks(splits, near_distance or 0), *find_unlearnt_classes(splits),
             *(find_unused_files(list(datasets.values())) if find_unused else ())]
    return _merge(found), leaks


def _merge(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, those that several splits share only once: of a class file, of the whole dataset."""
    found: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = (finding.severity, finding.kind, finding.message)
        found[key] = (replace(found[key], splits=[*found[key].splits, *finding.splits]) if key in found else finding)
    return list(found.values())


@check(READ, "samples that cannot be used", kind="unusable")
@check(SURVEYED, "splits in which every pixel is void", kind="all_void")
@check(SURVEYED, "training data of one class", kind="one_class")
@check(SURVEYED, "what was left out or settled: images without a mask, rests, overlaps, splits that may leak",
       then=WARNED, kind="remark")
def check_split(split: Split, crop: Sequence[int]) -> list[Finding]:
    """Return what is wrong within one split; `crop` is the height and width of dataset.crop."""
    found = [Finding(ERROR, "unusable", [split.name], seen.fault, [seen.file]) for seen in split.seen
             if seen.fault is not None]
    used = split.usable
    if used and not any(content.labelled for _, content in used):
        return [*found, Finding(ERROR, "all_void", [split.name], describe_all_void(len(used), used[0][0].file))]
    shown = split.shown_classes
    if split.name == "train" and len(shown) == 1 and len(used) == len(split.seen):
        first = used[0][0].file
        found.append(Finding(ERROR, "one_class", [split.name], describe_one_class(shown[0], first), [first]))
    warnings = [*_check_samples(split), *_check_classes(split), *(("remark", text, []) for text in split.remarks),
                *_check_sizes(split, crop), *_check_orientation(split), *_check_kinds(split), *_find_duplicates(split)]
    return [*found, *(Finding(WARNING, kind, [split.name], text, files) for kind, text, files in warnings)]


_Warnings = Iterator[tuple[str, str, list[str]]]  # kind, message and files of each


@check(SURVEYED, "images that are void in every pixel", then=WARNED, kind="void")
@check(SURVEYED, "images without contrast", then=WARNED, kind="flat")
@check(DOCTOR, "JPEGs that were cut off", then=WARNED, kind="cut_off")
@check(DOCTOR, "masks resized with interpolation", then=WARNED, kind="interpolated")
@check(DOCTOR, "instance maps whose objects lie on several classes", then=WARNED, kind="mixed_objects")
def _check_samples(split: Split) -> _Warnings:
    """Find files that can be read, and look as if they were damaged, or as if nothing could be learnt from them."""
    for seen, content in split.usable:
        if not content.labelled:
            yield "void", f"{seen.file} is void in every pixel: label it, or remove the sample.", [seen.file]
        if content.near_hash is None:
            yield "flat", f"{seen.image} has hardly any contrast: look whether it is blank.", [seen.image]
        if content.grey_rows >= max(8, content.size[0] // 16):
            yield "cut_off", (f"{seen.image} is grey, #808080, in its lowest {content.grey_rows} of {content.size[0]} "
                              "rows, as a JPEG that was cut off: download it again, or remove it."), [seen.image]
        if content.blended is not None and content.blended > BLENDED:
            yield "interpolated", (f"{seen.file} has values in between at {100 * content.blended:.0f} % of the "
                                   "boundaries of its classes, as a mask that was resized with interpolation: save it "
                                   "again, resized with nearest."), [seen.file]
        if content.mixed_objects:
            yield "mixed_objects", (f"{content.mixed_objects} of the {content.num_objects} objects in the instance map "
                                    f"of {seen.file} lie on several classes, a tenth or more outside their own: look "
                                    "whether the map belongs to this mask."), [seen.file]


@check(SURVEYED, "validation data of one class", then=WARNED, kind="one_class")
@check(SURVEYED, "classes that a split never shows", then=WARNED, kind="absent_class")
@check(SURVEYED, "classes of the same color", then=WARNED, kind="same_color")
def _check_classes(split: Split) -> _Warnings:
    shown = split.shown_classes
    if 2 * len(split.usable) < len(split.seen):
        pass  # what most images are refused for comes first: the few others say little about the classes
    elif len(shown) == 1 and len(split.labels) > 1 and split.name != "train":
        first = split.usable[0][0].file
        yield "one_class", (f"every labelled pixel of {split.name} is {shown[0]}, the first mask is {first}: look how "
                            "the masks are saved, and what is void."), [first]
    elif len(shown) > 1:
        effect = "it cannot be learnt" if split.name == "train" else "it is not scored"
        for label in split.labels:
            if label.name not in shown:
                yield "absent_class", f"no pixel of {split.name} is of the class {label.name}: {effect}.", []
    for group in find_equal([label.color for label in split.labels]):
        yield "same_color", (f"the classes {' and '.join(split.labels[place].name for place in group)} have the same "
                             "colour: no image tells them apart; give each its own in the class file."), []


@check(SURVEYED, "images of several sizes", then=WARNED, kind="sizes")
@check(SURVEYED, "training images smaller than dataset.crop", then=WARNED, kind="smaller_than_crop")
def _check_sizes(split: Split, crop: Sequence[int]) -> _Warnings:
    sizes = Counter(content.size for content in split.contents)
    if len(sizes) > 1:
        (height, width), count = sizes.most_common(1)[0]
        other = [seen.file for seen, content in split.usable if content.size != (height, width)]
        yield "sizes", (f"the images of {split.name} have {len(sizes)} sizes: {count} are {width}x{height}, "
                        f"{len(other)} are not, the first is {other[0]}. Validation takes those of one size at once."
                        ), other
    small = [seen.image for seen, content in split.usable if content.size[0] < crop[0] or content.size[1] < crop[1]]
    if small and split.name == "train":
        yield "smaller_than_crop", (f"{len(small)} of {len(split.usable)} images are smaller than dataset.crop="
                                    f"{list(crop)} and padded with void in training, the first is {small[0]}."), small


@check(SURVEYED, "images turned as their EXIF orientation says", then=WARNED, kind="exif")
def _check_orientation(split: Split) -> _Warnings:
    turned = [seen for seen, _ in split.usable if seen.orientation != 1]
    if turned:
        yield "exif", (f"{len(turned)} images of {split.name} are turned or mirrored as their EXIF orientation says, "
                       f"the first is {turned[0].image} ({turned[0].orientation}): their masks must show the upright "
                       "view; look at them, or save the images upright."), [seen.image for seen in turned]


@check(DOCTOR, "images of another mode or depth than most", then=WARNED, kind="image_kinds")
@check(DOCTOR, "masks of another mode or depth than most", then=WARNED, kind="mask_kinds")
def _check_kinds(split: Split) -> _Warnings:
    """Find the files whose mode or bits are not those of most others, ignoring the format."""
    images = {seen.image: seen.image_kind for seen, _ in split.usable if seen.image_kind is not None}
    masks = {seen.file: seen.mask_kind for seen, _ in split.usable if seen.mask_kind is not None}
    for what, described in (("image", images), ("mask", masks)):
        kinds = {file: kind.partition(", ")[2] for file, kind in described.items()}
        counts = Counter(kinds.values())
        if len(counts) > 1:
            usual, count = counts.most_common(1)[0]
            files = [file for file, kind in kinds.items() if kind != usual]
            yield f"{what}_kinds", (f"{count} {what}s of {split.name} are {usual}, {len(files)} are not, the first is "
                                    f"{files[0]} ({kinds[files[0]]}): look whether they show the same."), files


@check(SURVEYED, "the same image twice in a split", then=WARNED, kind="duplicate")
def _find_duplicates(split: Split) -> _Warnings:
    used = split.usable
    for group in find_equal([content.image_digest for _, content in used]):
        files = [used[place][0].image for place in group]
        masks = "with the same mask" if len({used[place][1].target_digest for place in group}) == 1 else (
            "with different masks, which contradict each other")
        yield "duplicate", f"{' and '.join(files)} are the same image, {masks}: keep one of them.", files


# ---- files that no sample uses


@check(SURVEYED, "masks that no image uses", then=WARNED, kind="unused")
def find_unused_files(datasets: Sequence[Dataset]) -> list[Finding]:
    """Return the images that lie among the masks and belong to no sample: masks without an image."""
    used: set[Path] = set()
    endings: dict[Path, set[str]] = {}  # by folder, what masks are called behind their samples: "", "_mask", "_L"
    for dataset in datasets:
        for index, name in enumerate(dataset.names):
            image, files, last = dataset.paths(index)[0], dataset.list_files(index), name.rpartition("/")[2]
            used.update(files)
            for mask in files:
                if mask != image:
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
    """Look for images of one split that stand in another, too; each is compared with those before it, train first.

    Returns:
        The findings; and for each pair of splits a summary: how many images of one are in the other. With
        near_distance None only the same images are found, else near-duplicates, whose hashes differ in so many bits.
    """
    findings: list[Finding] = []
    leaks: list[dict[str, Any]] = []
    for first, second in combinations(splits, 2):
        exact = _find_copies(first, second)
        near = [] if near_distance is None else _find_near_duplicates(first, second, near_distance)
        total, copies = len(second.usable), sum(len(finding.files) - 1 for finding in exact)
        findings += exact + near
        leaks.append({"of": second.name, "in": first.name, "images": total, "exact": copies,
                      "near": None if near_distance is None else len(near), "near_distance": near_distance,
                      "share": (copies + len(near)) / total if total else None})
    return findings, leaks


@check(SURVEYED, "the same image in two splits", then=WARNED, kind="duplicate_across")
def _find_copies(first: Split, second: Split) -> list[Finding]:
    """Return a finding for each image of the first split that is in the second; its files start with that image."""
    known = {content.image_digest: (seen.image, content.target_digest) for seen, content in first.usable}
    copies: dict[tuple[int, int | None], list[str]] = {}
    contradicted: set[tuple[int, int | None]] = set()
    for seen, content in second.usable:
        if content.image_digest in known:
            copies.setdefault(content.image_digest, []).append(seen.image)
            if content.target_digest != known[content.image_digest][1]:
                contradicted.add(content.image_digest)
    return [Finding(WARNING, "duplicate_across", [first.name, second.name],
                    f"{known[key][0]} ({first.name}) and {' and '.join(files)} ({second.name}) are the same "
                    f"image{', with different masks' if key in contradicted else ''}: the scores come out "
                    f"{'wrong' if key in contradicted else 'too good'}, keep it in one split.", [known[key][0], *files])
            for key, files in copies.items()]


@check(SURVEYED, "near-duplicates in two splits", then=WARNED, kind="near_duplicate")
def _find_near_duplicates(first: Split, second: Split, most: int) -> list[Finding]:
    same_images = {content.image_digest for content in first.contents}
    hashed = [(seen.image, content.near_hash) for seen, content in first.usable if content.near_hash is not None]
    if not hashed:
        return []
    hashes = np.array([near_hash for _, near_hash in hashed], dtype=np.uint64)
    found = []
    for seen, content in second.usable:
        if content.near_hash is None or content.image_digest in same_images:
            continue
        place, distance = find_nearest_hash(content.near_hash, hashes)
        if distance <= most:
            found.append(Finding(
                WARNING, "near_duplicate", [first.name, second.name], f"{seen.image} ({second.name}) looks like "
                f"{hashed[place][0]} ({first.name}): {distance} of 64 bits of their hashes differ.",
                [hashed[place][0], seen.image]))
    return found


@check(SURVEYED, "classes that train lacks and another split shows", then=WARNED, kind="unlearnt_class")
def find_unlearnt_classes(splits: Sequence[Split]) -> list[Finding]:
    """Return the classes that train lacks and another split shows."""
    train = next((split for split in splits if split.name == "train" and split.usable), None)
    if train is None:
        return []
    absent = [label for label in train.labels if label.name not in train.shown_classes]
    found = []
    for split in splits:
        for label in absent:
            files = [seen.file for seen, content in split.usable if label.train_id in content.pixels]
            if files:
                found.append(Finding(
                    WARNING, "unlearnt_class", ["train", split.name], f"no image of train shows the class "
                    f"{label.name}, but {len(files)} of {split.name} do, the first is {files[0]}: move some to train, "
                    "or leave the class out.", files))
    return found


@check(DOCTOR, "the same mask for different images", then=WARNED, kind="same_mask")
def find_same_masks(splits: Sequence[Split], near_distance: int) -> list[Finding]:
    """Return masks that are the same, pixel by pixel, for images that are not; plain masks may well be.

    Images count as the same whose hashes differ in at most near_distance bits.
    """
    used = [(split.name, seen, content) for split in splits for seen, content in split.usable
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
    return (one.near_hash ^ other.near_hash).bit_count() <= near_distance
