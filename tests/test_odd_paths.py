"""Odd paths: what is not a regular file never hangs, nothing leads out, and names may be of any bytes."""

import csv
import io
import json
import os
import shutil
import signal
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import TINY, UNET, mostly_slow
from PIL import Image

from segtrain.data.discovery import list_images
from segtrain.files import own_copy, remove_alias
from segtrain.report.render import write_page
from segtrain.run.results import csv_text
from segtrain.visualize import escape_text

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
NAMES = (b"\xff\xfe<b>.png", b"a\n\x1b[2J$x$.png", b"=1+1.png")
FOLDER = ("dataset=folder", "dataset.root=data", "dataset.crop=[32,32]", "train.batch_size=2", "runtime.workers=0",
          "runtime.threads=1", "model=unet", "model.width=2", "train.max_steps=1", "train.report=false")

BENCHMARK = ("task=benchmark", *UNET, "dataset.num_classes=2", "task.size=[32,32]", "task.repeats=1",
             "task.seconds=0.01", "task.train=false")


@contextmanager
def in_time(seconds=30):
    """Fail instead of waiting for ever."""
    def fail(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def make_data(names):
    """Write a dataset whose images have names of these bytes."""
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            Path("data", split, kind).mkdir(parents=True)
            for name in names:
                values = noise.integers(0, 256, (40, 48, 3), np.uint8)
                with open(os.path.join(f"data/{split}/{kind}".encode(), name), "wb") as file:  # noqa: PTH118, PTH123
                    Image.fromarray(values if kind == "images" else values[..., 0] % 2).save(file, "PNG")
    Path("data/classes.csv").write_text("name\na\nb\n")


# ---- what is not a regular file


@pytest.mark.parametrize(("place", "arguments"), mostly_slow(1, [
    ("run/metrics.csv", ["task=report", "task.run=run"]),
    ("run/train.log", ["resume=run", "train.epochs=5"]),
    ("run/checkpoints/last.pt", ["resume=run", "train.epochs=5"]),
    ("run/checkpoints/best.pt", ["task=evaluate", "checkpoint=run"]),
    ("run/results.json", ["resume=run"]),
    ("run/config.yaml", ["resume=run"]),
    ("run/images.json", ["task=report", "task.run=run"]),
    ("run/.lock", ["resume=run"]),
    ("sweep/leaderboard.json", ["task=report", "task.run=sweep"]),
    ("sweep/multirun.yaml", ["-m", *BENCHMARK, "hydra.sweep.dir=sweep"]),
    ("data/classes.csv", FOLDER), ("data/train/images/x.png", FOLDER), ("data/val/masks/x.png", FOLDER),
    ("video.mp4", ["task=predict", "checkpoint=run", "task.input=."]),
    ("list.txt", ["task=predict", "checkpoint=run", "task.input=list.txt"]),
    ("weights.npz", ["task=convert", "task.weights=weights.npz", "model=mobilenetv2_unet",
                     "model.keras_compatible=true", "dataset.num_classes=3"]),
    ("weights.pt", [*TINY, "model=fcn8", "model.pretrained=weights.pt"]),
    ("sizes.json", ["task=score", "task.predictions=data", "task.class_sizes=sizes.json",
                    "dataset.instances=components", *FOLDER[:2]]),
    ("checked/x.pt", ["task=evaluate", "checkpoint=checked/x.pt"]),
]))
def test_a_pipe_in_place_of_a_file_is_refused_or_left_out(segtrain, shared_run, capsys, place, arguments):
    if "run" in place or "checkpoint=run" in arguments:
        shutil.copytree(shared_run, "run")
    make_data([b"1.png", b"2.png"])
    Path(place).parent.mkdir(exist_ok=True)
    Path(place).unlink(missing_ok=True)
    os.mkfifo(place)
    with in_time():
        assert segtrain(*arguments, *(["hydra.run.dir=out"] * (not {"resume=run", "-m"} & {*arguments}))) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_not_a_regular_file_is_left_out_and_named(caplog):
    make_data([b"1.png", b"2.png"])
    folder = Path("data/train/images")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
        caplog.handler.setLevel("WARNING")
        with caplog.at_level("WARNING", "segtrain.data.discovery"):
            found = [path.name for path in list_images(folder, "x")]
    assert found == ["1.png", "2.png", "gone.png"], "a link to a file that is missing is an error of its own"
    assert all(f"{name}.png" in caplog.text for name in ("pipe", "loop", "socket"))


def test_what_is_opened_for_writing_is_a_file_of_its_own(tmp_path):
    Path("theirs").write_text("theirs")
    for make in (os.link, os.symlink):
        make("theirs", "ours")
        own_copy(Path("ours"))
        assert not Path("ours").is_symlink()
        assert Path("ours").stat().st_nlink == 1
        Path("ours").unlink()
        make("theirs", "ours")
        remove_alias(Path("ours"))
        assert not os.path.lexists("ours")
    Path("plain").write_text("")
    remove_alias(Path("plain"))
    assert Path("plain").exists()


@pytest.mark.slow
def test_the_folder_of_a_job_does_not_lead_out_of_its_sweep(segtrain, shared_run, capsys):
    Path("outside").mkdir()
    Path("sweep").mkdir()
    Path("sweep/0").symlink_to(Path("outside").absolute())
    assert segtrain("-m", "seed=1", "hydra.sweep.dir=sweep", *BENCHMARK) == 2
    assert "is a link to" in capsys.readouterr().err
    assert not list(Path("outside").iterdir())
    shutil.copytree(shared_run, "elsewhere")
    shutil.copytree(shared_run, "sweep/seed=4")
    Path("sweep/seed=3").symlink_to(Path("elsewhere").absolute())
    assert segtrain("task=report", "task.run=sweep", "hydra.run.dir=out") == 0
    assert "seed=3 is a link out of" in Path("sweep/report.html").read_text()
    assert not Path("elsewhere/report.html").exists()


# ---- names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_any_bytes_are_used_and_shown_escaped(segtrain, capsys):
    make_data(NAMES)
    assert segtrain(*FOLDER, "hydra.run.dir=run") == 0
    assert segtrain("task=doctor", *FOLDER[:3], "hydra.run.dir=checked") == 0
    assert segtrain("task=evaluate", "checkpoint=run", "task.worst=3", "task.save_predictions=true",
                    "hydra.run.dir=evaluated") == 0
    assert segtrain("task=score", "task.predictions=evaluated/predictions", *FOLDER[:2], "hydra.run.dir=scored") == 0
    assert segtrain("task=predict", "checkpoint=run", "task.input=data/val/images", "task.overlays=true",
                    "hydra.run.dir=predicted") == 0
    assert segtrain("task=report", "task.run=run", "task.evaluation=evaluated", "hydra.run.dir=reported") == 0
    shown = "".join(capsys.readouterr())
    page = Path("run/report.html").read_text()
    rows = list(csv.DictReader(io.StringIO(Path("evaluated/per_image.csv").read_text())))
    for text in (shown, page, *(row["name"] for row in rows)):
        assert "\x1b" not in text
        assert "\udcff" not in text
    assert {row["name"] for row in rows} == {r"\udcff\udcfe<b>", r"a\n\x1b[2J$x$", "'=1+1"}
    for folder in ("evaluated/predictions", "predicted/predictions"):
        assert sorted(os.listdir(os.fsencode(folder))) == sorted(NAMES), "the right files"  # noqa: PTH208
    assert json.loads(Path("scored/results.json").read_text())["num_images"] == 3


def test_each_medium_has_its_escapes(tmp_path):
    name = "\udcff<b>\x1b[2J\n$x$"
    assert csv_text([["a", name, "=1", "-1", "+a", 2, None]]) == "a,\\udcff<b>\\x1b[2J\\n$x$,'=1,-1,'+a,2,\n"
    assert escape_text(name) == r"\udcff<b>\x1b[2J\n\$x\$"
    write_page(tmp_path / "x.html", "sweep.html", {
        "title": name, "folder": name, "warnings": [name], "num_jobs": 0, "groups": [], "others": [], "num_failed": 0,
        "num_open": 0})
    page = (tmp_path / "x.html").read_text()
    assert r"\udcff&lt;b&gt;\x1b[2J" in page
    assert "\x1b" not in page


@pytest.mark.slow
def test_the_run_directory_may_have_any_name(segtrain, shared_run, capsys):
    """But where TensorBoard writes."""
    run = Path(os.fsdecode(b"r\xff\x1b"))
    shutil.copytree(shared_run, run)
    assert segtrain("task=report", f"task.run={run}", f"hydra.run.dir={run}/out") == 0
    assert segtrain("task=evaluate", f"checkpoint={run}", f"hydra.run.dir={run}/e") == 0
    assert segtrain(f"resume={run}", "train.epochs=5") == 2
    assert r"r\udcff\x1b is not UTF-8 text, which TensorBoard needs" in capsys.readouterr().err
    assert json.loads((run / "e/results.json").read_text())["checkpoint"] == str(run / "checkpoints/best.pt")
    assert cv2.imdecode(np.frombuffer((run / "e/confusion_matrix.png").read_bytes(), np.uint8), 1) is not None
