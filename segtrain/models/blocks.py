"""Pieces that several networks share: argument checks, padding, initialisation, torchvision encoders."""

import difflib
import http.client
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

MIN_SIZE = 32  # the smallest height and width that every network takes


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Describe a name that is not in a list, with the list and the entry that was probably meant."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return ValueError(f"unknown {what} {name!r}: choose one of {', '.join(known)}{hint}")


def check_channels(num_classes: int, in_channels: int) -> None:
    """Refuse a network that has nothing to read or nothing to tell apart.

    Raises:
        ValueError: If either is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1 (3 for colour images), not {in_channels}")


def check_size(images: Tensor) -> None:
    """Refuse images that are too small.

    Raises:
        ValueError: If the height or the width is below 32.
    """
    height, width = images.shape[-2:]
    if height < MIN_SIZE or width < MIN_SIZE:
        raise ValueError(f"images of {height}x{width} are too small: height and width must be at least {MIN_SIZE}")


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom with zeros, for a network that halves its input several times.

    There is no shortcut for sizes that fit already, and the size is written as (...) // multiple * multiple: a branch
    would tie an exported graph to one size, and of this form torch.export sees that it can be halved.

    Args:
        images: Normalised images, so that zero is the mean colour.
        multiple: What height and width shall be divisible by.

    Shape:
        - images: (N, C, H, W), float, any range, H and W >= 32.
        - returns: (N, C, H', W'), same dtype; H' and W' are the next multiples.

    Raises:
        ValueError: If the height or the width is below 32.
    """
    check_size(images)
    height, width = images.shape[-2:]
    full_height = (height + multiple - 1) // multiple * multiple
    full_width = (width + multiple - 1) // multiple * multiple
    return F.pad(images, (0, full_width - width, 0, full_height - height))


def crop_like(logits: Tensor, images: Tensor) -> Tensor:
    """Cut off what `pad_to_multiple` had added.

    Shape:
        - logits: (N, K, H', W'), float, any range, H' >= H and W' >= W.
        - images: (N, C, H, W), the images before padding.
        - returns: (N, K, H, W), a view of the logits.
    """
    height, width = images.shape[-2:]
    return logits[..., :height, :width]


def bn_relu(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Follow a convolution with batch normalisation and ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))


def kaiming_init(module: nn.Module) -> None:
    """Draw the convolutions below a module for ReLU networks and clear their biases.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # A transposed convolution stores (in, out, kh, kw), so what torch calls its fan-out is its fan-in.
            transposed = isinstance(layer, nn.ConvTranspose2d)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out" if transposed else "fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


RESNETS = {  # the channels of the five feature maps of each
    "resnet18": (64, 64, 128, 256, 512),
    "resnet34": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
}


class ResNetEncoder(nn.Module):
    """Extract the features of torchvision's ResNet at strides 4 (twice), 8, 16 and 32.

    Parameters keep torchvision's names (conv1, bn1, layer1..4), so its state dicts fit. There is no fc.

    Args:
        name: resnet18, resnet34 or resnet50.
        in_channels: Channels of the input.
        pretrained: Where weights come from, see `load_pretrained`; None draws them at random, as torchvision does.

    Attributes:
        channels: The channels of the five feature maps.

    Shape:
        - images: (N, C, H, W), float, normalised, H and W divisible by 32.
        - returns: five maps (N, channels[i], H/s, W/s) with s = 4, 4, 8, 16, 32; float, >= 0 (they end in ReLU).

    Raises:
        ValueError: If the name is unknown or the weights cannot be loaded.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(self, name: str, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        if name not in RESNETS:
            raise unknown_name("encoder", name, RESNETS)
        self.channels = RESNETS[name]
        resnet = get_model(name, weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if pretrained is not None:
            load_pretrained(self, name, pretrained, first_conv="conv1.weight", ignore="fc.")

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features


def load_pretrained(encoder: nn.Module, name: str, pretrained: str, *, first_conv: str, ignore: str) -> None:
    """Load the weights of a torchvision network into an encoder that keeps its parameter names.

    Args:
        encoder: The module to fill.
        name: The network as torchvision calls it, such as resnet18.
        pretrained: An entry of torchvision's weights for it, such as IMAGENET1K_V1 or DEFAULT (downloaded once), or
            the path of a file with its state dict.
        first_conv: The key of the first convolution, which is adapted to the encoder's input channels.
        ignore: The prefix of the keys that the encoder leaves out (the classifier).

    Raises:
        ValueError: If the entry is unknown, the download fails, or the file is no checkpoint or does not fit.
    """
    state = {k: v for k, v in _pretrained_state(name, pretrained).items() if not k.startswith(ignore)}
    own = encoder.state_dict()
    if first_conv in state:
        state[first_conv] = adapt_first_conv(state[first_conv], own[first_conv].shape[1])
    # Files older than PyTorch 0.4.1 do not count batches; the counter is no weight and BatchNorm does without.
    problems = {
        "missing": [k for k in own if k not in state and not k.endswith("num_batches_tracked")],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [k for k in state if k in own and state[k].shape != own[k].shape],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {_first_five(keys)}" for what, keys in problems.items() if keys)
        raise ValueError(f"pretrained={pretrained} does not fit {name} ({found}); give torchvision's {name} state dict")
    encoder.load_state_dict(state, strict=False)


def adapt_first_conv(weight: Tensor, in_channels: int) -> Tensor:
    """Turn a first convolution learnt on RGB into one for another number of channels.

    Fewer than three channels share the sum of the RGB kernels evenly: a grey image is answered as the same image
    in RGB would be. More than three keep RGB as it is, and the others start from zero: the network begins as the
    pretrained one and learns what the new channels add (their gradient is not zero).

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
    entries = get_model_weights(name)
    entry = entries.__members__.get(pretrained.removeprefix(f"{entries.__name__}."))
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
        raise unknown_name(f"weights of {name}", pretrained, entries.__members__)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a file of another kind can raise anything
        raise ValueError(f"pretrained={pretrained} is no PyTorch checkpoint; give {name}'s state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"pretrained={pretrained} holds no state dict (names to tensors); give that of {name}")
    return state


def _first_five(keys: list[str]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return ", ".join(keys[:5]) + more
