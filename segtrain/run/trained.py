"""What a checkpoint says: the config, the network with its weights, the classes. No data is needed for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from torch import nn

from segtrain.config import build
from segtrain.config.instantiate import without_download
from segtrain.config.schema import Config
from segtrain.data.camvid import CAMVID, CAMVID_VOID
from segtrain.data.cityscapes import CITYSCAPES
from segtrain.data.label_files import FileForm, file_form
from segtrain.data.voc import VOC, mask_palette
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label, default_color
from segtrain.run import checkpoint

LABELS, FORM = pydantic.TypeAdapter(tuple[Label, ...]), pydantic.TypeAdapter(FileForm)


def load_network(cfg: Config[Any], saved: Mapping[str, Any], path: Path) -> nn.Module:
    """Build the network of a config and load a checkpoint's weights into it, on the CPU.

    Args:
        cfg: The checkpoint's config.
        saved: The checkpoint.
        path: Its file, for messages.
    """
    network = build.model(cfg, pretrained=False)
    checkpoint.load_weights(network, saved["model"], path, class_layer=build.class_layer(cfg))
    return network


def saved_classes(saved: Mapping[str, Any], path: Path,
                  cfg: Config[Any]) -> tuple[tuple[Label, ...], FileForm, str | None]:
    """Return the classes that a checkpoint was trained for, and what files of its predictions hold.

    Checkpoints that are older than their table of classes, or were converted, say less: for those the table is that of
    a dataset that always has the same, or is read from the dataset if that is there, or else made up.

    Args:
        saved: The checkpoint.
        path: Its file, for messages.
        cfg: The checkpoint's config.

    Returns:
        The labels, the form of files, and a remark if they are not the checkpoint's own.

    Raises:
        UserError: If the checkpoint's table is damaged.
    """
    num_classes = cfg.dataset.num_classes
    assert num_classes is not None, "a checkpoint's is settled"
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
    target = cfg.dataset.target
    with_void = cfg.dataset.arguments.get("include_void")
    fixed = {"segtrain.data.streets.dataset.Streets": CAMVID, "segtrain.data.cityscapes.Cityscapes": CITYSCAPES,
             "segtrain.data.camvid.CamVid": (*CAMVID, CAMVID_VOID) if with_void else CAMVID}
    if cfg.dataset.arguments.get("classes") is None:
        fixed["segtrain.data.voc.Voc"] = VOC
    if target in fixed and len(fixed[target]) == num_classes:
        is_voc = fixed[target] is VOC
        form = FileForm(label_ids=fixed[target] is CITYSCAPES, palette=mask_palette(VOC) if is_voc else None)
        return (fixed[target], form,
                f"the checkpoint holds no table of its classes: they are called as {target.rpartition('.')[2]} does.")
    try:
        data = build.dataset(without_download(cfg), cfg.dataset.split, targets_only=True)
        return data.labels, file_form(data), "the checkpoint holds no table of its classes: it was read from the data."
    except UserError:
        made_up = (Label(f"class {number}", number, number, default_color(number)) for number in range(num_classes))
        return tuple(made_up), FileForm(), ("the checkpoint holds no table of its classes, and its data is not here: "
                                            "names and colours are made up, the class numbers are right.")
