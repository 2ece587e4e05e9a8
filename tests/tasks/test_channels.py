"""Images of five channels of 16 bits, from the doctor to an exported file, and the settings that say what they are."""

import json

import numpy as np
import pytest
import yaml
from helpers import UNET, composed, refused, segtrain_exits
from PIL import Image

import segtrain
from segtrain.config import build
from segtrain.inference import large_images

tifffile = pytest.importorskip("tifffile")
SPECTRA = np.array([[400, 600, 500, 2600, 1500], [600, 500, 400, 300, 150]])  # of plants and of water
GEO = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 5.2e6, 0.0), True),
       (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True)]
pytestmark = pytest.mark.usefixtures("hydra")


@pytest.mark.parametrize(("overrides", "parts"), [
    ("dataset.nodata=0", ("dataset.nodata=0", "set that to their number of channels")),
    ("dataset.range=[0,1]", ("dataset.range", "set that to their number of channels")),
    ("dataset.dtype=uint16", ("dataset.dtype=uint16", "set that to their number of channels")),
    ("dataset.dtype=int", ("dataset.dtype=int is unknown",)),
    ("dataset.channels=3 dataset.range=[5,1]", ("dataset.range=[5, 1]", "low below high")),
    ("dataset.channels=3 dataset.range=[[0,1],[0,1]]", ("has 2 pairs, but dataset.channels=3",)),
    ("dataset.bands=[1,2]", ("dataset.bands=[1, 2]", "set dataset.channels=2")),
    ("dataset.channels=5 dataset.rgb=[1,2,6]", ("dataset.rgb=[1, 2, 6]", "each from 1 to 5")),
    ("dataset.channels=5 dataset.mean=[0,0,0]", ("dataset.mean=[0, 0, 0]", "must be 5 numbers", "auto")),
    ("dataset.channels=65", ("dataset.channels=65 is too large",))])
def test_settings_that_contradict_are_refused(overrides, parts):
    with refused(*parts):
        composed(*overrides.split())


def test_the_network_follows_the_channels_and_a_contradiction_is_refused():
    cfg = composed("dataset.channels=5", "dataset.range=[0,10]", "dataset.nodata=nan", *UNET)
    settled = build.settle(cfg, build.device(cfg), num_classes=2, cached_in_memory=True)
    assert (cfg.model["in_channels"], cfg.dataset.range, cfg.dataset.nodata) == (5, [[0, 10]] * 5, "nan")
    assert np.isnan(build.image_form(cfg).nodata)
    assert len(build.normalize(settled, build.device(cfg))._scale.flatten()) == 5
    for override in ("model.in_channels=3", "model.in_channels=4"):
        cfg = composed("dataset.channels=5", *UNET, override)
        with refused(override, "dataset.channels=5", "leave out model.in_channels"):
            build.normalize(build.settle(cfg, build.device(cfg), num_classes=2, cached_in_memory=True),
                            build.device(cfg))


def write_scene(folder, name, seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 2, (4, 6)), np.ones((16, 16))).astype(np.uint8)
    image = (SPECTRA[mask] + rng.normal(0, 40, (64, 96, 5))).clip(1).astype(np.uint16)
    image[:6, :9] = 0
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "images" / f"{name}.tif", image, photometric="minisblack", planarconfig="contig",
                     extratags=[*GEO, (42113, 2, 0, "0", True)], metadata=None)
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return image, mask


@pytest.mark.slow
def test_five_channels_from_the_doctor_to_an_exported_file(tmp_path, monkeypatch):
    root, out = tmp_path / "data", tmp_path / "out"
    for number in range(8):
        write_scene(root / "train", f"t{number}", number)
    image, mask = write_scene(root / "val", "v", 99)
    (root / "classes.csv").write_text("name,color\nplants,#00ff00\nwater,#0000ff\n")
    data = ("dataset=folder", f"dataset.root={root}", "dataset.crop=[64,64]", "dataset.channels=5",
            "dataset.rgb=[4,3,2]", "runtime.threads=1", "runtime.workers=0")

    def run(name, *arguments):
        assert segtrain_exits(*arguments, f"hydra.run.dir={out / name}") == 0
        return json.loads((out / name / "results.json").read_text())

    advice = run("doctor", "task=doctor", *data)["advice"]
    low, high = np.array(advice["range"]).T
    assert advice["dtype"] == "uint16"
    assert (low[3] > 100).all()
    assert 2500 < high[3] < 2800
    assert np.asarray(Image.open(out / "doctor" / "examples.png").convert("RGB")).std() > 10
    results = run("train", *data, *UNET, "train.epochs=6", "train.batch_size=4", "optim=adamw", "optim.lr=0.01",
                  "augmentation=scale_crop_flip")
    assert results["miou"] > 0.8
    config = yaml.safe_load((out / "train" / "config.yaml").read_text())
    assert (config["dataset"]["range"], config["dataset"]["mean"]) == (advice["range"], advice["mean"])
    assert config["model"]["in_channels"] == 5
    checkpoint = f"checkpoint={out / 'train'}"
    evaluated = run("evaluate", "task=evaluate", checkpoint)
    assert evaluated["miou"] == results["miou"]
    assert evaluated["confusion_matrix"] == results["confusion_matrix"]
    run("predict", "task=predict", checkpoint, f"task.input={root}/val/images", "task.overlays=true")
    pred = np.asarray(Image.open(out / "predict" / "predictions" / "v.png"))
    nodata = (image == 0).all(-1)
    assert (pred[nodata] == 255).all()
    assert (pred[~nodata] == mask[~nodata]).mean() > 0.85
    with tifffile.TiffFile(out / "predict" / "geotiffs" / "v.tif") as file:
        np.testing.assert_array_equal(file.pages[0].asarray(), pred)
        assert file.pages[0].tags[33922].value == GEO[1][3]
    windows = ("task=predict", checkpoint, f"task.input={root}/val/images", "task.window=[32,48]", "task.overlays=true")
    run("windows", *windows)
    monkeypatch.setattr(large_images, "MOST_PIXELS", 1000)
    run("large", *windows)
    for name in ("predictions/v.png", "overlays/v.jpg"):
        first, second = (np.asarray(Image.open(out / folder / name)) for folder in ("windows", "large"))
        np.testing.assert_array_equal(first, second)
    model = segtrain.load(out / "train", device="cpu")
    np.testing.assert_array_equal(model.predict(root / "val" / "images" / "v.tif"), pred)
    np.testing.assert_array_equal(model.predict(image).classes[~nodata], pred[~nodata])
    assert np.asarray(model.predict(image).overlay(legend=False)).shape == (64, 96, 3)
    about = run("export", "task=export", "task.format=pt2", checkpoint)["metadata"]
    assert json.loads(about["range"]) == advice["range"]
    assert "values as in files of uint16" in about["input"]
    Image.fromarray(mask).save(tmp_path / "x.png")
    for given, part in ((tmp_path / "x.png", "dataset.channels=5"), (root / "val/masks", "dataset.channels=5")):
        assert segtrain_exits("task=predict", checkpoint, f"task.input={given}",
                              f"hydra.run.dir={out / f'bad-{given.name}'}") == 2, part
    assert segtrain_exits("task=evaluate", checkpoint, "dataset.range=auto", f"hydra.run.dir={out / 'auto'}") == 2


@pytest.mark.slow
def test_other_settings_train_too(tmp_path, capsys):
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            write_scene(tmp_path / split, f"{split}{number}", number)
    (tmp_path / "classes.csv").write_text("name\nplants\nwater\n")
    common = ("dataset=folder", f"dataset.root={tmp_path}", "dataset.crop=[32,32]", "train.epochs=1", *UNET,
              "train.batch_size=2", "runtime.threads=1", "runtime.workers=0", "train.report=false")
    for number, (overrides, code, said) in enumerate((
            ("dataset.channels=3 dataset.bands=[4,3,2] dataset.range=[0,3000] dataset.nodata=null", 0, ""),
            ("dataset.channels=5 dataset.window=[32,48]", 0, ""),
            ("dataset.channels=5 dataset.dtype=uint8", 2, "dataset.dtype=uint8"),
            ("dataset.channels=5 dataset.range=null", 2, "dataset.range=[low, high]"),
            ("dataset.channels=4", 2, "set dataset.channels=5"),
            ("dataset.channels=5 augmentation=strong", 2, "~augmentation.light"),
            ("model.in_channels=5", 2, "dataset.channels=5"))):
        capsys.readouterr()
        found = segtrain_exits(*common, *overrides.split(), f"hydra.run.dir={tmp_path / f'run{number}'}")
        assert (found, said in capsys.readouterr().err) == (code, True), overrides
