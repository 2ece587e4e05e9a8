"""PASCAL VOC 2012, and your own datasets in its layout."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from segtrain.data.base import FileDataset
from segtrain.data.class_files import Classes, read_class_file
from segtrain.data.color_masks import Color, to_hex
from segtrain.data.discovery import find_by_name, leave_out
from segtrain.data.download import Source, fetch
from segtrain.data.images import read_size
from segtrain.data.lists import read_lines
from segtrain.data.masks import Void, make_mask_rule, read_objects, read_target
from segtrain.errors import UserError, did_you_mean
from segtrain.labels import IGNORE_INDEX, Label


def _color(number: int) -> Color:
    """Return a colour of VOC's palette, whose channels take every third bit of the number, the lowest as 128."""
    red, green, blue = (128 * (number >> bit & 1) + 64 * (number >> bit + 3 & 1) for bit in range(3))
    return red, green, blue


# The classes of PASCAL VOC (Everingham et al., "The PASCAL visual object classes challenge", 2015).
VOC = tuple(Label(name, number, number, _color(number), has_instances=number > 0) for number, name in enumerate((
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")))

# Address and md5 are those of torchvision.datasets.VOCSegmentation.
VOC_2012 = Source(
    name="PASCAL VOC 2012",
    url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    archive="VOCtrainval_11-May-2012.tar",
    inner="VOCdevkit/VOC2012",
    expected={"ImageSets/Segmentation/train.txt": 1, "ImageSets/Segmentation/val.txt": 1},
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    md5="6cd6e144f989b92b3379bac3b3de84fd",
)

BORDER_COLOR: Color = (224, 224, 192)  # of the index 255 in VOC's palette: the void seam around objects
INSIDE = ("", "VOC2012", "VOCdevkit/VOC2012")  # where the folders may stand below root


class Voc(FileDataset):
    """JPEGImages, SegmentationClass, SegmentationObject, and the splits in ImageSets/Segmentation/<split>.txt.

    Masks are what dataset=folder reads: palette images, as VOC's own, or those in the classes' colours, as labelling
    tools export them.

    Source: Everingham et al., "The PASCAL visual object classes challenge: a retrospective" (IJCV 2015).

    The arguments are described in conf/dataset/voc.yaml; `split` is the name of a list, "train", "val", "trainval" or
    your own. With targets_only the images may be missing.
    """

    def __init__(self, split: str, root: str | None = None, classes: str | None = None,
                 masks: str = "SegmentationClass", objects: str | None = "SegmentationObject",
                 skip_without_mask: bool = False, void: list[int | str | list[int]] | Literal["rest"] | None = None,
                 binary: bool = False, threshold: int | None = None, nearest_colors: bool | int = False,
                 palette: str | None = None, missing_mask: str = "error", download: bool = False,
                 targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder VOC2012 or one with JPEGImages and SegmentationClass, "
                            "dataset.root=/data/VOCdevkit/VOC2012")
        if missing_mask not in ("error", "background"):
            raise UserError(f"dataset.missing_mask={missing_mask} is unknown: use error or background.")
        if download:
            fetch(root, VOC_2012)
        base = _find_base(Path(root).expanduser(), masks, masks if targets_only else "JPEGImages")
        self._tables = [] if classes is None else [Path(root).expanduser() / classes]
        table = Classes(VOC, True) if classes is None else read_class_file(self._tables[0])
        usual: Void = void
        if void is None and not binary and threshold is None:
            usual = [IGNORE_INDEX, to_hex(BORDER_COLOR)]
        rule = make_mask_rule(table, usual, binary=binary, threshold=threshold, nearest_colors=nearest_colors,
                              palette=palette)
        self._rule = replace(rule, void_given=void is not None)
        self.labels = self._rule.labels
        self.prediction_palette = make_mask_palette(self.labels)
        self._warnings = _warn_of_first_class(classes, self.labels)
        path = base / "ImageSets" / "Segmentation" / f"{split}.txt"
        found_masks = find_by_name(base / masks, "dataset.masks")
        found_images = {} if targets_only else find_by_name(base / "JPEGImages", "dataset.root")
        names = _read_split(path, split, {**found_masks, **found_images}.keys())
        images = dict(zip(names, [base / "JPEGImages" / f"{name}.jpg" for name in names] if targets_only
                          else _find_listed(names, found_images, base / "JPEGImages", path), strict=True))
        if skip_without_mask:
            images, self.without_mask = leave_out(images, found_masks)
        self.names, self.images = list(images), list(images.values())
        self._unmasked: set[Path] = set()
        if missing_mask == "background":
            absent = {name: base / masks / f"{name}.png" for name in names if name not in found_masks}
            found_masks, self._unmasked = found_masks | absent, set(absent.values())
        self._background = next((label.train_id for label in self.labels if label.name.lower() == "background"), 0)
        self.masks = _find_listed(self.names, found_masks, base / masks, path)
        found = find_by_name(base / objects, "dataset.objects") if objects and (base / objects).is_dir() else {}
        self._objects = [found.get(name) for name in self.names]

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        mask = self.masks[index]
        if mask in self._unmasked:
            width, height = read_size(self.images[index])
            return np.full((height, width), self._background, np.uint8), None
        return read_objects(read_target(mask, self._rule), mask, self._objects[index], IGNORE_INDEX, BORDER_COLOR)

    def list_sources(self, index: int) -> list[Path]:
        objects = self._objects[index]
        return [*self.paths(index), *self._tables, *([] if objects is None else [objects])]

    def remarks(self) -> list[str]:
        return [*super().remarks(), *self._rule.remarks(), *self._warnings]


def _warn_of_first_class(classes: str | None, labels: Sequence[Label]) -> list[str]:
    """Warn of a label map in which a label took the place of the background, as of a CVAT export."""
    if classes is None or not classes.endswith("labelmap.txt") or labels[0].name.lower() == "background" or any(
            label.color == (0, 0, 0) for label in labels):
        return []
    return [f"the first class of {classes} is {labels[0].name}, and none is black: where a label sorts before "
            "background, CVAT gives unlabelled pixels its colour; look whether they are mixed up."]


def _find_base(root: Path, masks: str, sign: str) -> Path:
    for inner in INSIDE:
        if (root / inner / sign).is_dir():
            if not (root / inner / masks).is_dir():
                raise UserError(f"{root / inner / masks} is not a folder: check dataset.root and dataset.masks.")
            return root / inner
    raise UserError(f"{root / sign} is not a folder, and there is none in {' or '.join(INSIDE[1:])}: "
                    "check dataset.root, or fetch VOC 2012 into a new folder with dataset.download=true.")


def make_mask_palette(labels: Sequence[Label]) -> list[tuple[int, int, int]]:
    """Return the colours of the values 0..255 of a mask: those of the classes and of the seam, black between them."""
    colors = [(0, 0, 0)] * IGNORE_INDEX + [BORDER_COLOR]
    colors[:len(labels)] = [label.color for label in labels]
    return colors


def _read_split(path: Path, split: str, known: Collection[str]) -> list[str]:
    """Read the names of a split, one a line; what follows on its line is left alone, unless it is part of the name."""
    folder = path.parent
    if not path.is_file():
        found = sorted(file.stem for file in folder.glob("*.txt")) if folder.is_dir() else []
        raise UserError(f"dataset.split={split}: {path} is not there; {folder} lists the splits "
                        f"{', '.join(found) or '(none)'}.{did_you_mean(split, found)}")
    names = [line.strip() if line.strip() in known else line.split()[0]
             for _, line in read_lines(path, "dataset.split")]
    if not names:
        raise UserError(f"{path} lists no name: the split is empty.")
    outside = next((name for name in names if ".." in Path(name).parts or Path(name).is_absolute()
                    or not name.isprintable()), None)
    if outside is not None:
        raise UserError(f"{path} lists {outside}, which leads out of the dataset or is not plain text: correct it.")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        more = f", and {len(doubled) - 1} other names, too" if len(doubled) > 1 else ""
        raise UserError(f"{path} lists {doubled[0]} twice{more}: keep one of them.")
    return names


def _find_listed(names: list[str], found: dict[str, Path], folder: Path, path: Path) -> list[Path]:
    """Return the image of each name, out of those found in a folder, in any format."""
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{len(missing)} of the {len(names)} names in {path} have no image in {folder}, the first is "
                        f"{missing[0]}: add {folder / missing[0]}.png or .jpg, or remove the name from the list.",
                        [str(folder / name) for name in missing])
    return [found[name] for name in names]
