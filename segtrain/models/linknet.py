"""LinkNet: a ResNet encoder whose features are added, not concatenated, to those of a thin decoder."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model

from segtrain.models.blocks import bn_relu, check_channels, crop_like, kaiming_init, pad_to_multiple, unknown_name
from segtrain.models.pretrained import load_pretrained


class LinkNet(nn.Module):
    """Segment images with LinkNet.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Channels of the images, C.
        encoder: resnet18 (the paper's), resnet34 or resnet50, each torchvision's without its fc.
        pretrained: Weights of the encoder: an entry of torchvision (IMAGENET1K_V1, DEFAULT), or a file with the state
            dict of torchvision's network. Its first convolution is adapted to `in_channels`: one or two channels share
            the sum of the RGB kernels, channels after the third start from zero. None starts from scratch.

    Shape:
        - images: (N, C, H, W), float, normalised so that zero is the mean colour; any H and W >= 32. They are padded
          right and bottom with zeros to a multiple of 32.
        - returns: logits (N, K, H, W), float, unbounded.

    Raises:
        ValueError: If an argument is out of range, the encoder or the weights are unknown, or do not load; in forward,
            if the height or the width is below 32.

    Source: Chaurasia and Culurciello, "LinkNet: Exploiting encoder representations for efficient semantic
    segmentation", VCIP 2017.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, encoder: str = "resnet18", pretrained: str | None = None
    ):
        super().__init__()
        check_channels(num_classes, in_channels)
        self.encoder = ResNetEncoder(encoder, in_channels, pretrained)
        stem, c1, c2, c3, c4 = self.encoder.channels
        self.decoder = nn.ModuleList([
            DecoderBlock(c4, c3),
            DecoderBlock(c3, c2),
            DecoderBlock(c2, c1),
            DecoderBlock(c1, stem, stride=1),  # the encoder's first stage keeps the size of its stem
        ])  # fmt: skip
        self.head = nn.Sequential(
            bn_relu(nn.ConvTranspose2d(stem, 32, 3, stride=2, padding=1, output_padding=1)),
            bn_relu(nn.Conv2d(32, 32, 3, padding=1)),
            nn.ConvTranspose2d(32, num_classes, 2, stride=2),
        )
        kaiming_init(self.decoder)
        kaiming_init(self.head)

    def forward(self, images: Tensor) -> Tensor:
        *skips, x = self.encoder(pad_to_multiple(images, 32))
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = F.relu(skip + block(x))
        return crop_like(self.head(x), images)


class DecoderBlock(nn.Sequential):
    """Squeeze to a quarter of the channels, enlarge, widen to the channels of the skip.

    Shape:
        - input: (N, in_channels, H, W), float.
        - returns: (N, out_channels, stride * H, stride * W), float, >= 0.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2):
        mid = in_channels // 4
        super().__init__(
            bn_relu(nn.Conv2d(in_channels, mid, 1, bias=False)),
            bn_relu(nn.ConvTranspose2d(mid, mid, 3, stride, padding=1, output_padding=stride - 1, bias=False)),
            bn_relu(nn.Conv2d(mid, out_channels, 1, bias=False)),
        )


RESNETS = {  # the channels of the five feature maps of each
    "resnet18": (64, 64, 128, 256, 512),
    "resnet34": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
}


class ResNetEncoder(nn.Module):
    """Extract the features of torchvision's ResNet at strides 4 (twice), 8, 16 and 32.

    Parameters keep torchvision's names (conv1, bn1, layer1..4), so its state dicts fit. There is no fc.

    Args:
        name: resnet18, resnet34 or resnet50.
        in_channels: Channels of the input.
        pretrained: Where weights come from, see `load_pretrained`; None draws them at random, as torchvision does.

    Attributes:
        channels: The channels of the five feature maps.

    Shape:
        - images: (N, C, H, W), float, normalised, H and W divisible by 32.
        - returns: five maps (N, channels[i], H/s, W/s) with s = 4, 4, 8, 16, 32; float, >= 0 (they end in ReLU).

    Raises:
        ValueError: If the name is unknown or the weights cannot be loaded.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    def __init__(self, name: str, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        if name not in RESNETS:
            raise unknown_name("encoder", name, RESNETS)
        self.channels = RESNETS[name]
        resnet = get_model(name, weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if pretrained is not None:
            load_pretrained(self, name, pretrained, first_conv="conv1.weight", ignore=("fc.",))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [self.maxpool(self.relu(self.bn1(self.conv1(images))))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features
