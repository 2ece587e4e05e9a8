"""Fixtures for all tests: one thread, and the command run in this process."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other make small tensors slow

import pytest
import torch
from helpers import segtrain_exits
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from segtrain.sweep import jobs


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


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
