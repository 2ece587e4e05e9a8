"""PIDNet: branches for parsing, context and boundaries, as the P, I and D of a controller."""

from torch import Tensor, nn
from torch.nn.functional import relu

from segtrain.models.blocks import (
    Output,
    SegmentationNetwork,
    UnknownNameError,
    check_size,
    conv_bn,
    kaiming_init,
    resize_like,
)
from segtrain.models.two_branch_blocks import (
    BasicBlock,
    Bottleneck,
    Head,
    ParallelPyramid,
    SerialPyramid,
    chain,
    preact_conv,
    stem,
)

# channels of the stem, blocks of the shallow and of the deep layers, channels of the pyramid and of the head
VARIANTS = {"s": (32, 2, 3, 96, 128), "m": (64, 2, 3, 96, 128), "l": (64, 3, 4, 112, 256)}

RENAMED = {r"^seghead_p\.": "aux.p.", r"^seghead_d\.": "aux.boundary."}


class PIDNet(SegmentationNetwork):
    """Segment images with PIDNet.

    Args:
        variant: s, m or l.
        aux: Add an auxiliary head on the P branch, p, and one on the D branch that finds boundaries. As in the authors'
            code both read rectified features, and their weights come with that of boundary awareness.

    Source: Xu et al., "PIDNet: A real-time semantic segmentation network inspired by PID controllers", CVPR 2023.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, variant: str = "s", aux: bool = True):
        super().__init__(num_classes, in_channels)
        if variant not in VARIANTS:
            raise UnknownNameError("variant", variant, VARIANTS)
        c, shallow, deep, pyramid, head = VARIANTS[variant]
        is_large = variant == "l"
        detail = 2 * c if is_large else c
        self.conv1 = stem(in_channels, c)
        self.layer1 = chain(c, c, shallow)
        self.layer2 = chain(c, 2 * c, shallow, stride=2)
        self.layer3 = chain(2 * c, 4 * c, deep, stride=2)
        self.layer4 = chain(4 * c, 8 * c, deep, stride=2)
        self.layer5 = nn.Sequential(Bottleneck(8 * c, 8 * c, 2), Bottleneck(16 * c, 8 * c))
        self.compression3, self.compression4 = conv_bn(4 * c, 2 * c), conv_bn(8 * c, 2 * c)
        self.pag3, self.pag4 = PixelAttention(2 * c, c), PixelAttention(2 * c, c)
        self.layer3_ = chain(2 * c, 2 * c, shallow)
        self.layer4_ = chain(2 * c, 2 * c, shallow)
        self.layer5_ = nn.Sequential(Bottleneck(2 * c, 2 * c))
        self.layer3_d = BasicBlock(2 * c, detail, is_open=True)
        self.layer4_d = BasicBlock(detail, 2 * c, is_open=True) if is_large else nn.Sequential(Bottleneck(c, c))
        self.layer5_d = nn.Sequential(Bottleneck(2 * c, 2 * c))
        self.diff3, self.diff4 = conv_bn(4 * c, detail, 3), conv_bn(8 * c, 2 * c, 3)
        self.spp = (SerialPyramid if is_large else ParallelPyramid)(16 * c, pyramid, 4 * c)
        self.dfm = BoundaryFusion(4 * c) if is_large else LightBoundaryFusion(4 * c)
        kaiming_init(self, "fan_out")
        self.final_layer = Head(4 * c, head, num_classes)  # a head starts as torch draws it, unsure of everything
        if aux:
            self.aux["p"], self.aux["boundary"] = Head(2 * c, head, num_classes), Head(2 * c, c, 1)
            self.aux_weights = {"p": 0.4, "boundary": 20.0, "boundary_aware": 1.0}

    def forward(self, images: Tensor) -> Output:
        check_size(images)
        x = relu(self.layer2(relu(self.layer1(self.conv1(images)))))
        p, d = self.layer3_(x), self.layer3_d(x)
        x = relu(self.layer3(x))
        p = relu(self.pag3(p, self.compression3(x)))
        d = relu(d + resize_like(self.diff3(x), d))
        tap_p = p
        x = relu(self.layer4(x))
        p = relu(self.pag4(self.layer4_(p), self.compression4(x)))
        d = self.layer4_d(d)
        d = relu(d + resize_like(self.diff4(x), d))
        tap_d = d
        p, d = self.layer5_(p), self.layer5_d(d)
        x = resize_like(self.spp(self.layer5(x)), p)
        logits = resize_like(self.final_layer(self.dfm(p, x, d)), images, align_corners=True)
        return self.with_aux(logits, {"p": tap_p, "boundary": tap_d}, align_corners=True)


class PixelAttention(nn.Module):
    """Take from the I branch what agrees with the P branch, pixel by pixel (Pag)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.f_x, self.f_y = conv_bn(in_channels, channels), conv_bn(in_channels, channels)

    def forward(self, p: Tensor, i: Tensor) -> Tensor:
        agreement = (self.f_x(p) * resize_like(self.f_y(i), p)).sum(1, keepdim=True).sigmoid()
        return (1 - agreement) * p + agreement * resize_like(i, p)


class LightBoundaryFusion(nn.Module):
    """Let the D branch choose between details (P) and context (I), with 1x1 convolutions (Light-Bag)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_p, self.conv_i = conv_bn(channels, channels), conv_bn(channels, channels)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        boundary = d.sigmoid()
        return self.conv_p((1 - boundary) * i + p) + self.conv_i(i + boundary * p)


class BoundaryFusion(nn.Module):
    """Let the D branch choose between details (P) and context (I), with a 3x3 convolution (Bag)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = preact_conv(channels, channels, 3)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        boundary = d.sigmoid()
        return self.conv(boundary * p + (1 - boundary) * i)
