"""Losses of auxiliary heads: the values of others' code, void, and that splitting a step changes nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import TINY, UNET, refused

from segtrain.auxiliary import (
    AuxiliaryLoss,
    BoundaryLoss,
    DetailLoss,
    balanced_cross_entropy,
    boundary_aware,
    detail_losses,
    find_boundaries,
    find_details,
)
from segtrain.inference.sanity_check import check_logits
from segtrain.losses import OHEM, CrossEntropy, mean_loss

RECORDS = Path(__file__).parent / "parity"
K = 4
WEIGHTS = {"p": 0.4, "boundary": 20.0, "detail": 0.5, "boundary_aware": 1.0}


@pytest.fixture(scope="module")
def record():
    """The recorded arrays, and the values that others computed from them."""
    arrays = {name: torch.from_numpy(array) for name, array in np.load(RECORDS / "losses.npz").items()}
    return arrays, json.loads((RECORDS / "losses.json").read_text())["values"]


def as_one_image(maps):
    """Put the images of a batch on top of each other: others balance and choose within the batch."""
    return torch.cat(list(maps), -2)[None]


def batch(seed=0):
    """Draw what a network returns, and a target whose images have 0 %, 20 %, ... of void."""
    generator = torch.Generator().manual_seed(seed)
    output = {"logits": torch.randn(4, K, 12, 10, generator=generator), "aux": {
        "p": torch.randn(4, K, 12, 10, generator=generator),
        "boundary": 3 * torch.randn(4, 1, 12, 10, generator=generator),
        "detail": torch.randn(4, 1, 12, 10, generator=generator)}}
    target = torch.randint(K, (4, 4, 5), generator=generator).repeat_interleave(3, 1).repeat_interleave(2, 2)
    target[torch.rand(target.shape, generator=generator) < torch.arange(4)[:, None, None] / 5] = 255
    return output, target


def part(output, chosen):
    return {"logits": output["logits"][chosen], "aux": {name: x[chosen] for name, x in output["aux"].items()}}


def test_boundaries_and_their_loss_as_others_compute_them(record):
    arrays, values = record
    assert torch.equal(find_boundaries(arrays["labels"]), arrays["edges_label_change"] > 0)
    logits = as_one_image(arrays["boundary_logits"][:, 0])
    for edges in ("edges_canny", "edges_label_change"):
        losses = balanced_cross_entropy(logits, as_one_image(arrays[edges] > 0), torch.ones_like(logits) > 0)
        expected = values[f"boundary weighted BCE (coefficient 20) with {edges}"]
        assert 20 * losses.mean().item() == pytest.approx(expected, rel=1e-6)


def test_boundary_awareness_as_others_compute_it(record):
    arrays, values = record
    logits, target = as_one_image(arrays["logits"]), as_one_image(arrays["labels"])
    boundary = as_one_image(arrays["boundary_logits"])
    num_near = ((boundary[:, 0].sigmoid() > 0.8) & (target != 255)).sum().item()
    loss = OHEM((50 - 0.5) / num_near, threshold=0.9)
    expected = values["pidnet boundary-awareness term: OHEM(main) where sigmoid(boundary)>0.8, thres=0.9 min_kept=50"]
    found = boundary_aware(loss, logits, boundary, target) / loss.normalizer(target)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_details_and_their_losses_as_others_compute_them(record):
    """The authors' code takes void for a class of its own."""
    arrays, values = record
    valid = torch.ones_like(arrays["labels"]) > 0
    details = find_details(arrays["labels"], valid)
    assert torch.equal(details, arrays["detail_target"][:, 0] > 0)
    logits = F.interpolate(arrays["boundary_logits_low"], valid.shape[1:], mode="bilinear", align_corners=True)
    sums = detail_losses(logits[:, 0], details, valid)
    assert sums[0].item() / valid.numel() == pytest.approx(
        values["stdc detail BCE (1/8 logits resized align_corners=True)"], rel=1e-6)
    assert sums[1].item() / 2 == pytest.approx(values["stdc detail dice (smooth 1, per image)"], rel=1e-6)


def test_void_has_neither_boundaries_nor_details_nor_losses():
    target = torch.zeros(1, 16, 16, dtype=torch.uint8)
    target[:, 8:] = 255
    assert not find_boundaries(target).any()
    # the lower classes of an image have no details against void, and outside counts as class 0
    assert not find_details(target, target != 255).any()
    for loss in (BoundaryLoss(), DetailLoss()):
        logits = torch.randn(1, 1, 16, 16, requires_grad=True)
        loss(logits, target).sum().backward()
        assert not logits.grad[:, :, 8:].any()
        assert logits.grad[:, :, :8].any() or isinstance(loss, BoundaryLoss)  # without any edge, nothing to balance


@pytest.mark.parametrize("main", [CrossEntropy(), OHEM(0.2, 0.6)], ids=["cross_entropy", "ohem"])
@pytest.mark.parametrize("sizes", [(2, 2), (1, 3)])
def test_a_split_batch_adds_up(main, sizes):
    output, target = batch()
    loss = AuxiliaryLoss(main, WEIGHTS)
    normalizers = loss.normalizer(target)
    assert loss(output, target).shape == normalizers.shape == (6,)  # detail has two terms
    chunks = [part(output, chosen) for chosen in torch.arange(4).split(sizes)]
    targets = target.split(sizes)
    torch.testing.assert_close(sum(map(loss.normalizer, targets)), normalizers)
    torch.testing.assert_close(sum(map(loss, chunks, targets)), loss(output, target))


def test_weights_and_main_loss_by_hand():
    output, target = batch()
    loss = AuxiliaryLoss(CrossEntropy(), {"p": 0.4, "boundary": 0.0})
    expected = sum(weight * F.cross_entropy(x, target, ignore_index=255) for x, weight in (
        (output["logits"], 1.0), (output["aux"]["p"], 0.4)))
    torch.testing.assert_close(mean_loss(loss(output, target), loss.normalizer(target)), expected)


def test_void_alone_gives_zero_loss_and_finite_gradients():
    output, target = batch()
    leaves = [output["logits"], *output["aux"].values()]
    for leaf in leaves:
        leaf.requires_grad_()
    loss = AuxiliaryLoss(OHEM(0.2, 0.6), WEIGHTS)
    target = torch.full_like(target, 255)
    result = mean_loss(loss(output, target), loss.normalizer(target))
    result.backward()
    assert result == 0
    assert all((leaf.grad == 0).all() for leaf in leaves)


class TwoHeads(torch.nn.Module):
    """Return logits and one auxiliary head, as a network of a user may."""

    def __init__(self, aux):
        super().__init__()
        self.conv, self.returned, self.aux_weights = torch.nn.Conv2d(3, K, 1), aux, {"low": 0.3}

    def forward(self, x):
        logits = self.conv(x)
        return {"logits": logits, "aux": {self.returned: logits}} if self.training else logits


def test_the_heads_of_a_users_network_are_checked():
    def check(network):
        check_logits(network, "my.Net", (32, 32), in_channels=3, num_classes=K, training=True)

    check(TwoHeads("low"))
    with refused("lists low in aux_weights", "the keys high"):
        check(TwoHeads("high"))
    with refused("its auxiliary head boundary", "(2, 1, 32, 32)"):
        network = TwoHeads("boundary")
        network.aux_weights = {"boundary": 1.0}
        check(network)


@pytest.mark.slow
def test_a_training_with_heads_continues_and_is_used_without(segtrain, tmp_path):
    """The heads are trained and kept in the checkpoint; evaluation leaves them out, and so may the next training."""
    run = tmp_path / "run"
    options = (*TINY, *UNET, "train.epochs=1", "train.max_steps=2")
    assert segtrain(*options, "model.aux=true", "train.aux_weights={at8: 0.2}", "train.ema_decay=0.9",
                    f"hydra.run.dir={run}") == 0
    log = (run / "train.log").read_text()
    assert "in auxiliary heads" in log
    results = json.loads((run / "results.json").read_text())
    keys = torch.load(run / "checkpoints" / "best.pt", weights_only=True)["model"]
    assert any(key.startswith("aux.at8.") for key in keys)
    assert segtrain("task=evaluate", f"checkpoint={run}", f"hydra.run.dir={tmp_path / 'evaluated'}") == 0
    evaluated = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    assert evaluated["miou"] == results["miou"]
    assert evaluated["loss"] == pytest.approx(results["loss"])
    assert segtrain(*options, f"checkpoint={run}", f"hydra.run.dir={tmp_path / 'next'}") == 0
    assert "auxiliary heads left out: at8" in (tmp_path / "next" / "train.log").read_text()
