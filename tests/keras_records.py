"""What Keras networks computed: an input, weights drawn from their names, and every third row and column of logits."""

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn


def load_record(name):
    """Return the record and the Keras weights, by name."""
    record = dict(np.load(Path(__file__).parent / "parity" / f"{name}.npz"))
    shapes = [tuple(int(size) for size in shape if size) for shape in record["shapes"]]
    return record, {name: drawn(name, shape) for name, shape in zip(record["names"].tolist(), shapes, strict=True)}


def drawn(name, shape):
    """Draw a weight from its name, as the record's weights were."""
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    kind = name.rpartition("/")[2].removesuffix(":0")
    if kind.endswith("kernel"):
        z *= np.sqrt(2 / np.prod(shape[: 2 if kind == "depthwise_kernel" else 3]))
    else:
        z = {"gamma": 1 + 0.1 * z, "moving_variance": 1 + 0.1 * abs(z)}.get(kind, 0.1 * z)
    return z.astype(np.float32)


@torch.no_grad()
def relative_error(network, record):
    """Compare a network's logits with the recorded ones: the largest difference in terms of the largest logit."""
    step, expected = int(record["step"]), record["logits"]
    logits = network.eval()(torch.from_numpy(record["input"]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    return abs(logits[:, ::step, ::step] - expected).max() / abs(expected).max()


def batch_norm_constants(network):
    """Return all pairs of eps and momentum."""
    return {(layer.eps, layer.momentum) for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)}
