"""The only file that turns config nodes into objects.

A node with a `_target_` is called with its other values, after they have been checked against the target's signature:
names, annotated types, and the nearest name for one that is misspelt. Everything that `auto` leaves open is settled
here too, once, so that the settled value can be kept with the run.
"""

import importlib
import inspect
import os
import shutil
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import albumentations
import numpy as np
import pydantic
import torch
from torch import nn

from segtrain import losses
from segtrain.config import OPEN_GROUPS, DatasetSettings, nearest, override_key, to_container
from segtrain.datasets.base import Dataset
from segtrain.datasets.views import Cached, Subset
from segtrain.errors import UserError
from segtrain.schedules import Schedule
from segtrain.transforms import Augmentation, Normalize

IMAGENET_STD = [0.229, 0.224, 0.225]
# The work (pixels of all crops of a run) from which compiling, about a minute on a CPU, has paid for itself.
COMPILE_FROM_PIXELS = {"cpu": 0.5e9, "cuda": 5e9}

# What a config that comes out of a checkpoint or a run directory may name: defined in these packages, of this kind.
TRUSTED = {
    "model": (("segtrain.models", "torchvision.models"), nn.Module),
    "optim": (("torch.optim",), torch.optim.Optimizer),
    "scheduler": (("segtrain.schedules",), None),
    "loss": (("segtrain.losses",), losses.Loss),
    "dataset": (("segtrain.datasets",), None),
    "augmentation": (("albumentations",), albumentations.BasicTransform),
}


# ---- the objects, in the order in which a run needs them


def dataset(cfg: Any, split: str) -> Dataset:
    """Build one split of cfg.dataset, reduced to train.num_images where it is the training split.

    Raises:
        UserError: If the data is not there, or cfg.dataset.num_classes differs from the classes found.
    """
    settings = {item.name for item in fields(DatasetSettings)}
    node = to_container(cfg.dataset)
    built = call({key: value for key, value in node.items() if key not in settings}, "dataset",
                 known=settings, given={"split": split})
    num_classes = node.get("num_classes")
    if num_classes is not None and num_classes != len(built.labels):
        raise UserError(f"dataset.num_classes={num_classes}, but the dataset has {len(built.labels)} classes: "
                        "leave dataset.num_classes as it is.")
    if split == "train" and cfg.train.num_images is not None:
        if cfg.train.num_images > len(built.names):
            raise UserError(f"train.num_images={cfg.train.num_images}, but the training split has "
                            f"{len(built.names)} images: lower it.")
        return Subset(built, cfg.train.num_images)
    return built


def cached(data: Dataset, cache: Any) -> Dataset:
    """Keep a dataset's samples in memory: always, never, or if they take less than half of what is free."""
    if str(cache).lower() == "auto":
        sample = data.read(0)
        bytes_each = sample.image.nbytes + sample.target.nbytes
        bytes_each += 0 if sample.instances is None else sample.instances.nbytes
        cache = bytes_each * len(data.names) < 0.5 * _free_memory()
    return Cached(data) if str(cache).lower() == "true" else data


def augmentation(cfg: Any) -> Augmentation:
    """Build the transforms of cfg.augmentation, in their order."""
    node = to_container(cfg.augmentation)
    for name, transform in node.items():
        if not isinstance(transform, dict):
            raise UserError(f"augmentation.{name} must be a transform with a _target_.{nearest(str(name), node)}")
    return Augmentation([call(transform, f"augmentation.{name}") for name, transform in node.items()])


def normalize(cfg: Any, device: torch.device) -> Normalize:
    """Build the normalisation; the dataset's pictures have three channels, and so must the model."""
    in_channels = cfg.model.get("in_channels", 3)
    if in_channels != len(cfg.dataset.mean) or len(cfg.dataset.mean) != 3:
        raise UserError(f"model.in_channels={in_channels} and dataset.mean={list(cfg.dataset.mean)}: "
                        "pictures are read as RGB, so both need 3 channels.")
    return call({"_target_": "segtrain.transforms.Normalize", "mean": list(cfg.dataset.mean),
                 "std": list(cfg.dataset.std)}, "dataset",
                given={"device": device, "channels_last": cfg.runtime.channels_last})


def model(cfg: Any, *, pretrained: bool = True) -> nn.Module:
    """Build the network; without `pretrained`, for weights that are loaded afterwards anyway."""
    node = to_container(cfg.model)
    if not pretrained and "pretrained" in node:
        node["pretrained"] = None
    built = call(node, "model")
    if not isinstance(built, nn.Module):
        raise UserError(f"model._target_={node['_target_']} gave a {type(built).__name__}, not a torch.nn.Module.")
    return built


def class_layer(cfg: Any) -> set[str]:
    """Return the state-dict keys of the model whose shapes depend on the number of classes."""
    with torch.device("meta"):
        shapes = []
        for more in (0, 1):
            node = {**to_container(cfg.model), "pretrained": None}
            node = {key: value for key, value in node.items() if key in cfg.model}
            node["num_classes"] += more
            shapes.append({key: value.shape for key, value in call(node, "model").state_dict().items()})
    return {key for key, shape in shapes[0].items() if shapes[1].get(key) != shape}


def loss(cfg: Any, class_pixels: Sequence[int], image_pixels: Sequence[int]) -> losses.Loss:
    """Build the loss, its class weights computed from the training split.

    Args:
        cfg: The config.
        class_pixels: The pixels of each class.
        image_pixels: For each class, the labelled pixels of the images that show it.
    """

    def weighted(section: Any, key: str) -> Any:
        if not isinstance(section, dict):
            return section
        result = {name: weighted(value, f"{key}.{name}") for name, value in section.items()}
        if isinstance(result.get("class_weights"), str):
            result["class_weights"] = _user_error(
                f"{key}.class_weights", losses.class_weights, result["class_weights"], class_pixels, image_pixels)
        return result

    return call(weighted(to_container(cfg.loss), "loss"), "loss")


def optimizer(cfg: Any, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Build the optimizer of all trainable parameters, in its fused form on a GPU where it has one."""
    node = to_container(cfg.optim)
    target = locate(str(node.get("_target_")), "optim")
    if device.type == "cuda" and "fused" in inspect.signature(target).parameters:
        node.setdefault("fused", True)
    return call(node, "optim", given={"params": [p for p in network.parameters() if p.requires_grad]})


def schedule(cfg: Any, total_steps: int, steps_per_epoch: int) -> Schedule:
    """Build the course of the learning rate."""
    return call(to_container(cfg.scheduler), "scheduler",
                given={"total_steps": total_steps, "steps_per_epoch": steps_per_epoch})


# ---- what auto leaves open


def device(cfg: Any) -> torch.device:
    """Settle runtime.device, and set what belongs to the device: threads, matrix precision."""
    name = cfg.runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"runtime.device={name} is not to be had here ({str(error).splitlines()[0]}): "
                        "use runtime.device=auto or cpu.") from error
    if cfg.runtime.threads:
        torch.set_num_threads(cfg.runtime.threads)
    torch.set_float32_matmul_precision("high")
    return found


def settle(cfg: Any, on: torch.device, *, num_classes: int, cached_in_memory: bool, train_steps: int = 0) -> None:
    """Replace every `auto` and open value of a config by what it means for this run and machine, in place."""
    cfg.dataset.num_classes = num_classes
    if str(cfg.dataset.std) == "auto":
        cfg.dataset.std = IMAGENET_STD if cfg.model.get("pretrained") else [1.0] * len(cfg.dataset.mean)
    cfg.runtime.device = str(on)
    if cfg.runtime.precision == "auto":
        cfg.runtime.precision = "bf16" if on.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if str(cfg.runtime.workers) == "auto":
        # On a CPU the loaders would take cores from the training itself, unless they decode files.
        cores = os.cpu_count() or 1
        cfg.runtime.workers = min(16, cores) if on.type != "cpu" else 0 if cached_in_memory else min(2, cores)
    if str(cfg.runtime.compile).lower() == "auto":
        pixels = train_steps * cfg.train.batch_size * cfg.train.accumulate * int(np.prod(cfg.dataset.crop))
        cfg.runtime.compile = _can_compile(on) and pixels >= COMPILE_FROM_PIXELS.get(on.type, float("inf"))


def _can_compile(on: torch.device) -> bool:
    """Say whether torch.compile has what it needs: a C++ compiler on CPUs, Triton on GPUs."""
    if sys.platform == "win32" or on.type not in ("cpu", "cuda"):
        return False
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    return any(shutil.which(name) for name in compilers if name) and (
        on.type == "cpu" or importlib.util.find_spec("triton") is not None)


def _free_memory() -> int:
    """Return the bytes of memory that are free, 0 where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


# ---- from a node to an object


def call(node: Mapping[str, Any], key: str, *, given: Mapping[str, Any] | None = None, known: Iterable[str] = ()) -> Any:
    """Call a node's target with its values, nested nodes first.

    Args:
        node: `_target_` and keyword arguments.
        key: Where the node stands in the config, for messages.
        given: Further arguments that no config can hold.
        known: Further names to suggest for a misspelt one.

    Raises:
        UserError: Names the key and the remedy: an unknown target, a misspelt or missing argument, a value of the wrong
            type, or whatever ValueError the target itself raises.
    """
    if not isinstance(node.get("_target_"), str):
        raise UserError(f"{key} needs a _target_, the class or function to build it with.")
    target = locate(node["_target_"], key)
    arguments = {name: _nested(value, f"{key}.{name}") for name, value in node.items() if name != "_target_"}
    given = dict(given or {})
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(target)
    for name, value in arguments.items():
        if name not in parameters and not takes_any or name in given:
            names = [*(set(parameters) - set(given)), *known]
            raise UserError(f"{key}.{name} is not a key of {node['_target_']}.{nearest(name, names)}")
        arguments[name] = _checked(value, hints.get(name, Any), f"{key}.{name}")
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if required and name not in arguments and name not in given:
            raise UserError(f"{key}.{name} has no value, but {node['_target_']} needs it: {key}.{name}=...")
    return _user_error(key, target, **arguments, **given)


def _nested(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        if "_target_" in value:
            return call(value, key)
        return {name: _nested(item, f"{key}.{name}") for name, item in value.items()}
    return value


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # a signature that cannot be read is left to the target itself
        return {}


def _checked(value: Any, hint: Any, key: str) -> Any:
    """Return a value as its annotation wants it, a list as a tuple where it says so."""
    if isinstance(value, bool) and hint in (int, float):
        raise UserError(f"{key}={str(value).lower()} has the wrong type: a number is needed.")
    try:
        adapter = pydantic.TypeAdapter(hint, config={"arbitrary_types_allowed": True})
    except (pydantic.PydanticUserError, pydantic.errors.PydanticSchemaGenerationError):
        return value
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"{key}={value} has the wrong type: {reason}.") from error


def _user_error(key: str, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a target; the ValueError it raises about its arguments is the user's to mend."""
    try:
        return target(*args, **kwargs)
    except (ValueError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise UserError(f"{key}: {error}") from error


def locate(path: str, key: str) -> Callable[..., Any]:
    """Import the class or function that a dotted path names.

    Raises:
        UserError: If there is none.
    """
    module, _, rest = path.partition(".")
    names = rest.split(".") if rest else []
    try:
        found: Any = importlib.import_module(module)
        for name in names:
            module = f"{module}.{name}"
            found = getattr(found, name) if hasattr(found, name) else importlib.import_module(module)
    except (ImportError, ValueError, TypeError) as error:
        raise UserError(f"{key}._target_={path} cannot be imported ({error}): check its spelling, "
                        "and that its package is installed or on PYTHONPATH.") from error
    if not callable(found):
        raise UserError(f"{key}._target_={path} is no class or function.")
    return found


# ---- configs that come out of files


def check_trust(cfg: Any, overrides: Iterable[str], trusted: Iterable[str]) -> None:
    """Check that a config out of a checkpoint or a run directory names only what it may build.

    Nothing but trusted packages is imported, and what a path leads to must be defined there: torch.serialization.os
    would lead elsewhere.

    Args:
        cfg: The config.
        overrides: The command line's overrides; groups chosen there are the user's own and not checked.
        trusted: The user's own packages (runtime.trusted on the command line).

    Raises:
        UserError: Names the key and the option that allows it.
    """
    chosen = {override_key(override) for override in overrides}
    for group in OPEN_GROUPS:
        if group in chosen:
            continue
        packages, kind = TRUSTED[group]
        for key, path in _targets(to_container(cfg[group]), group):
            if not _is_trusted(path, key, (*packages, *trusted), kind):
                raise UserError(
                    f"{key}._target_={path} in the saved configuration is not among what may be built from a file "
                    f"({', '.join(packages)}): if it is your own code, pass runtime.trusted=[{path.split('.')[0]}].")


def _is_trusted(path: str, key: str, packages: tuple[str, ...], kind: type | None) -> bool:
    if not _within(path, packages):
        return False
    found = locate(path, key)
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not _within(f"{found.__module__}.", packages):
        return False
    return kind is None or inspect.isfunction(found) or issubclass(found, kind)


def _within(path: str, packages: Iterable[str]) -> bool:
    return any(path.startswith(f"{package}.") for package in packages)


def _targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield every `_target_` of a node, however deep."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, str(node["_target_"])
        for name, value in node.items():
            yield from _targets(value, f"{key}.{name}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _targets(value, f"{key}[{number}]")
