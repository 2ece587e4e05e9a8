"""Compare two results.json: scores class by class, means, cost; the differences are second minus first.

    python scripts/compare_results.py outputs/first outputs/second
    python scripts/compare_results.py first/results.json second/results.json --sort iou

A run directory means its results.json. Results that were not scored alike (another dataset, split, number of images,
classes, or rule of the policy) are refused with exit code 2; --anyway compares them and says above the table what
differs. Scores are in percent; `-` is a score that is not defined.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtrain.errors import UserError
from segtrain.metrics.comparison import differences, iiou_differences
from segtrain.run.results import read_results
from segtrain.terminal import table

SCORES = {"iou": "IoU", "acc": "accuracy", "iiou": "iIoU"}
MEANS = ("miou", "macc", "pacc", "fwiou", "iiou", "category_miou", "category_iiou")
COSTS = {"params": "{:,.0f}", "macs": "{:,.0f}", "seconds": "{:.1f}", "images_per_second": "{:.2f}"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("first", type=Path, help="a results.json or a run directory")
    arguments.add_argument("second", type=Path)
    arguments.add_argument("--sort", choices=("class", *SCORES), default="class",
                           help="classes in their order, or by the difference in a score, the greatest gain first")
    arguments.add_argument("--anyway", action="store_true", help="compare results that were not scored alike")
    given = arguments.parse_args()
    try:
        first, second = (read_results(path, with_scores=True) for path in (given.first, given.second))
        print(compare(first, second, (str(given.first), str(given.second)), sort=given.sort, anyway=given.anyway))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def compare(first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str], *, sort: str = "class",
            anyway: bool = False) -> str:
    """Write the comparison of two results.

    Args:
        first: The results that the differences start from.
        second: The results that they lead to.
        names: What to call the two.
        sort: "class", or the score whose differences give the order.
        anyway: Whether to compare results that were not scored alike.

    Raises:
        UserError: If they were not scored alike, without `anyway`; it names all that differs.
    """
    of_scores, of_iiou = differences(first, second), iiou_differences(first, second)
    differing, unknown = of_scores[0] + of_iiou[0], of_scores[1] + of_iiou[1]
    if differing and not anyway:
        raise UserError(f"{names[0]} and {names[1]} were not scored alike: {'; '.join(differing)}. Score them alike, "
                        "or pass --anyway to compare them nevertheless.")
    lines = [f"a: {names[0]}", f"b: {names[1]}"]
    lines += [f"NOT SCORED ALIKE: {difference}" for difference in differing]
    if unknown:
        lines.append(f"not checked, as an older version wrote one of them: {', '.join(unknown)}")
    if first.get("inference") != second.get("inference"):
        lines.append(f"inference: {first.get('inference')} and {second.get('inference')}")
    return "\n".join([*lines, "", class_table(first, second, sort), "", mean_table(first, second)])


def class_table(first: Mapping[str, Any], second: Mapping[str, Any], sort: str) -> str:
    """Write the scores of all classes, those of the first results in their order."""
    classes = list(dict.fromkeys([*first["iou_per_class"], *second["iou_per_class"]]))
    shown = [score for score in SCORES if any(_classes(results, score) for results in (first, second))]
    values = {name: {score: (_classes(first, score).get(name), _classes(second, score).get(name)) for score in shown}
              for name in classes}
    if sort != "class":
        gains = {name: _difference(*values[name].get(sort, (None, None))) for name in classes}
        classes.sort(key=lambda name: (gains[name] is None, -(gains[name] or 0)))
    head = ["class", *(text for score in shown for text in (f"{SCORES[score]} a", "b", "b - a"))]
    return table([head, *([name, *(text for score in shown for text in _texts(*values[name][score]))]
                          for name in classes)])


def mean_table(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Write the means, the loss and the cost, as far as one of the results has them."""
    rows = [["", "a", "b", "b - a"]]
    rows += [[key, *_texts(first.get(key), second.get(key))] for key in MEANS]
    rows.append(["loss", *_texts(first.get("loss"), second.get("loss"), "{:.4f}")])
    for key, form in COSTS.items():
        rows.append([key, *_texts(first.get(key), second.get(key), form)])
    return table([row for row in rows if row[1:] != ["-", "-", "-"]])


def _classes(results: Mapping[str, Any], score: str) -> Mapping[str, float | None]:
    return results.get(f"{score}_per_class") or {}


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def _texts(first: float | None, second: float | None, form: str | None = None) -> list[str]:
    """Write two values and their signed difference; scores, which have no form, in percent."""
    scale, form = (100, "{:.2f}") if form is None else (1, form)
    signed = form.replace("{:", "{:+", 1)
    difference = _difference(first, second)
    return [*("-" if value is None else form.format(scale * value) for value in (first, second)),
            "-" if difference is None else signed.format(scale * difference)]


if __name__ == "__main__":
    main()
