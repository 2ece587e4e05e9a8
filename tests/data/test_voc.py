"""PASCAL VOC's tree: lists, palette and colour masks, objects, own classes, and what is said of faults."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import composed, refused
from made_files import make_image, make_mask, save_image
from PIL import Image

from segtrain.data.color_masks import convert_colors, find_rows, pack
from segtrain.data.statistics import compute_statistics
from segtrain.data.voc import VOC, Voc
from segtrain.errors import UserError
from segtrain.labels import Label

PALETTE = [value for label in VOC for value in label.color]


def save_palette(path, mask):
    """Save an index mask as VOC does, with its palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    made.putpalette(PALETTE + [0] * (765 - len(PALETTE)) + [224, 224, 192])
    made.save(path)
    return path


def tree(root, names=("a", "b"), split="train", mask=None, objects=None):
    """Write a tree in VOC's shape; a mask of three dimensions is saved in colours."""
    for name in names:
        save_image(root / "JPEGImages" / f"{name}.jpg", make_image())
        mask = make_mask(value=15) if mask is None else mask
        write = save_image if mask.ndim == 3 else save_palette
        write(root / "SegmentationClass" / f"{name}.png", mask)
        if objects is not None:
            (save_image if objects.ndim == 3 else save_palette)(root / "SegmentationObject" / f"{name}.png", objects)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def own(root, text="name,color\nfloor,#101010\nchair,#ff8000\n"):
    (root / "mine.csv").write_text(text)
    return {"root": str(root), "classes": "mine.csv"}


# ---- VOC


def test_palette_follows_the_bits_of_the_class_number():
    assert [label.train_id for label in VOC] == [label.label_id for label in VOC] == list(range(21))
    for label in VOC:
        bits = [label.label_id >> place & 1 for place in range(6)]
        assert label.color == tuple(128 * bits[channel] + 64 * bits[channel + 3] for channel in range(3))
    assert [label.name for label in VOC if not label.has_instances] == ["background"]


@pytest.mark.parametrize("inside", [".", "VOC2012", "VOCdevkit/VOC2012"])
def test_tree_is_found_at_and_below_root(tmp_path, inside):
    mask = make_mask()
    mask[0, :21] = range(21)
    mask[1] = 255
    tree(tmp_path / inside, ("2007_000032", "2007_000039"), mask=mask)
    save_image(tmp_path / inside / "JPEGImages" / "not_listed.jpg", make_image())
    data = Voc("train", str(tmp_path))
    assert (data.labels, data.names) == (VOC, ["2007_000032", "2007_000039"])
    read = data.read(1)
    assert (read.image.shape, read.instances) == ((32, 40, 3), None)
    np.testing.assert_array_equal(read.target, mask)
    assert data.locate(1) == str(tmp_path / inside / "SegmentationClass" / "2007_000039.png")


def test_objects_have_numbers_and_their_seams_have_none(tmp_path):
    objects = make_mask()
    objects[0, :5], objects[0, 5], objects[0, 6:9] = 1, 255, 2
    root = str(tree(tmp_path, objects=objects))
    read = Voc("train", root).read(0)
    assert read.instances.dtype == np.int32
    assert read.instances[0, :10].tolist() == [1] * 5 + [0] + [2] * 3 + [0]
    assert compute_statistics(Voc("train", root), "maps").class_sizes["person"] == 4.0
    assert Voc("train", root, objects=None).read(0).instances is None
    assert Voc("train", root, objects="Elsewhere").read(0).instances is None


def test_colour_masks_and_colour_objects(tmp_path):
    mask, objects = np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40, 3), np.uint8)
    mask[0], mask[1] = VOC[15].color, (224, 224, 192)
    objects[0, :20], objects[0, 20:], objects[1] = (128, 0, 0), (0, 128, 0), (224, 224, 192)
    read = Voc("train", str(tree(tmp_path, mask=mask, objects=objects))).read(0)
    assert read.target[:3, 0].tolist() == [15, 255, 0]
    assert read.instances.dtype == np.int32
    assert read.instances[:2, ::20].tolist() == [[1, 2], [0, 0]]
    save_image(tmp_path / "SegmentationObject" / "a.png", np.full((32, 40, 3), 9, np.uint8))
    assert (Voc("train", str(tmp_path)).read(0).instances == 1).all()  # one object fills the image


# ---- trees of one's own


def test_own_classes_in_numbers_and_in_colours(tmp_path):
    mask = make_mask()
    mask[0] = 1
    colours = np.full((32, 40, 3), 16, np.uint8)
    colours[0] = (255, 128, 0)
    for name, each in (("numbers", mask), ("colours", colours)):
        tree(tmp_path / name, mask=each)
        data = Voc("train", **own(tmp_path / name))
        assert [label.name for label in data.labels] == ["floor", "chair"]
        assert data.read(0).target[:2, 0].tolist() == [1, 0]


def test_masks_from_another_folder_and_images_of_other_kinds(tmp_path):
    tree(tmp_path)
    (tmp_path / "SegmentationClass").rename(tmp_path / "SegmentationClassPNG")
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    save_image(tmp_path / "JPEGImages" / "a.png", make_image())
    np.testing.assert_array_equal(
        Voc("train", str(tmp_path), masks="SegmentationClassPNG").read(0).image, make_image())
    with refused(tmp_path / "SegmentationClass", "dataset.masks"):
        Voc("train", str(tmp_path))


def test_number_of_classes_follows_the_class_file(hydra):
    assert composed("dataset=voc").model["num_classes"] == 21
    assert composed("dataset=voc", "dataset.classes=mine.csv").model["num_classes"] is None


# ---- faults


def test_missing_folders_and_splits(tmp_path):
    with refused("dataset.root", "VOC2012"):
        Voc("train")
    with refused(tmp_path / "no" / "JPEGImages", "VOCdevkit/VOC2012", "dataset.root"):
        Voc("train", str(tmp_path / "no"))
    tree(tmp_path)
    lists = tmp_path / "ImageSets" / "Segmentation"
    with refused("dataset.split=trian", lists / "trian.txt", "the splits train", "mean 'train'"):
        Voc("trian", str(tmp_path))
    for text, part in (("\n \n", "empty"), ("a\nb 1\na\n", "a twice"), ("a\nb\nb\na\n", "and 1 other names")):
        (lists / "val.txt").write_text(text)
        with refused(lists / "val.txt", part):
            Voc("val", str(tmp_path))
    (lists / "val.txt").write_bytes(b"\xff\xfe\xff")
    with refused(lists / "val.txt", "cannot be read"):
        Voc("val", str(tmp_path))
    for path in lists.iterdir():
        path.unlink()
    lists.rmdir()
    with refused("dataset.split=train", "(none)"):
        Voc("train", str(tmp_path))


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass"])
def test_missing_images_are_named(tmp_path, folder):
    tree(tmp_path, "abc")
    for name in "bc":
        next((tmp_path / folder).glob(f"{name}.*")).unlink()
    with pytest.raises(UserError, match=r"2 of the 3 names in .*train\.txt .* the first is b: add") as caught:
        Voc("train", str(tmp_path))
    assert caught.value.files == [str(tmp_path / folder / name) for name in "bc"]


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass", "SegmentationObject"])
def test_a_image_in_two_formats_is_not_chosen_from(tmp_path, folder):
    tree(tmp_path, objects=make_mask())
    first = next((tmp_path / folder).glob("b.*"))
    save_image(tmp_path / folder / "b.bmp", make_mask())
    with refused(first, tmp_path / folder / "b.bmp", "keep one"):
        Voc("train", str(tmp_path))


def test_bad_masks_are_named(tmp_path):
    path = tmp_path / "SegmentationClass" / "a.png"

    def read(mask=None, **options):
        return Voc("train", **{"root": str(tree(tmp_path, mask=mask)), **options}).read(0)

    tree(tmp_path)
    save_image(path, make_mask(value=21))
    with refused(path, "21 (1280 pixels)", "0..20", "255"):
        Voc("train", str(tmp_path)).read(0)
    with refused(path, "40x32", "32x40"):
        read(make_mask((40, 32)))
    unknown = np.zeros((32, 40, 3), np.uint8)
    unknown[:2], unknown[2, :4] = (1, 2, 3), 9
    with refused(path, "#010203 (80 pixels), nearest background", "#090909 (4 pixels)", "dataset.nearest_colors"):
        read(unknown)
    assert set(np.unique(read(unknown, nearest_colors=True).target)) == {0}
    with refused(path, "floor and chair the same colour #101010"):
        read(unknown, **own(tmp_path, "name,color\nfloor,#101010\nchair,#101010\n"))
    tree(tmp_path)
    path.write_bytes(path.read_bytes()[:60])
    with refused(path, "cannot be read"):
        Voc("train", str(tmp_path)).read(0)
    tree(tmp_path, objects=make_mask((40, 32)))
    with refused(tmp_path / "SegmentationObject" / "a.png", "32x40"):
        Voc("train", str(tmp_path)).read(0)


def test_names_without_a_mask_are_left_out_where_that_is_set(tmp_path):
    (tree(tmp_path, "abc") / "SegmentationClass" / "b.png").unlink()
    with refused("1 of the 3 names", "SegmentationClass"):
        Voc("train", str(tmp_path))
    data = Voc("train", str(tmp_path), skip_without_mask=True)
    assert data.names == ["a", "c"]
    assert data.remarks()[0].startswith("1 of 3 images have no mask and are left out")


# ---- colours


def test_colours_are_found_in_a_table():
    table = [(255, 0, 0), (0, 0, 0), (0, 0, 255)]
    colours = np.array([[[0, 0, 255], [255, 0, 0]], [[0, 1, 0], [0, 0, 0]], [[0, 1, 0], [255, 255, 255]]], np.uint8)
    rows, unknown = find_rows(colours, table)
    assert rows.dtype == np.uint8
    assert rows.tolist() == [[2, 0], [255, 1], [255, 255]]
    assert unknown == {(0, 1, 0): 2, (255, 255, 255): 1}
    assert find_rows(colours[:1], table)[1] == {}
    assert pack(colours)[:2].tolist() == [[0xff, 0xff0000], [0x100, 0]]
    labels = (Label("a", 9, 0, (0, 0, 255)), Label("b", 3, 1, (255, 0, 0)))
    how = {"path": "x", "nearest": False, "remark": ""}
    assert convert_colors(colours[:1], labels, [(0, 0, 0)], **how).tolist() == [[0, 1]]
    assert convert_colors(colours[1:2, 1:], labels, [(0, 0, 0)], **how).tolist() == [[255]]


def test_alpha_of_colour_masks_is_dropped(tmp_path):
    mask = np.zeros((32, 40, 4), np.uint8)
    mask[0, :, :3] = VOC[15].color
    assert Voc("train", str(tree(tmp_path, mask=mask))).read(0).target[:2, 0].tolist() == [15, 0]


def test_masks_of_two_classes_in_black_and_white(tmp_path):
    mask = make_mask()
    mask[0] = 255
    save_image(tree(tmp_path) / "SegmentationClass" / "a.png", mask)
    options = own(tmp_path)
    with refused("255 (40 pixels)", "dataset.binary=true", "dataset.void=[255]"):
        Voc("train", **options).read(0)
    assert Voc("train", **options, binary=True).read(0).target[:2, 0].tolist() == [1, 0]
    assert Voc("train", **options, void=[255]).read(0).target[:2, 0].tolist() == [255, 0]


# ---- the command


@pytest.mark.slow
def test_train_and_evaluate(segtrain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.zeros((32, 40), np.uint8)
    objects[:2, :10], objects[4, :10] = 1, 2
    mask = np.where(objects > 0, 1, 0).astype(np.uint8)
    for split in ("train", "val"):
        tree(tmp_path, (f"{split}0", f"{split}1"), split, mask, objects)
    own(tmp_path, "name,has_instances\nfloor,false\nchair,true\n")
    options = ("dataset=voc", "dataset.root=.", "dataset.crop=[32,32]", "train.batch_size=2", "train.epochs=1",
               "runtime.workers=0", "runtime.threads=1")
    assert segtrain(*options, "dataset.classes=mine.csv", "dataset.instances=maps", "hydra.run.dir=run") == 0
    assert segtrain("task=evaluate", "checkpoint=run", "dataset.split=train", "hydra.run.dir=scores") == 0
    results = json.loads(Path("scores/results.json").read_text())
    assert (results["num_images"], results["policy"]["class_sizes"]) == (2, {"chair": 15.0})
    assert [sum(row) for row in results["confusion_matrix"]] == [2 * 1250, 60]
    assert segtrain(*options, "dataset.split=night", "checkpoint=run", "task=evaluate", "hydra.run.dir=no") == 2


def test_a_name_may_have_blanks_and_lack_its_mask(tmp_path):
    tree(tmp_path, ("a b", "c"))
    (tmp_path / "SegmentationClass/c.png").unlink()
    with refused("1 of the 2 names", "c"):
        Voc("train", root=str(tmp_path))
    with refused("dataset.missing_mask=void is unknown"):
        Voc("train", root=str(tmp_path), missing_mask="void")
    data = Voc("train", root=str(tmp_path), missing_mask="background")
    assert data.names == ["a b", "c"]
    assert [np.unique(data.read(index).target).tolist() for index in (0, 1)] == [[15], [0]]


def test_a_label_map_of_cvat_without_background(tmp_path):
    tree(tmp_path)
    for text, count in (("Car:255,0,0::\nbackground:0,255,0::\n", 1), ("background:0,0,0::\nCar:255,0,0::\n", 0)):
        (tmp_path / "labelmap.txt").write_text(text)
        assert len(Voc("train", root=str(tmp_path), classes="labelmap.txt").remarks()) == count
