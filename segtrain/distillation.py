"""Distillation: a network learns from the logits of a trained one beside the labels.

In training mode the output is then {"student": what the network returns, "teacher": the other one's logits}.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segtrain.labels import IGNORE_INDEX
from segtrain.losses import Loss


class DistillationLoss(Loss):
    """Add to a loss the weighted divergence of the student's logits from the teacher's.

    The T sums and normalizers are those of the main loss, then that of the divergence, whose weight is in its sum. Void
    pixels count in neither.

    Args:
        main: The loss of the student's output.
        over: What the divergence compares: "pixel", the classes of each pixel, summed over pixels; or "channel", for
            each class where in the image it is, averaged over classes and summed over images.
        weight: Of the divergence.
        temperature: By which logits are divided before the softmax, above 0; the divergence is multiplied by its
            square, so that gradients keep their size.

    Shape:
        - output: {"student": (N, K, H, W) or {"logits": (N, K, H, W), ..}, "teacher": (N, K, H, W)}.
        - target: See `Loss`.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015; by channel: Shu et al., "Channel-wise
    knowledge distillation for dense prediction", ICCV 2021.
    """

    def __init__(self, main: Loss, over: str, weight: float, temperature: float):
        super().__init__()
        self.main, self.weight, self.temperature = main, weight, temperature
        self.diverge = {"pixel": pixel_divergence, "channel": channel_divergence}[over]
        self.over = over

    def normalizer(self, target: Tensor) -> Tensor:
        valid = target != IGNORE_INDEX
        count = valid.sum() if self.over == "pixel" else valid.flatten(1).any(1).sum()
        return torch.cat([self.main.normalizer(target), count.float().reshape(1)])

    def forward(self, output: Mapping[str, Any], target: Tensor) -> Tensor:  # type: ignore[override]
        student = output["student"]
        logits = student["logits"] if isinstance(student, Mapping) else student
        divergence = self.diverge(logits.float() / self.temperature, output["teacher"].float() / self.temperature,
                                  target != IGNORE_INDEX)
        return torch.cat([self.main(student, target),
                          (self.weight * self.temperature**2 * divergence).reshape(1)])


def pixel_divergence(logits: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Sum the KL divergence of the classes of each valid pixel; logits (N, K, H, W), valid (N, H, W), bool."""
    return torch.where(valid, _divergence(logits, teacher, 1), 0.0).sum()


def channel_divergence(logits: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Sum over images, and average over classes, the KL divergence of where in the image a class is."""
    least = torch.finfo(torch.float32).min / 2  # not -inf, whose difference would be NaN
    ours, theirs = (x.masked_fill(~valid[:, None], least).flatten(2) for x in (logits, teacher))
    return _divergence(ours, theirs, 2).mean(1).sum()


def _divergence(logits: Tensor, teacher: Tensor, dim: int) -> Tensor:
    expected = teacher.log_softmax(dim)
    return (expected.exp() * (expected - logits.log_softmax(dim))).sum(dim)
