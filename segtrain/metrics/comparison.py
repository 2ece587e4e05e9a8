"""Compare two results: which score is better, and whether they may be compared at all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

SAME = ("dataset", "split", "fold", "num_images", "policy.num_classes", "policy.ignore_index", "policy.resolution",
        "policy.accumulated_over", "policy.absent_class")
OF_FOLD = ("fold", "num_images")  # in which the folds of one cross-validation differ
SAME_FOR_IIOU = ("iiou_source", "policy.class_sizes")  # which change no other score
MAXIMIZED = ("miou", "iiou", "macc", "pacc", "fwiou", "mprecision", "mdice", "boundary_miou", "category_miou",
             "category_iiou", "images_per_second", "train_images_per_second")  # all other figures are better when lower
MISSING = object()


def better(score: str) -> str:
    """Return the direction in which a figure of results.json is better, as sweepers call it: maximize or minimize."""
    return "maximize" if score in MAXIMIZED else "minimize"


def is_better(results: Mapping[str, Any], best: Mapping[str, Any] | None, score: str) -> bool:
    """Return whether a score of one result is better than that of another; an undefined one is worse than any."""
    if best is None or best[score] is None:
        return True
    if results[score] is None:
        return False
    return results[score] < best[score] if better(score) == "minimize" else results[score] > best[score]


def differences(first: Mapping[str, Any], second: Mapping[str, Any], *,
                across_folds: bool = False) -> tuple[list[str], list[str]]:
    """Return why the scores of two results.json, iIoU aside, cannot be compared, and the keys that only one has.

    With `across_folds` those of two folds can: their images differ, but they stand in one table and in one mean.
    """
    are_folds = across_folds and first.get("fold") is not None and second.get("fold") is not None
    differing, unknown = _differences(first, second, tuple(key for key in SAME if not are_folds or key not in OF_FOLD))
    if list(first["iou_per_class"]) != list(second["iou_per_class"]):
        only = [[name for name in one["iou_per_class"] if name not in other["iou_per_class"]]
                for one, other in ((first, second), (second, first))]
        how = (f"only in a: {', '.join(only[0]) or 'none'}, only in b: {', '.join(only[1]) or 'none'}" if any(only)
               else "in another order")
        differing.insert(0, f"classes ({how})")
    return differing, unknown


def pool_miou(results: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mIoU of the confusion matrices of several results.json added up, as of the folds of a validation."""
    import numpy as np  # slow to import: the command line, which asks what is better, must not wait for it

    matrix = np.array([each["confusion_matrix"] for each in results], np.int64).sum(0)
    targets = matrix.sum(1) + np.array([each["predicted_void"] for each in results], np.int64).sum(0)
    correct = np.diag(matrix)
    union = targets + matrix.sum(0) - correct
    return float((correct[union > 0] / union[union > 0]).mean()) if union.any() else None


def iiou_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the same for the iIoU alone, where both results have one."""
    if first.get("iiou") is None or second.get("iiou") is None:
        return [], []
    return _differences(first, second, SAME_FOR_IIOU)


def _look_up(results: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, MISSING where it is not there."""
    found: Any = results
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return MISSING
        found = found[part]
    return found


def _differences(first: Mapping[str, Any], second: Mapping[str, Any],
                 keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
    differing, unknown = [], []
    for key in keys:
        found = [_look_up(results, key) for results in (first, second)]
        missing = [value is MISSING for value in found]
        if all(missing):
            continue
        if any(missing):
            unknown.append(key)
        elif not _equal(*found):
            differing.append(f"{key} ({_shown(*found)})")
    return differing, unknown


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)  # means of the same objects, added in another order
    return bool(one == other)


def _shown(one: Any, other: Any) -> str:
    """Write two values in short: of two mappings, only what differs."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in dict.fromkeys([*one, *other]) if not _equal(one.get(key), other.get(key))]
        return ", ".join(f"{key} {_number(one.get(key))} and {_number(other.get(key))}" for key in keys)
    return f"{_number(one)} and {_number(other)}"


def _number(number: Any) -> str:
    return f"{number:.6g}" if isinstance(number, float) else str(number)
