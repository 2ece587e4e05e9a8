"""Losses and gradients that are not finite: what they must not touch, what is saved, what is skipped."""

import copy
import csv
import json
import math
from types import SimpleNamespace

import pytest
import torch
from helpers import TINY, UNET, mostly_slow
from made_files import constant_masks
from torch import nn

from segtrain.data.loading import Batch
from segtrain.data.transforms import Normalize
from segtrain.losses import CrossEntropy
from segtrain.training import nonfinite, step
from segtrain.training.nonfinite import NonFiniteGuard
from segtrain.training.state import Progress
from segtrain.training.step import train_step

CPU = torch.device("cpu")
NORMALIZE = Normalize([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], CPU, channels_last=False)
K = 3


# ---- one step, in the engine


class Poisoned(CrossEntropy):
    """Give a wrong loss, or a right one with a wrong gradient, in the calls that are named."""

    def __init__(self, calls, value=math.nan, in_gradient=False):
        super().__init__()
        self.calls, self.value, self.in_gradient, self.count = calls, value, in_gradient, 0

    def forward(self, logits, target):
        sums = super().forward(logits, target)
        self.count += 1
        if self.count not in self.calls:
            return sums
        return sums + (logits.sum() * 0).sqrt() if self.in_gradient else sums * self.value


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Conv2d(8, K, 1))


def batches(count):
    generator = torch.Generator().manual_seed(0)
    return [Batch(torch.randint(256, (2, 8, 8, 3), dtype=torch.uint8, generator=generator),
                  torch.randint(K, (2, 8, 8), dtype=torch.uint8, generator=generator), [2 * n, 2 * n + 1])
            for n in range(count)]


def parts(model, precision="fp32"):
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (1 + n))
    return optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=precision == "fp16", init_scale=1.0)


def everything(model, optimizer, scheduler, scaler):
    return copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict(), scaler.state_dict()))


def assert_same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


class StoppedError(Exception):
    def __init__(self, step):
        super().__init__()
        self.step = step


def run(model, loss_fn, made, count, precision="fp32", on_nonfinite=None, clip_norm=None):
    """Train step by step under a guard; without one if on_nonfinite is None."""
    optimizer, scheduler, scaler = made
    state = SimpleNamespace(model=model, device=CPU, total_steps=count, progress=Progress(),
                            cfg=SimpleNamespace(train=SimpleNamespace(on_nonfinite=on_nonfinite)))
    guard = NonFiniteGuard(state)
    guard._stop = StoppedError
    for batch in batches(count):
        guard.before_step()
        yield train_step(model, [batch], loss_fn, optimizer, scheduler, NORMALIZE, device=CPU, precision=precision,
                         scaler=scaler, clip_norm=clip_norm,
                         **({"allows_update": guard.allows_update} if on_nonfinite else {}))
        state.progress.step += 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("fault", [{"value": math.nan}, {"value": math.inf}, {"in_gradient": True}],
                         ids=["nan", "inf", "gradient"])
def test_a_bad_step_changes_nothing_and_raises(precision, clip_norm, fault):
    model = network()
    made = parts(model, precision)
    steps = run(model, Poisoned({3}, **fault), made, 4, precision, "stop", clip_norm)
    next(steps), next(steps)
    before = everything(model, *made)
    with pytest.raises(StoppedError) as raised:
        next(steps)
    assert_same(everything(model, *made), before)
    assert raised.value.step.indices == [4, 5]
    assert raised.value.step.lr == pytest.approx(1e-2 / 3)
    assert math.isfinite(raised.value.step.loss) == ("in_gradient" in fault)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_skipped_step_moves_the_schedule_alone(precision, clip_norm):
    model = network()
    made = parts(model, precision)
    steps = run(model, Poisoned({1, 3}), made, 4, precision, clip_norm=clip_norm, on_nonfinite="skip")
    assert next(steps).skipped
    assert not next(steps).skipped
    before = everything(model, *made)
    assert next(steps).skipped
    after = everything(model, *made)
    assert_same(after[0], before[0])
    assert_same(after[1]["state"], before[1]["state"])
    assert made[1].last_epoch == 3
    last = next(steps)
    assert not last.skipped
    assert last.is_finite
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_gradient_that_overflows_by_its_scale_is_the_scalers_to_mend():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=1000)
    made = optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1.0), scaler
    before = copy.deepcopy(model[0].weight)
    steps = list(run(model, CrossEntropy(), made, 3, "fp16", "stop"))
    assert all(step.is_finite and not step.skipped for step in steps)
    assert scaler.get_scale() == 2.0**117
    assert_same(model[0].weight, before)


def test_without_looking_first_the_step_is_made_and_told():
    model = network()
    steps = list(run(model, Poisoned({2}), parts(model), 3))
    assert [bool(step.is_finite) for step in steps] == [True, False, False]
    assert model[0].weight.isnan().all()


def test_looking_first_changes_no_number():
    looked, not_looked = network(), network()
    for model, mode in ((looked, "stop"), (not_looked, None)):
        torch.manual_seed(1)
        list(run(model, CrossEntropy(), parts(model), 3, on_nonfinite=mode, clip_norm=1.0))
    assert_same(looked.state_dict(), not_looked.state_dict())


# ---- whole runs

SMALL = (*TINY, *UNET, "train.examples=0", "dataset.num_train=12", "train.epochs=2", "train.ema_decay=0.9")


def poison(monkeypatch, bad_steps, every_time=True):
    """Make the loss of some optimizer steps NaN, counted over the run by the images they see."""
    original, seen = CrossEntropy.forward, []

    def forward(self, logits, target):
        sums = original(self, logits, target)
        if not logits.requires_grad:
            return sums
        key = current["progress"].step + 1
        if key in bad_steps and (every_time or key not in seen):
            seen.append(key)
            return sums * math.nan
        return sums

    current = {}
    original_before = NonFiniteGuard.before_step

    def noted(self):
        current["progress"] = self._state.progress
        original_before(self)

    monkeypatch.setattr(CrossEntropy, "forward", forward)
    monkeypatch.setattr(NonFiniteGuard, "before_step", noted)


def last(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in ("train/images_per_second", "train/data_wait")}
                for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "run"


def ensure(segtrain, run_dir):
    if not run_dir.exists():
        assert segtrain(*SMALL, f"hydra.run.dir={run_dir}") == 0
    return run_dir


@pytest.mark.slow
def test_a_stopped_run_repeats_the_step_or_goes_on_as_if_nothing_had_been(segtrain, whole_run, tmp_path, capsys,
                                                                         monkeypatch):
    """The eighth step, in mid-epoch, is bad; afterwards its cause is gone, so the run must end as an unbroken one."""
    ensure(segtrain, whole_run)
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, {8})
        assert segtrain(*SMALL, f"hydra.run.dir={run_dir}") == 2
        message = capsys.readouterr().err
        for said in ("the loss is nan at step 8 of epoch 2", "learning rate", "street_train_0", f"resume={run_dir}",
                     "optim.lr=", "train.clip_norm=1", "train.on_nonfinite=skip", "best.pt"):
            assert said in message
        assert last(run_dir)["step"] == 7
        assert (run_dir / "checkpoints" / "step-00000006.pt").exists()
        assert segtrain(f"resume={run_dir}") == 2
        assert capsys.readouterr().err == message
        assert last(run_dir)["step"] == 7
    assert segtrain(f"resume={run_dir}") == 0
    for key in ("model", "ema", "optimizer"):
        assert_same(last(run_dir)[key], last(whole_run)[key])
    assert rows(run_dir) == rows(whole_run)


@pytest.mark.slow
@pytest.mark.parametrize("read_every", [3, 5, 50])
def test_a_device_that_is_read_late_stops_in_the_same_state(segtrain, tmp_path, capsys, monkeypatch, read_every):
    """As on a GPU: the bad step is made, noticed later, and the steps before it are made once more."""
    run_dirs = [tmp_path / "looked", tmp_path / "late"]
    for run_dir in run_dirs:
        with monkeypatch.context() as patch:
            if run_dir.name == "late":
                late(patch, read_every)
            poison(patch, {8})
            assert segtrain(*SMALL, f"hydra.run.dir={run_dir}") == 2
            assert "at step 8 of epoch 2" in capsys.readouterr().err
    one, other = map(last, run_dirs)
    for key in ("model", "ema", "optimizer", "scheduler", "scaler", "rng", "step"):
        assert_same(one[key], other[key])
    assert one["progress"]["loss_sums"] == other["progress"]["loss_sums"]


def late(patch, read_every):
    """Make the CPU be treated as a GPU is."""
    patch.setattr(nonfinite, "READ_EVERY", read_every)
    patch.setattr(nonfinite, "checks_first", lambda device: False)


@pytest.mark.parametrize("read_every", mostly_slow(1, [None, 4]))
def test_skipped_steps_are_counted_and_reported(segtrain, tmp_path, capsys, monkeypatch, read_every):
    run_dir = tmp_path / "run"
    poison(monkeypatch, {2, 3, 9})
    if read_every:
        late(monkeypatch, read_every)
    assert segtrain(*SMALL, "train.on_nonfinite=skip", f"hydra.run.dir={run_dir}") == 0
    log = (run_dir / "train.log").read_text()
    for number in (2, 3, 9):
        assert log.count(f"step {number} is skipped: the loss is nan") == 1
    assert "3 of 12 steps were skipped" in log
    assert json.loads((run_dir / "results.json").read_text())["skipped_steps"] == 3
    assert last(run_dir)["progress"]["step"] == last(run_dir)["scheduler"]["last_epoch"] == 12
    assert all(value.isfinite().all() for value in last(run_dir)["model"].values())
    assert all(math.isfinite(float(row["train/loss"])) for row in rows(run_dir))


@pytest.mark.slow
def test_a_run_that_gives_nothing_but_nan_is_not_skipped_to_its_end(segtrain, tmp_path, capsys, monkeypatch):
    poison(monkeypatch, range(2, 100))
    assert segtrain(*SMALL, "train.on_nonfinite=skip", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "10 steps in a row were skipped, the last is step 11" in capsys.readouterr().err
    assert last(tmp_path / "run")["step"] == 11


@pytest.mark.slow
def test_the_rate_of_the_next_step_follows_a_resume(segtrain, tmp_path, monkeypatch):
    """The very step that was bad must be made with the new rate, not only those behind it."""
    run_dir, rates = tmp_path / "run", []
    with monkeypatch.context() as patch:
        poison(patch, {8})
        assert segtrain(*SMALL, "scheduler=constant", f"hydra.run.dir={run_dir}") == 2
    original = step.Step

    def noted(*args, **kwargs):
        rates.append(args[3])
        return original(*args, **kwargs)

    monkeypatch.setattr(step, "Step", noted)
    assert segtrain(f"resume={run_dir}", "optim.lr=1e-5") == 0
    assert rates == pytest.approx([1e-5] * 5)
    assert "the learning rate goes on at 1e-05" in (run_dir / "train.log").read_text()


def test_broken_weights_are_not_saved(segtrain, tmp_path, capsys, monkeypatch):
    run_dir, original = tmp_path / "run", NonFiniteGuard._read

    def broken(self):
        if self._state.progress.step == 8:
            next(self._state.model.parameters()).data.fill_(math.inf)
        return original(self)

    monkeypatch.setattr(NonFiniteGuard, "_read", broken)
    assert segtrain(*SMALL, f"hydra.run.dir={run_dir}") == 2
    assert "The weights were not finite either, so nothing was saved" in capsys.readouterr().err
    assert last(run_dir)["step"] == 6


# ---- what is odd, but no fault


def test_a_training_split_of_one_class_is_refused(segtrain, tmp_path, capsys):
    data = constant_masks(tmp_path / "data", {"train": [0, 0, 255], "val": [0, 1]})
    assert segtrain(*data, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "every labelled pixel of train is" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_images_of_one_class_or_of_void_alone_train(segtrain, tmp_path):
    data = constant_masks(tmp_path / "data", {"train": [0, 1, 255, 255], "val": [0, 255]})
    assert segtrain(*data, f"hydra.run.dir={tmp_path / 'run'}") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["iou_per_class"]["thing"] in (None, 0.0)
    assert math.isfinite(float(rows(tmp_path / "run")[0]["train/loss"]))


@pytest.mark.parametrize(("train", "val"), [([255, 255], [0]), ([0, 1], [255])], ids=["train", "val"])
def test_a_split_of_void_alone_is_refused(segtrain, tmp_path, capsys, train, val):
    data = constant_masks(tmp_path / "data", {"train": train, "val": val})
    assert segtrain(*data, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "every target is void" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_images_left_over_wait_for_another_epoch(segtrain, tmp_path):
    """Five images in batches of two: two steps an epoch, and no lone image for BatchNorm."""
    assert segtrain(*TINY, *UNET, "train.epochs=1", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == ["2"]


def test_an_epoch_without_a_step_is_refused(segtrain, tmp_path, capsys):
    assert segtrain(*TINY, "train.batch_size=6", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "train.batch_size=6 is larger than the training split of 5 images" in capsys.readouterr().err
