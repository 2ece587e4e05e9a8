"""Turn the weights of a network trained in Keras into a checkpoint."""

import logging
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segtrain.config import build
from segtrain.config.schema import Config, ConvertTask
from segtrain.errors import UserError
from segtrain.models.keras_weights import convert_keras
from segtrain.run import checkpoint
from segtrain.run.results import write_config, write_json

log = logging.getLogger(__name__)


def run(cfg: Config[ConvertTask], run_dir: Path) -> float | None:
    """Fill cfg.model with the weights of cfg.task.weights and write it as checkpoints/best.pt.

    The checkpoint's config is this command's, so that task=evaluate knows model, dataset and normalisation.

    Returns:
        None, for nothing is scored.
    """
    if cfg.task.weights is None:
        raise UserError("task.weights is needed: the .npz file with the weights, task.weights=weights.npz")
    path = Path(cfg.task.weights).expanduser()
    weights = _read(path)
    num_classes = cfg.dataset.num_classes or cfg.model.get("num_classes")
    if num_classes is None:
        raise UserError("the number of classes is open, and no data is read to convert weights: "
                        "give it, dataset.num_classes=...")
    settled = build.settle(cfg, build.device(cfg), num_classes=num_classes, cached_in_memory=True)
    network = build.model(settled, pretrained=False)
    name = type(network).__name__
    layer_names = getattr(sys.modules[type(network).__module__], "keras_layers", None)
    if layer_names is None:
        raise UserError(f"model._target_={cfg.model['_target_']} has no Keras original (its file has no function "
                        "keras_layers): choose a model that has one, docs/reference/models.md lists them.")
    try:
        state = convert_keras(weights, network, layer_names(network))
    except ValueError as error:
        raise UserError(f"{path} does not fit model._target_={cfg.model['_target_']}: {error}. "
                        "Choose the variant and the number of classes that it was trained with.") from error

    saved = dict.fromkeys(checkpoint.State.model_fields)
    saved |= {"model": state, "epoch": 0, "step": 0, "config": settled.plain()}
    best = run_dir / "checkpoints" / checkpoint.BEST
    checkpoint.save(best, saved)
    write_config(run_dir, settled)
    write_json(run_dir / "results.json", {
        "task": "convert", "model": name, "weights": str(path), "num_arrays": len(weights), "checkpoint": str(best),
        "params": sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)})
    if not cfg.model.get("keras_compatible", True):
        log.info("model.keras_compatible=false: %s computes otherwise than the network in Keras did, and "
                          "these weights were learnt for that; train on, or convert with model.keras_compatible=true.",
                          name)
    log.info("%d arrays of %s are now %s\nnext:\n  segtrain task=evaluate checkpoint=%s dataset=...",
                      len(weights), path, best, run_dir)
    return None


def _read(path: Path) -> Mapping[str, np.ndarray]:
    """Read every array of a .npz file; nothing in it is executed."""
    if not path.is_file():
        raise UserError(f"task.weights={path} does not exist.")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except MemoryError as error:
        raise UserError(f"task.weights={path} declares more values than memory holds: choose another file.") from error
    except Exception as error:  # broken archives and arrays bring forth zlib.error, NotImplementedError, ...
        reason = " ".join(str(error).split())
        raise UserError(f"task.weights={path} is no .npz file of arrays ({reason}): "
                        "write one with numpy.savez.") from error
