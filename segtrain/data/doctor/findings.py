"""What is wrong with a dataset, as findings: errors, with which training would fail, and warnings."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segtrain.data.base import Dataset
from segtrain.data.doctor.hashes import same
from segtrain.data.doctor.inspection import Split, class_pixels, used_of
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
    used = used_of(split)
    if used and not any(content.labelled for _, content in used):
        return [*found, finding(ERROR, "all_void", all_void(len(used), used[0][0].file))]
    found += [finding(WARNING, "void", f"{each.file} is void in every pixel: remove it, or label it.", [each.file])
              for each, content in used if not content.labelled]
    found += [finding(WARNING, "flat", f"{each.image} has hardly any contrast: look whether it is blank.",
                      [each.image]) for each, content in used if content.near_hash is None]
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
    used = used_of(split)
    found = []
    sizes = Counter(content.size for _, content in used)
    if len(sizes) > 1:
        (height, width), count = sizes.most_common(1)[0]
        other = [each.file for each, content in used if content.size != (height, width)]
        found.append(Finding(
            WARNING, "sizes", [split.name], f"the images of {split.name} have {len(sizes)} sizes: {count} are "
            f"{width}x{height}, {len(other)} are not, the first is {other[0]}. Validation takes those of one size at "
            "once.", other))
    small = [each.image for each, content in used if content.size[0] < crop[0] or content.size[1] < crop[1]]
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
    for each, content in used_of(split):
        if content.grey_rows >= max(8, content.size[0] // 16):
            found.append(finding("cut_off", f"{each.image} is grey, #808080, in its lowest {content.grey_rows} of "
                                 f"{content.size[0]} rows, as a JPEG that was cut off: fetch it anew, or remove it.",
                                 [each.image]))
        if content.blended is not None and content.blended > BLENDED:
            found.append(finding("interpolated", f"{each.file} has values in between at {100 * content.blended:.0f} % "
                                 "of the boundaries of its classes, as a mask that was resized with interpolation: "
                                 "save it anew, resized with nearest.", [each.file]))
        if content.mixed_objects:
            found.append(finding("mixed_objects", f"{content.mixed_objects} of the {content.num_objects} objects in "
                                 f"the instance map of {each.file} lie on several classes, a tenth or more outside "
                                 "their own: look whether the map belongs to this mask.", [each.file]))
    names: dict[tuple[int, int, int], list[str]] = {}
    for label in split.labels:
        names.setdefault(label.color, []).append(label.name)
    found += [finding("same_color", f"the classes {' and '.join(doubled)} have the same colour: no picture tells them "
                      "apart; give each its own in the class file.", []) for doubled in names.values()
              if len(doubled) > 1]
    turned = [each for each, _ in used_of(split) if each.orientation != 1]
    if turned:
        found.append(finding("exif", f"{len(turned)} images of {split.name} are turned or mirrored as their EXIF "
                             f"orientation says, the first is {turned[0].image} ({turned[0].orientation}): their masks "
                             "must show the upright view; look at them, or save the images upright.",
                             [each.image for each in turned]))
    return found


def _kinds(split: Split) -> list[Finding]:
    """Return the files whose mode or bits are not those of most others, whatever their format."""
    found = []
    for what in ("image", "mask"):
        kinds = {each.image if what == "image" else each.file: kind.partition(", ")[2]
                 for each, _ in used_of(split)
                 if (kind := each.image_kind if what == "image" else each.mask_kind) is not None}
        counts = Counter(kinds.values())
        if len(counts) > 1:
            usual, count = counts.most_common(1)[0]
            files = [file for file, kind in kinds.items() if kind != usual]
            found.append(Finding(
                WARNING, f"{what}_kinds", [split.name], f"{count} {what}s of {split.name} are {usual}, {len(files)} "
                f"are not, the first is {files[0]} ({kinds[files[0]]}): look whether they show the same.", files))
    return found


def _same_within(split: Split) -> list[Finding]:
    used = used_of(split)
    found = []
    for group in same([content.image_digest for _, content in used]):
        files = [used[place][0].image for place in group]
        masks = "with the same mask" if len({used[place][1].target_digest for place in group}) == 1 else (
            "with different masks, which contradict each other")
        found.append(Finding(WARNING, "duplicate", [split.name], f"{' and '.join(files)} are the same image, {masks}: "
                             "keep one of them.", files))
    return found


# ---- files that no sample uses


def unused_files(datasets: Sequence[Dataset]) -> list[Finding]:
    """Return the pictures that lie among the masks and belong to no sample: masks without an image.

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
            found.append(Finding(WARNING, "unused", [], f"{len(alone)} pictures in {folder}, among the masks, belong "
                                 f"to no sample that was read, the first is {alone[0]}: add its image, or leave it.",
                                 [str(path) for path in alone]))
    return found
