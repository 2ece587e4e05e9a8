"""Turn published weights of a network, or those of one trained in Keras, into a checkpoint."""

import logging
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.config import build
from segtrain.config.instantiate import without_download
from segtrain.config.schema import Config, ConvertTask, Settled
from segtrain.data.camvid import CAMVID, CAMVID_VOID
from segtrain.data.cityscapes import CITYSCAPES
from segtrain.data.label_files import FileForm, make_file_form
from segtrain.data.voc import VOC, make_mask_palette
from segtrain.errors import UserError
from segtrain.files import open_regular
from segtrain.labels import Label, make_up_color
from segtrain.models.keras_weights import convert_keras
from segtrain.models.original_weights import convert_original
from segtrain.run import checkpoint
from segtrain.run.results import write_config, write_results
from segtrain.terminal import shell

log = logging.getLogger(__name__)


def run(cfg: Config[ConvertTask], run_dir: Path) -> None:
    """Fill cfg.model with the weights of cfg.task.weights and write it as checkpoints/best.pt.

    The checkpoint's config is this command's, so that task=evaluate knows model, dataset and normalisation.
    """
    if cfg.task.weights is None:
        raise UserError("task.weights is needed: the .npz file with the weights, task.weights=weights.npz")
    path = Path(cfg.task.weights)
    weights = _read(path)
    num_classes = cfg.dataset.num_classes or cfg.model.get("num_classes")
    if num_classes is None:
        raise UserError("the number of classes is open, and no data is read to convert weights: "
                        "give it, dataset.num_classes=...")
    unmeasured = build.list_unmeasured(cfg)
    if unmeasured:
        raise UserError(f"dataset.{unmeasured[0]} is open, and no data is read to convert weights: with "
                        "dataset.channels give dtype, range, mean and std as they were in their training.")
    settled = build.settle(cfg, build.device(cfg), num_classes=num_classes, cached_in_memory=True)
    network = build.model(settled, pretrained=False)
    name = type(network).__name__
    module = sys.modules[type(network).__module__]
    try:
        if hasattr(module, "keras_layers"):
            state = convert_keras(weights, network, module.keras_layers(network))
        elif hasattr(module, "RENAMED"):
            state = convert_original(weights, network, module.RENAMED)
        else:
            raise UserError(f"model._target_={cfg.model['_target_']} has no original whose weights are known (its file "
                            "has neither keras_layers nor RENAMED): choose a model that has one, "
                            "docs/reference/models.md lists them.")
    except ValueError as error:
        raise UserError(f"{path} does not fit model._target_={cfg.model['_target_']}: {error}. "
                        "Choose the variant and the number of classes that it was trained with.") from error

    if hasattr(module, "NON_COMMERCIAL"):
        log.warning("warning: the published weights of %s, and those trained from them, are under %s, which does not "
                    "allow commercial use", name, module.NON_COMMERCIAL)
    saved = dict.fromkeys(name for name, field in checkpoint.State.model_fields.items() if field.is_required())
    labels, form = find_classes(settled)
    saved |= {"model": state, "epoch": 0, "step": 0, "config": settled.plain(),
              "labels": [asdict(label) for label in labels], "file_form": asdict(form)}
    best = run_dir / "checkpoints" / checkpoint.BEST
    checkpoint.save(best, saved)
    write_config(run_dir, settled)
    write_results(run_dir, {
        "task": "convert", "model": name, "weights": str(path), "num_arrays": len(weights), "checkpoint": str(best),
        "params": sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)})
    if not cfg.model.get("keras_compatible", True):
        log.info("model.keras_compatible=false: %s computes something else than the network in Keras, for which "
                 "these weights were trained: continue training, or convert with model.keras_compatible=true.", name)
    log.info("%d arrays of %s are now %s\nnext:\n  %s", len(weights), path, best,
             shell("task=evaluate", f"checkpoint={run_dir}", "dataset=..."))


def find_classes(cfg: Settled[Any]) -> tuple[Sequence[Label], FileForm]:
    """Return the classes of the config's dataset, and what files of its predictions hold.

    If the data is not there, the table is that of a dataset that always has the same, or else names are made up.
    """
    try:
        data = build.dataset(without_download(cfg), cfg.dataset.split, targets_only=True)
        return data.labels, make_file_form(data)
    except UserError:
        pass
    num_classes = cfg.dataset.num_classes
    for target, labels, form in (("camvid.CamVid", CAMVID, FileForm()),
                                 ("camvid.CamVid", (*CAMVID, CAMVID_VOID), FileForm()),
                                 ("cityscapes.Cityscapes", CITYSCAPES, FileForm(label_ids=True)),
                                 ("voc.Voc", VOC, FileForm(palette=make_mask_palette(VOC)))):
        has_own = cfg.dataset.arguments.get("classes") is not None  # a class file, as dataset=voc may have
        if cfg.dataset.target == f"segtrain.data.{target}" and len(labels) == num_classes and not has_own:
            return labels, form
    log.warning("warning: the dataset's classes are not known here: names and colours are made up, the class numbers "
                "are right.")
    made_up = [Label(f"class {number}", number, number, make_up_color(number)) for number in range(num_classes)]
    return made_up, FileForm()


def _read(path: Path) -> Mapping[str, np.ndarray]:
    """Read every array of a .npz file; nothing in it is executed."""
    if not path.is_file():
        raise UserError(f"task.weights={path} does not exist.")
    try:
        with open_regular(path) as opened:
            if not zipfile.is_zipfile(opened):
                raise ValueError("it is not a zip archive")
            file = np.load(opened, allow_pickle=False)
            return {name: file[name] for name in file.files}
    except MemoryError as error:
        raise UserError(f"task.weights={path} declares more values than memory holds: choose another file.") from error
    except Exception as error:  # broken archives and arrays raise zlib.error, NotImplementedError, ...
        reason = " ".join(str(error).split())
        raise UserError(f"task.weights={path} is not a .npz file of arrays ({reason}): "
                        "write one with numpy.savez.") from error
