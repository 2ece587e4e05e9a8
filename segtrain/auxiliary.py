"""Losses of auxiliary heads: what a network returns in training beside its logits, and the targets made for it.

In training mode a network may return {"logits": ..., "aux": {name: ...}}, all of them of the images' size. A head named
boundary or detail has the loss of its name, which makes its target from the labels; the others are trained as the main
one is.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.labels import IGNORE_INDEX
from segtrain.losses import Loss

OWN = ("boundary", "detail")  # the heads of one channel
BOUNDARY_AWARE = "boundary_aware"  # not a head: the main loss again, on the pixels where the head boundary sees one


class AuxiliaryLoss(Loss):
    """Add the weighted losses of auxiliary heads to that of the main head.

    The T sums and normalizers are those of the main loss, then those of each head, whose weights are in the sums.

    Args:
        main: The loss of the logits, and of the heads that have none of their own.
        weights: The weight of each head by name, >= 0, as a network lists them in `aux_weights`; beside the heads
            boundary_aware, which is the main loss on the pixels where the head boundary exceeds a probability of 0.8.

    Shape:
        - output: {"logits": (N, K, H, W), "aux": {name: (N, K, H, W), or (N, 1, H, W) for boundary and detail}}.
        - target: See `Loss`.
    """

    def __init__(self, main: Loss, weights: Mapping[str, float]):
        super().__init__()
        own: dict[str, Loss] = {"boundary": BoundaryLoss(), "detail": DetailLoss()}
        self.main, self.weights = main, dict(weights)
        self.losses = nn.ModuleDict({name: own[name] for name in weights if name in own})

    def _loss(self, name: str) -> Loss:
        return cast("Loss", self.losses[name]) if name in self.losses else self.main

    def normalizer(self, target: Tensor) -> Tensor:
        losses = [self.main, *map(self._loss, self.weights)]
        return torch.cat([loss.normalizer(target) for loss in losses])

    def forward(self, output: Mapping[str, Any], target: Tensor) -> Tensor:  # type: ignore[override]
        logits, aux = output["logits"], output["aux"]
        sums = [self.main(logits, target)]
        for name, weight in self.weights.items():
            if name == BOUNDARY_AWARE:
                sums.append(weight * boundary_aware(self.main, logits, aux["boundary"], target))
            else:
                sums.append(weight * self._loss(name)(aux[name], target))
        return torch.cat(sums)


def boundary_aware(loss: Loss, logits: Tensor, boundary: Tensor, target: Tensor, threshold: float = 0.8) -> Tensor:
    """Return the sums of a loss on the pixels where the boundary logits (N, 1, H, W) exceed a probability.

    The mean over these pixels of an image stands for the image, so that the normalizer is that of the whole target.

    Source: Xu et al., "PIDNet: A real-time semantic segmentation network inspired by PID controllers", CVPR 2023.
    """
    near = torch.where(boundary.detach()[:, 0].float().sigmoid() > threshold, target, IGNORE_INDEX)
    sums = []
    for number in range(len(target)):
        one = slice(number, number + 1)
        weight = loss.normalizer(near[one])
        # An image without such a pixel has a sum of 0; the division must not put a NaN into its gradient.
        scale = torch.where(weight > 0, loss.normalizer(target[one]) / torch.where(weight > 0, weight, 1.0), 0.0)
        sums.append(scale * loss(logits[one], near[one]))
    return torch.stack(sums).sum(0)


class BoundaryLoss(Loss):
    """Sum the cross entropy of boundary and other pixels, weighted so that both count the same in each image.

    A boundary pixel has the share of the other pixels as its weight, and the other way round. Void pixels, and what
    lies between them and a class, are neither.

    Shape:
        - logits: (N, 1, H, W), of being near a boundary.

    Source: Xu et al., PIDNet, CVPR 2023; the boundaries are those of mmsegmentation, changes from class to class.
    """

    def normalizer(self, target: Tensor) -> Tensor:
        return (target != IGNORE_INDEX).sum().float().reshape(1)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return balanced_cross_entropy(logits[:, 0], find_boundaries(target), target != IGNORE_INDEX).sum().reshape(1)


def balanced_cross_entropy(logits: Tensor, edges: Tensor, valid: Tensor) -> Tensor:
    """Return the binary cross entropy of every pixel, weighted by the share of the other kind in its image.

    All are (N, H, W), edges and valid bool; the result is 0 where not valid.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), edges.float(), reduction="none")
    num_valid = valid.sum((1, 2), keepdim=True).clamp_min(1)
    share = (edges & valid).sum((1, 2), keepdim=True) / num_valid
    return torch.where(valid, losses * torch.where(edges, 1 - share, share), 0.0)


def find_boundaries(target: Tensor) -> Tensor:
    """Return the pixels near a change from one class to another: (N, H, W), bool, a band of 4 pixels.

    A pixel is compared with those above, right, and diagonally below; each change is then widened to 4x4 pixels.
    """
    height, width = target.shape[1:]
    around = F.pad(target, (1, 1, 1, 1), value=IGNORE_INDEX)
    change = torch.zeros_like(target, dtype=torch.bool)
    for row, column in ((0, 1), (1, 2), (2, 2), (2, 0)):
        other = around[:, row:row + height, column:column + width]
        change |= (other != target) & (other != IGNORE_INDEX)
    change &= target != IGNORE_INDEX
    return F.max_pool2d(F.pad(change.float(), (2, 1, 2, 1)), 4, 1) > 0


class DetailLoss(Loss):
    """Sum binary cross entropy, over pixels, and dice, over images, of the details that the labels show.

    Shape:
        - logits: (N, 1, H, W), of being a detail.

    Source: Fan et al., "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021.
    """

    def normalizer(self, target: Tensor) -> Tensor:
        valid = (target != IGNORE_INDEX).flatten(1)
        return torch.stack([valid.sum(), valid.any(1).sum()]).float()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = target != IGNORE_INDEX
        return detail_losses(logits[:, 0], find_details(target, valid), valid)


def detail_losses(logits: Tensor, details: Tensor, valid: Tensor) -> Tensor:
    """Return the sum of the pixels' binary cross entropy and the sum of the images' dice; all arguments (N, H, W)."""
    member = details.float()
    losses = F.binary_cross_entropy_with_logits(logits.float(), member, reduction="none")
    probability = torch.where(valid, logits.float().sigmoid(), 0.0)
    overlap, size = ((probability * member).sum((1, 2)), (probability + member * valid).sum((1, 2)))
    dice = torch.where(valid.flatten(1).any(1), 1 - (2 * overlap + 1) / (size + 1), 0.0)
    return torch.stack([torch.where(valid, losses, 0.0).sum(), dice.sum()])


def find_details(target: Tensor, valid: Tensor) -> Tensor:
    """Return the pixels whose train id exceeds those around it, at strides 1 and 2: (N, H, W), bool.

    It is a Laplacian whose negative part is cut, so of two classes the one with the higher id has the details; outside
    the image everything counts as 0. Pixels that are not `valid`, (N, H, W), bool, are left out of it. The paper has a
    stride of 4 too, but its published code gives that a weight, 0.1, which its own threshold removes again.
    """
    ids, weight = (torch.where(valid, target, 0).float()[:, None], valid.float()[:, None])
    ones = torch.ones(1, 1, 3, 3, device=target.device)
    found = torch.zeros_like(valid)
    outside = 9 - F.conv2d(torch.ones_like(ids), ones, padding=1)
    for stride in (1, 2):
        around = F.conv2d(ids, ones, stride=stride, padding=1)
        number = F.conv2d(weight, ones, stride=stride, padding=1) + outside[..., ::stride, ::stride]
        laplacian = (number * ids[..., ::stride, ::stride] - around) * weight[..., ::stride, ::stride]
        found |= F.interpolate(laplacian, target.shape[1:])[:, 0] > 0
    return found
