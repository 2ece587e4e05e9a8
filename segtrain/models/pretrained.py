"""ImageNet weights for encoders: torchvision's own by name, or a file with a state dict."""

import http.client
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from segtrain.errors import list_first
from segtrain.models.blocks import UnknownNameError

log = logging.getLogger(__name__)

# Under which names training code keeps the weights in its files; the first that is there counts.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "weights", "params",
            "student", "teacher", "state_dict_ema", "model_ema", "ema")
MOST_WRAPPED = 4  # mappings around a state dict: a file may hold one that holds itself

Normalization = tuple[list[float], list[float]]  # mean and standard deviation of (image / 255), by channel
IMAGENET: Normalization = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def normalization(name: str, pretrained: str) -> Normalization:
    """Return the normalisation of the images that weights of `load_pretrained` were trained on, ImageNet's for a file.

    Args:
        name: The network as torchvision calls it, such as resnet18.
        pretrained: As of `load_pretrained`.
    """
    try:
        entry = _entry(name, pretrained)
    except ValueError:  # a network that torchvision does not have is refused when it is built
        entry = None
    if entry is None:
        return IMAGENET
    transforms = entry.transforms()
    return list(transforms.mean), list(transforms.std)


def _entry(name: str, pretrained: str) -> WeightsEnum | None:
    entries = get_model_weights(name)
    return entries.__members__.get(pretrained.removeprefix(f"{entries.__name__}."))


def load_pretrained(
    encoder: nn.Module,
    name: str,
    pretrained: str | None,
    *,
    ignore: tuple[str, ...],
    rename: Callable[[str], str] = str,
) -> None:
    """Load the weights of a torchvision network into an encoder that keeps its parameter names.

    The first convolution is adapted to the encoder's input channels, see `adapt_first_conv`.

    Args:
        encoder: The module to fill.
        name: The network as torchvision calls it, such as resnet18.
        pretrained: An entry of torchvision's weights for it, such as IMAGENET1K_V1 or DEFAULT (downloaded once), or
            the path of a file with its state dict, wrapped as `find_state_dict` knows; None: the encoder stays as it
            is.
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
        raise ValueError(f"pretrained={pretrained} does not fit {name} ({found}); give torchvision's {name} state dict")
    encoder.load_state_dict(state, strict=False)


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
    """Read a state dict from torchvision's weights or from a file, executing nothing from it."""
    entry = _entry(name, pretrained)
    if entry is not None:
        try:
            return entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, http.client.HTTPException, pickle.UnpicklingError) as error:
            raise ValueError(
                f"cannot download the {pretrained} weights of {name} ({error}): fetch {entry.url} where there is a "
                f"network and pass the file as model.pretrained=/path/to/{entry.url.rsplit('/', 1)[-1]}"
            ) from error
    path = Path(pretrained).expanduser()
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise ValueError(f"pretrained={pretrained}: there is no such file; give the path of {name}'s state dict")
        raise UnknownNameError(f"weights of {name}", pretrained, get_model_weights(name).__members__)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a file of another kind can raise anything
        with path.open("rb") as file:
            is_saved = file.read(1) in (b"P", b"\x80")  # how an archive, and a pickle, begin
        if is_saved and ("weights_only" in str(error) or "Weights only" in str(error)):
            raise ValueError(
                f"pretrained={pretrained} holds other things than tensors, numbers and text, as a whole model does; "
                "none of it was executed. Save its state_dict() alone"
            ) from error
        raise ValueError(f"pretrained={pretrained} is not a PyTorch checkpoint; give {name}'s state dict") from error
    found = find_state_dict(state)
    if found is None:
        held = f", but {list_first([str(key) for key in state])}" if isinstance(state, dict) and state else ""
        raise ValueError(f"pretrained={pretrained} holds no state dict (names to tensors){held}; give that of {name}")
    return found


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
