"""Where the numbers of a training go beside its tables: real programs get them, and none can stop or change it."""

import contextlib
import csv
import errno
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from helpers import TINY, UNET, composed, refused
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtrain.config.check import check_config
from segtrain.config.early import refuse_early
from segtrain.inference.evaluator import spread
from segtrain.run.loggers import Loggers

RUN = (*TINY, *UNET, "train.epochs=2", "seed=3")  # two steps an epoch
TAGS = {"train/loss", "train/lr", "val/miou", "val/loss", "best/miou"}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same run without any logger."""
    from helpers import segtrain_exits

    run_dir = tmp_path_factory.mktemp("plain") / "run"
    assert segtrain_exits(*RUN, "logger=csv", "train.log_every=2", f"hydra.run.dir={run_dir}") == 0
    return run_dir


def assert_same_training(run_dir, plain):
    kept = ("epoch", "step", "train/loss", "val/loss", "val/miou")
    assert [[row[name] for name in kept] for row in rows(run_dir / "metrics.csv")] == [
        [row[name] for name in kept] for row in rows(plain / "metrics.csv")]
    first, second = (torch.load(folder / "checkpoints/last.pt", weights_only=True)["model"]
                     for folder in (run_dir, plain))
    assert all(torch.equal(first[key], second[key]) for key in second)


@pytest.mark.parametrize(("count", "most", "numbers"), [
    (10, 4, {0, 3, 6, 9}), (3, 4, {0, 1, 2}), (10, 1, {0}), (10, 0, set()), (2, 2, {0, 1}), (101, 3, {0, 50, 100})])
def test_examples_are_spread_over_the_split(count, most, numbers):
    assert spread(count, most) == numbers


def test_a_logger_that_fails_warns_once_and_the_others_go_on(caplog):
    class Broken:
        def scalars(self, values, step):
            raise ConnectionError("gone")

    class Sound:
        got = ()

        def scalars(self, values, step):
            self.got = (*self.got, (values, step))

    loggers, sound = Loggers({}), Sound()
    loggers._loggers = {"broken": Broken(), "sound": sound}
    with caplog.at_level("WARNING", "segtrain.run.loggers"):
        for step in (1, 2):
            loggers.scalars({"a": 1.0, "b": None}, step)
    assert caplog.text.count("logger=broken has failed (ConnectionError: gone)") == 1
    assert sound.got == (({"a": 1.0}, 1), ({"a": 1.0}, 2))


@pytest.mark.parametrize(("override", "said"), [
    ("logger.wandb.mode=sometimes", "use one of online, offline"), ("logger.mlflow.experiment=null", "it must be text"),
    ("logger.wandb.checkpoint=maybe", "it must be true or false"), ("+logger.wandb.projet=x", "Did you mean")])
def test_wrong_values_of_a_logger_are_refused(hydra, override, said):
    with refused(said, override.lstrip("+").partition("=")[0]):
        composed("logger=[tensorboard,wandb,mlflow]", override)


def test_loggers_are_chosen_by_a_list_and_saved(hydra):
    cfg = composed("logger=[tensorboard,mlflow]", "logger.mlflow.experiment=mine")
    saved = cfg.plain()["logger"]
    assert saved == {"tensorboard": {}, "mlflow": {"tracking_uri": None, "experiment": "mine", "checkpoint": False}}
    assert check_config(cfg.plain()).logger.chosen() == saved
    assert composed("logger=csv").plain()["logger"] == {}


def test_a_package_that_is_missing_is_named_before_anything_begins(hydra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused("logger=trackio needs the package trackio", "pip install '.[loggers]'"):
        refuse_early(composed("logger=trackio"), {})


@pytest.mark.slow
def test_steps_are_written_to_a_table_and_to_tensorboard_and_go_on_after_a_stop(segtrain, plain, tmp_path):
    table = rows(plain / "steps.csv")
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "2"), ("2", "4")]
    assert all(float(row["train/step/gradient_norm"]) > 0 for row in table)
    assert not list(plain.glob("events*"))
    run_dir = tmp_path / "run"
    assert segtrain(*RUN, "train.log_every=1", "train.epochs=1", f"hydra.run.dir={run_dir}") == 0
    with (run_dir / "steps.csv").open("a") as file:
        file.write("2,3,9,9,9,9\n")  # of a step that the checkpoint does not know of
    assert segtrain(f"resume={run_dir}", "train.epochs=2") == 0
    assert [row["step"] for row in rows(run_dir / "steps.csv")] == ["1", "2", "3", "4"]
    shown = EventAccumulator(str(run_dir)).Reload()
    assert {event.step: event.value for event in shown.Scalars("train/step/lr")} == pytest.approx(
        {int(row["step"]): float(row["train/step/lr"]) for row in rows(run_dir / "steps.csv")})


@pytest.mark.slow
def test_tensorboard_without_room_does_not_stop_a_training(segtrain, plain, tmp_path, monkeypatch, capsys):
    from tensorboard.summary.writer.record_writer import RecordWriter

    original = RecordWriter.write

    def write(self, data):
        if b"val/loss" in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)
    assert segtrain(*RUN, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert capsys.readouterr().out.count("logger=tensorboard has failed (OSError") == 1
    assert_same_training(tmp_path / "run", plain)


@pytest.mark.slow
def test_wandb_offline_keeps_its_run_over_a_resume(segtrain, plain, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra loggers is not installed")
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "run"
    options = ["logger=[tensorboard,wandb]", "logger.wandb.mode=offline", "logger.wandb.checkpoint=true"]
    assert segtrain(*RUN, *options, "train.epochs=1", f"hydra.run.dir={run_dir}") == 0
    run_id = json.loads((run_dir / "loggers.json").read_text())["wandb"]
    assert segtrain(f"resume={run_dir}", "train.epochs=2") == 0
    assert json.loads((run_dir / "loggers.json").read_text())["wandb"] == run_id
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(run_id) for folder in folders)
    for folder in folders:
        (file,) = folder.glob("*.wandb")
        content = file.read_bytes()
        assert all(tag.encode() in content for tag in (*TAGS, "val/examples", "num_train"))


@pytest.fixture
def mlflow_server(tmp_path):
    """MLflow's own server on a loopback port, with SQLite."""
    pytest.importorskip("mlflow", reason="the extra loggers is not installed")
    import requests

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", str(tmp_path / "kept")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            requests.get(f"{uri}/health", timeout=2).raise_for_status()
            break
        except requests.RequestException:
            time.sleep(0.5)
    yield uri, server
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(20)


@pytest.mark.slow
def test_mlflow_gets_everything_keeps_its_run_and_may_be_lost(segtrain, plain, tmp_path, mlflow_server, capsys):
    from mlflow import MlflowClient

    uri, server = mlflow_server
    run_dir = tmp_path / "run"
    options = ["logger=mlflow", f"logger.mlflow.tracking_uri={uri}", "logger.mlflow.experiment=streets",
               "logger.mlflow.checkpoint=true"]
    assert segtrain(*RUN, *options, "train.epochs=1", f"hydra.run.dir={run_dir}") == 0
    run_id = json.loads((run_dir / "loggers.json").read_text())["mlflow"]
    assert segtrain(f"resume={run_dir}", "train.epochs=2") == 0
    client = MlflowClient(uri)
    kept = client.get_run(run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params["dataset.num_train"] == "5"
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "val/miou")] == [
        (int(row["step"]), pytest.approx(float(row["val/miou"]))) for row in rows(run_dir / "metrics.csv")]
    assert {item.path for item in client.list_artifacts(run_id)} == {"val", "checkpoint"}
    assert len(client.list_artifacts(run_id, "val/examples")) == 2
    assert client.list_artifacts(run_id, "checkpoint")[0].path == "checkpoint/best.pt"

    os.killpg(server.pid, signal.SIGKILL)
    server.wait(20)
    assert segtrain(*RUN, *options, f"hydra.run.dir={tmp_path / 'lost'}") == 0
    assert capsys.readouterr().out.count("logger=mlflow has failed") == 1
    assert_same_training(tmp_path / "lost", plain)


@pytest.mark.slow
def test_trackio_gets_the_numbers(segtrain, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which it reads when it is imported
    pytest.importorskip("trackio", reason="the extra loggers is not installed")
    assert segtrain(*RUN, "logger=trackio", "logger.trackio.project=streets", f"hydra.run.dir={tmp_path / 'run'}") == 0
    (database,) = (tmp_path / "trackio").glob("*.db")
    assert b"val/miou" in database.read_bytes() + b"".join(
        path.read_bytes() for path in (tmp_path / "trackio").glob("*.db-wal"))
