"""What tests of several packages share."""

import functools
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from matplotlib.figure import Figure

from segtrain import cli
from segtrain.config.compose import compose_config
from segtrain.config.schema import Config
from segtrain.errors import UserError
from segtrain.run import trackers

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
TINY = ("dataset.height=32", "dataset.width=48", "dataset.num_train=5", "dataset.num_val=3", "dataset.crop=[32,32]",
        "train.batch_size=2", "train.report=false", "runtime.workers=0", "runtime.threads=1")
UNET = ("model=unet", "model.width=4", "model.batch_norm=true")  # a checkpoint of the default network has 140 MB
SHARED_RUN = (*TINY, *UNET, "train.epochs=4", "dataset.num_train=12", "dataset.std=[0.229,0.224,0.225]",
              "train.accumulate=2", "train.ema_decay=0.9", "scheduler=poly", "scheduler.warmup_epochs=1",
              "loss=cross_entropy_dice", "augmentation=strong")  # what the fixture shared_run trains


def composed(*overrides: str) -> Config:
    """Compose and check the config as the command does; the same overrides are composed once."""
    return _composed(overrides).model_copy(deep=True)


_composed = functools.cache(compose_config)


def segtrain_exits(*arguments: str) -> int:
    """Run the command in this process and return its exit code; for fixtures of a module, tests have `segtrain`."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segtrain", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code


def mostly_slow(fast: int, cases) -> list:
    """Mark all but the first cases of a parametrized test as slow; a tuple holds the arguments of one."""
    cases = [case if hasattr(case, "marks") else pytest.param(*case if isinstance(case, tuple) else (case,))
             for case in cases]
    return [*cases[:fast], *(pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.slow])
                             for case in cases[fast:])]


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    """Draw normalised images; the same for the same shape and seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draw_no_confusion_matrix(monkeypatch):
    """Show an empty figure in TensorBoard after each validation: a confusion matrix takes longer than a tiny epoch."""
    monkeypatch.setattr(trackers, "draw_confusion", lambda matrix, class_names: Figure(figsize=(1, 1)))


@contextmanager
def refused(*parts, kind=UserError):
    """Expect a user error whose message is one line that holds all the parts."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


@contextmanager
def small_files():
    """Let no file grow beyond 100 kB, which fails as a full disk does."""
    resource = pytest.importorskip("resource")  # Unix has it
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def stop_after_step(monkeypatch, step, signum=signal.SIGTERM):
    """Send this process a signal after an optimizer step of a training, counted over the run, once."""
    from segtrain.tasks import train

    original, stops = train.train_step, []

    def train_step(model, batches, loss_fn, optimizer, scheduler, *args, **kwargs):
        made = original(model, batches, loss_fn, optimizer, scheduler, *args, **kwargs)
        if scheduler.last_epoch == step and not stops:
            stops.append(step)
            os.kill(os.getpid(), signum)
        return made

    monkeypatch.setattr(train, "train_step", train_step)
