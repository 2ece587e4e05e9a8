"""The state of a training: copied in memory, saved to checkpoints, restored from them."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from segtrain import build, checkpoint, config, distributed, tracking
from segtrain.errors import UserError
from segtrain.predictions import file_form
from segtrain.tasks.training import Progress, Training

log = tracking.log


def is_due(training: Training) -> bool:
    """Say whether train.save_steps or train.save_minutes ask for a checkpoint after this step.

    Several processes all ask, and all hear the same, though their clocks differ.
    """
    cfg = training.cfg.train
    is_time = cfg.save_minutes is not None and bool(
        distributed.largest(int(time.monotonic() - training.saved_at >= 60 * cfg.save_minutes)))
    return is_time or (cfg.save_steps is not None and training.progress.step % cfg.save_steps == 0)


def save_last(training: Training, *, keep_former: bool = False) -> None:
    """Save all that a resumed run needs to end bit for bit as one that was never stopped.

    Of several processes the first one writes, and all wait until it has.

    Args:
        training: Between two steps, with every loss read.
        keep_former: Keep the checkpoint before this one whatever train.keep says.
    """
    with _resumable(training):
        checkpoint.save_last(training.run_dir / "checkpoints", {**state(training), **_about(training)},
                             former_step=training.saved_step,
                             keep=max(training.cfg.train.keep, 2 if keep_former else 1))
    distributed.all_gather(None)
    training.saved_step, training.saved_at = training.progress.step, time.monotonic()


def save_best(training: Training) -> Path:
    """Save the weights that are scored; what only a resume needs is left out."""
    path = training.run_dir / "checkpoints" / checkpoint.BEST
    left_out = dict.fromkeys(("optimizer", "scheduler", "scaler", "ema", "rng"))
    with _resumable(training):
        checkpoint.save(path, {"model": training.scored.state_dict(), **left_out, **_about(training),
                               "progress": asdict(training.progress)})
    return path


@contextmanager
def _resumable(training: Training) -> Iterator[None]:
    """Add to the message of a full disk how to go on, if there is anything to go on from."""
    try:
        yield
    except UserError as error:
        if not any((training.run_dir / "checkpoints").glob("*.pt")):
            raise
        raise UserError(f"{error} Then go on with: segtrain resume={training.run_dir}") from error


def _about(training: Training) -> dict[str, Any]:
    found = training.train_found
    return {"epoch": training.progress.epoch, "step": training.progress.step, "names": training.names,
            "config": config.to_container(training.cfg), "processes": distributed.world_size(),
            "class_sizes": found.class_sizes, "class_pixels": found.class_pixels, "image_pixels": found.image_pixels,
            "labels": [asdict(label) for label in training.train_data.labels],
            "file_form": asdict(file_form(training.train_data))}


def state(training: Training) -> dict[str, Any]:
    """Return all that changes while a network is trained. The tensors are the training's own: copy what shall stay."""
    return {"model": training.network.state_dict(), "optimizer": training.optimizer.state_dict(),
            "scheduler": {"last_epoch": training.scheduler.last_epoch}, "scaler": training.scaler.state_dict(),
            "ema": None if training.average is None else training.average.state_dict(),
            "rng": checkpoint.random_state(), "progress": asdict(training.progress)}


def put_back(training: Training, kept: dict[str, Any]) -> None:
    """Return to a state of the same run. The settings of the optimizer, its learning rate too, stay the config's."""
    training.network.load_state_dict(kept["model"])
    if training.average is not None:
        training.average.load_state_dict(kept["ema"] or kept["model"])
    training.scheduler.last_epoch = kept["scheduler"]["last_epoch"]
    settings = [{key: value for key, value in group.items() if key != "params"}
                for group in training.optimizer.param_groups]
    training.optimizer.load_state_dict(kept["optimizer"])
    schedules = zip(training.optimizer.param_groups, settings, training.scheduler.base_lrs,
                    training.scheduler.lr_lambdas, strict=True)
    for group, values, base_lr, factor in schedules:
        group.update(values)
        group["lr"] = base_lr * factor(training.scheduler.last_epoch)  # as the schedule itself reckons it
    if kept["scaler"] and training.scaler.is_enabled():
        training.scaler.load_state_dict(kept["scaler"])
    training.progress = Progress(**copy.deepcopy(kept["progress"]))
    checkpoint.restore_random_state(kept["rng"])


def restore(training: Training, saved: dict[str, Any], path: Path) -> None:
    """Go on where a checkpoint stopped.

    Raises:
        UserError: If its weights or parameter groups are not those of this config.
    """
    checkpoint.load_weights(training.network, saved["model"], path, class_layer=build.class_layer(training.cfg))
    with checkpoint.restoring(path):
        _restore(training, saved, path)
    if path.name == checkpoint.LAST:  # a damaged one is not worth keeping
        training.saved_step = training.progress.step


def _restore(training: Training, saved: dict[str, Any], path: Path) -> None:
    former_lr = saved["optimizer"]["param_groups"][0]["lr"]
    try:
        put_back(training, {**saved, "progress": asdict(training.progress),
                            "scheduler": {"last_epoch": training.position}})
    except ValueError as error:
        if "parameter group" not in str(error):
            raise
        raise UserError(f"{path} was trained with other groups of parameters ({error}): continue with the saved "
                        "train.freeze_encoder, train.encoder_lr and train.weight_decay_on, or start a new run from its "
                        "weights with checkpoint=.") from error
    lr = training.optimizer.param_groups[0]["lr"]
    if lr != former_lr:
        log.info("the learning rate goes on at %g, the checkpoint's was %g: step %d of %d under %s", lr, former_lr,
                 training.progress.step, training.total_steps,
                 training.cfg.scheduler._target_.rpartition(".")[2])


def is_finite(training: Training) -> bool:
    """Say whether all weights and statistics of the network are finite."""
    values = [value for value in training.network.state_dict().values() if value.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in values]).all())
