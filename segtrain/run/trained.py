"""What a checkpoint says: the config, the network with its weights, the classes. No data is needed for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from torch import nn

from segtrain.config import build, check, instantiate
from segtrain.data.camvid import CAMVID, CAMVID_VOID
from segtrain.data.cityscapes import CITYSCAPES
from segtrain.data.label_files import FileForm, file_form
from segtrain.data.voc import VOC, mask_palette
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label, default_color
from segtrain.run import checkpoint

LABELS, FORM = pydantic.TypeAdapter(tuple[Label, ...]), pydantic.TypeAdapter(FileForm)


def saved_config(saved: Mapping[str, Any], path: Path, cfg: Any, overrides: list[str]) -> Any:
    """Return the checkpoint's config under this command's overrides, with its task and this machine's runtime."""
    own = check.from_container(saved["config"], str(path))
    try:
        laid = check.overlay(own, cfg, overrides)
        laid.task, laid.runtime = cfg.task, cfg.runtime
        instantiate.check_trust(laid, overrides, cfg.runtime.trusted)
        return check.check(laid)
    except UserError as error:
        raise UserError(f"the configuration in {path} under this command's overrides: {error}") from error


def load_network(cfg: Any, saved: Mapping[str, Any], path: Path) -> nn.Module:
    """Build the network of a config and load a checkpoint's weights into it, on the CPU.

    Args:
        cfg: As of `saved_config`.
        saved: The checkpoint.
        path: Its file, for messages.
    """
    network = build.model(cfg, pretrained=False)
    checkpoint.load_weights(network, saved["model"], path, class_layer=build.class_layer(cfg))
    return network


def saved_classes(saved: Mapping[str, Any], path: Path, cfg: Any) -> tuple[tuple[Label, ...], FileForm, str | None]:
    """Return the classes that a checkpoint was trained for, and what files of its predictions hold.

    Checkpoints that are older than their table of classes, or were converted, say less: for those the table is that of
    a dataset that always has the same, or is read from the dataset if that is there, or else made up.

    Args:
        saved: The checkpoint.
        path: Its file, for messages.
        cfg: As of `saved_config`.

    Returns:
        The labels, the form of files, and a remark if they are not the checkpoint's own.

    Raises:
        UserError: If the checkpoint's table is damaged.
    """
    num_classes = cfg.dataset.num_classes
    if saved.get("labels") is not None:
        try:
            labels = LABELS.validate_python(saved["labels"])
            form = FORM.validate_python(saved["file_form"])
        except pydantic.ValidationError as error:
            raise UserError(f"{path} is damaged: its table of classes is not what segtrain writes there "
                            f"({error.errors()[0]['msg']}); choose another file.") from error
        if sorted({label.train_id for label in labels} - {IGNORE_INDEX}) != list(range(num_classes)):
            raise UserError(f"{path} is damaged: its table of classes is not that of {num_classes} classes; choose "
                            "another file.")
        return labels, form, None
    target = str(cfg.dataset.get("_target_"))
    fixed = {"segtrain.data.streets.dataset.Streets": CAMVID, "segtrain.data.cityscapes.Cityscapes": CITYSCAPES,
             "segtrain.data.camvid.CamVid": (*CAMVID, CAMVID_VOID) if cfg.dataset.get("include_void") else CAMVID}
    if cfg.dataset.get("classes") is None:
        fixed["segtrain.data.voc.Voc"] = VOC
    if target in fixed and len(fixed[target]) == num_classes:
        is_voc = fixed[target] is VOC
        form = FileForm(label_ids=fixed[target] is CITYSCAPES, palette=mask_palette(VOC) if is_voc else None)
        return (fixed[target], form,
                f"the checkpoint holds no table of its classes: they are called as {target.rpartition('.')[2]} does.")
    try:
        there = check.from_container(check.to_container(cfg))
        there.dataset.pop("download", None)  # for names and colours alone nothing is fetched
        data = build.dataset(there, cfg.dataset.split, targets_only=True)
        return data.labels, file_form(data), "the checkpoint holds no table of its classes: it was read from the data."
    except UserError:
        made_up = (Label(f"class {number}", number, number, default_color(number)) for number in range(num_classes))
        return tuple(made_up), FileForm(), ("the checkpoint holds no table of its classes, and its data is not here: "
                                            "names and colours are made up, the class numbers are right.")
