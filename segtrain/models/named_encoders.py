"""Encoders by name: classifiers of torchvision, or as timm/NAME those of timm, without what classifies."""

from itertools import chain

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import Conv2dNormActivation

from segtrain.models.blocks import UnknownNameError
from segtrain.models.encoders import rename_densenet_key, set_in_channels
from segtrain.models.pretrained import (
    TIMM,
    import_timm,
    list_classifiers,
    list_weights,
    load_pretrained,
    torchvision_classifiers,
)

STRIDES = (2, 4, 8, 16, 32)  # of the maps that decoders read
NEEDED = {4, 8, 16}
HEADS = ("avgpool", "fc", "classifier", "head", "heads", "conv5", "aux1", "AuxLogits")  # parts that classify
# Some of those that fit, small ones first.
EXAMPLES = ("mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "efficientnet_b0", "convnext_tiny",
            "timm/mobilenetv3_small_100", "timm/tf_efficientnet_lite0", "timm/regnety_004", "timm/efficientvit_b1")


class NamedEncoder(nn.Module):
    """Extract the feature maps of a classifier, the last one at each stride from 2 to 32.

    Args:
        name: The classifier as torchvision calls it, such as mobilenet_v3_large, or timm/NAME, which must offer
            features_only; NAME may have the tag of its weights, as in timm/resnet18.a1_in1k.
        pretrained: See `load_pretrained`.

    Attributes:
        strides: Of the feature maps: (2, 4, 8, 16, 32), where 2 and 32 may be missing.
        channels: Of the feature maps.

    Raises:
        ValueError: If the name is unknown, timm is not installed, a stride is missing, images of one size alone are
            taken, or the weights cannot be loaded.
    """

    def __init__(self, name: str, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        if not name.startswith(TIMM) and name not in torchvision_classifiers():
            raise UnknownNameError("encoder", name, list_classifiers())
        self.network = build_timm(name, in_channels) if name.startswith(TIMM) else Blocks(name, in_channels)
        found = find_maps(self.network, name, in_channels)
        self.strides = tuple(found)
        self.channels = tuple(channels for channels, _ in found.values())
        self._places = [place for _, place in found.values()]
        if isinstance(self.network, Blocks):
            self.network.ends, self._places = self._places, list(range(len(found)))
        if pretrained is not None:
            own = self.network.state_dict()
            load_pretrained(self.network, name, pretrained, rename=lambda key: rename_flattened(key, own),
                            ignore=tuple(key for key in classifier_keys(name) if rename_flattened(key, own) not in own))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.network(images)
        return [maps[place] for place in self._places]


class Blocks(nn.Module):
    """Run the blocks of a torchvision classifier, one after the other, and return the maps that some of them end in.

    Parameters keep torchvision's names. A last 1x1 convolution, which widens the features for the classifier, is left
    out.

    Attributes:
        ends: The numbers of those blocks; None: all.
    """

    def __init__(self, name: str, in_channels: int):
        super().__init__()
        self.ends: list[int] | None = None
        for child_name, child in get_model(name, weights=None).named_children():
            if child_name in HEADS:
                break
            self.add_module(child_name, child)
        last = list(self.children())[-1]
        if isinstance(last, nn.Sequential) and isinstance(last[-1], Conv2dNormActivation) and (
                last[-1][0].kernel_size == (1, 1)):
            del last[-1]
        set_in_channels(self, in_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = images, []
        parts = (child if isinstance(child, nn.Sequential) else [child] for child in self.children())
        for number, block in enumerate(chain.from_iterable(parts)):
            x = block(x)
            if self.ends is None or number in self.ends:
                maps.append(x)
        return maps


class ChannelsFirst(nn.Sequential):
    """Turn the maps of a network that returns (N, H, W, C) into (N, C, H, W)."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [features.permute(0, 3, 1, 2) for features in super().forward(images)]


def build_timm(name: str, in_channels: int) -> nn.Module:
    """Build a network of timm that returns its feature maps; ValueError if there is none."""
    timm, own = import_timm(name), name.removeprefix(TIMM)
    architecture, _, tag = own.partition(".")
    if architecture not in timm.list_models():
        raise UnknownNameError("encoder", name, list_classifiers())
    if tag and tag not in (known := list_weights(f"{TIMM}{architecture}")):
        raise UnknownNameError(f"weights of {TIMM}{architecture}", tag, known)
    try:
        network: nn.Module = timm.create_model(own, features_only=True, in_chans=in_channels)
    except (RuntimeError, AssertionError, AttributeError, NotImplementedError) as error:
        raise unfit(name, f"timm offers no features_only of it ({' '.join(str(error).split())[:100]})") from error
    return ChannelsFirst(network) if getattr(network, "output_fmt", None) == "NHWC" else network


@torch.no_grad()
def find_maps(network: nn.Module, name: str, in_channels: int) -> dict[int, tuple[int, int]]:
    """Return the channels and the place among a network's maps of the last one at each stride of STRIDES.

    Raises:
        ValueError: If a stride that decoders need is missing.
    """
    height, width = 64, 96
    device = next(network.parameters()).device
    network.eval()
    try:
        maps = network(torch.zeros(1, in_channels, height, width, device=device))
    except Exception as error:  # whatever a network raises at a size that it was not made for
        raise unfit(name, f"images of {height}x{width} fail ({' '.join(str(error).split())[:100]})") from error
    network.train()
    found = {height // features.shape[2]: (features.shape[1], place) for place, features in enumerate(maps)
             if features.ndim == 4 and height * features.shape[3] == width * features.shape[2]
             and height % features.shape[2] == 0}
    if not found.keys() >= NEEDED:
        raise unfit(name, f"it has feature maps at strides {', '.join(map(str, sorted(found))) or 'that vary'}")
    return {stride: found[stride] for stride in STRIDES if stride in found}


def unfit(name: str, reason: str) -> ValueError:
    """Return the error that a classifier cannot be an encoder here."""
    return ValueError(f"encoder {name} does not fit: {reason}, but decoders need feature maps at strides 4, 8 and 16, "
                      f"of images of any size; these fit, for example: {', '.join(EXAMPLES)}")


def classifier_keys(name: str) -> list[str]:
    """Return the names of all weights of a classifier, its head included."""
    def build() -> nn.Module:
        network: nn.Module = import_timm(name).create_model(name.removeprefix(TIMM)) if name.startswith(TIMM) else (
            get_model(name, weights=None))
        return network

    try:
        with torch.device("meta"):
            network = build()
    except NotImplementedError:  # RegNets compute their widths with tensors
        network = build()
    return list(network.state_dict())


def rename_flattened(key: str, own: dict[str, Tensor]) -> str:
    """Return the name of a weight in an encoder: timm joins the first two parts where it takes a network apart."""
    names = (key, key.replace(".", "_", 1), f"model.{key}", f"0.{key}", f"0.{key.replace('.', '_', 1)}")
    return next((name for name in (*names, rename_densenet_key(key)) if name in own), key)
