"""A run directory belongs to one process at a time, and holds its own files."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from helpers import TINY, refused
from PIL import Image

from segtrain.files import open_regular, own_copy
from segtrain.run.directory import HOLDER, LOCK, InUseError, hold, is_empty, is_unused, refuse_links

HOLDING = """
import sys, time
from pathlib import Path
from segtrain.run.directory import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_directory_is_held_by_one_process(tmp_path, other):
    with refused(tmp_path, f"in use by process {other.pid} on {socket.gethostname()}", "wait until it ends",
                 kind=InUseError), hold(tmp_path):
        pass
    other.kill()
    other.wait()
    assert (tmp_path / HOLDER).exists(), "as a killed process leaves it"
    with hold(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_a_directory_in_use(segtrain, tmp_path, other, capsys):
    assert segtrain(*TINY, f"hydra.run.dir={tmp_path}") == 2
    assert f"in use by process {other.pid}" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, HOLDER}, "its files are left alone"
    os.kill(other.pid, signal.SIGSTOP)  # one that was stopped holds it still
    assert segtrain("-m", "seed=1,2", *TINY, f"hydra.sweep.dir={tmp_path}") == 2
    assert f"in use by process {other.pid}" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {LOCK, HOLDER}


@pytest.mark.slow
def test_the_folder_of_predictions_is_held_for_each_shard(segtrain, shared_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (48, 32)).save(tmp_path / "images/a.png")
    arguments = ["task=predict", f"checkpoint={shared_run}", "task.input=images", "task.output=out"]
    (tmp_path / "out").mkdir()
    with hold(tmp_path / "out", ".1-of-2"):
        assert segtrain(*arguments, "task.shard=1/2", "hydra.run.dir=first") == 2
        assert segtrain(*arguments, "task.shard=2/2", "hydra.run.dir=second") == 0
    assert segtrain(*arguments, "task.shard=1/2", "hydra.run.dir=third") == 0
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(LOCK)]


@pytest.mark.parametrize("content", ["", "[", "[1]", '{"pid": -1}', '{"pid": "x", "host": 3}'])
def test_a_damaged_holder_is_no_obstacle(tmp_path, other, content):
    (tmp_path / HOLDER).write_text(content)
    with refused("in use by process"), hold(tmp_path):
        pass


def test_what_a_run_leaves_that_was_killed_at_its_start_does_not_count(tmp_path):
    assert is_unused(tmp_path)
    for name in (LOCK, HOLDER, "train.log"):
        (tmp_path / name).touch()
    assert is_unused(tmp_path)
    for name in ("config.yaml", "metrics.csv", "events.out.tfevents.1"):  # a training killed in its first epoch
        (tmp_path / name).touch()
    assert is_unused(tmp_path)
    assert not is_empty(tmp_path), "a refused command leaves its files alone"
    (tmp_path / "checkpoints").mkdir()
    assert not is_unused(tmp_path)


def test_links_that_lead_out_are_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "run/inner").symlink_to("train.log")
    (tmp_path / "run/train.log").touch()
    refuse_links(tmp_path / "run")
    (tmp_path / "run/config.yaml").symlink_to(tmp_path / "secret")
    with refused("config.yaml is a link to", "stay in its own directory"):
        refuse_links(tmp_path / "run")


def test_a_file_with_another_name_is_not_appended_to(tmp_path):
    (tmp_path / "elsewhere").write_text("theirs")
    os.link(tmp_path / "elsewhere", tmp_path / "train.log")
    own_copy(tmp_path / "train.log")
    with (tmp_path / "train.log").open("a") as file:
        file.write(", ours")
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert (tmp_path / "train.log").read_text() == "theirs, ours"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    started = time.monotonic()
    for name, said in (("pipe", "not a regular file"), ("socket", "socket"), ("loop", "loop"), (".", "not a regular")):
        with pytest.raises(OSError, match=said):
            open_regular(tmp_path / name)
    assert time.monotonic() - started < 5, "nothing waits"
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"
    server.close()
