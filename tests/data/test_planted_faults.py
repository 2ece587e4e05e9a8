"""One fault at a time, planted in a small dataset: the doctor names its file or key, and training refuses what it must.

The datasets are street scenes in the layouts in which people have theirs; with SEGTRAIN_CAMVID some of its frames, too.
"""

import json
import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import UNET, composed
from PIL import Image

from segtrain.data.camvid import CAMVID
from segtrain.data.cityscapes import CITYSCAPES
from segtrain.data.doctor.inspection import count_grey_rows, count_mixed_objects, is_plain, measure_blending
from segtrain.data.streets.dataset import Streets
from segtrain.errors import UserError
from segtrain.tasks import doctor as task

CAMVID_ROOT = os.environ.get("SEGTRAIN_CAMVID")
HAS_CAMVID = CAMVID_ROOT is not None and Path(CAMVID_ROOT, "trainannot").is_dir()
BASES = ["streets", pytest.param("camvid", marks=pytest.mark.skipif(
    not HAS_CAMVID, reason="SEGTRAIN_CAMVID does not name a folder with CamVid"))]
NUMBERS = {"train": range(5), "val": range(5, 8)}
# What CamVid's classes are called in Cityscapes, and their numbers there.
TWINS = dict(zip([label.name for label in CAMVID], (
    "sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car", "person", "rider"),
    strict=True))
CITY_IDS = [next(label.label_id for label in CITYSCAPES if label.name == twin) for twin in TWINS.values()]
PALETTE = [part for label in CAMVID for part in label.color]


# ---- datasets without a fault


@dataclass
class Tree:
    """A dataset on the disk; samples 0 to 4 are train, 5 to 7 are val."""

    layout: str
    root: Path
    options: tuple[str, ...]

    def image(self, number):
        split = "train" if number < 5 else "val"
        return self.root / {"camvid": f"{split}/s{number}.png", "folder": f"{split}/images/s{number}.png",
                            "voc": f"JPEGImages/s{number}.jpg",
                            "cityscapes": f"leftImg8bit/{split}/ulm/ulm_00000{number}_000019_leftImg8bit.png",
                            }[self.layout]

    def mask(self, number, kind="labelIds"):
        split = "train" if number < 5 else "val"
        return self.root / {"camvid": f"{split}annot/s{number}.png", "folder": f"{split}/masks/s{number}.png",
                            "voc": f"SegmentationClass/s{number}.png",
                            "cityscapes": f"gtFine/{split}/ulm/ulm_00000{number}_000019_gtFine_{kind}.png",
                            }[self.layout]

    def pixels(self, number):
        return np.array(Image.open(self.image(number)).convert("RGB"))

    def ids(self, number):
        """Read a mask as it is saved."""
        return np.array(Image.open(self.mask(number)))

    def rewrite(self, number, ids):
        """Save a mask as it was saved."""
        return save_mask(self.layout, self.mask(number), ids)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_mask(layout, path, ids):
    if layout != "voc":
        return save(path, ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    made.putpalette(PALETTE + [0] * (765 - len(PALETTE)) + [224, 224, 192])
    made.save(path)
    return path


def frames(base):
    """Read eight images with their masks, 0..10 and 255: five to train on, three to validate with."""
    if base == "streets":
        data = [Streets(split, height=96, width=128) for split in ("train", "val")]
        samples = [data[0].read(number) for number in range(5)] + [data[1].read(number) for number in range(3)]
        return [(sample.image, sample.target) for sample in samples]
    found = []
    for split, places in (("train", (0, 90, 180, 270, 360)), ("val", (0, 50, 100))):
        files = sorted(Path(CAMVID_ROOT, split).glob("*.png"))
        for file in (files[place] for place in places):
            ids = np.array(Image.open(Path(CAMVID_ROOT, f"{split}annot", file.name)))
            found.append((np.array(Image.open(file)), np.where(ids == 11, 255, ids).astype(np.uint8)))
    return found


@pytest.fixture(scope="session", params=BASES)
def clean(request, tmp_path_factory):
    """Write the trees of all layouts."""
    top = tmp_path_factory.mktemp(request.param)
    rows = [f"{label.name},{label.label_id},#{bytes(label.color).hex()}" for label in CAMVID]
    made = {}
    for layout in ("camvid", "folder", "voc", "cityscapes"):
        tree = made[layout] = Tree(layout, top / layout, {
            "voc": ("dataset.classes=classes.csv",), "cityscapes": ("dataset.instances=maps",)}.get(layout, ()))
        for number, (image, ids) in enumerate(frames(request.param)):
            save(tree.image(number), image, quality=95)
            if layout == "cityscapes":
                ids = np.append(np.array(CITY_IDS, np.uint8), np.zeros(245, np.uint8))[ids]
                numbers = ids.astype(np.uint16)
                numbers[ids == 26] = 26000
                save(tree.mask(number, "instanceIds"), numbers)
            save_mask(layout, tree.mask(number), np.where(ids == 255, 11, ids).astype(np.uint8)
                      if layout == "camvid" else ids)
        if layout in ("folder", "voc"):
            (tree.root / "classes.csv").write_text("\n".join(["name,label_id,color", *rows]) + "\n")
        if layout == "voc":
            lists = tree.root / "ImageSets" / "Segmentation"
            lists.mkdir(parents=True)
            for split, numbers in NUMBERS.items():
                (lists / f"{split}.txt").write_text("".join(f"s{number}\n" for number in numbers))
    return made, {}


@pytest.fixture
def doctor(tmp_path):
    """Run the task on a tree: exit code, and the findings without the folders that they name."""
    def run(tree):
        out = tmp_path / f"report{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        cfg = composed("task=doctor", f"dataset={tree.layout}", "dataset.root=.", *tree.options,
                       "dataset.crop=[64,64]", "task.examples=0")
        cfg = cfg.model_copy(update={"dataset": cfg.dataset.model_copy(update={"root": str(tree.root)})})
        try:
            task.run(cfg, out)
            code = 0
        except UserError:
            code = 2
        return code, json.loads((out / "results.json").read_text())["findings"]

    return run


@pytest.fixture
def plant(clean, doctor, tmp_path):
    """Copy a tree, do something to it, and return it with exit code and the findings that the clean one has not."""
    trees, known = clean

    def run(layout, damage):
        original = trees[layout]
        if layout not in known:
            known[layout] = {each["kind"] + each["message"].replace(str(original.root), "")
                             for each in doctor(original)[1]}
        tree = Tree(layout, tmp_path / "data", original.options)
        shutil.copytree(original.root, tree.root)
        names = damage(tree)
        code, findings = doctor(tree)
        return tree, names, code, [each for each in findings if each["kind"] + each["message"].replace(
            str(tree.root), "") not in known[layout]]

    return run


@pytest.mark.slow
def test_the_dataset_itself_is_in_order(clean, doctor):
    for tree in clean[0].values():
        code, findings = doctor(tree)
        assert code == 0
        assert {each["kind"] for each in findings} <= {"absent_class", "unlearnt_class"}


# ---- the faults: each does its damage and returns what the message must name

FAULTS = []


def fault(layouts, kind, *words, severity="error"):
    """Register a fault for layouts; the finding's kind, and words of its message: what is wrong, and the remedy."""
    def register(damage):
        FAULTS.extend(pytest.param(layout, severity, kind, words, damage, number == 0, id=f"{layout}-{damage.__name__}")
                      for number, layout in enumerate(layouts.split()))
        return damage

    return register


def warning(layouts, kind, *words):
    return fault(layouts, kind, *words, severity="warning")


def cut(path, keep, end=b""):
    data = path.read_bytes()
    path.write_bytes(data[:int(keep * len(data))] + end)
    return path


# files


@fault("camvid folder voc cityscapes", "unusable", "cannot be read as an image", "replace it, or remove the sample")
def image_cut_off(tree):
    return cut(tree.image(1), 0.6)


@fault("camvid folder voc cityscapes", "unusable", "cannot be read as an image", "replace it, or remove the sample")
def mask_cut_off(tree):
    return cut(tree.mask(1), 0.6)


@fault("camvid voc", "unusable", "the file is empty")
def image_of_no_bytes(tree):
    tree.image(6).write_bytes(b"")
    return tree.image(6)


@fault("folder cityscapes", "unusable", "the file is empty")
def mask_of_no_bytes(tree):
    tree.mask(6).write_bytes(b"")
    return tree.mask(6)


@fault("folder", "unusable", "it is a web page", "download the file itself")
def text_named_as_picture(tree):
    tree.image(0).write_text("<html>404 not found</html>")
    return tree.image(0)


@warning("voc", "cut_off", "#808080", "as a JPEG that was cut off", "download it again")
def jpeg_that_ends_early_and_is_closed(tree):
    return cut(tree.image(2), 0.5, b"\xff\xd9")


@fault("camvid", "unusable", "may be an attack", "cut it into tiles")
def image_bomb(tree):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    tree.image(1).write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99)))
                              + chunk(b"IEND", b""))
    return tree.image(1)


@fault("folder camvid", "unusable", "a link to", "which is not there", "restore the file, or remove the link")
def link_to_nowhere(tree):
    tree.image(1).unlink()
    tree.image(1).symlink_to("gone.png")
    return tree.image(1)


@fault("folder", "unusable", "Permission denied")
def file_without_permission(tree):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    tree.image(1).chmod(0)
    return tree.image(1)


@fault("cityscapes", "unusable", "it is a folder", "remove it, or rename it")
def folder_named_as_image(tree):
    tree.image(1).unlink()
    tree.image(1).mkdir()
    return tree.image(1)


@warning("folder camvid", "unused", "belong to no sample", "add its image")
def folder_in_an_image_s_place(tree):
    tree.image(1).unlink()
    tree.image(1).mkdir()
    return tree.mask(1)


@fault("folder", "unusable", "holds 2 images", "a file of its own")
def tiff_of_two_pages(tree):
    tree.image(1).unlink()
    pages = [Image.fromarray(tree.pixels(number)) for number in (0, 2)]
    pages[0].save(tree.image(1).with_suffix(".tif"), save_all=True, append_images=pages[1:])
    return tree.image(1).with_suffix(".tif")


# pairs


@fault("camvid folder", "split", "1 of 5 images have no mask", "add its mask", "or remove the image")
def image_without_mask(tree):
    tree.mask(3).unlink()
    return tree.image(3)


@fault("voc", "split", "2 of the 5 names", "train.txt", "add", "or remove the name", "s1")
def listed_masks_that_are_missing(tree):
    tree.mask(1).unlink()
    tree.mask(3).unlink()
    return tree.root / "SegmentationClass" / "s3"


@fault("cityscapes", "split", "1 of 5 images have no label", "or remove the image")
def image_without_labels(tree):
    tree.mask(3).unlink()
    return tree.image(3)


@warning("camvid folder voc", "unused", "belong to no sample", "add its image")
def mask_without_image(tree):
    return shutil.copy(tree.mask(0), tree.mask(0).with_name("lonely.png"))


@fault("camvid folder voc", "split", "have the same name", "keep one of them")
def image_in_two_formats(tree):
    save(tree.image(2).with_suffix(".bmp"), tree.pixels(2))
    return tree.image(2)


@fault("camvid folder voc", "split", "have the same name", "keep one of them")
def mask_in_two_formats(tree):
    save(tree.mask(2).with_suffix(".bmp"), tree.ids(2))
    return tree.mask(2)


# sizes


@fault("camvid folder voc cityscapes", "unusable", "but its mask", "at the image's size")
def mask_smaller_by_a_pixel(tree):
    return tree.rewrite(1, tree.ids(1)[:, :-1].copy())


@fault("camvid folder voc cityscapes", "unusable", "but its mask", "turn the mask by 90 degrees")
def mask_transposed(tree):
    return tree.rewrite(1, tree.ids(1).T.copy())


@fault("folder voc", "unusable", "EXIF orientation, 6", "turn the mask the same way", "out of the image")
def photo_on_its_side(tree):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tree.image(1).with_suffix(".jpg")
    Image.fromarray(tree.pixels(1)).save(path, exif=exif)
    if path != tree.image(1):
        tree.image(1).unlink()
    return path


@warning("folder voc", "exif", "EXIF orientation", "(3)", "must show the upright view")
def photo_upside_down(tree):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tree.image(1).with_suffix(".jpg")
    Image.fromarray(tree.pixels(1)).save(path, exif=exif, quality=95)
    if path != tree.image(1):
        tree.image(1).unlink()
    return path


@fault("camvid voc", "unusable", "at least 32x32 pixels", "enlarge or remove it")
def tiny_sample(tree):
    save(tree.image(1), tree.pixels(1)[:31, :50])
    return tree.rewrite(1, tree.ids(1)[:31, :50].copy())


@warning("camvid", "sizes", "2 sizes")
def one_sample_of_another_size(tree):
    save(tree.image(6), tree.pixels(6)[:-2])
    return tree.rewrite(6, tree.ids(6)[:-2].copy())


# what masks hold


@fault("folder camvid voc", "unusable", "lossily", "Save masks as PNG")
def mask_saved_as_jpeg(tree):
    path = tree.mask(1).with_suffix(".jpg")
    Image.fromarray(tree.ids(1)).save(path, quality=95)
    tree.mask(1).unlink()
    return path


@warning("camvid", "interpolated", "resized with interpolation", "nearest")
def mask_resized_with_interpolation(tree):
    ids = tree.ids(1)
    small = cv2.resize(ids, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_NEAREST)
    return tree.rewrite(1, cv2.resize(small, ids.shape[::-1], interpolation=cv2.INTER_LINEAR))


@fault("folder voc", "unusable", "which is not a class", "255")
def mask_with_void_resized_with_interpolation(tree):
    ids = tree.ids(1)
    ids[:, ::9] = 255
    return tree.rewrite(1, cv2.resize(cv2.resize(ids, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_NEAREST),
                                      ids.shape[::-1], interpolation=cv2.INTER_LINEAR))


@fault("camvid cityscapes", "unusable", "mode RGB", "8-bit class number")
def mask_in_colours(tree):
    return save(tree.mask(1), tree.pixels(1))


@fault("folder voc", "unusable", "colours that are not classes", "nearest", "dataset.void", "dataset.nearest_colors")
def mask_in_other_colours(tree):
    return save(tree.mask(1), tree.pixels(1))


@fault("camvid cityscapes", "unusable", "mode RGBA", "8-bit class number")
def mask_with_alpha(tree):
    return save(tree.mask(1), np.dstack([tree.pixels(1), tree.ids(1)]))


@fault("folder", "unusable", "colour mask", "class file does not give each class its colour")
def mask_in_colours_without_a_table_of_them(tree):
    (tree.root / "classes.csv").write_text("name\n" + "".join(f"{label.name}\n" for label in CAMVID))
    return save(tree.mask(1), tree.pixels(1))


@fault("camvid folder voc", "unusable", "palette image that paints its index", "Road", "Sky")
def palette_in_another_order(tree):
    ids = tree.ids(1)
    made = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    made.putpalette(PALETTE[9:] + PALETTE[:9])
    made.save(tree.mask(1))
    return tree.mask(1)


@fault("camvid cityscapes", "unusable", "mode I;16", "8-bit class number")
def mask_of_16_bits(tree):
    return save(tree.mask(1), tree.ids(1).astype(np.uint16) * 257)


@fault("folder voc", "unusable", "holds values from 0 to", "classes end at 255", "dataset.instance_maps")
def mask_of_16_bits_scaled(tree):
    ids = np.minimum(tree.ids(1), 10)
    ids[0, 0] = 0
    return save(tree.mask(1), ids.astype(np.uint16) * 257)


@fault("camvid folder voc", "unusable")
def mask_of_real_numbers(tree):
    path = tree.mask(1).with_suffix(".tif")
    save(path, tree.ids(1).astype(np.float32))
    tree.mask(1).unlink()
    return path


@fault("camvid folder voc cityscapes", "unusable", "holds the label 77 (3 pixels)", "Correct the mask")
def value_that_is_no_class(tree):
    ids = tree.ids(1)
    ids[5, 5:8] = 77
    return tree.rewrite(1, ids)


@fault("folder", "unusable", "holds the label 254", "if they are not to be learnt, dataset.void=[254,255]")
def void_by_another_value(tree):
    ids = tree.ids(1)
    ids[:9] = 254
    return tree.rewrite(1, ids)


@fault("folder voc", "unusable", "holds only 0", "dataset.binary=true", "dataset.void=[255]")
def black_and_white_masks_of_two_classes(tree):
    (tree.root / "classes.csv").write_text("name\nroad\nlane\n")
    for number in range(8):
        ids = np.where(tree.ids(number) == 3, 255, 0).astype(np.uint8)
        save(tree.mask(number), np.where(tree.ids(number) == 3, 1, 0).astype(np.uint8) if number != 1 else ids)
    return tree.mask(1)


@warning("camvid folder voc cityscapes", "void", "void in every pixel", "label it, or remove the sample")
def mask_of_void_only(tree):
    return tree.rewrite(1, np.full_like(tree.ids(1), {"camvid": 11, "cityscapes": 0}.get(tree.layout, 255)))


@fault("camvid", "all_void", "no pixel of the 3 images has a class")
def split_of_void_only(tree):
    for number in NUMBERS["val"]:
        tree.rewrite(number, np.full_like(tree.ids(number), 11 if tree.layout == "camvid" else 255))
    return tree.mask(5)


@warning("folder", "one_class", "every labelled pixel of val is Road", "look how the masks are saved")
def split_of_one_class(tree):
    for number in NUMBERS["val"]:
        tree.rewrite(number, np.full_like(tree.ids(number), 3))
    return tree.mask(5)


@warning("camvid", "absent_class", "no pixel of val is of the class", "not scored")
def class_that_val_lacks(tree):
    for number in NUMBERS["val"]:
        ids = tree.ids(number)
        tree.rewrite(number, np.where(ids == 3, 4, ids).astype(np.uint8))
    return "Road"


@warning("camvid", "unlearnt_class", "no image of train shows the class Road", "move some to train")
def class_that_only_val_has(tree):
    for number in NUMBERS["train"]:
        ids = tree.ids(number)
        tree.rewrite(number, np.where(ids == 3, 4, ids).astype(np.uint8))
    return tree.mask(5)


# the same twice


@warning("camvid voc", "duplicate_across", "the same image", "keep it in one split")
def image_in_train_and_val(tree):
    shutil.copy(tree.image(0), tree.image(6))
    shutil.copy(tree.mask(0), tree.mask(6))
    return tree.image(6)


@warning("camvid voc", "duplicate_across", "with different masks", "scores come out wrong")
def image_in_train_and_val_with_another_mask(tree):
    shutil.copy(tree.image(0), tree.image(6))
    return tree.image(6)


@warning("camvid voc", "duplicate", "the same image", "with different masks, which contradict", "keep one")
def image_twice_with_different_masks(tree):
    shutil.copy(tree.image(0), tree.image(1))
    return tree.image(1)


@warning("camvid folder voc cityscapes", "same_mask", "the same mask, pixel by pixel", "saved for another")
def mask_of_another_image(tree):
    shutil.copy(tree.mask(0), tree.mask(1))
    return tree.mask(1)


@warning("folder voc", "near_duplicate", "looks like", "64 bits")
def image_recompressed_in_val(tree):
    path = tree.image(6).with_suffix(".jpg")
    tree.image(6).unlink()
    Image.fromarray(tree.pixels(0)).save(path, quality=40)
    shutil.copy(tree.mask(0), tree.mask(6))
    return path


@warning("camvid", "near_duplicate", "looks like", "64 bits")
def image_brighter_in_val(tree):
    return save(tree.image(6), np.clip(tree.pixels(0) * 1.1 + 8, 0, 255).astype(np.uint8))


@warning("folder", "near_duplicate", "looks like", "64 bits")
def image_smaller_in_val(tree):
    size = tuple(3 * side // 4 for side in tree.ids(0).shape[::-1])
    tree.rewrite(6, cv2.resize(tree.ids(0), size, interpolation=cv2.INTER_NEAREST))
    return save(tree.image(6), cv2.resize(tree.pixels(0), size, interpolation=cv2.INTER_AREA))


# what images hold


@fault("folder voc", "unusable", "printing inks (CMYK)", "convert it to RGB")
def image_in_cmyk(tree):
    path = tree.image(1).with_suffix(".jpg")
    Image.fromarray(tree.pixels(1)).convert("CMYK").save(path, quality=95)
    if path != tree.image(1):
        tree.image(1).unlink()
    return path


@warning("folder", "image_kinds", "L, 8 bits", "look whether they show the same")
def image_in_grey(tree):
    return save(tree.image(1), tree.pixels(1).mean(2).astype(np.uint8))


@warning("camvid", "image_kinds", "RGBA, 8 bits", "look whether they show the same")
def image_with_alpha(tree):
    return save(tree.image(1), np.dstack([tree.pixels(1), np.full_like(tree.ids(1), 200)]))


@warning("folder", "image_kinds", "I;16, 16 bits", "look whether they show the same")
def image_of_16_bits(tree):
    return save(tree.image(1), tree.pixels(1).mean(2).astype(np.uint16) * 257)


@fault("camvid", "unusable", "16 bits a channel", "say how many bits the camera uses")
def image_of_12_bits(tree):
    return save(tree.image(1), tree.pixels(1).mean(2).astype(np.uint16) * 16)


@warning("camvid", "mask_kinds", "P, 8 bits", "look whether they show the same")
def one_palette_mask(tree):
    return save_mask("voc", tree.mask(1), tree.ids(1))


@warning("folder", "flat", "hardly any contrast", "blank")
def blank_image(tree):
    return save(tree.image(1), np.full_like(tree.pixels(1), 90))


# class files


def classes_that_are(text, encoding="utf-8"):
    def damage(tree):
        (tree.root / "classes.csv").write_bytes(text.encode(encoding))
        return tree.root / "classes.csv"

    return damage


for name, text, words in (
        ("class_file_without_names", "label_id,color\n0,#000000\n", ["header must be name"]),
        ("class_file_of_nothing", "", ["lists no class"]),
        ("class_file_of_a_header", "name,label_id\n", ["lists no class"]),
        ("classes_of_one_name", "name\nroad\nroad\n", ["the name road occurs twice", "its own"]),
        ("classes_of_one_number", "name,label_id\nroad,1\ncar,1\n", ["the label_id 1 occurs twice", "its own"]),
        ("class_of_no_number", "name,label_id\nroad,x\n", ["line 2", "whole number from 0 to 65535"]),
        ("class_of_no_colour", "name,color\nroad,red\n", ["line 2", "#ff8000"]),
        ("class_file_in_other_letters", "name\nstraße\n", ["cannot be read"])):
    damage = classes_that_are(text, "latin-1")
    damage.__name__ = name
    fault("folder", "split", *words)(damage)


@fault("folder", "split", "not valid YAML", "correct it")
def class_file_with_yaml_tags(tree):
    tree.options = (*tree.options, "dataset.classes=classes.yaml")
    (tree.root / "classes.yaml").write_text("- !!python/object/apply:os.system ['true']\n")
    return tree.root / "classes.yaml"


@fault("folder", "split", "dataset.classes", "cannot be read")
def class_file_that_is_missing(tree):
    (tree.root / "classes.csv").unlink()
    return tree.root / "classes.csv"


@warning("folder voc", "same_color", "Sky and Road have the same colour", "class file")
def classes_of_one_colour(tree):
    text = (tree.root / "classes.csv").read_text()
    (tree.root / "classes.csv").write_text(text.replace("#804080", "#808080"))
    return "Sky"


@fault("folder", "unusable", "Sky and Road the same colour", "give each its own")
def colour_masks_of_classes_of_one_colour(tree):
    classes_of_one_colour(tree)
    return save(tree.mask(1), np.zeros_like(tree.pixels(1)) + np.array([128, 128, 128], np.uint8)
                - np.eye(*tree.ids(1).shape, dtype=np.uint8)[..., None])


# lists and splits


def train_list(tree, text):
    if tree.layout == "voc":
        path = tree.root / "ImageSets" / "Segmentation" / "train.txt"
    else:
        path = tree.root / "train.txt"
        tree.options = (*tree.options, "dataset.images='{split}.txt'", "dataset.masks=null")
        (tree.root / "val.txt").write_text("".join(f"val/images/s{n}.png val/masks/s{n}.png\n" for n in (5, 6)))
    path.write_bytes(text)
    return path


def line(number):
    return f"train/images/s{number}.png train/masks/s{number}.png\n".encode()


@fault("folder", "split", "which is not a file, nor are 1 others", "correct the list, or add it")
def list_of_missing_files(tree):
    return train_list(tree, line(0) + line(8))


@fault("folder", "split", "s0.png twice", "list each image once")
def list_with_an_image_twice(tree):
    return train_list(tree, line(0) + line(1) + line(0))


@fault("folder", "split", "line 2", "leads out of", "stay below dataset.root")
def list_that_leads_out(tree):
    return train_list(tree, line(0) + b"../../etc/x.png train/masks/s1.png\n")


@fault("folder", "split", "the split is empty")
def list_of_nothing(tree):
    return train_list(tree, b"# none yet\n\n")


@fault("folder", "split", "cannot be read", "as UTF-8")
def list_in_other_letters(tree):
    return train_list(tree, "train/images/ä.png train/masks/s0.png\n".encode("latin-1"))


@fault("folder", "split", "which is not a file", "dataset.names")
def list_of_bare_names(tree):
    return train_list(tree, b"s0\ns1\n")


@fault("voc", "split", "1 of the 3 names", "the first is s8", "remove the name from the list")
def name_of_no_image(tree):
    return train_list(tree, b"s0\ns1\ns8\n")


@fault("voc", "split", "lists s0 twice", "keep one of them")
def name_twice(tree):
    return train_list(tree, b"s0\ns1\ns0\n")


@fault("voc", "split", "../../../etc/passwd, which leads out of", "correct it")
def name_that_leads_out(tree):
    return train_list(tree, b"s0\n../../../etc/passwd\n")


@fault("voc", "split", "lists no name", "the split is empty")
def names_of_nothing(tree):
    return train_list(tree, b"\n")


@fault("voc", "split", "cannot be read", "as UTF-8")
def names_in_other_letters(tree):
    return train_list(tree, "s0\n".encode("utf-16"))


@fault("camvid folder", "split", "holds no image", "the split is empty")
def split_without_images(tree):
    for number in NUMBERS["val"]:
        tree.image(number).unlink()
    return tree.image(5).parent


@fault("camvid folder cityscapes", "split", "not a folder")
def split_that_is_missing(tree):
    folder = tree.image(5).parent.parent if tree.layout != "camvid" else tree.image(5).parent
    folder.rename(folder.with_name("validation"))
    return folder


# instance maps


@fault("cityscapes", "unusable", "at the image's size")
def instances_of_another_size(tree):
    return save(tree.mask(1, "instanceIds"), tree.ids(1).astype(np.uint16)[:-1])


@fault("cityscapes", "unusable", "cannot be read", "replace it, or remove the sample")
def instances_cut_off(tree):
    return cut(tree.mask(1, "instanceIds"), 0.5)


@warning("cityscapes", "mixed_objects", "lie on several classes", "belongs to this mask")
def instances_of_another_image(tree):
    numbers = np.full(tree.ids(1).shape, 26000, np.uint16)
    save(tree.mask(1, "instanceIds"), numbers)
    return tree.mask(1)


@fault("folder", "split", "1 of 5 images have no instance map", "add its instance map")
def image_without_instances(tree):
    tree.options = (*tree.options, "dataset.instance_maps='{split}/objects'", "dataset.instances=components")
    for number in (0, 1, 2, 4, 5, 6, 7):
        save(tree.image(number).parents[1] / "objects" / tree.image(number).name, tree.ids(number))
    return tree.image(3)


# ---- what is done with them


@pytest.mark.parametrize(("layout", "severity", "kind", "words", "damage", "is_first"), FAULTS)
def test_a_fault_is_named_with_its_remedy(plant, layout, severity, kind, words, damage, is_first):
    _, named, code, findings = plant(layout, damage)
    fitting = [finding for finding in findings if (finding["severity"], finding["kind"]) == (severity, kind)]
    fitting = [finding for finding in fitting if str(named) in finding["message"] or str(named) in finding["files"]]
    assert fitting, findings
    for word in words:
        assert any(word in finding["message"] for finding in fitting), fitting
    errors = [finding["message"] for finding in findings if finding["severity"] == "error"]
    assert code == (2 if severity == "error" else 0)
    assert bool(errors) == (severity == "error")


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "severity", "kind", "words", "damage", "is_first"),
                         [case for case in FAULTS if case.values[1] == "error" and case.values[5]])
def test_training_refuses_a_fault_with_the_same_message(plant, segtrain, tmp_path, capsys, layout, severity, kind,
                                                        words, damage, is_first):
    tree, _, _, findings = plant(layout, damage)
    capsys.readouterr()
    out = tmp_path / "trained"
    assert segtrain(f"dataset={tree.layout}", f"dataset.root={tree.root}", *tree.options, "dataset.crop=[64,64]",
                    *UNET, "train.batch_size=1", "debug=smoke", "runtime.workers=0", f"hydra.run.dir={out}") == 2
    said = capsys.readouterr().err
    assert any(finding["message"] in said for finding in findings if finding["severity"] == "error")
    assert not out.exists()


def test_there_are_many_kinds_of_faults():
    assert len({param.values[4].__name__ for param in FAULTS}) >= 60


def litter(tree):
    for folder in {tree.image(0).parent, tree.mask(0).parent, tree.image(5).parent, tree.mask(5).parent}:
        for name in ("Thumbs.db", ".DS_Store", f"._{tree.image(0).name}", "._s0.png", "notes.txt", ".s0.png.swp"):
            (folder / name).write_bytes(b"\x00\x01")
        (folder / ".ipynb_checkpoints").mkdir()
        shutil.copy(tree.image(0), folder / ".ipynb_checkpoints" / tree.image(0).name)
        (folder / "empty.png").mkdir()


@pytest.mark.parametrize("layout", ["camvid", "folder", "voc", "cityscapes"])
def test_what_systems_and_editors_leave_behind_is_ignored(plant, layout):
    _, _, code, findings = plant(layout, litter)
    assert (code, findings) == (0, [])


@pytest.mark.parametrize("layout", ["camvid", "folder"])
def test_unusual_names_work_and_are_named(plant, layout):
    stems = ["naïve straße 道路", "with blank", "line\nbreak", "quote\"'", "a.b.c", "-dash", "%20", "$HOME {split}"]

    def rename(tree):
        for number, stem in enumerate(stems):
            tree.image(number).rename(tree.image(number).with_name(f"{stem}.png"))
            tree.mask(number).rename(tree.mask(number).with_name(f"{stem}.png"))
        return [shutil.copy(tree.mask(number).with_name(f"{stem}.png"), tree.mask(0).with_name(f"{stem}2.png"))
                for number, stem in enumerate(stems)]

    _, lonely, code, findings = plant(layout, rename)
    assert (code, [each["kind"] for each in findings]) == (0, ["unused"])
    assert sorted(findings[0]["files"]) == sorted(str(path) for path in lonely)


# ---- what pixels tell


def test_grey_rows_are_those_at_the_bottom():
    image = np.full((20, 30, 3), 128, np.uint8)
    assert count_grey_rows(image) == 20
    image[11, 3, 1] = 127
    assert count_grey_rows(image) == 8
    image[19, 29, 0] = 129
    assert count_grey_rows(image) == 0


def test_blended_counts_values_in_between():
    target = np.zeros((200, 9), np.uint8)
    target[:, 4:] = 6
    assert measure_blending(target) == 0
    target[:50, 4] = 3  # in 50 rows three triples see a boundary, one a value in between; in 150 rows two do
    assert measure_blending(target) == 50 / (50 * 3 + 150 * 2 + 2)
    assert measure_blending(target[:20, :]) is None
    target[:, 4:] = 1  # neighbours have nothing between them
    assert measure_blending(target) is None
    target[:, 4:] = 255
    assert measure_blending(target) is None


def test_plain_targets_have_equal_rows_or_columns():
    target = np.zeros((4, 5), np.uint8)
    target[2:] = 1
    assert is_plain(target)
    assert is_plain(target.T)
    target[0, 0] = 1
    assert not is_plain(target)


def test_objects_on_several_classes_are_counted():
    target, instances = np.zeros((10, 40), np.uint8), np.zeros((10, 40), np.int32)
    instances[:, :10], instances[:, 10:20], instances[:, 20:30] = 3, 70_000, 5
    target[:, 10:20] = 2
    target[:9, 0] = 1  # 9 of 100 pixels
    assert count_mixed_objects(target, instances) == (0, 3)
    target[9, 0] = 1
    assert count_mixed_objects(target, instances) == (1, 3)
    target[:, 0] = 255
    assert count_mixed_objects(target, instances) == (0, 3)
    assert count_mixed_objects(target, np.zeros_like(instances)) == (0, 0)
