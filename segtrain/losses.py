"""Losses as (sum, normalizer): the loss of a step does not depend on how its images are split over processes.

The mean over a batch cannot be averaged with the mean over another batch that has fewer labelled pixels. So a loss has
two parts: `forward` returns the sum, `normalizer` the denominator, which depends on the targets alone. With the
normalizers of all micro-batches and processes of a step added up beforehand, each micro-batch contributes

    (loss(logits, target) / total_normalizer.clamp_min(tiny)).sum()

and the contributions add up to the loss of the whole step. Pixels whose target is 255 (void) count in neither. Nothing
here waits for the device.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.labels import IGNORE_INDEX


class Loss(nn.Module, ABC):
    """The interface of a loss: T sums and their T denominators; T is 1 except for weighted sums.

    Shape (of every loss below):
        - logits: (N, K, H, W), floating, unbounded; computed with in float32 whatever its dtype.
        - target: (N, H, W), int64 or uint8, 0..K-1 or 255 (void).
    """

    @abstractmethod
    def normalizer(self, target: Tensor) -> Tensor:
        """Return the denominators of a batch: (T,), float32, >= 0, zero if all pixels are void."""

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sums of a batch before division: (T,), float32, >= 0, differentiable; void gives zeros."""


class ClassWeightedLoss(Loss):
    """A loss of pixels that is divided by their class weights, (K,), float, >= 0; None weighs all alike.

    Raises:
        ValueError: If the weights are out of range.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None):
        super().__init__()
        if class_weights is not None:
            if class_weights.ndim != 1 or not bool((torch.isfinite(class_weights) & (class_weights >= 0)).all()):
                raise ValueError("class_weights must be K finite numbers, each at least 0, not "
                                 f"{class_weights.tolist()}")
            class_weights = class_weights.float()
        self.register_buffer("class_weights", class_weights)

    def normalizer(self, target: Tensor) -> Tensor:
        return _pixel_weights(target, self.class_weights).sum().reshape(1)


class CrossEntropy(ClassWeightedLoss):
    """Sum the cross entropy of the pixels; divided by their class weights it is torch's weighted mean.

    Args:
        class_weights: See `ClassWeightedLoss`.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, class_weights: Tensor | None = None, label_smoothing: float = 0.0):
        super().__init__(class_weights)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return _pixel_losses(logits, target, self.class_weights, self.label_smoothing).sum().reshape(1)


class Focal(ClassWeightedLoss):
    """Sum the focal loss, (1 - p)^gamma times the cross entropy, p the probability of the pixel's own class.

    Args:
        gamma: How strongly well classified pixels are down-weighted, >= 0; with 0 it is cross entropy.
        class_weights: See `ClassWeightedLoss`, the paper's alpha.

    Raises:
        ValueError: If an argument is out of range.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017.
    """

    def __init__(self, gamma: float = 2.0, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be at least 0 and finite, not {gamma}")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        cross_entropy = _pixel_losses(logits, target)
        # 1 - p, without the cancellation when p is near 1. At p = 1, where void pixels are too, a power below 1 has
        # an infinite slope: the clamp keeps its gradient finite.
        miss = (-torch.expm1(-cross_entropy)).clamp_min(torch.finfo(torch.float32).eps)
        return (_pixel_weights(target, self.class_weights) * miss**self.gamma * cross_entropy).sum().reshape(1)


class Tversky(Loss):
    """Sum over images one minus the mean soft Tversky index of the classes in the image's target.

    The index of a class is TP / (TP + alpha FP + beta FN) over the image's labelled pixels, with TP = sum(p t),
    FP = sum(p (1 - t)) and FN = sum((1 - p) t), p its probability, t 1 where it is the target. Classes that the target
    lacks are left out: they would score 0 whatever is predicted. Divided by the number of images with a labelled pixel.

    Args:
        alpha: Weight of false positives, >= 0 and finite.
        beta: Weight of false negatives, above 0 and finite; above alpha it favors recall.

    Raises:
        ValueError: If an argument is out of range.

    Source: Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep networks",
    2017.
    """

    def __init__(self, alpha: float = 0.3, beta: float = 0.7):
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be at least 0 and finite, not {alpha}")
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be above 0 and finite, not {beta}")
        self.alpha, self.beta = alpha, beta

    def normalizer(self, target: Tensor) -> Tensor:
        return _num_labelled_images(target)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        probability = logits.float().softmax(1) * (target != IGNORE_INDEX)[:, None]
        member = _membership(target, logits.shape[1])
        overlap = (probability * member).sum((2, 3))
        size = member.sum((2, 3))
        present = size > 0
        weighted = overlap + self.alpha * (probability.sum((2, 3)) - overlap) + self.beta * (size - overlap)
        # An absent class may have a size of 0 + 0. It is left out below, but must not put a NaN into the gradient.
        missed = torch.where(present, 1 - overlap / torch.where(present, weighted, 1.0), 0.0)
        return (missed.sum(1) / present.sum(1).clamp_min(1)).sum().reshape(1)


class Dice(Tversky):
    """Sum over images one minus the mean soft dice of the classes in the image's target.

    The dice of a class is 2 sum(p t) / (sum(p) + sum(t)), the Tversky index with alpha = beta = 0.5; see `Tversky`.

    Source: Milletari et al., "V-Net", 3DV 2016, with plain sums in the denominator as Drozdzal et al., "The importance
    of skip connections in biomedical image segmentation", 2016.
    """

    def __init__(self) -> None:
        super().__init__(alpha=0.5, beta=0.5)


class Lovasz(Loss):
    """Sum over images the mean Lovász extension of the Jaccard loss, 1 - IoU, of the classes in the image's target.

    Divided by the number of images with a labelled pixel.

    Source: Berman et al., "The Lovász-softmax loss", CVPR 2018, image by image.
    """

    def normalizer(self, target: Tensor) -> Tensor:
        return _num_labelled_images(target)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        member = _membership(target, logits.shape[1]).flatten(2).float()
        valid = (target != IGNORE_INDEX).flatten(1)[:, None]
        errors = (member - logits.float().softmax(1).flatten(2)).abs() * valid  # void comes last, with an error of 0
        errors, order = errors.sort(dim=2, descending=True)
        member = member.gather(2, order)
        size = member.sum(2, keepdim=True)
        # If the pixels so far are wrong, those of the class among them leave the intersection, others join the union.
        intersection = size - member.cumsum(2)
        union = size + (1 - member).cumsum(2)
        jaccard = 1 - intersection / union
        slope = torch.cat([jaccard[..., :1], jaccard.diff(dim=2)], 2)
        present = (size > 0).squeeze(2)
        loss = torch.where(present, (errors * slope).sum(2), 0.0)
        return (loss.sum(1) / present.sum(1).clamp_min(1)).sum().reshape(1)


class OHEM(ClassWeightedLoss):
    """Average the cross entropy of the hardest pixels of each image (online hard example mining).

    Of an image with v labelled pixels the ceil(fraction * v) with the largest cross entropy are kept, and with a
    threshold all those besides whose class has a probability below it. The mean over the kept pixels stands for the
    image's v pixels: the sum is that of v times this mean, divided by the sum of v. Pixels are chosen within each image
    and not within the batch, and v does not depend on the logits, so that splitting a step changes nothing.

    Class weights multiply the kept losses and are not divided out; they do not choose.

    Args:
        fraction: Least share of the labelled pixels that is kept, in (0, 1]; 1 is cross entropy.
        threshold: Probability below which a pixel is kept, in (0, 1]; None: the hardest `fraction` alone.
        class_weights: See `ClassWeightedLoss`.

    Raises:
        ValueError: If an argument is out of range.

    Source: Shrivastava et al., "Training region-based object detectors with online hard example mining", CVPR 2016;
    the top share of the pixels as Wu et al., "Bridging category-level and instance-level semantic image
    segmentation", 2016; the threshold as in the published code of PIDNet, BiSeNet and STDC-Seg, which choose within a
    batch.
    """

    def __init__(self, fraction: float = 0.25, threshold: float | None = None, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], not {fraction}")
        if threshold is not None and not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], not {threshold}")
        self.fraction, self.threshold = fraction, threshold

    def normalizer(self, target: Tensor) -> Tensor:
        return (target != IGNORE_INDEX).sum().float().reshape(1)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = _pixel_losses(logits, target).flatten(1)
        num_valid = (target != IGNORE_INDEX).flatten(1).sum(1, keepdim=True)
        # The least loss among the ceil(fraction * v) largest; void pixels have a loss of 0 and outrank none of them.
        hardest = losses.detach().topk(math.ceil(self.fraction * losses.shape[1]), dim=1).values
        count = (self.fraction * num_valid).ceil().long().clamp(1, hardest.shape[1])
        least = hardest.gather(1, count - 1)
        if self.threshold is not None:
            least = least.clamp_max(max(-math.log(self.threshold), torch.finfo(torch.float32).tiny))
        kept = (losses.detach() >= least) & (target != IGNORE_INDEX).flatten(1)
        if self.class_weights is not None:
            losses = losses * _pixel_weights(target, self.class_weights).flatten(1)
        mean = torch.where(kept, losses, 0.0).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1)
        return (num_valid * mean).sum().reshape(1)


class WeightedSum(Loss):
    """Add losses, each divided by its own normalizer and multiplied by its weight.

    The T sums and normalizers are those of the parts, in order; the weights are in the sums.

    Args:
        losses: The parts by name.
        weights: The weight of each part by the same names, >= 0 and finite.

    Raises:
        ValueError: If there is no part, the names differ, or a weight is out of range.
    """

    def __init__(self, losses: dict[str, Loss], weights: dict[str, float]):
        super().__init__()
        if not losses:
            raise ValueError("losses must name at least one loss")
        if set(losses) != set(weights):
            raise ValueError(f"losses ({', '.join(losses)}) and weights ({', '.join(weights)}) differ in their names")
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"weights.{name} must be at least 0 and finite, not {weight}")
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: weights[name] for name in losses}

    def normalizer(self, target: Tensor) -> Tensor:
        return torch.cat([cast("Loss", loss).normalizer(target) for loss in self.losses.values()])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.cat([self.weights[name] * loss(logits, target) for name, loss in self.losses.items()])


def compute_class_weights(name: str, pixel_counts: Sequence[int] | Tensor,
                          image_pixel_counts: Sequence[int] | Tensor) -> Tensor | None:
    """Compute class weights from the labelled pixels of the training split.

    - none: no weights.
    - enet: 1 / ln(1.02 + p), p the share of the class among all pixels. From 1.4 (p = 1) to 50 (p near 0).
      Source: Paszke et al., "ENet", 2016.
    - erfnet: 1 / ln(1.10 + p), the same, but flatter: from 1.3 to 10.5. Source: the code of Romera et al., "ERFNet",
      2018.
    - median_frequency: median(f) / f, f the pixels of the class over all pixels of the images that show it, the median
      over the classes that occur. Source: Eigen and Fergus, "Predicting depth, surface normals and semantic labels
      with a common multi-scale convolutional architecture", ICCV 2015.

    A class that never occurs in the split gets weight 0: it has no frequency to balance and cannot be learnt, so it
    must neither attract label smoothing nor dominate a validation loss.

    Args:
        name: none, enet, erfnet or median_frequency.
        pixel_counts: The pixels of each of the K classes.
        image_pixel_counts: The labelled pixels of all images in which each class occurs.

    Returns:
        (K,), float32, >= 0; None for none.

    Raises:
        ValueError: If the name is unknown, the counts do not match, or no pixel is labelled.
    """
    if name == "none":
        return None
    if name not in ("enet", "erfnet", "median_frequency"):
        raise ValueError(f"unknown class_weights {name!r}: choose one of none, enet, erfnet, median_frequency")
    pixels = torch.as_tensor(pixel_counts, dtype=torch.float64)
    image_pixels = torch.as_tensor(image_pixel_counts, dtype=torch.float64)
    present = pixels > 0
    if pixels.ndim != 1 or pixels.shape != image_pixels.shape:
        raise ValueError(f"the counts must be two lists of K numbers, not {pixels.shape} and {image_pixels.shape}")
    if not present.any():
        raise ValueError(f"class_weights={name} needs a training split with labelled pixels; use class_weights=none")
    if name in ("enet", "erfnet"):
        weights = 1 / torch.log({"enet": 1.02, "erfnet": 1.10}[name] + pixels / pixels.sum())
    else:
        frequency = pixels / image_pixels.clamp_min(1)
        weights = frequency[present].quantile(0.5) / frequency
    return torch.where(present, weights, 0.0).float()


def _num_labelled_images(target: Tensor) -> Tensor:
    """Return the number of images with a labelled pixel: (1,), float32."""
    return (target != IGNORE_INDEX).flatten(1).any(1).sum().float().reshape(1)


def _membership(target: Tensor, num_classes: int) -> Tensor:
    """Return where each class is the target: (N, K, H, W), bool; void is a member of none."""
    return target[:, None] == torch.arange(num_classes, device=target.device)[:, None, None]


def mean_loss(sums: Tensor, normalizers: Tensor) -> Tensor:
    """Divide the sums (T,) of a loss by its normalizers (T,), and add them up; a term without valid pixels is 0."""
    valid = normalizers > 0
    # Both sides of a where have a gradient: a division by 0, or by a tiny number, would make it NaN.
    return torch.where(valid, sums / torch.where(valid, normalizers, 1.0), 0.0).sum()


def _pixel_losses(logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the cross entropy of every pixel: (N, H, W), float32, 0 where void.

    Not reduced by torch: its reduction over images adds in any order on CUDA, so that runs would not repeat.
    """
    return F.cross_entropy(
        logits.float(), target.long(), weights, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=smoothing
    )


def _pixel_weights(target: Tensor, weights: Tensor | None) -> Tensor:
    """Return the class weight of every pixel: (N, H, W), float32, 0 where void."""
    if weights is None:
        return (target != IGNORE_INDEX).float()
    table = F.pad(weights, (0, IGNORE_INDEX + 1 - len(weights)))  # void is 255, so a table of 256 has its zero
    return table[target.long()]
