"""The report of task=doctor for a terminal."""

from collections.abc import Sequence
from typing import Any

from segtrain.data.doctor.findings import Finding
from segtrain.terminal import percent

SHOWN = 5  # findings of a kind, and files of a finding; the report has them all


def tables(results: dict[str, Any]) -> str:
    """Write what was found in the splits: files, classes, duplicates, and what to set."""
    parts = [_files(results), _classes(results), _leaks(results), _advice(results)]
    parts += [f"{split} is left out: {why}" for split, why in results["left_out"].items()]
    return "\n".join(f"{part}\n" for part in parts if part)


def findings_text(findings: Sequence[Finding]) -> str:
    """Write the findings by severity and kind, the first of each kind."""
    if not findings:
        return "no errors, no warnings"
    groups: dict[tuple[str, str], list[Finding]] = {}
    for each in sorted(findings, key=lambda each: each.severity):  # errors before warnings
        groups.setdefault((each.severity, each.kind), []).append(each)
    lines = []
    for (severity, kind), group in groups.items():
        lines.append(f"{severity}: {kind}, {len(group)}")
        for each in group[:SHOWN]:
            lines.append(f"  {each.message}")
            others = [file for file in each.files if file not in each.message] if len(each.files) > 1 else []
            lines += [f"    also {file}" for file in others[:SHOWN]]
            if len(others) > SHOWN:
                lines.append(f"    and {len(others) - SHOWN} more, see the report")
        if len(group) > SHOWN:
            lines.append(f"  and {len(group) - SHOWN} more, see the report")
    return "\n".join(lines)


def _files(results: dict[str, Any]) -> str:
    rows = [["split", "images", "usable", "void %", "sizes", "images are", "masks are"]]
    for name, split in results["splits"].items():
        void, labelled = split["void_pixels"], sum(split["class_pixels"].values())
        share = void / (void + labelled) if void + labelled else None
        rows.append([name, str(split["num_images"]), str(split["num_usable"]), percent(share),
                     *(_counted(split[key]) for key in ("sizes", "image_files", "mask_files"))])
    return _aligned(rows, left=(0, 4, 5, 6)) if len(rows) > 1 else ""


def _counted(counts: dict[str, int]) -> str:
    first = "; ".join(f"{count} x {what}" for what, count in list(counts.items())[:3])
    return (f"{first}; {len(counts) - 3} more" if len(counts) > 3 else first) or "n/a"


def _classes(results: dict[str, Any]) -> str:
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
    return "\n".join([_aligned(rows, left=(0,)), *few])


def _leaks(results: dict[str, Any]) -> str:
    lines = []
    for each in results["leaks"]:
        if not each["images"]:
            continue
        near = "" if each["near"] is None else (f", {each['near']} more have a near-duplicate there (at most "
                                                f"{each['near_distance']} of 64 bits differ)")
        lines.append(f"{each['exact']} of {each['images']} images of {each['of']} are in {each['in']}{near}: "
                     f"{percent(each['share'])} %")
    return "\n".join(lines)


def _advice(results: dict[str, Any]) -> str:
    advice = results["advice"]
    if advice is None:
        return ""
    lines = [] if advice["crop"] is None else [f"{key}: {advice[key]}" for key in ("crop", "mean", "std")]
    void = advice["void"]
    if void["values"]:
        lines.append(f"void: {percent(void['share'])} % of the pixels, mask values {void['values']}")
    if void["only_in_refused"]:
        lines.append(f"in refused masks only, and no class: {', '.join(list(void['only_in_refused'])[:20])}; are they "
                     "void, or do they miss in the table of classes?")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:<{width}}" if number in left else f"{cell:>{width}}" for number, (cell, width)
                               in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows)
