"""Draw a checkpoint's predictions on the first images of a split: input, target and prediction side by side.

    python scripts/draw_predictions.py outputs/<date>/<time> predictions.png
    python scripts/draw_predictions.py outputs/<date>/<time>/checkpoints/best.pt out.png --images 8 --columns 2

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
from segtrain.inference.forward import make_predict_fn
from segtrain.run import checkpoint
from segtrain.run.trained import load_trained
from segtrain.visualize import draw_side_by_side, stack


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint", help="a .pt file or a run directory")
    arguments.add_argument("output", type=Path, help="the PNG to write")
    arguments.add_argument("--images", type=int, default=6)
    arguments.add_argument("--columns", type=int, default=2)
    given = arguments.parse_args()

    path = checkpoint.find(given.checkpoint)
    config = checkpoint.load(path, mapped=True)["config"]
    check_trust(config, [], [])
    trained = load_trained(check_config({**config, "checkpoint": str(path)}), device=torch.device("cpu"))
    data = build.dataset(trained.cfg, trained.cfg.dataset.split)
    predict = make_predict_fn(trained.network, trained.normalize, device=trained.device)
    images = []
    for index in range(min(given.images, len(data.names))):
        sample = data.read(index)
        pred = predict(torch.tensor(sample.image)[None]).argmax(1)[0].numpy()
        images.append(draw_side_by_side(data.form.draw(sample.image), sample.target, pred, data.labels))
    columns = [stack(images[column::given.columns]) for column in range(given.columns)]
    height = max(column.shape[0] for column in columns)
    sheet = np.concatenate([np.pad(column, ((0, height - column.shape[0]), (0, 8), (0, 0)), constant_values=255)
                            for column in columns], axis=1)
    cv2.imwrite(str(given.output), sheet[..., ::-1])
    print(given.output)


if __name__ == "__main__":
    main()
