"""Sweeps by plugins of Hydra's: jobs in other processes, searches with Optuna, and plugins that are missing."""

import contextvars
import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException

from segtrain.config import messages
from segtrain.errors import UserError
from segtrain.run.results import write_config, write_results
from segtrain.sweep import jobs
from segtrain.tasks import train

pytestmark = pytest.mark.usefixtures("sweeping_elsewhere")
SWEEP = ("-m", "hydra.sweep.dir=sweep", "train.report=false")


def needs(plugin):
    missing = importlib.util.find_spec("hydra_plugins") is None or importlib.util.find_spec(
        f"hydra_plugins.{plugin}") is None
    skipped = pytest.mark.skipif(missing, reason=f"{plugin} is not installed: pip install '.[sweep]'")
    return lambda test: pytest.mark.slow(skipped(test))


@pytest.fixture
def ran(monkeypatch):
    """Replace training by a score that is best at lr=1e-2, or an error at a seed; note which folders ran."""
    noted = []
    errors = {1: UserError("mend this"), 2: ZeroDivisionError("ours")}

    def run(cfg, run_dir):
        noted.append(run_dir.name)
        write_config(run_dir, cfg)
        if cfg.seed in errors:
            raise errors[cfg.seed]
        far = abs(math.log10(cfg.optim["lr"]) + 2)
        write_results(run_dir, {"miou": 1 - far / 10, "loss": far, "params": 9, "seconds": 2.0})
        return {"miou": 1 - far / 10, "loss": far}[cfg.train.monitor]

    monkeypatch.setattr(train, "run", run)
    return noted


def rows():
    return json.loads(Path("sweep/leaderboard.json").read_text())


# ---- jobs in other processes


@pytest.fixture
def apart(monkeypatch):
    """Run jobs as launchers do that run them in other processes: main has not run there, and sys.argv is another."""
    launcher = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_launcher.BasicLauncher"]
    launch = launcher.launch
    launches = []

    def launched(*args, **kwargs):
        launches.append(args)
        monkeypatch.setattr(sys, "argv", ["worker"])
        return contextvars.Context().run(launch, *args, **kwargs)

    monkeypatch.setattr(launcher, "launch", launched)
    yield
    assert launches


def test_jobs_in_other_processes_are_named_and_shown_as_in_this_one(segtrain, ran, apart, capsys):
    assert segtrain(*SWEEP, "seed=0,3", "optim.lr=1e-3") == 0
    assert sorted(ran) == ["seed=0", "seed=3"]
    assert {path.name for path in Path("sweep").iterdir() if path.is_dir()} == set(ran)
    assert {path.name for path in Path("sweep").glob(".*")} <= {".leaderboard.json.lock"}
    assert [row["settings"]["seed"] for row in rows()] == ["0", "3"]
    assert capsys.readouterr().out.count("leaderboard: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "code", "said"), [
    ("1,0", 2, "segtrain: mend this\n"),
    ("1,2", 1, "segtrain: a bug of segtrain, of which the log in sweep/seed=2 has more: ZeroDivisionError('ours')\n"),
])
def test_errors_in_other_processes_end_the_command(segtrain, ran, apart, capsys, seeds, code, said):
    assert segtrain(*SWEEP, f"seed={seeds}") == code
    assert len(ran) == len(seeds.split(","))
    error = capsys.readouterr().err
    assert error.endswith(said)
    assert "Traceback" not in error
    assert {row["job"]: row["status"] for row in rows()} == {
        name: "done" if name == "seed=0" else "failed" for name in ran}


@pytest.mark.slow
def test_another_configuration_is_refused_in_other_processes_too(segtrain, ran, apart, capsys):
    assert segtrain(*SWEEP, "seed=0,3") == 0
    before = rows()
    assert segtrain(*SWEEP, "seed=0,3", "train.epochs=9") == 2
    assert "holds a run of another configuration (train.epochs was 12, and is 9 now)" in capsys.readouterr().err
    assert rows() == before


@needs("hydra_joblib_launcher")
def test_joblib_brings_errors_back(segtrain, capsys):
    assert segtrain(*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "train.epochs=-1,-2") == 2
    assert "segtrain: train.epochs=-" in capsys.readouterr().err
    assert [(row["job"], row["status"]) for row in rows()] == [("train.epochs=-1", "failed"),
                                                               ("train.epochs=-2", "failed")]
    assert "is too small" in Path("sweep/train.epochs=-2/train.log").read_text()


def test_a_worker_that_is_killed_is_explained():
    class TerminatedWorkerError(Exception):  # joblib's name
        pass

    message = jobs.lost_worker(TerminatedWorkerError("A worker process was unexpectedly terminated"))
    assert "hydra.launcher.n_jobs=" in message
    assert "hydra.sweep.dir=" in message
    assert jobs.lost_worker(ValueError("else")) is None


# ---- searches


@pytest.mark.parametrize(("direction", "monitor", "task", "message"), [
    (None, "miou", "train", None),
    (None, "miou", "benchmark", None),
    ("maximize", "miou", "train", None),
    ("minimize", "loss", "train", None),
    ("minimize", "miou", "train", "hydra.sweeper.direction=minimize looks for the worst train.monitor=miou"),
    ("maximize", "loss", "evaluate", "set hydra.sweeper.direction=minimize"),
    (["maximize", "minimize"], "miou", "train", "set hydra.sweeper.direction=maximize"),
    ("minimize", "miou", "benchmark", "task=benchmark has no score"),
])
def test_a_search_for_the_worst_is_refused(direction, monitor, task, message):
    if message is None:
        jobs.check_direction(direction, monitor, task)
    else:
        with pytest.raises(UserError) as refused:
            jobs.check_direction(direction, monitor, task)
        assert message in str(refused.value)


@needs("hydra_optuna_sweeper")
@pytest.mark.parametrize("monitor", ["miou", "loss"])
def test_a_search_finds_the_best_and_goes_on_where_it_was(segtrain, ran, monitor):
    search = (*SWEEP, "search=lr", f"train.monitor={monitor}")
    assert segtrain(*search, "hydra.sweeper.n_trials=2") == 0
    assert segtrain(*search, "hydra.sweeper.n_trials=3") == 0
    assert len(ran) == len(set(ran)) == 3, "the first two are proposed again, and skipped"
    rates = [float(row["settings"]["optim.lr"]) for row in rows()]
    assert len(rates) == 3
    assert all(1e-5 <= rate <= 1e-1 for rate in rates)
    assert rates == sorted(rates, key=lambda rate: abs(math.log10(rate) + 2))
    found = yaml.safe_load(Path("sweep/optimization_results.yaml").read_text())
    assert found["best_params"]["optim.lr"] == pytest.approx(rates[0])


@needs("hydra_optuna_sweeper")
def test_a_failed_trial_does_not_end_a_search(segtrain, ran):
    assert segtrain(*SWEEP, "search=optuna", "seed=0,1", "hydra.sweeper.n_trials=3") == 2
    assert set(ran) == {"seed=0", "seed=1"}
    assert sorted(row["status"] for row in rows()) == ["done", "failed"]


@needs("hydra_optuna_sweeper")
def test_the_plugin_s_own_direction_is_refused_for_the_miou(segtrain, ran, capsys):
    assert segtrain(*SWEEP, "hydra/sweeper=optuna", "optim.lr=1e-3,1e-2", "hydra.sweeper.n_trials=2") == 2
    assert "hydra.sweeper.direction=minimize looks for the worst train.monitor=miou" in capsys.readouterr().err
    assert ran == []


# ---- plugins that are not installed


@pytest.mark.parametrize("choice", ["hydra/sweeper/optuna", "hydra/launcher/joblib", "hydra/launcher/submitit_slurm"])
def test_a_missing_plugin_is_named_with_what_installs_it(choice):
    error = MissingConfigException(f"Could not find '{choice}'", missing_cfg_file=choice, options=["basic"])
    assert "pip install '.[sweep]'" in messages.composition_error(error, list)


def test_an_unknown_launcher_is_refused(segtrain, capsys):
    assert segtrain(*SWEEP, "hydra/launcher=jobli", "seed=0,1") == 2
    error = capsys.readouterr().err
    assert "hydra/launcher=jobli does not exist" in error
    assert not list(Path().iterdir())
