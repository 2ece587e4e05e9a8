"""The leaderboard: what differs between jobs, means over seeds, what cannot be compared, jobs in other processes."""

import csv
import json
import statistics
import threading
from pathlib import Path
from typing import get_args

import pytest

from segtrain.config import schema
from segtrain.errors import UserError
from segtrain.metrics import comparison
from segtrain.run.results import write_config, write_results
from segtrain.sweep import leaderboard, table
from segtrain.tasks import train

pytestmark = pytest.mark.usefixtures("sweeping_elsewhere")
SWEEP = ("-m", "hydra.sweep.dir=sweep", "train.report=false")


@pytest.fixture
def scores(monkeypatch):
    """Replace training by what only leaves the results that this mapping holds by (optimizer, seed)."""
    found = {}

    def run(cfg, run_dir):
        write_config(run_dir, cfg)
        results = found[cfg.optim["_target_"].rpartition(".")[2], cfg.seed]
        if isinstance(results, Exception):
            raise results
        write_results(run_dir, results)
        return results[cfg.train.monitor]

    monkeypatch.setattr(train, "run", run)
    return found


def results(miou, *, loss=1.0, dataset="streets", classes=("Road", "Car")):
    return {"miou": miou, "iiou": None, "macc": 0.5, "pacc": 0.5, "fwiou": 0.5, "loss": loss, "epoch": 1, "params": 9,
            "seconds": 2.0, "dataset": dataset, "split": "val", "num_images": 2,
            "iou_per_class": dict.fromkeys(classes, miou)}


def shown_table():
    """Return the lines of the leaderboard as the terminal shows it."""
    return table.format_leaderboard(Path("sweep")).splitlines()


@pytest.mark.slow
def test_what_differs_between_the_jobs_has_columns(segtrain, scores, capsys):
    scores |= {("Adam", 0): results(0.5), ("Adam", 1): results(0.7), ("SGD", 0): UserError("mend this"),
               ("SGD", 1): results(0.6)}
    assert segtrain(*SWEEP, "optim=adam,sgd", "seed=0,1", "train.epochs=3") == 2
    shown = capsys.readouterr().out.split("\n\n\n")[-1].splitlines()
    assert [line.split()[:3] for line in shown[:5]] == [
        ["optim", "seed", "mIoU"], ["adam", "1", "70.00"], ["sgd", "1", "60.00"], ["adam", "0", "50.00"],
        ["sgd", "0", "n/a"]]
    assert shown[4].endswith("failed: mend this")
    with Path("sweep/leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["optim"], row["seed"], row["status"], row["error"]) for row in rows] == [
        ("optim=adam,seed=1", "adam", "1", "done", ""), ("optim=sgd,seed=1", "sgd", "1", "done", ""),
        ("optim=adam,seed=0", "adam", "0", "done", ""), ("optim=sgd,seed=0", "sgd", "0", "failed", "mend this")]
    assert "train.epochs" not in rows[0]


def test_folds_and_seeds_are_summarized_and_their_confusion_matrices_added():
    def job(fold, seed, matrix):
        ious = [matrix[0][0] / (sum(matrix[0]) + matrix[1][0]), matrix[1][1] / (sum(matrix[1]) + matrix[0][1])]
        return {"task": "train", "status": "done", "table": 1, "settings": {
            "optim": "adam", "dataset.fold": str(fold), "seed": str(seed)}, **results(sum(ious) / 2), "fold": fold,
            "num_images": 2 + fold, "confusion_matrix": matrix, "predicted_void": [0, 0]}

    rows = [job(0, 0, [[9, 1], [0, 0]]), job(1, 0, [[1, 0], [4, 5]])]
    assert comparison.differences(*rows)[0] == ["fold (0 and 1)", "num_images (2 and 3)"]
    assert comparison.differences(*rows, across_folds=True)[0] == []
    (found,) = leaderboard.summarize_repeats(rows, lambda row: row)
    assert (found["settings"], found["folds"], found["seeds"]) == ({"optim": "adam"}, ["0", "1"], ["0", "0"])
    assert found["miou"]["n"] == 2
    assert found["pooled_miou"] == pytest.approx((10 / 15 + 5 / 10) / 2)
    assert "pooled mIoU %" in table.format_repeats([found], rows)
    assert table.name_repeats([found]) == "folds"


def test_a_swept_key_may_have_the_name_of_a_figure(segtrain, scores):
    scores |= {("RMSprop", 0): results(0.5, loss=1.25)}
    assert segtrain(*SWEEP, "loss=dice,focal") == 0
    with Path("sweep/leaderboard.csv").open() as file:
        found = [(row["loss (set)"], row["loss"]) for row in csv.DictReader(file)]
    assert found == [("dice", "1.25"), ("focal", "1.25")]


def test_a_folder_is_named_where_it_is_not_named_by_what_differs(segtrain, scores):
    scores |= {("RMSprop", 0): results(0.5)}
    assert segtrain(*SWEEP, "checkpoint=a/b,a_b") == 0
    (line,) = [line for line in shown_table() if " a/b " in line]
    assert (Path("sweep") / line.split()[0] / "results.json").is_file()


@pytest.mark.slow
def test_seeds_are_summarized_with_the_deviation_of_the_sample(segtrain, scores):
    adam, sgd = [0.5, 0.7, 0.9], [0.8, 0.6]
    scores |= {("Adam", seed): results(miou, loss=seed) for seed, miou in enumerate(adam)}
    scores |= {("SGD", seed): results(miou) for seed, miou in enumerate(sgd)} | {("SGD", 2): UserError("mend this")}
    assert segtrain(*SWEEP, "optim=adam,sgd", "seed=0,1,2") == 2
    first, second = json.loads(Path("sweep/leaderboard_seeds.json").read_text())
    by_optimizer = {each["settings"]["optim"]: each for each in (first, second)}
    assert by_optimizer["adam"]["miou"] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.2), "n": 3}
    assert by_optimizer["adam"]["loss"]["std"] == pytest.approx(1.0)
    assert by_optimizer["adam"]["iiou"] == {"mean": None, "std": None, "n": 0}
    assert by_optimizer["sgd"]["miou"] == {"mean": pytest.approx(0.7), "std": pytest.approx(statistics.stdev(sgd)),
                                           "n": 2}
    assert (by_optimizer["adam"]["failed"], by_optimizer["sgd"]["failed"]) == (0, 1)
    shown = shown_table()
    adam_line, sgd_line = (next(line for line in shown[shown.index(""):] if line.startswith(name))
                           for name in ("adam", "sgd"))
    assert adam_line.split()[1:5] == ["3", "70.00", "±", "20.00"]
    assert sgd_line.split()[1:5] == ["2", "70.00", "±", "14.14"]
    assert sgd_line.endswith("(1 failed)")


@pytest.mark.slow
def test_without_several_seeds_there_is_no_summary(segtrain, scores):
    scores |= {("Adam", 0): results(0.5), ("SGD", 0): results(0.7), ("Adam", 1): results(0.9)}
    assert segtrain(*SWEEP, "optim=adam,sgd", "seed=0") == 0
    assert not Path("sweep/leaderboard_seeds.json").exists()
    assert "over seeds" not in "\n".join(shown_table())
    assert segtrain(*SWEEP, "optim=adam", "seed=0,1") == 0  # the sweep goes on in the same directory
    assert Path("sweep/leaderboard_seeds.json").exists()


@pytest.mark.parametrize(("monitor", "best"), [("loss", "0"), ("macc", "0")])
def test_the_best_by_the_monitored_score_comes_first(segtrain, scores, monitor, best):
    scores |= {("RMSprop", 0): results(0.5, loss=0.25) | {"macc": 0.9}, ("RMSprop", 1): results(0.9, loss=0.5)}
    assert segtrain(*SWEEP, "seed=1,0", f"train.monitor={monitor}") == 0
    assert shown_table()[1].split()[0] == best
    assert ("mean accuracy %" in shown_table()[0]) == (monitor == "macc")


def test_every_monitored_score_is_sorted_and_searched_in_its_direction():
    monitors = get_args(schema.Score)
    known = {column.name: column.descending for column in leaderboard.SCORES}
    assert {name: comparison.better(name) == "maximize" for name in monitors} == {
        name: known[name] for name in monitors} == {name: name != "loss" for name in monitors}


@pytest.mark.slow
def test_jobs_that_were_not_scored_alike_stand_in_tables_of_their_own(segtrain, scores):
    scores |= {("Adam", 0): results(0.5), ("SGD", 0): results(0.9, dataset="camvid"), ("AdamW", 0): results(0.6),
               ("RMSprop", 0): UserError("mend this")}
    assert segtrain(*SWEEP, "optim=adam,sgd,adamw,rmsprop") == 2
    text = "\n".join(shown_table())
    one, two, failed, _ = text.split("\n\n")
    assert one.splitlines()[0] == "table 1: streets val, 2 classes"
    assert [line.split()[0] for line in one.splitlines()[1:]] == ["optim", "adamw", "adam"]
    assert two.splitlines()[:2] == ["table 2: camvid val, 2 classes",
                                    "not comparable with table 1: dataset (streets and camvid)"]
    assert "mend this" in failed
    with Path("sweep/leaderboard.csv").open() as file:
        assert {row["optim"]: row["table"] for row in csv.DictReader(file)} == {
            "adam": "1", "adamw": "1", "sgd": "2", "rmsprop": ""}


def test_tasks_of_one_sweep_have_tables_of_their_own(tmp_path):
    for number, task in enumerate(("train", "benchmark")):
        run_dir = tmp_path / f"task={task}"
        run_dir.mkdir()
        write_results(run_dir, results(0.5) if task == "train" else {"params": 9, "macs": 1e9})
        assert len(leaderboard.update(tmp_path, run_dir, task, [f"task={task}"])) == number + 1
    train_part, benchmark_part, _ = table.format_leaderboard(tmp_path).split("\n\n")
    assert train_part.startswith("task=train\n")
    assert "mIoU" in train_part
    assert benchmark_part.startswith("task=benchmark\n")
    assert "GMACs" in benchmark_part


def test_jobs_that_end_at_once_lose_no_row(tmp_path):
    def enter(number):
        run_dir = tmp_path / f"seed={number}"
        run_dir.mkdir()
        write_results(run_dir, results(number / 100))
        leaderboard.update(tmp_path, run_dir, "train", [f"seed={number}"])

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = leaderboard.read_rows(tmp_path / leaderboard.NAME)
    assert [row["job"] for row in rows] == [f"seed={number}" for number in reversed(range(12))]
