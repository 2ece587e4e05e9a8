"""The state of a training: copied in memory, saved to checkpoints, restored from them."""

import copy
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from segtrain.config import build
from segtrain.data.label_files import make_file_form
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.run import checkpoint
from segtrain.run.checkpoint_schema import check_optimizer
from segtrain.run.samples import record_names
from segtrain.terminal import shell
from segtrain.training.state import Progress, TrainingState

log = logging.getLogger(__name__)


def is_save_due(state: TrainingState) -> bool:
    """Return whether a checkpoint is due after this step: the same in all processes, which must all ask."""
    cfg = state.cfg.train
    is_time = cfg.save_minutes is not None and any(
        process_group.all_gather(time.monotonic() - state.saved_at >= 60 * cfg.save_minutes))
    return is_time or (cfg.save_steps is not None and state.progress.step % cfg.save_steps == 0)


def save_last(state: TrainingState, *, keep_former: bool = False) -> None:
    """Save all that a resumed run needs to end bit for bit as one that was never stopped; all processes wait for it.

    Args:
        state: Between two steps, with every loss read.
        keep_former: Keep the checkpoint before this one whatever train.keep says.
    """
    with _resumable(state):
        checkpoint.save_last(state.run_dir / "checkpoints", {**snapshot(state), **_describe(state)},
                             former_step=state.saved_step,
                             keep=max(state.cfg.train.keep, 2 if keep_former else 1))
    process_group.all_gather(None)
    state.saved_step, state.saved_at = state.progress.step, time.monotonic()


def save_best(state: TrainingState) -> None:
    """Save the weights that are scored; what only a resume needs is left out."""
    left_out = dict.fromkeys(("optimizer", "scheduler", "scaler", "ema", "rng"))
    with _resumable(state):
        checkpoint.save(state.run_dir / "checkpoints" / checkpoint.BEST,
                        {"model": state.scored_model.state_dict(), **left_out, **_describe(state),
                         "progress": asdict(state.progress)})


@contextmanager
def _resumable(state: TrainingState) -> Iterator[None]:
    """Add to the message of a full disk how to go on, if there is anything to go on from."""
    try:
        yield
    except UserError as error:
        if not any((state.run_dir / "checkpoints").glob("*.pt")):
            raise
        raise UserError(f"{error} Then go on with: {shell(f'resume={state.run_dir}')}") from error


def _describe(state: TrainingState) -> dict[str, Any]:
    statistics = state.train_statistics
    return {"epoch": state.progress.epoch, "step": state.progress.step,
            "names": {"train": record_names(state.train_data), "val": record_names(state.val_data)},
            "samples": {"train": statistics.digests, "val": state.val_statistics.digests},
            "teacher": None if state.teacher is None else state.teacher.digest,
            "config": state.cfg.plain(), "processes": process_group.world_size(),
            "class_sizes": statistics.class_sizes, "class_pixels": statistics.class_pixels,
            "image_pixels": statistics.image_pixels,
            "labels": [asdict(label) for label in state.train_data.labels],
            "file_form": asdict(make_file_form(state.train_data))}


def snapshot(state: TrainingState) -> dict[str, Any]:
    """Return all that changes while a network is trained. The tensors are not copied."""
    return {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict(),
            "scheduler": {"last_epoch": state.scheduler.last_epoch}, "scaler": state.scaler.state_dict(),
            "ema": None if state.ema is None else state.ema.state_dict(),
            "rng": checkpoint.random_state(), "progress": asdict(state.progress)}


def put_back(state: TrainingState, kept: dict[str, Any]) -> None:
    """Return to a state of the same run. The settings of the optimizer, its learning rate too, stay the config's."""
    state.model.load_state_dict(kept["model"])
    if state.ema is not None:
        state.ema.load_state_dict(kept["ema"] or kept["model"])
    state.scheduler.last_epoch = kept["scheduler"]["last_epoch"]
    settings = [{key: value for key, value in group.items() if key != "params"}
                for group in state.optimizer.param_groups]
    state.optimizer.load_state_dict(kept["optimizer"])
    schedules = zip(state.optimizer.param_groups, settings, state.scheduler.base_lrs,
                    state.scheduler.lr_lambdas, strict=True)
    for group, values, base_lr, factor in schedules:
        group.update(values)
        group["lr"] = base_lr * factor(state.scheduler.last_epoch)  # as the scheduler itself computes it
    if kept["scaler"] and state.scaler.is_enabled():
        state.scaler.load_state_dict(kept["scaler"])
    state.progress = Progress(**copy.deepcopy(kept["progress"]))
    checkpoint.restore_random_state(kept["rng"])


def restore(state: TrainingState, saved: dict[str, Any], path: Path) -> None:
    """Go on where a checkpoint stopped.

    Raises:
        UserError: If its weights or parameter groups are not those of this config.
    """
    head = build.head_keys(state.cfg)
    checkpoint.load_weights(state.model, saved["model"], path, head=head)
    if state.ema is not None and saved["ema"] is not None:
        checkpoint.load_weights(state.ema, saved["ema"], path, head=head)
    check_optimizer(state.optimizer, saved["optimizer"], path)
    with checkpoint.restoring(path):
        former_lr = saved["optimizer"]["param_groups"][0]["lr"]
        try:
            put_back(state, {**saved, "progress": asdict(state.progress),
                             "scheduler": {"last_epoch": state.schedule_step}})
        except ValueError as error:
            if "parameter group" not in str(error):
                raise
            raise UserError(f"{path} was trained with other groups of parameters ({error}): continue with the saved "
                            "train.freeze_encoder, train.encoder_lr and train.weight_decay_on, or start a new run from "
                            "its weights with checkpoint=.") from error
    if path.name == checkpoint.LAST:  # a damaged one is not worth keeping
        state.saved_step = state.progress.step
    lr = state.optimizer.param_groups[0]["lr"]
    if lr != former_lr:
        log.info("the learning rate goes on at %g, the checkpoint's was %g: step %d of %d under %s", lr, former_lr,
                 state.progress.step, state.total_steps, state.cfg.scheduler["_target_"].rpartition(".")[2])


def is_finite(state: TrainingState) -> bool:
    """Return whether all weights and statistics of the network are finite."""
    values = [value for value in state.model.state_dict().values() if value.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in values]).all())
