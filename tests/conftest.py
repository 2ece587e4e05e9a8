"""Fixtures for all tests: one thread, and the command run in this process."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other make small tensors slow

import pytest
import torch
from helpers import segtrain_exits
from hydra import initialize_config_module
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra

from segtrain.sweep import jobs

# Files are given out whole, in their order, to processes that are free: the longest first, lest one is left over.
LONGEST = ("test_distributed", "test_models", "test_readme", "test_resume", "test_train", "test_planted_faults",
           "test_bad_configuration", "test_export", "test_chaos", "test_hostile_files")


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(autouse=True, scope="session")
def composed_once():
    """Leave out the first of two compositions, by which Hydra asks whether the config sets hydra.mode, for its time."""
    whole = Hydra.get_mode

    def get_mode(self, config_name, overrides):
        return whole(self, config_name, overrides) if any("hydra.mode" in each for each in overrides) else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", get_mode)
        yield


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
