"""Resuming: exact for every setting, what may change and what may not, which checkpoints are kept, full disks."""

import csv
import errno
import logging
import os
import re
import resource
import shutil
import signal
import time

import numpy as np
import pytest
import ranks
import torch
from helpers import TINY, UNET, mostly_slow, stop_after_step
from made_files import constant_masks
from PIL import Image

from segtrain.errors import UserError
from segtrain.run import checkpoint, trackers
from segtrain.run.logging import start_log, stop_log
from segtrain.run.results import csv_text

SMALL = (*TINY, *UNET, "train.examples=0", "dataset.num_train=8", "dataset.num_val=2", "train.epochs=2")


def last(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in ("train/images_per_second", "train/data_wait")}
                for row in csv.DictReader(file)]


def names(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def log(run_dir):
    return (run_dir / "train.log").read_text()


def assert_same_run(one, other):
    for key in ("model", "ema", "optimizer", "scheduler", "scaler", "step"):
        torch.testing.assert_close(last(one)[key], last(other)[key], rtol=0, atol=0)
    assert rows(one) == rows(other)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def run_dir(segtrain, finished, tmp_path):
    """A copy of a finished run of two epochs at a constant rate."""
    if not finished.exists():
        assert segtrain(*SMALL, "scheduler=constant", f"hydra.run.dir={finished}") == 0
    return shutil.copytree(finished, tmp_path / "run")


# ---- exact


@pytest.mark.parametrize("options", [
    pytest.param(("scheduler=constant", "optim=adamw", "runtime.precision=bf16", "train.clip_norm=1"),
                 marks=pytest.mark.slow),
    ("scheduler=step", "scheduler.every_epochs=0.5", "optim=sgd", "train.accumulate=3", "train.ema_decay=0.9",
     "train.teacher_loss=channel"),
    pytest.param(("scheduler=poly", "scheduler.warmup_epochs=1", "runtime.workers=2", "augmentation=strong"),
                 marks=pytest.mark.slow),
    pytest.param(("scheduler=cosine", "optim=adam", "runtime.precision=fp16", "train.ema_decay=0.9",
                  "train.val_every=2"), marks=pytest.mark.slow),
], ids=["constant bf16", "step accumulate average", "poly workers", "cosine fp16 average"])
def test_a_stop_in_mid_epoch_is_exact(segtrain, shared_run, tmp_path, monkeypatch, options):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    if "train.teacher_loss=channel" in options:
        options += (f"train.teacher={shared_run}",)
    assert segtrain(*SMALL, *options, f"hydra.run.dir={whole}") == 0
    with monkeypatch.context() as patch:
        stop_after_step(patch, last(whole)["step"] // 2 + 1)
        assert segtrain(*SMALL, *options, f"hydra.run.dir={stopped}") == 143
    assert segtrain(f"resume={stopped}", "runtime.workers=0") == 0
    assert "no longer bit-identical" not in log(stopped)
    assert_same_run(stopped, whole)
    has_teacher = re.search(r"teacher: UNet of .*, [1-9][\d,]+ parameters.* channel-wise", log(whole)) is not None
    assert has_teacher == ("train.teacher_loss=channel" in options)


@pytest.mark.slow
@pytest.mark.parametrize("validation", [1, 2])
def test_a_stop_in_a_validation_is_exact(segtrain, run_dir, tmp_path, monkeypatch, validation):
    """The last one too: all steps are made then, and the scores are still to come."""
    from segtrain.tasks import train

    stopped, count, original = tmp_path / "stopped", [], train.score_split

    def score_split(*args, **options):
        count.append(1)
        if len(count) == validation:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **options)

    monkeypatch.setattr(train, "score_split", score_split)
    assert segtrain(*SMALL, "scheduler=constant", f"hydra.run.dir={stopped}") == 143
    assert segtrain(f"resume={stopped}") == 0
    assert_same_run(stopped, run_dir)


@pytest.mark.slow
def test_checkpoints_by_steps_and_minutes_change_nothing_and_the_newest_are_kept(segtrain, run_dir, tmp_path,
                                                                                 monkeypatch):
    from segtrain.tasks import train

    saved, original = [], train.save_last

    def noted(state, **options):
        original(state, **options)
        saved.append(state.progress.step)

    monkeypatch.setattr(train, "save_last", noted)
    often = tmp_path / "often"
    assert segtrain(*SMALL, "scheduler=constant", "train.save_steps=3", "train.keep=3", "train.save_every=2",
                    f"hydra.run.dir={often}") == 0
    assert saved == [3, 6, 8]
    assert names(often) == ["best.pt", "last.pt", "step-00000003.pt", "step-00000006.pt"]
    assert_same_run(often, run_dir)
    saved.clear()
    assert segtrain(*SMALL, "scheduler=constant", "train.save_minutes=1e-9", "train.keep=1",
                    f"hydra.run.dir={tmp_path / 'minutes'}") == 0
    assert sorted(set(saved)) == list(range(1, 9))
    assert names(tmp_path / "minutes") == ["best.pt", "last.pt"]


def test_events_of_an_attempt_without_a_checkpoint_are_hidden(segtrain, run_dir):
    """Killed behind the first epoch's numbers and before its checkpoint, a run starts anew: no value comes twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "results.json").unlink()
    assert segtrain(f"resume={run_dir}") == 0
    assert [event.step for event in EventAccumulator(str(run_dir)).Reload().Scalars("val/miou")] == [4, 8]


@pytest.mark.slow
def test_events_of_an_epoch_that_was_not_closed_are_hidden(segtrain, tmp_path, monkeypatch):
    """Killed behind the second epoch's numbers; the checkpoint is of its last step, before it was validated."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from segtrain.tasks import train

    original = train.save_last

    def killed(state):
        if state.progress.epoch_steps == 0:  # the epoch is closed
            raise KeyboardInterrupt
        original(state)

    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_last", killed)
        assert segtrain(*SMALL, "train.save_steps=1", "train.save_every=2", f"hydra.run.dir={run_dir}") == 130
    assert (last(run_dir)["step"], last(run_dir)["epoch"], len(rows(run_dir))) == (8, 1, 2)
    assert segtrain(f"resume={run_dir}") == 0
    assert [event.step for event in EventAccumulator(str(run_dir)).Reload().Scalars("val/miou")] == [4, 8]
    assert len(rows(run_dir)) == 2


# ---- changes


@pytest.mark.slow
def test_a_finished_run_goes_on_for_longer_exactly(segtrain, run_dir, tmp_path):
    whole = tmp_path / "whole"
    assert segtrain(*SMALL, "scheduler=constant", "train.epochs=3", f"hydra.run.dir={whole}") == 0
    assert segtrain(f"resume={run_dir}", "train.epochs=3") == 0
    assert_same_run(run_dir, whole)
    assert "train.epochs 2 -> 3" in log(run_dir)
    assert (run_dir / "results.json").exists()
    assert segtrain(f"resume={run_dir}", "train.epochs=2") == 0  # shorter: nothing to do
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_a_prolonged_run_that_is_stopped_is_not_finished(segtrain, run_dir, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after_step(patch, 9)
        assert segtrain(f"resume={run_dir}", "train.epochs=4", "scheduler=poly") == 143
    assert not (run_dir / "results.json").exists()
    assert "the learning rate goes on at 0.00026" in log(run_dir)  # 5e-4 * (1 - 8/16) ** 0.9
    assert segtrain(f"resume={run_dir}") == 0
    assert [row["epoch"] for row in rows(run_dir)] == ["1", "2", "3", "4"]


@pytest.mark.slow
def test_a_run_that_max_steps_ended_in_mid_epoch_goes_on(segtrain, tmp_path):
    run_dir = tmp_path / "run"
    assert segtrain(*SMALL, "train.max_steps=6", f"hydra.run.dir={run_dir}") == 0
    assert segtrain(f"resume={run_dir}", "train.max_steps=null", "train.epochs=3") == 0
    assert [(row["epoch"], row["step"]) for row in rows(run_dir)] == [("1", "4"), ("2", "6"), ("3", "10")]


@pytest.mark.parametrize(("change", "reason"), mostly_slow(3, [
    ("model=linknet", "holds the weights of the network as it is"),
    ("dataset.num_train=7", "other images or classes"),
    ("train.num_images=4", "other images"),
    ("seed=1", "order of the images"),
    ("optim=adam", "the optimizer's state"),
    ("optim.momentum=0.9", "state of an optimizer without it"),
    ("train.batch_size=4", "the run has 4 of 2"),
    ("checkpoint=elsewhere.pt", "read at the start"),
]))
def test_what_would_make_another_run_is_refused_and_leaves_it_alone(segtrain, run_dir, capsys, change, reason):
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != "train.log"}
    assert segtrain(f"resume={run_dir}", "train.epochs=3", change) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert change.partition("=")[0].partition(".")[0] in message
    assert "checkpoint=" in message
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*")
                      if path.is_file() and path.name != "train.log"}


def test_what_may_change_is_applied_and_logged(segtrain, run_dir):
    changes = {"optim.lr": "1e-4", "optim.weight_decay": "0.01", "scheduler": "cosine", "train.clip_norm": "1.0",
               "runtime.precision": "fp16", "train.ema_decay": "0.5", "train.patience": "9", "train.keep": "1"}
    assert segtrain(f"resume={run_dir}", "train.epochs=3", *(f"{key}={value}" for key, value in changes.items())) == 0
    for key in changes.keys() - {"scheduler"}:
        assert f"{key} " in log(run_dir)
    assert "scheduler._target_ segtrain.optim.constant -> segtrain.optim.cosine" in log(run_dir)
    line, = [line for line in log(run_dir).splitlines() if "changed since the checkpoint: " in line]
    assert "train.patience null -> 9" in line
    assert "optim" not in line
    group, = last(run_dir)["optimizer"]["param_groups"]
    assert (group["initial_lr"], group["weight_decay"]) == (1e-4, 0.01)
    assert last(run_dir)["ema"] is not None
    assert last(run_dir)["scaler"]


@pytest.mark.slow
def test_images_that_are_gone_are_noticed(segtrain, tmp_path, capsys):

    data, run_dir = constant_masks(tmp_path / "data", {"train": [0, 1, 0, 1], "val": [0, 1]}), tmp_path / "run"
    assert segtrain(*data, f"hydra.run.dir={run_dir}") == 0
    for kind in ("images", "masks"):
        (tmp_path / "data" / "val" / kind / "1.png").rename(tmp_path / "data" / "val" / kind / "2.png")
    assert segtrain(f"resume={run_dir}", "train.epochs=2") == 2
    assert "the images of the val split are not those that the run was started with" in capsys.readouterr().err
    assert (run_dir / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_changed_file_is_noticed(segtrain, tmp_path, capsys, kind):
    data, run_dir = constant_masks(tmp_path / "data", {"train": [0, 1, 0, 1], "val": [0, 1]}), tmp_path / "run"
    assert segtrain(*data, f"hydra.run.dir={run_dir}") == 0
    file = tmp_path / "data/train" / kind / "2.png"
    pixels = np.array(Image.open(file))
    pixels[0, 0] = 1
    Image.fromarray(pixels).save(file)
    assert segtrain(f"resume={run_dir}", "train.epochs=2") == 2
    assert re.search(r"1 of 4 samples of train have changed .*2\.png", capsys.readouterr().err)
    assert segtrain(f"resume={run_dir}", "train.epochs=2", "train.accept_changed_data=true") == 0
    assert "no longer bit-identical to an unbroken run: 1 samples of train" in capsys.readouterr().out


@pytest.mark.slow
def test_an_end_before_the_first_validation_is_refused(segtrain, tmp_path, capsys, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after_step(patch, 5)
        assert segtrain(*SMALL, "train.val_every=9", f"hydra.run.dir={run_dir}") == 143
    (run_dir / "checkpoints" / "last.pt").unlink()  # leaves that of the first epoch, which was not validated
    assert segtrain(f"resume={run_dir}", "train.epochs=1") == 2
    assert "has no scores yet" in capsys.readouterr().err
    assert segtrain(f"resume={run_dir}") == 0


# ---- damage


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(segtrain, run_dir, tmp_path):
    whole = shutil.copytree(run_dir, tmp_path / "whole")
    (run_dir / "results.json").unlink()
    os.truncate(run_dir / "checkpoints" / "last.pt", 100_000)
    assert segtrain(f"resume={run_dir}") == 0
    assert "last.pt is damaged" in log(run_dir)
    assert "step-00000004.pt instead." in log(run_dir)
    assert_same_run(run_dir, whole)
    assert names(run_dir) == ["best.pt", "last.pt", "step-00000004.pt"]


def test_damaged_checkpoints_alone_are_refused_with_the_remedy(segtrain, run_dir, capsys):
    (run_dir / "results.json").unlink()
    for name in ("last.pt", "step-00000004.pt"):
        os.truncate(run_dir / "checkpoints" / name, 100_000)
    assert segtrain(f"resume={run_dir}") == 2
    message = capsys.readouterr().err
    assert "No earlier one is intact" in message
    assert "best.pt with checkpoint=" in message
    assert (run_dir / "checkpoints" / "last.pt").exists()


def test_a_run_killed_between_two_namings_goes_on(segtrain, run_dir, tmp_path):
    """last.pt has become step-8.pt, and the new one is still called last.pt.tmp."""
    whole = shutil.copytree(run_dir, tmp_path / "whole")
    (run_dir / "results.json").unlink()
    (run_dir / "checkpoints" / "last.pt").rename(run_dir / "checkpoints" / "step-00000008.pt")
    (run_dir / "checkpoints" / "last.pt.tmp").write_bytes(b"half")
    found = checkpoint.find_last(run_dir / "checkpoints")
    assert found is not None
    assert found[1].name == "step-00000008.pt"
    assert segtrain(f"resume={run_dir}") == 0
    assert rows(run_dir) == rows(whole)


@pytest.mark.slow
@pytest.mark.parametrize("full", ["checkpoint", "metrics.csv"])
def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_room(segtrain, run_dir, tmp_path, capsys, monkeypatch,
                                                                     full):
    """The second epoch's numbers or checkpoint find no room."""
    stopped, error = tmp_path / "stopped", OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        if full == "checkpoint":
            original = torch.save

            def save(state, file):
                if state["step"] == 8:
                    file.write(b"some of it")
                    raise error
                original(state, file)

            patch.setattr(torch, "save", save)
        else:
            original_text = csv_text

            def no_room(rows):
                rows = list(rows)
                if rows[0][0] == 2:
                    raise error
                return original_text(rows)

            patch.setattr(trackers, "csv_text", no_room)
        assert segtrain(*SMALL, "scheduler=constant", f"hydra.run.dir={stopped}") == 2
    message = capsys.readouterr().err
    assert "No space left on device" in message
    assert "make room" in message
    assert f"segtrain resume={stopped}" in message
    assert "Traceback" not in message
    assert last(stopped)["step"] == 4
    assert not list(stopped.rglob("*.tmp"))
    assert segtrain(f"resume={stopped}") == 0
    assert_same_run(stopped, run_dir)


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    start_log(tmp_path / "train.log")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
        for _ in range(100):
            logging.getLogger("segtrain").info("%s", "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        stop_log()
    output = capsys.readouterr()
    assert output.err.count("the log cannot be written") == 1
    assert "Traceback" not in output.err
    assert output.out.count("xxx\n") == 100


def test_checkpoints_are_kept_by_their_steps(tmp_path):
    state = dict.fromkeys(("model", "optimizer", "scheduler", "scaler", "ema", "rng", "progress"))
    for former, step in ((None, 2), (2, 9), (9, 9), (9, 100), (100, 101)):
        checkpoint.save_last(tmp_path, {**state, "step": step}, former_step=former, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "step-00000009.pt", "step-00000100.pt"]
    assert checkpoint.find_last(tmp_path / "none") is None
    with pytest.raises(UserError, match="No earlier one is intact"):
        checkpoint.find_last(tmp_path)  # not what a run writes


# ---- signals


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path):
    """The first asks for a save, which here would take a minute."""
    run_dir = tmp_path / "run"
    saving_path = tmp_path / "saving"
    job = ranks.start(tmp_path / "said", 1, *SMALL, "train.epochs=1000", "train.save_every=1000",
                      f"hydra.run.dir={run_dir}", at_step=(2, 0, ranks.save_for_a_minute_from_now_on, str(saving_path)))
    while not saving_path.exists():
        assert job.processes[0].is_alive(), job.said(0)
        time.sleep(0.02)
    sent = time.monotonic()
    os.kill(job.processes[0].pid, signal.SIGINT)
    assert job.wait(30) == [-signal.SIGINT]
    assert time.monotonic() - sent < 20
