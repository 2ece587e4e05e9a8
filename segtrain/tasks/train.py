"""Train a network, validate it, keep its best checkpoint."""

import errno
import logging
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from segtrain.config import build
from segtrain.config.schema import Config, TrainTask
from segtrain.distributed import ddp, process_group
from segtrain.errors import Stopped, UserError
from segtrain.inference.evaluator import Scored, score_split
from segtrain.report.automatic import report_run
from segtrain.run import checkpoint
from segtrain.run.results import results_table, write_config, write_json
from segtrain.run.trackers import Tracker, add_hparams
from segtrain.terminal import percent
from segtrain.training.nonfinite import train_epoch
from segtrain.training.signals import StopRequest
from segtrain.training.state import Training, log_start, prepare, restore, save_best, save_last
from segtrain.visualize import examples_sheet

log = logging.getLogger(__name__)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def run(cfg: Config[TrainTask], run_dir: Path) -> float | None:
    """Train as cfg says, or go on where the checkpoint in run_dir stopped.

    Returns:
        The best value of train.monitor.
    """
    training = _begin(cfg, run_dir)
    cfg = training.cfg
    step_network = ddp.wrapped(training.network, sync_batchnorm=cfg.runtime.sync_batchnorm)
    if cfg.runtime.compile:
        step_network = cast(nn.Module, torch.compile(step_network))
    names = [label.name for label in training.train_data.labels]
    progress = training.progress
    numbers = Tracker(run_dir, names, epoch=progress.epoch)
    with StopRequest() as request, closing(training.loader), closing(numbers) as tracker:
        tracker.config(progress.step)
        try:
            while not _is_finished(training):
                train_epoch(training, step_network, request)
                scored = _validate(training, request) if _is_validation_due(training) else None
                _close_epoch(training, scored, tracker)
                if training.progress.epoch % cfg.train.save_every == 0 or _is_finished(training):
                    save_last(training)
                request.check()
        except Stopped:
            save_last(training)
            process_group.all_gather(None)  # the others wait for it, lest torchrun takes their end for a failure
            log.info("stopped at step %d, saved; go on with: segtrain resume=%s", training.progress.step, run_dir)
            raise
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise UserError("BatchNorm cannot learn from one value a channel: raise train.batch_size or "
                                "dataset.crop.") from error
            raise
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise UserError(f"a file in {run_dir} cannot be written ({error.strerror}): make room, then go on with: "
                            f"segtrain resume={run_dir}") from error
    return _finish(training)


def _begin(cfg: Config[TrainTask], run_dir: Path) -> Training:
    """Prepare a training, or restore the one in run_dir; only when all is well is the directory written to."""
    found = checkpoint.find_last(run_dir / "checkpoints")
    saved, path, faults = found or (None, None, [])
    for fault in faults:
        log.warning("warning: %s Going on from %s instead.", fault, path)
    training = prepare(cfg, run_dir, saved, path)
    if saved is not None and path is not None:
        restore(training, saved, path)
    if _is_finished(training) and training.progress.best is None:
        raise UserError(f"{run_dir} has no scores yet, and its {training.progress.epoch} epochs are all that is asked "
                        "for: raise train.epochs, train.max_steps or train.max_minutes.")
    if process_group.is_main():
        (run_dir / "results.json").unlink(missing_ok=True)  # of a finished run that shall go on: now it is not
    write_config(run_dir, training.cfg)
    log_start(training)
    return training


# ---- between epochs


def _validate(training: Training, request: StopRequest) -> Scored:
    cfg = training.cfg
    ddp.share_buffers(training.scored)
    return score_split(
        training.scored, training.val_data, training.val_found, training.loss_fn, training.normalize,
        device=training.device, precision=cfg.runtime.precision, batch_size=cfg.train.batch_size,
        workers=cfg.runtime.workers, instances=cfg.dataset.instances, class_sizes=training.train_found.class_sizes,
        num_examples=cfg.train.examples, after_batch=request.check)


def _close_epoch(training: Training, scored: Scored | None, tracker: Tracker) -> None:
    """Complete the epoch: write its numbers, and its checkpoint if it is the best."""
    progress = training.progress
    scalars: dict[str, float | None] = {
        "train/loss": sum(total / max(normalizer, 1e-38) for total, normalizer
                          in zip(progress.loss_sums, progress.normalizers, strict=True)),
        "train/lr": training.optimizer.param_groups[0]["lr"],
        "train/images_per_second": progress.images / max(progress.trained, 1e-9),
        "train/data_wait": progress.waited / max(progress.trained, 1e-9),
    }
    if progress.skipped:
        scalars["train/skipped_steps"] = progress.skipped
    progress.epoch += 1
    progress.done = 0
    progress.seconds += progress.trained
    progress.loss_sums, progress.normalizers = [], []
    progress.images, progress.waited, progress.trained = 0, 0.0, 0.0
    is_best = False
    if scored is not None:
        results = scored.results
        progress.seconds += results["seconds"]
        scalars |= {f"val/{name}": results[name] for name in ("loss", "miou", "iiou", "macc")}
        scalars |= {f"val/iou/{name}": iou for name, iou in results["iou_per_class"].items()}
        is_best = _keep_if_best(training, results)
        labels = training.train_data.labels
        tracker.examples([examples_sheet(scored.examples, labels)] if scored.examples else [], progress.step)
        tracker.confusion(results["confusion_matrix"], list(results["iou_per_class"]), progress.step)
    tracker.epoch(progress.epoch, progress.step, scalars)
    log.info("%s", _epoch_line(training, scalars, is_best))


def _keep_if_best(training: Training, results: dict[str, Any]) -> bool:
    """Save the checkpoint and remember its results if the monitored score is the best so far."""
    cfg, progress = training.cfg, training.progress
    if not _is_better(cfg.train.monitor, results, progress.best):
        progress.since_best += 1
        return False
    progress.since_best = 0
    progress.best = {"task": "train", "dataset": build.dataset_name(cfg), "split": "val", "epoch": progress.epoch,
                     "step": progress.step, **results, **training.costs}
    progress.best["checkpoint"] = str(save_best(training))
    return True


def _is_better(monitor: str, results: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Compare by the monitored score; one that is not defined is worse than any."""
    if best is None or best[monitor] is None:
        return True
    if results[monitor] is None:
        return False
    return results[monitor] < best[monitor] if monitor == "loss" else results[monitor] > best[monitor]


def _epoch_line(training: Training, scalars: dict[str, float | None], is_best: bool) -> str:
    parts = [f"epoch {training.progress.epoch}/{training.cfg.train.epochs}", f"loss {scalars['train/loss']:.4f}"]
    if "val/loss" in scalars:
        parts += [f"val loss {scalars['val/loss']:.4f}", f"mIoU {percent(scalars['val/miou'])} %"]
        if scalars["val/iiou"] is not None:
            parts.append(f"iIoU {percent(scalars['val/iiou'])} %")
    parts.append(f"{scalars['train/images_per_second']:.1f} images/s")
    return "  ".join(parts) + ("  (best)" if is_best else "")


# ---- when to validate and when to end


def _is_validation_due(training: Training) -> bool:
    cfg, epoch = training.cfg.train, training.progress.epoch + 1
    return epoch % cfg.val_every == 0 or epoch >= cfg.epochs or _is_out_of_budget(training)


def _is_finished(training: Training) -> bool:
    cfg, progress = training.cfg.train, training.progress
    is_stuck = cfg.patience is not None and progress.since_best >= cfg.patience
    if progress.done:
        return False  # stopped behind its last step, the running epoch is still to be validated
    return progress.epoch >= cfg.epochs or _is_out_of_budget(training) or is_stuck


def _is_out_of_budget(training: Training) -> bool:
    cfg, progress = training.cfg.train, training.progress
    minutes = (progress.seconds + progress.trained) / 60
    return progress.step >= training.total_steps or (cfg.max_minutes is not None and minutes >= cfg.max_minutes)


# ---- after the last epoch


def _finish(training: Training) -> float | None:
    """Write what stands when the run is done, results.json last: it marks the run as finished. The report shows it."""
    cfg, progress, run_dir = training.cfg, training.progress, training.run_dir
    assert progress.best is not None, "the last epoch is always validated"
    results = {**progress.best, "seconds": progress.seconds}
    if progress.skipped:
        results["skipped_steps"] = progress.skipped
    scores = {name: results[name] for name in ("loss", "miou", "iiou", "macc", "pacc")}
    add_hparams(run_dir, cfg.plain(), scores, results["step"])
    write_json(run_dir / "results.json", results)
    report = report_run(run_dir) if cfg.train.report and process_group.is_main() else None
    log.info("\n%s\n", results_table(results))
    if progress.skipped:
        log.warning("warning: %d of %d steps were skipped, for loss or gradient were not finite", progress.skipped,
                    progress.step)
    log.info("best checkpoint  %s (epoch %d)", results["checkpoint"], results["epoch"])
    log.info("scores           %s\nevery epoch      %s", run_dir / "results.json", run_dir / "metrics.csv")
    if report is not None:
        log.info("to look at       %s", report)
    log.info("\nnext:\n  tensorboard --logdir %s\n  segtrain task=evaluate checkpoint=%s", run_dir, run_dir)
    return results[cfg.train.monitor]
