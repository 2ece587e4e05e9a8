"""Class-uniform sampling, crops that contain a drawn class, and mixes of images: keyed, exact, and void is void."""

import json

import numpy as np
import pytest
from helpers import TINY, UNET, composed, refused

from segtrain.config import build
from segtrain.data.base import Dataset, Sample
from segtrain.data.crops import RandomCrop
from segtrain.data.loading import TrainingLoader, TrainingSampler
from segtrain.data.mixes import ClassMix, CopyPaste, CutMix, Mosaic
from segtrain.data.sampling import list_places, make_class_sampling
from segtrain.data.transforms import Augmentation
from segtrain.labels import Label

LABELS = tuple(Label(name, number, number, (number, 0, 0), number == 2) for number, name in
               enumerate(("ground", "wall", "bird", "fish")))
SHOWN = np.array([[1, number % 2, number == 3, 0] for number in range(40)], bool)
PLACES = list_places(SHOWN)


class Birds(Dataset):
    """Sample n is grey n all over; it shows ground, with wall in odd ones, 4 pixels of bird in sample 3, and void."""

    def __init__(self):
        self.labels, self.names = LABELS, [str(number) for number in range(40)]

    def read(self, index):
        target = np.zeros((64, 96), np.uint8)
        target[:, 50:] = index % 2
        target[:8] = 255
        if index == 3:
            target[60:62, 90:92] = 2
        objects = np.zeros((64, 96), np.int32)
        objects[60:62, 90:92] = index == 3
        return Sample(np.full((64, 96, 3), index, np.uint8), target, objects)


def sampling(share=0.5, classes=None):
    return make_class_sampling(PLACES, LABELS, share, classes)


def test_each_class_is_drawn_as_often_as_asked_and_the_rest_is_the_epochs_order():
    order = np.random.default_rng(0).permutation(20000) % 40
    samples, train_ids = sampling().draw(order, 5, 7)
    drawn = train_ids >= 0
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    assert (samples[~drawn] == order[~drawn]).all()
    assert np.bincount(train_ids[drawn], minlength=4) / drawn.sum() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=0.02)
    assert SHOWN[samples[drawn], train_ids[drawn]].all()
    _, weighted = sampling(1.0, {"bird": 3, "wall": 1}).draw(order, 5, 7)
    assert np.bincount(weighted, minlength=4) / 20000 == pytest.approx([0, 0.25, 0.75, 0], abs=0.02)
    for given, said in (({"brid": 1}, "Did you mean 'bird'"), ({"fish": 1}, "no image of train shows fish")):
        with refused("train.sampling.classes", said):
            sampling(0.5, given)


def test_a_resume_and_any_number_of_processes_draw_the_same():
    whole = TrainingSampler(40, 6, 5, sampling=sampling())
    parts = [TrainingSampler(40, 2, 5, rank=rank, num_processes=3, sampling=sampling()) for rank in range(3)]
    for each in (whole, *parts):
        each.epoch = 4
    batches = list(whole)
    assert [[item for part in group for item in part] for group in zip(*parts, strict=True)] == batches
    assert all(len(item) == 4 for item in batches[0])
    whole.first_image = 12
    assert list(whole) == batches[2:]
    whole.epoch = 5
    assert list(whole) != batches[2:]


def crop(**given):
    return Augmentation({"crop": RandomCrop(32, 32, pad_if_needed=True, fill_mask=255, **given)})


def test_a_crop_contains_what_it_was_drawn_for_and_a_class_does_not_fill_it():
    sample = Birds().read(3)
    wanted = (sample.target == 2).view(np.uint8)
    for number in range(20):
        assert (crop().transform(sample.image, sample.target, (number,), wanted)[1] == 2).any()
    shares = []
    for given in ({}, {"max_share": 0.75}):
        found = [crop(**given)(sample.image, sample.target, (number,))[1] for number in range(30)]
        shares.append(max(np.bincount(each[each != 255]).max() / (each != 255).sum() for each in found))
    assert shares[0] == 1
    assert shares[1] <= 0.75
    small = sample.image[:20], sample.target[:20]
    image, target, _ = crop().transform(*small, (0,), np.eye(20, 96, dtype=np.uint8))
    assert image.shape[:2] == target.shape == (32, 32)


def batches(augmentation, workers=0, first=0, **given):
    loader = TrainingLoader(Birds(), augmentation, batch_size=8, seed=0, workers=workers, pin_memory=False,
                            places=PLACES, **given)
    found = list(loader.batches(1, first))
    loader.close()
    return found


def test_class_sampling_trains_on_the_rare_class_and_counts_what_is_drawn():
    found = [sum(batch.pixels[2] for batch in batches(crop(), sampling=each)) for each in (None, sampling())]
    assert found[1] > 3 * found[0]
    batch = batches(crop(), sampling=sampling())[0]
    assert (batch.pixels == np.bincount(batch.targets.numpy().ravel(), minlength=256)).all()


MIXES = (ClassMix(1.0), ClassMix(1.0, ["bird"]), CutMix(1.0), CopyPaste(1.0), Mosaic(1.0))


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: type(mix).__name__ + "".join(mix.classes or ()))
def test_pixels_and_labels_of_a_mix_come_from_the_same_image(mix):
    mix.bind(LABELS, "augmentation.mix")
    mixed = Augmentation({"crop": RandomCrop(32, 32)}, {"mix": mix})
    found = batches(mixed)
    again = batches(mixed, first=16)
    assert all((one.images == other.images).all() for one, other in zip(found[2:], again, strict=True))
    images, targets = (np.concatenate([getattr(batch, name) for batch in found]) for name in ("images", "targets"))
    grey = images[..., 0]
    assert ((targets != 1) | (grey % 2 == 1)).all()  # wall is of odd images
    assert (grey[targets == 2] == 3).all()  # bird is of sample 3
    own = np.concatenate([batch.indices for batch in found])[:, None, None]
    foreign = grey != own
    assert foreign.any()
    if not isinstance(mix, CutMix | Mosaic):
        assert (targets[foreign] != 255).all()  # void is put nowhere
    if mix.train_ids == [2]:
        assert (targets[foreign] == 2).all()
        assert ((targets == 2).any((1, 2)).mean()) > 0.5  # nearly every image has got its bird


@pytest.mark.slow
def test_workers_give_the_same_mixes():
    mixed = Augmentation({"crop": RandomCrop(32, 32)}, {"mix": Mosaic(0.5)})
    for one, other in zip(batches(mixed, sampling=sampling()), batches(mixed, 2, sampling=sampling()), strict=True):
        assert (one.images == other.images).all()


def test_keys_of_mixes_are_checked_and_images_must_have_one_size():
    for mix, said in (("ClassMix,classes:[brid]", "augmentation.mix.classes: brid is not a class"),
                      ("CutMix,alpha:0", "alpha=0"), ("CopyPaste,share:2", "share=2"), ("Mosaic,p:2", "p=2")):
        cfg = composed(*TINY, f"+augmentation.mix={{_target_:segtrain.data.mixes.{mix}}}")
        with refused(said):
            build.augmentation(cfg, LABELS)
    with refused("augmentation.mix needs classes with instances"):
        CopyPaste().bind(LABELS[:2], "augmentation.mix")

    class Uneven(Birds):
        def read(self, index):
            sample = super().read(index)
            return Sample(sample.image[index:], sample.target[index:])

    loader = TrainingLoader(Uneven(), Augmentation({}, {"mix": Mosaic(1.0)}), batch_size=4, seed=0, workers=0,
                            pin_memory=False, places=PLACES)
    with refused("augmentation.mix mixes images of one size", "augmentation=crop_flip"):
        list(loader.batches(0))


@pytest.mark.slow
def test_a_training_says_what_was_drawn_and_a_stopped_one_draws_the_same(segtrain, tmp_path):
    run = (*TINY, *UNET, "dataset.num_train=8", "train.sampling.by=class_uniform", "train.sampling.share=0.9",
           "train.sampling.classes={Bicyclist:1}", "augmentation=classmix", "scheduler=constant")
    assert segtrain(*run, "train.epochs=2", "train.report=true", f"hydra.run.dir={tmp_path / 'whole'}") == 0
    assert segtrain(*run, "train.epochs=1", f"hydra.run.dir={tmp_path / 'part'}") == 0
    assert segtrain(f"resume={tmp_path / 'part'}", "train.epochs=2") == 0
    whole, part = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "part"))
    assert whole["drawn_shares"] == part["drawn_shares"]
    assert whole["confusion_matrix"] == part["confusion_matrix"]
    assert sum(whole["drawn_shares"].values()) == pytest.approx(1)
    assert "pixels drawn %" in (tmp_path / "whole" / "report.html").read_text()
    assert segtrain(f"resume={tmp_path / 'part'}", "train.epochs=3", "train.sampling.share=0.1") == 2
