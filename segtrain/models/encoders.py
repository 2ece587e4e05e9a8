"""Encoders: torchvision's classifiers without their heads.

Parameters keep torchvision's names, so that `pretrained` takes its weights, see `load_pretrained`; None draws them at
random, as torchvision does. An encoder takes normalised images (N, in_channels, H, W), float, and returns its features,
one map (N, channels[i], H / stride, W / stride) for each stride. Constructors raise ValueError as `load_pretrained`.
"""

import re
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, get_model

from segtrain.models.blocks import UnknownNameError, kaiming_init
from segtrain.models.pretrained import first_conv, load_pretrained

RESNETS = {  # the channels of the five feature maps
    "resnet18": (64, 64, 128, 256, 512),
    "resnet34": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
}


class ResNetEncoder(nn.Module):
    """Extract the features of a ResNet at strides 4 (twice), 8, 16 and 32; they end in ReLU.

    Args:
        name: resnet18, resnet34 or resnet50.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(self, name: str, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        if name not in RESNETS:
            raise UnknownNameError("encoder", name, RESNETS)
        self.channels, self.strides = RESNETS[name], (4, 4, 8, 16, 32)
        resnet = get_model(name, weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        set_in_channels(self, in_channels)
        load_pretrained(self, name, pretrained, ignore=("fc.",))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features


VGG16 = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # its stages: channels in multiples of the first's, convolutions


class VGG16Encoder(nn.Module):
    """Extract the features of VGG16 after each of its five max poolings, at strides 2, 4, 8, 16 and 32.

    Sizes are rounded up at each halving. Beside the features it returns, with `return_indices`, the indices of each
    pooling, int64, of the same shape, and the (height, width) that it read; otherwise an empty list.

    Args:
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many. 64 is the paper's.
        conv: Makes a convolution from (in_channels, out_channels, kernel_size, padding=..).
        batch_norm: Put BatchNorm after each convolution, as in torchvision's vgg16_bn.

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        width: int = 64,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        batch_norm: bool = True,
        return_indices: bool = False,
        pretrained: str | None = None,
    ):
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1 (64 is VGG16's), not {width}")
        layers: list[nn.Module] = []
        for multiple, num_convs in VGG16:
            for _ in range(num_convs):
                layers.append(conv(in_channels, width * multiple, 3, padding=1))
                in_channels = width * multiple
                if batch_norm:
                    layers.append(nn.BatchNorm2d(in_channels))
                layers.append(nn.ReLU(inplace=True))
            layers.append(nn.MaxPool2d(2, ceil_mode=True, return_indices=return_indices))
        self.features = nn.ModuleList(layers)
        kaiming_init(self)
        if pretrained is not None and width != 64:
            raise ValueError(f"pretrained weights are for width=64, not {width}: leave one of the two out")
        load_pretrained(self, "vgg16_bn" if batch_norm else "vgg16", pretrained, ignore=("classifier.",))

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[tuple[Tensor, tuple[int, int]]]]:
        x, maps, poolings = images, [], []
        for layer in self.features:
            height, width = x.shape[-2:]
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                if layer.return_indices:
                    x, indices = x
                    poolings.append((indices, (height, width)))
                maps.append(x)
        return maps, poolings


DENSENETS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}  # layers of the dense blocks, by depth
GROWTH = 32  # the channels that each layer of a dense block adds


class DenseNetEncoder(nn.Module):
    """Extract the features of a DenseNet at strides 4, 8, 16 and 32; a dense block ends before its norm.

    The final norm and the classifier are left out: nothing reads them.

    Args:
        depth: 121, 169 or 201.

    Source: Huang et al., "Densely connected convolutional networks", CVPR 2017.
    """

    def __init__(self, depth: int, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        self.features = DenseNet(GROWTH, DENSENETS[depth]).features
        del self.features.norm5
        self.channels: list[int] = []
        channels = 64
        for num_layers in DENSENETS[depth]:
            self.channels.append(channels + GROWTH * num_layers)
            channels = self.channels[-1] // 2  # a transition halves them
        set_in_channels(self, in_channels, mode="fan_in")
        load_pretrained(
            self,
            f"densenet{depth}",
            pretrained,
            ignore=("classifier.", "features.norm5."),
            rename=rename_densenet_key,
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x, features = images, []
        for name, stage in self.features.named_children():
            x = stage(x)
            if name.startswith("denseblock"):
                features.append(x)
        return features


def rename_densenet_key(key: str) -> str:
    """Turn a key of torchvision's DenseNet files into that of its modules, where norm.1 is called norm1."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)


class MobileNetV2Encoder(nn.Module):
    """Extract the features of MobileNetV2 at strides 2, 4, 8, 16 and 32.

    The first four are those inside the inverted residuals that halve the size: after their expansion, where they have
    the most channels at the old size. The last is the projection of the last inverted residual, before its norm. That
    norm, the last 1x1 convolution and the classifier are left out.

    Source: Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018.
    """

    channels = (96, 144, 192, 576, 320)
    halving = (2, 4, 7, 14)  # the indices of the inverted residuals that halve the size

    def __init__(self, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        self.features = get_model("mobilenet_v2", weights=None).features[:18]
        self.features[17].conv = self.features[17].conv[:3]
        set_in_channels(self, in_channels)
        load_pretrained(
            self, "mobilenet_v2", pretrained, ignore=("classifier.", "features.18.", "features.17.conv.3.")
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x, features = images, []
        for index, block in enumerate(self.features):
            if index in self.halving:
                expand, *rest = block.conv
                features.append(expand(x))
                x = features[-1]
                for layer in rest:
                    x = layer(x)
            else:
                x = block(x)
        return [*features, x]


def set_in_channels(encoder: nn.Module, in_channels: int, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Draw random weights for the first convolution, made for RGB, where images have another number of channels.

    Args:
        mode: How torchvision scales the random weights of this encoder.
    """
    if in_channels != 3:
        _, conv = first_conv(encoder)
        conv.in_channels = in_channels
        conv.weight = nn.Parameter(torch.empty(conv.out_channels, in_channels, *conv.kernel_size))
        nn.init.kaiming_normal_(conv.weight, mode=mode, nonlinearity="relu")
