"""DDRNet: a branch that keeps 1/8 of the size and one that goes to 1/64 exchange their features twice."""

from torch import Tensor, nn
from torch.nn.functional import relu

from segtrain.models.blocks import (
    Output,
    SegmentationNetwork,
    UnknownNameError,
    check_size,
    conv_bn,
    conv_bn_relu,
    kaiming_init,
    resize_like,
)
from segtrain.models.two_branch_blocks import Bottleneck, Head, SerialPyramid, chain, stem

VARIANTS = {"23_slim": (32, 64), "23": (64, 128)}  # channels of the stem, of the head

RENAMED = {r"^seghead_extra\.": "aux.high."}


class DDRNet(SegmentationNetwork):
    """Segment images with DDRNet.

    Args:
        variant: 23_slim or 23.
        aux: Add an auxiliary head on the branch of high resolution, after the first exchange.

    Source: Pan et al., "Deep dual-resolution networks for real-time and accurate semantic segmentation of traffic
    scenes", T-ITS 2022.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, variant: str = "23_slim", aux: bool = True):
        super().__init__(num_classes, in_channels)
        if variant not in VARIANTS:
            raise UnknownNameError("variant", variant, VARIANTS)
        c, head = VARIANTS[variant]
        self.conv1 = stem(in_channels, c)
        self.layer1 = chain(c, c, 2)
        self.layer2 = chain(c, 2 * c, 2, stride=2)
        self.layer3 = chain(2 * c, 4 * c, 2, stride=2)
        self.layer4 = chain(4 * c, 8 * c, 2, stride=2)
        self.layer5 = nn.Sequential(Bottleneck(8 * c, 8 * c, 2))
        self.layer3_ = chain(2 * c, 2 * c, 2)
        self.layer4_ = chain(2 * c, 2 * c, 2)
        self.layer5_ = nn.Sequential(Bottleneck(2 * c, 2 * c))
        self.compression3, self.compression4 = conv_bn(4 * c, 2 * c), conv_bn(8 * c, 2 * c)
        self.down3 = conv_bn(2 * c, 4 * c, 3, 2)
        self.down4 = nn.Sequential(*conv_bn_relu(2 * c, 4 * c, 3, 2), *conv_bn(4 * c, 8 * c, 3, 2))
        self.spp = SerialPyramid(16 * c, 128, 4 * c)
        kaiming_init(self, "fan_out")
        self.final_layer = Head(4 * c, head, num_classes)  # a head starts as torch draws it, unsure of everything
        if aux:
            self.aux["high"] = Head(2 * c, head, num_classes)
            self.aux_weights = {"high": 0.4}

    def forward(self, images: Tensor) -> Output:
        check_size(images)
        x = relu(self.layer2(relu(self.layer1(self.conv1(images)))))
        low, high = self.layer3(x), self.layer3_(x)
        low, high = (low + self.down3(relu(high)),
                     high + resize_like(self.compression3(relu(low)), high))
        tap = high
        low, high = self.layer4(relu(low)), self.layer4_(relu(high))
        low, high = (low + self.down4(relu(high)),
                     high + resize_like(self.compression4(relu(low)), high))
        low, high = self.spp(self.layer5(relu(low))), self.layer5_(relu(high))
        logits = resize_like(self.final_layer(high + resize_like(low, high)), images)
        return self.with_aux(logits, {"high": tap})
