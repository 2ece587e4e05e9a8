"""From a folder to a score: the doctor's settings train, and evaluate finds the scores of the training again."""

import json
import shlex

import cv2
import numpy as np
import pytest
from helpers import UNET
from made_files import save_image

COLORS = {"road": (128, 64, 128), "car": (64, 0, 128), "tree": (128, 128, 0)}
VOID = (0, 0, 0)
SIZE = (40, 56)


def colored_mask(rng):
    """Return a mask, uint8 (40, 56, 3), of large random patches in the classes' colours and void."""
    patches = rng.integers(0, 4, (5, 7), dtype=np.uint8)
    train_ids = cv2.resize(patches, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    return np.array([*COLORS.values(), VOID], np.uint8)[train_ids]


@pytest.fixture
def root(tmp_path):
    """A dataset whose masks are RGB images, of 4 training and 3 validation images."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    for split, count in (("train", 4), ("val", 3)):
        for number in range(count):
            mask = colored_mask(rng)
            image = mask // 2 + rng.integers(0, 99, mask.shape, np.uint8)
            save_image(folder / split / "images" / f"{number}.png", image)
            save_image(folder / split / "masks" / f"{number}.png", mask)
    rows = [f"{name},#{bytes(color).hex()},{str(name == 'car').lower()}" for name, color in COLORS.items()]
    (folder / "classes.csv").write_text("\n".join(["name,color,has_instances", *rows]))
    return folder


def counted(folder, split):
    """Count the pixels of each colour of a split's masks, void last."""
    masks = [cv2.imread(str(path))[..., ::-1] for path in sorted((folder / split / "masks").iterdir())]
    return [sum(int((mask == color).all(-1).sum()) for mask in masks) for color in (*COLORS.values(), VOID)]


@pytest.mark.slow
def test_a_folder_of_colored_masks_is_checked_trained_on_and_scored(root, segtrain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ("task=doctor", "dataset=folder", "dataset.root=data", "dataset.instances=components", "task.examples=1")
    assert segtrain(*given, "hydra.run.dir=refused") == 2
    said = capsys.readouterr().err
    assert "#000000" in said, "the colour that is no class must be named"
    remedy = next(word for word in shlex.split(said) if word.strip("(),").startswith("dataset.void="))

    assert segtrain(*given, remedy.strip("(),"), "hydra.run.dir=checkup") == 0  # as a shell reads what was printed
    report = json.loads((tmp_path / "checkup" / "results.json").read_text())
    for split in ("train", "val"):
        found = report["splits"][split]
        assert [*found["class_pixels"].values(), found["void_pixels"]] == counted(root, split)

    assert segtrain("--config-dir", "checkup/conf", "dataset=checked", *UNET, "train.epochs=2",
                    "train.batch_size=2", "runtime.workers=0", "hydra.run.dir=trained") == 0
    assert segtrain("task=evaluate", "checkpoint=trained", "runtime.workers=0", "hydra.run.dir=scored") == 0
    trained, scored = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("trained", "scored"))
    assert (tmp_path / "trained" / "config.yaml").read_text().count("#000000") == 1
    scores = {"loss", "miou", "macc", "pacc", "fwiou", "iiou", "iou_per_class", "acc_per_class", "iiou_per_class",
              "confusion_matrix", "predicted_void", "num_images"}
    assert {key: scored[key] for key in scores} == {key: trained[key] for key in scores}

    # the targets that were scored are the colours of the files
    rows = np.array(scored["confusion_matrix"]).sum(1)
    assert [*rows.tolist(), sum(scored["predicted_void"])] == counted(root, "val")
    assert list(scored["iou_per_class"]) == list(COLORS)
