"""Sweeps: the folders of their jobs, the leaderboard, failures, and going on where one stopped."""

import csv
import json
import sys
from pathlib import Path

import pytest
from helpers import TINY, mostly_slow

from segtrain import cli
from segtrain.errors import Stopped, UserError
from segtrain.run.results import write_config, write_results
from segtrain.sweep import jobs as sweep_jobs
from segtrain.sweep import leaderboard, table
from segtrain.tasks import train

SWEEP = ("-m", "hydra.sweep.dir=sweep")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def jobs(monkeypatch):
    """Replace training by what only leaves results, or raises what `errors` holds for a job's seed."""
    return _Jobs(monkeypatch)


class _Jobs:
    def __init__(self, monkeypatch):
        self.ran, self.errors = [], {}
        monkeypatch.setattr(train, "run", self.run)
        monkeypatch.setattr(sweep_jobs, "free_memory", lambda: None)  # takes longer than the rest

    def run(self, cfg, run_dir):
        self.ran.append(run_dir.name)
        write_config(run_dir, cfg)
        if cfg.seed in self.errors:
            raise self.errors[cfg.seed]
        results = {"miou": cfg.seed / 10, "iiou": None, "macc": 0.5, "loss": 1.0, "epoch": 1, "params": 9,
                   "seconds": 2.0}
        write_results(run_dir, results)
        return results["miou"]


def rows():
    found = json.loads(Path("sweep/leaderboard.json").read_text())
    with Path("sweep/leaderboard.csv").open() as file:
        assert [row["job"] for row in csv.DictReader(file)] == [row["job"] for row in found]
    return found


def folders(parent="sweep"):
    return sorted(path.name for path in Path(parent).iterdir() if path.is_dir())


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_sweep_of_real_runs(segtrain, capsys):
    command = (*SWEEP, "optim=adam,sgd", "debug=smoke", *TINY)
    assert segtrain(*command) == 0
    assert folders() == ["optim=adam", "optim=sgd"]
    assert {row["job"]: row["status"] for row in rows()} == {"optim=adam": "done", "optim=sgd": "done"}
    assert all(row["miou"] is not None and row["params"] > 11e6 and row["error"] is None for row in rows())
    assert "optim=adam debug=smoke" in rows()[0]["overrides"] or "optim=sgd debug=smoke" in rows()[0]["overrides"]
    assert "Adam" in Path("sweep/optim=adam/config.yaml").read_text()
    assert "leaderboard: " in capsys.readouterr().out

    # again: one of them unfinished
    Path("sweep/optim=sgd/results.json").unlink()
    before = contents("sweep/optim=adam")
    assert segtrain(*command) == 0
    assert contents("sweep/optim=adam") == before
    assert "optim=adam is finished" in capsys.readouterr().out
    assert Path("sweep/optim=sgd/results.json").exists()


def test_the_leaderboard_is_there_after_every_job(segtrain, jobs, monkeypatch):
    lengths = []
    update = leaderboard.update

    def noted(*args, **kwargs):
        entered = update(*args, **kwargs)
        lengths.append(len(rows()))
        return entered

    monkeypatch.setattr(leaderboard, "update", noted)
    assert segtrain(*SWEEP, "seed=1,3,2") == 0
    assert lengths == [1, 2, 3]
    assert [row["job"] for row in rows()] == ["seed=3", "seed=2", "seed=1"], "the best comes first"


@pytest.mark.parametrize(("given", "expected"), mostly_slow(2, [
    (["seed=0,1", "train.epochs=2"], ["seed=0", "seed=1"]),
    (["seed=0,1", "dataset.crop=[64, 64]", "optim.lr=1e-3"], ["seed=0", "seed=1"]),
    (["seed=range(0,2)", "optim=choice(adam)"], ["seed=0,optim=adam", "seed=1,optim=adam"]),
    (["seed=0"], ["0"]),
    (["dataset.crop=[32,32],[64,64]"], ["dataset.crop=[32,32]", "dataset.crop=[64,64]"]),
    (["checkpoint=a/b,a_b,'a b'"], None),
    (["checkpoint=" + ",".join(letter * 300 for letter in "ab")], None),
    (["checkpoint=" + ",".join("'" + "ü" * 100 + letter + "'" for letter in "ab")], None),
]))
def test_job_folders_are_named_by_what_is_swept(segtrain, jobs, given, expected):
    assert segtrain(*SWEEP, *given) == 0
    assert len(folders()) == len(set(jobs.ran)) == len(jobs.ran)
    assert all(len(name.encode()) <= 120 and "/" not in name for name in folders())
    assert expected is None or folders() == sorted(expected)


@pytest.mark.slow
def test_an_experiment_that_sweeps(segtrain, jobs):
    assert segtrain(*SWEEP, "experiment=blog_optimizers", "dataset.root=x", "seed=1") == 0
    assert folders() == ["optim=adam", "optim=rmsprop", "optim=sgd"]
    assert segtrain(*SWEEP, "experiment=blog_optimizers", "dataset.root=x", "seed=1") == 0
    assert len(jobs.ran) == 3, "a restart runs none of them again"


@pytest.mark.slow
def test_the_other_jobs_go_on_after_a_failure(segtrain, jobs, capsys):
    jobs.errors = {1: UserError("mend this")}
    assert segtrain(*SWEEP, "seed=0,1,2") == 2
    assert jobs.ran == ["seed=0", "seed=1", "seed=2"]
    assert [(row["job"], row["status"], row["error"]) for row in rows()] == [
        ("seed=2", "done", None), ("seed=0", "done", None), ("seed=1", "failed", "mend this")]
    assert "ERROR mend this" in Path("sweep/seed=1/train.log").read_text()
    assert "mend this" not in Path("sweep/seed=0/train.log").read_text()
    error = capsys.readouterr().err
    assert "segtrain: mend this" in error
    assert "Traceback" not in error

    jobs.errors = {}  # mended
    assert segtrain(*SWEEP, "seed=0,1,2") == 0
    assert jobs.ran[3:] == ["seed=1"]
    assert {row["status"] for row in rows()} == {"done"}


def test_a_job_refused_by_the_schema_has_a_log(segtrain, jobs, capsys):
    assert segtrain(*SWEEP, "train.epochs=1,-1") == 2
    assert "train.epochs=-1 is too small" in Path("sweep/train.epochs=-1/train.log").read_text()
    assert "segtrain: train.epochs=-1 is too small" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_that_cannot_be_built(segtrain):
    assert segtrain(*SWEEP, "scheduler.warmup_epochs=-1,0", "debug=smoke", *TINY) == 2
    log = Path("sweep/scheduler.warmup_epochs=-1/train.log").read_text()
    assert "scheduler.warmup_epochs=-1: must be at least 0" in log
    assert [row["status"] for row in rows()] == ["done", "failed"]


def test_a_bug_in_one_job_exits_1(jobs, monkeypatch):
    jobs.errors = {1: UserError("mend this"), 2: ZeroDivisionError("ours")}
    monkeypatch.setattr(sys, "argv", ["segtrain", *SWEEP, "seed=1,2,3"])
    with pytest.raises(ZeroDivisionError):  # which the interpreter prints, and exits with 1
        cli.main()
    assert jobs.ran == ["seed=1", "seed=2", "seed=3"]
    log = Path("sweep/seed=2/train.log").read_text()
    assert "Traceback" in log
    assert "ZeroDivisionError: ours" in log
    assert {row["error"] for row in rows()} == {None, "mend this", "ZeroDivisionError('ours')"}


@pytest.mark.slow
@pytest.mark.parametrize(("error", "code"), [(Stopped(15), 143), (KeyboardInterrupt(), 130)])
def test_a_signal_ends_the_whole_sweep(segtrain, jobs, error, code):
    jobs.errors = {1: error}
    assert segtrain(*SWEEP, "seed=0,1,2") == code
    assert jobs.ran == ["seed=0", "seed=1"]
    assert [row["job"] for row in rows()] == ["seed=0"]
    jobs.errors = {}
    assert segtrain(*SWEEP, "seed=0,1,2") == 0
    assert jobs.ran[2:] == ["seed=1", "seed=2"]


@pytest.mark.slow
def test_another_configuration_in_the_same_directory_is_refused(segtrain, jobs, capsys):
    assert segtrain(*SWEEP, "seed=0,1") == 0
    before = contents("sweep")
    assert segtrain(*SWEEP, "seed=0,1", "train.epochs=9") == 2
    assert "holds a run of another configuration (train.epochs was 12, and is 9 now)" in capsys.readouterr().err
    after = contents("sweep")
    assert {path for path in before if before[path] != after[path]} <= {Path("sweep/multirun.yaml")}
    assert after.keys() == before.keys()


@pytest.mark.slow
def test_a_restart_may_use_the_machine_otherwise(segtrain, jobs, monkeypatch):
    jobs.errors = {1: Stopped(15)}
    assert segtrain(*SWEEP, "seed=0,1", "dataset.std=auto") == 143
    seen = []
    monkeypatch.setattr(train, "run", lambda cfg, run_dir: seen.append((cfg.runtime.workers, run_dir.name)))
    monkeypatch.setattr(leaderboard, "update", lambda *args, **kwargs: [])
    assert segtrain(*SWEEP, "seed=0,1", "dataset.std=auto", "runtime.workers=3") == 0
    assert seen == [(3, "seed=1")]


@pytest.mark.parametrize("override", ["sed=1,2", "seed=1,abc", "model=linkent,linknet", "seed=range(0,"])
def test_a_sweep_that_does_not_compose_leaves_nothing(segtrain, jobs, capsys, override):
    assert segtrain(*SWEEP, override) == 2
    assert "segtrain: " in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_several_values_without_a_sweep(segtrain, capsys):
    assert segtrain("seed=1,2") == 2
    assert "add -m for a sweep" in capsys.readouterr().err


def test_the_table_shows_what_is_not_defined():
    text = table.format_jobs([
        {"job": "a", "status": "done", "miou": 0.5, "iiou": None, "loss": 1.25, "params": 1234, "seconds": 61.4,
         "error": None, "settings": {}},
        {"job": "long name", "status": "failed", "error": "mend this", "settings": {}}], "train")
    assert text.splitlines() == [
        "job        mIoU %  iIoU %  val loss  params  seconds",
        "a           50.00     n/a    1.2500   1,234       61",
        "long name     n/a     n/a       n/a     n/a      n/a  failed: mend this"]
