"""Check what has changed when a run is continued: most settings may, some would make it another run."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from segtrain.config import build
from segtrain.config.check import replace_values
from segtrain.config.overrides import find_changes, flatten
from segtrain.config.schema import Config, Settled, TrainTask
from segtrain.data.base import Dataset
from segtrain.data.checks import MATCHED, check
from segtrain.distributed import process_group
from segtrain.errors import UserError, show_value
from segtrain.run.samples import find_changed_samples, record_names

log = logging.getLogger(__name__)

# Keys and sections that stay as they are, and why; the longest that fits a key counts. None: it may change.
FIXED: dict[str, str | None] = {
    "task": "the run does it from the start to the end",
    "seed": "the order of the images follows from it",
    "checkpoint": "weights to start from are read at the start",
    "train.new_head": "weights to start from are read at the start",
    "train.sampling": "the images of an epoch follow from it",
    "train.num_images": "the run would go on with other images",
    "model": "the checkpoint holds the weights of the network as it is",
    "dataset": "the run would go on with other images or classes",
    "dataset.root": None, "dataset.split": None, "dataset.download": None, "dataset.cache": None, "dataset.crop": None,
    "dataset.class_map": None,
    "optim._target_": "the checkpoint holds the optimizer's state",
}
# What changes no number of a run, only when it ends or what it writes. Loaders give the same whatever their number.
HARMLESS = ("dataset.root", "dataset.class_map", "dataset.split", "dataset.download", "dataset.cache",
            "runtime.workers", "train.teacher", "train.accept_changed_data", "train.examples", "train.keep",
            "train.max_minutes", "train.on_nonfinite", "train.patience", "train.report", "train.save_every",
            "train.save_minutes", "train.save_steps", "train.log_every")


def keep_switches(cfg: Config[TrainTask], saved: Mapping[str, Any]) -> Config[TrainTask]:
    """Return a config in which what is left to segtrain is as the checkpoint's run has it: nothing is tried again."""
    runtime = saved["config"]["runtime"]
    return replace_values(cfg, {f"runtime.{name}": runtime.get(name, "auto") for name in build.list_open_switches(cfg)})


@check(MATCHED, "settings and image names that may not change on a resume")
def check_changes(saved: Mapping[str, Any], cfg: Settled[Any], *, steps_per_epoch: int,
                  splits: Mapping[str, Dataset]) -> None:
    """Refuse what a run cannot be continued with, and log the rest of what differs from its checkpoint.

    Args:
        saved: The checkpoint.
        cfg: This command's config, without any `auto`.
        steps_per_epoch: Optimizer steps of an epoch under it.
        splits: As the dataset has them now.

    Raises:
        UserError: Names the key and the reason.
    """
    before, now = flatten(saved["config"]), flatten(cfg.plain())
    changed = find_changes(saved["config"], cfg.plain())
    changed.pop("runtime.trusted", None)
    for key, (old, new) in changed.items():
        reason = _why_not(key, old, new)
        if reason is not None:
            raise UserError(f"{key} cannot change from {show_value(old)} to {show_value(new)} while a run goes on: "
                            f"{reason}. Leave it as it is, or start a new run from the weights of this one with "
                            "checkpoint=.")
    former, images = (config["train.batch_size"] * config["train.accumulate"] for config in (before, now))
    former_steps = (saved["progress"] or {}).get("steps_per_epoch", steps_per_epoch)
    former_processes, processes = saved.get("processes", 1), process_group.world_size()
    if images != former or (steps_per_epoch != former_steps and processes == former_processes):
        sizes = [f"{key}={now[key]}" for key in ("train.batch_size", "train.accumulate")]
        raise UserError(f"{' and '.join(sizes)} make {steps_per_epoch} steps of {images} images an epoch, but the run "
                        f"has {former_steps} of {former}: keep both numbers, or start a new run from its "
                        "weights with checkpoint=.")
    for split, data in splits.items():
        if saved.get("names", {}).get(split, record_names(data)) != record_names(data):
            found = find_changed_samples(saved, split, data) or "they are in another order"
            raise UserError(f"the images of the {split} split are not those that the run was started with: {found}. "
                            "Restore them, or start a new run from its weights with checkpoint=.")
    if processes != former_processes:
        changed["processes"] = (former_processes, processes)
    _log_changes(changed)


@check(MATCHED, "images and masks that have changed since the checkpoint, unless train.accept_changed_data is set")
def check_samples(saved: Mapping[str, Any], split: str, data: Dataset, digests: Sequence[int], *,
                  accept: bool) -> None:
    """Refuse samples that have changed since the checkpoint, or log them where train.accept_changed_data says so.

    Raises:
        UserError: Names the first file, and holds them all.
    """
    changed = find_changed_samples(saved, split, data, digests).changed
    if changed and not accept:
        raise UserError(f"{len(changed)} of {len(digests)} samples of {split} have changed since the checkpoint, the "
                        f"first is {changed[0]} (its image, its mask, or what its values mean): restore them, or "
                        "continue as another run with train.accept_changed_data=true.", changed)
    if changed:
        log.info("changed since the checkpoint, so no longer bit-identical to an unbroken run: %d samples of %s",
                 len(changed), split)


def _why_not(key: str, old: Any, new: Any) -> str | None:
    """Return why a key cannot change, None if it can."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        section = ".".join(parts[:length])
        if section in FIXED:
            return FIXED[section]
    if parts[0] == "optim" and key not in ("optim.lr", "optim.weight_decay") and not _same_kind(old, new):
        return "the checkpoint holds the state of an optimizer without it, or with it"
    return None


def _same_kind(old: Any, new: Any) -> bool:
    """Return whether both are numbers above 0, or lists of them: then the optimizer's state is of the same kind."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same_kind, old, new))
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 for value in (old, new))


def _log_changes(changed: Mapping[str, tuple[Any, Any]]) -> None:
    for is_harmless, head in ((False, "changed since the checkpoint, so no longer bit-identical to an unbroken run"),
                              (True, "changed since the checkpoint")):
        shown = [f"{key} {show_value(old)} -> {show_value(new)}" for key, (old, new) in changed.items()
                 if (key in HARMLESS or key.startswith("logger.")) == is_harmless]
        if shown:
            log.info("%s: %s", head, ", ".join(shown))
