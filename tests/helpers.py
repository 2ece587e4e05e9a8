"""What tests of several rooms share."""

import sys
from pathlib import Path

import pytest
from hydra import compose
from hydra.core.global_hydra import GlobalHydra

from segtrain import cli
from segtrain.config import check

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
TINY = ("dataset.height=32", "dataset.width=48", "dataset.num_train=5", "dataset.num_val=3", "dataset.crop=[32,32]",
        "train.batch_size=2", "train.report=false", "runtime.workers=0", "runtime.threads=1")


def composed(*overrides):
    """Compose and check the config as the command does; needs the fixture hydra."""
    return check.check(compose("config", [*overrides]))


def segtrain_exits(*arguments: str) -> int:
    """Run the command in this process and return its exit code; for fixtures of a module, tests have `segtrain`."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segtrain", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code
