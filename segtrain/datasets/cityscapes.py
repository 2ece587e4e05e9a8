"""Cityscapes: fine annotations of street scenes in 50 cities."""

from pathlib import Path

import numpy as np

from segtrain.datasets.base import Sample
from segtrain.datasets.cityscapes_polygons import PER_CLASS, read_instance_ids, rendered
from segtrain.datasets.pairs import has_pictures
from segtrain.datasets.pictures import check_sizes, read_image, read_mask, to_train_ids
from segtrain.errors import UserError
from segtrain.labels import CITYSCAPES, CITYSCAPES_LABELS, CITYSCAPES_SIZES, IGNORE_INDEX
from segtrain.suggest import nearest

IMAGE_ENDING = "_leftImg8bit.png"
LABEL_ENDINGS = ("_gtFine_labelIds.png", "_gtFine_polygons.json")
VOID_IDS = [label.label_id for label in CITYSCAPES_LABELS if label.train_id == IGNORE_INDEX and label.label_id >= 0]


class Cityscapes:
    """leftImg8bit/<split>/<city>/*_leftImg8bit.png with gtFine/<split>/<city>/*_gtFine_{labelIds,instanceIds}.png.

    Where only *_gtFine_polygons.json is there, label and instance ids are drawn from it once, into a cache of the user.
    A copy of some cities is as good as a whole one. Images of the split test may go without a label; they are void.

    Source: Cordts et al., "The Cityscapes dataset for semantic urban scene understanding" (CVPR 2016).

    Args:
        split: "train", "val", "test", or another folder of leftImg8bit.
        root: The folder that holds leftImg8bit and gtFine.
        cities: Only these; None: all that are there.
        targets_only: Whether a split whose images are missing is made of its labels.
    """

    prediction_ending = "_pred_labelIds"  # as the official script's own examples; it asks for <name>*.png

    def __init__(self, split: str, root: str | None = None, cities: list[str] | None = None,
                 targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds Cityscapes' leftImg8bit and gtFine, "
                            "dataset.root=/data/cityscapes")
        base = Path(root).expanduser()
        self.labels = CITYSCAPES
        self.file_labels = tuple(label for label in CITYSCAPES_LABELS if label.label_id >= 0)
        self.class_sizes = {label.name: CITYSCAPES_SIZES[label.name] for label in CITYSCAPES if label.has_instances}
        labels = base / "gtFine" / split
        if targets_only and not has_pictures(base / "leftImg8bit" / split):
            self._images = _images_of_labels(_split_folder(base, split, "gtFine"), cities)
        else:
            folder = _split_folder(base, split, "leftImg8bit")
            self._images = [path for city in _cities(folder, cities) for path in sorted((folder / city).glob(
                f"*{IMAGE_ENDING}")) if not path.name.startswith(".")]
            if not self._images:
                raise UserError(f"{folder} holds no <city>/*{IMAGE_ENDING}: the split is empty; check dataset.root.")
        self.names = [path.name.removesuffix(IMAGE_ENDING) for path in self._images]
        self._stems = [labels / path.parent.name / f"{name}_gtFine_"
                       for path, name in zip(self._images, self.names, strict=True)]
        self._sources = [_first(stem, "labelIds.png", "polygons.json") for stem in self._stems]
        self._num_missing = self._sources.count(None)
        if self._num_missing and split != "test":
            first = self._sources.index(None)
            raise UserError(f"{self._num_missing} of {len(self.names)} images have no label, the first is "
                            f"{self._images[first]}: add {_join(self._stems[first], 'labelIds.png')} (or "
                            "*_polygons.json), or remove the image.",
                            [str(image) for image, source in zip(self._images, self._sources, strict=True)
                             if source is None])

    def read(self, index: int) -> Sample:
        source = self._sources[index]
        if source is None:
            image = read_image(self._images[index])
            return Sample(image, np.full(image.shape[:2], IGNORE_INDEX, dtype=np.uint8),
                          np.zeros(image.shape[:2], dtype=np.int32))
        image, target = read_image(self._images[index]), self._read_labels(source)
        check_sizes(image, self._images[index], target, source)
        return Sample(image, target, self._read_instances(index, target.shape))

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        source = self._sources[index]
        if source is None:
            raise UserError(f"{self._images[index]} has no label, so it cannot be scored: choose another "
                            "dataset.split, or remove it.")
        target = self._read_labels(source)
        return target, self._read_instances(index, target.shape)

    def _read_labels(self, source: Path) -> np.ndarray:
        mask = read_mask(rendered(source, "labelIds") if source.suffix == ".json" else source, CITYSCAPES_LABELS)
        return to_train_ids(mask, self.labels, VOID_IDS, source)

    def _read_instances(self, index: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """Read the map of the single objects; areas of several that could not be told apart get no number."""
        source = _first(self._stems[index], "instanceIds.png", "polygons.json")
        if source is None:
            return None
        ids = read_instance_ids(rendered(source, "instanceIds") if source.suffix == ".json" else source)
        if ids.shape != shape:
            raise UserError(f"{source} is {ids.shape[1]}x{ids.shape[0]} but its labels are {shape[1]}x{shape[0]}: "
                            "both must have one size.")
        ids[ids < PER_CLASS] = 0
        return ids

    def files(self, index: int) -> str:
        return str(self._sources[index] or self._images[index])

    def paths(self, index: int) -> tuple[Path, Path | None]:
        source = self._sources[index]
        return self._images[index], source if source is not None and source.suffix == ".png" else None

    def remarks(self) -> list[str]:
        """Return what the user should know: that images have no label."""
        if not self._num_missing:
            return []
        return [f"{self._num_missing} of {len(self.names)} images have no label: all their pixels are void."]


def _split_folder(base: Path, split: str, kind: str) -> Path:
    folder = base / kind
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: check dataset.root, which holds leftImg8bit and gtFine.")
    if not (folder / split).is_dir():
        raise UserError(f"dataset.split={split}: {folder / split} is not a folder; {folder} holds "
                        f"{', '.join(_folders(folder)) or 'none'}.")
    return folder / split


def _images_of_labels(folder: Path, cities: list[str] | None) -> list[Path]:
    """Return where the images of all labels of a split would be."""
    images = folder.parents[1] / "leftImg8bit" / folder.name
    names = {(city, path.name.removesuffix(ending)) for city in _cities(folder, cities) for ending in LABEL_ENDINGS
             for path in (folder / city).glob(f"*{ending}") if not path.name.startswith(".")}
    if not names:
        raise UserError(f"{folder} holds no <city>/*{LABEL_ENDINGS[0]}: the split is empty; check dataset.root.")
    return [images / city / f"{name}{IMAGE_ENDING}" for city, name in sorted(names)]


def _cities(folder: Path, cities: list[str] | None) -> list[str]:
    found = _folders(folder)
    if cities is None:
        return found
    if not cities:
        raise UserError("dataset.cities=[] leaves no city: name some, or use null for all.")
    for city in cities:
        if city not in found:
            raise UserError(f"dataset.cities: {folder / city} is not a folder; {folder} holds {len(found)} cities, "
                            f"{', '.join(found[:5])}{', ...' if len(found) > 5 else ''}.{nearest(city, found)}")
    return sorted(set(cities))


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _first(stem: Path, *endings: str) -> Path | None:
    """Return the first of these files that is there."""
    return next((path for path in (_join(stem, ending) for ending in endings) if path.is_file()), None)


def _join(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)
