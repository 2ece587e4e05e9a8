"""Load a trained network from a checkpoint, with everything needed to use it, without its dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segtrain.config import build
from segtrain.config.schema import Config, Settled
from segtrain.data.label_files import FileForm
from segtrain.data.transforms import Normalize
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.run import checkpoint


@dataclass(frozen=True)
class Trained:
    """A trained network and the content of its checkpoint.

    Attributes:
        path: The checkpoint's file.
        network: On the device, in the memory layout of runtime.channels_last.
        normalize: uint8 (N, H, W, C) on the device -> float32 (N, C, H, W).
        file_form: What files of its predictions hold.
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


def load_trained(cfg: Config[Any], *, device: torch.device | None = None) -> Trained:
    """Build the network of a config on its device, default runtime.device, and load the weights of cfg.checkpoint.

    Raises:
        UserError: If cfg names no checkpoint, the file does not exist, is damaged, or holds another model than cfg.
    """
    if cfg.checkpoint is None:
        raise UserError(f"task={cfg.task.name} needs checkpoint=, a .pt file or a run directory.")
    path = checkpoint.find(cfg.checkpoint)
    saved = checkpoint.load(path)
    labels, file_form = read_classes(saved, path)
    device = device or build.device(cfg)
    runtime = saved["config"].get("runtime")
    settled = build.settle(cfg, device, num_classes=len(labels), cached_in_memory=True,
                           scored_with=runtime if isinstance(runtime, dict) else None)
    build.warn_of_emulation(settled, device)
    network = build.model(settled, pretrained=False, aux=False)
    checkpoint.load_weights(network, saved["model"], path, head=build.head_keys(settled))
    return Trained(
        path, settled, device, build.lay_out(network.to(device), settled), build.normalize(settled, device), labels,
        file_form, saved["epoch"], saved["step"],
        **{name: saved[name] for name in ("class_sizes", "class_pixels", "image_pixels")})


def read_classes(saved: Mapping[str, Any], path: Path) -> tuple[tuple[Label, ...], FileForm]:
    """Return the classes of a checkpoint and what files of its predictions hold; UserError if they contradict."""
    labels = tuple(Label(**{**label, "color": tuple(label["color"])}) for label in saved["labels"])
    file_form = FileForm(**saved["file_form"])
    dataset = saved["config"].get("dataset")
    num_classes = dataset.get("num_classes") if isinstance(dataset, dict) else None
    if sorted({label.train_id for label in labels} - {IGNORE_INDEX}) != list(range(num_classes or len(labels))):
        raise UserError(f"{path} is damaged: its table of classes is not that of {num_classes} classes; choose "
                        "another file.")
    unknown = {*(saved.get("class_sizes") or ())} - {label.name for label in labels}
    if unknown:
        raise UserError(f"{path} is damaged: it has the object size of the class {min(unknown)}, which is not one of "
                        "its classes; choose another file.")
    return labels, file_form
