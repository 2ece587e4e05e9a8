"""PASCAL VOC 2012, and trees of one's own in its shape."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segtrain.data.base import Dataset, Sample
from segtrain.data.class_files import Classes, read_class_file
from segtrain.data.color_masks import Color, spelled
from segtrain.data.discovery import find_by_name, read_lines
from segtrain.data.download import Source, fetch
from segtrain.data.images import check_sizes, read_image
from segtrain.data.masks import mask_rule, read_instances, read_target
from segtrain.errors import UserError, did_you_mean
from segtrain.labels import IGNORE_INDEX, Label

# The classes of PASCAL VOC (Everingham et al., "The PASCAL visual object classes challenge", 2015) and its palette.
VOC = (
    Label("background", 0, 0, (0, 0, 0)),
    Label("aeroplane", 1, 1, (128, 0, 0), has_instances=True),
    Label("bicycle", 2, 2, (0, 128, 0), has_instances=True),
    Label("bird", 3, 3, (128, 128, 0), has_instances=True),
    Label("boat", 4, 4, (0, 0, 128), has_instances=True),
    Label("bottle", 5, 5, (128, 0, 128), has_instances=True),
    Label("bus", 6, 6, (0, 128, 128), has_instances=True),
    Label("car", 7, 7, (128, 128, 128), has_instances=True),
    Label("cat", 8, 8, (64, 0, 0), has_instances=True),
    Label("chair", 9, 9, (192, 0, 0), has_instances=True),
    Label("cow", 10, 10, (64, 128, 0), has_instances=True),
    Label("diningtable", 11, 11, (192, 128, 0), has_instances=True),
    Label("dog", 12, 12, (64, 0, 128), has_instances=True),
    Label("horse", 13, 13, (192, 0, 128), has_instances=True),
    Label("motorbike", 14, 14, (64, 128, 128), has_instances=True),
    Label("person", 15, 15, (192, 128, 128), has_instances=True),
    Label("pottedplant", 16, 16, (0, 64, 0), has_instances=True),
    Label("sheep", 17, 17, (128, 64, 0), has_instances=True),
    Label("sofa", 18, 18, (0, 192, 0), has_instances=True),
    Label("train", 19, 19, (128, 192, 0), has_instances=True),
    Label("tvmonitor", 20, 20, (0, 64, 128), has_instances=True),
)

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


class Voc(Dataset):
    """JPEGImages, SegmentationClass, SegmentationObject, and the splits in ImageSets/Segmentation/<split>.txt.

    Masks are what dataset=folder reads: palette images, as VOC's own, or those in the classes' colours, as labelling
    tools export them.

    Source: Everingham et al., "The PASCAL visual object classes challenge: a retrospective" (IJCV 2015).

    Args:
        split: The name of a list in ImageSets/Segmentation: "train", "val", "trainval" or one's own.
        root: VOCdevkit's folder, VOCdevkit, or the folder VOC2012 itself.
        classes: A class file relative to root, as for dataset=folder; None: VOC's 21 classes.
        masks: The folder of the masks.
        objects: The folder of the maps of single objects, where there are any; None: they are not read.
        void: As for dataset=folder; None: 255 and #e0e0c0, nothing with binary or threshold.
        binary: As for dataset=folder.
        threshold: Likewise.
        nearest_colors: Likewise.
        palette: Likewise.
        download: Whether to fetch VOC 2012 if root is missing or empty.
        targets_only: Whether the images may be missing.
    """

    def __init__(self, split: str, root: str | None = None, classes: str | None = None,
                 masks: str = "SegmentationClass", objects: str | None = "SegmentationObject",
                 void: list[int | str | list[int]] | None = None, binary: bool = False, threshold: int | None = None,
                 nearest_colors: bool | int = False, palette: str | None = None, download: bool = False,
                 targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder VOC2012 or one with JPEGImages and SegmentationClass, "
                            "dataset.root=/data/VOCdevkit/VOC2012")
        if download:
            fetch(root, VOC_2012)
        base = _base(Path(root).expanduser(), masks, masks if targets_only else "JPEGImages")
        table = Classes(VOC, True) if classes is None else read_class_file(Path(root).expanduser() / classes)
        usual = void
        if void is None and not binary and threshold is None:
            usual = [IGNORE_INDEX, spelled(BORDER_COLOR)]
        rule = mask_rule(table, usual, binary=binary, threshold=threshold, nearest_colors=nearest_colors,
                         palette=palette)
        self._rule = replace(rule, void_given=void is not None)
        self.labels = self._rule.labels
        self.prediction_palette = mask_palette(self.labels)
        path = base / "ImageSets" / "Segmentation" / f"{split}.txt"
        self.names = _read_split(path, split)
        self._images = ([base / "JPEGImages" / f"{name}.jpg" for name in self.names] if targets_only
                        else _listed(self.names, base / "JPEGImages", path))
        self._masks = _listed(self.names, base / masks, path)
        found = find_by_name(base / objects, "dataset.objects") if objects and (base / objects).is_dir() else {}
        self._objects = [found.get(name) for name in self.names]

    def read(self, index: int) -> Sample:
        image, (target, instances) = read_image(self._images[index]), self.read_target(index)
        check_sizes(image, self._images[index], target, self._masks[index])
        return Sample(image, target, instances)

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        mask_path, objects_path = self._masks[index], self._objects[index]
        target = read_target(mask_path, self._rule)
        if objects_path is None:
            return target, None
        instances = read_instances(objects_path, IGNORE_INDEX, BORDER_COLOR)
        check_sizes(target, mask_path, instances, objects_path, "map of objects")
        return target, instances

    def paths(self, index: int) -> tuple[Path, Path | None]:
        return self._images[index], self._masks[index]


def _base(root: Path, masks: str, sign: str) -> Path:
    for inner in INSIDE:
        if (root / inner / sign).is_dir():
            if not (root / inner / masks).is_dir():
                raise UserError(f"{root / inner / masks} is not a folder: check dataset.root and dataset.masks.")
            return root / inner
    raise UserError(f"{root / sign} is not a folder, and there is none in {' or '.join(INSIDE[1:])}: "
                    "check dataset.root, or fetch VOC 2012 into a new folder with dataset.download=true.")


def mask_palette(labels: Sequence[Label]) -> list[tuple[int, int, int]]:
    """Return the colours of the values 0..255 of a mask: those of the classes and of the seam, black between them."""
    colors = [(0, 0, 0)] * IGNORE_INDEX + [BORDER_COLOR]
    colors[:len(labels)] = [label.color for label in labels]
    return colors


def _read_split(path: Path, split: str) -> list[str]:
    """Read the names of a split, one a line; what follows a name on its line is left alone."""
    folder = path.parent
    if not path.is_file():
        found = sorted(file.stem for file in folder.glob("*.txt")) if folder.is_dir() else []
        raise UserError(f"dataset.split={split}: {path} is not there; {folder} lists the splits "
                        f"{', '.join(found) or '(none)'}.{did_you_mean(split, found)}")
    names = [line.split()[0] for _, line in read_lines(path, "dataset.split")]
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


def _listed(names: list[str], folder: Path, path: Path) -> list[Path]:
    """Return the image of each name, of whatever kind.

    Raises:
        UserError: If some are not there; it names the first, and holds them all.
    """
    found = find_by_name(folder, "dataset.root")
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{len(missing)} of the {len(names)} names in {path} have no image in {folder}, the first is "
                        f"{missing[0]}: add {folder / missing[0]}.png or .jpg, or remove the name from the list.",
                        [str(folder / name) for name in missing])
    return [found[name] for name in names]
