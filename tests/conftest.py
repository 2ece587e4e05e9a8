"""Fixtures for all tests: one thread, the command run in this process, and one trained run for all."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other make small tensors slow

import pytest
import torch
from filelock import FileLock
from helpers import SHARED_RUN, draw_no_confusion_matrix, segtrain_exits
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from segtrain.sweep import jobs


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def no_confusion_matrix():
    with pytest.MonkeyPatch.context() as patch:
        draw_no_confusion_matrix(patch)
        yield


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory, no_confusion_matrix):
    """A run of four epochs, trained once for all tests in all processes: who changes it, changes a copy.

    With gradient accumulation, EMA, a schedule with warm-up, and augmentation.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    run_dir = root / "shared" / "run"
    with FileLock(root / "shared.lock"):
        if not run_dir.exists():
            assert segtrain_exits(*SHARED_RUN, f"hydra.run.dir={run_dir}") == 0
    return run_dir


@pytest.fixture
def hydra():
    """Let the test compose configs."""
    GlobalHydra.instance().clear()
    with initialize_config_module("segtrain.conf", version_base="1.3"):
        yield


@pytest.fixture
def segtrain():
    """Run the command in this process: segtrain("train.epochs=1") -> its exit code."""
    return segtrain_exits


@pytest.fixture
def sweeping_elsewhere(tmp_path, monkeypatch):
    """Sweep in a folder of its own, without the collection of garbage after each job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(jobs, "free_memory", lambda: None)  # takes longer than the rest
