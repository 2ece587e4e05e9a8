"""Load a trained network from a checkpoint, with everything needed to use it, and meet it with a dataset."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segtrain.config import build
from segtrain.config.overrides import find_changes
from segtrain.config.schema import Config, Settled
from segtrain.data.base import Dataset
from segtrain.data.class_identity import match_classes
from segtrain.data.image_form import ImageForm
from segtrain.data.label_files import FileForm
from segtrain.data.transforms import Normalize
from segtrain.errors import UserError, show_value
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.run import checkpoint

log = logging.getLogger(__name__)

# Keys of the dataset: those that change the meaning of nothing, and what a network's weights have learnt to expect.
OF_PLACE = ("root", "split", "download", "cache", "crop", "class_map", "num_classes", "rgb")
OF_INPUT = ("channels", "bands", "dtype", "range", "nodata", "mean", "std", "image_bits")
WEIGHTS = ("model", "optimizer", "ema", "rng")


@dataclass(frozen=True)
class Trained:
    """A trained network and the content of its checkpoint.

    Attributes:
        path: The checkpoint's file.
        network: On the device, in the memory layout of runtime.channels_last.
        normalize: uint8 or float32 (N, H, W, C) on the device -> float32 (N, C, H, W).
        file_form: What files of its predictions hold.
        saved: The rest of the checkpoint, without weights: config, names, samples, ...
        class_sizes: Mean object size by class name, of the training split; None if unknown, as are the next two.
        class_pixels: The pixels of each class of the training split.
        image_pixels: For each class, the labelled pixels of the training images that show it.
    """

    path: Path
    cfg: Settled[Any]
    device: torch.device
    network: nn.Module
    normalize: Normalize
    labels: tuple[Label, ...]
    file_form: FileForm
    saved: Mapping[str, Any]
    epoch: int
    step: int
    class_sizes: Mapping[str, float | None] | None
    class_pixels: list[int] | None
    image_pixels: list[int] | None

    @property
    def target(self) -> str:
        """The class of the network, as model._target_ names it."""
        return self.cfg.model["_target_"]

    @property
    def in_channels(self) -> int:
        """The number of channels of its images."""
        return len(self.cfg.dataset.mean)

    @property
    def form(self) -> ImageForm:
        """What its images are read as."""
        return build.image_form(self.cfg)


def load_trained(cfg: Config[Any], *, device: torch.device | None = None,
                 saved: Mapping[str, Any] | None = None) -> Trained:
    """Build the network of a config on its device, default runtime.device, and load the weights of cfg.checkpoint.

    `saved` is the content of that file, where it has been read.

    Raises:
        UserError: If cfg names no checkpoint, the file does not exist, is damaged, or holds another model than cfg.
    """
    if cfg.checkpoint is None:
        raise UserError(f"task={cfg.task.name} needs checkpoint=, a .pt file or a run directory.")
    path = checkpoint.find(cfg.checkpoint)
    unmeasured = build.list_unmeasured(cfg)
    if unmeasured:
        raise UserError(f"dataset.{unmeasured[0]} is measured by training, and task={cfg.task.name} needs the value "
                        f"that {path} was trained with: leave it out, or give numbers.")
    saved = checkpoint.load(path) if saved is None else saved
    labels, file_form = read_classes(saved, path)
    device = device or build.device(cfg)
    runtime = saved["config"].get("runtime")
    settled = build.settle(cfg, device, num_classes=len(labels), cached_in_memory=True,
                           scored_with=runtime if isinstance(runtime, dict) else None)
    build.warn_of_emulation(settled, device)
    warn_of_changes(saved, settled)
    network = build.model(settled, pretrained=False, aux=False)
    checkpoint.load_weights(network, saved["model"], path, head=build.head_keys(settled))
    return Trained(
        path, settled, device, build.lay_out(network.to(device), settled), build.normalize(settled, device), labels,
        file_form, {name: value for name, value in saved.items() if name not in WEIGHTS}, saved["epoch"], saved["step"],
        **{name: saved[name] for name in ("class_sizes", "class_pixels", "image_pixels")})


def read_classes(saved: Mapping[str, Any], path: Path) -> tuple[tuple[Label, ...], FileForm]:
    """Return the classes of a checkpoint and what files of its predictions hold; UserError if they contradict."""
    labels = tuple(Label(**{**label, "color": tuple(label["color"])}) for label in saved["labels"])
    file_form = FileForm(**saved["file_form"])
    num_classes = dataset_of(saved).get("num_classes")
    if sorted({label.train_id for label in labels} - {IGNORE_INDEX}) != list(range(num_classes or len(labels))):
        raise UserError(f"{path} is damaged: its table of classes is not that of {num_classes} classes; choose "
                        "another file.")
    unknown = {*(saved.get("class_sizes") or ())} - {label.name for label in labels}
    if unknown:
        raise UserError(f"{path} is damaged: it has the object size of the class {min(unknown)}, which is not one of "
                        "its classes; choose another file.")
    return labels, file_form


def dataset_of(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `dataset` of a checkpoint's config."""
    dataset = saved["config"].get("dataset")
    return dataset if isinstance(dataset, dict) else {}


def match_trained_classes(data: Dataset, saved: Mapping[str, Any], path: Path, cfg: Config[Any]) -> Dataset:
    """Return a dataset with the train ids of a checkpoint's classes, see `match_classes`."""
    return match_classes(data, read_classes(saved, path)[0], new_class_map(saved, cfg), path)


def new_class_map(saved: Mapping[str, Any], cfg: Config[Any]) -> dict[str, str]:
    """Return dataset.class_map, but for one that the checkpoint was trained under: its classes have the new names."""
    given = cfg.dataset.class_map
    return {} if given is None or given == dataset_of(saved).get("class_map") else given


def warn_of_changes(saved: Mapping[str, Any], cfg: Settled[Any], keys: Sequence[str] | None = None) -> None:
    """Warn of the dataset's settings that are not those of the training, so that numbers may mean something else.

    Args:
        saved: The checkpoint.
        keys: Those to compare; None: all but those that only say where the data are. Of a dataset of another class
            those that both have.
    """
    before, now = dataset_of(saved), cfg.dataset.plain()
    is_other = before.get("_target_") != now["_target_"]
    for key, (old, new) in find_changes(before, now).items():
        name = key.partition(".")[0]
        if name in OF_PLACE or (keys is not None and name not in keys) or (
                is_other and not (name in before and name in now)):
            continue
        log.warning("warning: dataset.%s: trained with %s, this run uses %s", key, show_value(old), show_value(new))
