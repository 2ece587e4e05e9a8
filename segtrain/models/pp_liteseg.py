"""PP-LiteSeg: STDC's encoder, a light pyramid, and a decoder that weighs low against high features at every pixel."""

import torch
from torch import Tensor, nn

from segtrain.models.blocks import (
    Output,
    PooledBatchNorm2d,
    SegmentationNetwork,
    UnknownNameError,
    check_size,
    mean_of_parts,
    resize_like,
)
from segtrain.models.stdc_blocks import ConvBNReLU, STDCEncoder, STDCHead

# depth of the encoder; channels of the decoder, and of the heads, at 1/8, 1/16 and 1/32
VARIANTS = {"t": (1, (32, 64, 128), (32, 64, 64)), "b": (2, (64, 96, 128), (64, 64, 64))}

RENAMED = {
    r"^backbone\.(conv_last|fc|bn|linear)\.": None,  # the classifier that the encoder was pretrained with
    r"^backbone\.": "encoder.",
    r"^ppseg_head\.cm\.stages\.(\d)\.1\.": r"pyramid.stages.\1.",
    r"^ppseg_head\.cm\.": "pyramid.",
    r"^ppseg_head\.arm_list\.\d\._scale$": None,  # a constant 1
    r"^ppseg_head\.arm_list\.": "decoder.",
    r"^seg_heads\.0\.": "head.",
    r"^seg_heads\.1\.": "aux.at16.",
    r"^seg_heads\.2\.": "aux.at32.",
}


class PPLiteSeg(SegmentationNetwork):
    """Segment images with PP-LiteSeg.

    Args:
        variant: t (on STDC1) or b (on STDC2).
        aux: Add auxiliary heads on the decoder's maps at 1/16 and 1/32.

    Source: Peng et al., "PP-LiteSeg: A superior real-time semantic segmentation model", 2022.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, variant: str = "t", aux: bool = True):
        super().__init__(num_classes, in_channels)
        if variant not in VARIANTS:
            raise UnknownNameError("variant", variant, VARIANTS)
        depth, (at8, at16, at32), heads = VARIANTS[variant]
        self.encoder = STDCEncoder(depth, in_channels, counts_padding=False)
        self.pyramid = Pyramid(1024, 128)
        self.decoder = nn.ModuleList([AttentionFusion(256, at16, at8), AttentionFusion(512, at32, at16),
                                      AttentionFusion(1024, 128, at32)])  # at 1/8, 1/16 and 1/32
        self.head = STDCHead(at8, heads[0], num_classes)
        if aux:
            self.aux["at16"], self.aux["at32"] = (STDCHead(at16, heads[1], num_classes),
                                                  STDCHead(at32, heads[2], num_classes))
            self.aux_weights = {"at16": 1.0, "at32": 1.0}

    def forward(self, images: Tensor) -> Output:
        check_size(images)
        *_, x8, x16, x32 = self.encoder(images)
        at32 = self.decoder[2](x32, self.pyramid(x32))
        at16 = self.decoder[1](x16, at32)
        logits = resize_like(self.head(self.decoder[0](x8, at16)), images)
        return self.with_aux(logits, {"at16": at16, "at32": at32})


class Pyramid(nn.Module):
    """Add up the means of an image over 1, 2x2 and 4x4 parts (SPPM)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.stages = nn.ModuleList(ConvBNReLU(in_channels, channels, bias=True, norm=norm) for norm in (
            PooledBatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d))
        self.conv_out = ConvBNReLU(channels, channels, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        one, two, four = (stage(mean_of_parts(x, parts)) for parts, stage in zip((1, 2, 4), self.stages, strict=True))
        return self.conv_out(one + resize_like(two, x) + resize_like(four, x))


class AttentionFusion(nn.Module):
    """Weigh low features against high ones by their means and maxima over the channels (UAFM)."""

    def __init__(self, low_channels: int, high_channels: int, out_channels: int):
        super().__init__()
        self.conv_x = ConvBNReLU(low_channels, high_channels, 3)
        self.conv_xy_atten = nn.Sequential(ConvBNReLU(4, 2, 3), ConvBNReLU(2, 1, 3))
        self.conv_xy_atten[1].relu = nn.Sigmoid()
        self.conv_out = ConvBNReLU(high_channels, out_channels, 3)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.conv_x(low)
        high = resize_like(high, low)
        summaries = [summary for x in (low, high) for summary in (x.mean(1, keepdim=True), x.amax(1, keepdim=True))]
        gate = self.conv_xy_atten(torch.cat(summaries, 1))
        return self.conv_out(low * gate + high * (1 - gate))

