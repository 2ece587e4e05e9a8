"""What is known of unchanged samples is kept on the disk: exact, and only a cache."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import composed
from PIL import Image

from segtrain.config import build
from segtrain.data import survey_cache
from segtrain.data.folder import Folder
from segtrain.data.statistics import compute_statistics

GIVEN = ("dataset=folder", "dataset.root=data", "dataset.instances=components")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(survey_cache, "SETTLED_NS", -(10**12))  # the files have just been written
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / "train" / kind).mkdir(parents=True)
    for number in range(6):
        image = rng.integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / f"data/train/images/{number}.png")
        mask = np.zeros((40, 48), np.uint8)
        mask[number:20] = 1
        mask[30:, 30:] = 2
        Image.fromarray(mask).save(tmp_path / f"data/train/masks/{number}.png")
    (tmp_path / "data" / "classes.csv").write_text("name,has_instances\na,false\nb,true\nc,true\n")
    return tmp_path / "data" / "train"


@pytest.fixture
def survey(monkeypatch):
    """Compute the statistics of the split; return them as plain values, and which samples were read."""
    read: list[int] = []
    original = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, index: read.append(index) or original(self, index))

    def compute(*overrides):
        data = build.dataset(composed(*GIVEN, *overrides), "train")
        read.clear()
        found = compute_statistics(data, "components")
        shown = found.shown.tolist()
        return (found.sizes, found.class_pixels, found.image_pixels, found.class_sizes, found.digests, found.remarks,
                found.seen, shown), sorted(read)

    return compute


def test_unchanged_samples_are_not_read_again_and_a_changed_one_is(survey, folder):
    first, read = survey()
    assert read == [0, 1, 2, 3, 4, 5]
    assert survey() == (first, [])
    mask = folder / "masks" / "3.png"
    state = mask.stat()
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = 1
    Image.fromarray(pixels).save(mask)
    second, read = survey()
    assert read == [3]
    assert [one == other for one, other in zip(first[4], second[4], strict=True)] == [1, 1, 1, 0, 1, 1]
    os.utime(mask, ns=(state.st_atime_ns, state.st_mtime_ns))  # its entry in the folder has changed all the same
    assert survey() == (second, [3])
    (folder.parent / "classes.csv").write_text("name,has_instances\na,false\nb,true\nd,true\n")
    assert survey()[1] == [0, 1, 2, 3, 4, 5]


def test_files_that_were_just_written_are_not_trusted(survey, monkeypatch):
    monkeypatch.setattr(survey_cache, "SETTLED_NS", 2 * 10**9)
    first, _ = survey()
    assert survey() == (first, [0, 1, 2, 3, 4, 5])


def test_folds_share_what_is_known_and_remarks_are_kept(survey):
    fold = ("dataset.fold=0", "dataset.folds.k=2")
    first, read = survey(*fold)
    assert len(read) == 3
    assert any("dataset.folds.group" in remark for remark in first[5])
    assert survey(*fold) == (first, [])


def edit(change):
    def forge(path):
        content = json.loads(path.read_text())
        change(content, next(iter(content["entries"].values())))
        path.write_text(json.dumps(content))

    return forge


FORGED = {
    "nothing": lambda path: path.write_bytes(b""), "no JSON": lambda path: path.write_text("{"),
    "pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n."), "list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 100_000), "folder": lambda path: path.unlink() or path.mkdir(),
    "pipe": lambda path: path.unlink() or os.mkfifo(path),
    "link": lambda path: path.unlink() or path.symlink_to("/dev/zero"),
    "unknown class": edit(lambda content, entry: entry["pixels"].append([7, 0])),
    "sizes": edit(lambda content, entry: entry.update(size=[1, 1])),
    "objects": edit(lambda content, entry: entry.update(objects=[[1, 5, 0]])),
    "text": edit(lambda content, entry: entry.update(orientation="1")),
    "huge": edit(lambda content, entry: entry.update(digests=[10**40, 1, 1])),
    "extra": edit(lambda content, entry: content.update(more=1)),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_cache_is_read_anew(survey, tmp_path, forge):
    first, _ = survey()
    (path,) = Path(tmp_path / "cache" / "segtrain" / "surveys").iterdir()
    forge(path)
    assert survey() == (first, [0, 1, 2, 3, 4, 5])


def test_a_cache_that_cannot_be_written_is_said(survey, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first, _ = survey()
    assert "XDG_CACHE_HOME" in caplog.text
    assert survey() == (first, [0, 1, 2, 3, 4, 5])
