"""U-Net: what was seen on the way down is handed across, at every scale, to the way up."""

import torch
from torch import Tensor, nn

from segtrain.models.blocks import (
    Output,
    SegmentationNetwork,
    bn_relu,
    crop_like,
    fcn_head,
    kaiming_init,
    pad_to_multiple,
)


class UNet(SegmentationNetwork):
    """Segment images with U-Net.

    Two things differ from the original: convolutions pad, so that the logits have the images' size (the original loses
    92 pixels on each side); and there is no dropout at the bottom, for which the paper gives no rate.

    Args:
        width: Channels of the first stage; each of the four below has twice as many. 64 is the paper's.
        batch_norm: Put batch normalisation between convolution and ReLU. The original has none.
        aux: Add an auxiliary head on the decoder's map at 1/8, as deep supervision; not the paper's.

    Source: Ronneberger et al., "U-Net: Convolutional networks for biomedical image segmentation", MICCAI 2015.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64, batch_norm: bool = False,
                 aux: bool = False):
        super().__init__(num_classes, in_channels)
        if width < 1:
            raise ValueError(f"width must be at least 1 (64 is the paper's), not {width}")
        c1, c2, c3, c4, c5 = (width * 2**stage for stage in range(5))
        self.encoder = nn.ModuleList([
            double_conv(in_channels, c1, batch_norm),
            double_conv(c1, c2, batch_norm),
            double_conv(c2, c3, batch_norm),
            double_conv(c3, c4, batch_norm),
        ])  # fmt: skip
        self.pool = nn.MaxPool2d(2)
        self.bottom = double_conv(c4, c5, batch_norm)
        self.decoder = nn.ModuleList([
            DecoderBlock(c5, c4, batch_norm),
            DecoderBlock(c4, c3, batch_norm),
            DecoderBlock(c3, c2, batch_norm),
            DecoderBlock(c2, c1, batch_norm),
        ])  # fmt: skip
        self.head = nn.Conv2d(c1, num_classes, 1)
        if aux:
            self.aux["at8"], self.aux_weights = fcn_head(c4, max(1, c4 // 4), num_classes), {"at8": 0.4}
        kaiming_init(self)  # the paper's; without BatchNorm nothing else keeps signals from fading

    def forward(self, images: Tensor) -> Output:
        padded = pad_to_multiple(images, 16)
        x, skips, maps = padded, [], []
        for block in self.encoder:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.bottom(x)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(x, skip)
            maps.append(x)
        return self.with_aux(crop_like(self.head(x), images), {"at8": maps[0]}, padded)


class DecoderBlock(nn.Module):
    """Enlarge twofold, put the skip (N, out_channels, 2H, 2W) in front, convolve twice."""

    def __init__(self, in_channels: int, out_channels: int, batch_norm: bool):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = double_conv(2 * out_channels, out_channels, batch_norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([skip, self.up(x)], dim=1))


def double_conv(in_channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    """Convolve twice, 3x3, each with ReLU; batch normalisation before it if wanted."""
    convs = [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.Conv2d(out_channels, out_channels, 3, padding=1)]
    if batch_norm:
        return nn.Sequential(*map(bn_relu, convs))
    return nn.Sequential(convs[0], nn.ReLU(inplace=True), convs[1], nn.ReLU(inplace=True))
