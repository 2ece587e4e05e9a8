"""Data as people have it: found in folders, under patterns and in lists, split, and trained on by the command."""

import json
import random

import numpy as np
import pytest
from helpers import refused
from made_files import make_image, make_mask, save_image

from segtrain.data.folder import Folder
from segtrain.data.splits import split_off
from segtrain.data.statistics import compute_statistics


@pytest.fixture
def root(tmp_path):
    (tmp_path / "classes.csv").write_text("name,has_instances\nroad,false\ncar,true\nsky,false\n")
    return tmp_path


def place(root, *names, value=1):
    """Save an image under each name that ends in jpg, and a mask under the others."""
    for name in names:
        save_image(root / name, make_image() if name.endswith("jpg") else make_mask(value=value))


def names(root, split="train", **arguments):
    data = Folder(split, str(root), **arguments)
    compute_statistics(data, None)
    return data.names


# ---- where the files are


def test_pattern(root):
    place(root, "train/day/1_rgb.jpg", "train/day/1_gt.png", "train/2_rgb.jpg", "train/2_gt.png", "train/2_depth.png",
          "train/day/deep/er/3_rgb.jpg", "train/day/deep/er/3_gt.tif", "val/1_rgb.jpg", "val/1_gt.png")
    found = names(root, images="{split}/**/*_rgb.jpg", masks="{split}/**/*_gt.*")
    assert found == ["2_rgb", "day/1_rgb", "day/deep/er/3_rgb"]
    assert names(root, "val", images="{split}/*_rgb.jpg", masks="{split}/*_gt.png") == ["1_rgb"]


def test_pattern_with_folders_inside(root):
    place(root, "train/a/img/1.jpg", "train/a/gt/1.png", "train/b/img/1.jpg", "train/b/gt/1.png")
    assert names(root, images="{split}/*/img/*.jpg", masks="{split}/*/gt/*.png") == ["a/img/1", "b/img/1"]
    (root / "train" / "b" / "gt" / "1.png").unlink()
    with refused("1 of 2 images", root / "train" / "b" / "img" / "1.jpg", "mask"):
        names(root, images="{split}/*/img/*.jpg", masks="{split}/*/gt/*.png")


def test_pattern_refusals(root):
    place(root, "train/1_rgb.jpg", "train/1_gt.png", "train/1_gt.bmp")
    with refused("1_gt.bmp", "1_gt.png", "same name"):
        names(root, images="{split}/*_rgb.jpg", masks="{split}/*_gt.*")
    with refused(root / "train" / "*_left.jpg", "no image", "dataset.images"):
        names(root, images="{split}/*_left.jpg", masks="{split}/*_gt.png")
    with refused(root / "training", "not a folder"):
        names(root, images="training/{split}/*.jpg", masks=None)


@pytest.mark.parametrize("images", ["{split}", "{split}/*", "{split}/**"])
def test_masks_beside_the_images_with_a_suffix(root, images):
    place(root, "train/x.jpg", "train/x_mask.png", "train/y.1.jpg", "train/y.1_mask.bmp")
    for masks in (None, images):
        assert names(root, images=images, masks=masks, mask_suffix="_mask") == ["x", "y.1"]


def test_masks_elsewhere_with_a_suffix(root):
    place(root, "train/images/x.jpg", "train/masks/x_mask.png", "train/masks/x_edges.png")
    assert names(root, mask_suffix="_mask") == ["x"]


def test_masks_of_the_same_name_in_the_same_folder(root):
    place(root, "train/x.jpg", "train/x.png")
    assert names(root, images="{split}/*.jpg", masks="{split}/*.png") == ["x"]
    place(root, "other/x.jpg")
    with refused("is also a mask", "dataset.mask_suffix=_mask"):
        names(root, "other", images="{split}", masks=None)


@pytest.mark.parametrize("separator", ["\t", ",", ", ", " ", "   "])
def test_list_of_images_and_masks(root, separator):
    place(root, "in/b.jpg", "in/a.jpg", "gt/one.png", "gt/two.png")
    lines = [separator.join(pair) for pair in (("in/b.jpg", "gt/one.png"), ("/in/a.jpg", "./gt/two.png"))]
    (root / "train.txt").write_text("﻿# mine\r\n" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
    assert names(root, images="{split}.txt", masks=None) == ["in/a", "in/b"]
    assert Folder("train", str(root), images="{split}.txt").locate(0) == str(root / "gt" / "two.png")


def test_list_of_images(root):
    place(root, "raw/a/x 1.jpg", "raw/b/y.jpg", "raw/a/x 1_m.png", "raw/b/y_m.png", "gt/a/x 1.png", "gt/y.png")
    absolute = root / "raw" / "b" / "y.jpg"
    (root / "train.csv").write_text(f"image\nraw/a/x 1.jpg\n{absolute}\n")
    assert names(root, images="{split}.csv", masks=None, mask_suffix="_m") == ["raw/a/x 1", "raw/b/y"]
    assert names(root, images="{split}.csv", masks="gt") == ["raw/a/x 1", "raw/b/y"]
    place(root, "raw/c/y.jpg")
    (root / "train.csv").write_text("raw/b/y.jpg\nraw/c/y.jpg\n")
    with refused("raw/b/y.jpg", "raw/c/y.jpg", "called y in dataset.masks"):
        names(root, images="{split}.csv", masks="gt")
    with refused("2 of 2 images", "no mask"):
        names(root, images="{split}.csv", masks="gt/a")


def test_list_from_another_machine(root):
    place(root, "train/a.jpg", "train/b.jpg", "gt/a.png", "gt/b.png", "b.png")
    (root / "train.txt").write_text("".join(f"/SegNet/CamVid/train/{name}.jpg /SegNet/CamVid/gt/{name}.png\n"
                                            for name in "ab"))
    assert names(root, images="{split}.txt") == ["train/a", "train/b"]
    (root / "gt" / "b.png").unlink()  # another b.png must not take its place
    with refused(root / "gt" / "b.png", "not a file"):
        names(root, images="{split}.txt")


@pytest.mark.parametrize("text", [
    ',ID,"Image_Path","mask"\r\n0,7,"in/a, b.jpg","gt/one.png"\r\n1,8,in/c.jpg,gt/two.png\r\n',  # pandas, Excel
    "\ufeffid;mask;image\n7;gt\\one.png;in\\a, b.jpg\n8;.\\gt\\two.png;.\\in\\c.jpg\n",
    "image\tsplit\tlabel\nC:\\Users\\me\\in\\a, b.jpg\ttrain\tC:\\Users\\me\\gt\\one.png\n"
    "C:\\Users\\me\\in\\c.jpg\ttrain\tC:\\Users\\me\\gt\\two.png\n",
    '"in/a, b.jpg"  "gt/one.png"\n"in/c.jpg" gt/two.png\n',
    "\\\\server\\share\\in\\c.jpg\t\\\\server\\share\\gt\\two.png\n"
    "\\\\server\\share\\in\\a, b.jpg\t\\\\server\\share\\gt\\one.png\n",
])
def test_lists_of_spreadsheets_and_of_windows(root, text):
    place(root, "in/a, b.jpg", "in/c.jpg", "gt/one.png", "gt/two.png")
    (root / "train.csv").write_text(text, encoding="utf-8")
    data = Folder("train", str(root), images="{split}.csv")
    assert data.names == ["in/a, b", "in/c"]
    assert [path.name for path in data.masks] == ["one.png", "two.png"]


@pytest.mark.parametrize(("text", "parts"), [
    ("id,image,mask\n1,x.jpg\n", ["line 2", "2 values, fewer than its header"]),
    ("1,x.jpg,m.png\n", ["line 1", "3 values", "id,image,mask"]),
    ("x.jpg\n../../etc/passwd\n", ["line 2", "../../etc/passwd", "below dataset.root"]),
    ("a/../../x.jpg\n", ["line 1", "leads out"]),
    ("/etc/passwd\n", ["etc/passwd, which is not a file"]),
    ("x.jpg\n.\n", ["line 2", "is a folder"]),
    ("x.jpg m.png\nx.jpg\n", ["line 2", "1 values"]),
    ("x.jpg m.png m.png\n", ["line 1", "3 values"]),
    ("x.jpg,\n", ["line 1", "2 values"]),
    ("x.jpg m.png\nx.jpg m.png\n", ["x.jpg twice"]),
    ("x.jpg no.png\n", ["no.png, which is not a file"]),
    ("a\0b.jpg\n", ["line 1", "plain text"]),
    ("a" * 5000 + ".jpg\n", ["which is not a file"]),
    ("# nothing\n\n", ["lists no image"]),
    ("image,mask\n", ["lists no image"]),
])
def test_bad_lists(root, text, parts):
    place(root, "x.jpg", "m.png")
    (root / "train.txt").write_text(text)
    with refused(*parts):
        Folder("train", str(root), images="{split}.txt")


def test_missing_list_and_list_that_is_no_text(root):
    with refused(root / "train.txt", "cannot be read", "dataset.images"):
        Folder("train", str(root), images="{split}.txt")
    (root / "train.txt").write_bytes(b"\xff\xfe\xff")
    with refused(root / "train.txt", "cannot be read"):
        Folder("train", str(root), images="{split}.txt")


# ---- splits


def test_one_set_of_images_is_not_both_splits_unnoticed(root):
    place(root, "images/x.jpg", "masks/x.png")
    for split in ("train", "val"):
        with refused("dataset.images=images", "same images", "dataset.val_fraction=0.2", "dataset.split=all"):
            Folder(split, str(root), images="images", masks="masks")
    assert names(root, "all", images="images", masks="masks") == ["x"]


def test_splits_share_no_video_and_lose_no_image():
    frames = [f"day/seq{video:02}_{frame}" for video in range(20) for frame in range(video % 3 + 1)]
    found = {split: split_off(frames, split, 0.25, group="(seq[0-9]+)_", seed=0) for split in ("train", "val")}
    videos = {split: {name.split("_")[0] for name in part} for split, part in found.items()}
    assert not videos["train"] & videos["val"]
    assert sorted(found["train"] + found["val"]) == sorted(frames)
    assert abs(len(found["val"]) / len(frames) - 0.25) < 0.05
    mixed = random.Random(0).sample(frames, len(frames))
    assert sorted(split_off(mixed, "val", 0.25, group="(seq[0-9]+)_", seed=0)) == sorted(found["val"])
    assert split_off(frames, "val", 0.25, group="(seq[0-9]+)_", seed=1) != found["val"]
    assert len(split_off(frames, "val", 0.25, group=None, seed=0)) == round(len(frames) * 0.25)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_no_split_is_empty(fraction):
    for split in ("train", "val"):
        assert split_off(["a", "b", "c"], split, fraction, group=None, seed=0)


def test_fraction_of_a_folder(root):
    place(root, *(f"images/v{video}_{frame}.jpg" for video in range(4) for frame in range(2)),
          *(f"masks/v{video}_{frame}.png" for video in range(4) for frame in range(2)))
    paths = {"images": "images", "masks": "masks", "val_fraction": 0.25, "group": "(.+)_[0-9]+"}
    train, val = (names(root, split, **paths) for split in ("train", "val"))
    assert (len(train), len(val)) == (6, 2)
    assert val[0][:2] == val[1][:2]
    assert not Folder("val", str(root), **paths).remarks()
    assert "dataset.group" in Folder("val", str(root), **{**paths, "group": None}).remarks()[0]
    assert Folder("val", str(root), **paths).locate(1) == str(root / "masks" / f"{val[1]}.png")
    for changed, parts in (
            ({"group": "_[0-9]+"}, ["dataset.group", "one group"]), ({"group": "("}, ["not a regular expression"]),
            ({"group": "(w)"}, ["v0_0", "not found"]), ({"group": "(v)"}, ["all 8 are in 1"]),
            ({"masks": "{split}/masks"}, ["dataset.masks={split}/masks", "dataset.val_fraction"]),
            ({"val_fraction": None}, ["dataset.group is for dataset.val_fraction"])):
        with refused(*parts):
            Folder("val", str(root), **{**paths, **changed})
    with refused("dataset.split=test", "train and val", "dataset.test_fraction"):
        Folder("test", str(root), **paths)


@pytest.mark.parametrize("group", [None, "(seq[0-9]+)_"])
def test_test_is_taken_from_train_and_val_stays_as_it_is(group):
    frames = [f"seq{video:02}_{frame}" for video in range(40) for frame in range(video % 3 + 1)]
    found = {split: split_off(frames, split, 0.2, 0.3, group=group, seed=0) for split in ("train", "val", "test")}
    assert sorted(name for part in found.values() for name in part) == sorted(frames)
    assert found["val"] == split_off(frames, "val", 0.2, group=group, seed=0)
    assert [len(found[split]) / len(frames) for split in ("val", "test")] == pytest.approx([0.2, 0.3], abs=0.03)
    if group is not None:
        videos = [{name.split("_")[0] for name in part} for part in found.values()]
        assert sum(map(len, videos)) == len(set.union(*videos)) == 40


@pytest.mark.parametrize(("val", "test"), [(0.001, 0.001), (0.99, 0.009), (0.01, 0.98)])
def test_none_of_three_splits_is_empty(val, test):
    for count in (3, 4, 10):
        for split in ("train", "val", "test"):
            assert split_off([f"{number}" for number in range(count)], split, val, test, group=None, seed=0)
    with refused("3 splits need 3 groups", "all 2 are in 2"):
        split_off(["a", "b"], "val", val, test, group=None, seed=0)


def test_test_fraction_of_a_folder(root):
    place(root, *(f"images/{number}.jpg" for number in range(10)), *(f"masks/{number}.png" for number in range(10)))
    paths = {"images": "images", "masks": "masks", "val_fraction": 0.2}
    assert [len(names(root, split, **paths, test_fraction=0.3)) for split in ("train", "val", "test")] == [5, 2, 3]
    assert names(root, "val", **paths, test_fraction=0.3) == names(root, "val", **paths)
    with refused("dataset.test_fraction is for dataset.val_fraction"):
        Folder("train", str(root), test_fraction=0.3)
    for wrong in (0.0, 0.8, 1.0):
        with pytest.raises(ValueError, match="test_fraction"):
            Folder("train", str(root), **paths, test_fraction=wrong)


# ---- one mask a class, images without a mask


@pytest.mark.parametrize(("masks", "path"), [
    ("{split}/masks/{class}", "train/masks/{}/day/1.png"), ("{split}/**/*_{class}.*", "train/day/1_{}.tif")])
def test_masks_of_each_class(root, caplog, masks, path):
    place(root, "train/images/day/1.jpg", path.format("car"), path.format("sky"), path.format("cow"))
    images = "{split}/images/**/*.jpg" if "*" in masks else "{split}/images"
    if "*" in masks:
        (root / "train/images/day/1.jpg").rename(root / "train/day/1.jpg")
        images = "{split}/**/*.jpg"
    data = Folder("train", str(root), images=images, masks=masks)
    assert len(data.names) == 1
    assert data.read(0).target.tolist() == make_mask(value=2).tolist()
    assert data.list_files(0)[1:] == [root / path.format(name) for name in ("car", "sky")]
    assert "1 masks are of no class in the class file and left out" in caplog.text
    assert "cow" in caplog.text
    assert Folder("train", str(root), images=images, masks=masks, targets_only=True).names
    place(root, path.format("road"))
    with refused(path.format("road"), "the class road", "another label_id", "dataset.void=rest"):
        Folder("train", str(root), images=images, masks=masks)
    (root / "classes.csv").write_text("name\nnone\nROAD\n")
    with refused("none, ROAD", "dataset.masks"):
        Folder("train", str(root), images=images, masks=masks)


def test_images_without_a_mask_are_left_out_where_that_is_set(root):
    place(root, *(f"train/images/{number}.jpg" for number in range(4)), "train/masks/1.png", "train/masks/3.png")
    data = Folder("train", str(root), skip_without_mask=True)
    assert data.names == ["1", "3"]
    assert data.remarks() == ["2 of 4 images have no mask and are left out (dataset.skip_without_mask=true), the first "
                              f"is {root / 'train/images/0.jpg'}."]
    (root / "train.txt").write_text("train/images/0.jpg\ntrain/images/1.jpg\n")
    listed = {"images": "{split}.txt", "masks": "train/masks"}
    assert Folder("train", str(root), **listed, skip_without_mask=True).names == ["train/images/1"]
    for mask in (root / "train/masks").iterdir():
        mask.unlink()
    with refused("4 of 4 images have no mask"):
        Folder("train", str(root), skip_without_mask=True)


# ---- lists of names


def listed(root, text, split="train"):
    (root / f"{split}.txt").write_text(text)
    return {"images": "images", "masks": "masks", "names": "{split}.txt"}


@pytest.mark.parametrize("text", ["1\n0003\n", "\ufeff# mine\n1.jpg\r\n\r\nday/0003.jpg\n", "./1\nday/0003\n"])
def test_names_pick_the_images_of_a_split(root, text):
    place(root, "images/1.jpg", "images/2.jpg", "images/day/0003.jpg", "images/without.jpg",
          "masks/1.png", "masks/2.png", "masks/day/0003.png")
    options = listed(root, text)
    listed(root, "2\n", "val")
    assert names(root, **options) == ["1", "day/0003"]
    assert names(root, "val", **options) == ["2"]
    with refused("1 of 1 images have no mask", root / "images" / "without.jpg"):
        names(root, "test", **listed(root, "without\n", "test"))
    (root / "names.csv").write_text('\ufeff,"name",site\r\n0,"1",a\r\n1,day\\0003,b\r\n', encoding="utf-8")
    assert names(root, "all", **{**options, "names": "names.csv"}) == ["1", "day/0003"]


def test_names_under_a_pattern_are_those_of_files_or_what_wildcards_stand_for(root):
    place(root, *(f"all/{name}_{kind}" for name in ("a.1", "a.2", "b") for kind in ("rgb.jpg", "gt.png")))
    for text in ("a.1\nb\n", "a.1_rgb\nb_rgb.jpg\n"):
        options = {**listed(root, text), "images": "all/*_rgb.jpg", "masks": "all/*_gt.png"}
        assert names(root, **options) == ["a.1_rgb", "b_rgb"]


@pytest.mark.parametrize(("text", "parts"), [
    ("1\n1\n", ["line 2", "1 stands in", "line 1", "keep one"]), ("", ["lists no name", "dataset.split"]),
    ("1\n8\n9\n", ["2 of the 3 names", "the first is 8", "dataset.images"]),
    ("2\n", ["lists 2", "day/2.jpg", "night/2.jpg", "with its folder"]), ("../../1\n", ["1 of the 1 names"]),
])
def test_bad_lists_of_names(root, text, parts):
    place(root, "images/1.jpg", "images/day/2.jpg", "images/night/2.jpg",
          "masks/1.png", "masks/day/2.png", "masks/night/2.png")
    with refused(root / "train.txt", *parts):
        Folder("train", str(root), **listed(root, text))


def test_names_exclude_other_ways_of_splitting(root):
    place(root, "images/1.jpg", "masks/1.png")
    options = listed(root, "1\n")
    for changed, parts in (({"val_fraction": 0.5}, ["dataset.val_fraction exclude"]),
                           ({"images": "{split}.txt"}, ["dataset.images={split}.txt", "a list itself"]),
                           ({"masks": "{split}/masks"}, ["dataset.names", "dataset.masks={split}/masks"]),
                           ({"names": "train.txt"}, ["dataset.images=images", "same images", "dataset.names"])):
        with refused(*parts):
            Folder("train", str(root), **{**options, **changed})
    with refused(root / "val.txt", "cannot be read", "dataset.names"):
        Folder("val", str(root), **options)


@pytest.mark.parametrize("argument", [
    {"val_fraction": 0.0}, {"val_fraction": 1.0}, {"threshold": 0}, {"threshold": 256}, {"image_bits": 7},
    {"image_bits": 17}, {"nearest_colors": -1}, {"palette": "both"}])
def test_values_out_of_range(root, argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        Folder("train", str(root), **argument)


# ---- instance maps


def test_instance_maps(root):
    place(root, "train/images/x.jpg", "train/masks/x.png")
    numbers = make_mask().astype(np.uint16)
    numbers[0, :4], numbers[1, :6] = 1000, 60_000
    save_image(root / "train" / "objects" / "x.png", numbers)
    data = Folder("train", str(root), instance_maps="{split}/objects")
    assert compute_statistics(data, "maps").class_sizes == {"car": 5.0}
    save_image(root / "train" / "objects" / "x.png", numbers[:20])
    with refused("instance map", "40x20", "40x32"):
        data.read(0)
    with refused("1 of 1 images have no instance map"):
        Folder("train", str(root), instance_maps="{split}/masks/*_objects.png")


# ---- the command


@pytest.mark.slow
def test_train_and_evaluate_on_colour_masks(segtrain, tmp_path, capsys):
    rng = np.random.default_rng(0)
    colors = np.array([(128, 64, 128), (0, 0, 142), (0, 0, 0)], np.uint8)
    for number in range(6):
        image = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        save_image(tmp_path / "all" / f"v{number // 2}_{number}.jpg", image)
        mask = colors[np.digitize(image[..., 0], [120, 250])]
        save_image(tmp_path / "all" / f"v{number // 2}_{number}_color.png", mask)
    (tmp_path / "classes.json").write_text('{"road": "#804080", "car": [0, 0, 142], "Unlabelled": [0, 0, 0]}')
    command = ("dataset=folder", f"dataset.root={tmp_path}", "dataset.classes=classes.json", "dataset.images=all",
               "dataset.masks=null", "dataset.mask_suffix=_color", "dataset.crop=[32,32]", "train.batch_size=2",
               "runtime.workers=0", "debug=smoke", f"hydra.run.dir={tmp_path / 'run'}")
    assert segtrain(*command) == 2
    assert "dataset.val_fraction=0.2" in capsys.readouterr().err
    split = ("dataset.val_fraction=0.3", "dataset.group='(v[0-9]+)_'", "dataset.void=[Unlabelled]")
    assert segtrain(*command, *split) == 0
    assert segtrain("task=evaluate", f"checkpoint={tmp_path / 'run'}", "runtime.workers=0",
                    f"hydra.run.dir={tmp_path / 'scores'}") == 0
    trained, scored = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "scores"))
    assert list(scored["iou_per_class"]) == ["road", "car"]
    assert scored["num_images"] == 2
    assert scored["confusion_matrix"] == trained["confusion_matrix"]


@pytest.mark.slow
def test_paths_with_split_on_the_command_line(segtrain, root):
    place(root, *(f"{split}/{number}_{kind}" for split in ("train", "val") for number in range(2)
                  for kind in ("rgb.jpg", "gt.png")))
    place(root, "train/0_gt.png", value=0)
    assert segtrain("dataset=folder", f"dataset.root={root}", 'dataset.images="{split}/**/*_rgb.jpg"',
                    'dataset.masks="{split}/**/*_gt.png"', 'dataset.void=[255,"#000000"]', "dataset.crop=[32,32]",
                    "train.batch_size=2", "runtime.workers=0", "debug=smoke", f"hydra.run.dir={root / 'run'}") == 0
