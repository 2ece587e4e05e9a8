"""Datasets and archives that tests make: samples in memory, image and mask files, zip and tar files."""

import io
import json
import tarfile
import zipfile

import numpy as np
from helpers import UNET
from PIL import Image

from segtrain.data.base import Dataset, Sample
from segtrain.labels import Label

ARCHIVED = {"top/readme": b"r", "top/data/a.txt": b"a", "top/data/._a.txt": b"of a Mac", "top/data/deep/b.txt": b"bb",
            "other/c": b"c"}
FRAME_SIZE = (32, 48)
LABELS = (Label("a", 0, 0, (1, 2, 3)), Label("b", 1, 1, (4, 5, 6), True), Label("c", 2, 2, (7, 8, 9), True))


class Memory(Dataset):
    """A dataset of samples in memory."""

    def __init__(self, samples, labels=LABELS):
        self.samples, self.labels = samples, labels
        self.names = [f"sample{index}" for index in range(len(samples))]

    def read(self, index):
        return self.samples[index]

    def locate(self, index):
        return f"{self.names[index]}.png"


def make_image(size=(32, 40), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def make_mask(size=(32, 40), value=0):
    return np.full(size, value, dtype=np.uint8)


def make_sample(target, instances=None):
    return Sample(np.zeros((*target.shape, 3), np.uint8), target, instances)


def save_image(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def cityscapes_frame(root, name="aachen_000000_000019", split="train", labels=None, instances=None, objects=None):
    """Write an image with its label ids, instance ids or polygons, whichever are given."""
    city = name.split("_")[0]
    save_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", make_image(FRAME_SIZE))
    stem = root / "gtFine" / split / city / name
    stem.parent.mkdir(parents=True, exist_ok=True)
    if labels is not None:
        save_image(stem.with_name(f"{name}_gtFine_labelIds.png"), labels)
    if instances is not None:
        save_image(stem.with_name(f"{name}_gtFine_instanceIds.png"), instances.astype(np.uint16))
    if objects is not None:
        content = {"imgHeight": FRAME_SIZE[0], "imgWidth": FRAME_SIZE[1], "objects": objects}
        stem.with_name(f"{name}_gtFine_polygons.json").write_text(json.dumps(content))
    return root


def cityscapes_ids(value=7):
    return make_mask(FRAME_SIZE, value)


def constant_masks(root, targets):
    """Write a dataset of two classes, each mask of one value; return the command's arguments to train on it."""
    rng = np.random.default_rng(0)
    for split, values in targets.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number, value in enumerate(values):
            mask = np.full((32, 32), value, np.uint8)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
    (root / "classes.csv").write_text("name\nbackground\nthing\n")
    return ("dataset=folder", f"dataset.root={root}", "dataset.crop=[32,32]", *UNET, "runtime.workers=0",
            "runtime.threads=1", "train.epochs=1", "train.batch_size=2", "augmentation=none")


def list_folder(folder):
    return sorted(path.name for path in folder.iterdir())


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path, files, mode="w:gz"):
    """Write a tar archive of contents, or of ready TarInfos."""
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            body = content if isinstance(content, bytes) else b""
            info.name, info.size = name, len(body)
            archive.addfile(info, io.BytesIO(body))
    return path
