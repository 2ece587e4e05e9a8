"""What tests of several rooms share."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from segtrain import cli
from segtrain.config.hydra_plugin import compose_config
from segtrain.config.schema import Config
from segtrain.errors import UserError

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
TINY = ("dataset.height=32", "dataset.width=48", "dataset.num_train=5", "dataset.num_val=3", "dataset.crop=[32,32]",
        "train.batch_size=2", "train.report=false", "runtime.workers=0", "runtime.threads=1")


def composed(*overrides: str) -> Config:
    """Compose and check the config as the command does."""
    return compose_config(overrides)


def segtrain_exits(*arguments: str) -> int:
    """Run the command in this process and return its exit code; for fixtures of a module, tests have `segtrain`."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segtrain", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code


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
