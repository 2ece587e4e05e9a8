"""FC-DenseNet on an ImageNet encoder: a DenseNet-121, 169 or 201, and a decoder of dense blocks."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import (
    SegmentationNetwork,
    UpConv2d,
    crop_like,
    kaiming_init,
    pad_to_multiple,
    use_keras_batch_norm,
)
from segtrain.models.encoders import DENSENETS, GROWTH, DenseNetEncoder
from segtrain.models.pretrained import Normalization, normalization


class FCDenseNet(SegmentationNetwork):
    """Segment images with a fully convolutional DenseNet.

    The encoder's four dense blocks are joined with everything they were given, and three of these are the skips. Each
    step of the decoder doubles the size with a transposed convolution to half the skip's channels, joins the skip, and
    runs a dense block of as many layers as the encoder's block below has.

    It follows the Keras network of ssnets, which differs from the paper: the encoder is a DenseNet as for ImageNet,
    a decoder's dense block keeps its input, the last step enlarges four times, and there is no dropout. Keras's
    last step is a 3x3 transposed convolution with stride 4, which leaves 7 of 16 pixels with nothing but the bias; here
    the nearest pixels are repeated and a 3x3 convolution of the same shape follows.

    Args:
        depth: Which DenseNet the encoder is: 121, 169 or 201, each torchvision's without final norm and classifier.
        bottleneck_blocks: Layers of a dense block between encoder and decoder, 0 for none (the original offers 32).
        keras_compatible: The last step of the Keras network, and its constants in BatchNorm.

    Source: Jegou et al., "The one hundred layers Tiramisu: Fully convolutional DenseNets for semantic segmentation",
    CVPR workshops 2017; Huang et al., "Densely connected convolutional networks", CVPR 2017.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        depth: int = 121,
        bottleneck_blocks: int = 0,
        pretrained: str | None = None,
        keras_compatible: bool = False,
    ):
        super().__init__(num_classes, in_channels, pretrained, keras_compatible)
        if depth not in DENSENETS:
            raise ValueError(f"unknown depth {depth}: choose one of {', '.join(map(str, DENSENETS))}")
        if not 0 <= bottleneck_blocks <= 1000:
            raise ValueError(f"bottleneck_blocks must be at least 0, at most 1000, not {bottleneck_blocks}")
        self.encoder = DenseNetEncoder(depth, in_channels, pretrained)
        *skips, channels = self.encoder.channels
        self.bottleneck = DenseBlock(channels, bottleneck_blocks)
        channels += GROWTH * bottleneck_blocks
        self.enlarge, self.decoder = nn.ModuleList(), nn.ModuleList()
        for skip, num_layers in zip(reversed(skips), reversed(DENSENETS[depth]), strict=False):
            self.enlarge.append(UpConv2d(channels, skip // 2))
            self.decoder.append(DenseBlock(skip // 2 + skip, num_layers))
            channels = skip // 2 + skip + GROWTH * num_layers
        self.head: nn.Sequential
        if keras_compatible:
            self.head = nn.Sequential(nn.ConvTranspose2d(channels, 64, 3, stride=4, output_padding=1))
            use_keras_batch_norm(self, eps=1.001e-5)
        else:
            self.head = nn.Sequential(EnlargedConv(channels, 64))
        self.head.append(nn.Conv2d(64, num_classes, 1))
        for part in (self.bottleneck, self.enlarge, self.decoder):  # no ReLU follows in the head
            kaiming_init(part)

    @staticmethod
    def normalization(pretrained: str, depth: int = 121, **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization(f"densenet{depth}", pretrained)

    def forward(self, images: Tensor) -> Tensor:
        *skips, x = self.encoder(pad_to_multiple(images, 32))
        x = self.bottleneck(x)
        for enlarge, block, skip in zip(self.enlarge, self.decoder, reversed(skips), strict=True):
            x = block(torch.cat([enlarge(x), skip], 1))
        return crop_like(self.head(x), images)


class DenseBlock(nn.Sequential):
    """Run layers that each read everything before them and add `GROWTH` channels to it; the input stays in front."""

    def __init__(self, in_channels: int, num_layers: int):
        super().__init__(*(DenseLayer(in_channels + i * GROWTH) for i in range(num_layers)))


class DenseLayer(nn.Module):
    """Squeeze to four times the growth, convolve, and append the result to the input."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.conv1(self.norm1(x).relu())
        return torch.cat([x, self.conv2(self.norm2(squeezed).relu())], 1)


class EnlargedConv(nn.Module):
    """Repeat every pixel four times each way, then convolve 3x3.

    The products with the nine taps of the kernel are made before the pixels are repeated, where there are 16 times
    fewer of them, and added up where the repeated pixels would have met them: at the first of four pixels one tap falls
    on the neighbour before, at the last one on the neighbour after, in between all fall on the pixel itself.

    Shape:
        - x: (N, in_channels, H, W), float.
        - returns: (N, out_channels, 4 H, 4 W), float; beyond the border are zeros, as a padded convolution has it.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        # (row of the kernel, its column, output channel) in one: a kernel (out, in, 3, 3) permuted and flattened
        self.weight = nn.Parameter(torch.empty(9 * out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.weight, std=math.sqrt(1 / (9 * in_channels)))

    def forward(self, x: Tensor) -> Tensor:
        rows = F.conv2d(x, self.weight).unflatten(1, (3, -1))
        columns = _enlarged(rows, -2).unflatten(1, (3, -1))
        return _enlarged(columns, -1) + self.bias[:, None, None]


def _enlarged(taps: Tensor, dim: int) -> Tensor:
    """Add the three taps of a kernel of width 3 up to four pixels for each along one of the last two dimensions.

    Shape:
        - taps: (N, 3, C, H, W), float.
        - returns: (N, C, H, W), float, the dimension four times as long.
    """
    before, here, after = taps.unbind(1)
    unmoved = (0, 0) * (-1 - dim)  # F.pad starts at the last dimension
    first = F.pad(before, (*unmoved, 1, -1)) + here + after
    middle = before + here + after
    last = before + here + F.pad(after, (*unmoved, -1, 1))
    return torch.stack([first, middle, middle, last], dim).flatten(dim - 1, dim)


def keras_layers(network: FCDenseNet) -> dict[str, str]:
    """Map the layers of the Keras network to modules of the same network here.

    Raises:
        ValueError: If the network was built without `keras_compatible`: its last step is not that of Keras.
    """
    if not isinstance(network.head[0], nn.ConvTranspose2d):
        raise ValueError("the Keras network ends in another step: build FCDenseNet with keras_compatible=True")
    layers = {"conv1/conv": "encoder.features.conv0", "conv1/bn": "encoder.features.norm0"}
    dense_blocks: list[tuple[str, list[str]]] = []  # what Keras calls a block, and its layers here
    for name, stage in network.encoder.features.named_children():
        number = int(name[-1])
        if name.startswith("denseblock"):
            inside = [f"encoder.features.{name}.{layer}" for layer, _ in stage.named_children()]
            dense_blocks.append((f"conv{number + 1}", inside))
        elif name.startswith("transition"):
            layers[f"pool{number + 1}_bn"] = f"encoder.features.{name}.norm"
            layers[f"pool{number + 1}_conv"] = f"encoder.features.{name}.conv"
    dense_blocks.append(("bottleneck", [f"bottleneck.{layer}" for layer, _ in network.bottleneck.named_children()]))
    for step, stage in enumerate(network.decoder):
        layers[f"conv2d_transpose_{step}" if step else "conv2d_transpose"] = f"enlarge.{step}"
        dense_blocks.append((f"upsample{step + 1}", [f"decoder.{step}.{layer}" for layer, _ in stage.named_children()]))
    for keras, inside in dense_blocks:
        for number, here in enumerate(inside, start=1):
            layers[f"{keras}_block{number}_0_bn"] = f"{here}.norm1"
            layers[f"{keras}_block{number}_1_conv"] = f"{here}.conv1"
            layers[f"{keras}_block{number}_1_bn"] = f"{here}.norm2"
            layers[f"{keras}_block{number}_2_conv"] = f"{here}.conv2"
    return layers | {"conv2d_transpose_3": "head.0", "conv2d": "head.1"}
