"""Score the predictor that gives every pixel position its most frequent training class.

    python scripts/trivial_predictor.py dataset=camvid dataset.root=/data/CamVid

It looks at no image, so a network that is no better has learnt the layout of the scenes and nothing else. All images
must have one size. Arguments are overrides as for segtrain; prints the table that segtrain prints.
"""

import sys

import numpy as np
import torch

from segtrain.config import build
from segtrain.config.compose import compose_config
from segtrain.labels import IGNORE_INDEX
from segtrain.metrics.confusion import confusion_matrix
from segtrain.metrics.scores import compute_scores
from segtrain.run.results import results_table


def main() -> None:
    cfg = compose_config(sys.argv[1:])
    train, val = build.dataset(cfg, "train"), build.dataset(cfg, cfg.dataset.split)
    num_classes = len(train.labels)
    height, width = train.read(0).target.shape
    counts = np.zeros((IGNORE_INDEX + 1, height * width), dtype=np.int32)
    positions = np.arange(height * width)
    for index in range(len(train.names)):
        counts[train.read(index).target.ravel(), positions] += 1
    pred = torch.from_numpy(counts[:num_classes].argmax(0).reshape(height, width))

    confusion = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)
    for index in range(len(val.names)):
        confusion += confusion_matrix(pred, torch.from_numpy(val.read(index).target).long(), num_classes)
    scores = compute_scores(confusion, [label.name for label in train.labels])
    print(results_table({
        **scores, "loss": None, "iiou_source": None, "num_images": len(val.names),
        "dataset": cfg.dataset.target.rsplit(".", 1)[-1].lower(), "split": cfg.dataset.split}))


if __name__ == "__main__":
    main()
