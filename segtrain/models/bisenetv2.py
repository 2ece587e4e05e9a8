"""BiSeNetV2: a wide and shallow branch for details, a narrow and deep one for meaning, each gating the other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import (
    Output,
    PooledBatchNorm2d,
    SegmentationNetwork,
    UnknownNameError,
    check_size,
    conv_bn,
    conv_bn_relu,
    kaiming_init,
    resize_like,
)

VARIANTS = ("mmseg", "coincheung")
HEADS = {"stem": (16, 16, 4), "stage3": (32, 64, 8), "stage4": (64, 256, 16), "stage5": (128, 1024, 32)}
# of each auxiliary head: the channels that it reads, its own in mmsegmentation, its stride

RENAMED = {  # of CoinCheung's code, then of mmsegmentation's
    r"\.dwconv\.([01])\.(weight|bias|running_\w+)$": r".dwconv.0.\1.\2",
    r"\.dwconv1\.": ".dwconv.0.",
    r"\.dwconv2\.": ".dwconv.1.",
    r"^detail\.S1\.": "detail.0.",
    r"^detail\.S2\.": "detail.1.",
    r"^detail\.S3\.": "detail.2.",
    r"^segment\.S1S2\.": "stem.",
    r"^segment\.S([34])\.": r"stage\1.",
    r"^segment\.S5_4\.": "stage5.",
    r"^segment\.S5_5\.": "context.",
    r"^head\.conv\.": "head.",
    r"^head\.conv_out\.1\.": "head.4.",
    r"^aux2\.": "aux.stem.",
    r"^aux([34])\.": r"aux.stage\1.",
    r"^aux5_4\.": "aux.stage5.",
    r"^(aux\.\w+)\.conv\.": r"\1.",
    r"^(aux\.\w+)\.conv_out\.0\.1\.conv\.": r"\1.5.",
    r"^(aux\.\w+)\.conv_out\.0\.1\.bn\.": r"\1.6.",
    r"^(aux\.\w+)\.conv_out\.1\.": r"\1.8.",
    r"^backbone\.detail\.detail_branch\.": "detail.",
    r"^backbone\.semantic\.stage1\.conv_first\.": "stem.conv.",
    r"^backbone\.semantic\.stage1\.convs\.": "stem.left.",
    r"^backbone\.semantic\.stage1\.fuse_last\.": "stem.fuse.",
    r"^backbone\.semantic\.stage4_CEBlock\.(gap\.1\b)?": lambda match: "context.bn" if match[1] else "context.",
    r"^backbone\.semantic\.stage2\.": "stage3.",
    r"^backbone\.semantic\.stage3\.": "stage4.",
    r"^backbone\.semantic\.stage4\.": "stage5.",
    r"\.shortcut\.0\.depthwise_conv\.conv\.": ".shortcut.0.",
    r"\.shortcut\.0\.depthwise_conv\.bn\.": ".shortcut.1.",
    r"\.shortcut\.0\.pointwise_conv\.conv\.": ".shortcut.2.",
    r"\.shortcut\.0\.pointwise_conv\.bn\.": ".shortcut.3.",
    r"\.conv2\.0\.conv\.": ".conv2.0.",
    r"\.conv2\.0\.bn\.": ".conv2.1.",
    r"^backbone\.bga\.detail_dwconv\.0\.": "bga.left1.",
    r"^backbone\.bga\.semantic_dwconv\.0\.": "bga.right2.",
    r"^backbone\.bga\.detail_down\.0\.": "bga.left2.",
    r"^backbone\.bga\.semantic_conv\.0\.": "bga.right1.",
    r"^backbone\.bga\.": "bga.",
    r"\.depthwise_conv\.conv\.": ".0.",
    r"\.depthwise_conv\.bn\.": ".1.",
    r"\.pointwise_conv\.conv\.": ".2.",
    r"^decode_head\.convs\.0\.": "head.",
    r"^decode_head\.conv_seg\.": "head.4.",
    r"^auxiliary_head\.0\.": "aux.stem.",
    r"^auxiliary_head\.1\.": "aux.stage3.",
    r"^auxiliary_head\.2\.": "aux.stage4.",
    r"^auxiliary_head\.3\.": "aux.stage5.",
    r"^(aux\.\w+)\.convs\.1\.conv\.": r"\1.3.",
    r"^(aux\.\w+)\.convs\.1\.bn\.": r"\1.4.",
    r"^(aux\.\w+)\.convs\.0\.": r"\1.",
    r"^(aux\.\w+)\.conv_seg\.": r"\1.7.",
    r"^((?:.+\.)?)conv\.(weight|bias)$": r"\g<1>0.\2",
    r"^((?!context\.bn\.).+\.)bn\.(\w+)$": r"\g<1>1.\2",
}


class BiSeNetV2(SegmentationNetwork):
    """Segment images with BiSeNetV2, the paper's base model.

    The paper's own code is not published. Two others' are in use, and their weights do not fit each other.

    Args:
        variant: mmseg: mmsegmentation's, which enlarges bilinearly where the branches meet; coincheung: CoinCheung's,
            which repeats pixels there and has smaller auxiliary heads.
        aux: Add auxiliary heads on the stages of the narrow branch.

    Source: Yu et al., "BiSeNet V2: Bilateral network with guided aggregation for real-time semantic segmentation",
    IJCV 2021.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, variant: str = "mmseg", aux: bool = True):
        super().__init__(num_classes, in_channels)
        if variant not in VARIANTS:
            raise UnknownNameError("variant", variant, VARIANTS)
        is_mmseg = variant == "mmseg"
        self.detail = nn.Sequential(
            nn.Sequential(conv_bn_relu(in_channels, 64, 3, 2), conv_bn_relu(64, 64, 3)),
            nn.Sequential(conv_bn_relu(64, 64, 3, 2), conv_bn_relu(64, 64, 3), conv_bn_relu(64, 64, 3)),
            nn.Sequential(conv_bn_relu(64, 128, 3, 2), conv_bn_relu(128, 128, 3), conv_bn_relu(128, 128, 3)),
        )
        self.stem = Stem(in_channels)
        self.stage3 = nn.Sequential(GatherExpand(16, 32, 2), GatherExpand(32, 32))
        self.stage4 = nn.Sequential(GatherExpand(32, 64, 2), GatherExpand(64, 64))
        self.stage5 = nn.Sequential(GatherExpand(64, 128, 2), *(GatherExpand(128, 128) for _ in range(3)))
        self.context = ContextEmbedding(128)
        self.bga = Aggregation(128, "bilinear" if is_mmseg else "nearest", bias=is_mmseg)
        kaiming_init(self, "fan_out")
        self.head = conv_bn_relu(128, 1024, 3).extend([nn.Dropout(0.1), nn.Conv2d(1024, num_classes, 1)])
        if aux:
            for name, (channels, width, stride) in HEADS.items():
                layers = (mmseg_head(channels, width, num_classes) if is_mmseg
                          else coincheung_head(channels, stride, num_classes))
                self.aux[name], self.aux_weights[name] = layers, 1.0

    def forward(self, images: Tensor) -> Output:
        check_size(images)
        detail = self.detail(images)
        taps = {"stem": self.stem(images)}
        for name, before in (("stage3", "stem"), ("stage4", "stage3"), ("stage5", "stage4")):
            taps[name] = getattr(self, name)(taps[before])
        logits = self.head(self.bga(detail, self.context(taps["stage5"])))
        return self.with_aux(resize_like(logits, images), taps)


def mmseg_head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    """Return an auxiliary head of mmsegmentation."""
    return nn.Sequential(*conv_bn_relu(in_channels, channels, 3), *conv_bn_relu(channels, channels, 3),
                         nn.Dropout(0.1), nn.Conv2d(channels, num_classes, 1))


def coincheung_head(in_channels: int, stride: int, num_classes: int) -> nn.Sequential:
    """Return an auxiliary head of CoinCheung's code; it is the wider the deeper it sits."""
    return nn.Sequential(*conv_bn_relu(in_channels, 128, 3), nn.Dropout(0.1), nn.Upsample(scale_factor=2),
                         *conv_bn_relu(128, stride**2, 3), nn.Conv2d(stride**2, num_classes, 1))


class Stem(nn.Module):
    """Reduce images to a quarter of their size by convolution and by pooling."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv = conv_bn_relu(in_channels, 16, 3, 2)
        self.left = nn.Sequential(conv_bn_relu(16, 8), conv_bn_relu(8, 16, 3, 2))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.fuse = conv_bn_relu(32, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fuse(torch.cat([self.left(x), self.pool(x)], 1))


class GatherExpand(nn.Module):
    """Gather 3x3 neighbours, expand the channels six times for depthwise convolutions, add the input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        wide = 6 * in_channels
        self.conv1 = conv_bn_relu(in_channels, in_channels, 3)
        first = conv_bn(in_channels, wide, 3, stride, groups=in_channels)
        self.dwconv = nn.Sequential(first)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.dwconv.append(conv_bn(wide, wide, 3, groups=wide))
            self.shortcut = nn.Sequential(*conv_bn(in_channels, in_channels, 3, stride, groups=in_channels),
                                          *conv_bn(in_channels, out_channels))
        self.conv2 = conv_bn(wide, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.dwconv(self.conv1(x)))) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """Add what the whole image shows to every place."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = PooledBatchNorm2d(channels)
        self.conv_gap = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), PooledBatchNorm2d(channels),
                                      nn.ReLU(inplace=True))
        self.conv_last = conv_bn_relu(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_last(x + self.conv_gap(self.bn(x.mean((2, 3), keepdim=True))))


class Aggregation(nn.Module):
    """Let details (N, C, H, W) and meaning (N, C, H/4, W/4) gate each other, at both sizes, and add them."""

    def __init__(self, channels: int, mode: str, bias: bool):
        super().__init__()
        self.left1, self.right2 = (nn.Sequential(*conv_bn(channels, channels, 3, groups=channels),
                                                 nn.Conv2d(channels, channels, 1, bias=bias)) for _ in range(2))
        self.left2 = conv_bn(channels, channels, 3, 2).append(nn.AvgPool2d(3, 2, 1))
        self.right1 = conv_bn(channels, channels, 3)
        self.conv = conv_bn_relu(channels, channels, 3)
        self.mode = mode

    def forward(self, detail: Tensor, meaning: Tensor) -> Tensor:
        left = self.left1(detail) * resize_like(self.right1(meaning), detail, self.mode).sigmoid()
        right = self.left2(detail) * self.right2(meaning).sigmoid()
        return self.conv(left + resize_like(right, detail, self.mode))
