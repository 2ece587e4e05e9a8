"""Fixtures for all tests: one thread, and the command run in this process."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other make small tensors slow

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from segtrain import cli

TINY = ("dataset.height=32", "dataset.width=48", "dataset.num_train=5", "dataset.num_val=3", "dataset.crop=[32,32]",
        "train.batch_size=2", "runtime.workers=0", "runtime.threads=1")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def segtrain(monkeypatch):
    """Run the command in this process: segtrain("train.epochs=1") -> its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["segtrain", *arguments])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    return run
