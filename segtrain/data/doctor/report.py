"""The report of task=doctor: what to set for a dataset, and all that was found as text for a terminal."""

import math
from collections.abc import Sequence
from typing import Any

from segtrain.data.color_masks import to_hex
from segtrain.data.doctor.findings import Finding
from segtrain.data.doctor.inspection import collect_mask_values
from segtrain.data.survey import Split
from segtrain.labels import IGNORE_INDEX
from segtrain.losses import compute_class_weights
from segtrain.terminal import percent, table

STEP = 32  # every network here halves a crop at most five times
MOST_PIXELS = 512 * 1024  # what a training crop of Cityscapes has
SHOWN = 5  # findings of a kind, and files of a finding; the report has them all


def recommend(train: Split) -> dict[str, Any]:
    """Return what to set, from the training split: crop, mean, std, class weights by class name, and what is void.

    A value without data to compute it from is None.
    """
    names = [label.name for label in train.labels]
    pixels, around = train.class_pixels, train.image_pixels
    weights = {}
    for kind in ("enet", "median_frequency"):
        found = compute_class_weights(kind, pixels, around) if any(pixels) else None
        weights[kind] = None if found is None else dict(zip(names, found.tolist(), strict=True))
    mean, std = _compute_mean_std(train)
    return {"crop": _recommend_crop(train), "mean": mean, "std": std, "class_weights": weights,
            "void": _find_void(train)}


def _recommend_crop(train: Split) -> list[int] | None:
    """Return the largest crop (height, width) that fits into every image, its sides multiples of 32."""
    if not train.contents:
        return None
    sides = [min(content.size[axis] for content in train.contents) for axis in (0, 1)]
    scale = min(1.0, math.sqrt(MOST_PIXELS / math.prod(sides)))
    return [max(STEP, int(side * scale) // STEP * STEP) for side in sides]


def _compute_mean_std(train: Split) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and standard deviation of x/255 over all pixels, for red, green and blue."""
    count = sum(math.prod(content.size) for content in train.contents if content.sums)
    if not count:
        return None, None
    mean, std = [], []
    for channel in range(3):
        total = sum(content.sums[channel] for content in train.contents)
        squares = sum(content.squares[channel] for content in train.contents)
        mean.append(round(total / count / 255, 4))
        std.append(round(math.sqrt(squares * count - total * total) / count / 255, 4))  # whole numbers: no cancellation
    return mean, std


def _find_void(train: Split) -> dict[str, Any]:
    """Return the share of void, the values of mask files that became void, and those that may have to.

    The latter occur in refused masks only and are not classes: they belong in dataset.void or the table of classes.
    """
    total = sum(math.prod(content.size) for content in train.contents)
    void = sum(content.pixels.get(IGNORE_INDEX, 0) for content in train.contents)
    classes = {value for label in train.labels for value in (*map(str, label.ids), *map(to_hex, label.colors))}
    known = set(collect_mask_values([seen for seen in train.seen if seen.content is not None]))
    refused = collect_mask_values([seen for seen in train.seen if seen.content is None])
    return {
        "index": IGNORE_INDEX, "share": void / total if total else None,
        # without void, values that are not classes have a meaning: the 255 of a black and white mask
        "values": sorted(int(value) for value in known - classes if value.isdigit()) if void else [],
        "only_in_refused": {value: entry for value, entry in refused.items() if value not in known | classes},
    }


def format_tables(results: dict[str, Any]) -> str:
    """Write what was found in the splits: files, classes, duplicates, and what to set."""
    parts = [_format_files(results), _format_classes(results), _format_leaks(results), _format_advice(results)]
    parts += [f"{split} is left out: {why}" for split, why in results["left_out"].items()]
    return "\n".join(f"{part}\n" for part in parts if part)


def format_findings(findings: Sequence[Finding], most: int = SHOWN, elsewhere: str = "see the report") -> str:
    """Write the findings by severity and kind, the first of each kind, and `elsewhere` behind the number of others."""
    if not findings:
        return "no errors, no warnings"
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.severity):  # errors before warnings
        groups.setdefault((finding.severity, finding.kind), []).append(finding)
    lines = []
    for (severity, kind), group in groups.items():
        lines.append(f"{severity}: {kind}, {len(group)}")
        for finding in group[:most]:
            lines.append(f"  {finding.message}")
            others = [file for file in finding.files if file not in finding.message] if len(finding.files) > 1 else []
            lines += [f"    also {file}" for file in others[:most]]
            if len(others) > most:
                lines.append(f"    and {len(others) - most} more, {elsewhere}")
        if len(group) > most:
            lines.append(f"  and {len(group) - most} more, {elsewhere}")
    return "\n".join(lines)


def _format_files(results: dict[str, Any]) -> str:
    rows = [["split", "images", "usable", "void %", "sizes", "images are", "masks are"]]
    for name, split in results["splits"].items():
        void, labelled = split["void_pixels"], sum(split["class_pixels"].values())
        share = void / (void + labelled) if void + labelled else None
        rows.append([name, str(split["num_images"]), str(split["num_usable"]), percent(share),
                     *(_show_counts(split[key]) for key in ("sizes", "image_files", "mask_files"))])
    return table(rows, left=(0, 4, 5, 6)) if len(rows) > 1 else ""


def _show_counts(counts: dict[str, int]) -> str:
    first = "; ".join(f"{count} x {what}" for what, count in list(counts.items())[:3])
    return (f"{first}; {len(counts) - 3} more" if len(counts) > 3 else first) or "n/a"


def _format_classes(results: dict[str, Any]) -> str:
    splits, advice = results["splits"], results["advice"]
    if not splits:
        return ""
    weights = {kind: values for kind, values in (advice or {}).get("class_weights", {}).items() if values}
    rows = [["class", *(f"{name} {what}" for name in splits for what in ("%", "images")), *weights]]
    for label in next(iter(splits.values()))["class_pixels"]:
        row = [label]
        for split in splits.values():
            total = sum(split["class_pixels"].values())
            row += [percent(split["class_pixels"][label] / total if total else None), str(split["class_images"][label])]
        rows.append([*row, *(f"{values[label]:.2f}" for values in weights.values())])
    few = [f"only {split['num_usable']} of {split['num_images']} images of {name} are in this table: the others cannot "
           "be used" for name, split in splits.items() if split["num_usable"] < split["num_images"]]
    return "\n".join([table(rows), *few])


def _format_leaks(results: dict[str, Any]) -> str:
    lines = []
    for leak in results["leaks"]:
        if not leak["images"]:
            continue
        near = "" if leak["near"] is None else (f", {leak['near']} more have a near-duplicate there (at most "
                                                f"{leak['near_distance']} of 64 bits differ)")
        lines.append(f"{leak['exact']} of {leak['images']} images of {leak['of']} are in {leak['in']}{near}: "
                     f"{percent(leak['share'])} %")
    return "\n".join(lines)


def _format_advice(results: dict[str, Any]) -> str:
    advice = results["advice"]
    if advice is None:
        return ""
    keys = () if advice["crop"] is None else ("crop", "dtype", "range", "mean", "std")
    lines = [f"{key}: {advice[key]}" for key in keys if key in advice]
    void = advice["void"]
    if void["values"]:
        lines.append(f"void: {percent(void['share'])} % of the pixels, mask values {void['values']}")
    if void["only_in_refused"]:
        lines.append(f"in refused masks only, and no class: {', '.join(list(void['only_in_refused'])[:20])}; are they "
                     "void, or do they miss in the table of classes?")
    return "\n".join(lines)
