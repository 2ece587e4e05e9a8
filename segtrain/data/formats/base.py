"""A dataset of images with annotation files: what all formats share. A subclass in a file of its own reads one."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segtrain.data.base import Dataset, Sample, make_sample
from segtrain.data.checks import LISTED, READ, WARNED, check
from segtrain.data.class_files import read_class_file
from segtrain.data.formats import cache
from segtrain.data.formats.files import check_size, match_images, name_images, refuse_malformed
from segtrain.data.formats.regions import Line, Polygon, Region, draw_regions, hash_regions
from segtrain.data.image_form import ImageForm, read_shape
from segtrain.data.splits import split_off
from segtrain.errors import UserError, did_you_mean, list_first, unknown_class
from segtrain.labels import IGNORE_INDEX, Label, make_up_color

BACKGROUND = ("background", "_background_", "bg")  # what classes are called that are drawn first
MOST_PIXELS = 2**28  # of an image that is drawn: more than Pillow opens
VAL_FRACTION = 0.2  # where the files do not tell the splits, and no share is set
OVERLAPS = ("order", "area", "void")


class WrongSizeError(Exception):
    """The annotation of an image is for one of another width and height."""

    def __init__(self, said: tuple[int, int]) -> None:
        super().__init__(said)
        self.said = said


class Kind(NamedTuple):
    """A class as an annotation file lists it."""

    name: str
    color: tuple[int, int, int] | None = None
    has_instances: bool = True


@dataclass(frozen=True)
class Record:
    """One annotated image.

    Attributes:
        image: The image as its annotation names it, cleaned, with its folder if that is known.
        source: The annotation file.
        size: Width and height that the annotation says; None if it does not.
        content: What the format's `list_regions` makes the regions of.
    """

    image: str
    source: Path
    size: tuple[int, int] | None
    content: Any


@dataclass
class Found:
    """What a format's files hold of a split.

    Attributes:
        kinds: The classes in the order of their train ids.
        records: The images.
        folder: Where the images are.
        has_splits: Whether the files tell the splits, so that `records` are those of one.
        remarks: What the user should know.
        void: Labels that mean void.
    """

    kinds: list[Kind]
    records: list[Record]
    folder: Path
    has_splits: bool = True
    remarks: list[str] = field(default_factory=list)
    void: tuple[str, ...] = ()


class Annotated(Dataset):
    """Images whose labels are shapes in annotation files, drawn when they are read and kept in a cache of the user.

    Coordinates are continuous, and filled by the COCO rule; see docs/how-to/annotations.md. The arguments are described
    in conf/dataset/coco.yaml; `split` is a split of the files, or of dataset.val_fraction, or "all" where they have
    none. With targets_only the images may be missing where the annotations give their sizes.

    Attributes:
        what: What the files are called in messages.
        overlap: Which of several regions counts, unless dataset.overlap says so.
        pixels: Whether the numbers of polygons are pixels, unless dataset.polygons says so.
        unused: Arguments that mean nothing to the format.
    """

    what = ""
    overlap = "order"
    pixels = False
    unused: tuple[str, ...] = ("attribute", "crowd")

    def __init__(self, split: str, root: str | None = None, annotations: str | None = None, images: str | None = None,
                 classes: str | None = None, void: list[str] | None = None, background: str = "class",
                 overlap: str | None = None, polygons: str | None = None, crowd: str = "class",
                 line_width: float | None = None, attribute: str | None = None, image_bits: int | None = None,
                 val_fraction: float | None = None, test_fraction: float | None = None, group: str | None = None,
                 split_seed: int = 0, targets_only: bool = False, with_instances: bool = True) -> None:
        if root is None:
            raise UserError(f"dataset.root is needed: the folder that holds the images and the {self.what}, "
                            "dataset.root=/data/mine")
        for key, value, allowed in (("background", background, ("class", "void")), ("crowd", crowd, ("class", "void")),
                                    ("overlap", overlap, (*OVERLAPS, None)),
                                    ("polygons", polygons, ("areas", "pixels", None))):
            if value not in allowed:
                raise UserError(f"dataset.{key}={value} is unknown: use one of "
                                f"{', '.join(str(word or 'null') for word in allowed)}.")
        optional = {"annotations": annotations, "images": images, "overlap": overlap, "polygons": polygons,
                    "line_width": line_width, "attribute": attribute, "crowd": None if crowd == "class" else crowd}
        for key in self.unused:
            if optional[key] is not None:
                raise UserError(f"dataset.{key} means nothing to {self.what}: leave it out.")
        if line_width is not None and not 0 < line_width <= 1000:
            raise UserError(f"dataset.line_width={line_width} must be a number of pixels above 0, or null.")
        self.base = Path(root).expanduser()
        if not self.base.is_dir():
            raise UserError(f"{self.base} is not a folder: check dataset.root.")
        if val_fraction is not None and not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction={val_fraction} must be between 0 and 1")
        if test_fraction is not None and not 0 < test_fraction < 1 - (val_fraction or VAL_FRACTION):
            raise ValueError(f"test_fraction={test_fraction} must be above 0, and leave a share for train")
        self.annotations_at, self.images_at, self.attribute = annotations, images, attribute
        self.line_width, self.form = line_width, ImageForm(bits=image_bits)
        self._crowd_is_void, self._with_instances = crowd == "void", with_instances
        self._overlap = overlap or self.overlap
        self._pixels = self.pixels if polygons is None else polygons == "pixels"
        self._notes: dict[str, dict[str, str]] = {}  # by their kind and image: what was seen
        of_all = val_fraction is not None or split == "all"
        with refuse_malformed(self.base, f"folders with {self.what}"):
            found = self.find(None if of_all else split)
        found.has_splits = found.has_splits and not of_all
        self._remarks = list(found.remarks)
        class_file = None if classes is None else self.base / classes
        self.tables = [] if class_file is None else [class_file]  # files that say what labels mean
        self._fill, self.labels = _make_labels(found, class_file, void or (), background)
        self._train_ids = {label.name: label.train_id for label in self.labels}
        self._train_ids |= dict.fromkeys((*(void or ()), *found.void), IGNORE_INDEX)
        if not found.records:
            raise UserError(f"{self.base} holds no annotated image for the split {split}: check dataset.root and "
                            "dataset.split.")
        paths, unlisted = match_images([record.image for record in found.records], found.folder,
                                       found.records[0].source, may_be_missing=targets_only)
        names = name_images(paths, found.folder)
        order = sorted(range(len(names)), key=names.__getitem__)
        if not found.has_splits:
            order = self._split(names, order, split, val_fraction, test_fraction, group, split_seed)
            if unlisted:
                self._remarks.append(f"{unlisted} images below {found.folder} are in no annotation and left out.")
        self.names = [names[place] for place in order]
        self.images = [paths[place] for place in order]
        self.records = [found.records[place] for place in order]
        background_ids = {label.train_id for label in self.labels if not label.has_instances}
        self._without_instances = frozenset(background_ids)

    def _split(self, names: list[str], order: list[int], split: str, val_fraction: float | None,
               test_fraction: float | None, group: str | None, seed: int) -> list[int]:
        """Return the places of a split that the files do not tell."""
        if split == "all":
            return order
        share = val_fraction or VAL_FRACTION
        if val_fraction is None:
            self._remarks.append(f"the annotations tell no splits, so {share:.0%} of the images, drawn at random, are "
                                 "val: dataset.val_fraction sets the share.")
        if group is None:
            self._remarks.append("a random split without dataset.group: where several images show one place, as the "
                                 "frames of a video do, near-duplicates stand in several splits, and the scores are "
                                 "too good.")
        kept = set(split_off(names, split, share, test_fraction, group=group, seed=seed))
        return [place for place in order if names[place] in kept]

    @abstractmethod
    def find(self, split: str | None) -> Found:
        """Find the classes and the images of a split; of all splits with None, or where the files have none."""

    @abstractmethod
    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        """Return the regions of an image, in their order, given its width and height.

        Raises:
            UserError: If a region is at fault; it names the file, the place and the remedy.
            WrongSizeError: If they are for an image of another size.
        """

    def note(self, kind: str, record: Record, text: str) -> None:
        """Keep something to remark of an image; of a kind, the first is told, and how many images show it."""
        self._notes.setdefault(kind, {}).setdefault(f"{record.source}/{record.image}", text)

    def make_line(self, points: np.ndarray, record: Record, where: str, what: str, *,
                  is_points: bool = False) -> Line | None:
        """Return a line or points with the width that dataset.line_width gives; else note that it is left out."""
        if self.line_width is not None:
            return Line(points, self.line_width, is_points)
        self.note("line", record, f"{where} is a {what}, which has no area and is not drawn: set dataset.line_width to "
                  "draw lines and points with so many pixels.")
        return None

    def read(self, index: int) -> Sample:
        pixels = self._read_image(index, self.images[index])
        size = (pixels.image.shape[1], pixels.image.shape[0])
        record = self.records[index]
        if record.size is not None:
            check_size(self.images[index], size, record.size, str(record.source))
        return make_sample(pixels, *self._draw(index, size))

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        return self._draw(index, self.records[index].size or read_shape(self.images[index])[::-1])

    def _draw(self, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        record = self.records[index]
        if not all(type(side) is int and side > 0 for side in size) or size[0] * size[1] > MOST_PIXELS:
            raise UserError(f"{record.source} says that {record.image} is {size[0]}x{size[1]}, which is no size that "
                            "can be drawn: correct it, or cut the image into tiles.")
        try:
            with refuse_malformed(f"{record.source}, {record.image},", self.what):
                regions = self.list_regions(record, size)
        except WrongSizeError as error:
            check_size(self.images[index], size, error.said, str(record.source))
            raise
        for region in regions:
            self._train_id_of(region)  # refuses an unknown class, drawn or not
        self._note_coordinates(regions, record, size)
        settings = (size, self._fill, self._overlap, self._pixels, self._crowd_is_void, self._with_instances,
                    tuple(self._train_ids.items()), tuple(sorted(self._without_instances)))
        key = hash_regions(regions, settings)
        drawn = cache.load(key, size, len(self.labels), len(regions))
        if drawn is None:
            drawn = draw_regions(regions, size, train_ids=self._train_id_of, fill=self._fill, overlap=self._overlap,
                                 pixels=self._pixels, without_instances=self._without_instances,
                                 with_instances=self._with_instances)
            cache.save(key, drawn)
        if drawn.buried:
            self.note("buried", record, f"{regions[drawn.buried[0]].where} is not seen, since later regions cover it; "
                      f"so it is with {len(drawn.buried)} of {len(regions)} regions of this image: dataset."
                      "overlap=area draws smaller ones on top.")
        return drawn.target, drawn.objects if self._with_instances else None

    @check(READ, "labels of regions that are no class")
    def _train_id_of(self, region: Region) -> int:
        train_id = self._train_ids.get(region.label)
        if train_id is None:
            names = [label.name for label in self.labels]
            raise UserError(f"{region.where}: the label {region.label!r} is not a class; the classes are "
                            f"{list_first(names, 20)}.{did_you_mean(region.label, names)} Correct it, or leave the "
                            f"label out as void, dataset.void=[\"{region.label}\"].")
        return IGNORE_INDEX if region.is_crowd and self._crowd_is_void else train_id

    @check(READ, "regions outside of their image, with normalised coordinates, without an area, or buried", then=WARNED)
    def _note_coordinates(self, regions: list[Region], record: Record, size: tuple[int, int]) -> None:
        """Note polygons that draw nothing because their numbers are of another size or kind."""
        found = [(region, ring) for region in regions if isinstance(region.shape, Polygon)
                 for ring in region.shape.rings]
        if not found:
            return
        points = np.concatenate([ring for _, ring in found])
        starts = np.cumsum([0, *(len(ring) for _, ring in found[:-1])])
        low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
        outside = np.asarray((high < 0).any(1) | (low > size).any(1))
        normalised = (low.min(1) >= 0) & (high.max(1) <= 1) & (min(size) > 2)
        for place in np.flatnonzero(outside | normalised).tolist():
            where, (left, top), (right, bottom) = found[place][0].where, low[place], high[place]
            if outside[place]:
                self.note("outside", record, f"{where} lies outside of the image of {size[0]}x{size[1]}, from "
                          f"({left:g}, {top:g}) to ({right:g}, {bottom:g}): look whether it belongs to this image.")
            else:
                self.note("normalised", record, f"{where} has coordinates in 0..1 alone, as if they were normalised, "
                          f"but they are pixels of an image of {size[0]}x{size[1]}: export it again in pixels.")

    def paths(self, index: int) -> tuple[Path | None, Path | None]:
        return self.images[index], None

    def list_sources(self, index: int) -> list[Path]:
        return [self.images[index], self.records[index].source, *self.tables]

    def remarks(self) -> list[str]:
        """Return what the user should know of the files, and of the regions that were read."""
        told = [next(iter(of_kind.values())) + (f" So it is in {len(of_kind)} images." if len(of_kind) > 1 else "")
                for of_kind in map(dict, self._notes.values())]
        return [*self._remarks, *told]


@check(LISTED, "annotation files with a class twice, or fewer than two")
def _make_labels(found: Found, class_file: Path | None, void: Sequence[str],
                 background: str) -> tuple[int, tuple[Label, ...]]:
    """Return the train id where nothing is drawn, and the classes: the background first, the others in their order."""
    kinds = found.kinds
    if class_file is not None:
        listed = read_class_file(class_file)
        told = {kind.name: kind for kind in kinds}
        kinds = [Kind(label.name, label.color if listed.has_colors else None,
                      label.has_instances or told.get(label.name, Kind("")).has_instances) for label in listed.labels]
    names = [kind.name for kind in kinds]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError(f"{found.records[0].source if found.records else found.folder} lists two classes of the name "
                        f"{doubled}: join them, or rename one.")
    unclear = next((name for name in names if not name.strip() or not name.isprintable()), None)
    if unclear is not None:
        raise UserError(f"{found.folder} has a class whose name is not plain text ({unclear!r}): rename it.")
    for name in void:
        if name not in names and name not in found.void and class_file is None:
            raise unknown_class("dataset.void", name, names)
    kinds = [kind for kind in kinds if kind.name not in (*void, *found.void)]
    own = next((kind for kind in kinds if kind.name.lower() in BACKGROUND), None)
    first = Kind("background", (0, 0, 0)) if own is None else own
    if background == "class":
        kinds = [first._replace(has_instances=False), *(kind for kind in kinds if kind is not own)]
    if len(kinds) > IGNORE_INDEX:
        raise UserError(f"{found.folder} has {len(kinds)} classes: a network is trained for at most {IGNORE_INDEX}.")
    if len(kinds) < 2:
        raise UserError(f"{found.folder} has {len(kinds)} classes, so there is nothing to tell apart: check "
                        "dataset.classes, dataset.void and dataset.background.")
    labels = tuple(Label(kind.name, train_id, train_id, kind.color or make_up_color(train_id, kind.name),
                         kind.has_instances)
                   for train_id, kind in enumerate(kinds))
    return 0 if background == "class" else IGNORE_INDEX, labels
