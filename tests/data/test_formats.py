"""Annotation formats: every expected mask of oracle/annotations.zip, bit for bit, and what is said of faulty input.

The archive holds a small dataset in each format with masks that official tools drew, and inputs with one fault each.
"""

import base64
import json
import math
import os
import pickle
import random
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import composed, refused
from made_files import make_image, save_image
from PIL import Image

from segtrain.config.instantiate import check_trust
from segtrain.data.doctor.findings import check_split
from segtrain.data.doctor.inspection import read_split
from segtrain.data.formats import cache, raster
from segtrain.data.formats.auto import OPENERS, Auto, recognize
from segtrain.data.formats.benchmarks import Kitti, PascalContext
from segtrain.data.formats.coco import Coco
from segtrain.data.formats.files import clean_name, load_json, name_split
from segtrain.data.formats.labelme import Labelme
from segtrain.data.formats.regions import Encoded, Region, draw_regions, read_ring
from segtrain.data.formats.rle import decode_brush, decode_text, encode_mask, encode_text, expand_runs
from segtrain.data.formats.yolo import Yolo
from segtrain.data.statistics import compute_statistics
from segtrain.data.survey import Split
from segtrain.errors import UserError
from segtrain.tasks import rasterize

ARCHIVE = Path(__file__).parents[1] / "oracle" / "annotations.zip"
CLASSES = "name\nbackground\nroad\nhouse\ntree\npond\n"  # the order of sets whose files do not list their classes


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    root = tmp_path_factory.mktemp("oracle")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(root)
    for name in ("via", "darwin"):
        (root / name / "classes.csv").write_text(CLASSES)
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    yield root
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---- the rules


def test_polygons_are_those_of_pycocotools(oracle):
    record = json.loads((oracle / "rule/polygons.json").read_text())
    width, height = record["width"], record["height"]
    rings = [np.array(each["points"], np.float64) for each in record["polygons"]]
    assert len(rings) == 252
    for each, patch in zip(record["polygons"], raster.fill_rings(rings, width, height), strict=True):
        mask = np.zeros((height, width), bool)
        mask[patch.place] = patch.mask
        assert encode_mask(mask) == each["counts"], each["kind"]
        np.testing.assert_array_equal(expand_runs(np.array(each["counts"]), width, height, by_columns=True), mask)


def test_run_lengths(oracle):
    for each in json.loads((oracle / "rule/coco_rle.json").read_text())["rles"]:
        assert decode_text(each["text"]).tolist() == each["counts"]
        assert encode_text(each["counts"]) == each["text"]
    for text in ("", "Y:c", "}}}}", "ooooooooooooooooooooooo0"):
        with pytest.raises(ValueError, match="text"):
            decode_text(text)
    for each in json.loads((oracle / "rule/label_studio_rle.json").read_text())["vectors"]:
        size, data = (each["width"], each["height"]), bytes(each["rle"])
        expected = expand_runs(np.array(each["mask_counts_row_major"]), *size, by_columns=False)
        np.testing.assert_array_equal(decode_brush(data, *size), expected)
        for cut in range(0, len(data) - 1, 1 + len(data) // 8):
            with pytest.raises(ValueError, match="brush"):
                decode_brush(data[:cut], *size)


def test_a_bitmap_of_supervisely(oracle):
    record = json.loads((oracle / "rule/supervisely_bitmap.json").read_text())
    region = Region("here", "a", Encoded(record["data"], 2, 1))
    target, objects, _ = draw_regions([region], (8, 6), train_ids=lambda _: 1, fill=0, overlap="order", pixels=False)
    np.testing.assert_array_equal(target[1:4, 2:5], record["mask"])
    np.testing.assert_array_equal(target, objects)
    bomb = Encoded(base64.b64encode(zlib.compress(bytes(10**7))).decode(), 0, 0)
    with refused("here", "cannot be read as a PNG"):
        draw_regions([Region("here", "a", bomb)], (8, 6), train_ids=lambda _: 1, fill=0, overlap="order", pixels=False)


def test_lines_and_points_are_drawn_with_their_width(oracle):
    data = Labelme("train", root=str(oracle / "labelme"), line_width=10)
    index = data.names.index("lines")
    target = data.read(index).target
    along = np.linspace((30, 40), (45, 44.5), 2000)  # of the line of shape 2, and the point of shape 3
    centers = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5), -1)
    for places, train_id in ((along, 2), (np.array([[12.3, 9.1]]), 3)):
        near = np.min([np.hypot(*(centers - place).transpose(2, 0, 1)) for place in places], 0) <= 5
        np.testing.assert_array_equal(target == train_id, near)
    assert not any("line_width" in remark for remark in data.remarks())
    plain = Labelme("train", root=str(oracle / "labelme"))
    plain.read(index)
    assert any("shape 1 (road) is a linestrip" in remark for remark in plain.remarks())


# ---- every expected mask


# The set, the dataset that reads it, its settings, and which masks are expected: those of the set, or others.
SETS = [
    ("coco", "coco", {}, None), ("coco", "coco", {"overlap": "order"}, "expected_order"),
    ("coco", "coco", {"overlap": "void"}, "expected_void"), ("coco", "coco", {"crowd": "void"}, "crowd_void"),
    ("roboflow_coco", "coco", {}, None), ("roboflow_coco", "coco", {"overlap": "order"}, "expected_order"),
    ("coco_panoptic", "coco_panoptic", {}, None), ("yolo", "yolo", {}, None),
    ("yolo", "yolo", {"overlap": "order"}, "expected_order"), ("yolo_roboflow", "yolo", {}, None),
    ("yolo_roboflow", "yolo", {"overlap": "order"}, "expected_order"), ("labelme", "labelme", {}, None),
    ("label_studio", "label_studio", {}, None),
    ("label_studio", "label_studio", {"annotations": "json_min.json"}, "expected_json_min"), ("cvat", "cvat", {}, None),
    ("cvat_mask", "cvat_mask", {}, None), ("via", "via", {"attribute": "class"}, None),
    *(("via", "via", {"annotations": f"via{name}", "classes": "classes.csv"}, None)
      for name in ("_region_data.json", "1_region_data.json", "_region_data.csv")),
    ("supervisely", "supervisely", {}, None), ("supervisely", "supervisely", {"polygons": "areas"}, "coco"),
    ("datumaro", "datumaro", {}, None), ("darwin", "darwin", {"classes": "classes.csv"}, None),
    ("roboflow_mask", "roboflow", {}, None)]


@pytest.mark.parametrize(("name", "dataset", "settings", "which"), SETS,
                         ids=["-".join([name, *map(str, settings.values())]) for name, _, settings, _ in SETS])
def test_every_mask_is_the_expected_one(oracle, name, dataset, settings, which):
    record = json.loads((oracle / name / "expected.json").read_text())
    splits = {entry["split"] or "all" for entry in record["images"].values()}
    opened = {split: OPENERS[dataset](split, root=str(oracle / name), **settings) for split in splits}
    seen = 0
    for entry in record["images"].values():
        data = opened[entry["split"] or "all"]
        mask = entry["mask"] if which is None else entry.get("others", {}).get(which, {}).get("mask")
        if mask is None:
            continue
        index = [data.paths(place)[0] for place in range(len(data.names))].index(oracle / name / entry["image"])
        expected = np.array(Image.open(oracle / name / mask))
        for _ in ("drawn", "out of the cache"):
            sample = data.read(index)
            np.testing.assert_array_equal(sample.target, expected)
            assert sample.instances is None or sample.instances.dtype == np.int32
            np.testing.assert_array_equal(data.read_target(index)[0], expected)
        seen += 1
    assert seen == sum(which is None or which in entry.get("others", {}) for entry in record["images"].values()) > 0
    names = [label.name.strip("_") for label in next(iter(opened.values())).labels]
    assert names == record["classes"]
    if dataset != "roboflow":
        pickle.loads(pickle.dumps(opened[next(iter(splits))])).read(0)


BENCHMARKS = ("ade20k", "coco_stuff", "bdd100k", "kitti", "vistas", "rugd", "a2d2")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_mask_of_a_benchmark_is_the_expected_one(oracle, name):
    record = json.loads((oracle / "benchmarks/expected.json").read_text())[name]
    splits = ("all",) if name in ("kitti", "rugd", "a2d2") else ("train", "val")
    opened = [OPENERS[name](split, root=str(oracle / "benchmarks" / name)) for split in splits]
    for data in opened:
        table = np.full(256, 254, np.uint8)  # of a class that the record leaves out
        table[255] = 255
        for label in data.labels:
            table[label.train_id] = record["classes"].index(label.name) if label.name in record["classes"] else 254
        for index, image in enumerate(data.images):
            file = next(each for each in record["files"] if each["image"].endswith(image.name))
            expected = np.array(Image.open(oracle / "benchmarks" / file["expected"]))
            np.testing.assert_array_equal(table[data.read(index).target], expected)
    assert sum(len(data.names) for data in opened) == len(record["files"])


def test_benchmarks_without_a_sample_here(tmp_path):
    for kind, value in (("image_2", None), ("semantic", 7), ("instance", 26 * 256 + 1)):
        for number in range(10):
            array = make_image() if value is None else np.full((32, 40), value, np.uint8 if value < 256 else np.uint16)
            save_image(tmp_path / "training" / kind / f"{number:06}_10.png", array)
    split = {name: Kitti(name, root=str(tmp_path), val_fraction=0.3, split_seed=1) for name in ("train", "val")}
    assert {name: len(data.names) for name, data in split.items()} == {"train": 7, "val": 3}
    assert split["val"].names != Kitti("val", root=str(tmp_path), val_fraction=0.3, split_seed=2).names
    sample = split["val"].read(0)
    assert not sample.target.any()
    assert not sample.instances.any(), "a road is no object"
    save_image(tmp_path / "JPEGImages/a.jpg", make_image())
    save_image(tmp_path / "SegmentationClassContext/a.png", np.arange(32 * 40, dtype=np.uint8).reshape(32, 40) % 60)
    (tmp_path / "ImageSets/SegmentationContext").mkdir(parents=True)
    (tmp_path / "ImageSets/SegmentationContext/val.txt").write_text("a\n")
    for background, count, first in (("class", 60, 0), ("void", 59, 255)):
        data = PascalContext("val", root=str(tmp_path), background=background)
        assert len(data.labels) == count
        assert data.read(0).target[0, :2].tolist() == [first, 1 if background == "class" else 0]


# ---- faults


def list_cases():
    with zipfile.ZipFile(ARCHIVE) as archive:
        return json.loads(archive.read("bad/cases.json"))["cases"]


FORMATS = {"roboflow_mask": "roboflow"}
CASES = list_cases()


@pytest.mark.parametrize("case", CASES, ids=[case["path"] for case in CASES])
def test_what_is_said_of_a_fault(oracle, case):
    """The doctor's findings name what is wrong; an error refuses the training, too."""
    root = oracle / "bad" / case["path"]
    split = "train" if (root / "train").is_dir() or case["format"] in ("coco", "yolo") else "all"
    refusals, warnings = [], []
    try:
        data = OPENERS[FORMATS.get(case["format"], case["format"])](split, root=str(root))
    except UserError as error:
        refusals = [str(error)]
    else:
        seen = list(read_split(data, None))
        found = Split(split, data.labels, seen, data.remarks())
        findings = [finding.message for finding in check_split(found, (32, 32))]
        # the images of these datasets are too small to train on, which is found only where nothing else is wrong
        refusals = [each.fault for each in seen if "images need at least" not in each.fault]
        known = {*refusals, *(each.fault for each in seen)}
        warnings = [message for message in findings if message not in known]
        if refusals:
            with pytest.raises(UserError) as caught:
                compute_statistics(data, None)
            assert str(caught.value) == refusals[0]
    said = " ".join([*refusals, *warnings])
    allowed = case["severity"].replace("a setting", "warning")
    outcome = "error" if refusals else "warning" if warnings else "read"
    assert outcome in allowed or (outcome == "warning" and "read" in allowed), said
    if outcome != "read":
        for words in case["message_names"] if "read" not in allowed or refusals else ():
            assert any(word in said for word in words.split(" or ")), f"{words} is not in: {said}"
        assert all(message.isprintable() for message in refusals)
    if "80 px" in case.get("same_mask_as", ""):
        assert max(np.bincount(data.read(0).target.ravel(), minlength=2)[1:]) == 80


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_polygons_as_pixels_and_a_second_file_of_other_classes(oracle, tmp_path):
    root = shutil.copytree(oracle / "coco", tmp_path / "coco")
    areas, pixels = (Coco("val", root=str(root), polygons=rule).read(1).target for rule in ("areas", "pixels"))
    assert np.count_nonzero(areas) < np.count_nonzero(pixels)
    void = Coco("val", root=str(root), void=["pond"], background="void")
    assert [label.name for label in void.labels] == ["house", "tree", "road"]
    assert np.count_nonzero(void.read(1).target == 255) == np.count_nonzero((areas == 0) | (areas == 2))
    with refused("dataset.void: ponds is not a class", "Did you mean 'pond'?"):
        Coco("val", root=str(root), void=["ponds"])
    path = root / "annotations/instances_val.json"
    change(path, lambda content: content["categories"][0].update(name="Road"))
    with refused("different categories"):
        Coco("val", root=str(root), val_fraction=0.5)


@pytest.mark.parametrize(("settings", "words"), [
    ({"overlap": "top"}, "dataset.overlap=top is unknown"), ({"attribute": "class"}, "dataset.attribute means nothing"),
    ({"background": "x"}, "dataset.background=x is unknown"), ({"classes": "nowhere.csv"}, "nowhere.csv"),
    ({"annotations": "a/{split}.json"}, "a/val.json is not a file"), ({"images": "pictures"}, "check dataset.images"),
    ({"root": None}, "dataset.root is needed"), ({"root": "nowhere"}, "check dataset.root"),
    ({"split": "evening"}, "train, val")])
def test_settings_that_do_not_fit_are_refused(oracle, settings, words):
    with refused(words):
        Coco(**{"split": "val", "root": str(oracle / "coco"), **settings})


def test_line_width_and_shares_must_make_sense(oracle):
    with refused("dataset.line_width=0"):
        Labelme("val", root=str(oracle / "labelme"), line_width=0)
    for wrong in ({"val_fraction": 1.0}, {"val_fraction": 0.5, "test_fraction": 0.5}):
        with pytest.raises(ValueError, match="fraction"):
            Coco("val", root=str(oracle / "coco"), **wrong)


def test_files_that_may_be_attacks_are_refused(tmp_path):
    path = tmp_path / "a.json"
    for text, words in (("[" * 100_000, "not valid JSON"), ("version https://git-lfs.github.com/spec/v1", "git lfs "
                         "pull"),
                        ("\x00", "not valid JSON")):
        path.write_text(text)
        with refused(path, words):
            load_json(path)
    with refused("here", "4 points", "nan"):
        read_ring([[0, 0], [1, float("nan")], [1, 1], [0, 1]], "here, 4 points")
    with refused("1e+20"):
        read_ring([0, 0, 1e20, 1, 2, 2], "here")


def test_a_turned_image_and_names_that_yaml_has_words_for(tmp_path, own_cache):
    photo = Image.fromarray(make_image((40, 48)))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [], "imagePath": "a.jpg", "imageWidth": 48,
                                                 "imageHeight": 40}))
    (tmp_path / "labels.txt").write_text("_background_\nroad\n")
    with refused("a.jpg is 40x48", "a.json says 48x40", "EXIF orientation, 6"):
        Labelme("all", root=str(tmp_path)).read(0)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("1 0 0 1 0 1 1\n")
    (tmp_path / "images").mkdir()
    shutil.move(tmp_path / "a.jpg", tmp_path / "images")
    (tmp_path / "data.yaml").write_text("names: [no, on]\nnc: 2\ntrain: images\n")
    data = Yolo("train", root=str(tmp_path))
    assert [label.name for label in data.labels] == ["background", "no", "on"]
    assert np.unique(data.read(0).target).tolist() == [0, 2]


VALUES = (None, True, -1, 0, 1e308, math.nan, 10**30, "", "x", "../../x", "\x00", [], {}, [[]], [None], {"a": 1}, 1.5)


def mutate(tree, rng):
    """Change, remove or wrap one value of a tree."""
    spots, nodes = [], [tree]
    while nodes:
        node = nodes.pop()
        keys = list(node) if isinstance(node, dict) else list(range(min(len(node), 6)))
        spots += [(node, key) for key in keys]
        nodes += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = rng.choice(spots)
    node[key] = rng.choice([*VALUES, [node[key]], str(node[key])])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "coco_panoptic", "labelme", "label_studio", "via", "supervisely", "datumaro",
                                  "darwin"])
def test_a_changed_file_is_read_or_refused(oracle, tmp_path, own_cache, name):
    rng = random.Random(name)
    root = shutil.copytree(oracle / name, tmp_path / name, ignore=shutil.ignore_patterns("expected*"))
    files = [path for path in root.rglob("*.json")]
    for _ in range(40):
        path = rng.choice(files)
        before = path.read_text()
        tree = json.loads(before)
        mutate(tree, rng)
        path.write_text(json.dumps(tree))
        with suppress(UserError):
            data = OPENERS[name](rng.choice(["train", "all"]), root=str(root))
            for index in range(len(data.names)):
                with suppress(UserError):
                    data.read(index)
        path.write_text(before)


# ---- splits


def test_images_are_split_where_the_files_tell_nothing(tmp_path, own_cache):
    shapes = [{"label": label, "points": [[1, 1], [20, 1], [20, 20]], "shape_type": "polygon"} for label in "ab"]
    for number in range(10):
        save_image(tmp_path / f"{number // 2}_{number}.png", make_image((40, 48), number))
        content = {"shapes": shapes, "imagePath": f"{number}.png", "imageData": None}
        (tmp_path / f"{number // 2}_{number}.json").write_text(json.dumps(content))

    def split(name, **given):
        return Labelme(name, root=str(tmp_path), **given)

    assert len(split("all").names) == 10
    assert [len(split(name).names) for name in ("train", "val")] == [8, 2]
    assert any("tell no splits, so 20%" in remark for remark in split("val").remarks())
    given = {"val_fraction": 0.4, "test_fraction": 0.2, "group": "(.+)_[0-9]+"}
    parts = {name: split(name, **given).names for name in ("train", "val", "test")}
    assert {name: len(names) for name, names in parts.items()} == {"train": 4, "val": 4, "test": 2}
    assert len({name.partition("_")[0] for name in parts["val"]}) == 2, "groups stay together"
    assert split("val", **given, split_seed=1).names != parts["val"]
    assert split("val", image_bits=12).form.bits == 12
    assert split("train").labels == split("val").labels


@pytest.mark.parametrize(("text", "split"), [
    ("train2017", "train"), ("instances_val2017", "val"), ("ds train", "train"), ("valid", "val"),
    ("Validation", "val"),
    ("trainval", None), ("train_val", None), ("test-dev", None), ("strain", None)])
def test_names_of_splits(text, split):
    assert name_split(text) == split


@pytest.mark.parametrize(("name", "path"), [
    ("a\\b\\x.png", "a/b/x.png"), ("C:\\data\\x.png", "C:/data/x.png"), ("/data/x%20y.png", "/data/x%20y.png"),
    ("https://host/a%20b/x.png?sig=1", "host/a b/x.png"), ("s3://bucket/a/x.png", "bucket/a/x.png"),
    ("/data/upload/3/1b272503-x.png", "1b272503-x.png"), ("/data/local-files/?d=a/x%20%C3%BC.png", "a/x ü.png")])
def test_names_of_images(name, path):
    assert clean_name(name) == path


# ---- the cache


def test_a_drawing_is_kept_and_checked(oracle, tmp_path, own_cache, monkeypatch):
    data = Yolo("train", root=str(oracle / "yolo"))
    expected = data.read(0)
    files = [path for path in own_cache.rglob("*") if path.is_file()]
    assert len(files) == 1
    good = files[0].read_bytes()
    unpacked = bytearray(zlib.decompress(good))
    wrong_class, wrong_size = bytearray(unpacked), bytearray(unpacked)
    count = int.from_bytes(unpacked[16:20], "little")
    wrong_class[24 + 4 * count] = 77
    wrong_size[8] += 1
    for bad in (b"", good[:30], zlib.compress(wrong_class), zlib.compress(wrong_size), zlib.compress(unpacked[:-1]),
                zlib.compress(bytes(10**7))):
        files[0].write_bytes(bad)
        assert cache.load(files[0].parent.name + files[0].name, (61, 47), 5, 9) is None
        np.testing.assert_array_equal(data.read(0).target, expected.target)
        assert files[0].read_bytes() == good, "drawn again"
    np.testing.assert_array_equal(data.read(0).instances, expected.instances)
    monkeypatch.setattr("segtrain.data.formats.base.draw_regions", lambda *_, **__: pytest.fail("drawn twice"))
    data.read(0)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(data.read(0).target, expected.target)


def test_the_setting_and_the_content_are_part_of_the_key(oracle, own_cache):
    for settings in ({}, {"overlap": "void"}, {"crowd": "void"}, {"with_instances": False}):
        Coco("train", root=str(oracle / "coco"), **settings).read(0)
    assert len([path for path in own_cache.rglob("*") if path.is_file()]) == 4


def test_a_region_that_is_buried_is_reported(oracle, tmp_path, own_cache):
    root = shutil.copytree(oracle / "coco", tmp_path / "coco")
    path = root / "annotations/instances_val.json"
    cover = {"id": 9, "image_id": 2007, "category_id": 90, "segmentation": [[0, 0, 80, 0, 80, 64, 0, 64]]}
    change(path, lambda content: content["annotations"].append(cover))
    for _ in ("drawn", "out of the cache"):
        data = Coco("val", root=str(root), overlap="order")
        data.read(1)
        assert any("annotation 501 is not seen" in remark and "4 of 5 regions" in remark for remark in data.remarks())
    data = Coco("val", root=str(root))
    data.read(1)
    assert not data.remarks()


# ---- recognised


KNOWN = list(dict.fromkeys((name, dataset) for name, dataset, _, _ in SETS))


@pytest.mark.parametrize(("name", "dataset"), [*KNOWN, *((f"benchmarks/{name}", name) for name in BENCHMARKS)])
def test_a_dataset_is_recognised(oracle, name, dataset):
    assert list(recognize(oracle / name)) == [dataset]


def test_auto_says_what_it_reads_or_which_it_may_be(oracle, tmp_path, caplog):
    caplog.set_level("INFO")
    root = shutil.copytree(oracle / "yolo", tmp_path / "plots")
    data = [Auto(split, root=str(root)) for split in ("train", "val")]
    assert data[0].read(0).target.shape == (64, 80)
    assert [record.message for record in caplog.records if "is read as" in record.message] == [
        f"{root} is read as dataset=yolo: it has data.yaml with names"]
    shutil.copy(oracle / "cvat/annotations.xml", root)
    with refused("dataset=yolo (data.yaml with names)", "dataset=cvat (annotations.xml", "choose one of them"):
        Auto("train", root=str(root))
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "empty", "is not recognised"), (tmp_path / "nowhere", "is not a folder"),
                        (None, "dataset.root is needed")):
        with refused(words):
            Auto("train", root=path and str(path))
    check_trust({"dataset": {"_target_": "segtrain.data.formats.auto.Auto"}}, [], [])


def test_layouts_without_annotation_files_are_recognised(tmp_path):
    layouts = {"camvid": ("train/a.png", "trainannot/a.png"), "cityscapes": ("leftImg8bit/a.png", "gtFine/a.png"),
               "voc": ("JPEGImages/a.png", "SegmentationClass/a.png", "ImageSets/a.png"),
               "folder": ("classes.csv", "train/images/a.png", "train/masks/a.png"),
               "pascal_context": ("SegmentationClassContext/a.png",)}
    for name, files in layouts.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text("")
        assert list(recognize(tmp_path / name)) == [name]


# ---- the tasks


def test_masks_are_written_and_read_again(segtrain, oracle, tmp_path):
    out = tmp_path / "masks"
    command = ("task=rasterize", "dataset=auto", f"dataset.root={oracle / 'coco'}", f"task.output={out}")
    assert segtrain(*command, f"hydra.run.dir={tmp_path / 'run'}") == 0
    for name in ("train/plot_a.png", "train/plot zwei ü.png", "val/empty.png", "val/sub/plot_a.png"):
        np.testing.assert_array_equal(np.array(Image.open(out / name)),
                                      np.array(Image.open(oracle / "coco/expected" / name)))
    assert (out / "classes.csv").read_text().splitlines()[:2] == ["name,label_id,color,has_instances",
                                                                 "background,0,#000000,false"]
    assert json.loads((tmp_path / "run/results.json").read_text())["masks"] == {"train": 2, "val": 2}
    again = OPENERS["folder"]("val", root=str(out), images="{split}", masks="{split}", targets_only=True)
    assert [label.name for label in again.labels] == ["background", "house", "pond", "tree", "road"]
    given = ("dataset=coco", f"dataset.root={oracle / 'coco'}", "task=rasterize")
    rasterize.run(composed(*given, f"task.output={out}", "task.splits=[val]"), tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["masks"] == {"val": 2}
    for output, words in (("null", "task.output is needed"), (oracle / "coco", "is not empty")):
        with refused(words):
            rasterize.run(composed(*given, f"task.output={output}"), tmp_path)
    (out / "val").rename(out / "other")
    for name in ("empty", "sub/plot_a"):
        (out / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        (out / "val" / f"{name}.png").symlink_to(oracle / "coco/val" / f"{name}.png")
    with refused("would overwrite"):
        rasterize.run(composed(*given, f"task.output={out}"), tmp_path)
