"""Public datasets of images and masks, each with the layout, the values and the void of its own."""

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segtrain.data.base import FileDataset
from segtrain.data.cityscapes import CITYSCAPES, VOID_IDS
from segtrain.data.class_files import Classes, read_color
from segtrain.data.color_masks import Color, to_hex
from segtrain.data.discovery import find_by_name, find_partners
from segtrain.data.formats.benchmark_classes import COCO_STUFF, COCO_STUFF_UNUSED, PASCAL_CONTEXT, RUGD_SCENES
from segtrain.data.formats.files import as_list, find_split_folder, list_folders, load_json
from segtrain.data.images import check_sizes
from segtrain.data.lists import read_names
from segtrain.data.masks import MaskRule, make_mask_rule, read_instances, read_target
from segtrain.data.splits import split_off
from segtrain.errors import UserError, list_first
from segtrain.files import read_text
from segtrain.labels import IGNORE_INDEX, Label, make_up_color

OBJECTS_PER_CLASS = 256  # an instance map of KITTI and Vistas holds its class times this, plus a number
MAX_TABLE = 1_000_000  # bytes of a table of classes
Files = dict[str, Path]  # by the names of samples


class Benchmark(FileDataset):
    """What these datasets share; a subclass finds the files of a split, and says what the masks hold.

    The arguments are described in conf/dataset/ade20k.yaml and beside it. With targets_only the images may be missing.
    """

    layout = ""  # what a message says of the folders
    is_fixed = False  # whether names and numbers of the classes are the same in every copy

    def __init__(self, split: str, root: str | None = None, val_fraction: float | None = None, split_seed: int = 0,
                 targets_only: bool = False, with_instances: bool = True) -> None:
        if root is None:
            raise UserError(f"dataset.root is needed: the folder that holds {self.layout}, dataset.root=/data/x")
        self.base = Path(root).expanduser()
        if not self.base.is_dir():
            raise UserError(f"{self.base} is not a folder: check dataset.root.")
        self._share, self._seed = val_fraction, split_seed
        self._merged = np.arange(IGNORE_INDEX + 1, dtype=np.uint8)  # train ids of the rule's
        self._rule = self.make_rule()
        self.labels = self._rule.labels
        images, masks = self.find(split)
        if targets_only and not images:
            images = {name: mask.with_suffix(".jpg") for name, mask in masks.items()}
        if not images:
            raise UserError(f"{self.base} holds no image of the split {split}: it must hold {self.layout}.")
        partners = find_partners(images, masks, self.base)
        self.names = sorted(images)
        self.images, self.masks = [images[name] for name in self.names], partners
        self._objects = self.find_objects(split) if with_instances else {}

    def list_sources(self, index: int) -> list[Path] | None:
        objects = self._objects.get(self.names[index])
        return [*self.paths(index), *([] if objects is None else [objects])] if self.is_fixed else None

    @abstractmethod
    def make_rule(self) -> MaskRule:
        """Return how masks become train ids."""

    @abstractmethod
    def find(self, split: str) -> tuple[Files, Files]:
        """Return the images and the masks of a split."""

    def find_objects(self, split: str) -> Files:
        """Return the instance maps, where there are any."""
        return {}

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        path = self.masks[index]
        target = self._merged[read_target(path, self._rule)]
        found = self._objects.get(self.names[index])
        if found is None:
            return target, None
        objects = read_instances(found)
        check_sizes(target, path, objects, found, "instance map")
        is_object = np.zeros(IGNORE_INDEX + 1, bool)
        is_object[[label.train_id for label in self.labels if label.has_instances]] = True
        return target, np.where(is_object[target], objects, 0).astype(np.int32)

    def find_split(self, folder: Path, split: str) -> Path:
        """Return the folder of a split in a folder."""
        found = find_split_folder(folder, split)
        if found is None:
            raise UserError(f"dataset.split={split}: {folder} holds the folders "
                            f"{list_first([each.name for each in list_folders(folder)]) or '(none)'}; dataset.root "
                            f"must hold {self.layout}.")
        return found

    def share(self, names: Sequence[str], split: str, group: str | None = None) -> list[str]:
        """Return which names are in a split, where the dataset has none: by dataset.val_fraction, groups together."""
        if split == "all":
            return list(names)
        return split_off(names, split, self._share or 0.2, None, group=group, seed=self._seed)


def _find_files(folder: Path, targets: bool = False) -> Files:
    return find_by_name(folder, "dataset.root") if folder.is_dir() or targets else {}


def _find_below(base: Path, *names: str) -> Path:
    """Return a folder that holds some folders: the root, or the only one in it, as archives unpack."""
    return next((folder for folder in (base, *list_folders(base)) if all((folder / name).is_dir() for name in names)),
                base)


def _make_rule(rows: Sequence[tuple[str, int, Color | None, bool]], void: Sequence[int | str], *,
               by_color: bool = False) -> MaskRule:
    """Return the rule of classes given by name, value, colour and whether they have instances."""
    labels = tuple(Label(name, value, train_id, color or make_up_color(train_id, name), has_instances)
                   for train_id, (name, value, color, has_instances) in enumerate(rows))
    rule = make_mask_rule(Classes(labels, by_color), list(void), palette=None if by_color else "index")
    return replace(rule, void_given=True)


class Ade20k(Benchmark):
    """ADE20K's scene parsing: images/ and annotations/ with training/ and validation/, classes 1..150, 0 is void."""

    is_fixed = True
    layout = "images/, annotations/ and objectInfo150.txt of ADEChallengeData2016"

    def make_rule(self) -> MaskRule:
        self.base = _find_below(self.base, "images", "annotations")
        path = self.base / "objectInfo150.txt"
        text = read_text(path, MAX_TABLE, f"dataset.root must hold {self.layout}")
        rows = [line.split("\t") for line in text.splitlines()]
        found = [(row[-1].strip(), int(row[0]), None, False) for row in rows if row[0].strip().isdigit()]
        if not found:
            raise UserError(f"{path} lists no class, a number and tabs before its name: restore it.")
        return _make_rule(found, [0])

    def find(self, split: str) -> tuple[Files, Files]:
        masks = self.find_split(self.base / "annotations", split)
        return _find_files(self.base / "images" / masks.name), _find_files(masks)


class CocoStuff(Benchmark):
    """COCO-Stuff: annotations/train2017/*.png hold a category's id less 1, 171 of 182 are used, 255 is void.

    Source: Caesar et al., "COCO-Stuff: thing and stuff classes in context" (CVPR 2018).
    """

    is_fixed = True
    layout = "images/train2017 and annotations/train2017 (or stuffthingmaps/) of COCO-Stuff"

    def make_rule(self) -> MaskRule:
        return _make_rule([(name, value, None, value < 91) for value, name in enumerate(COCO_STUFF)
                           if value + 1 not in COCO_STUFF_UNUSED], [IGNORE_INDEX])

    def find(self, split: str) -> tuple[Files, Files]:
        places = ("annotations", "stuffthingmaps")
        folder = next((self.base / name for name in places if (self.base / name).is_dir()), self.base / places[0])
        masks = self.find_split(folder, split)
        return _find_files(next((each for each in (self.base / "images" / masks.name, self.base / masks.name)
                                 if each.is_dir()), self.base / "images" / masks.name)), _find_files(masks)


class Bdd100k(Benchmark):
    """BDD100K's 10k images: labels/sem_seg/masks/<split> hold the train ids of Cityscapes, 255 is void."""

    is_fixed = True
    layout = "images/10k and labels/sem_seg/masks of BDD100K"
    ending = "_train_id"  # of the masks of older releases

    def make_rule(self) -> MaskRule:
        return _make_rule([(label.name, label.train_id, label.color, False) for label in CITYSCAPES], [IGNORE_INDEX])

    def find(self, split: str) -> tuple[Files, Files]:
        places = ("labels/sem_seg/masks", "seg/labels")
        folder = next((self.base / name for name in places if (self.base / name).is_dir()), self.base / places[0])
        masks = self.find_split(folder, split)
        images = next((self.base / name for name in ("images/10k", "seg/images") if (self.base / name).is_dir()),
                      self.base / "images/10k")
        return _find_files(images / masks.name), {name.removesuffix(self.ending): path
                                                  for name, path in _find_files(masks).items()}


class Kitti(Benchmark):
    """KITTI's semantics: training/image_2 and training/semantic with the label ids of Cityscapes; no split val."""

    is_fixed = True
    layout = "training/image_2 and training/semantic of KITTI"

    def make_rule(self) -> MaskRule:
        rows = [(label.name, label.label_id, label.color, label.has_instances) for label in CITYSCAPES]
        return _make_rule(rows, VOID_IDS)

    def find(self, split: str) -> tuple[Files, Files]:
        masks = _find_files(self.base / "training" / "semantic", targets=True)
        names = self.share(sorted(masks), split)
        images = _find_files(self.base / "training" / "image_2")
        return {name: images[name] for name in names if name in images}, {name: masks[name] for name in names}

    def find_objects(self, split: str) -> Files:
        return _find_files(self.base / "training" / "instance")


class Vistas(Benchmark):
    """Mapillary Vistas, v2.0 or v1.2: palette masks whose index counts, classes in the order of config_v*.json.

    Source: Neuhold et al., "The Mapillary Vistas dataset for semantic understanding of street scenes" (ICCV 2017).
    """

    layout = "training/images, training/v2.0/labels and config_v2.0.json of Mapillary Vistas"

    def make_rule(self) -> MaskRule:
        found = sorted(self.base.glob("config*.json"))
        if not found:
            raise UserError(f"{self.base} holds no config_v2.0.json: dataset.root must hold {self.layout}.")
        path = found[-1]
        content = load_json(path)
        labels = as_list(content.get("labels")) if isinstance(content, dict) else []
        if not labels or not all(isinstance(label, dict) and label.get("name") for label in labels):
            raise UserError(f"{path} lists no labels with names: restore it.")
        self._version = path.stem.removeprefix("config").lstrip("_")
        shown = [str(label.get("readable") or label["name"]) for label in labels]
        rows = [(shown[value] if shown.count(shown[value]) == 1 else str(label["name"]), value,
                 read_color(label.get("color")), bool(label.get("instances")))
                for value, label in enumerate(labels) if label.get("evaluate", True)]
        return _make_rule(rows, [value for value, label in enumerate(labels) if not label.get("evaluate", True)])

    def find(self, split: str) -> tuple[Files, Files]:
        folder = self.find_split(self.base, split)
        return _find_files(folder / "images"), _find_files(self._find_kind(folder, "labels"))

    def find_objects(self, split: str) -> Files:
        return _find_files(self._find_kind(self.find_split(self.base, split), "instances"))

    def _find_kind(self, folder: Path, kind: str) -> Path:
        own = folder / self._version / kind
        return own if own.is_dir() else folder / kind


class Rugd(Benchmark):
    """RUGD: a folder for each scene, masks in colours, black is void; the scenes of its paper are the splits.

    Source: Wigness et al., "A RUGD dataset for autonomous navigation and visual perception in unstructured outdoor
    environments" (IROS 2019).
    """

    layout = "RUGD_frames-with-annotations/ and RUGD_annotations/ of RUGD"
    is_sequence = True

    def make_rule(self) -> MaskRule:
        path = self.base / "RUGD_annotations" / "RUGD_annotation-colormap.txt"
        text = read_text(path, MAX_TABLE, f"dataset.root must hold {self.layout}")
        lines = [line.split() for line in text.splitlines()]
        colors = {" ".join(line[1:-3]): read_color(" ".join(line[-3:])) for line in lines if len(line) >= 5}
        if not colors or None in colors.values():
            raise UserError(f"{path} does not list number, name and colour (1 dirt 108 64 20): restore it.")
        rows = [(name, value, color, False) for value, (name, color) in enumerate(colors.items()) if name != "void"]
        return _make_rule(rows, [to_hex(colors.get("void") or (0, 0, 0))], by_color=True)

    def find(self, split: str) -> tuple[Files, Files]:
        masks = _find_files(self.base / "RUGD_annotations", targets=True)
        known = {scene: name for name, scenes in RUGD_SCENES.items() for scene in scenes}
        if split != "all" and split not in RUGD_SCENES:
            raise UserError(f"dataset.split={split}: RUGD has the splits {', '.join(RUGD_SCENES)} and all.")
        kept = {name: path for name, path in masks.items() if split in ("all", known.get(name.partition("/")[0]))}
        images = _find_files(self.base / "RUGD_frames-with-annotations")
        return {name: images[name] for name in kept if name in images}, kept


class A2d2(Benchmark):
    """A2D2's semantics: <drive>/camera and <drive>/label, masks in colours; numbered classes (Car 1..4) are one.

    Source: Geyer et al., "A2D2: Audi autonomous driving dataset" (2020). Without splits: whole drives are shared out by
    dataset.val_fraction.
    """

    layout = "camera_lidar_semantic/ with class_list.json of A2D2"
    is_sequence = True

    def make_rule(self) -> MaskRule:
        folder = next((each for each in (self.base, self.base / "camera_lidar_semantic")
                       if (each / "class_list.json").is_file()), self.base)
        self.base = folder
        path = folder / "class_list.json"
        content = load_json(path)
        entries = content.items() if isinstance(content, dict) else ()
        colors = [(str(name), read_color(color)) for color, name in entries]
        if not colors or any(color is None for _, color in colors):
            raise UserError(f"{path} is not a mapping from colours to names: restore it.")
        merged = [re.sub(r" [0-9]+$", "", name) for name, _ in colors]
        names = list(dict.fromkeys(merged))
        rows = [(name, value, color, False) for value, (name, color) in enumerate(colors)]
        rule = _make_rule(rows, [], by_color=True)
        self._merged[:len(colors)] = [names.index(name) for name in merged]
        first = {name: color for name, (_, color) in reversed(list(zip(merged, colors, strict=True)))}
        self._classes = tuple(Label(name, train_id, train_id, first[name] or (0, 0, 0))
                              for train_id, name in enumerate(names))
        return rule

    def find(self, split: str) -> tuple[Files, Files]:
        self.labels = self._classes
        masks: Files = {}
        images: Files = {}
        for drive in list_folders(self.base):
            for path in _find_files(drive / "label").values():
                inner = path.relative_to(drive / "label")
                camera = drive / "camera" / inner.with_name(inner.name.replace("_label_", "_camera_"))
                name = (Path(drive.name) / camera.relative_to(drive / "camera")).with_suffix("").as_posix()
                masks[name] = path
                if camera.is_file():
                    images[name] = camera
        drives = {name.partition("/")[0] for name in masks}
        names = self.share(sorted(masks), split, "^([^/]+)/" if len(drives) > 1 else None) if masks else []
        return {name: images[name] for name in names if name in images}, {name: masks[name] for name in names}


class PascalContext(Benchmark):
    """Pascal Context in its 60 classes: SegmentationClassContext/, 0 is background; or 59, where 0 is void.

    Source: Mottaghi et al., "The role of context for object detection and semantic segmentation in the wild" (2014).
    """

    layout = "JPEGImages/, SegmentationClassContext/ and ImageSets/SegmentationContext/ of Pascal Context"

    def __init__(self, split: str, root: str | None = None, background: str = "class",
                 targets_only: bool = False) -> None:
        if background not in ("class", "void"):
            raise UserError(f"dataset.background={background} is unknown: use class (60 classes) or void (59).")
        self._has_background = background == "class"
        super().__init__(split, root, targets_only=targets_only)

    def make_rule(self) -> MaskRule:
        rows = [(name, value, None, False) for value, name in enumerate(("background", *PASCAL_CONTEXT))]
        return _make_rule(rows if self._has_background else rows[1:],
                          [IGNORE_INDEX] if self._has_background else [0, IGNORE_INDEX])

    def find(self, split: str) -> tuple[Files, Files]:
        path = self.base / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        names = read_names(path, "dataset.root and dataset.split")
        masks = _find_files(self.base / "SegmentationClassContext", targets=True)
        images = _find_files(self.base / "JPEGImages")
        missing = [name for name in names if name not in masks]
        if missing:
            raise UserError(f"{len(missing)} of {len(names)} names in {path} have no mask in SegmentationClassContext, "
                            f"the first is {missing[0]}: complete the copy.", missing)
        return {name: images[name] for name in names if name in images}, {name: masks[name] for name in names}


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {
    "ade20k": Ade20k, "coco_stuff": CocoStuff, "bdd100k": Bdd100k, "kitti": Kitti, "vistas": Vistas, "rugd": Rugd,
    "a2d2": A2d2, "pascal_context": PascalContext}
