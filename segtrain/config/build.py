"""The only file that turns config sections into objects, and resolves every `auto`, once: the run keeps the values."""

import functools
import importlib.util
import inspect
import json
import logging
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import torch
from torch import nn

from segtrain import losses
from segtrain.auxiliary import AuxiliaryLoss
from segtrain.config.check import replace_values, settle_values
from segtrain.config.instantiate import call, guarded, locate, target_parameters
from segtrain.config.overrides import walk
from segtrain.config.schema import Config, DatasetSection, Settled, TaskT
from segtrain.data.base import Cached, Dataset, View, take_first
from segtrain.data.channel_statistics import measure_channels
from segtrain.data.folds import SPLITS, pick_fold
from segtrain.data.image_form import ImageForm, find_band_pattern
from segtrain.data.mixes import Mix
from segtrain.data.probe import check_dataset
from segtrain.data.sampling import ClassSampling, make_class_sampling
from segtrain.data.transforms import Augmentation, Normalize
from segtrain.distillation import DistillationLoss
from segtrain.distributed import process_group
from segtrain.errors import UserError, did_you_mean, list_first, show_value
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.models.pretrained import IMAGENET, Normalization
from segtrain.optim import Schedule, group_parameters
from segtrain.profiling import free_memory

log = logging.getLogger(__name__)

# The work on a GPU (pixels of all crops of a run) from which compiling, about a minute, pays for itself. On a CPU a
# trial decides (training/trial.py).
COMPILE_FROM_PIXELS = 5e9
# What dataset.channels leaves to be measured on the training images.
UNMEASURED = {"dtype": None, "range": "auto", "mean": "auto", "std": "auto"}


# ---- the objects, in the order in which a run needs them


def dataset(cfg: Config[Any], split: str, *, targets_only: bool = False, skip_without_mask: bool = False) -> Dataset:
    """Build one split of cfg.dataset, of dataset.fold if that is set, reduced to train.num_images if it is train.

    With `targets_only` images may be missing where the class can do so: only targets will be read; with
    `skip_without_mask` images without a mask are left out even if dataset.skip_without_mask is false.

    Raises:
        UserError: If the data is not there, or cfg.dataset.num_classes differs from the classes found.
    """
    section, folds = cfg.dataset, cfg.dataset.folds
    build_split = functools.partial(_split, cfg, targets_only=targets_only, skip_without_mask=skip_without_mask)
    built: Dataset
    if split in SPLITS and (section.fold is not None or folds.lists is not None):
        base = Path(str(section.arguments.get("root") or ".")).expanduser()
        built = pick_fold({name: build_split(name) for name in dict.fromkeys(folds.of)}, split, section.fold, base,
                          **folds.model_dump(exclude={"of"}))
    else:
        built = build_split(split)
    if split == "train" and cfg.train.num_images is not None:
        if cfg.train.num_images > len(built.names):
            raise UserError(f"train.num_images={cfg.train.num_images}, but the training split has "
                            f"{len(built.names)} images: lower it.")
        return take_first(built, cfg.train.num_images)
    return built


def _split(cfg: Config[Any], split: str, *, targets_only: bool, skip_without_mask: bool) -> Dataset:
    """Build one of the dataset's own splits."""
    node = {"_target_": cfg.dataset.target, **cfg.dataset.arguments}
    given: dict[str, Any] = {"split": split}
    accepted = target_parameters(node, "dataset")
    for name, value in (("targets_only", targets_only), ("with_instances", cfg.dataset.instances == "maps")):
        if name in accepted:
            given[name] = value
    if skip_without_mask and "skip_without_mask" in accepted:
        node["skip_without_mask"] = True
    with process_group.main_first(), _hinting_at_root(cfg):  # it may have to download the data
        built = call(node, "dataset", known=DatasetSection.model_fields, given=given)
    if not isinstance(built, Dataset) or not all(hasattr(built, name) for name in ("labels", "names")):
        raise UserError(f"dataset._target_={cfg.dataset.target} is not a dataset: it must be a subclass of "
                        "segtrain.data.base.Dataset that sets labels and names.")
    built.form = image_form(cfg)
    if not targets_only:
        check_dataset(built, cfg.dataset.target)
    origin = built
    while isinstance(origin, View):
        origin = origin.dataset
    origin.settings = json.dumps([node, given, f"{type(origin).__module__}.{type(origin).__name__}"], sort_keys=True)
    num_classes = cfg.dataset.num_classes
    if num_classes not in (None, len(built.labels)) and cfg.task.name != "evaluate":  # which compares their names
        raise UserError(f"dataset.num_classes={num_classes}, but the dataset has {len(built.labels)} classes "
                        f"({list_first([label.name for label in built.labels], 20)}): set dataset.num_classes="
                        f"{len(built.labels)} or null, or correct the class table.")
    return built


@contextmanager
def _hinting_at_root(cfg: Config[Any]) -> Iterator[None]:
    """Say what to do where the folder that a saved config names is gone: the dataset may have been moved."""
    try:
        yield
    except UserError as error:
        root = cfg.dataset.arguments.get("root")
        if root is None or Path(str(root)).exists() or not (cfg.checkpoint or cfg.resume or cfg.rerun):
            raise
        raise UserError(f"{str(error).rstrip('.')}. {root} is what the run was saved with: if the dataset has been "
                        "moved, say where it is now, dataset.root=PATH", error.files) from error


def image_form(cfg: Config[Any]) -> ImageForm:
    """Return what images are read as; the range is None where it is still to be measured."""
    section, own = cfg.dataset, cfg.dataset.arguments
    band_files = own.get("band_files")
    if band_files and section.channels is None:
        raise UserError(f"dataset.band_files are {len(band_files)} files an image: set dataset.channels to the number "
                        f"of their bands, as dataset.channels={len(band_files)}.")
    ranges = section.range if isinstance(section.range, list) else None
    return ImageForm(
        channels=section.channels, bands=None if section.bands is None else tuple(section.bands), dtype=section.dtype,
        range=None if ranges is None else tuple((low, high) for low, high in ranges),
        nodata=float(section.nodata) if section.nodata == "nan" else section.nodata,
        rgb=None if section.rgb is None else tuple(section.rgb), bits=own.get("image_bits"),
        band_files=tuple(band_files or ()),
        band_pattern=find_band_pattern(own["images"], band_files) if band_files else None)


def list_unmeasured(cfg: Config[Any]) -> list[str]:
    """Return the keys of the section dataset that `measure` is to settle."""
    return [key for key, value in UNMEASURED.items()
            if cfg.dataset.channels is not None and getattr(cfg.dataset, key) == value]


def measure(cfg: Config[TaskT], train: Dataset, others: Sequence[Dataset] = ()) -> Config[TaskT]:
    """Return a config in which dataset.dtype, range, mean and std are what was measured on the training images.

    Without dataset.channels nothing is to be measured. The datasets are then read as the new config says.
    """
    keys = list_unmeasured(cfg)
    if not keys:
        return cfg
    log.info("measuring the channels of the training images")
    found = measure_channels(train, cfg.dataset.range) if process_group.is_main() else None
    found = process_group.broadcast(found)
    assert found is not None, "the first process gives it"
    cfg = replace_values(cfg, {f"dataset.{key}": getattr(found, key) for key in keys})
    for data in (train, *others):
        data.form = image_form(cfg)
    return cfg


def cached(data: Dataset, cache: Any) -> Dataset:
    """Keep a dataset's samples in memory: always, never, or if they take less than half of what is free.

    Each of several processes on a machine keeps its own, so all of them together must fit.
    """
    if cache == "auto":
        sample = data.read(0)
        bytes_each = sample.image.nbytes + sample.target.nbytes
        bytes_each += 0 if sample.instances is None else sample.instances.nbytes
        free = free_memory(torch.device("cpu"))
        cache = bytes_each * len(data.names) < 0.5 * free / process_group.local_world_size()
    return Cached(data) if cache else data


def augmentation(cfg: Config[Any], labels: Sequence[Label] = ()) -> Augmentation:
    """Build the transforms of cfg.augmentation, in their order, then its mixes; `labels` are the dataset's classes."""
    transforms, mixes = {}, {}
    for name, node in cfg.augmentation.items():
        key = f"augmentation.{name}"
        if not isinstance(node, dict):
            raise UserError(f"{key}={node} must be a transform: a mapping with a _target_ and its arguments.")
        built = call(node, key)
        if isinstance(built, Mix):
            built.bind(labels, key)
            mixes[name] = built
        else:
            transforms[name] = _of_kind(built, albumentations.BasicTransform, key)
    return Augmentation(transforms, mixes)


def sampling(cfg: Config[Any], places: Sequence[np.ndarray], labels: Sequence[Label]) -> ClassSampling | None:
    """Build the sampling of cfg.train; None where each image is read once an epoch.

    Args:
        places: For each class the samples of the training split that show it.
        labels: The classes.
    """
    section = cfg.train.sampling
    return None if section.by == "images" else make_class_sampling(places, labels, section.share, section.classes)


def normalize(cfg: Settled[Any], device: torch.device) -> Normalize:
    """Build the normalization; the network must take as many channels as the images have."""
    in_channels, num_channels = cfg.model.get("in_channels", 3), cfg.dataset.channels or 3
    if in_channels != num_channels:
        found = "red, green and blue" if cfg.dataset.channels is None else f"of {num_channels} channels"
        raise UserError(f"model.in_channels={in_channels}, but dataset.channels={show_value(cfg.dataset.channels)}: "
                        f"images are {found}; set dataset.channels={in_channels}, or leave out model.in_channels, "
                        "which follows it.")
    return Normalize(cfg.dataset.mean, cfg.dataset.std, device, channels_last=cfg.runtime.channels_last)


def model(cfg: Config[Any], *, pretrained: bool = True, aux: bool = True) -> nn.Module:
    """Build the network; without `pretrained`, for weights that are loaded afterwards anyway.

    Without `aux` it has no auxiliary heads (model.aux), which training alone needs.
    """
    node = cfg.model if pretrained else _without_weights(cfg.model)
    if not aux and node.get("aux") is True and str(node["_target_"]).startswith("segtrain."):
        node = {**node, "aux": False}
    with process_group.main_first():  # it may have to download weights
        return _of_kind(call(node, "model"), nn.Module, "model")


def _without_weights(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "pretrained": None} if "pretrained" in node else node


def head_keys(cfg: Config[Any]) -> set[str]:
    """Return the state-dict keys of the model whose shapes depend on the number of classes."""
    if "num_classes" not in cfg.model:
        return set()
    node, num_classes = _without_weights(cfg.model), cfg.model["num_classes"]
    own, other = (_shapes({**node, "num_classes": number}) for number in (num_classes, num_classes + 1))
    return {key for key, shape in own.items() if other.get(key) != shape}


def _shapes(node: dict[str, Any]) -> dict[str, torch.Size]:
    """Return the shapes of a model's state dict, without making its weights where its class allows that."""
    try:
        with torch.device("meta"):
            built = call(node, "model")
    except RuntimeError:  # its class reads values while it builds, as of a linspace
        with torch.random.fork_rng([]):
            built = call(node, "model")
    return {key: value.shape for key, value in built.state_dict().items()}


def weighs_classes(cfg: Config[Any]) -> bool:
    """Return whether the loss has class weights, which are computed from the training split."""
    return any(key.rpartition(".")[2] == "class_weights" and isinstance(value, str) and value != "none"
               for key, value in walk(cfg.loss))


def loss(cfg: Config[Any], class_pixels: Sequence[int] | None, image_pixels: Sequence[int] | None) -> losses.Loss:
    """Build the loss; its class weights are computed from the training split.

    Args:
        class_pixels: The pixels of each class; None where `weighs_classes` is false.
        image_pixels: For each class, the labelled pixels of the images that show it; likewise.
    """

    def weighted(section: Any, key: str) -> Any:
        if not isinstance(section, dict):
            return section
        result = {name: weighted(value, f"{key}.{name}") for name, value in section.items()}
        if isinstance(result.get("class_weights"), str):
            result["class_weights"] = guarded(
                key,
                lambda: losses.compute_class_weights(result["class_weights"], class_pixels or (), image_pixels or ()),
                {"class_weights": result["class_weights"]})
        elif isinstance(result.get("class_weights"), list):
            result["class_weights"] = _read_weights(result["class_weights"], f"{key}.class_weights", cfg)
        return result

    return _of_kind(call(weighted(cfg.loss, "loss"), "loss"), losses.Loss, "loss")


def training_loss(cfg: Config[Any], network: nn.Module, main: losses.Loss) -> losses.Loss:
    """Return the loss of what a network returns in training mode, with its auxiliary heads and its teacher's logits."""
    weights: dict[str, float] = getattr(network, "aux_weights", {})
    given = cfg.train.aux_weights or {}
    for name in given:
        if name not in weights:
            known = ", ".join(weights) or "none; some networks have, with model.aux=true"
            raise UserError(f"train.aux_weights names {name}, but {type(network).__name__} has no auxiliary head of "
                            f"that name: it has {known}.{did_you_mean(name, weights)}")
    loss = AuxiliaryLoss(main, {**weights, **given}) if weights else main
    return loss if cfg.train.teacher is None else DistillationLoss(
        loss, cfg.train.teacher_loss, cfg.train.teacher_weight, cfg.train.teacher_temperature)


def _read_weights(given: list[Any], key: str, cfg: Config[Any]) -> torch.Tensor:
    """Return class weights that are given as numbers, one for each class in the order of the class file."""
    if len(given) != cfg.dataset.num_classes:
        raise UserError(f"{key} has {len(given)} values, but the dataset has {cfg.dataset.num_classes} classes: give "
                        "one for each, in their order.")
    if not all(type(value) in (int, float) and 0 <= value < math.inf for value in given) or not any(given):
        raise UserError(f"{key}={given} must be finite numbers of at least 0, not all of them 0.")
    return torch.tensor(given, dtype=torch.float32)


def optimizer(cfg: Config[Any], network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Build the optimizer of all parameters to train, in its fused form on a GPU where it has one.

    With train.encoder_lr or train.weight_decay_on=kernels they come in groups; that of optim.lr is the first.
    """
    node = dict(cfg.optim)
    if device.type == "cuda" and "fused" in target_parameters(node, "optim"):
        node.setdefault("fused", True)
    kernels_only = cfg.train.weight_decay_on == "kernels"
    parameters = group_parameters(network, freeze_encoder=cfg.train.freeze_encoder, encoder_lr=cfg.train.encoder_lr,
                                  decay_kernels_only=kernels_only)
    built = _of_kind(call(node, "optim", given={"params": parameters}), torch.optim.Optimizer, "optim")
    if kernels_only and "weight_decay" not in built.defaults:
        raise UserError(f"train.weight_decay_on=kernels, but optim._target_={node['_target_']} has no weight_decay: "
                        "set train.weight_decay_on=all, or choose another optimizer.")
    closure = inspect.signature(built.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(f"optim._target_={node['_target_']} evaluates the loss several times a step, which the "
                        "training loop does not offer: choose another optimizer.")
    return built


def schedule(cfg: Config[Any], total_steps: int, steps_per_epoch: int) -> Schedule:
    """Build the learning-rate schedule."""
    return call(cfg.scheduler, "scheduler",
                given={"total_steps": total_steps, "steps_per_epoch": steps_per_epoch})


def _of_kind(built: Any, kind: type, key: str) -> Any:
    if not isinstance(built, kind):
        raise UserError(f"{key}._target_ gave an object of type {type(built).__name__}, but {key} must be a "
                        f"{kind.__module__}.{kind.__name__}.")
    return built


# ---- what auto leaves open


def device(cfg: Config[Any]) -> torch.device:
    """Settle runtime.device, and set what belongs to the device: threads, matrix precision.

    Of several processes on a machine with GPUs each takes one of its own.
    """
    name = cfg.runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if process_group.is_started() and name.startswith("cuda"):
        name = f"cuda:{process_group.own_gpu()}"
    elif process_group.is_started() and name == "mps":
        raise UserError("runtime.device=mps serves one process: start segtrain without torchrun, or use "
                        "runtime.device=cpu.")
    try:
        found = torch.device(name)
        if found.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError(f"{found.type} is not supported")
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"runtime.device={name} is not available here ({str(error).splitlines()[0]}): "
                        "use runtime.device=auto or cpu.") from error
    if cfg.runtime.threads:
        torch.set_num_threads(cfg.runtime.threads)
    torch.set_float32_matmul_precision("high")
    if process_group.is_started() and found.type == "cuda":
        torch.cuda.set_device(found)
    return found


def list_open_switches(cfg: Config[Any]) -> list[str]:
    """Return the keys of runtime that a trial on a CPU may settle, and that are left open."""
    return [name for name in ("precision", "channels_last", "compile") if getattr(cfg.runtime, name) == "auto"]


def settle(cfg: Config[TaskT], on: torch.device, *, num_classes: int, cached_in_memory: bool, train_steps: int = 0,
           scored_with: Mapping[str, Any] | None = None) -> Settled[TaskT]:
    """Return a config with every `auto` and open value replaced by what it means for this run and machine.

    Args:
        cfg: The config.
        on: The device.
        num_classes: Classes of the dataset.
        cached_in_memory: Whether all its samples fit into memory.
        train_steps: Optimizer steps of a training.
        scored_with: The section runtime of the checkpoint that is used, whose scores must come out again.
    """
    runtime, (mean, std) = cfg.runtime, _settle_normalization(cfg)
    precision: Any = runtime.precision
    channels_last = runtime.channels_last
    if precision == "auto":
        precision = "bf16" if on.type == "cuda" and has_bf16(on) else "fp32"
        if scored_with is not None:
            precision = _scored_precision(scored_with, on)
    if channels_last == "auto":
        channels_last = (scored_with or {}).get("channels_last", True)
    workers = runtime.workers
    cores = max(1, (os.cpu_count() or 1) // process_group.local_world_size())
    if workers == "auto":
        # On a CPU the loaders would take cores from the training itself, unless they decode files.
        workers = min(16, cores) if on.type != "cpu" else 0 if cached_in_memory else min(2, cores)
    elif workers > (most := max(16, 4 * cores)):
        log.warning("warning: runtime.workers=%d would fill this machine's memory with processes that its cores cannot "
                    "feed: %d are started. What is trained does not depend on it.", workers, most)
        workers = most
    sync_batchnorm = runtime.sync_batchnorm
    if sync_batchnorm == "auto":
        sync_batchnorm = on.type == "cuda"  # torch has none for other devices
    compiles = runtime.compile
    if compiles == "auto":
        pixels = train_steps * cfg.train.batch_size * cfg.train.accumulate * math.prod(cfg.dataset.crop)
        compiles = on.type == "cuda" and can_compile(on) and pixels >= COMPILE_FROM_PIXELS
    fills = {f"augmentation.{name}.fill_mask": IGNORE_INDEX for name, node in cfg.augmentation.items()
             if isinstance(node, dict) and "fill_mask" not in node and _fills_targets(node, f"augmentation.{name}")}
    return settle_values(cfg, fills | {
        "dataset.num_classes": num_classes, "dataset.mean": mean, "dataset.std": std,
        "dataset.range": cfg.dataset.range if cfg.dataset.channels is not None else None,
        "runtime.precision": precision,
        "runtime.channels_last": channels_last,
        "runtime.device": on.type if process_group.is_started() else str(on),  # which one is this process's own matter
        "runtime.workers": workers, "runtime.sync_batchnorm": sync_batchnorm, "runtime.compile": compiles})


def _settle_normalization(cfg: Config[Any]) -> tuple[list[float], list[float]]:
    """Return mean and std. Those of dataset.channels have been measured, or no image is looked at."""
    mean, std, channels = cfg.dataset.mean, cfg.dataset.std, cfg.dataset.channels
    if channels is not None:
        return ([0.5] * channels if mean == "auto" else mean), ([0.25] * channels if std == "auto" else std)
    if mean == "auto" or std == "auto":
        expected = encoder_normalization(cfg) if cfg.model.get("pretrained") else None
        mean = list((expected or IMAGENET)[0]) if mean == "auto" else mean
        std = std if std != "auto" else [1.0] * len(mean) if expected is None else list(expected[1])
    return mean, std


def has_bf16(on: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16; others emulate it, several times slower than float32."""
    if on.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if on.type != "cpu":
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _scored_precision(scored_with: Mapping[str, Any], on: torch.device) -> str:
    """Return the precision of a checkpoint's scores; float32 where it came from another device and this lacks it."""
    precision = scored_with.get("precision", "fp32")
    same_device = str(scored_with.get("device", "")).split(":")[0] == on.type
    lacks_it = (precision == "bf16" and not has_bf16(on)) or (precision == "fp16" and on.type != "cuda")
    return "fp32" if lacks_it and not same_device else precision


def warn_of_emulation(cfg: Settled[Any], on: torch.device) -> None:
    """Warn of a precision that the device only emulates."""
    if cfg.runtime.precision == "bf16" and on.type in ("cpu", "cuda") and not has_bf16(on):
        log.warning("warning: this %s has no bfloat16 instructions: runtime.precision=bf16 is emulated, and slow; use "
                    "runtime.precision=fp32", {"cpu": "CPU", "cuda": "GPU"}[on.type])


def _fills_targets(node: dict[str, Any], key: str) -> bool:
    """Return whether a transform fills pixels of the target that it uncovers, with class 0 if it is left to itself."""
    parameter = target_parameters(node, key).get("fill_mask")
    return parameter is not None and parameter.default not in (None, IGNORE_INDEX)


def encoder_normalization(cfg: Config[Any]) -> Normalization:
    """Return the mean and std that a pretrained encoder expects; ImageNet's where the network does not say."""
    arguments = {name: value for name, value in cfg.model.items() if name != "_target_"}
    normalization = getattr(locate(cfg.model["_target_"], "model"), "normalization", None)
    return normalization(**arguments) if normalization else IMAGENET


def can_compile(on: torch.device) -> bool:
    """Return whether torch.compile has what it needs: a C++ compiler, and Triton on a GPU."""
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    return ((on.type == "cpu" or importlib.util.find_spec("triton") is not None)
            and any(shutil.which(name) for name in compilers if name))


def memory_format(cfg: Settled[Any]) -> torch.memory_format:
    """Return the memory layout that runtime.channels_last asks for."""
    return torch.channels_last if cfg.runtime.channels_last else torch.contiguous_format


def lay_out(network: nn.Module, cfg: Settled[Any]) -> nn.Module:
    """Put a network's weights into the memory layout that runtime.channels_last asks for, and return the network.

    The strides of 1x1 kernels fit both layouts, and decide in which one torch convolves: so they are set, too.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = torch.empty_like(tensor, memory_format=memory_format(cfg)).copy_(tensor.data)
    return network


def dataset_name(cfg: Config[Any]) -> str:
    """Return the name of a dataset in messages and results: that of its class, in lower case."""
    return cfg.dataset.target.rsplit(".", 1)[-1].lower()
