"""Tiramisu (FC-DenseNet): dense blocks on the way down and up, of which only the new features are enlarged."""

import torch
from torch import Tensor, nn

from segtrain.models.blocks import SegmentationNetwork, UpConv2d, crop_like, kaiming_init, pad_to_multiple, preact

FIRST_CHANNELS = 48

# depth -> growth rate, layers of the five dense blocks on each way (here from the top down), layers of the bottom one
VARIANTS = {
    56: (12, (4, 4, 4, 4, 4), 4),
    67: (16, (5, 5, 5, 5, 5), 5),
    103: (16, (4, 5, 7, 10, 12), 15),
}


class Tiramisu(SegmentationNetwork):
    """Segment images with the fully convolutional DenseNet of "The one hundred layers tiramisu".

    All convolutions have a bias, which gives the parameters of the authors' code.

    Args:
        depth: 56, 67 or 103, the number of layers.
        dropout: Probability that a value is dropped after each convolution of the dense blocks and the transitions
            down; 0.2 is the paper's.

    Source: Jégou et al., "The one hundred layers tiramisu: Fully convolutional DenseNets for semantic segmentation",
    CVPR workshops 2017.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, depth: int = 103, dropout: float = 0.2):
        super().__init__(num_classes, in_channels)
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
            self.downs.append(preact(nn.Conv2d(channels, channels, 1), nn.Dropout(dropout), nn.MaxPool2d(2)))
        self.bottom = DenseBlock(channels, bottom_layers, growth, dropout)
        new = bottom_layers * growth
        self.ups, self.blocks_up = nn.ModuleList(), nn.ModuleList()
        for num_layers, skip in zip(reversed(layers), reversed(skips), strict=True):
            self.ups.append(UpConv2d(new, new))
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
    """Find new features, layer by layer, each from the input and all new ones before; return the new ones only."""

    def __init__(self, in_channels: int, num_layers: int, growth: int, dropout: float):
        super().__init__(
            preact(nn.Conv2d(in_channels + i * growth, growth, 3, padding=1), nn.Dropout(dropout))
            for i in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self:
            features.append(layer(torch.cat(features, dim=1)))
        return torch.cat(features[1:], dim=1)
