"""What a training is made of: its parts, built from the config, saved to checkpoints and restored from them."""

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segtrain import build, checkpoint, config, tracking
from segtrain.cost import cost
from segtrain.datasets.base import Dataset
from segtrain.datasets.loading import TrainingLoader
from segtrain.datasets.survey import Survey, survey
from segtrain.datasets.views import Cached
from segtrain.errors import UserError
from segtrain.losses import Loss
from segtrain.parameters import encoder_of
from segtrain.predictions import file_form
from segtrain.tasks.evaluate import dataset_name
from segtrain.transforms import Augmentation, Normalize
from segtrain.trial import try_out

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


def prepare(cfg: Any, run_dir: Path) -> Training:
    """Read the data, settle what cfg leaves open, build the parts; restore them where run_dir holds a checkpoint.

    Raises:
        UserError: For whatever is at fault with the config, the data or the checkpoint, before the first step.
    """
    last = run_dir / "checkpoints" / checkpoint.LAST
    saved = checkpoint.load(last) if last.exists() else None
    device = build.device(cfg)
    train_data, val_data = build.dataset(cfg, "train"), build.dataset(cfg, "val")
    _check_options(cfg, train_data)
    if saved is None:
        _check_frozen(cfg)
    train_data, val_data = build.cached(train_data, cfg.dataset.cache), build.cached(val_data, cfg.dataset.cache)
    steps_per_epoch = math.ceil(len(train_data.names) // cfg.train.batch_size / cfg.train.accumulate)
    total_steps = min(cfg.train.epochs * steps_per_epoch, cfg.train.max_steps or math.inf)
    build.settle(cfg, device, num_classes=len(train_data.labels), cached_in_memory=isinstance(train_data, Cached),
                 train_steps=total_steps)

    torch.manual_seed(cfg.seed)
    network = build.model(cfg, pretrained=saved is None and cfg.checkpoint is None)
    if saved is None and cfg.checkpoint is not None:
        _start_from(cfg, network)
    network = network.to(device).to(memory_format=build.memory_format(cfg))
    optimizer = build.optimizer(cfg, network, device)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, build.schedule(cfg, total_steps, steps_per_epoch))
    normalize, augmentation = build.normalize(cfg, device), build.augmentation(cfg)

    # only now, when every key has been checked, comes what may take minutes
    log.info("%s: reading %d training and %d validation images", dataset_name(cfg), len(train_data.names),
             len(val_data.names))
    train_found, val_found = survey(train_data, cfg.dataset.instances), survey(val_data, cfg.dataset.instances)
    for remark in dict.fromkeys([*train_found.remarks, *val_found.remarks]):  # once, if both have the same to say
        log.warning("warning: %s", remark)
    _try_out(cfg, network, augmentation, train_data, val_found)
    tracking.write_config(run_dir, config.to_container(cfg))
    training = Training(
        cfg, run_dir, device, train_data, val_data, train_found, val_found, steps_per_epoch, total_steps, network,
        average=copy.deepcopy(network).requires_grad_(False) if cfg.train.ema_decay else None,
        loss_fn=build.loss(cfg, train_found.class_pixels, train_found.image_pixels).to(device),
        optimizer=optimizer, scheduler=scheduler, normalize=normalize,
        scaler=torch.amp.GradScaler(device.type, enabled=cfg.runtime.precision == "fp16"),
        loader=TrainingLoader(train_data, augmentation, batch_size=cfg.train.batch_size, seed=cfg.seed,
                              workers=cfg.runtime.workers, pin_memory=device.type == "cuda"),
        costs=cost(network, val_found.sizes[0], len(cfg.dataset.mean)),
        progress=Progress(),
    )
    if cfg.train.freeze_encoder:  # after its cost was counted: the parameters are the network's own, frozen or not
        encoder_of(network, "train.freeze_encoder").requires_grad_(False)
    if saved is not None:
        _restore(training, saved, last)
    _log_start(training)
    return training


def _check_options(cfg: Any, train_data: Dataset) -> None:
    num_images = len(train_data.names)
    if cfg.train.batch_size > num_images:
        raise UserError(f"train.batch_size={cfg.train.batch_size} is larger than the training split of {num_images} "
                        f"images: use train.batch_size={num_images} or less.")


def _check_frozen(cfg: Any) -> None:
    """Refuse to freeze an encoder whose weights are random; a class of the user's may load weights in its own way."""
    may_load = "pretrained" not in cfg.model and not str(cfg.model.get("_target_")).startswith("segtrain.")
    if cfg.train.freeze_encoder and cfg.checkpoint is None and not cfg.model.get("pretrained") and not may_load:
        raise UserError("train.freeze_encoder=true would keep random weights: give the encoder some to keep, by "
                        "model.pretrained=DEFAULT (where the model has it) or checkpoint=.")


def _try_out(cfg: Any, network: nn.Module, augmentation: Augmentation, train_data: Dataset, val_found: Survey) -> None:
    """Run the network once as it is trained, and once as it is validated."""
    sample = train_data.read(0)
    crop, _ = augmentation(sample.image, sample.target, (cfg.seed, 0, 0))
    for size, training in (((crop.shape[0], crop.shape[1]), True), (val_found.sizes[0], False)):
        try_out(network, cfg.model._target_, size, in_channels=len(cfg.dataset.mean),
                num_classes=len(train_data.labels), training=training)


def _start_from(cfg: Any, network: nn.Module) -> None:
    path = checkpoint.find(cfg.checkpoint)
    class_layer = build.class_layer(cfg)
    if cfg.train.new_head and not class_layer:
        raise UserError(f"train.new_head=true needs a model whose last layer follows model.num_classes, but no weight "
                        f"of model._target_={cfg.model._target_} does.")
    checkpoint.load_weights(network, checkpoint.load(path)["model"], path, class_layer=class_layer,
                            new_head=cfg.train.new_head)
    left_out = f", new: {', '.join(sorted(class_layer))}" if cfg.train.new_head else ""
    log.info("weights from %s%s", path, left_out)


def _log_start(training: Training) -> None:
    cfg, progress, macs = training.cfg, training.progress, training.costs["macs"]
    model_cost = f"{training.costs['params']:,} parameters" + (f", {macs / 1e9:.2f} GMACs an image" if macs else "")
    log.info("%s: %s; %s, %s%s", type(training.network).__name__, model_cost, cfg.runtime.device, cfg.runtime.precision,
             ", compiled (the first step takes about a minute)" if cfg.runtime.compile else "")
    options = {"encoder frozen": cfg.train.freeze_encoder,
               f"encoder trained at {cfg.train.encoder_lr}": cfg.train.encoder_lr is not None,
               f"weight decay {cfg.optim.get('weight_decay')} on kernels only": cfg.train.weight_decay_on == "kernels"}
    if any(options.values()):
        log.info("%s", ", ".join(said for said, is_on in options.items() if is_on))
    log.info("%d steps of %d images%s; run directory %s", training.total_steps,
             cfg.train.batch_size * cfg.train.accumulate,
             f", going on after step {progress.step}" if progress.step else "", training.run_dir)


def save_last(training: Training) -> None:
    """Save all that a resumed run needs to end bit for bit as one that was never stopped."""
    checkpoint.save(training.run_dir / "checkpoints" / checkpoint.LAST, {
        "model": training.network.state_dict(), "optimizer": training.optimizer.state_dict(),
        "scheduler": {"last_epoch": training.scheduler.last_epoch}, "scaler": training.scaler.state_dict(),
        "ema": None if training.average is None else training.average.state_dict(),
        "rng": checkpoint.random_state(), **_common_state(training)})


def save_best(training: Training) -> Path:
    """Save the weights that are scored; what only a resume needs is left out."""
    path = training.run_dir / "checkpoints" / checkpoint.BEST
    left_out = dict.fromkeys(("optimizer", "scheduler", "scaler", "ema", "rng"))
    checkpoint.save(path, {"model": training.scored.state_dict(), **left_out, **_common_state(training)})
    return path


def _common_state(training: Training) -> dict[str, Any]:
    found = training.train_found
    return {"epoch": training.progress.epoch, "step": training.progress.step, "progress": asdict(training.progress),
            "config": config.to_container(training.cfg), "class_sizes": found.class_sizes,
            "class_pixels": found.class_pixels, "image_pixels": found.image_pixels,
            "labels": [asdict(label) for label in training.train_data.labels],
            "file_form": asdict(file_form(training.train_data))}


def _restore(training: Training, saved: dict[str, Any], path: Path) -> None:
    class_layer = build.class_layer(training.cfg)
    checkpoint.load_weights(training.network, saved["model"], path, class_layer=class_layer)
    if training.average is not None:
        checkpoint.load_weights(training.average, saved["ema"] or saved["model"], path, class_layer=class_layer)
    training.scheduler.last_epoch = saved["scheduler"]["last_epoch"]
    _restore_optimizer(training.optimizer, saved["optimizer"], path)  # with the learning rate of the next step
    training.scaler.load_state_dict(saved["scaler"])
    training.progress = Progress(**saved["progress"])
    checkpoint.restore_random_state(saved["rng"])
    before, now = (tracking.flatten(each) for each in (saved["config"], config.to_container(training.cfg)))
    before = {**config.FORMERLY, **before}
    changed = [f"{key} {before.get(key)} -> {value}" for key, value in now.items()
               if before.get(key) != value and key not in config.WITHOUT_EFFECT]
    if changed:
        log.info("changed since the checkpoint, so no longer bit-identical to an unbroken run: %s", ", ".join(changed))


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise UserError(f"{path} was trained with other groups of parameters ({error}): continue with the saved "
                        "train.freeze_encoder, train.encoder_lr and train.weight_decay_on, or start a new run from its "
                        "weights with checkpoint=.") from error
