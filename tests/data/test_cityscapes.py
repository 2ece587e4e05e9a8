"""Cityscapes from trees made by hand: label tables, instances, polygons, cities, and what is said of faults."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from made_files import FRAME_SIZE, cityscapes_frame, cityscapes_ids, make_image, make_mask, save_image
from PIL import Image

from segtrain.data.base import Cached, take_first
from segtrain.data.cityscapes import (
    CITYSCAPES,
    CITYSCAPES_LABELS,
    CITYSCAPES_SIZES,
    Cityscapes,
    draw,
    read_instance_ids,
)
from segtrain.data.formats.rle import expand_runs
from segtrain.data.scanlines import fill_polygon
from segtrain.data.statistics import compute_statistics
from segtrain.labels import IGNORE_INDEX


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "segtrain" / "cityscapes"


def box(label, top, left, bottom, right, **more):
    """Return a polygon that covers the rows top..bottom and columns left..right, both included."""
    return {"label": label, "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]], **more}


# ---- labels


def test_table_has_35_labels_of_which_19_are_classes():
    assert [label.label_id for label in CITYSCAPES_LABELS] == [*range(34), -1]
    assert len({label.name for label in CITYSCAPES_LABELS}) == 35
    assert [label.train_id for label in CITYSCAPES] == list(range(19))
    assert [label.label_id for label in CITYSCAPES] == [
        7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [label.name for label in CITYSCAPES_LABELS if label.has_instances] == [
        "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"]
    assert {label.category for label in CITYSCAPES} == {
        "flat", "construction", "object", "nature", "sky", "human", "vehicle"}
    assert len({label.color for label in CITYSCAPES}) == 19


def test_every_label_id_becomes_its_train_id(tmp_path):
    labels = cityscapes_ids(0)
    labels[0, :34] = range(34)
    data = Cityscapes("train", str(cityscapes_frame(tmp_path, labels=labels)))
    read = data.read(0)
    np.testing.assert_array_equal(read.image, make_image(FRAME_SIZE))
    assert read.target.dtype == np.uint8
    assert read.target[0, :34].tolist() == [
        255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13,
        14, 15, 255, 255, 16, 17, 18]
    assert (read.target[1:] == IGNORE_INDEX).all()
    assert (data.labels, data.names) == (CITYSCAPES, ["aachen_000000_000019"])
    assert data.locate(0).endswith("gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png")


def test_single_objects_have_numbers_and_crowds_have_none(tmp_path):
    labels, instances = cityscapes_ids(), cityscapes_ids().astype(np.int32)
    labels[0, :30] = 26
    instances[0, :10], instances[0, 10:20], instances[0, 20:30] = 26000, 26001, 26
    labels[1, :5], instances[1, :5] = 33, 33012
    read = Cityscapes("train", str(cityscapes_frame(tmp_path, labels=labels, instances=instances))).read(0)
    assert read.instances.dtype == np.int32
    assert read.instances[0, ::10].tolist() == [26000, 26001, 0, 0, 0]
    assert np.unique(read.instances).tolist() == [0, 26000, 26001, 33012]


def test_object_sizes_are_the_official_ones_for_maps_only(tmp_path):
    labels = cityscapes_ids()
    labels[0, :30] = 26
    data = Cityscapes("train", str(cityscapes_frame(tmp_path, labels=labels, instances=labels.astype(np.int32) * 1000)))
    for seen in (data, Cached(data), take_first(data, 1)):
        assert compute_statistics(seen, "maps").class_sizes == {
            label.name: CITYSCAPES_SIZES[label.name] for label in CITYSCAPES if label.has_instances}
    sizes = compute_statistics(data, "components").class_sizes
    assert (sizes["car"], sizes["bus"]) == (30.0, None)
    assert CITYSCAPES_SIZES.keys() == {label.name for label in CITYSCAPES_LABELS if label.has_instances}


def test_without_instance_ids_there_is_no_map(tmp_path):
    data = Cityscapes("train", str(cityscapes_frame(tmp_path, labels=cityscapes_ids())))
    assert data.read(0).instances is None
    with refused("dataset.instances=maps", "components"):
        compute_statistics(data, "maps")


# ---- polygons


def test_polygons_are_drawn_in_their_order(tmp_path, cache):
    cityscapes_frame(tmp_path, objects=[
        box("road", 0, 0, 31, 47), box("car", 0, 0, 3, 9), box("car", 2, 5, 5, 9), box("cargroup", 8, 0, 9, 9),
        box("car", 12, 0, 12, 9, deleted=1), box("person", 14, 0, 14, 3), box("license plate", 2, 6, 2, 7),
        box("car", 16, 0, 16, 3), box("skygroup", 18, 0, 18, 3), box("polegroup", 20, 0, 20, 3),
        box("ego vehicle", 30, 0, 31, 47), box("trailer", 22, 0, 22, 3)])
    data = Cityscapes("train", str(tmp_path))
    read = data.read(0)
    rows = [0, 2, 4, 8, 12, 14, 16, 18, 20, 22, 30]
    assert read.target[rows, 6].tolist() == [13, 13, 13, 13, 0, 0, 0, 0, 0, 0, 255]
    assert read.target[rows, 2].tolist() == [13, 13, 0, 13, 0, 11, 13, 10, 255, 255, 255]
    assert read.instances[rows, 6].tolist() == [26000, 26001, 26001, 0, 0, 0, 0, 0, 0, 0, 0]
    assert read.instances[rows, 2].tolist() == [26000, 26000, 0, 0, 0, 24000, 26002, 0, 0, 30000, 0]
    assert data.locate(0).endswith("polygons.json")
    assert sorted(path.name.rsplit("_", 1)[1] for path in cache.iterdir()) == ["instanceIds.png", "labelIds.png"]
    assert not list((tmp_path / "gtFine").rglob("*.png"))


def test_no_version_of_pillow_changes_a_polygon():
    record = json.loads((Path(__file__).parents[1] / "oracle/scanlines.json").read_text())
    width, height = record["width"], record["height"]
    for each in record["polygons"]:
        top, left, inside = fill_polygon(each["points"], width, height)
        mask = np.zeros((height, width), bool)
        mask[top:top + inside.shape[0], left:left + inside.shape[1]] = inside
        np.testing.assert_array_equal(mask, expand_runs(np.array(each["counts"]), width, height, by_columns=True))


def test_polygons_are_drawn_once_until_they_change(tmp_path, cache, monkeypatch):
    import segtrain.data.cityscapes as module
    drawn = []
    monkeypatch.setattr(module, "draw", lambda path: drawn.append(path) or draw(path))
    cityscapes_frame(tmp_path, objects=[box("road", 0, 0, 31, 47)])
    for _ in range(2):
        assert (Cityscapes("train", str(tmp_path)).read(0).target == 0).all()
    assert len(drawn) == 1
    cityscapes_frame(tmp_path, objects=[box("sky", 0, 0, 31, 47), box("road", 0, 0, 0, 0)])
    assert Cityscapes("train", str(tmp_path)).read(0).target[1, 1] == 10
    assert len(drawn) == 2


def test_label_files_come_before_polygons(tmp_path):
    cityscapes_frame(tmp_path, labels=cityscapes_ids(23), objects=[box("road", 0, 0, 31, 47), box("car", 0, 0, 3, 3)])
    read = Cityscapes("train", str(tmp_path)).read(0)
    assert (read.target == 10).all()
    assert read.instances[0, 0] == 26000  # for want of instanceIds.png


@pytest.mark.parametrize(("text", "parts"), [
    ("{", ["not a polygon file"]),
    ("[]", ["not a polygon file"]),
    ('{"imgHeight": 32, "imgWidth": 48}', ["no 'objects'"]),
    (json.dumps({"imgHeight": 32, "imgWidth": 48, "objects": [{"label": "car"}]}), ["no 'polygon'"]),
    (json.dumps({"imgHeight": 32, "imgWidth": 48, "objects": [{"label": "car", "polygon": [[1]]}]}), ["not a polygon"]),
    (json.dumps({"imgHeight": 32, "imgWidth": 48, "objects": [{"label": "car", "polygon": []}]}), ["not a polygon"]),
    (json.dumps({"imgHeight": -1, "imgWidth": 48, "objects": []}), ["not a polygon file"]),
    (json.dumps({"imgHeight": 32, "imgWidth": 48, "objects": [box("cart", 0, 0, 1, 1)]}), ["'cart'", "mean 'car'"]),
    (json.dumps({"imgHeight": 32, "imgWidth": 48, "objects": [box("cowgroup", 0, 0, 1, 1)]}), ["'cowgroup'"]),
    (json.dumps({"imgHeight": 32, "imgWidth": 40, "objects": []}), ["48x32", "40x32"]),
])
def test_bad_polygons_are_named(tmp_path, cache, text, parts):
    cityscapes_frame(tmp_path, objects=[])
    path = tmp_path / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_polygons.json"
    path.write_text(text)
    with refused("aachen_000000_000019_gtFine", *parts):
        Cityscapes("train", str(tmp_path)).read(0)
    assert not list(cache.glob("*.tmp"))


def test_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with refused(tmp_path / "file", "XDG_CACHE_HOME"):
        Cityscapes("train", str(cityscapes_frame(tmp_path, objects=[]))).read(0)


# ---- copies in part


def cities(root):
    for city in ("aachen", "bochum", "zurich"):
        cityscapes_frame(root, f"{city}_000001_000019", labels=cityscapes_ids())
        cityscapes_frame(root, f"{city}_000000_000019", labels=cityscapes_ids())
    (root / "leftImg8bit" / "train" / ".DS_Store").write_bytes(b"x")
    (root / "leftImg8bit" / "train" / "aachen" / "._x_leftImg8bit.png").write_bytes(b"x")
    return str(root)


def test_cities_are_read_in_order_and_chosen(tmp_path):
    root = cities(tmp_path)
    names = Cityscapes("train", root).names
    assert names == sorted(names)
    assert len(names) == 6
    assert Cityscapes("train", root, ["zurich", "aachen", "zurich"]).names == [*names[:2], *names[4:]]
    with refused("dataset.cities", tmp_path / "leftImg8bit" / "train" / "aachn", "3 cities", "mean 'aachen'"):
        Cityscapes("train", root, ["aachn"])
    with refused("dataset.cities=[]", "null"):
        Cityscapes("train", root, [])


def test_images_without_a_label_are_left_out_where_that_is_set(tmp_path):
    cityscapes_frame(tmp_path, "ulm_000000_000019", labels=cityscapes_ids())
    cityscapes_frame(tmp_path, "ulm_000001_000019")
    data = Cityscapes("train", str(tmp_path), skip_without_mask=True)
    assert data.names == ["ulm_000000_000019"]
    assert compute_statistics(data, None).remarks[0].startswith("1 of 2 images have no mask and are left out")


def test_images_of_the_test_split_may_lack_labels(tmp_path):
    cityscapes_frame(tmp_path, "berlin_000000_000019", "test", labels=cityscapes_ids())
    cityscapes_frame(tmp_path, "berlin_000001_000019", "test")
    data = Cityscapes("test", str(tmp_path))
    assert (data.read(1).target == IGNORE_INDEX).all()
    assert data.locate(1).endswith("berlin_000001_000019_leftImg8bit.png")
    found = compute_statistics(data, None)
    assert found.class_pixels[0] == 32 * 48
    assert found.remarks == ["1 of 2 images have no label: all their pixels are void."]


def test_missing_labels_are_named(tmp_path):
    cities(tmp_path)
    cityscapes_frame(tmp_path, "bochum_000002_000019")
    with refused("1 of 7 images", "leftImg8bit/train/bochum/bochum_000002_000019_leftImg8bit.png",
                 "gtFine/train/bochum/bochum_000002_000019_gtFine_labelIds.png"):
        Cityscapes("train", str(tmp_path))


# ---- faults


def test_missing_folders_and_splits(tmp_path):
    with refused("dataset.root", "leftImg8bit"):
        Cityscapes("train")
    with refused(tmp_path / "leftImg8bit", "not a folder", "dataset.root"):
        Cityscapes("train", str(tmp_path))
    cities(tmp_path)
    with refused("dataset.split=night", tmp_path / "leftImg8bit" / "night", "holds train"):
        Cityscapes("night", str(tmp_path))
    (tmp_path / "leftImg8bit" / "val" / "ulm").mkdir(parents=True)
    with refused(tmp_path / "leftImg8bit" / "val", "empty"):
        Cityscapes("val", str(tmp_path))


def test_bad_files_are_named(tmp_path):
    stem = tmp_path / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png"

    def read(**files):
        return Cityscapes("train", str(cityscapes_frame(tmp_path, **files))).read(0)

    with refused(stem, "34 (1536 pixels)", "0..6, 9..10, 14..16, 18, 29..30"):
        read(labels=cityscapes_ids(34))
    with refused(stem, "40x32", "48x32"):
        read(labels=make_mask((32, 40)))
    with refused("instanceIds.png", "40x32", "48x32"):
        read(labels=cityscapes_ids(), instances=make_mask((32, 40)))
    instances = save_image(stem.with_name("aachen_000000_000019_gtFine_instanceIds.png"), cityscapes_ids())
    Image.fromarray(make_image(FRAME_SIZE)).save(instances)
    with refused(instances, "mode RGB"):
        read(labels=cityscapes_ids())
    instances.write_bytes(instances.read_bytes()[:100])
    with refused(instances, "cannot be read"):
        read(labels=cityscapes_ids())
    stem.write_bytes(b"")
    with refused(stem, "empty"):
        read()


def test_instance_ids_keep_their_16_bits(tmp_path):
    numbers = np.arange(32 * 48).reshape(FRAME_SIZE) * 42
    np.testing.assert_array_equal(read_instance_ids(save_image(tmp_path / "x.png", numbers.astype(np.uint16))), numbers)


# ---- the command


@pytest.mark.slow
def test_train_and_evaluate(segtrain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, city in (("train", "aachen"), ("val", "ulm")):
        cityscapes_frame(tmp_path, f"{city}_000000_000019", split, objects=[
            box("road", 0, 0, 31, 47), box("car", 0, 0, 3, 9), box("cargroup", 8, 0, 9, 9)])
        cityscapes_frame(tmp_path, f"{city}_000001_000019", split, labels=cityscapes_ids(26),
                         instances=np.full(FRAME_SIZE, 26000))
    assert segtrain("dataset=cityscapes", "dataset.root=.", "dataset.crop=[32,32]", "train.batch_size=2",
                    "train.epochs=1", "runtime.workers=0", "runtime.threads=1", "hydra.run.dir=run") == 0
    assert segtrain("task=evaluate", "checkpoint=run", "dataset.split=train", "dataset.cities=[aachen]",
                    "hydra.run.dir=scores") == 0
    results = json.loads(Path("scores/results.json").read_text())
    assert (results["num_images"], results["iiou_source"]) == (2, "instances")
    assert results["policy"]["class_sizes"]["car"] == CITYSCAPES_SIZES["car"]
    pixels = [sum(row) for row in results["confusion_matrix"]]
    assert (pixels[0], pixels[13]) == (32 * 48 - 60, 32 * 48 + 60)
    assert segtrain("dataset=cityscapes", "dataset.root=.", "dataset.cities=[ulm]", "hydra.run.dir=no") == 2
