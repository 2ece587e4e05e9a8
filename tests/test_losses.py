"""The losses: agreement with torch and with formulas by hand, and that splitting a step changes nothing."""

import inspect
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from segtrain import losses
from segtrain.losses import OHEM, CrossEntropy, Dice, Focal, Lovasz, Tversky, WeightedSum, compute_class_weights

RECORDS = Path(__file__).parent / "parity"
CONFIGS = sorted((Path(__file__).parents[1] / "conf" / "loss").glob("*.yaml"))
K = 5
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0])
LOSSES = [
    pytest.param(lambda: CrossEntropy(), id="cross_entropy"),
    pytest.param(lambda: CrossEntropy(WEIGHTS, label_smoothing=0.1), id="cross_entropy_weighted_smoothed"),
    pytest.param(lambda: Focal(), id="focal"),
    pytest.param(lambda: Focal(0.5, WEIGHTS), id="focal_root_weighted"),
    pytest.param(lambda: Dice(), id="dice"),
    pytest.param(lambda: OHEM(), id="ohem"),
    pytest.param(lambda: OHEM(0.07), id="ohem_few"),
    pytest.param(lambda: OHEM(0.1, 0.3, WEIGHTS), id="ohem_threshold_weighted"),
    pytest.param(lambda: Tversky(), id="tversky"),
    pytest.param(lambda: Lovasz(), id="lovasz"),
    pytest.param(lambda: WeightedSum({"a": CrossEntropy(), "b": Dice()}, {"b": 0.5, "a": 2.0}), id="weighted_sum"),
]


def batch(num_images=4, height=7, width=9, seed=0):
    """Draw logits and a target whose images have 0 %, 25 %, 50 %, ... of void, and not the same classes."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_images, K, height, width, generator=generator)
    target = torch.randint(K, (num_images, height, width), generator=generator)
    void = torch.rand(num_images, height, width, generator=generator)
    target[void < torch.arange(num_images)[:, None, None] / 4] = 255
    target[-1][target[-1] == 0] = 1
    return logits, target


def value(loss, logits, target, total=None):
    """Return the loss as the training loop computes it, total the normalizer of the whole step."""
    total = loss.normalizer(target) if total is None else total
    return (loss(logits, target) / total.clamp_min(torch.finfo(torch.float32).tiny)).sum()


@pytest.fixture(params=LOSSES)
def loss(request):
    return request.param()


def test_halves_are_vectors_of_one_length(loss):
    logits, target = batch()
    parts = 2 if isinstance(loss, WeightedSum) else 1
    assert loss(logits, target).shape == loss.normalizer(target).shape == (parts,)
    assert loss(logits, target).dtype == loss.normalizer(target).dtype == torch.float32
    assert not loss.normalizer(target).requires_grad


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (1, 1, 1, 1)])
def test_a_split_batch_adds_up(loss, sizes):
    logits, target = batch()
    whole = logits.clone().requires_grad_()
    value(loss, whole, target).backward()

    split = logits.clone().requires_grad_()
    chunks = list(zip(split.split(sizes), target.split(sizes), strict=True))
    total = sum(loss.normalizer(t) for _, t in chunks)
    torch.testing.assert_close(total, loss.normalizer(target))
    contributions = [value(loss, x, t, total) for x, t in chunks]
    sum(contributions).backward()

    torch.testing.assert_close(sum(contributions), value(loss, logits, target))
    torch.testing.assert_close(split.grad, whole.grad)


def test_void_alone_gives_zero_loss_and_zero_gradients(loss):
    logits, target = batch()
    logits.requires_grad_()
    target.fill_(255)
    result = value(loss, logits, target)
    result.backward()
    assert result == 0
    assert (loss.normalizer(target) == 0).all()
    assert (logits.grad == 0).all()


def test_an_image_of_void_counts_for_nothing(loss):
    logits, target = batch(3)
    padded = torch.cat([target, torch.full_like(target[:1], 255)])
    more = torch.cat([logits, logits[:1]])
    torch.testing.assert_close(value(loss, more, padded), value(loss, logits, target))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_and_void_has_none(loss, scale):
    logits, target = batch()
    logits = (scale * logits).requires_grad_()
    value(loss, logits, target).backward()
    assert logits.grad.isfinite().all()
    void = (target == 255)[:, None].expand_as(logits)
    assert (logits.grad[void] == 0).all()
    if scale == 1:
        assert (logits.grad[~void] != 0).any()


def test_a_perfect_prediction_is_near_the_smallest_loss(loss):
    _, target = batch()
    logits = 1000.0 * F.one_hot(target.clamp_max(K - 1), K).permute(0, 3, 1, 2).float()
    logits.requires_grad_()
    result = value(loss, logits, target)
    result.backward()
    assert logits.grad.isfinite().all()
    if not getattr(loss, "label_smoothing", 0):
        assert result < 1e-5


def test_dtypes_and_layouts_agree(loss):
    logits, target = batch()
    expected = value(loss, logits, target)
    torch.testing.assert_close(value(loss, logits, target.to(torch.uint8)), expected)
    torch.testing.assert_close(value(loss, logits.to(memory_format=torch.channels_last), target), expected)
    half = logits.bfloat16()
    torch.testing.assert_close(value(loss, half, target), value(loss, half.float(), target))


def test_training_reduces_it(loss):
    logits, target = batch()
    logits.requires_grad_()
    first = value(loss, logits, target)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        value(loss, logits, target).backward()
        optimizer.step()
    assert value(loss, logits, target) < 0.7 * first


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_cross_entropy_is_torchs_mean(weights, smoothing):
    logits, target = batch()
    expected = F.cross_entropy(logits, target, weights, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(value(CrossEntropy(weights, smoothing), logits, target), expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_focal_by_its_formula(weights):
    logits, target = batch()
    valid = target != 255
    labels = target[valid]
    p = logits.permute(0, 2, 3, 1)[valid].softmax(1)[torch.arange(len(labels)), labels]
    alpha = torch.ones(K)[labels] if weights is None else weights[labels]
    for gamma in (0.5, 1.0, 2.0, 5.0):
        expected = (alpha * (1 - p) ** gamma * -p.log()).sum() / alpha.sum()
        torch.testing.assert_close(value(Focal(gamma, weights), logits, target), expected, rtol=1e-4, atol=1e-6)
    plain = value(CrossEntropy(weights), logits, target)
    torch.testing.assert_close(value(Focal(0.0, weights), logits, target), plain)


def test_dice_by_hand():
    # One image of 1 x 4 pixels, the last one void; class 2 is not in the target and is left out.
    p = torch.tensor([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
    target = torch.tensor([[[0, 0, 1, 255]]])
    logits = p.log().T[None, :, None, :]
    dice_0 = 2 * (0.5 + 0.8) / ((0.5 + 0.8 + 0.2) + 2)
    dice_1 = 2 * 0.6 / ((0.25 + 0.1 + 0.6) + 1)
    torch.testing.assert_close(Dice()(logits, target), torch.tensor([1 - (dice_0 + dice_1) / 2]))
    assert Dice().normalizer(target) == 1


def test_dice_image_by_image():
    logits, target = batch()
    expected = []
    for image, labels in zip(logits, target, strict=True):
        p, t = image.softmax(0)[:, labels != 255], labels[labels != 255]
        dice = [2 * p[c][t == c].sum() / (p[c].sum() + (t == c).sum()) for c in t.unique()]
        expected.append(1 - torch.stack(dice).mean())
    torch.testing.assert_close(value(Dice(), logits, target), torch.stack(expected).mean())


@pytest.mark.parametrize(("fraction", "threshold"), [(0.01, None), (0.25, None), (0.5, 0.1), (0.01, 0.3), (1.0, None)])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_ohem_image_by_image(fraction, threshold, weights):
    logits, target = batch()
    means, sizes = [], []
    for image, labels in zip(logits, target, strict=True):
        valid = labels.flatten() != 255
        pixels = F.cross_entropy(image.flatten(1).T[valid], labels.flatten()[valid], reduction="none")
        order = pixels.argsort(descending=True)
        hard = 0 if threshold is None else (pixels > -math.log(threshold)).sum().item()
        kept = order[:max(hard, math.ceil(fraction * len(pixels)))]
        scale = 1 if weights is None else weights[labels.flatten()[valid][kept]]
        means.append((scale * pixels[kept]).mean())
        sizes.append(len(pixels))
    expected = (torch.stack(means) * torch.tensor(sizes)).sum() / sum(sizes)
    torch.testing.assert_close(value(OHEM(fraction, threshold, weights), logits, target), expected)


def test_ohem_as_others_compute_it():
    """Values of the code of PIDNet (A), BiSeNet (B) and STDC-Seg (C), whose batch of two is one image here.

    PaddleSeg (E) adds 1e-5 to what it divides by, and keeps one pixel less than it is told.
    """
    record, values = np.load(RECORDS / "losses.npz"), json.loads((RECORDS / "losses.json").read_text())["values"]
    logits = torch.cat(list(torch.from_numpy(record["logits"])), 1)[None]
    target = torch.cat(list(torch.from_numpy(record["labels"])), 0)[None]
    valid = (target != 255).sum().item()

    def ohem(kept, threshold, weights=None):
        return value(OHEM((kept - 0.5) / valid, threshold, weights), logits, target).item()

    for threshold, kept, name in (
        (0.9, valid - 1, "ohem_probability thres=0.9 min_kept=131072"),
        (0.9, 200, "ohem_probability thres=0.9 min_kept=200"),
        (0.1, 2000, "ohem_probability thres=0.1 min_kept=2000"),
        (0.1, valid // 16, "ohem_loss (BiSeNet) thresh=0.1, n_min=valid//16"),
        (0.01, valid // 16, "ohem_loss (BiSeNet) thresh=0.01, n_min=valid//16"),
        (0.7, 120, "ohem_loss (STDC) thresh=0.7, n_min=120"),
        (0.1, 3000, "ohem_loss (STDC) thresh=0.1, n_min=3000"),
    ):
        assert ohem(kept, threshold) == pytest.approx(values[name], rel=1e-6), name
    weights = torch.tensor([0.8, 1.0, 1.2, 0.9, 1.1])
    weighted = "ohem_probability thres=0.9 min_kept=200 class_weight=[0.8,1.0,1.2,0.9,1.1]"
    assert ohem(200, 0.9, weights) == pytest.approx(values[weighted], rel=1e-6)
    paddle = "ohem_probability (PaddleSeg) thresh=0.1 min_kept=2000"
    share = 1999 / target.numel()
    assert ohem(1999, 0.1) * share / (share + 1e-5) == pytest.approx(values[paddle], rel=1e-6)


def test_tversky_by_hand():
    # One image of 1 x 4 pixels, the last one void; class 2 is not in the target and is left out.
    p = torch.tensor([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])
    target = torch.tensor([[[0, 0, 1, 255]]])
    index_0 = 1.3 / (1.3 + 0.3 * 0.2 + 0.7 * (0.5 + 0.2))
    index_1 = 0.6 / (0.6 + 0.3 * (0.25 + 0.1) + 0.7 * 0.4)
    result = Tversky()(p.log().T[None, :, None, :], target)
    torch.testing.assert_close(result, torch.tensor([1 - (index_0 + index_1) / 2]))


def test_lovasz_by_its_definition():
    """The extension integrates the Jaccard loss of the sets of pixels whose error exceeds a level, over all levels."""
    logits, target = batch()
    expected = []
    for image, labels in zip(logits, target, strict=True):
        p, t = image.softmax(0)[:, labels != 255], labels[labels != 255]
        terms = []
        for c in t.unique():
            is_c = t == c
            errors = torch.where(is_c, 1 - p[c], p[c])
            levels = torch.cat([torch.zeros(1), errors.sort().values])
            total = 0.0
            for low, high in pairwise(levels):
                wrong = errors >= high
                total += (high - low) * (1 - (is_c & ~wrong).sum() / (is_c | wrong).sum())
            terms.append(total)
        expected.append(torch.stack(terms).mean())
    torch.testing.assert_close(value(Lovasz(), logits, target), torch.stack(expected).mean())


def test_weighted_sum_adds_its_parts():
    logits, target = batch()
    parts = {"cross_entropy": CrossEntropy(WEIGHTS), "dice": Dice(), "focal": Focal()}
    weights = {"focal": 0.0, "dice": 0.5, "cross_entropy": 2.0}
    expected = sum(weights[name] * value(part, logits, target) for name, part in parts.items())
    torch.testing.assert_close(value(WeightedSum(parts, weights), logits, target), expected)


def test_weights_move_with_the_loss():
    nested = WeightedSum({"inner": WeightedSum({"a": Focal(1.0, WEIGHTS)}, {"a": 1.0})}, {"inner": 1.0})
    assert {tuple(buffer.shape) for buffer in nested.to("meta").buffers()} == {(K,)}
    assert all(buffer.is_meta for buffer in nested.buffers())


def test_enet_weights_by_hand():
    weights = compute_class_weights("enet", [60, 30, 10, 0], [100, 100, 50, 0])
    expected = [1 / math.log(1.02 + p) for p in (0.6, 0.3, 0.1)] + [0.0]
    torch.testing.assert_close(weights, torch.tensor(expected))
    flatter = [1 / math.log(1.10 + p) for p in (0.6, 0.3, 0.1)] + [0.0]
    torch.testing.assert_close(compute_class_weights("erfnet", [60, 30, 10, 0], [1] * 4), torch.tensor(flatter))


def test_median_frequency_weights_by_hand():
    # Shares of the images that show them: 0.6, 0.3 and 0.2; their median is 0.3, the absent class taking no part.
    weights = compute_class_weights("median_frequency", torch.tensor([60, 30, 10, 0]), torch.tensor([100, 100, 50, 0]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 1.0, 1.5, 0.0]))
    # Of an even number the mean of the middle two: (0.2 + 0.4) / 2.
    even = compute_class_weights("median_frequency", [10, 40], [50, 100])
    torch.testing.assert_close(even, torch.tensor([1.5, 0.75]))


def test_no_weights():
    assert compute_class_weights("none", [1, 2], [3, 3]) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(label_smoothing=1.0), "label_smoothing"),
        (lambda: CrossEntropy(label_smoothing=-0.1), "label_smoothing"),
        (lambda: CrossEntropy(torch.tensor([1.0, -1.0])), "class_weights"),
        (lambda: CrossEntropy(torch.tensor([1.0, math.inf])), "class_weights"),
        (lambda: Focal(class_weights=torch.ones(2, 2)), "class_weights"),
        (lambda: Focal(-1.0), "gamma"),
        (lambda: Focal(math.nan), "gamma"),
        (lambda: OHEM(0.0), "fraction"),
        (lambda: OHEM(1.5), "fraction"),
        (lambda: OHEM(threshold=1.5), "threshold"),
        (lambda: Tversky(alpha=-1.0), "alpha"),
        (lambda: Tversky(beta=0.0), "beta"),
        (lambda: WeightedSum({}, {}), "at least one"),
        (lambda: WeightedSum({"a": Dice()}, {"b": 1.0}), "names"),
        (lambda: WeightedSum({"a": Dice()}, {"a": -1.0}), r"weights\.a"),
        (lambda: compute_class_weights("median", [1], [1]), "none, enet, erfnet, median_frequency"),
        (lambda: compute_class_weights("enet", [1, 2], [1]), "counts"),
        (lambda: compute_class_weights("enet", [0, 0], [0, 0]), "labelled pixels"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_fit_their_signatures(path):
    def check(node):
        target = getattr(losses, node["_target_"].rpartition(".")[2])
        own = target.__init__ is not nn.Module.__init__
        assert set(node) - {"_target_"} == (set(inspect.signature(target).parameters) if own else set())
        for child in node.get("losses", {}).values():
            check(child)

    check(yaml.safe_load(path.read_text()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_nothing_waits_for_the_gpu(loss):
    logits, target = (tensor.cuda() for tensor in batch())
    loss.cuda()
    logits.requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = value(loss, logits, target)
        result.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(result.cpu(), value(loss.cpu(), logits.cpu(), target.cpu()), rtol=1e-4, atol=1e-5)
