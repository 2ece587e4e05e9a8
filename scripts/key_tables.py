"""Write the keys of the schema as text: the tables of docs/reference/configuration.md, the commonest keys for --help.

    python scripts/key_tables.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic.fields import FieldInfo

from segtrain.config.check import expected
from segtrain.config.compose import compose_config
from segtrain.config.overrides import flatten
from segtrain.config.schema import TASKS, Config, DatasetSection, FoldsSection, RuntimeSection, Section, TrainSection
from segtrain.errors import show_value

ROOT = Path(__file__).parents[1]
PAGE, HELP = ROOT / "docs/reference/configuration.md", ROOT / "conf/hydra/help/segtrain.yaml"
BEGIN, END = "<!-- begin generated: keys -->\n", "<!-- end generated -->\n"
# What --help lists: a key of the schema, or an argument of a class or of Hydra with its meaning.
COMMON = {
    "dataset.root=PATH": "where the data is (camvid, cityscapes, voc, folder)", "dataset.crop=[H,W]": None,
    "dataset.instances=components": None, "train.epochs=N": None, "train.max_minutes=N": None,
    "train.batch_size=N": None, "train.monitor=miou": None, "optim.lr=X": "learning rate",
    "model.pretrained=IMAGENET1K_V1": "start the encoder from torchvision's ImageNet weights",
    "runtime.device=cpu": None, "seed=N": None,
    "name=NAME": "the run directory is outputs/NAME; hydra.run.dir=PATH: any other"}


def key_tables() -> str:
    """Return tables of every fixed key in Markdown: its default, the values that it takes, its meaning."""
    defaults = flatten(compose_config([]).plain())
    top = {name: field for name, field in Config.model_fields.items() if name in ("seed", "checkpoint", "resume")}
    parts = [_table("Top level", "", top, defaults)]
    for name, section in (("train", TrainSection), ("runtime", RuntimeSection)):
        parts.append(_table(f"`{name}`", f"{name}.", section.model_fields, defaults))
    of_datasets = {name: field for name, field in DatasetSection.model_fields.items() if name != "folds"}
    parts.append(_table("`dataset`: keys of every dataset", "dataset.", of_datasets, {}))
    parts.append(_table("`dataset.folds`: what `dataset.fold` is one of", "dataset.folds.", FoldsSection.model_fields,
                        defaults))
    for name, task in TASKS.items():
        own = {key: field for key, field in task.model_fields.items() if key != "name"}
        if own:
            parts.append(_table(f"`task={name}`", "task.", own, flatten(compose_config([f"task={name}"]).plain())))
    return "\n".join(parts)


def _table(title: str, prefix: str, fields: dict[str, FieldInfo], defaults: dict[str, Any]) -> str:
    head = "| key | default | values | meaning |\n|---|---|---|---|" if defaults else (
        "| key | values | meaning |\n|---|---|---|")
    rows = []
    for name, field in fields.items():
        key = f"{prefix}{field.alias or name}"
        default = [f"`{show_value(defaults[key])}`"] if defaults else []
        cells = [f"`{key}`", *default, _values(field), field.description or ""]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"### {title}\n", head, *rows, ""])


def _values(field: FieldInfo) -> str:
    """Return which values a field takes, and their range."""
    hint: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    limits = dict(_limits(hint))
    ranges = [f"{sign} {limits[name]:g}" for name, sign in (("ge", "≥"), ("gt", ">"), ("lt", "<"))
              if name in limits and limits[name] < 2**31]
    return expected(hint) + (f", {' and '.join(ranges)}" if ranges else "")


def _limits(hint: Any) -> Iterator[tuple[str, float]]:
    """Yield the limits of a type and of the types in it."""
    for inner in get_args(hint):
        for limit in getattr(inner, "metadata", [inner]):
            yield from ((name, getattr(limit, name)) for name in ("ge", "gt", "lt")
                        if getattr(limit, name, None) is not None)
        yield from _limits(inner)


def common_keys() -> str:
    """Return the commonest keys as lines for --help."""
    sections: dict[str, type[Section]] = {"train": TrainSection, "runtime": RuntimeSection, "dataset": DatasetSection}
    lines = []
    for example, meaning in COMMON.items():
        section, _, name = example.partition("=")[0].rpartition(".")
        fields = sections.get(section, Config).model_fields
        lines.append(f"    {example:<31} {meaning or fields[name].description}")
    return "\n".join(lines)


def updated() -> dict[Path, str]:
    """Return the texts of the files that show keys, as they should be."""
    page, help_text = PAGE.read_text(encoding="utf-8"), HELP.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return {PAGE: f"{before}{BEGIN}\n{key_tables()}\n{END}{after}",
            HELP: re.sub(r"(?<=Values most often set:\n).*?(?=\n\n)", lambda _: common_keys(), help_text, count=1,
                         flags=re.DOTALL)}


if __name__ == "__main__":
    for path, text in updated().items():
        path.write_text(text, encoding="utf-8")
