"""Cityscapes: fine annotations of street scenes in 50 cities, as label files or as polygons that are drawn here."""

import hashlib
import json
import os
import uuid
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segtrain.data.base import Dataset, Sample, describe_left_out, make_sample
from segtrain.data.discovery import has_images
from segtrain.data.images import check_sizes, decode, read_mask, to_train_ids
from segtrain.data.scanlines import fill_polygon
from segtrain.errors import UserError, did_you_mean, list_first
from segtrain.files import read_text, refuse_unwritable, write_file
from segtrain.labels import IGNORE_INDEX, Label

# All labels of Cityscapes (Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", 2016), in
# the order of the label ids. Those without a train id are ignored in evaluation; the number -1 stands in no label file.
CITYSCAPES_LABELS = (
    Label("unlabeled", 0, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("ego vehicle", 1, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("rectification border", 2, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("out of roi", 3, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("static", 4, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("dynamic", 5, IGNORE_INDEX, (111, 74, 0), category="void"),
    Label("ground", 6, IGNORE_INDEX, (81, 0, 81), category="void"),
    Label("road", 7, 0, (128, 64, 128), category="flat"),
    Label("sidewalk", 8, 1, (244, 35, 232), category="flat"),
    Label("parking", 9, IGNORE_INDEX, (250, 170, 160), category="flat"),
    Label("rail track", 10, IGNORE_INDEX, (230, 150, 140), category="flat"),
    Label("building", 11, 2, (70, 70, 70), category="construction"),
    Label("wall", 12, 3, (102, 102, 156), category="construction"),
    Label("fence", 13, 4, (190, 153, 153), category="construction"),
    Label("guard rail", 14, IGNORE_INDEX, (180, 165, 180), category="construction"),
    Label("bridge", 15, IGNORE_INDEX, (150, 100, 100), category="construction"),
    Label("tunnel", 16, IGNORE_INDEX, (150, 120, 90), category="construction"),
    Label("pole", 17, 5, (153, 153, 153), category="object"),
    Label("polegroup", 18, IGNORE_INDEX, (153, 153, 153), category="object"),
    Label("traffic light", 19, 6, (250, 170, 30), category="object"),
    Label("traffic sign", 20, 7, (220, 220, 0), category="object"),
    Label("vegetation", 21, 8, (107, 142, 35), category="nature"),
    Label("terrain", 22, 9, (152, 251, 152), category="nature"),
    Label("sky", 23, 10, (70, 130, 180), category="sky"),
    Label("person", 24, 11, (220, 20, 60), has_instances=True, category="human"),
    Label("rider", 25, 12, (255, 0, 0), has_instances=True, category="human"),
    Label("car", 26, 13, (0, 0, 142), has_instances=True, category="vehicle"),
    Label("truck", 27, 14, (0, 0, 70), has_instances=True, category="vehicle"),
    Label("bus", 28, 15, (0, 60, 100), has_instances=True, category="vehicle"),
    Label("caravan", 29, IGNORE_INDEX, (0, 0, 90), has_instances=True, category="vehicle"),
    Label("trailer", 30, IGNORE_INDEX, (0, 0, 110), has_instances=True, category="vehicle"),
    Label("train", 31, 16, (0, 80, 100), has_instances=True, category="vehicle"),
    Label("motorcycle", 32, 17, (0, 0, 230), has_instances=True, category="vehicle"),
    Label("bicycle", 33, 18, (119, 11, 32), has_instances=True, category="vehicle"),
    Label("license plate", -1, IGNORE_INDEX, (0, 0, 142), category="vehicle"),
)
CITYSCAPES = tuple(label for label in CITYSCAPES_LABELS if label.train_id != IGNORE_INDEX)  # the 19 classes

# Mean pixels of an object, which the official iIoU of Cityscapes weighs with (cityscapesScripts 2.3.0).
CITYSCAPES_SIZES = {
    "person": 3462.4756337644, "rider": 3930.4788056518, "car": 12794.0202738185, "truck": 27855.1264367816,
    "bus": 35732.1511111111, "caravan": 36771.8241758242, "trailer": 16926.9763313609, "train": 67583.7075812274,
    "motorcycle": 6298.7200839748, "bicycle": 4672.3249222261,
}

LABELS = {label.name: label for label in CITYSCAPES_LABELS}
GROUP = "group"  # ends the label of an area of objects that could not be separated
MAX_PIXELS = 2**26  # 32 times an image of Cityscapes
MAX_BYTES = 2**26  # of a polygon file, which has half a million at most
PER_CLASS = 1000  # an object's number is its label id times this, plus its place among the objects of its class
IMAGE_ENDING = "_leftImg8bit.png"
LABEL_ENDINGS = ("_gtFine_labelIds.png", "_gtFine_polygons.json")
VOID_IDS = [label.label_id for label in CITYSCAPES_LABELS if label.train_id == IGNORE_INDEX and label.label_id >= 0]


class Cityscapes(Dataset):
    """leftImg8bit/<split>/<city>/*_leftImg8bit.png with gtFine/<split>/<city>/*_gtFine_{labelIds,instanceIds}.png.

    Where only *_gtFine_polygons.json is there, label and instance ids are drawn from it once, into a cache of the user.
    A copy of some cities is as good as a whole one. Images of the split test may go without a label; they are void.

    Source: Cordts et al., "The Cityscapes dataset for semantic urban scene understanding" (CVPR 2016).

    The arguments are described in conf/dataset/cityscapes.yaml; `split` is "train", "val", "test", or another folder of
    leftImg8bit. With targets_only a split whose images are missing is made of its labels.
    """

    prediction_ending = "_pred_labelIds"  # as the official script's own examples; it asks for <name>*.png
    is_sequence = True

    def __init__(self, split: str, root: str | None = None, cities: list[str] | None = None,
                 skip_without_mask: bool = False, targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds Cityscapes' leftImg8bit and gtFine, "
                            "dataset.root=/data/cityscapes")
        base = Path(root).expanduser()
        self.labels = CITYSCAPES
        self.file_labels = tuple(label for label in CITYSCAPES_LABELS if label.label_id >= 0)
        self.class_sizes = {label.name: CITYSCAPES_SIZES[label.name] for label in CITYSCAPES if label.has_instances}
        if targets_only and not has_images(base / "leftImg8bit" / split):
            self._images = _infer_images(_find_split_folder(base, split, "gtFine"), cities)
        else:
            folder = _find_split_folder(base, split, "leftImg8bit")
            self._images = [path for city in _find_cities(folder, cities) for path in sorted((folder / city).glob(
                f"*{IMAGE_ENDING}")) if not path.name.startswith(".")]
            if not self._images:
                raise UserError(f"{folder} holds no <city>/*{IMAGE_ENDING}: the split is empty; check dataset.root.")
        self.names = [path.name.removesuffix(IMAGE_ENDING) for path in self._images]
        self._stems = [f"{base / 'gtFine' / split / path.parent.name / name}_gtFine_"
                       for path, name in zip(self._images, self.names, strict=True)]
        self._sources = [_find_first(stem, "labelIds.png", "polygons.json") for stem in self._stems]
        self._left_out: list[Path] = []
        if skip_without_mask and split != "test" and any(self._sources):
            is_kept = [source is not None for source in self._sources]
            self._left_out = list(compress(self._images, map(not_, is_kept)))
            self._images, self.names = list(compress(self._images, is_kept)), list(compress(self.names, is_kept))
            self._stems, self._sources = list(compress(self._stems, is_kept)), list(compress(self._sources, is_kept))
        self._num_missing = self._sources.count(None)
        if self._num_missing and split != "test":
            first = self._sources.index(None)
            raise UserError(f"{self._num_missing} of {len(self.names)} images have no label, the first is "
                            f"{self._images[first]}: add {self._stems[first]}labelIds.png (or "
                            "*_polygons.json), or remove the image.",
                            [str(image) for image, source in zip(self._images, self._sources, strict=True)
                             if source is None])

    def read(self, index: int) -> Sample:
        pixels, source = self._read_image(index, self._images[index]), self._sources[index]
        if source is None:
            size = pixels.image.shape[:2]
            return make_sample(pixels, np.full(size, IGNORE_INDEX, np.uint8), np.zeros(size, np.int32))
        target = self._read_labels(source)
        check_sizes(pixels.image, self._images[index], target, source)
        return make_sample(pixels, target, self._read_instances(index, source, target))

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        source = self._sources[index]
        if source is None:
            raise UserError(f"{self._images[index]} has no label, so it cannot be scored: choose another "
                            "dataset.split, or remove it.")
        target = self._read_labels(source)
        return target, self._read_instances(index, source, target)

    def _read_labels(self, source: Path) -> np.ndarray:
        return to_train_ids(read_mask(_find_png(source, "labelIds"), CITYSCAPES_LABELS), self.labels, VOID_IDS, source)

    def _read_instances(self, index: int, labels: Path, target: np.ndarray) -> np.ndarray | None:
        source = _find_first(self._stems[index], "instanceIds.png", "polygons.json")
        if source is None:
            return None
        ids = read_instance_ids(_find_png(source, "instanceIds"))
        check_sizes(target, labels, ids, source, "instance map")
        ids[ids < PER_CLASS] = 0  # areas of several objects that could not be separated
        return ids

    def locate(self, index: int) -> str:
        return str(self._sources[index] or self._images[index])

    def paths(self, index: int) -> tuple[Path, Path | None]:
        source = self._sources[index]
        return self._images[index], source if source is not None and source.suffix == ".png" else None

    def list_sources(self, index: int) -> list[Path]:
        stem = self._stems[index]
        return [self._images[index], *(Path(f"{stem}{end}") for end in ("labelIds.png", "instanceIds.png",
                                                                      "polygons.json"))]

    def remarks(self) -> list[str]:
        """Return what the user should know: that images have no label."""
        void = [f"{self._num_missing} of {len(self.names)} images have no label: all their pixels are void."]
        return void if self._num_missing else describe_left_out(self._left_out, len(self.names))


def _find_split_folder(base: Path, split: str, kind: str) -> Path:
    folder = base / kind
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: check dataset.root, which holds leftImg8bit and gtFine.")
    if not (folder / split).is_dir():
        raise UserError(f"dataset.split={split}: {folder / split} is not a folder; {folder} holds "
                        f"{', '.join(_list_folders(folder)) or 'none'}.")
    return folder / split


def _infer_images(folder: Path, cities: list[str] | None) -> list[Path]:
    """Return where the images of all labels of a split would be."""
    images = folder.parents[1] / "leftImg8bit" / folder.name
    names = {(city, path.name.removesuffix(ending)) for city in _find_cities(folder, cities) for ending in LABEL_ENDINGS
             for path in (folder / city).glob(f"*{ending}") if not path.name.startswith(".")}
    if not names:
        raise UserError(f"{folder} holds no <city>/*{LABEL_ENDINGS[0]}: the split is empty; check dataset.root.")
    return [images / city / f"{name}{IMAGE_ENDING}" for city, name in sorted(names)]


def _find_cities(folder: Path, cities: list[str] | None) -> list[str]:
    found = _list_folders(folder)
    if cities is None:
        return found
    if not cities:
        raise UserError("dataset.cities=[] leaves no city: name some, or use null for all.")
    for city in cities:
        if city not in found:
            raise UserError(f"dataset.cities: {folder / city} is not a folder; {folder} holds {len(found)} cities, "
                            f"{list_first(found)}.{did_you_mean(city, found)}")
    return sorted(set(cities))


def _list_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _find_first(stem: str, *endings: str) -> Path | None:
    """Return the first of these files that is there."""
    return next((path for path in (Path(stem + ending) for ending in endings) if path.is_file()), None)


def _find_png(path: Path, ending: str) -> Path:
    """Return the file itself, or the drawing "labelIds" or "instanceIds" of a polygon file, made now if missing.

    The cache is segtrain/cityscapes below $XDG_CACHE_HOME or ~/.cache; a polygon file that changes is drawn again.
    """
    if path.suffix == ".png":
        return path
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): restore it.") from error
    identity = f"{path.absolute()} {state.st_mtime_ns} {state.st_size}".encode(errors="surrogateescape")
    version = hashlib.sha256(identity).hexdigest()[:16]
    frame = path.name.removesuffix("_polygons.json")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segtrain" / "cityscapes"
    found = folder / f"{frame}_{version}_{ending}.png"
    if not found.exists():
        drawings = dict(zip(("labelIds", "instanceIds"), draw(path), strict=True))
        for kind, drawing in drawings.items():
            _save(drawing, folder / f"{frame}_{version}_{kind}.png")
    return found


def draw(path: Path) -> tuple[Image.Image, Image.Image]:
    """Draw the polygons of a file in their order, later ones over earlier ones.

    Returns:
        Label ids, 8 bits a pixel; instance ids, 16 bits: label id * 1000 + number for a single object, the label id
        elsewhere.
    """
    try:
        content = json.loads(read_text(path, MAX_BYTES, "replace it"))
        size = int(content["imgWidth"]), int(content["imgHeight"])
        objects = [(str(item["label"]), [(point[0], point[1]) for point in item["polygon"]])
                   for item in content["objects"] if not item.get("deleted", 0)]
        if not 0 < size[0] * size[1] <= MAX_PIXELS:
            raise ValueError(f"its size is {size[0]}x{size[1]}")
        label_ids, instance_ids = np.zeros(size[::-1], np.uint8), np.zeros(size[::-1], np.uint16)
        _draw_all(objects, label_ids, instance_ids, path)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is not a polygon file of Cityscapes ({reason}): replace it.") from error
    return Image.fromarray(label_ids), Image.fromarray(instance_ids)


def _draw_all(objects: list[tuple[str, list[Any]]], label_ids: np.ndarray, instance_ids: np.ndarray,
              path: Path) -> None:
    seen: dict[str, int] = {}
    for name, polygon in objects:
        is_group = name not in LABELS and name.endswith(GROUP)
        label = LABELS.get(name.removesuffix(GROUP) if is_group else name)
        if label is None:
            raise UserError(f"{path} holds an object of the label {name!r}, which Cityscapes does not have: "
                            f"correct it.{did_you_mean(name, LABELS)}")
        if label.label_id < 0:
            continue
        number = label.label_id
        if label.has_instances and not is_group:
            number = PER_CLASS * label.label_id + seen.get(label.name, 0)
            seen[label.name] = seen.get(label.name, 0) + 1
        height, width = label_ids.shape
        top, left, mask = fill_polygon(polygon, width, height)
        place = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        label_ids[place][mask] = label.label_id
        instance_ids[place][mask] = number


def read_instance_ids(path: Path) -> np.ndarray:
    """Read a map of instance ids, 16 bits a pixel, as int32 (H, W)."""
    def numbers(image: Image.Image) -> np.ndarray:
        if image.mode not in ("I", "I;16", "I;16B", "L"):
            raise ValueError(f"it is of mode {image.mode}, not of 16 bits a pixel")
        return np.asarray(image).astype(np.int32)

    return decode(path, numbers)


def _save(drawing: Image.Image, path: Path) -> None:
    """Write a PNG, which several processes may do at the same time."""
    remedy = "make room, or set the environment variable XDG_CACHE_HOME to another folder"
    with refuse_unwritable(path.parent, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda file: drawing.save(file, format="PNG"), remedy=remedy,
               temporary_name=f"{path.name}.{uuid.uuid4().hex}.tmp")
