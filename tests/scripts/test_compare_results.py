"""scripts/compare_results.py: what it shows, and what it refuses to compare."""

import copy
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = {
    "dataset": "camvid", "split": "val", "num_images": 2, "loss": 1.5, "miou": 0.5, "macc": 0.6, "pacc": 0.7,
    "fwiou": 0.4, "iiou": 0.25, "iiou_source": "components", "category_miou": None, "category_iiou": None,
    "iou_per_class": {"Road": 0.75, "Car": 0.25, "Bus": None},
    "acc_per_class": {"Road": 0.8, "Car": 0.4, "Bus": None},
    "iiou_per_class": {"Road": None, "Car": 0.25, "Bus": None},
    "policy": {"num_classes": 3, "ignore_index": 255, "resolution": "label file", "accumulated_over": "split",
               "absent_class": "excluded", "class_sizes": {"Car": 8.0}},
    "params": 1000, "macs": 5000, "seconds": 2.0, "images_per_second": 1.0,
}


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("compare_results", ROOT / "scripts" / "compare_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare(script, tmp_path, monkeypatch, capsys):
    """Run the script on two results: compare(a, b, "--anyway") -> its exit code, output and errors."""

    def run(first, second, *options):
        for name, results in (("a.json", first), ("b.json", second)):
            (tmp_path / name).write_text(results if isinstance(results, str) else json.dumps(results))
        monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "a.json"), str(tmp_path / "b.json"), *options])
        code = 0
        try:
            script.main()
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


def changed(key, value):
    """Return RESULTS with another value at a key with dots; without the key if the value is ..."""
    results = copy.deepcopy(RESULTS)
    *path, last = key.split(".")
    section = results
    for part in path:
        section = section[part]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return results


def row(text, name):
    return next(" ".join(line.split()) for line in text.splitlines() if line.split()[:1] == [name])


def test_differences_have_signs_and_nulls_are_dashes(compare):
    better = {**copy.deepcopy(RESULTS), "miou": 0.55, "iou_per_class": {"Road": 0.7, "Car": 0.375, "Bus": 0.0},
              "params": 900, "loss": 1.25}
    code, out, _ = compare(RESULTS, better)
    assert code == 0
    assert row(out, "Road") == "Road 75.00 70.00 -5.00 80.00 80.00 +0.00 - - -"
    assert row(out, "Car") == "Car 25.00 37.50 +12.50 40.00 40.00 +0.00 25.00 25.00 +0.00"
    assert row(out, "Bus") == "Bus - 0.00 - - - - - - -"
    assert row(out, "miou") == "miou 50.00 55.00 +5.00"
    assert row(out, "loss") == "loss 1.5000 1.2500 -0.2500"
    assert row(out, "params") == "params 1,000 900 -100"
    assert "category_miou" not in out, "no result has one"
    assert "ALIKE" not in out


def test_classes_are_in_their_order_or_sorted_by_the_gain(compare):
    better = changed("iou_per_class", {"Road": 0.7, "Car": 0.375, "Bus": None})

    def order(*options):
        return [line.split()[0] for line in compare(RESULTS, better, *options)[1].splitlines()
                if line.startswith(("Road", "Car", "Bus"))]

    assert order() == ["Road", "Car", "Bus"]
    assert order("--sort", "iou") == ["Car", "Road", "Bus"], "without a difference comes last"


@pytest.mark.parametrize(("key", "value", "named"), [
    ("dataset", "voc", "dataset (camvid and voc)"), ("split", "test", "split (val and test)"),
    ("num_images", 3, "num_images (2 and 3)"), ("policy.num_classes", 4, "policy.num_classes (3 and 4)"),
    ("policy.ignore_index", 0, "policy.ignore_index (255 and 0)"),
    ("policy.resolution", "half", "policy.resolution (label file and half)"),
    ("policy.accumulated_over", "batch", "policy.accumulated_over (split and batch)"),
    ("policy.absent_class", "0", "policy.absent_class (excluded and 0)"),
    ("policy.class_sizes", {"Car": 9.0}, "policy.class_sizes (Car 8 and 9)"),
    ("iiou_source", "instances", "iiou_source (components and instances)"),
    ("iou_per_class", {"Road": 0.75, "Van": 0.25, "Bus": None}, "classes (only in a: Car, only in b: Van)"),
    ("iou_per_class", {"Car": 0.25, "Road": 0.75, "Bus": None}, "classes (in another order)"),
])
def test_results_scored_otherwise_are_refused_unless_wanted(compare, key, value, named):
    code, out, err = compare(RESULTS, changed(key, value))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert named in err
    assert "--anyway" in err
    code, out, err = compare(RESULTS, changed(key, value), "--anyway")
    assert (code, err) == (0, "")
    assert out.index(f"NOT SCORED ALIKE: {named}") < out.index("IoU a")


def test_one_message_names_all_that_differs(compare):
    other = {**changed("policy.resolution", "half"), "split": "test"}
    _, _, err = compare(RESULTS, other)
    assert "split (val and test); policy.resolution (label file and half)" in err


@pytest.mark.parametrize(("key", "value"), [("iiou_source", "instances"), ("policy.class_sizes", {"Car": 9.0})])
def test_what_only_changes_iiou_matters_only_if_both_have_it(compare, key, value):
    without = {**RESULTS, "iiou": None, "iiou_per_class": None}
    assert compare(without, changed(key, value))[0] == 0


def test_class_sizes_may_differ_by_rounding(compare):
    assert compare(RESULTS, changed("policy.class_sizes", {"Car": 8.0 * (1 + 1e-14)}))[0] == 0


@pytest.mark.parametrize("key", ["policy", "policy.absent_class", "split", "category_miou", "pacc", "iiou_per_class"])
def test_older_results_without_newer_keys_are_compared_and_it_is_said(compare, key):
    code, out, _ = compare(changed(key, ...), RESULTS)
    assert code == 0
    assert ("not checked" in out) == (key.startswith("policy") or key == "split")


def test_another_inference_is_said_and_compared(compare):
    code, out, _ = compare({**RESULTS, "inference": {"flip": False}}, {**RESULTS, "inference": {"flip": True}})
    assert code == 0
    assert "inference: {'flip': False} and {'flip': True}" in out


def test_a_run_directory_means_its_results(script, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    assert script.read_results(tmp_path) == script.read_results(tmp_path / "results.json") == RESULTS


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "benchmark", "params": 3}'])
def test_a_file_without_scores_is_refused_with_its_name(compare, text):
    code, out, err = compare(RESULTS, text)
    assert (code, out) == (2, "")
    assert "b.json" in err
