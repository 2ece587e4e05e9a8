"""Distillation: the divergences, the keys that choose them, and which teachers are refused. test_resume.py: exact."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import composed, images, refused
from torch import nn

from segtrain.config import build
from segtrain.distillation import DistillationLoss
from segtrain.labels import Label
from segtrain.losses import CrossEntropy, mean_loss
from segtrain.run import checkpoint
from segtrain.training.teacher import Teacher, check_same_teacher, check_teacher, digest_weights


@pytest.fixture
def batch():
    target = torch.randint(0, 4, (3, 6, 8), generator=torch.Generator().manual_seed(0))
    target[0, :2], target[1, :, 5:] = 255, 255
    return images(3, 4, 6, 8).requires_grad_(), images(3, 4, 6, 8, seed=2), target


def divergence(over, batch, temperature=1.0, weight=1.0):
    """Return the mean divergence of a batch, without the main loss."""
    student, teacher, target = batch
    loss = DistillationLoss(CrossEntropy(), over, weight, temperature)
    sums, normalizers = loss({"student": student, "teacher": teacher}, target), loss.normalizer(target)
    main = CrossEntropy()
    torch.testing.assert_close(sums[:1], main(student, target))
    torch.testing.assert_close(normalizers[:1], main.normalizer(target))
    return mean_loss(sums[1:], normalizers[1:])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_pixels_have_the_divergence_of_torch(batch, temperature):
    student, teacher, target = batch
    valid = target != 255
    rows = [x.permute(0, 2, 3, 1)[valid] / temperature for x in (student, teacher)]
    expected = F.kl_div(rows[0].log_softmax(1), rows[1].softmax(1), reduction="batchmean") * temperature**2
    torch.testing.assert_close(divergence("pixel", batch, temperature), expected)
    torch.testing.assert_close(divergence("pixel", batch, temperature, weight=3.0), 3 * expected)


def test_channels_have_the_divergence_of_the_places_that_are_not_void(batch):
    student, teacher, target = batch
    found = []
    for one, other, labels in zip(student, teacher, target, strict=True):
        maps = [(x[:, labels != 255] / 2).double() for x in (one, other)]
        found.append(F.kl_div(maps[0].log_softmax(1), maps[1].softmax(1), reduction="batchmean") * 4)
    torch.testing.assert_close(divergence("channel", batch, 2.0).double(), torch.stack(found).mean())


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_void_gives_no_gradient_and_the_same_logits_none(batch, over):
    student, teacher, target = batch
    target[2] = 255
    divergence(over, batch, 2.0).backward()
    assert student.grad.isfinite().all()
    assert not student.grad.permute(1, 0, 2, 3)[:, target == 255].any()
    assert student.grad[0].any()
    assert divergence(over, (teacher, teacher, target)).abs() < 1e-6
    assert divergence(over, (student, teacher, torch.full_like(target, 255))) == 0


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_splitting_a_step_changes_nothing(batch, over):
    student, teacher, target = batch
    loss = DistillationLoss(CrossEntropy(), over, 0.5, 2.0)
    parts = [(loss({"student": student[part], "teacher": teacher[part]}, target[part]), loss.normalizer(target[part]))
             for part in (slice(0, 1), slice(1, 3))]
    whole = loss({"student": student, "teacher": teacher}, target)
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole)
    torch.testing.assert_close(parts[0][1] + parts[1][1], loss.normalizer(target))


def test_the_keys_choose_the_loss():
    def built(*overrides):
        return build.training_loss(composed(*overrides), nn.Identity(), CrossEntropy())

    assert isinstance(built(), CrossEntropy)
    loss = built("train.teacher=x", "train.teacher_loss=channel", "train.teacher_weight=3",
                 "train.teacher_temperature=4")
    assert (loss.over, loss.weight, loss.temperature) == ("channel", 3.0, 4.0)
    assert built("train.teacher=x").over == "pixel"


# ---- which teachers there may be


def check(*overrides, names="abc", channels=3, dataset=None):
    """Check a teacher of three classes for a dataset of the classes in names."""
    def label(place, name):
        return Label(name, place, place, (0, 0, 0))

    cfg = composed("dataset=folder", "dataset.root=/x", "dataset.num_classes=3", *overrides)
    settled = build.settle(cfg, torch.device("cpu"), num_classes=3, cached_in_memory=True)
    trained = SimpleNamespace(path="t.pt", labels=[label(*pair) for pair in enumerate("abc")], in_channels=channels)
    saved = {"config": {"dataset": {"_target_": cfg.dataset.target, **cfg.dataset.arguments, **(dataset or {})}}}
    return check_teacher(trained, saved, settled, SimpleNamespace(labels=[label(*pair) for pair in enumerate(names)]))


def test_a_teacher_of_the_same_classes_is_matched_by_their_names():
    assert check() == [0, 1, 2]
    assert check(names="cab") == [2, 0, 1]
    logits = Teacher("t.pt", nn.Identity(), lambda images: images, torch.tensor([2, 0, 1]), "")(images(1, 3, 2, 2))
    torch.testing.assert_close(logits, images(1, 3, 2, 2)[:, [2, 0, 1]])


def test_other_teachers_are_refused():
    with refused("train.teacher=t.pt was trained for other classes: only the teacher has: c; only this dataset has: d"):
        check(names="abd")
    with refused("was trained with dataset.void=[255], this training has dataset.void=rest", "or set the key"):
        check("dataset.void=rest", dataset={"void": [255]})
    assert check("dataset.void=rest", dataset={"_target_": "other", "void": None}) == [0, 1, 2]
    with refused("train.teacher=t.pt takes images of 4 channels, but those of this training have 3"):
        check(channels=4)
    with refused("nowhere.pt does not exist: train.teacher= takes a .pt file or a run directory"):
        checkpoint.find("nowhere.pt", key="train.teacher")


def test_a_run_keeps_its_teacher():
    weights = {"a": torch.ones(2, 3), "b": torch.zeros((), dtype=torch.int64)}
    digest = digest_weights(weights)
    assert digest != digest_weights({**weights, "a": torch.ones(2, 3) + 1e-6})
    assert digest == digest_weights(dict(reversed(weights.items())))
    teacher = Teacher("t.pt", nn.Identity(), lambda images: images, None, digest)
    check_same_teacher(teacher, {"teacher": digest})
    check_same_teacher(None, {})
    for now, former, said in ((teacher, None, "train.teacher=t.pt, but the run had none"),
                              (None, digest, "train.teacher=null, but the run was started with one:"),
                              (teacher, "other", "but the run was started with one of other weights")):
        with refused(said, "its teacher cannot change"):
            check_same_teacher(now, {"teacher": former})
