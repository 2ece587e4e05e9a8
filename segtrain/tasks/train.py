"""Train a network, validate it, keep its best checkpoint."""

import copy
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from segtrain import build, checkpoint, config, tracking
from segtrain.cost import cost
from segtrain.datasets.base import Dataset
from segtrain.datasets.loading import TrainingLoader
from segtrain.datasets.survey import Survey, survey
from segtrain.datasets.views import Cached
from segtrain.engine import Step, train_one_epoch, update_average
from segtrain.errors import Stopped, UserError
from segtrain.losses import Loss
from segtrain.stopping import StopRequest
from segtrain.tasks.evaluate import Scored, dataset_name, memory_format, score_split
from segtrain.transforms import Normalize

log = tracking.log


@dataclass
class Progress:
    """How far a run has come: plain numbers, kept in its checkpoints.

    Attributes:
        epoch: Epochs completed, validation included.
        step: Optimizer steps completed.
        loss_sums: The running epoch's sums of the parts of the loss.
        normalizers: What they are divided by.
        images: Images of the running epoch.
        waited: Its seconds of waiting for data.
        trained: Its seconds of training.
        seconds: Seconds of training and validation of the whole run.
        best: results.json of the best checkpoint so far.
        since_best: Validations since then.
    """

    epoch: int = 0
    step: int = 0
    loss_sums: list[float] = field(default_factory=list)
    normalizers: list[float] = field(default_factory=list)
    images: int = 0
    waited: float = 0.0
    trained: float = 0.0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    since_best: int = 0


@dataclass
class Training:
    """Everything a run is made of; cfg holds no `auto` any more."""

    cfg: Any
    run_dir: Path
    device: torch.device
    train_data: Dataset
    val_data: Dataset
    train_found: Survey
    val_found: Survey
    steps_per_epoch: int
    total_steps: int
    network: nn.Module
    average: nn.Module | None  # the moving average of the weights, which is scored where it is on
    loss_fn: Loss
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    normalize: Normalize
    loader: TrainingLoader
    costs: dict[str, int | None]
    progress: Progress

    @property
    def scored(self) -> nn.Module:
        """The network whose scores count."""
        return self.network if self.average is None else self.average


def run(cfg: Any, run_dir: Path, overrides: list[str]) -> float | None:
    """Train as cfg says, or go on where the checkpoint in run_dir stopped.

    Returns:
        The best value of train.monitor.
    """
    training = _prepare(cfg, run_dir)
    progress = training.progress
    step_network = torch.compile(training.network) if cfg.runtime.compile else training.network
    with StopRequest() as request, closing(_tracker(training)) as tracker:
        try:
            while not _is_finished(training):
                _train_epoch(training, step_network, request)
                scores = _validate(training, request) if _is_validation_due(training) else None
                _close_epoch(training, scores, tracker)
                checkpoint.save(run_dir / "checkpoints" / checkpoint.LAST, _whole_state(training))
                request.check()
        except Stopped:
            checkpoint.save(run_dir / "checkpoints" / checkpoint.LAST, _whole_state(training))
            log.info("stopped at step %d, saved; go on with: segtrain resume=%s", progress.step, run_dir)
            raise
    return _finish(training)


# ---- before the first epoch


def _prepare(cfg: Any, run_dir: Path) -> Training:
    last = run_dir / "checkpoints" / checkpoint.LAST
    saved = checkpoint.load(last) if last.exists() else None
    device = build.device(cfg)
    train_data, val_data = build.dataset(cfg, "train"), build.dataset(cfg, "val")
    _check_options(cfg, train_data)
    train_data, val_data = build.cached(train_data, cfg.dataset.cache), build.cached(val_data, cfg.dataset.cache)
    log.info("%s: reading %d training and %d validation images", dataset_name(cfg), len(train_data.names),
             len(val_data.names))
    train_found, val_found = survey(train_data, cfg.dataset.instances), survey(val_data, cfg.dataset.instances)

    steps_per_epoch = math.ceil(len(train_data.names) // cfg.train.batch_size / cfg.train.accumulate)
    total_steps = min(cfg.train.epochs * steps_per_epoch, cfg.train.max_steps or math.inf)
    build.settle(cfg, device, num_classes=len(train_data.labels), cached_in_memory=isinstance(train_data, Cached),
                 train_steps=total_steps)
    tracking.write_config(run_dir, config.to_container(cfg))

    torch.manual_seed(cfg.seed)
    network = build.model(cfg, pretrained=saved is None and cfg.checkpoint is None)
    if saved is None and cfg.checkpoint is not None:
        _start_from(cfg, network)
    network = network.to(device, memory_format=memory_format(cfg))
    optimizer = build.optimizer(cfg, network, device)
    training = Training(
        cfg, run_dir, device, train_data, val_data, train_found, val_found, steps_per_epoch, total_steps, network,
        average=copy.deepcopy(network).requires_grad_(False) if cfg.train.ema_decay else None,
        loss_fn=build.loss(cfg, train_found.class_pixels, train_found.image_pixels).to(device),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, build.schedule(cfg, total_steps, steps_per_epoch)),
        scaler=torch.amp.GradScaler(device.type, enabled=cfg.runtime.precision == "fp16"),
        normalize=build.normalize(cfg, device),
        loader=TrainingLoader(train_data, build.augmentation(cfg), batch_size=cfg.train.batch_size, seed=cfg.seed,
                              workers=cfg.runtime.workers, pin_memory=device.type == "cuda"),
        costs=cost(network, val_found.sizes[0], len(cfg.dataset.mean)),
        progress=Progress(),
    )
    if saved is not None:
        _restore(training, saved, last)
    _log_start(training)
    return training


def _check_options(cfg: Any, train_data: Dataset) -> None:
    num_images = len(train_data.names)
    if cfg.train.batch_size > num_images:
        raise UserError(f"train.batch_size={cfg.train.batch_size} is larger than the training split of {num_images} "
                        f"images: use train.batch_size={num_images} or less.")
    if cfg.train.monitor == "iiou" and cfg.dataset.instances is None:
        raise UserError("train.monitor=iiou needs instances: set dataset.instances=components, or monitor miou.")
    if cfg.train.new_head and cfg.checkpoint is None:
        raise UserError("train.new_head=true needs checkpoint=, the weights to start from.")


def _start_from(cfg: Any, network: nn.Module) -> None:
    path = checkpoint.find(cfg.checkpoint)
    class_layer = build.class_layer(cfg)
    checkpoint.load_weights(network, checkpoint.load(path)["model"], path, class_layer=class_layer,
                            new_head=cfg.train.new_head)
    left_out = f", new: {', '.join(sorted(class_layer))}" if cfg.train.new_head else ""
    log.info("weights from %s%s", path, left_out)


def _log_start(training: Training) -> None:
    cfg, progress, macs = training.cfg, training.progress, training.costs["macs"]
    model_cost = f"{training.costs['params']:,} parameters" + (f", {macs / 1e9:.2f} GMACs an image" if macs else "")
    log.info("%s: %s; %s, %s%s", type(training.network).__name__, model_cost, cfg.runtime.device, cfg.runtime.precision,
             ", compiled (the first step takes about a minute)" if cfg.runtime.compile else "")
    log.info("%d steps of %d images%s; run directory %s", training.total_steps,
             cfg.train.batch_size * cfg.train.accumulate,
             f", going on after step {progress.step}" if progress.step else "", training.run_dir)


# ---- one epoch


def _train_epoch(training: Training, step_network: nn.Module, request: StopRequest) -> None:
    """Train on what is left of the running epoch.

    Raises:
        Stopped: After the step in which a signal came.
    """
    cfg, progress = training.cfg, training.progress
    done = progress.step - progress.epoch * training.steps_per_epoch
    if done == training.steps_per_epoch:
        return  # stopped in the validation of this epoch
    started, trained = time.monotonic(), progress.trained
    training.network.train()
    steps = train_one_epoch(
        step_network, training.loader.batches(progress.epoch, done * cfg.train.accumulate), training.loss_fn,
        training.optimizer, training.scheduler, training.normalize, device=training.device,
        precision=cfg.runtime.precision, scaler=training.scaler, accumulate=cfg.train.accumulate,
        clip_norm=cfg.train.clip_norm)
    unread: list[Step] = []  # reading a loss waits for the device: on a GPU, many at once
    read_every = 1 if training.device.type == "cpu" else 50
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
                f"files {files}): lower optim.lr or set train.clip_norm=1; checkpoints/{checkpoint.LAST} is from "
                "before, if one was written.")
        progress.loss_sums = [old + new for old, new in zip(progress.loss_sums or [0.0] * len(sums), sums, strict=True)]
        progress.normalizers = [old + new for old, new in
                                zip(progress.normalizers or [0.0] * len(sums), normalizers, strict=True)]
        progress.images += step.num_images
        progress.waited += step.waited
    steps.clear()


def _validate(training: Training, request: StopRequest) -> Scored:
    cfg = training.cfg
    scored = score_split(
        training.scored, training.val_data, training.val_found, training.loss_fn, training.normalize,
        device=training.device, precision=cfg.runtime.precision, batch_size=cfg.train.batch_size,
        workers=cfg.runtime.workers, instances=cfg.dataset.instances, class_sizes=training.train_found.class_sizes,
        num_examples=cfg.train.examples, after_batch=request.check)
    return scored


def _close_epoch(training: Training, scored: Scored | None, tracker: tracking.Tracker) -> None:
    """Write the epoch's numbers, and its checkpoint if it is the best."""
    cfg, progress = training.cfg, training.progress
    loss = sum(total / max(normalizer, 1e-38)
               for total, normalizer in zip(progress.loss_sums, progress.normalizers, strict=True))
    scalars: dict[str, float | None] = {
        "train/loss": loss, "train/lr": training.optimizer.param_groups[0]["lr"],
        "train/images_per_second": progress.images / progress.trained,
        "train/data_wait": progress.waited / progress.trained}
    line = f"epoch {progress.epoch + 1}/{cfg.train.epochs}  loss {loss:.4f}"
    progress.seconds += progress.trained
    is_best = False
    if scored is not None:
        results = scored.results
        progress.seconds += results["seconds"]
        scalars |= {f"val/{name}": results[name] for name in ("loss", "miou", "iiou", "macc")}
        scalars |= {f"val/iou/{name}": iou for name, iou in results["iou_per_class"].items()}
        line += f"  val loss {results['loss']:.4f}  mIoU {tracking.percent(results['miou'])} %"
        line += f"  iIoU {tracking.percent(results['iiou'])} %" if results["iiou_source"] else ""
        is_best = _is_better(cfg.train.monitor, results, progress.best)
        progress.since_best = 0 if is_best else progress.since_best + 1
    line += f"  {scalars['train/images_per_second']:.1f} images/s"
    progress.epoch += 1
    progress.loss_sums, progress.normalizers = [], []
    progress.images, progress.waited, progress.trained = 0, 0.0, 0.0
    if scored is not None:
        if is_best:
            _keep_best(training, scored)
            line += "  (best)"
        tracker.examples(scored.examples, progress.step)
        tracker.confusion(scored.results["confusion_matrix"], list(scored.results["iou_per_class"]), progress.step)
    tracker.epoch(progress.epoch, progress.step, scalars)
    log.info(line)


def _keep_best(training: Training, scored: Scored) -> None:
    cfg, progress = training.cfg, training.progress
    path = training.run_dir / "checkpoints" / checkpoint.BEST
    progress.best = {
        "task": "train", "dataset": dataset_name(cfg), "split": "val", "checkpoint": str(path),
        "epoch": progress.epoch, "step": progress.step, **scored.results, **training.costs}
    weights_only = dict.fromkeys(("optimizer", "scheduler", "scaler", "ema", "rng"))
    checkpoint.save(path, {"model": training.scored.state_dict(), **weights_only, **_common_state(training)})


def _is_better(monitor: str, results: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Compare by the monitored score; one that is not defined is worse than any."""
    if best is None or best[monitor] is None:
        return True
    if results[monitor] is None:
        return False
    return results[monitor] < best[monitor] if monitor == "loss" else results[monitor] > best[monitor]


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


# ---- checkpoints


def _common_state(training: Training) -> dict[str, Any]:
    found = training.train_found
    return {"epoch": training.progress.epoch, "step": training.progress.step, "progress": asdict(training.progress),
            "config": config.to_container(training.cfg), "class_sizes": found.class_sizes,
            "class_pixels": found.class_pixels, "image_pixels": found.image_pixels}


def _whole_state(training: Training) -> dict[str, Any]:
    """Return all that a resumed run needs to end bit for bit as one that was never stopped."""
    return {
        "model": training.network.state_dict(), "optimizer": training.optimizer.state_dict(),
        "scheduler": {"last_epoch": training.scheduler.last_epoch}, "scaler": training.scaler.state_dict(),
        "ema": None if training.average is None else training.average.state_dict(),
        "rng": checkpoint.random_state(), **_common_state(training)}


def _restore(training: Training, saved: dict[str, Any], path: Path) -> None:
    class_layer = build.class_layer(training.cfg)
    checkpoint.load_weights(training.network, saved["model"], path, class_layer=class_layer)
    if training.average is not None:
        checkpoint.load_weights(training.average, saved["ema"] or saved["model"], path, class_layer=class_layer)
    training.scheduler.last_epoch = saved["scheduler"]["last_epoch"]
    training.optimizer.load_state_dict(saved["optimizer"])  # with the learning rate of the next step
    training.scaler.load_state_dict(saved["scaler"])
    training.progress = Progress(**saved["progress"])
    checkpoint.restore_random_state(saved["rng"])


# ---- after the last epoch


def _tracker(training: Training) -> tracking.Tracker:
    names = [label.name for label in training.train_data.labels]
    return tracking.Tracker(training.run_dir, names, epoch=training.progress.epoch, step=training.progress.step)


def _finish(training: Training) -> float | None:
    cfg, progress, run_dir = training.cfg, training.progress, training.run_dir
    assert progress.best is not None, "the last epoch is always validated"
    results = {**progress.best, "seconds": progress.seconds}
    scores = {f"best/{name}": results[name] for name in ("loss", "miou", "iiou", "macc")}
    tracking.add_hparams(run_dir, config.to_container(cfg), scores)
    tracking.write_json(run_dir / "results.json", results)
    log.info("\n%s\n", tracking.results_table(results))
    log.info("best checkpoint  %s (epoch %d)", results["checkpoint"], results["epoch"])
    log.info("scores           %s\nevery epoch      %s", run_dir / "results.json", run_dir / "metrics.csv")
    log.info("\nnext:\n  tensorboard --logdir %s\n  segtrain task=evaluate checkpoint=%s", run_dir, run_dir)
    return results[cfg.train.monitor]
