"""LinkNet on a pre-activation ResNet-18: BatchNorm and ReLU stand before every convolution."""

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import (
    SegmentationNetwork,
    crop_like,
    kaiming_init,
    pad_to_multiple,
    preact,
    use_keras_batch_norm,
)


class LinkNetPreact(SegmentationNetwork):
    """Segment images with a pre-activation LinkNet of total stride 64.

    It differs from the paper's LinkNet: every convolution has a bias and follows BatchNorm and ReLU, all four stages
    halve the size, the decoder repeats pixels and convolves where the paper uses transposed convolutions, and the last
    decoder block adds no skip. Training on images of at most 64x64 needs N >= 2: their innermost map has a single
    pixel, and BatchNorm needs two.

    Args:
        keras_compatible: A ReLU on the normalised image too, which loses all that is darker than the mean, and
            BatchNorm with Keras's eps and momentum. By default the image passes BatchNorm only.

    Source: Chaurasia and Culurciello, "LinkNet: Exploiting encoder representations for efficient semantic
    segmentation", VCIP 2017; He et al., "Identity mappings in deep residual networks", ECCV 2016.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, keras_compatible: bool = False):
        super().__init__(num_classes, in_channels)
        # A side of 64n pixels becomes 32n - 3 and 16n - 1 here, then 8n, 4n, 2n and n. The first convolution is not
        # padded, yet misses no more than the last row and column, and at stride 8 each window is centred on the pixels
        # its cell stands for, but for half a pixel.
        self.stem = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True) if keras_compatible else nn.Identity(),
            nn.Conv2d(in_channels, 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.encoder = nn.ModuleList([
            nn.Sequential(StridedBlock(64, 64, odd=True), Block(64)),
            nn.Sequential(StridedBlock(64, 128), Block(128)),
            nn.Sequential(StridedBlock(128, 256), Block(256)),
            nn.Sequential(StridedBlock(256, 512), Block(512)),
        ])  # fmt: skip
        self.decoder = nn.ModuleList([
            DecoderBlock(512, 256),
            DecoderBlock(256, 128),
            DecoderBlock(128, 64),
            DecoderBlock(64, 64),
        ])  # fmt: skip
        self.head = nn.Sequential(
            preact(nn.Upsample(scale_factor=2), nn.Conv2d(64, 32, 3, padding=1)),
            preact(nn.Conv2d(32, 32, 3, padding=1)),
            preact(nn.Upsample(scale_factor=2), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(32, num_classes, 2)),
        )
        kaiming_init(self)
        if keras_compatible:
            use_keras_batch_norm(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(pad_to_multiple(images, 64))
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        *others, last = self.decoder
        for block, skip in zip(others, reversed(skips[:-1]), strict=True):
            x = F.relu(skip + block(x))
        return crop_like(self.head(last(x)), images)


class Block(nn.Sequential):
    """Add to a feature map what two convolutions make of it."""

    def __init__(self, channels: int):
        super().__init__(
            preact(nn.Conv2d(channels, channels, 3, padding=1)),
            preact(nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class StridedBlock(nn.Module):
    """Halve a feature map, rounding up, and add what two convolutions make of it.

    Args:
        odd: Whether height and width are odd. Then all edges are padded; even ones on the right and at the bottom only,
            so that the first window starts in the corner.
    """

    def __init__(self, in_channels: int, out_channels: int, odd: bool = False):
        super().__init__()
        padding = nn.ZeroPad2d((1, 1, 1, 1) if odd else (0, 1, 0, 1))
        self.residual = nn.Sequential(
            preact(padding, nn.Conv2d(in_channels, out_channels, 3, stride=2)),
            preact(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)


class DecoderBlock(nn.Sequential):
    """Squeeze to a quarter of the channels, double height and width, widen to the channels of the skip."""

    def __init__(self, in_channels: int, out_channels: int):
        mid = in_channels // 4
        super().__init__(
            preact(nn.Conv2d(in_channels, mid, 1)),
            preact(nn.Upsample(scale_factor=2), nn.Conv2d(mid, mid, 3, padding=1)),
            preact(nn.Conv2d(mid, out_channels, 1)),
        )


def keras_layers(network: LinkNetPreact) -> dict[str, str]:
    """Map the Keras original's layers, which it numbers in the order in which they are made here, to modules."""
    layers: dict[str, str] = {}
    for kind, keras in ((nn.Conv2d, "conv2d"), (nn.BatchNorm2d, "batch_normalization")):
        modules = [name for name, module in network.named_modules() if isinstance(module, kind)]
        layers |= {f"{keras}_{i}" if i else keras: name for i, name in enumerate(modules)}
    return layers
