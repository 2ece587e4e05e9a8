"""Train a network, validate it, keep its best checkpoint."""

import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from tqdm import tqdm

from segtrain import config, tracking
from segtrain.engine import Step, train_one_epoch, update_average
from segtrain.errors import Stopped, UserError
from segtrain.parameters import encoder_of
from segtrain.report.automatic import report_run
from segtrain.stopping import StopRequest
from segtrain.tasks.evaluate import dataset_name
from segtrain.tasks.scoring import Scored, score_split
from segtrain.tasks.training import Training, prepare, save_best, save_last

log = tracking.log


def run(cfg: Any, run_dir: Path, overrides: list[str]) -> float | None:
    """Train as cfg says, or go on where the checkpoint in run_dir stopped.

    Returns:
        The best value of train.monitor.
    """
    training = prepare(cfg, run_dir)
    step_network = cast(nn.Module, torch.compile(training.network)) if cfg.runtime.compile else training.network
    names = [label.name for label in training.train_data.labels]
    numbers = tracking.Tracker(run_dir, names, epoch=training.progress.epoch, step=training.progress.step)
    with StopRequest() as request, closing(training.loader), closing(numbers) as tracker:
        try:
            while not _is_finished(training):
                _train_epoch(training, step_network, request)
                scored = _validate(training, request) if _is_validation_due(training) else None
                _close_epoch(training, scored, tracker)
                if training.progress.epoch % cfg.train.save_every == 0 or _is_finished(training):
                    save_last(training)
                request.check()
        except Stopped:
            save_last(training)
            log.info("stopped at step %d, saved; go on with: segtrain resume=%s", training.progress.step, run_dir)
            raise
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise UserError("BatchNorm cannot learn from one value a channel: raise train.batch_size or "
                                "dataset.crop.") from error
            raise
    return _finish(training)


# ---- one epoch


def _train_epoch(training: Training, step_network: nn.Module, request: StopRequest) -> None:
    """Train on what is left of the running epoch.

    Raises:
        Stopped: After the step in which a signal came.
    """
    cfg, progress = training.cfg, training.progress
    done = progress.step - progress.epoch * training.steps_per_epoch
    if done == training.steps_per_epoch:
        return  # it was stopped in this epoch's validation
    started, trained = time.monotonic(), progress.trained
    training.network.train()
    if cfg.train.freeze_encoder:
        encoder_of(training.network, "train.freeze_encoder").eval()  # BatchNorm's statistics stay, and nothing drops
    steps = train_one_epoch(
        step_network, training.loader.batches(progress.epoch, done * cfg.train.accumulate), training.loss_fn,
        training.optimizer, training.scheduler, training.normalize, device=training.device,
        precision=cfg.runtime.precision, scaler=training.scaler, accumulate=cfg.train.accumulate,
        clip_norm=cfg.train.clip_norm)
    unread: list[Step] = []
    read_every = 1 if training.device.type == "cpu" else 50  # reading a loss waits for the device
    title = f"epoch {progress.epoch + 1}/{cfg.train.epochs}"
    with tqdm(total=training.steps_per_epoch, initial=done, desc=title, unit="step", leave=False, disable=None) as bar:
        for step in steps:
            progress.step += 1
            unread.append(step)
            if training.average is not None:
                update_average(training.average, training.network, cfg.train.ema_decay)
            if len(unread) >= read_every:
                _read_losses(training, unread)
            bar.update()
            if request.signum is not None or progress.step >= training.total_steps:
                break
    _read_losses(training, unread)
    progress.trained = trained + time.monotonic() - started
    request.check()


def _read_losses(training: Training, steps: list[Step]) -> None:
    """Add the steps' losses to the running epoch and empty the list.

    Raises:
        UserError: If a loss is not finite; no checkpoint is written after it.
    """
    progress = training.progress
    if not steps:
        return
    losses = torch.stack([step.loss for step in steps]).tolist()
    parts = torch.stack([torch.stack([step.loss_sums, step.normalizers]) for step in steps]).tolist()
    for number, (step, loss, (sums, normalizers)) in enumerate(zip(steps, losses, parts, strict=True)):
        if not math.isfinite(loss):
            files = ", ".join(training.train_data.files(index) for index in step.indices)
            raise UserError(
                f"the loss is {loss} at step {progress.step - len(steps) + number + 1} (learning rate {step.lr:g}, "
                f"files {files}): lower optim.lr or set train.clip_norm=1. A checkpoint of an earlier epoch is intact.")
        progress.loss_sums = _added(progress.loss_sums, sums)
        progress.normalizers = _added(progress.normalizers, normalizers)
        progress.images += step.num_images
        progress.waited += step.waited
    steps.clear()


def _added(totals: list[float], values: list[float]) -> list[float]:
    return [total + value for total, value in zip(totals or [0.0] * len(values), values, strict=True)]


def _validate(training: Training, request: StopRequest) -> Scored:
    cfg = training.cfg
    return score_split(
        training.scored, training.val_data, training.val_found, training.loss_fn, training.normalize,
        device=training.device, precision=cfg.runtime.precision, batch_size=cfg.train.batch_size,
        workers=cfg.runtime.workers, instances=cfg.dataset.instances, class_sizes=training.train_found.class_sizes,
        num_examples=cfg.train.examples, after_batch=request.check)


def _close_epoch(training: Training, scored: Scored | None, tracker: tracking.Tracker) -> None:
    """Complete the epoch: write its numbers, and its checkpoint if it is the best."""
    progress = training.progress
    scalars: dict[str, float | None] = {
        "train/loss": sum(total / max(normalizer, 1e-38) for total, normalizer
                          in zip(progress.loss_sums, progress.normalizers, strict=True)),
        "train/lr": training.optimizer.param_groups[0]["lr"],
        "train/images_per_second": progress.images / progress.trained,
        "train/data_wait": progress.waited / progress.trained,
    }
    progress.epoch += 1
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
        tracker.examples(scored.examples, progress.step)
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
    progress.best = {"task": "train", "dataset": dataset_name(cfg), "split": "val", "epoch": progress.epoch,
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
        parts += [f"val loss {scalars['val/loss']:.4f}", f"mIoU {tracking.percent(scalars['val/miou'])} %"]
        if scalars["val/iiou"] is not None:
            parts.append(f"iIoU {tracking.percent(scalars['val/iiou'])} %")
    parts.append(f"{scalars['train/images_per_second']:.1f} images/s")
    return "  ".join(parts) + ("  (best)" if is_best else "")


# ---- when to validate and when to end


def _is_validation_due(training: Training) -> bool:
    cfg, epoch = training.cfg.train, training.progress.epoch + 1
    return epoch % cfg.val_every == 0 or epoch >= cfg.epochs or _is_out_of_budget(training)


def _is_finished(training: Training) -> bool:
    cfg, progress = training.cfg.train, training.progress
    is_stuck = cfg.patience is not None and progress.since_best >= cfg.patience
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
    scores = {f"val/best_{name}": results[name] for name in ("loss", "miou", "iiou", "macc")}
    tracking.add_hparams(run_dir, config.to_container(cfg), scores)
    tracking.write_json(run_dir / "results.json", results)
    report = report_run(run_dir) if cfg.train.report else None
    log.info("\n%s\n", tracking.results_table(results))
    log.info("best checkpoint  %s (epoch %d)", results["checkpoint"], results["epoch"])
    log.info("scores           %s\nevery epoch      %s", run_dir / "results.json", run_dir / "metrics.csv")
    if report is not None:
        log.info("to look at       %s", report)
    log.info("\nnext:\n  tensorboard --logdir %s\n  segtrain task=evaluate checkpoint=%s", run_dir, run_dir)
    return results[cfg.train.monitor]
