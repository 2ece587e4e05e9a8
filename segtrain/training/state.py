"""The state of a training: its parts, built from the config, and how far it has come."""

import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import nn

from segtrain.config import build
from segtrain.config.saved import check_saved
from segtrain.config.schema import Config, Settled, TrainTask
from segtrain.data.base import Cached, Dataset
from segtrain.data.class_identity import match_splits
from segtrain.data.doctor.findings import ERROR, find_all
from segtrain.data.doctor.report import format_findings
from segtrain.data.loading import TrainingLoader
from segtrain.data.sampling import list_places
from segtrain.data.statistics import DatasetStatistics, compute_statistics, fill_memory
from segtrain.data.survey import Split
from segtrain.data.transforms import Normalize
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.inference.forward import autocast
from segtrain.inference.sanity_check import check_independence, check_logits
from segtrain.losses import Loss
from segtrain.optim import find_encoder
from segtrain.profiling import count_parameters, measure_cost, time_runs
from segtrain.run import checkpoint
from segtrain.run.checkpoint_schema import NEW_RUN, check_resumable
from segtrain.run.results import check_scores
from segtrain.run.trained import OF_INPUT, match_trained_classes, warn_of_changes
from segtrain.schemas import Count, Number, Seconds, check_content
from segtrain.training.resume import check_changes, check_samples, keep_switches
from segtrain.training.teacher import Teacher, check_same_teacher, load_teacher

log = logging.getLogger(__name__)

NEAR_DISTANCE = 6  # bits, as task.near_distance of the doctor has it
MOST_COMPARED = 10**9  # pairs of images, in a few seconds


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(extra="forbid"))
class Progress:
    """How far a run has come: plain numbers, kept in its checkpoints."""

    epoch: Count = 0  # completed, validation included
    step: Count = 0  # optimizer steps completed, skipped ones included
    steps_per_epoch: Count = 0
    seconds: Seconds = 0.0  # of training and validation in the completed epochs
    best: dict[str, Any] | None = None  # results.json of the best checkpoint so far
    since_best: Count = 0  # validations since then
    skipped: Count = 0  # steps whose loss or gradient was not finite
    skipped_in_a_row: Count = 0
    drawn: list[Count] = field(default_factory=list)  # pixels of each class that were trained on
    # of the running epoch
    epoch_steps: Count = 0
    images: Count = 0  # the epoch goes on after them
    loss_sums: list[Number] = field(default_factory=list)  # of each term of the loss
    normalizers: list[Number] = field(default_factory=list)
    seconds_waited: Seconds = 0.0  # for data
    seconds_trained: Seconds = 0.0

    @property
    def train_loss(self) -> float:
        """The loss of the running epoch so far."""
        return sum(total / max(normalizer, 1e-38) for total, normalizer
                   in zip(self.loss_sums, self.normalizers, strict=True))

    def close_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch += 1
        self.seconds += self.seconds_trained
        self.epoch_steps, self.images = 0, 0
        self.loss_sums, self.normalizers = [], []
        self.seconds_waited, self.seconds_trained = 0.0, 0.0


@dataclass
class TrainingState:
    """Everything a run is made of."""

    cfg: Settled[TrainTask]
    run_dir: Path
    device: torch.device
    train_data: Dataset
    val_data: Dataset
    train_statistics: DatasetStatistics
    val_statistics: DatasetStatistics
    steps_per_epoch: int
    total_steps: int
    model: nn.Module  # its plain form, neither compiled nor wrapped
    ema: nn.Module | None  # an EMA of its weights, which is scored instead; None without train.ema_decay
    loss_fn: Loss  # of logits
    train_loss_fn: Loss  # of what the model returns in training mode: with its auxiliary heads, if it has any
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    normalize: Normalize
    loader: TrainingLoader
    teacher: Teacher | None  # whose logits are learnt as well
    costs: dict[str, int | None]
    progress: Progress
    open_switches: Sequence[str]  # of runtime, which the command leaves to `trial.choose_runtime`
    crop: tuple[int, int]  # (height, width) of what is trained on
    saved_step: int | None = None  # of last.pt, if that is worth keeping
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def images_per_step(self) -> int:
        """How many images an optimizer step takes, in all processes together."""
        return self.cfg.train.batch_size * self.cfg.train.accumulate * process_group.world_size()

    @property
    def schedule_step(self) -> int:
        """How many steps the run has come on its learning-rate schedule."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.epoch_steps

    @property
    def scored_model(self) -> nn.Module:
        """The model whose scores count."""
        return self.model if self.ema is None else self.ema

    @property
    def is_epoch_over(self) -> bool:
        """Whether the running epoch has all its steps, or the run all of its."""
        return self.progress.epoch_steps >= self.steps_per_epoch or self.progress.step >= self.total_steps

    def set_training_mode(self) -> None:
        """Put the model into training mode, but for a frozen encoder: its statistics stay, nothing is dropped."""
        self.model.train()
        if self.cfg.train.freeze_encoder:
            find_encoder(self.model, "train.freeze_encoder").eval()


def build_state(cfg: Config[TrainTask], run_dir: Path, saved: dict[str, Any] | None = None,
                saved_in: Path | None = None) -> TrainingState:
    """Read the data, settle what cfg leaves open, build the parts.

    Args:
        cfg: The config; that of the state is the same without any `auto`.
        run_dir: The run directory, which is left as it is.
        saved: The checkpoint to go on from, whose state `saving.restore` then puts into the parts.
        saved_in: Its file.

    Raises:
        UserError: If the config or the data are at fault, or something cannot change while a run goes on.
    """
    device = build.device(cfg)
    train_data, val_data = build.dataset(cfg, "train"), build.dataset(cfg, "val")
    val_data = match_splits(val_data, train_data.labels, "val", "train")
    start, start_path = saved, saved_in
    if saved is None and cfg.checkpoint is not None:
        start_path = checkpoint.find(cfg.checkpoint)
        start = checkpoint.load(start_path, mapped=True, weights_suffice=cfg.train.new_head)
    if start is not None and start_path is not None and not (saved is None and cfg.train.new_head):
        train_data, val_data = (match_trained_classes(data, start, start_path, cfg) for data in (train_data, val_data))
    elif cfg.dataset.class_map:
        raise UserError("dataset.class_map maps the classes of a checkpoint to those of the dataset: give checkpoint= "
                        "without train.new_head, or leave it out.")
    _check_options(cfg, train_data)
    if saved is None:
        _check_frozen(cfg)
    cfg = build.measure(cfg, train_data, [val_data])
    train_data, val_data = build.cached(train_data, cfg.dataset.cache), build.cached(val_data, cfg.dataset.cache)
    images_per_batch = cfg.train.batch_size * process_group.world_size()
    steps_per_epoch = math.ceil(len(train_data.names) // images_per_batch / cfg.train.accumulate)
    progress = Progress()
    if saved is not None:
        progress = _read_progress(saved, saved_in or run_dir)
    # Fewer or more processes make steps of another size. Those of the running epoch are counted in steps of now; the
    # run has then made more or fewer than its epochs have.
    progress.steps_per_epoch = steps_per_epoch
    progress.epoch_steps = math.ceil(progress.images / (images_per_batch * cfg.train.accumulate))
    shift = progress.step - progress.epoch * steps_per_epoch - progress.epoch_steps
    total_steps = cfg.train.epochs * steps_per_epoch + shift
    if cfg.train.max_steps is not None:
        total_steps = min(total_steps, cfg.train.max_steps)
    if saved is not None:
        cfg = keep_switches(cfg, saved)
    open_switches = build.list_open_switches(cfg)
    cfg = build.settle(cfg, device, num_classes=len(train_data.labels),
                       cached_in_memory=isinstance(train_data, Cached), train_steps=total_steps)
    if saved is not None:
        check_changes(saved, cfg, steps_per_epoch=steps_per_epoch, splits={"train": train_data, "val": val_data})

    teacher = None if cfg.train.teacher is None else load_teacher(cfg, train_data, device)
    if saved is not None:
        check_same_teacher(teacher, saved)
    torch.manual_seed(cfg.seed)
    model = build.model(cfg, pretrained=saved is None and cfg.checkpoint is None)
    if saved is None and start is not None and start_path is not None:
        _start_from(cfg, start, start_path, model)
    model = build.lay_out(model.to(device), cfg)
    optimizer = build.optimizer(cfg, model, device)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, build.schedule(cfg, total_steps - shift, steps_per_epoch))
    normalize, augmentation = build.normalize(cfg, device), build.augmentation(cfg, train_data.labels)
    augmentation.check(train_data.read(0).image)

    # only now, when every key has been checked, comes what may take minutes
    log.info("%s: reading %d training and %d validation images", build.dataset_name(cfg), len(train_data.names),
             len(val_data.names))
    train_statistics = compute_statistics(train_data, cfg.dataset.instances)
    val_statistics = compute_statistics(val_data, cfg.dataset.instances)
    if cfg.runtime.workers:
        for data in (train_data, val_data):
            fill_memory(data)
    if saved is not None:
        for split, data, found in (("train", train_data, train_statistics), ("val", val_data, val_statistics)):
            check_samples(saved, split, data, found.digests, accept=cfg.train.accept_changed_data)
    if process_group.is_main():
        _check_data(cfg, {"train": (train_data, train_statistics), "val": (val_data, val_statistics)},
                    warns=saved is None)
    sample = train_data.read(0)
    height, width = augmentation(sample.image, sample.target, (cfg.seed, 0, 0))[1].shape
    crop = (height, width)
    for size, training in ((crop, True), (val_statistics.sizes[0], False)):
        check_logits(model, cfg.model["_target_"], size, in_channels=len(cfg.dataset.mean),
                     num_classes=len(train_data.labels), training=training)
    if teacher is not None:
        check_logits(teacher.network, f"that of train.teacher={teacher.path}", crop, in_channels=len(cfg.dataset.mean),
                     num_classes=len(train_data.labels))
        teacher.network.eval()
    if not str(cfg.model["_target_"]).startswith(("segtrain.", "torchvision.")):
        check_independence(model, cfg.model["_target_"], crop, in_channels=len(cfg.dataset.mean))
    places = list_places(train_statistics.shown)
    loss_fn = build.loss(cfg, train_statistics.class_pixels, train_statistics.image_pixels).to(device)
    state = TrainingState(
        cfg, run_dir, device, train_data, val_data, train_statistics, val_statistics, steps_per_epoch, total_steps,
        model,
        ema=copy.deepcopy(model).requires_grad_(False) if cfg.train.ema_decay else None,
        loss_fn=loss_fn, train_loss_fn=build.training_loss(cfg, model, loss_fn),
        optimizer=optimizer, scheduler=scheduler, normalize=normalize,
        scaler=torch.amp.GradScaler(device.type, enabled=cfg.runtime.precision == "fp16"),
        loader=TrainingLoader(train_data, augmentation, batch_size=cfg.train.batch_size, seed=cfg.seed,
                              workers=cfg.runtime.workers, pin_memory=device.type == "cuda",
                              rank=process_group.rank(), num_processes=process_group.world_size(),
                              sampling=build.sampling(cfg, places, train_data.labels), places=places),
        teacher=teacher, costs=measure_cost(model, val_statistics.sizes[0], len(cfg.dataset.mean)),
        progress=progress, open_switches=open_switches, crop=crop,
    )
    if cfg.train.freeze_encoder:  # after its cost was counted: the parameters are the model's own, frozen or not
        find_encoder(model, "train.freeze_encoder").requires_grad_(False)
    return state


def _read_progress(saved: dict[str, Any], path: Path) -> Progress:
    """Return how far the run in a checkpoint has come; UserError if it cannot be continued."""
    check_saved(saved["config"], path)
    check_resumable(saved, path)
    progress: Progress = check_content(Progress, saved["progress"], path, NEW_RUN)
    if progress.best is not None:
        check_scores(progress.best, path)
    if len(progress.loss_sums) != len(progress.normalizers):
        raise UserError(f"{path} is damaged: progress.loss_sums has another length than progress.normalizers; "
                        f"{NEW_RUN}.")
    return progress


def _check_options(cfg: Config[TrainTask], train_data: Dataset) -> None:
    num_images, num_processes = len(train_data.names), process_group.world_size()
    if num_processes > num_images:
        raise UserError(f"{num_processes} processes, but {num_images} training images: start fewer processes.")
    if cfg.train.batch_size * num_processes > num_images:
        of_each = f" of each of {num_processes} processes" if num_processes > 1 else ""
        raise UserError(f"train.batch_size={cfg.train.batch_size}{of_each} is larger than the training split of "
                        f"{num_images} images: use train.batch_size={num_images // num_processes} or less.")


def _check_frozen(cfg: Config[TrainTask]) -> None:
    """Refuse to freeze an encoder whose weights are random; a class of the user may load weights in its own way."""
    may_load = "pretrained" not in cfg.model and not str(cfg.model.get("_target_")).startswith("segtrain.")
    if cfg.train.freeze_encoder and cfg.checkpoint is None and not cfg.model.get("pretrained") and not may_load:
        raise UserError("train.freeze_encoder=true would keep random weights: give the encoder some to keep, by "
                        "model.pretrained=DEFAULT (where the model has it) or checkpoint=.")


def _check_data(cfg: Config[TrainTask], read: Mapping[str, tuple[Dataset, DatasetStatistics]], *, warns: bool) -> None:
    """Refuse data that cannot be trained on; with `warns` log what else the doctor's checks find in what was read."""
    splits = [Split(name, data.labels, statistics.seen, statistics.remarks)
              for name, (data, statistics) in read.items()]
    is_small = math.prod(len(split.seen) for split in splits) <= MOST_COMPARED
    findings, _ = find_all(splits, {name: data for name, (data, _) in read.items()}, cfg.dataset.crop,
                           NEAR_DISTANCE if is_small else None, find_unused=cfg.train.num_images is None)
    for finding in findings:
        if finding.severity == ERROR:
            raise UserError(finding.message, finding.files)
    if findings and warns:
        log.warning("warning: %d warnings about the data, of which task=doctor tells more%s\n%s", len(findings),
                    "" if is_small else " (there are too many images to look for near-duplicates now)",
                    format_findings(findings, 2, "see task=doctor"))
    for split in splits:
        split.seen.clear()  # it takes memory


def _start_from(cfg: Settled[TrainTask], saved: Mapping[str, Any], path: Path, model: nn.Module) -> None:
    head = build.head_keys(cfg)
    if cfg.train.new_head and not head:
        raise UserError(f"train.new_head=true needs a model whose last layer follows model.num_classes, but no weight "
                        f"of model._target_={cfg.model['_target_']} does.")
    checkpoint.load_weights(model, saved["model"], path, head=head, new_head=cfg.train.new_head)
    warn_of_changes(saved, cfg, OF_INPUT)
    left_out = f", new: {', '.join(sorted(head))}" if cfg.train.new_head else ""
    log.info("weights from %s%s", path, left_out)
    if not saved["config"]:
        log.warning("warning: %s does not say how its images were normalised: dataset.mean and dataset.std must be as "
                    "in its training", path)
    own, given = ({key for key in weights if checkpoint.is_auxiliary(key)}
                  for weights in (model.state_dict(), saved["model"]))
    for heads, what in ((own - given, "new"), (given - own, "left out")):
        if heads:
            log.info("auxiliary heads %s: %s", what, ", ".join(sorted({key.split(".")[1] for key in heads})))


def log_start(state: TrainingState) -> None:
    """Log what is trained, on what, and for how long."""
    cfg, progress, macs = state.cfg, state.progress, state.costs["macs"]
    heads = count_parameters(state.model, aux=True) - count_parameters(state.model, aux=False)
    model_cost = (f"{state.costs['params']:,} parameters" + (f" + {heads:,} in auxiliary heads" if heads else "")
                  + (f", {macs / 1e9:.2f} GMACs an image" if macs else ""))
    log.info("%s: %s; %s, %s%s", type(state.model).__name__, model_cost, cfg.runtime.device, cfg.runtime.precision,
             ", compiled (the first step takes about a minute)" if cfg.runtime.compile else "")
    if state.teacher is not None:
        _log_teacher(state, state.teacher)
    if process_group.is_started():
        log.info("%d processes with batches of %d", process_group.world_size(), cfg.train.batch_size)
    options = {"encoder frozen": cfg.train.freeze_encoder,
               f"encoder trained at {cfg.train.encoder_lr}": cfg.train.encoder_lr is not None,
               f"weight decay {cfg.optim.get('weight_decay')} on kernels only": cfg.train.weight_decay_on == "kernels"}
    if any(options.values()):
        log.info("%s", ", ".join(text for text, is_on in options.items() if is_on))
    log.info("%d steps of %d images%s; run directory %s", state.total_steps, state.images_per_step,
             f", going on after step {progress.step}" if progress.step else "", state.run_dir)


def _log_teacher(state: TrainingState, teacher: Teacher) -> None:
    """Log what a teacher costs: its multiply-adds, and the seconds that it takes for a batch."""
    cfg, channels = state.cfg, len(state.cfg.dataset.mean)
    theirs = measure_cost(teacher.network, state.crop, channels)["macs"]
    own = measure_cost(state.model, state.crop, channels)["macs"]
    images = torch.zeros(cfg.train.batch_size, *state.crop, channels, dtype=torch.uint8, device=state.device)
    with autocast(state.device, cfg.runtime.precision):
        seconds = time_runs(lambda: teacher(images), state.device, warmup=1, repeats=3, seconds=1.0)
    macs = "" if not (theirs and own) else (
        f", {theirs / 1e9:.2f} GMACs a crop, {theirs / (3 * own):.0%} of those of the network's training step")
    parameters = sum(parameter.numel() for parameter in teacher.network.parameters())
    log.info("teacher: %s of %s, %s parameters%s; %.2f s a batch; %s-wise KL divergence, weight %g, temperature %g",
             type(teacher.network).__name__, teacher.path, f"{parameters:,}", macs, min(seconds),
             cfg.train.teacher_loss, cfg.train.teacher_weight, cfg.train.teacher_temperature)
