"""Remedies of messages about files are followed, and work."""

import re
import unicodedata

import numpy as np
import pytest
import yaml
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


# ---- settings that a message names


def settings(said, keys):
    """Return what a message says to set, key by key; each must be in it."""
    found = {}
    for key in keys:
        match = re.search(rf"dataset\.{key}=(\[.*?\]|[\w.]+)", said)
        assert match, (key, said)
        found[key] = yaml.safe_load(match[1].rstrip("."))
    return found


def draw(*values, dtype=np.uint8, size=(32, 40)):
    """Draw a mask of some values, or colours, in stripes of ten columns."""
    table = np.array(values, dtype)
    return table[np.arange(size[1]) * len(values) // size[1]][None].repeat(size[0], 0)


def palette(index, *colors):
    made = Image.fromarray(index)
    made.putpalette([part for color in colors for part in color])
    return made


BLACK, RED, GREY = (0, 0, 0), (200, 0, 0), (127, 127, 127)
COLORS = "name,color\nsoil,#000000\nleaf,#c80000\n"
# The class file, the mask, what is set before, what the message says to set (one at a time), and other lines to write.
CASES = {
    "black and white": ("name\nsoil\nleaf\n", draw(0, 255), {}, ["binary", "void"]),
    "black and white of 16 bits": ("name\nsoil\nleaf\n", draw(0, 65535, dtype=np.uint16), {}, ["binary", "void"]),
    "more than two values": ("name\nsoil\nleaf\n", draw(0, 90, 255), {"binary": True}, ["threshold"]),
    "one grey value": ("name\nsoil\nleaf\n", draw(0, 76), {"binary": True}, ["threshold"]),
    "below the threshold": ("name\nsoil\nleaf\n", draw(0, 76), {"threshold": 128}, ["threshold"]),
    "0 and 1 under a threshold": ("name\nsoil\nleaf\n", draw(0, 1), {"threshold": 128}, ["binary"]),
    "a value of no class": ("name\nsoil\nleaf\nroot\n", draw(0, 1, 9), {}, ["void"]),
    "many values of no class": ("name\nsoil\nleaf\nroot\n", draw(*range(20)), {}, ["void"]),
    "255 is a class": ("name,label_id\nsoil,0\nleaf,255\n", draw(0, 255), {}, ["void"]),
    "a class among void": ("name\nsoil\nleaf\nroot\n", draw(0, 1, 2), {"void": [2]}, ["void"]),
    "a colour of no class": (COLORS, draw(BLACK, RED, GREY), {}, ["void", "nearest_colors"]),
    "a palette of other colours": (COLORS, palette(draw(0, 1), RED, BLACK), {}, ["palette"]),
    "white first": ("name\nsoil\nleaf\n", palette(draw(0, 1), (255,) * 3, BLACK), {}, ["binary", "palette"]),
    "one class": ("name\nleaf\n", draw(0, 255), {}, ["binary"], "name\nsoil\nleaf\n"),
    "a value twice": ("name,label_id\nsoil,0\nleaf,1\nleaf,2\n", draw(0, 1, 2), {}, [],
                      "name,label_ids\nsoil,0\nleaf,1 2\n"),
    "a colour mask": ("name\nsoil\nleaf\n", draw(BLACK, RED), {}, [], COLORS),
    "grey colours": ("name,color\nsoil,#000000\nleaf,#7f7f7f\n", draw(0, 127), {}, [],
                     "name,label_id,color\nsoil,0,#000000\nleaf,127,#7f7f7f\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_settings_that_a_message_names_work(tmp_path, case):
    classes, mask, given, keys, *other = CASES[case]
    make(tmp_path, "images/a.jpg", "masks/a.png")
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(tmp_path / "masks" / "a.png")
    paths = {"root": str(tmp_path), "images": "images", "masks": "masks"}
    (tmp_path / "classes.csv").write_text(classes)
    with pytest.raises(UserError) as refused:
        Folder("all", **paths, **given).read(0)
    if other:
        (tmp_path / "classes.csv").write_text(other[0])
    for key, value in settings(str(refused.value), keys).items() or [(None, None)]:
        left = {name: old for name, old in given.items() if name not in ("binary", "threshold")}
        target = Folder("all", **paths, **(left | ({key: value} if key else {}))).read(0).target
        assert len(set(np.unique(target)) - {255}) >= (1 if key == "void" else 2)


def test_settings_about_files_work(tmp_path):
    make(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png")
    paths = {"root": str(tmp_path), "images": "images", "masks": "masks"}
    assert Folder("all", **paths, **settings(message(**paths), ["skip_without_mask"])).names == ["a"]
    with pytest.raises(UserError) as refused:
        Folder("train", **paths)
    make(tmp_path, "masks/b.png")
    assert len(Folder("train", **paths, **settings(str(refused.value), ["val_fraction"])).names) == 1
    Image.fromarray(draw(0, 3000, dtype=np.uint16)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(UserError) as refused:
        Folder("all", **paths).read(0)
    bits = settings(str(refused.value), ["image_bits"])
    assert Folder("all", **paths, **bits).read(0).image.max() == round(3000 * 255 / 4095)


def test_masks_of_each_class(tmp_path):
    make(tmp_path, "images/a.jpg", "masks/soil/a.png", "masks/leaf/a.png")
    given = {"root": str(tmp_path), "images": "images", "masks": "masks/{class}"}
    said = message(**given)
    assert "give it another label_id" in said
    (tmp_path / "classes.csv").write_text("name,label_id\nsoil,1\nleaf,2\n")
    Image.fromarray(draw(0, 100, 200)).save(tmp_path / "masks/leaf/a.png")
    Image.fromarray(draw(1, 0)).save(tmp_path / "masks/soil/a.png")
    rest = settings(said, ["void"])
    with pytest.raises(UserError) as refused:
        Folder("all", **given, **rest).read(0)
    cut = settings(str(refused.value), ["threshold"])
    Image.fromarray(draw(255, 0)).save(tmp_path / "masks/soil/a.png")
    assert set(np.unique(Folder("all", **given, **rest, **cut).read(0).target)) == {0, 1, 255}


def test_an_image_and_its_mask_under_one_pattern(tmp_path):
    make(tmp_path, "a.jpg")
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(tmp_path / "a.png")
    said = message(root=str(tmp_path), images="*", masks=None)
    assert "tell them apart by dataset.images and dataset.masks, as *.jpg and *.png" in said
    (tmp_path / "list.txt").write_text("a.jpg\na.png\n")
    assert "a mask behind its image, on the same line" in message(root=str(tmp_path), images="list.txt")
    (tmp_path / "list.txt").write_text("a.jpg a.png\n")
    assert Folder("all", root=str(tmp_path), images="list.txt").names == ["a"]
