"""CamVid itself, where it is present: SEGTRAIN_CAMVID names the folder with train, trainannot, val and valannot."""

import os
from pathlib import Path

import numpy as np
import pytest

from segtrain.data.camvid import CamVid
from segtrain.data.statistics import compute_statistics

ROOT = os.environ.get("SEGTRAIN_CAMVID")
pytestmark = pytest.mark.skipif(ROOT is None or not Path(ROOT).is_dir(),
                                reason="SEGTRAIN_CAMVID does not name a folder with CamVid")


@pytest.fixture(scope="module", params=[("train", 367), ("val", 101)], ids=["train", "val"])
def split(request):
    name, num_images = request.param
    data = CamVid(name, ROOT)
    assert len(data.names) == num_images
    return data, compute_statistics(data, "components")


def test_every_image_is_readable_and_480x360(split):
    data, found = split
    assert set(found.sizes) == {(360, 480)}
    sample = data.read(0)
    assert sample.image.shape == (360, 480, 3)
    assert sample.image.std() > 20
    assert sample.instances is None


def test_labels_are_the_eleven_classes_and_a_little_void(split):
    data, found = split
    pixels = np.array(found.class_pixels)
    assert (pixels > 0).all()
    assert 0.01 < 1 - pixels.sum() / (len(data.names) * 360 * 480) < 0.05
    largest = np.argsort(-pixels)[:2]
    assert "Road" in [data.labels[index].name for index in largest]
    shares = dict(zip([label.name for label in data.labels], pixels / pixels.sum(), strict=True))
    assert shares["Sky"] > 0.05 > shares["Pole"]
    assert all(shares[name] < 0.03 for name in ("Pole", "SignSymbol", "Pedestrian", "Bicyclist"))


def test_components_are_measured(split):
    _, found = split
    assert list(found.class_sizes) == ["SignSymbol", "Car", "Pedestrian", "Bicyclist"]
    assert all(size > 20 for size in found.class_sizes.values())
    assert found.class_sizes["Car"] > found.class_sizes["SignSymbol"]


def test_splits_share_no_image():
    assert not set(CamVid("train", ROOT).names) & set(CamVid("val", ROOT).names)


def test_sky_is_above_road():
    rows = {"Sky": [], "Road": []}
    data = CamVid("val", ROOT)
    train_ids = {label.name: label.train_id for label in data.labels}
    for index in range(0, len(data.names), 10):
        target = data.read(index).target
        for name, means in rows.items():
            means.append(np.nonzero(target == train_ids[name])[0].mean())
    assert max(rows["Sky"]) < min(rows["Road"])
