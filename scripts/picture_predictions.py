"""Draw a checkpoint's predictions on the first images of a split: input, target and prediction side by side.

    python scripts/picture_predictions.py outputs/<date>/<time> predictions.png
    python scripts/picture_predictions.py outputs/<date>/<time>/checkpoints/best.pt out.png --images 8 --columns 2

Colours are the dataset's own, void is black.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from segtrain.config import build
from segtrain.config.check import check_config
from segtrain.config.instantiate import check_trust
from segtrain.data.base import Subset
from segtrain.data.loading import evaluation_batches
from segtrain.inference.evaluator import predict_batches
from segtrain.inference.forward import make_predict_fn
from segtrain.run import checkpoint
from segtrain.visualize import side_by_side, stack


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint", help="a .pt file or a run directory")
    arguments.add_argument("picture", type=Path, help="the PNG to write")
    arguments.add_argument("--images", type=int, default=6)
    arguments.add_argument("--columns", type=int, default=2)
    given = arguments.parse_args()

    path = checkpoint.find(given.checkpoint)
    saved = checkpoint.load(path)
    check_trust(saved["config"], [], [])
    trusted = check_config(saved["config"])
    assert trusted.dataset.num_classes is not None
    cfg = build.settle(trusted, torch.device("cpu"), num_classes=trusted.dataset.num_classes, cached_in_memory=True)
    network = build.model(cfg, pretrained=False)
    checkpoint.load_weights(network, saved["model"], path, class_layer=build.class_layer(cfg))
    data = build.dataset(cfg, cfg.dataset.split)
    data = Subset(data, min(given.images, len(data.names)))
    sizes = [data.read(index).target.shape for index in range(len(data.names))]
    batches = evaluation_batches(data, sizes, instances=None, batch_size=1, workers=0, pin_memory=False)
    device = torch.device("cpu")
    predict = make_predict_fn(network, build.normalize(cfg, device), device=device)
    pictures = [
        side_by_side(batch.images[0].numpy(), batch.targets[0].numpy(), logits.argmax(1)[0].numpy(), data.labels)
        for batch, logits in predict_batches(predict, batches, device=device)]
    columns = [stack(pictures[column::given.columns]) for column in range(given.columns)]
    height = max(column.shape[0] for column in columns)
    sheet = np.concatenate([np.pad(column, ((0, height - column.shape[0]), (0, 8), (0, 0)), constant_values=255)
                            for column in columns], axis=1)
    cv2.imwrite(str(given.picture), sheet[..., ::-1])
    print(given.picture)


if __name__ == "__main__":
    main()
