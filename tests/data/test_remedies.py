"""Remedies of messages about files are followed, and work."""

import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from segtrain.data.folder import Folder
from segtrain.errors import UserError


def make(root, *names):
    """Write a mask for each name of a PNG, an image for others."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (32, 40) if name.endswith(".png") else (32, 40, 3)
        Image.fromarray(np.zeros(shape, np.uint8)).save(path, format="PNG" if name.endswith(".png") else "JPEG")
    (root / "classes.csv").write_text("name\nsoil\nleaf\n")
    return root


def message(**arguments):
    with pytest.raises(UserError) as found:
        Folder("all", **arguments)
    return str(found.value)


def test_a_mask_with_an_ending_of_its_own(tmp_path):
    make(tmp_path, "images/a.jpg", "masks/a_mask.png")
    given = {"root": str(tmp_path), "images": "images", "masks": "masks"}
    said = message(**given)
    ending = re.search(r"set dataset\.mask_suffix=(\S+)\.$", said)
    assert ending, said
    assert Folder("all", **given, mask_suffix=ending[1]).names == ["a"]


def test_a_mask_beside_its_image(tmp_path):
    make(tmp_path, "a.jpg")
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(tmp_path / "a.png")
    said = message(root=str(tmp_path), images=".", masks=None)
    assert "tell them apart by dataset.images and dataset.masks, as *.jpg and *.png" in said
    assert Folder("all", str(tmp_path), images="*.jpg", masks="*.png").names == ["a"]


def test_accents_are_the_same_however_they_are_written(tmp_path):
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make(tmp_path, f"images/{one}.jpg", f"masks/{other}.png", "images/b.jpg", "masks/b.png")
    (tmp_path / "names.txt").write_text(f"{other}\n")
    given = {"root": str(tmp_path), "images": "images", "masks": "masks"}
    assert Folder("all", **given).names == ["b", one]
    assert Folder("all", **given, names="names.txt").names == [one]
    by_pattern = Folder("all", str(tmp_path), images="images/*.jpg", masks="masks/*.png")
    assert by_pattern.names == ["b", one]


def test_images_of_other_suffixes_are_read_or_named(tmp_path, caplog):
    make(tmp_path, "images/a.jfif", "masks/a.png", "images/b.jpg", "masks/b.png")
    (tmp_path / "images/c.heic").write_bytes(b"x")
    assert Folder("all", str(tmp_path), images="images", masks="masks").names == ["a", "b"]
    assert "1 .heic files below" in caplog.text
