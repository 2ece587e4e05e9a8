"""The teacher of a distillation: a trained network that sees the same images."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.config.check import check_config
from segtrain.config.instantiate import check_trust
from segtrain.config.schema import Settled, TrainTask
from segtrain.data.base import Dataset
from segtrain.data.checks import MATCHED, START, check
from segtrain.data.transforms import Normalize
from segtrain.errors import UserError, list_part, show_value
from segtrain.files import check_plain
from segtrain.run import checkpoint
from segtrain.run.trained import Trained, dataset_of, load_trained

log = logging.getLogger(__name__)

OF_VOID = ("void", "background", "crowd")  # keys of datasets that say which pixels are void
OF_IMAGES = ("bands", "dtype", "range")  # what the numbers of an image mean


@dataclass(frozen=True)
class Teacher:
    """A trained network in evaluation mode; calling it turns images, uint8 (N, H, W, C), into logits.

    Attributes:
        path: Its checkpoint.
        network: It is never trained.
        normalize: Its own normalisation.
        order: For each class of the student its number in the teacher; None: the same.
        digest: Of its weights.
    """

    path: Path
    network: nn.Module
    normalize: Normalize
    order: Tensor | None
    digest: str

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalize(images))
        return logits if self.order is None else logits[:, self.order]


def load_teacher(cfg: Settled[TrainTask], data: Dataset, device: torch.device) -> Teacher:
    """Load the network that cfg.train.teacher names; the random state stays as it was.

    Args:
        cfg: The student's config.
        data: Its training split.
        device: Where both are.

    Raises:
        UserError: If there is no such checkpoint, or it was trained for other classes, another choice of what is void,
            or images of other channels.
    """
    path = checkpoint.find(str(cfg.train.teacher), key="train.teacher")
    saved = checkpoint.load(path, mapped=True)
    config = saved["config"]
    check_plain(config, str(path))
    check_trust(config, (), cfg.runtime.trusted)
    runtime = {**config.get("runtime", {}), "device": str(device), "threads": None, "precision": "auto",
               "channels_last": "auto"}
    with torch.random.fork_rng([]):
        trained = load_trained(check_config({**config, "checkpoint": str(path), "runtime": runtime}), saved=saved,
                               device=device)
    order = check_teacher(trained, saved, cfg, data)
    is_same = order == list(range(len(order)))
    return Teacher(path, trained.network.eval().requires_grad_(False), trained.normalize,
                   None if is_same else torch.tensor(order, device=device), digest_weights(saved["model"]))


@check(START, "a teacher of other classes, of another choice of what is void, or for images of other channels")
def check_teacher(trained: Trained, saved: Mapping[str, Any], cfg: Settled[TrainTask], data: Dataset) -> list[int]:
    """Return the teacher's number of each class of the student; UserError if a student cannot learn from it."""
    key = f"train.teacher={trained.path}"
    theirs = {label.name: label.train_id for label in trained.labels}
    own = {label.name: label.train_id for label in data.labels}
    if own.keys() != theirs.keys():
        raise UserError(f"{key} was trained for other classes: "
                        f"{list_part('only the teacher has', sorted(theirs.keys() - own.keys()))}"
                        f"{list_part('only this dataset has', sorted(own.keys() - theirs.keys()))}"
                        "give a teacher that was trained for the same classes.")
    before, now = dataset_of(saved), {"_target_": cfg.dataset.target, **cfg.dataset.arguments}
    for name in OF_VOID:
        if before.get("_target_") == now["_target_"] and before.get(name) != now.get(name):
            raise UserError(f"{key} was trained with dataset.{name}={show_value(before.get(name))}, this training has "
                            f"dataset.{name}={show_value(now.get(name))}: give a teacher for which the same pixels are "
                            "void, or set the key as it was.")
    if trained.in_channels != len(cfg.dataset.mean):
        raise UserError(f"{key} takes images of {trained.in_channels} channels, but those of this training have "
                        f"{len(cfg.dataset.mean)}: give a teacher of as many channels.")
    for name in OF_IMAGES:
        if before.get(name) != getattr(cfg.dataset, name):
            raise UserError(f"{key} was trained with dataset.{name}={show_value(before.get(name))}, this training has "
                            f"dataset.{name}={show_value(getattr(cfg.dataset, name))}, so that the same images are "
                            "other numbers: set the key as it was.")
    return [theirs[name] for name in sorted(own, key=own.__getitem__)]


def digest_weights(weights: Mapping[str, Tensor]) -> str:
    """Return a digest of weights and their names, to know them again."""
    found = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(weights.items()):
        found.update(name.encode())
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@check(MATCHED, "a teacher of other weights than the one that a run was started with")
def check_same_teacher(teacher: Teacher | None, saved: Mapping[str, Any]) -> None:
    """Raise UserError if a run would go on with another teacher, or with one instead of none."""
    former, now = saved.get("teacher"), None if teacher is None else teacher.digest
    if former != now:
        given = "null" if teacher is None else str(teacher.path)
        was = "had none" if former is None else "was started with one" if now is None else (
            "was started with one of other weights")
        raise UserError(f"train.teacher={given}, but the run {was}: its teacher cannot change while it goes on. Give "
                        "the teacher that it had, or start a new run from its weights with checkpoint=.")
