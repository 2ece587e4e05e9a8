"""Recognise what lies in a folder by its files, and open it as the dataset that it is."""

import inspect
import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from segtrain.data.base import Dataset, View
from segtrain.data.camvid import ORIGINAL_FOLDERS, CamVid
from segtrain.data.cityscapes import Cityscapes
from segtrain.data.folder import Folder
from segtrain.data.formats import coco, coco_panoptic, roboflow, supervisely, via, yolo
from segtrain.data.formats.benchmarks import BENCHMARKS
from segtrain.data.formats.cvat import Cvat
from segtrain.data.formats.darwin import Darwin
from segtrain.data.formats.datumaro import Datumaro
from segtrain.data.formats.files import MAX_BYTES, list_folders
from segtrain.data.formats.label_studio import LabelStudio
from segtrain.data.formats.labelme import Labelme
from segtrain.data.voc import INSIDE, Voc
from segtrain.errors import UserError
from segtrain.files import read_text

log = logging.getLogger(__name__)
MOST_LISTED = 20  # JSON files of a place that are looked at: in large folders all are of one kind
Opener = Callable[..., Dataset]
# What tells one kind of JSON from another: all words of a group occur in it, and none of the last.
JSON_KINDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("coco_panoptic", ('"segments_info"', '"categories"'), ()),
    ("coco", ('"image_id"', '"categories"', '"images"'), ('"segments_info"',)),
    ("datumaro", ('"items"', '"categories"', '"annotations"'), ()),
    ("via", ('"shape_attributes"', '"region_attributes"'), ()),
    ("labelme", ('"shapes"', '"imagePath"'), ()),
    ("label_studio", ('"original_width"',), ()),
    ("darwin", ('"annotations"', '"slots"'), ()),
    ("darwin", ('"annotations"', '"image"', '"original_filename"'), ()),
)
OPENERS: dict[str, Opener] = {
    "camvid": CamVid, "cityscapes": Cityscapes, "voc": Voc,
    "cvat_mask": partial(Voc, classes="labelmap.txt", missing_mask="background"), "folder": Folder,
    "roboflow": roboflow.RoboflowMasks, "coco": coco.Coco, "coco_panoptic": coco_panoptic.CocoPanoptic,
    "yolo": yolo.Yolo, "labelme": Labelme, "label_studio": LabelStudio, "cvat": Cvat, "via": via.Via,
    "supervisely": supervisely.Supervisely, "datumaro": Datumaro, "darwin": Darwin, **BENCHMARKS}
_told: set[Path] = set()


class Auto(View):
    """The dataset that a folder is recognised as, with the settings of its YAML file.

    The arguments are described in conf/dataset/auto.yaml.

    Raises:
        UserError: If it is none of those that segtrain reads, or may be several.
    """

    def __init__(self, split: str, root: str | None = None, targets_only: bool = False,
                 with_instances: bool = True) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds the dataset, dataset.root=/data/mine")
        base = Path(root).expanduser()
        if not base.is_dir():
            raise UserError(f"{base} is not a folder: check dataset.root.")
        found = list(recognize(base).items())
        if not found:
            raise UserError(f"{base} is not recognised as any dataset ({', '.join(OPENERS)}): choose one with "
                            "dataset=, and see its YAML file for the layout.")
        if len(found) > 1:
            several = " and ".join(f"dataset={name} ({reason})" for name, reason in found)
            raise UserError(f"{base} may be {several}: choose one of them.")
        name, reason = found[0]
        if base not in _told:
            _told.add(base)
            log.info("%s is read as dataset=%s: it has %s", base, name, reason)
        opener = OPENERS[name]
        given: dict[str, Any] = {"targets_only": targets_only, "with_instances": with_instances}
        accepted = inspect.signature(opener).parameters
        super().__init__(opener(split, root=root, **{key: value for key, value in given.items() if key in accepted}))


def recognize(base: Path) -> dict[str, str]:
    """Return as which datasets a folder may be read, and by which of its files."""
    found = dict(_look_at_folders(base)) | dict(_look_at_files(base))
    if "cvat_mask" in found:  # the layout of VOC with classes of its own
        found.pop("voc", None)
    if {"vistas", "ade20k", "coco_stuff", "kitti", "bdd100k", "a2d2", "rugd"} & found.keys():
        found.pop("folder", None)
    return found


def _look_at_folders(base: Path) -> Iterator[tuple[str, str]]:
    def has(*names: str, inside: Path = base) -> bool:
        return all((inside / name).exists() for name in names)

    if any(folder.name.endswith("annot") and has(folder.name.removesuffix("annot")) for folder in list_folders(base)):
        yield "camvid", "trainannot/ beside train/"
    original = next((pair for pair in ORIGINAL_FOLDERS if has(*pair) and _has_frames(base / pair[1])), None)
    if original is not None:
        yield "camvid", f"{original[0]}/ and {original[1]}/ with the frames of CamVid"
    if has("leftImg8bit", "gtFine"):
        yield "cityscapes", "leftImg8bit/ and gtFine/"
    if any(has("JPEGImages", "ImageSets", "SegmentationClass", inside=base / inner) for inner in INSIDE):
        yield "voc", "JPEGImages/, SegmentationClass/ and ImageSets/"
        if has("labelmap.txt"):
            yield "cvat_mask", "JPEGImages/, SegmentationClass/ and labelmap.txt"
    if has("SegmentationClassContext"):
        yield "pascal_context", "SegmentationClassContext/"
    if has("classes.csv") and any(has("images", "masks", inside=folder) for folder in list_folders(base)):
        yield "folder", "classes.csv, and images/ and masks/ in the folder of a split"
    if roboflow.list_tables(base):
        yield "roboflow", f"{roboflow.list_tables(base)[0].name}/{roboflow.TABLE}"
    for inner in (base, *list_folders(base)):
        if has("objectInfo150.txt", "annotations", inside=inner):
            yield "ade20k", "objectInfo150.txt"
        if has("class_list.json", inside=inner):
            yield "a2d2", "class_list.json"
    for name in ("annotations", "stuffthingmaps"):
        folder = next((each for each in list_folders(base / name) if next(each.glob("*.png"), None)
                       and each.name in ("train2017", "val2017")), None)
        if folder is not None:
            yield "coco_stuff", f"{name}/{folder.name}/*.png"
    if has("labels/sem_seg/masks") or has("seg/labels"):
        yield "bdd100k", "labels/sem_seg/masks/" if has("labels/sem_seg/masks") else "seg/labels/"
    if has("training/semantic", "training/image_2"):
        yield "kitti", "training/image_2/ and training/semantic/"
    if list(base.glob("config*.json")) and list(base.glob("*/v*/labels")):
        yield "vistas", f"{next(base.glob('config*.json')).name} and training/v*/labels/"
    if has("RUGD_annotations"):
        yield "rugd", "RUGD_annotations/"


def _has_frames(folder: Path) -> bool:
    sequences = ("0001TP_", "0006R0_f", "0016E5_", "Seq05VD_f")
    return any(path.name.startswith(sequences) for path in folder.glob("*.png"))


def _look_at_files(base: Path) -> Iterator[tuple[str, str]]:
    if any((base / name).is_file() and "names" in read_text(base / name) for name in yolo.NAMES):
        yield "yolo", f"{yolo.find_yaml(base).name} with names"
    if supervisely.is_project(base):
        yield "supervisely", "meta.json, and ann/ in the folder of a dataset"
        return  # whose other JSON files are its annotations
    for path in sorted(base.glob("*.xml")):
        if "<annotations" in read_text(path, MAX_BYTES)[:10_000]:
            yield "cvat", f"{path.name} with annotations"
            break
    kinds = _find_json_kinds(base)
    for kind, (path, words) in kinds.items():
        yield kind, f"{path.relative_to(base)} with {', '.join(words)}"
    if "via" not in kinds:
        table = next((path for path in base.glob("*.csv")
                      if "region_shape_attributes" in read_text(path, MAX_BYTES)[:1000]), None)
        if table is not None:
            yield "via", f"{table.name} with region_shape_attributes"


def _find_json_kinds(base: Path) -> dict[str, tuple[Path, list[str]]]:
    """Return the kinds of the JSON files in the first place that has any, each with a file and the words that tell."""
    official = [*coco.list_candidates(base)[:1], *coco_panoptic.list_candidates(base)[:1]]
    for files in (official, *(_list_visible(base, pattern) for pattern in ("*.json", "*/*.json", "**/*.json"))):
        found: dict[str, tuple[Path, list[str]]] = {}
        for path in files:
            text = read_text(path, MAX_BYTES)
            for kind, words, others in JSON_KINDS:
                if all(word in text for word in words) and not any(word in text for word in others):
                    found.setdefault(kind, (path, [word.strip('"') for word in words]))
                    break
        if found:
            return found
    return {}


def _list_visible(base: Path, pattern: str) -> list[Path]:
    """List the first files of a pattern that are not hidden."""
    visible = (path for path in base.glob(pattern) if not any(part.startswith(".")
                                                              for part in path.relative_to(base).parts))
    return sorted(islice(visible, MOST_LISTED))
