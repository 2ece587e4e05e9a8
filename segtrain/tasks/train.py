"""Train a network, validate it, keep its best checkpoint."""

import errno
import logging
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from segtrain.config import build
from segtrain.config.schema import Config, TrainTask
from segtrain.distributed import ddp, process_group
from segtrain.errors import Stopped, UserError
from segtrain.inference.evaluator import Scored, score_split
from segtrain.inference.selection import Selection
from segtrain.metrics.comparison import is_better
from segtrain.profiling import used_memory
from segtrain.report.render import try_report
from segtrain.report.run_page import write_run
from segtrain.run import checkpoint
from segtrain.run.images import write_images
from segtrain.run.loggers import Loggers
from segtrain.run.results import results_table, write_config, write_results
from segtrain.run.samples import find_changed_samples, list_classes, read_digests, record_names
from segtrain.run.trackers import OF_STEPS, Tracker, check_name
from segtrain.run.trained import match_trained_classes, read_classes
from segtrain.terminal import format_duration, percent, shell
from segtrain.training.nonfinite import NonFiniteGuard
from segtrain.training.progress_bar import ProgressBar
from segtrain.training.saving import is_save_due, restore, save_best, save_last
from segtrain.training.signals import StopSignals
from segtrain.training.state import TrainingState, build_state, log_start
from segtrain.training.step import Step, accumulated, train_step
from segtrain.training.trial import choose_runtime
from segtrain.visualize import draw_examples_sheet

log = logging.getLogger(__name__)


def run(cfg: Config[TrainTask], run_dir: Path,
        on_epoch: Callable[[dict[str, float | None]], object] | None = None) -> float | None:
    """Train, or continue where the checkpoint in run_dir stopped; return the best value of train.monitor.

    `on_epoch` is called after each epoch, when it is saved, with its row of metrics.csv.
    """
    state = _begin(cfg, run_dir)
    cfg = state.cfg
    model = ddp.wrap(state.model, sync_batchnorm=cfg.runtime.sync_batchnorm)
    if cfg.runtime.compile:
        model = cast(nn.Module, torch.compile(model))
    guard = NonFiniteGuard(state)
    with (_explained_failures(run_dir), StopSignals() as signals, closing(state.loader),
          closing(_open_tracker(state)) as tracker):
        try:
            while not _is_finished(state):
                state.set_training_mode()
                guard.start_epoch()
                bar = ProgressBar(state)
                while not state.is_epoch_over and not signals.is_agreed:
                    batches = state.loader.batches(state.progress.epoch, first_image=state.progress.images)
                    for step_batches, waited in accumulated(batches, cfg.train.accumulate):
                        guard.before_step()
                        ddp.reseed(cfg.seed, state.progress.step)
                        step = train_step(
                            model, step_batches, state.train_loss_fn, state.optimizer, state.scheduler, state.normalize,
                            device=state.device, precision=cfg.runtime.precision, scaler=state.scaler,
                            clip_norm=cfg.train.clip_norm, measures_norm=_is_log_due(state, 1), ema=state.ema,
                            ema_decay=cfg.train.ema_decay, teacher=state.teacher, allows_update=guard.allows_update)
                        state.progress.step += 1
                        state.progress.epoch_steps += 1
                        save_due = is_save_due(state)
                        stops = signals.is_requested() or state.is_epoch_over
                        if not guard.check(step, waited, read_now=save_due or stops):
                            break  # rolled back: read the batches again from there
                        bar.update(step)
                        if _is_log_due(state):
                            tracker.step(state.progress.epoch + 1, state.progress.step, _step_scalars(state, step))
                        if save_due:
                            save_last(state)
                        if stops:
                            break
                bar.close()
                state.progress.seconds_trained = process_group.broadcast(state.progress.seconds_trained)
                signals.check()

                scored = _validate(state, signals) if _is_validation_due(state) else None
                scalars = _train_scalars(state)
                state.progress.close_epoch()
                is_best = False
                if scored is not None:
                    is_best = is_better(scored.results, state.progress.best, cfg.train.monitor)
                    _note_results(state, scored.results, is_best)
                    if is_best:
                        save_best(state)
                        _write_images(state, scored)
                _track(state, tracker, scalars, scored, is_best)
                if state.progress.epoch % cfg.train.save_every == 0 or _is_finished(state):
                    save_last(state)
                if on_epoch is not None:
                    on_epoch({"epoch": state.progress.epoch, "step": state.progress.step, **scalars})
                signals.check()
        except Stopped:
            save_last(state)
            process_group.all_gather(None)  # the others wait for it, or torchrun takes their end for a failure
            log.info("stopped at step %d, saved; go on with: %s", state.progress.step, shell(f"resume={run_dir}"))
            raise
        return _finish(state, tracker)


def describe_changes(cfg: Config[TrainTask], run_dir: Path) -> str | None:
    """Say what has changed since the finished training in run_dir; None if nothing has, or its checkpoint is gone."""
    path = run_dir / "checkpoints" / checkpoint.BEST
    if not path.is_file():
        return None
    saved = checkpoint.load(path, mapped=True)
    labels, _ = read_classes(saved, path)
    for split in ("train", "val"):
        data = match_trained_classes(build.dataset(cfg, split), saved, path, cfg)
        if list_classes(data.labels) != list_classes(labels):
            return "which classes have instances, or their categories"
        found = find_changed_samples(saved, split, data, read_digests(cfg, split, data))
        if found and not cfg.train.accept_changed_data:
            return f"samples of {split}: {found}"
    return None


def _begin(cfg: Config[TrainTask], run_dir: Path) -> TrainingState:
    """Build a training, or restore the one in run_dir; only when all is well is the directory written to."""
    check_name(run_dir)
    saved, path, faults = checkpoint.find_last(run_dir / "checkpoints") or (None, None, [])
    for fault in faults:
        log.warning("warning: %s Going on from %s instead.", fault, path)
    state = build_state(cfg, run_dir, saved, path)
    if saved is not None and path is not None:
        restore(state, saved, path)
    else:
        choose_runtime(state)
    build.warn_of_emulation(state.cfg, state.device)
    if _is_finished(state) and state.progress.best is None:
        raise UserError(f"{run_dir} has no scores yet, and its {state.progress.epoch} epochs are all that is asked "
                        "for: raise train.epochs, train.max_steps or train.max_minutes.")
    if process_group.is_main():
        (run_dir / "results.json").unlink(missing_ok=True)  # a finished run that continues is not finished any more
    write_config(run_dir, state.cfg)
    log_start(state)
    return state


def _open_tracker(state: TrainingState) -> Tracker:
    cfg, progress = state.cfg, state.progress
    return Tracker(state.run_dir, [label.name for label in state.train_data.labels], epoch=progress.epoch,
                   step=progress.step, has_steps=cfg.train.log_every is not None,
                   loggers=Loggers(cfg.logger.chosen()) if process_group.is_main() else None, config=cfg.plain())


# ---- validation


def _is_validation_due(state: TrainingState) -> bool:
    cfg, epoch = state.cfg.train, state.progress.epoch + 1
    return epoch % cfg.val_every == 0 or epoch >= cfg.epochs or _is_out_of_budget(state)


def _validate(state: TrainingState, signals: StopSignals) -> Scored:
    cfg = state.cfg
    ddp.share_buffers(state.scored_model)
    return score_split(
        state.scored_model, state.val_data, state.val_statistics, state.loss_fn, state.normalize, device=state.device,
        precision=cfg.runtime.precision, batch_size=cfg.train.batch_size, workers=cfg.runtime.workers,
        instances=cfg.dataset.instances, class_sizes=state.train_statistics.class_sizes,
        num_examples=cfg.train.examples, selection=Selection(cfg.train.examples), after_batch=signals.check)


def _write_images(state: TrainingState, scored: Scored) -> None:
    if process_group.is_main() and scored.selection is not None:
        data = state.val_data
        write_images(state.run_dir, data.labels, scored.selection.encode(record_names(data), data.labels))


def _note_results(state: TrainingState, results: dict[str, Any], is_best: bool) -> None:
    """Add a validation to the progress; the results of the best one become results.json."""
    progress = state.progress
    progress.seconds += results["seconds"]
    progress.since_best = 0 if is_best else progress.since_best + 1
    if is_best:
        progress.best = {"task": "train", "dataset": build.dataset_name(state.cfg), "split": "val",
                         "fold": state.cfg.dataset.name_fold("val"),
                         "epoch": progress.epoch, "step": progress.step, **results, **state.costs,
                         "checkpoint": str(state.run_dir / "checkpoints" / checkpoint.BEST)}


# ---- numbers of an epoch


def _train_scalars(state: TrainingState) -> dict[str, float | None]:
    progress = state.progress
    seconds = max(progress.seconds_trained, 1e-9)
    scalars: dict[str, float | None] = {
        "train/loss": progress.train_loss, "train/lr": state.optimizer.param_groups[0]["lr"],
        "train/images_per_second": progress.images / seconds, "train/data_wait": progress.seconds_waited / seconds}
    if progress.skipped:
        scalars["train/skipped_steps"] = progress.skipped
    return scalars


def _is_log_due(state: TrainingState, ahead: int = 0) -> bool:
    """Return whether the numbers of this step, or of one that is ahead, are to be written."""
    every = state.cfg.train.log_every
    return every is not None and (state.progress.step + ahead) % every == 0


def _step_scalars(state: TrainingState, step: Step) -> dict[str, float | None]:
    norm = None if step.gradient_norm is None else float(step.gradient_norm)
    values = (float(step.loss), step.lr, norm, used_memory(state.device) / 2**30)
    return {name: value if value is not None and math.isfinite(value) else None
            for name, value in zip(OF_STEPS, values, strict=True)}


def _track(state: TrainingState, tracker: Tracker, scalars: dict[str, float | None], scored: Scored | None,
           is_best: bool) -> None:
    """Write an epoch's numbers and images to metrics.csv, the loggers and the log."""
    progress = state.progress
    line = [f"epoch {progress.epoch}/{state.cfg.train.epochs}", f"loss {scalars['train/loss']:.4f}"]
    if scored is not None:
        results, labels = scored.results, state.train_data.labels
        scalars |= {f"val/{name}": results[name] for name in ("loss", "miou", "iiou", "macc")}
        scalars |= {f"val/iou/{name}": iou for name, iou in results["iou_per_class"].items()}
        monitor = state.cfg.train.monitor
        scalars[f"best/{monitor}"] = progress.best[monitor] if progress.best is not None else None
        tracker.examples(draw_examples_sheet(scored.examples, labels) if scored.examples else None, progress.step,
                         is_best=is_best)
        tracker.confusion(results["confusion_matrix"], list(results["iou_per_class"]), progress.step)
        line += [f"val loss {results['loss']:.4f}", f"mIoU {percent(results['miou'])} %"]
        line += [f"iIoU {percent(results['iiou'])} %"] if results["iiou"] is not None else []
    tracker.epoch(progress.epoch, progress.step, scalars)
    line.append(f"{scalars['train/images_per_second']:.1f} images/s")
    log.info("%s%s", "  ".join(line), "  (best)" if is_best else "")


# ---- the end


def _is_finished(state: TrainingState) -> bool:
    cfg, progress = state.cfg.train, state.progress
    if progress.epoch_steps:
        return False  # stopped after its last step, the running epoch is still to be validated
    is_stuck = cfg.patience is not None and progress.since_best >= cfg.patience
    return progress.epoch >= cfg.epochs or _is_out_of_budget(state) or is_stuck


def _is_out_of_budget(state: TrainingState) -> bool:
    limit, progress = state.cfg.train.max_minutes, state.progress
    minutes = (progress.seconds + progress.seconds_trained) / 60
    return progress.step >= state.total_steps or (limit is not None and minutes >= limit)


def _end_reason(state: TrainingState) -> str:
    """Say why a finished training has ended."""
    cfg, progress = state.cfg.train, state.progress
    if progress.epoch >= cfg.epochs:
        return f"all {cfg.epochs} epochs are done"
    if progress.step >= state.total_steps:
        return f"train.max_steps={cfg.max_steps} is reached"
    if cfg.patience is not None and progress.since_best >= cfg.patience:
        return f"{cfg.monitor} has not improved for train.patience={cfg.patience} validations"
    return f"train.max_minutes={cfg.max_minutes:g} are over"


@contextmanager
def _explained_failures(run_dir: Path) -> Iterator[None]:
    """Explain what a model or a disk refuses in the course of a training."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError("BatchNorm cannot learn from one value a channel: raise train.batch_size or "
                        "dataset.crop.") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        raise UserError(f"a file in {run_dir} cannot be written ({error.strerror}): make room, then go on with: "
                        f"{shell(f'resume={run_dir}')}") from error
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise UserError(f"runtime.compile=true: torch.compile fails ({' '.join(str(error).split())[:300]}): use "
                        "runtime.compile=false, or install what is missing.") from error


def _finish(state: TrainingState, tracker: Tracker) -> float | None:
    """Write the last files of a run: results.json, which marks it as finished, then the report."""
    cfg, progress, run_dir = state.cfg, state.progress, state.run_dir
    assert progress.best is not None, "the last epoch is always validated"
    results = {**progress.best, "seconds": progress.seconds}
    if sum(progress.drawn):
        results["drawn_shares"] = {label.name: count / sum(progress.drawn) for label, count
                                   in zip(state.train_data.labels, progress.drawn, strict=True)}
    if progress.skipped:
        results["skipped_steps"] = progress.skipped
    scores = {name: results[name] for name in ("loss", "miou", "iiou", "macc", "pacc")}
    tracker.finish(scores, run_dir / "checkpoints" / checkpoint.BEST)
    write_results(run_dir, results)
    report = try_report(write_run, run_dir) if cfg.train.report and process_group.is_main() else None
    log.info("\n%s\n", results_table(results))
    if progress.skipped:
        log.warning("warning: %d of %d steps were skipped because loss or gradient were not finite", progress.skipped,
                    progress.step)
    log.info("best checkpoint  %s (epoch %d)", results["checkpoint"], results["epoch"])
    log.info("scores           %s\nevery epoch      %s", run_dir / "results.json", run_dir / "metrics.csv")
    if report is not None:
        log.info("report           %s", report)
    log.info("trained          %s; %s", format_duration(progress.seconds), _end_reason(state))
    log.info("\nnext:\n  tensorboard --logdir %s\n  %s", shlex.quote(str(run_dir)),
             shell("task=evaluate", f"checkpoint={run_dir}"))
    return results[cfg.train.monitor]
