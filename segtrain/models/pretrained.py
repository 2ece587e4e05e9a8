"""ImageNet weights for encoders: those that torchvision and timm have by name, or a file with a state dict."""

import importlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights, list_models

from segtrain.errors import install_extra, list_first, list_part
from segtrain.models.blocks import UnknownNameError

log = logging.getLogger(__name__)

# Under which names training code keeps the weights in its files; the first that is there counts.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "weights", "params",
            "student", "teacher", "state_dict_ema", "model_ema", "ema")
TIMM = "timm/"  # before the names of timm's classifiers
NON_COMMERCIAL = ("-nc", "noncommercial", "non-commercial", "swag", "seer", "apple-amlr")  # in names of licenses
MOST_WRAPPED = 4  # mappings around a state dict: a file may hold one that holds itself

Normalization = tuple[list[float], list[float]]  # mean and standard deviation of (image / 255), by channel
IMAGENET: Normalization = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class Weights:
    """Weights that a library has by name, as it records them.

    Attributes:
        name: As `pretrained` of `load_pretrained` names them.
        expects: The normalisation of the images that they were trained on.
        license: None if the library does not say.
        url: Where they are downloaded from.
        read: Download them, or read what was downloaded before.
    """

    name: str
    expects: Normalization
    license: str | None
    url: str
    read: Callable[[], dict[str, Tensor]]

    @property
    def is_commercial(self) -> bool:
        """Whether the license, as far as it is known, allows commercial use."""
        return not any(word in (self.license or "").lower() for word in NON_COMMERCIAL)


def list_weights(name: str) -> dict[str, Weights]:
    """Return the weights of a classifier by their names, and the default ones as DEFAULT as well.

    Args:
        name: The classifier as torchvision calls it, or timm/NAME.

    Raises:
        ValueError: If there is no such classifier.
    """
    return _list_timm(name) if name.startswith(TIMM) else _list_torchvision(name)


def _list_torchvision(name: str) -> dict[str, Weights]:
    def weights(entry: WeightsEnum) -> Weights:
        transforms = entry.transforms()
        return Weights(entry.name, (list(transforms.mean), list(transforms.std)), entry.meta.get("license"), entry.url,
                       lambda: dict(entry.get_state_dict(progress=False, check_hash=True, weights_only=True)))

    return {key: weights(entry) for key, entry in get_model_weights(name).__members__.items()}


def _list_timm(name: str) -> dict[str, Weights]:
    timm = import_timm(name)
    architecture, _, tag = name.removeprefix(TIMM).partition(".")

    def weights(full_name: str) -> Weights:
        record = timm.models.get_pretrained_cfg(full_name)
        url = record.url or f"https://huggingface.co/{record.hf_hub_id}"
        return Weights(full_name.partition(".")[2], (list(record.mean), list(record.std)), record.license, url,
                       lambda: dict(timm.create_model(full_name, pretrained=True).state_dict()))

    found = {full.partition(".")[2]: weights(full) for full in timm.list_pretrained(f"{architecture}.*")}
    default = tag or getattr(timm.models.get_pretrained_cfg(architecture), "tag", None)
    return {**found, "DEFAULT": found[default]} if default in found else found


def import_timm(name: str) -> Any:
    """Import timm; ValueError if it is not installed."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ValueError(f"encoder {name} needs timm, which cannot be imported ({error}): {install_extra('timm')}"
                         ) from error


def torchvision_classifiers() -> list[str]:
    """Return the names of torchvision's classifiers."""
    return list_models(module=torchvision.models)


def list_classifiers() -> list[str]:
    """Return the names of all classifiers: torchvision's, and as timm/NAME those of timm where it is installed."""
    try:
        return [*torchvision_classifiers(), *(f"{TIMM}{name}" for name in import_timm("").list_models())]
    except ValueError:
        return torchvision_classifiers()


def normalization(name: str, pretrained: str) -> Normalization:
    """Return the normalisation that weights of `load_pretrained` expect; for a file, that of the default weights.

    Args:
        name: The classifier as torchvision calls it, such as resnet18, or timm/NAME.
        pretrained: As of `load_pretrained`.
    """
    try:
        known = list_weights(name)
    except ValueError:  # what does not exist is refused when it is built
        known = {}
    found = known.get(_own_name(pretrained)) or known.get("DEFAULT")
    return IMAGENET if found is None else found.expects


def _own_name(pretrained: str) -> str:
    """Return the name of weights without that of their class, as in ResNet18_Weights.IMAGENET1K_V1."""
    return re.sub(r"^\w+_Weights\.", "", pretrained)


def load_pretrained(
    encoder: nn.Module,
    name: str,
    pretrained: str | None,
    *,
    ignore: tuple[str, ...],
    rename: Callable[[str], str] = str,
) -> None:
    """Load the weights of a classifier into an encoder that keeps its parameter names.

    The first convolution is adapted to the encoder's input channels, see `adapt_first_conv`.

    Args:
        encoder: The module to fill.
        name: The classifier as torchvision calls it, such as resnet18, or timm/NAME.
        pretrained: The name of weights that the library has for it, such as IMAGENET1K_V1 or DEFAULT (downloaded once),
            or the path of a file with its state dict, .safetensors or wrapped as `find_state_dict` knows; None: the
            encoder stays as it is.
        ignore: Prefixes of the keys that the encoder leaves out, such as those of the classifier.
        rename: Turns a key of the file into the encoder's, before everything else.

    Raises:
        ValueError: If the entry is unknown, the download fails, or the file is not a checkpoint or does not fit.
    """
    if pretrained is None:
        return
    own = encoder.state_dict()
    stripped = strip_prefix(_pretrained_state(name, pretrained), own, f"pretrained={pretrained}", rename)
    renamed = {rename(key): value for key, value in stripped.items()}
    if not renamed.keys() & own.keys():
        renamed = match_in_order(renamed, own, f"pretrained={pretrained}") or renamed
    state = {key: value for key, value in renamed.items() if not key.startswith(ignore)}
    first = f"{first_conv(encoder)[0]}.weight"
    if first in state:
        state[first] = adapt_first_conv(state[first], own[first].shape[1])
    # Files older than PyTorch 0.4.1 do not count batches; the counter is no weight and BatchNorm does without.
    problems = {
        "missing": [k for k in own if k not in state and not k.endswith("num_batches_tracked")],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
                             for k in state if k in own and state[k].shape != own[k].shape],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {list_first(keys)}" for what, keys in problems.items() if keys)
        raise ValueError(f"pretrained={pretrained} does not fit {name} ({found}); give {name}'s state dict")
    encoder.load_state_dict(state, strict=False)


def match_in_order(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> dict[str, Tensor] | None:
    """Return weights under an encoder's names if another implementation of it lists the same ones in the same order.

    What comes after them belongs to the classifier and is left out. The log says so.

    Args:
        state: The weights as the file has them.
        own: The encoder's.
        source: Where they come from, for the log.

    Returns:
        None if a shape or the last part of a name differs, or names are sorted, whose order means nothing.
    """
    given = [key for key in state if not key.endswith("num_batches_tracked")]
    wanted = [key for key in own if not key.endswith("num_batches_tracked")]
    pairs = dict(zip(wanted, given, strict=False))
    if len(given) < len(wanted) or given == sorted(given) or any(
            key.rpartition(".")[2] != theirs.rpartition(".")[2] or not _same_shape(state[theirs], own[key])
            for key, theirs in pairs.items()):
        return None
    log.info("%s: its names are others, but shapes and order are the encoder's: %s is taken for %s, and so on%s",
             source, given[0], wanted[0], list_part("; left out", given[len(wanted):]).rstrip("; "))
    return {key: state[theirs] for key, theirs in pairs.items()}


def _same_shape(given: Tensor, own: Tensor) -> bool:
    """Return whether shapes are the same, but for the channels that `adapt_first_conv` adapts."""
    is_image = given.ndim == own.ndim == 4 and given.shape[1] == 3
    return given.shape == own.shape or (is_image and given.shape[::2] == own.shape[::2] and (
        given.shape[3] == own.shape[3]))


def first_conv(encoder: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name and the convolution that reads the images."""
    return next((name, layer) for name, layer in encoder.named_modules() if isinstance(layer, nn.Conv2d))


def adapt_first_conv(weight: Tensor, in_channels: int) -> Tensor:
    """Turn a first convolution learnt on RGB into one for another number of channels.

    Fewer than three channels share the sum of the RGB kernels evenly: a grey image gives the features of the same image
    in RGB. More than three keep RGB as it is, and the others start from zero: the network begins as the pretrained one
    and learns what the new channels add (their gradient is not zero).

    Shape:
        - weight: (out, 3, kh, kw), float. A weight with another number of channels is returned unchanged.
        - returns: (out, in_channels, kh, kw), same dtype.
    """
    if weight.ndim != 4 or weight.shape[1] != 3 or in_channels == 3:
        return weight
    if in_channels < 3:
        return (weight.sum(1, keepdim=True) / in_channels).repeat(1, in_channels, 1, 1)
    return torch.cat([weight, weight.new_zeros(weight.shape[0], in_channels - 3, *weight.shape[2:])], dim=1)


def _pretrained_state(name: str, pretrained: str) -> dict[str, Tensor]:
    """Read a state dict that a library has, or that of a file, executing nothing from it."""
    known = list_weights(name)
    found = known.get(_own_name(pretrained))
    if found is not None:
        if not found.is_commercial:
            log.warning("warning: the weights %s of %s are under %s, which does not allow commercial use", found.name,
                        name, found.license)
        try:
            return found.read()
        except Exception as error:  # libraries raise errors of their own kinds
            file = "/path/to/the/file" if name.startswith(TIMM) else f"/path/to/{found.url.rsplit('/', 1)[-1]}"
            raise ValueError(f"cannot download the {pretrained} weights of {name} ({error}): fetch {found.url} where "
                             f"there is a network and pass the file as model.pretrained={file}") from error
    path = Path(pretrained).expanduser()
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"pretrained={pretrained}: there is no such file; give the path of {name}'s state dict")
        raise UnknownNameError(f"weights of {name}", pretrained, known)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path, name)
    weights = find_state_dict(state)
    if weights is None:
        held = f", but {list_first([str(key) for key in state])}" if isinstance(state, dict) and state else ""
        raise ValueError(f"pretrained={pretrained} holds no state dict (names to tensors){held}; give that of {name}")
    return weights


def _read_checkpoint(path: Path, name: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a file of another kind can raise anything
        with path.open("rb") as file:
            is_saved = file.read(1) in (b"P", b"\x80")  # how an archive, and a pickle, begin
        if is_saved and ("weights_only" in str(error) or "Weights only" in str(error)):
            raise ValueError(
                f"pretrained={path} holds other things than tensors, numbers and text, as a whole model does; "
                "none of it was executed. Save its state_dict() alone"
            ) from error
        raise ValueError(f"pretrained={path} is not a PyTorch checkpoint; give {name}'s state dict") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        reader: Any = importlib.import_module("safetensors.torch")
        return dict(reader.load_file(path))
    except ImportError as error:
        raise ValueError(f"pretrained={path} needs safetensors ({error}): {install_extra('timm')}") from error
    except Exception as error:  # its errors are of a kind of their own
        raise ValueError(f"pretrained={path} is not a safetensors file ({error})") from error


def find_state_dict(content: Any) -> dict[str, Tensor] | None:
    """Return the weights that a file of training code holds, by their names, as they are or under one of WRAPPERS.

    None if there are none.
    """
    for _ in range(MOST_WRAPPED):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(key): value for key, value in content.items()}
        content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
    return None


def strip_prefix(
    state: Mapping[str, Tensor], names: Collection[str], source: str, rename: Callable[[str], str] = str
) -> dict[str, Tensor]:
    """Return a state dict without the prefix that wrappers put in front of a module's names; the log says so.

    Those are module. of DataParallel, _orig_mod. of torch.compile, and encoder. or backbone. of a network, whose other
    weights are left out.

    Args:
        state: The weights as the file has them.
        names: The module's own.
        source: Where they come from, for the log.
        rename: Turns a name of the file, without the prefix, into one of the module.
    """
    found: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        found.update(
            prefix
            for prefix in (".".join([*parts[:place], ""]) if place else "" for place in range(len(parts)))
            if rename(key.removeprefix(prefix)) in names
        )
    most = max(found.values(), default=0)
    prefix = min((prefix for prefix, count in found.items() if count == most), key=len, default="")
    if not prefix:
        return dict(state)
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    others = len(state) - len(inside)
    log.info("%s: the weights below %s%s", source, prefix, f", {others} others are left out" if others else "")
    return inside
