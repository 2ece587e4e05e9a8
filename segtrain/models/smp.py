"""Networks of segmentation_models_pytorch, an optional package: any of its architectures on any of its encoders."""

import importlib
from typing import Any

from torch import Tensor, nn

from segtrain.models.blocks import SegmentationNetwork, UnknownNameError, crop_like, pad_to_multiple
from segtrain.models.pretrained import IMAGENET, Normalization


class SMPNetwork(SegmentationNetwork):
    """Segment images with a network of segmentation_models_pytorch.

    Images are padded to a multiple of 32; PAN needs at least 128, DPT the size that its encoder was made for.

    Args:
        architecture: As the package calls it, such as Linknet, Unet, FPN or DeepLabV3Plus.
        encoder: As the package calls it, such as resnet18, or tu-NAME for one of timm.
        pretrained: Weights of the encoder by the package's name for them, mostly imagenet (downloaded once); it adapts
            the first convolution to `in_channels` in its own way. None starts from scratch.

    Source: Iakubovskii, "Segmentation Models PyTorch", 2019, https://github.com/qubvel-org/segmentation_models.pytorch.
    """

    def __init__(
        self, num_classes: int, architecture: str, encoder: str, in_channels: int = 3, pretrained: str | None = None
    ):
        super().__init__(num_classes, in_channels)
        try:
            package: Any = importlib.import_module("segmentation_models_pytorch")
        except ImportError as error:
            raise ValueError(
                f"segmentation_models_pytorch cannot be imported ({error}): pip install '.[smp]' in the folder of "
                "segtrain's source"
            ) from error
        known = {made.__name__: made for made in package.MODEL_ARCHITECTURES_MAPPING.values()}
        if architecture not in known:
            raise UnknownNameError("architecture", architecture, known)
        if not encoder.startswith("tu-") and encoder not in package.encoders.encoders:
            raise UnknownNameError("encoder", encoder, package.encoders.encoders)
        try:
            self.network = known[architecture](
                encoder, encoder_weights=pretrained, in_channels=in_channels, classes=num_classes
            )
        except (KeyError, OSError, RuntimeError) as error:
            if pretrained is None:
                raise
            raise ValueError(f"pretrained={pretrained} cannot be loaded into {encoder}: {error}") from error

    @property
    def encoder(self) -> nn.Module:
        """The encoder of the package's network."""
        return self.network.encoder

    @staticmethod
    def normalization(pretrained: str, encoder: str = "", **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, as the package records it; ImageNet's if not."""
        try:
            package: Any = importlib.import_module("segmentation_models_pytorch")
            record = package.encoders.get_preprocessing_params(encoder, pretrained=pretrained)
        except (ImportError, KeyError, ValueError, RuntimeError, OSError):  # the constructor reports what is wrong
            return IMAGENET
        return list(record.get("mean") or IMAGENET[0]), list(record.get("std") or IMAGENET[1])

    def forward(self, images: Tensor) -> Tensor:
        return crop_like(self.network(pad_to_multiple(images, 32)), images)
