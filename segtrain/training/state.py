"""What a training is made of: its parts, built from the config.
The state of a training: copied in memory, saved to checkpoints, restored from them.
"""

import copy
import hashlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import nn

from segtrain.config import build
from segtrain.config.schema import Config, Settled, TrainTask
from segtrain.data.base import Cached, Dataset
from segtrain.data.label_files import file_form
from segtrain.data.loading import TrainingLoader
from segtrain.data.statistics import DatasetStatistics, compute_statistics
from segtrain.data.transforms import Augmentation, Normalize
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.inference.sanity_check import check_logits
from segtrain.losses import Loss
from segtrain.optim import encoder_of
from segtrain.profiling import cost
from segtrain.run import checkpoint
from segtrain.training.resume import check_changes

log = logging.getLogger(__name__)


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(strict=True))  # a file of others may hold anything
class Progress:
    """How far a run has come: plain numbers, kept in its checkpoints. New ones need a default, for older checkpoints.

    Attributes:
        epoch: Epochs completed, validation included.
        step: Optimizer steps completed, skipped ones counted.
        done: Those of the running epoch.
        steps_per_epoch: Steps of a whole epoch.
        loss_sums: The running epoch's sums of the parts of the loss.
        normalizers: What they are divided by.
        images: Images of the running epoch, which tell where in it to go on.
        waited: Its seconds of waiting for data.
        trained: Its seconds of training.
        seconds: Seconds of training and validation of the whole run.
        best: results.json of the best checkpoint so far.
        since_best: Validations since then.
        skipped: Steps that were skipped because loss or gradient were not finite.
        skipped_in_a_row: Those since the last step that was not.
    """

    epoch: int = 0
    step: int = 0
    done: int = 0
    steps_per_epoch: int = 0
    loss_sums: list[float] = field(default_factory=list)
    normalizers: list[float] = field(default_factory=list)
    images: int = 0
    waited: float = 0.0
    trained: float = 0.0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    since_best: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0


@dataclass
class Training:
    """Everything a run is made of; cfg holds no `auto` any more."""

    cfg: Settled[TrainTask]
    run_dir: Path
    device: torch.device
    train_data: Dataset
    val_data: Dataset
    train_found: DatasetStatistics
    val_found: DatasetStatistics
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
    names: dict[str, str]  # a digest of the images of each split
    saved_step: int | None = None  # of last.pt
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def position(self) -> int:
        """How many steps the run has come on the course of its learning rate."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.done

    @property
    def scored(self) -> nn.Module:
        """The network whose scores count."""
        return self.network if self.average is None else self.average


def prepare(cfg: Config[TrainTask], run_dir: Path, saved: dict[str, Any] | None = None,
            saved_in: Path | None = None) -> Training:
    """Read the data, settle what cfg leaves open, build the parts.

    Args:
        cfg: The config; that of the training is the same without any `auto`.
        run_dir: The run directory, which is left as it is.
        saved: The checkpoint to go on from, whose state `saving.restore` then puts into the parts.
        saved_in: Its file.

    Raises:
        UserError: For whatever is at fault with the config or the data, or cannot change while a run goes on.
    """
    device = build.device(cfg)
    train_data, val_data = build.dataset(cfg, "train"), build.dataset(cfg, "val")
    _check_options(cfg, train_data)
    if saved is None:
        _check_frozen(cfg)
    train_data, val_data = build.cached(train_data, cfg.dataset.cache), build.cached(val_data, cfg.dataset.cache)
    images_per_batch = cfg.train.batch_size * process_group.world_size()
    steps_per_epoch = math.ceil(len(train_data.names) // images_per_batch / cfg.train.accumulate)
    progress = Progress(steps_per_epoch=steps_per_epoch)
    if saved is not None:
        with checkpoint.restoring(saved_in or run_dir):
            progress = _progress(saved, steps_per_epoch, images_per_batch * cfg.train.accumulate)
    # Fewer or more processes make steps of another size: the run has then made more or fewer than its epochs have.
    shift = progress.step - progress.epoch * steps_per_epoch - progress.done
    total_steps = cfg.train.epochs * steps_per_epoch + shift
    if cfg.train.max_steps is not None:
        total_steps = min(total_steps, cfg.train.max_steps)
    cfg = build.settle(cfg, device, num_classes=len(train_data.labels),
                       cached_in_memory=isinstance(train_data, Cached), train_steps=total_steps)
    names = {"train": _digest(train_data.names), "val": _digest(val_data.names)}
    if saved is not None:
        check_changes(saved, cfg, steps_per_epoch=steps_per_epoch, names=names)

    torch.manual_seed(cfg.seed)
    network = build.model(cfg, pretrained=saved is None and cfg.checkpoint is None)
    if saved is None and cfg.checkpoint is not None:
        _start_from(cfg, cfg.checkpoint, network)
    network = network.to(device).to(memory_format=build.memory_format(cfg))
    optimizer = build.optimizer(cfg, network, device)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, build.schedule(cfg, total_steps - shift, steps_per_epoch))
    normalize, augmentation = build.normalize(cfg, device), build.augmentation(cfg)

    # only now, when every key has been checked, comes what may take minutes
    log.info("%s: reading %d training and %d validation images", build.dataset_name(cfg), len(train_data.names),
             len(val_data.names))
    train_found = compute_statistics(train_data, cfg.dataset.instances)
    val_found = compute_statistics(val_data, cfg.dataset.instances)
    for remark in dict.fromkeys([*train_found.remarks, *val_found.remarks]):  # once, if both have the same to say
        log.warning("warning: %s", remark)
    _check_model(cfg, network, augmentation, train_data, val_found)
    training = Training(
        cfg, run_dir, device, train_data, val_data, train_found, val_found, steps_per_epoch, total_steps, network,
        average=copy.deepcopy(network).requires_grad_(False) if cfg.train.ema_decay else None,
        loss_fn=build.loss(cfg, train_found.class_pixels, train_found.image_pixels).to(device),
        optimizer=optimizer, scheduler=scheduler, normalize=normalize,
        scaler=torch.amp.GradScaler(device.type, enabled=cfg.runtime.precision == "fp16"),
        loader=TrainingLoader(train_data, augmentation, batch_size=cfg.train.batch_size, seed=cfg.seed,
                              workers=cfg.runtime.workers, pin_memory=device.type == "cuda",
                              rank=process_group.rank(), num_processes=process_group.world_size()),
        costs=cost(network, val_found.sizes[0], len(cfg.dataset.mean)),
        progress=progress, names=names,
    )
    if cfg.train.freeze_encoder:  # after its cost was counted: the parameters are the network's own, frozen or not
        encoder_of(network, "train.freeze_encoder").requires_grad_(False)
    return training


def _progress(saved: dict[str, Any], steps_per_epoch: int, images_per_step: int) -> Progress:
    """Read how far a run has come, its steps of the running epoch counted in those of now."""
    progress = Progress(**saved["progress"])
    progress.done = math.ceil(progress.images / images_per_step)
    progress.steps_per_epoch = steps_per_epoch
    return progress


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]


def _check_options(cfg: Config[TrainTask], train_data: Dataset) -> None:
    num_images, num_processes = len(train_data.names), process_group.world_size()
    if num_processes > num_images:
        raise UserError(f"{num_processes} processes, but {num_images} training images: start fewer processes.")
    if cfg.train.batch_size * num_processes > num_images:
        of_each = f" of each of {num_processes} processes" if num_processes > 1 else ""
        raise UserError(f"train.batch_size={cfg.train.batch_size}{of_each} is larger than the training split of "
                        f"{num_images} images: use train.batch_size={num_images // num_processes} or less.")


def _check_frozen(cfg: Config[TrainTask]) -> None:
    """Refuse to freeze an encoder whose weights are random; a class of the user's may load weights in its own way."""
    may_load = "pretrained" not in cfg.model and not str(cfg.model.get("_target_")).startswith("segtrain.")
    if cfg.train.freeze_encoder and cfg.checkpoint is None and not cfg.model.get("pretrained") and not may_load:
        raise UserError("train.freeze_encoder=true would keep random weights: give the encoder some to keep, by "
                        "model.pretrained=DEFAULT (where the model has it) or checkpoint=.")


def _check_model(cfg: Config[TrainTask], network: nn.Module, augmentation: Augmentation, train_data: Dataset,
             val_found: DatasetStatistics) -> None:
    """Run the network once as it is trained, and once as it is validated."""
    sample = train_data.read(0)
    crop, _ = augmentation(sample.image, sample.target, (cfg.seed, 0, 0))
    for size, training in (((crop.shape[0], crop.shape[1]), True), (val_found.sizes[0], False)):
        check_logits(network, cfg.model["_target_"], size, in_channels=len(cfg.dataset.mean),
                num_classes=len(train_data.labels), training=training)


def _start_from(cfg: Config[TrainTask], weights: str, network: nn.Module) -> None:
    path = checkpoint.find(weights)
    class_layer = build.class_layer(cfg)
    if cfg.train.new_head and not class_layer:
        raise UserError(f"train.new_head=true needs a model whose last layer follows model.num_classes, but no weight "
                        f"of model._target_={cfg.model['_target_']} does.")
    checkpoint.load_weights(network, checkpoint.load(path)["model"], path, class_layer=class_layer,
                            new_head=cfg.train.new_head)
    left_out = f", new: {', '.join(sorted(class_layer))}" if cfg.train.new_head else ""
    log.info("weights from %s%s", path, left_out)


def log_start(training: Training) -> None:
    """Say what is trained, on what, and for how long."""
    cfg, progress, macs = training.cfg, training.progress, training.costs["macs"]
    model_cost = f"{training.costs['params']:,} parameters" + (f", {macs / 1e9:.2f} GMACs an image" if macs else "")
    log.info("%s: %s; %s, %s%s", type(training.network).__name__, model_cost, cfg.runtime.device, cfg.runtime.precision,
             ", compiled (the first step takes about a minute)" if cfg.runtime.compile else "")
    if process_group.is_started():
        log.info("%d processes with batches of %d", process_group.world_size(), cfg.train.batch_size)
    options = {"encoder frozen": cfg.train.freeze_encoder,
               f"encoder trained at {cfg.train.encoder_lr}": cfg.train.encoder_lr is not None,
               f"weight decay {cfg.optim.get('weight_decay')} on kernels only": cfg.train.weight_decay_on == "kernels"}
    if any(options.values()):
        log.info("%s", ", ".join(said for said, is_on in options.items() if is_on))
    log.info("%d steps of %d images%s; run directory %s", training.total_steps,
             cfg.train.batch_size * cfg.train.accumulate * process_group.world_size(),
             f", going on after step {progress.step}" if progress.step else "", training.run_dir)



log = logging.getLogger(__name__)


def is_due(training: Training) -> bool:
    """Say whether train.save_steps or train.save_minutes ask for a checkpoint after this step.

    Several processes all ask, and all hear the same, though their clocks differ.
    """
    cfg = training.cfg.train
    is_time = cfg.save_minutes is not None and bool(
        process_group.largest(int(time.monotonic() - training.saved_at >= 60 * cfg.save_minutes)))
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
    process_group.all_gather(None)
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
            "config": training.cfg.plain(), "processes": process_group.world_size(),
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
                 training.cfg.scheduler["_target_"].rpartition(".")[2])


def is_finite(training: Training) -> bool:
    """Say whether all weights and statistics of the network are finite."""
    values = [value for value in training.network.state_dict().values() if value.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in values]).all())
