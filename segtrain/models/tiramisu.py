"""Tiramisu (FC-DenseNet): dense blocks on the way down and up, of which only the new features are enlarged."""

import torch
from torch import Tensor, nn

from segtrain.models.blocks import check_channels, crop_like, kaiming_init, pad_to_multiple

FIRST_CHANNELS = 48

# depth -> growth rate, layers of the five dense blocks on each way (here from the top down), layers of the bottom one
VARIANTS = {
    56: (12, (4, 4, 4, 4, 4), 4),
    67: (16, (5, 5, 5, 5, 5), 5),
    103: (16, (4, 5, 7, 10, 12), 15),
}


class Tiramisu(nn.Module):
    """Segment images with the fully convolutional DenseNet of "The one hundred layers tiramisu".

    All convolutions have a bias, which gives the parameters of the authors' code.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Channels of the images, C.
        depth: 56, 67 or 103, the number of layers.
        dropout: Probability that a value is dropped after each convolution of the dense blocks and the transitions
            down; 0.2 is the paper's.

    Shape:
        - images: (N, C, H, W), float, normalised so that zero is the mean colour; any H and W >= 32. They are padded
          right and bottom with zeros to a multiple of 32.
        - returns: logits (N, K, H, W), float, unbounded.

    Raises:
        ValueError: If an argument is out of range; in forward, if the height or the width is below 32.

    Source: Jégou et al., "The one hundred layers tiramisu: Fully convolutional DenseNets for semantic segmentation",
    CVPR workshops 2017.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, depth: int = 103, dropout: float = 0.2):
        super().__init__()
        check_channels(num_classes, in_channels)
        if depth not in VARIANTS:
            raise ValueError(f"depth must be one of {', '.join(map(str, VARIANTS))}, not {depth}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1 (0.2 is the paper's), not {dropout}")
        growth, layers, bottom_layers = VARIANTS[depth]
        self.first = nn.Conv2d(in_channels, FIRST_CHANNELS, 3, padding=1)
        channels = FIRST_CHANNELS
        self.blocks_down, self.downs, skips = nn.ModuleList(), nn.ModuleList(), []
        for num_layers in layers:
            self.blocks_down.append(DenseBlock(channels, num_layers, growth, dropout))
            channels += num_layers * growth
            skips.append(channels)
            self.downs.append(TransitionDown(channels, dropout))
        self.bottom = DenseBlock(channels, bottom_layers, growth, dropout)
        new = bottom_layers * growth
        self.ups, self.blocks_up = nn.ModuleList(), nn.ModuleList()
        for num_layers, skip in zip(reversed(layers), reversed(skips), strict=True):
            self.ups.append(TransitionUp(new))
            self.blocks_up.append(DenseBlock(skip + new, num_layers, growth, dropout))
            channels, new = skip + new, num_layers * growth
        self.head = nn.Conv2d(channels + new, num_classes, 1)
        kaiming_init(self)

    def forward(self, images: Tensor) -> Tensor:
        x, skips = self.first(pad_to_multiple(images, 32)), []
        for block, down in zip(self.blocks_down, self.downs, strict=True):
            skips.append(torch.cat([x, block(x)], dim=1))
            x = down(skips[-1])
        new = self.bottom(x)
        for up, block, skip in zip(self.ups, self.blocks_up, reversed(skips), strict=True):
            x = torch.cat([skip, up(new)], dim=1)
            new = block(x)
        return crop_like(self.head(torch.cat([x, new], dim=1)), images)


class DenseBlock(nn.ModuleList):
    """Find new features, layer by layer, each from the input and all new ones before.

    Shape:
        - x: (N, in_channels, H, W), float.
        - returns: only the new features (N, num_layers * growth, H, W), float.
    """

    def __init__(self, in_channels: int, num_layers: int, growth: int, dropout: float):
        super().__init__(
            nn.Sequential(*bn_relu_conv(in_channels + i * growth, growth, kernel=3), nn.Dropout(dropout))
            for i in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self:
            features.append(layer(torch.cat(features, dim=1)))
        return torch.cat(features[1:], dim=1)


class TransitionDown(nn.Sequential):
    """Mix the channels and keep the largest value of each 2x2 window.

    Shape:
        - input: (N, channels, H, W), float, H and W even.
        - returns: (N, channels, H/2, W/2), float.
    """

    def __init__(self, channels: int, dropout: float):
        super().__init__(*bn_relu_conv(channels, channels, kernel=1), nn.Dropout(dropout), nn.MaxPool2d(2))


class TransitionUp(nn.ConvTranspose2d):
    """Double the size with a transposed convolution.

    Shape:
        - x: (N, channels, H, W), float.
        - returns: (N, channels, 2H, 2W), float.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[..., :-1, :-1]  # 2H+1 and 2W+1 before; the original crops at this end too


def bn_relu_conv(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    """Normalise, clip, convolve: the order of a DenseNet."""
    return [
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
    ]
