"""What every dataset promises. A new one adds a line to DATASETS."""

import json
import pickle

import numpy as np
import pytest
import yaml
from helpers import CONF, refused
from made_files import cityscapes_frame, cityscapes_ids, make_image, make_mask, save_image

from segtrain.data.base import Dataset
from segtrain.data.camvid import CamVid
from segtrain.data.cityscapes import Cityscapes
from segtrain.data.folder import Folder
from segtrain.data.formats.auto import Auto
from segtrain.data.formats.coco import Coco
from segtrain.data.statistics import compute_statistics
from segtrain.data.streets.dataset import Streets
from segtrain.data.voc import Voc


def write_pair(root, image, mask, **texts):
    """Write an image and its mask of the value 0, and the text files that the dataset needs."""
    save_image(root / image, make_image())
    save_image(root / mask, make_mask())
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".csv" if name == "classes" else ".txt").write_text(text)


def write_coco(root):
    """Write an image with one annotation for dataset=coco."""
    save_image(root / "val/a.png", make_image())
    (root / "annotations").mkdir()
    ring = [2, 2, 20, 2, 20, 20]
    (root / "annotations/instances_val.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 32}], "categories": [{"id": 1, "name": "b"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring]}]}))


# The name of its YAML file, its class, and what writes a split val of one sample; None needs no files.
DATASETS = [
    ("streets", Streets, None),
    ("camvid", CamVid, lambda root: write_pair(root, "val/a.png", "valannot/a.png")),
    ("cityscapes", Cityscapes, lambda root: cityscapes_frame(root, split="val", labels=cityscapes_ids(),
                                                             instances=cityscapes_ids())),
    ("folder", Folder, lambda root: write_pair(root, "val/images/a.jpg", "val/masks/a.png", classes="name\na\nb\n")),
    ("coco", Coco, write_coco),
    ("auto", Auto, write_coco),
    ("voc", Voc, lambda root: write_pair(root, "JPEGImages/a.jpg", "SegmentationClass/a.png",
                                         ImageSets__Segmentation__val="a\n")),
]


@pytest.fixture(params=DATASETS, ids=[name for name, *_ in DATASETS])
def case(request, tmp_path):
    name, cls, write = request.param
    if write is None:
        return name, cls, cls("val")
    write(tmp_path)
    return name, cls, cls("val", root=str(tmp_path))


def test_samples_are_as_the_base_class_says(case):
    _, cls, data = case
    assert issubclass(cls, Dataset)
    assert len(set(data.names)) == len(data.names) > 0
    assert [label.train_id for label in data.labels] == list(range(len(data.labels)))
    sample = data.read(0)
    assert sample.image.dtype == sample.target.dtype == np.uint8
    assert sample.image.shape == (*sample.target.shape, 3)
    assert sample.instances is None or (sample.instances.dtype, sample.instances.shape) == (np.int32,
                                                                                           sample.target.shape)
    np.testing.assert_array_equal(data.read_target(0)[0], sample.target)
    assert all(path is None or path.is_file() for path in data.paths(0))
    assert data.names[0] in data.locate(0)
    assert sum(compute_statistics(data, None).class_pixels) > 0


def test_it_can_be_sent_to_a_process(case):
    data = case[2]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data)).read(0).image, data.read(0).image)


def test_its_yaml_file_names_it(case):
    name, cls, _ = case
    node = yaml.safe_load((CONF / "dataset" / f"{name}.yaml").read_text())
    assert node["_target_"] == f"{cls.__module__}.{cls.__qualname__}"
    assert {"num_classes", "split", "instances", "cache", "crop", "mean", "std"} <= node.keys()


@pytest.mark.parametrize(("name", "cls"), [(name, cls) for name, cls, write in DATASETS if write is not None])
def test_a_root_that_is_not_there_is_refused(name, cls, tmp_path):
    with refused("dataset.root"):
        cls("val")
    with refused("dataset.root"):
        cls("val", root=str(tmp_path / "nowhere"))
