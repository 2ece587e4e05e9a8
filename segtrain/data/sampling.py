"""Which images an epoch is made of: each once, or some of them drawn for a class, so that rare ones are seen more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segtrain.data.checks import START, check
from segtrain.errors import UserError, unknown_class
from segtrain.labels import Label

OF_DRAWS = 2**32 - 1  # sets the random numbers of an epoch's draws apart from those of its samples


@dataclass(frozen=True)
class ClassSampling:
    """Draw a share of an epoch's images for a class each.

    Attributes:
        places: For each train id the samples that show it.
        probabilities: For each train id the probability that it is drawn.
        share: Of the images that are drawn for a class; the others are those of the epoch's order.
    """

    places: Sequence[np.ndarray]
    probabilities: np.ndarray
    share: float

    def draw(self, order: np.ndarray, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples of an epoch in their order, int64 (N,), and the train id each is drawn for, -1 for none.

        The same order, seed and epoch give the same, wherever it is done.
        """
        rng = np.random.default_rng([seed, epoch, OF_DRAWS])
        is_drawn = rng.random(len(order)) < self.share
        train_ids = rng.choice(len(self.probabilities), len(order), p=self.probabilities)
        spots = rng.random(len(order))
        sizes = np.array([len(found) for found in self.places])
        picked = [self.places[train_id][int(spot * sizes[train_id])] for train_id, spot in
                  zip(train_ids[is_drawn], spots[is_drawn], strict=True)]
        samples = order.copy()
        samples[is_drawn] = picked
        return samples, np.where(is_drawn, train_ids, -1)


def list_places(shown: np.ndarray) -> list[np.ndarray]:
    """Return for each class the samples that show it, given whether each sample does, bool (N, K)."""
    return [np.flatnonzero(column) for column in shown.T]


@check(START, "train.sampling.classes that no image of train shows, or that are no classes")
def make_class_sampling(places: Sequence[np.ndarray], labels: Sequence[Label], share: float,
                        weights: Mapping[str, float] | None) -> ClassSampling:
    """Give each class that occurs the same probability, or those of `weights`, by their names, in proportion to them.

    Raises:
        UserError: If a name is of no class, or of one that no image shows.
    """
    names = [label.name for label in labels]
    for name in weights or ():
        if name not in names:
            raise unknown_class("train.sampling.classes", name, names)
        if not len(places[names.index(name)]):
            raise UserError(f"train.sampling.classes: no image of train shows {name}: leave it out.")
    given = np.array([float(len(places[place]) > 0) if weights is None else weights.get(name, 0.0)
                      for place, name in enumerate(names)])
    return ClassSampling(places, given / given.sum(), share)
