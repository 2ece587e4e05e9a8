"""Several processes: scores and steps equal to those of one, one run directory, and what happens when one dies."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import ranks
import torch
import yaml
from helpers import mostly_slow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtrain.data.loading import TrainingSampler, group_for_evaluation
from segtrain.distributed import process_group

CPU = ("runtime.workers=0", "runtime.threads=1", "runtime.device=cpu")
TINY = ("dataset.height=32", "dataset.width=48", "dataset.num_train=18", "dataset.num_val=4", "dataset.crop=[32,32]",
        "train.batch_size=2", "train.report=false", "optim=sgd", *CPU)
UNET = ("model=unet", "model.width=4")  # without BatchNorm
LONGER = (*TINY, "model=enet", "train.epochs=2", "train.ema_decay=0.9", "scheduler.warmup_epochs=1",
          "augmentation=strong")
TIMES = {"train/images_per_second", "train/data_wait"}
VARYING = ("seconds", "images_per_second", "checkpoint")


def rows(run_dir):
    """metrics.csv without the columns that are times."""
    with (run_dir / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def results(run_dir):
    found = json.loads((run_dir / "results.json").read_text())
    return {key: value for key, value in found.items() if key not in VARYING}


def weights(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)["model"]


def assert_same_weights(one, other):
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)


def folder(root, num_train, num_val, sizes=((40, 56),), void=()):
    """Write a dataset of three classes; the training images `void` have no labelled pixel."""
    rng = np.random.default_rng(0)
    for split, count in (("train", num_train), ("val", num_val)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (*sizes[number % len(sizes)], 3), dtype=np.uint8)
            mask = image[..., 0] // 86
            mask[: number % 30] = 255  # another share of void in every image
            if split == "train" and number in void:
                mask[:] = 255
            Image.fromarray(image).save(root / split / "images" / f"{number:02}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number:02}.png")
    (root / "classes.csv").write_text("name,has_instances\nfloor,false\nwall,false\nbox,true\n")
    return ("dataset=folder", f"dataset.root={root}", "dataset.crop=[32,48]", *UNET, "optim=sgd", "optim.lr=0.05",
            "train.report=false", *CPU)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run of three processes that nothing stopped: with BatchNorm, dropout and a moving average."""
    root = tmp_path_factory.mktemp("whole")
    job = ranks.start(root / "said", 3, *LONGER, f"hydra.run.dir={root / 'run'}")
    assert job.wait() == [0, 0, 0], job.everything()
    assert job.said(1) == job.said(2) == ""
    return root / "run"


# ---- the same numbers


@pytest.mark.slow
def test_evaluation_is_exactly_that_of_one_process(segtrain, tmp_path):
    """Seven images of two sizes make five batches, which three processes share unevenly."""
    data = folder(tmp_path / "data", 2, 7, sizes=((40, 56), (40, 56), (40, 56), (48, 56)))
    assert segtrain(*data, "dataset.instances=components", "train.batch_size=2", "train.epochs=1",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0
    evaluate = ("task=evaluate", f"checkpoint={tmp_path / 'run'}", *CPU)
    assert segtrain(*evaluate, f"hydra.run.dir={tmp_path / '1'}") == 0
    alone = results(tmp_path / "1")
    assert alone["num_images"] == 7
    assert alone["iiou"] is not None
    job = ranks.start(tmp_path / "said", 3, *evaluate, f"hydra.run.dir={tmp_path / '3'}")
    assert job.wait() == [0, 0, 0], job.everything()
    assert results(tmp_path / "3") == alone
    assert job.said(1) == job.said(2) == ""


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_with_half_the_batch_take_the_same_steps(segtrain, tmp_path, accumulate):
    """Half of the images are void, in some steps all those of one process."""
    void = {1, 3, 5, 6, 8, 9, 10, 15}
    data = (*folder(tmp_path / "data", 16, 2, void=void), "train.epochs=2", f"train.accumulate={accumulate}",
            "loss=cross_entropy_dice", "train.clip_norm=1", "scheduler=poly")
    parts = [[{index for _, index in batch} <= void for batch in TrainingSampler(16, 2, 0, rank=rank, num_processes=2)]
             for rank in (0, 1)]
    assert any(one != other for one, other in zip(*parts, strict=True)), "no step has a batch all void: other numbers"
    assert segtrain(*data, "train.batch_size=4", f"hydra.run.dir={tmp_path / '1'}") == 0
    job = ranks.start(tmp_path / "said", 2, *data, "train.batch_size=2", f"hydra.run.dir={tmp_path / '2'}")
    assert job.wait() == [0, 0], job.everything()
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    moved = 0.0
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
        moved = max(moved, float(one[name].abs().max()))
    assert moved > 0.01
    for row, other in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert row["step"] == other["step"]
        for key in ("train/loss", "val/loss", "val/miou", "train/lr"):
            assert float(other[key]) == pytest.approx(float(row[key]), rel=1e-4)


def test_processes_share_out_the_batches_of_one():
    whole = TrainingSampler(23, 6, 5)
    for epoch, done in ((0, 0), (3, 0), (1, 12)):
        parts = [TrainingSampler(23, 2, 5, rank=rank, num_processes=3) for rank in range(3)]
        for sampler in (whole, *parts):
            sampler.epoch, sampler.first_image = epoch, done
        assert [[*one, *two, *three] for one, two, three in zip(*parts, strict=True)] == list(whole)
        assert len(whole) == len(parts[0]) == (23 - done) // 6


def test_only_neighbours_of_one_size_share_a_batch():
    sizes = [(32, 32)] * 5 + [(32, 40)] * 2 + [(32, 32)]
    groups = group_for_evaluation(sizes, 2)
    assert groups == [[0, 1], [2, 3], [4], [5, 6], [7]]
    assert group_for_evaluation(sizes, 1) == [[index] for index in range(8)]


# ---- one run directory


@pytest.mark.slow
def test_one_run_directory_of_the_first_process(whole_run):
    assert {path.name for path in whole_run.parent.iterdir()} == {"run", "said"}
    assert [row["step"] for row in rows(whole_run)] == ["3", "6"]
    assert (whole_run / "train.log").read_text().count("epoch 2/2") == 1
    assert "3 processes with batches of 2" in (whole_run / "train.log").read_text()
    assert "6 steps of 6 images" in (whole_run / "train.log").read_text()
    saved = yaml.safe_load((whole_run / "config.yaml").read_text())
    assert (saved["runtime"]["sync_batchnorm"], saved["train"]["batch_size"]) == (False, 2)


# ---- stop and resume


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5])  # in an epoch; in its validation
def test_a_signal_to_one_process_stops_all_and_the_resume_is_exact(whole_run, tmp_path, step):
    run_dir = tmp_path / "run"
    job = ranks.start(tmp_path / "said", 3, *LONGER, f"hydra.run.dir={run_dir}",
                      at_step=(step, 1, ranks.signal_itself, signal.SIGTERM))
    assert job.wait() == [143, 143, 143], job.everything()
    assert f"segtrain resume={run_dir}" in job.said(0)
    assert job.said(1) == job.said(2) == ""
    assert not (run_dir / "results.json").exists()
    job = ranks.start(tmp_path / "said", 3, f"resume={run_dir}")
    assert job.wait() == [0, 0, 0], job.everything()
    assert_same_weights(whole_run, run_dir)
    assert rows(run_dir) == rows(whole_run)
    assert results(run_dir) == results(whole_run)


@pytest.mark.slow
def test_a_resume_with_fewer_processes_goes_on_with_the_next_images(segtrain, tmp_path):
    run_dir = tmp_path / "run"
    job = ranks.start(tmp_path / "said", 3, *TINY, *UNET, "train.epochs=2", f"hydra.run.dir={run_dir}",
                      at_step=(7, 0, ranks.signal_itself, signal.SIGINT))
    assert job.wait() == [130, 130, 130], job.everything()
    assert segtrain(f"resume={run_dir}") == 0
    log = (run_dir / "train.log").read_text()
    assert "processes 3 -> 1" in log
    assert "no longer bit-identical" in log
    # the second epoch is stopped after one of three steps of six images; its other twelve are six steps of two
    assert [row["step"] for row in rows(run_dir)] == ["3", "10"]
    assert [event.step for event in EventAccumulator(str(run_dir)).Reload().Scalars("val/miou")] == [3, 10]
    first, second = (float(row["train/lr"]) for row in rows(run_dir))
    assert first == pytest.approx(1e-3 * 0.5**0.9, rel=1e-6)  # half of the poly schedule of conf/optim/sgd.yaml
    assert second == 0


@pytest.mark.slow
def test_who_is_told_to_stop_does_not_wait_for_ever_for_one_that_hangs(tmp_path):
    started = tmp_path / "started"
    job = ranks.start(tmp_path / "said", 2, *TINY, *UNET, "train.epochs=1000", f"hydra.run.dir={tmp_path / 'run'}",
                      at_step=(2, 0, ranks.grow_impatient, str(started)))
    waiting, hanging = job.processes
    for _ in range(600):
        if not started.exists():
            time.sleep(0.1)
    os.kill(hanging.pid, signal.SIGSTOP)
    os.kill(waiting.pid, signal.SIGTERM)
    waiting.join(60)
    hanging.kill()
    hanging.join()
    assert waiting.exitcode == -signal.SIGALRM, job.everything()


@pytest.mark.slow
def test_a_restarted_job_goes_on_by_itself(tmp_path, whole_run):
    run_dir = tmp_path / "run"
    command = (*LONGER, f"hydra.run.dir={run_dir}")
    job = ranks.start(tmp_path / "said", 3, *command, at_step=(8, 2, ranks.signal_itself, signal.SIGKILL))
    codes = job.wait()
    assert codes == [1, 1, -signal.SIGKILL], job.everything()
    for rank in (0, 1):
        assert "another process of the job has ended" in job.said(rank)
        assert "Traceback" not in job.said(rank)
    assert ranks.start(tmp_path / "said", 3, *command).wait() == [2, 0, 0]  # a new command does not write into it
    job = ranks.start(tmp_path / "said", 3, *command, TORCHELASTIC_RESTART_COUNT="1")
    assert job.wait() == [0, 0, 0], job.everything()
    assert "going on after step 3" in job.said(0)
    assert_same_weights(whole_run, run_dir)
    assert rows(run_dir) == rows(whole_run)


# ---- errors


@pytest.mark.parametrize(("arguments", "said"), mostly_slow(0, [
    (("train.epocs=3",), "train.epocs is not a key of the configuration. Did you mean 'train.epochs'?"),
    (("-m", "seed=0,1"), "-m under torchrun: start each job with torchrun by itself"),
    (("task=doctor",), "task=doctor runs in one process: start it without torchrun"),
    (("train.batch_size=10",), "train.batch_size=10 of each of 2 processes is larger than the training split of 18 "
                               "images: use train.batch_size=9 or less."),
    (("runtime.sync_batchnorm=true",), "runtime.sync_batchnorm=true on cpu"),
]))
def test_a_common_error_is_said_by_the_first_process(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    job = ranks.start(tmp_path / "said", 2, *TINY, *UNET, *arguments)
    code, other = job.wait()
    assert code == 2
    assert re.search(rf"^segtrain: {re.escape(said)}", job.said(0), re.MULTILINE), job.everything()
    # the other one has waited: torchrun ends it meanwhile
    assert other == 0 or job.outputs[1].stat().st_mtime > job.outputs[0].stat().st_mtime
    assert not list(tmp_path.rglob("*.yaml"))


@pytest.mark.slow
def test_help_ends_all(tmp_path):
    job = ranks.start(tmp_path, 2, "--help")
    assert job.wait() == [0, 0]
    assert "segtrain trains and evaluates" in job.said(0)
    assert job.said(1) == ""


def test_one_process_under_torchrun_is_a_plain_run(segtrain, monkeypatch, tmp_path):
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert segtrain(*TINY, *UNET, "train.max_steps=1", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert not process_group.is_started()


@pytest.mark.slow
def test_a_file_that_one_process_misses_is_named_by_it(tmp_path):
    """The second process is to read a file in the second epoch that was deleted in the first."""
    data = folder(tmp_path / "data", 8, 2)
    second = TrainingSampler(8, 2, 0, rank=1, num_processes=2)
    first_epoch = next(iter(second))
    second.epoch = 1
    gone = next(index for batch in second for _, index in batch if index in {index for _, index in first_epoch})
    path = tmp_path / "data" / "train" / "images" / f"{gone:02}.png"
    job = ranks.start(tmp_path / "said", 2, *data, "dataset.cache=false", "train.batch_size=2", "train.epochs=3",
                      f"hydra.run.dir={tmp_path / 'run'}", at_step=(2, 1, ranks.delete, str(path)))
    started = time.monotonic()
    assert job.wait() == [1, 2], job.everything()
    assert time.monotonic() - started < 60
    assert re.search(rf"^segtrain: process 1: .*{gone:02}\.png", job.said(1), re.MULTILINE), job.everything()
    assert "another process of the job has ended, so this one cannot go on: its own message says why" in job.said(0)
    assert "Traceback" not in job.everything()
    assert (tmp_path / "run" / "checkpoints" / "last.pt").exists()


@pytest.mark.slow
def test_a_parameter_without_part_in_the_loss_is_named(tmp_path):
    own = tmp_path / "own"
    (own / "model").mkdir(parents=True)
    (own / "model" / "idle.yaml").write_text("_target_: idle_network.Idle\nnum_classes: ${dataset.num_classes}\n")
    (own / "idle_network.py").write_text(
        "from torch import nn\n\n\nclass Idle(nn.Module):\n    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.used = nn.Conv2d(3, num_classes, 1)\n"
        "        self.idle = nn.Conv2d(3, 3, 1)\n\n    def forward(self, x):\n        return self.used(x)\n")
    job = ranks.start(tmp_path / "said", 2, *TINY, "model=idle", f"hydra.run.dir={tmp_path / 'run'}",
                      f"--config-dir={own}", PYTHONPATH_FIRST=own)
    assert job.wait()[0] == 2
    assert "segtrain: the parameter idle.weight of the network has no part in the loss" in job.said(0), job.everything()


# ---- torchrun itself


@pytest.mark.slow
def test_torchrun(tmp_path):
    """A run by the real launcher, stopped by a SIGTERM to it; it can be resumed."""
    run_dir = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "segtrain",
         *TINY, *UNET, "train.epochs=10000", f"hydra.run.dir={run_dir}"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (run_dir / "metrics.csv").exists() or len((run_dir / "metrics.csv").read_text().splitlines()) < 3:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "it did not get that far in time"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert f"go on with: segtrain resume={run_dir}" in output
    assert "find_unused_parameters" not in output
    step = torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)["step"]
    job = ranks.start(tmp_path / "said", 2, f"resume={run_dir}", f"train.max_steps={step + 2}")
    assert job.wait() == [0, 0], job.everything()
    assert f"going on after step {step}" in job.said(0)
    assert (run_dir / "results.json").exists()


def test_nothing_is_asked_of_others_in_one_process():
    assert (process_group.world_size(), process_group.rank(), process_group.is_main()) == (1, 0, True)
    assert process_group.broadcast("a") == "a"
    assert process_group.all_gather("a") == ["a"]
