"""PASCAL VOC 2012, and trees of one's own in its shape."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtrain.datasets import sources
from segtrain.datasets.base import Sample
from segtrain.datasets.classes import read_classes
from segtrain.datasets.colours import colours_to_train_ids, pack, read_either
from segtrain.datasets.pictures import PICTURE_SUFFIXES, read_image, to_train_ids
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, VOC
from segtrain.suggest import nearest

BORDER_COLOR = (224, 224, 192)  # of the index 255 in VOC's palette: the void seam around objects
INSIDE = ("", "VOC2012", "VOCdevkit/VOC2012")  # where the folders may stand below root


class Voc:
    """JPEGImages, SegmentationClass, SegmentationObject, and the splits in ImageSets/Segmentation/<split>.txt.

    Masks are palette pictures or pictures in the classes' colours, as labelling tools export them.

    Source: Everingham et al., "The PASCAL visual object classes challenge: a retrospective" (IJCV 2015).

    Args:
        split: The name of a list in ImageSets/Segmentation: "train", "val", "trainval" or one's own.
        root: VOCdevkit's folder, VOCdevkit, or the folder VOC2012 itself.
        classes: A class file relative to root, as for dataset=folder; None: VOC's 21 classes.
        masks: The folder of the masks.
        objects: The folder of the maps of single objects, where there are any; None: they are not read.
        download: Whether to fetch VOC 2012 if root is missing or empty.
    """

    def __init__(self, split: str, root: str | None = None, classes: str | None = None,
                 masks: str = "SegmentationClass", objects: str | None = "SegmentationObject",
                 download: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder VOC2012 or one with JPEGImages and SegmentationClass, "
                            "dataset.root=/data/VOCdevkit/VOC2012")
        if download:
            sources.ensure(root, sources.VOC)
        base = _base(Path(root).expanduser(), masks)
        self.labels = VOC if classes is None else read_classes(Path(root).expanduser() / classes)
        self.names = _read_split(base / "ImageSets" / "Segmentation", split)
        self._images = [_picture(base / "JPEGImages", name, split) for name in self.names]
        self._masks = [_picture(base / masks, name, split) for name in self.names]
        self._objects = base / objects if objects is not None else None

    def read(self, index: int) -> Sample:
        image, mask = read_image(self._images[index]), read_either(self._masks[index])
        _check_size(mask, self._masks[index], image)
        if mask.ndim == 3:
            target = colours_to_train_ids(mask, self.labels, [BORDER_COLOR], self._masks[index])
        else:
            target = to_train_ids(mask, self.labels, [IGNORE_INDEX], self._masks[index])
        return Sample(image, target, self._read_instances(index, image))

    def _read_instances(self, index: int, image: np.ndarray) -> np.ndarray | None:
        """Read the map of single objects: a number or a colour for each, black where there is none."""
        path = _find(self._objects, self.names[index]) if self._objects is not None else None
        if path is None:
            return None
        found = read_either(path)
        _check_size(found, path, image)
        if found.ndim == 2:
            return np.where(found == IGNORE_INDEX, 0, found).astype(np.int32)
        packed = pack(found)
        packed[(found == BORDER_COLOR).all(-1)] = 0
        colors, places = np.unique(packed, return_inverse=True)  # small numbers: whoever counts makes room for all
        return (places.reshape(packed.shape) + (colors[0] != 0)).astype(np.int32)

    def files(self, index: int) -> str:
        return str(self._masks[index])

    def paths(self, index: int) -> tuple[Path, Path | None]:
        return self._images[index], self._masks[index]


def _base(root: Path, masks: str) -> Path:
    for inner in INSIDE:
        if (root / inner / "JPEGImages").is_dir():
            if not (root / inner / masks).is_dir():
                raise UserError(f"{root / inner / masks} is not a folder: check dataset.root and dataset.masks.")
            return root / inner
    raise UserError(f"{root / 'JPEGImages'} is not a folder, and there is none in {' or '.join(INSIDE[1:])}: "
                    "check dataset.root, or fetch VOC 2012 into a new folder with dataset.download=true.")


def _read_split(folder: Path, split: str) -> list[str]:
    """Read the names of a split, one a line; what follows a name on its line is left alone."""
    path = folder / f"{split}.txt"
    if not path.is_file():
        found = sorted(each.stem for each in folder.glob("*.txt")) if folder.is_dir() else []
        raise UserError(f"dataset.split={split}: {path} is not there; {folder} lists the splits "
                        f"{', '.join(found) or '(none)'}.{nearest(split, found)}")
    try:
        names = [line.split()[0] for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): it must list the names of the split, one a line.") from error
    if not names:
        raise UserError(f"{path} lists no name: the split is empty.")
    for name in names:
        if ".." in Path(name).parts or Path(name).is_absolute() or not name.isprintable():
            raise UserError(f"{path} lists {name}, which leads out of the dataset or is no plain text: correct the "
                            "list.")
    doubled = _first_doubled(names)
    if doubled is not None:
        raise UserError(f"{path} lists {doubled} twice: keep one of them.")
    return names


def _first_doubled(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _picture(folder: Path, name: str, split: str) -> Path:
    found = _find(folder, name)
    if found is None:
        raise UserError(f"{folder / name}.* is not there, but ImageSets/Segmentation/{split}.txt lists {name}: "
                        f"add it, or remove {name} from the list.")
    return found


def _find(folder: Path, name: str) -> Path | None:
    """Return the picture of that name, of whatever kind; .png and .jpg are tried first."""
    endings = sorted(PICTURE_SUFFIXES, key=lambda ending: ending not in (".png", ".jpg"))
    return next((path for ending in endings if (path := folder / f"{name}{ending}").is_file()), None)


def _check_size(mask: np.ndarray, path: Path, image: np.ndarray) -> None:
    if mask.shape[:2] != image.shape[:2]:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape[:2]
        raise UserError(f"{path} is {mask_width}x{mask_height}, but its image is {width}x{height}: "
                        "save it at the image's size.")
