"""Write the keys of the schema as tables into docs/reference/configuration.md.

    python scripts/key_tables.py
"""

from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from segtrain.commands.help import describe_values
from segtrain.config.compose import compose_config
from segtrain.config.overrides import flatten
from segtrain.config.schema import (
    TASKS,
    Config,
    DatasetSection,
    FoldsSection,
    LoggerSection,
    RuntimeSection,
    SamplingSection,
    Section,
    TrainSection,
)
from segtrain.errors import show_value

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/configuration.md"
BEGIN, END = "<!-- begin generated: keys -->\n", "<!-- end generated -->\n"


def key_tables() -> str:
    """Return tables of every fixed key in Markdown: its default, the values that it takes, its meaning."""
    defaults = flatten(compose_config([]).plain())
    top = {name: field for name, field in Config.model_fields.items() if name in ("seed", "checkpoint", "resume")}
    parts = [_table("Top level", "", top, defaults)]
    for name, section in (("train", TrainSection), ("runtime", RuntimeSection)):
        parts.append(_table(f"`{name}`", f"{name}.", _without_sections(section), defaults))
    parts.append(_table("`train.sampling`: which images an epoch is made of", "train.sampling.",
                        SamplingSection.model_fields, defaults))
    parts.append(_table("`dataset`: keys of every dataset", "dataset.", _without_sections(DatasetSection), {}))
    parts.append(_table("`dataset.folds`: what `dataset.fold` is one of", "dataset.folds.", FoldsSection.model_fields,
                        defaults))
    for name, field in LoggerSection.model_fields.items():
        section = get_args(field.annotation)[0].model_fields
        if section:
            parts.append(_table(f"`logger={name}`", f"logger.{name}.", section,
                                flatten(compose_config([f"logger={name}"]).plain())))
    for name, task in TASKS.items():
        own = {key: field for key, field in task.model_fields.items() if key != "name"}
        if own:
            parts.append(_table(f"`task={name}`", "task.", own, flatten(compose_config([f"task={name}"]).plain())))
    return "\n".join(parts)


def _without_sections(section: type[Section]) -> dict[str, FieldInfo]:
    return {name: field for name, field in section.model_fields.items()
            if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))}


def _table(title: str, prefix: str, fields: dict[str, FieldInfo], defaults: dict[str, Any]) -> str:
    head = "| key | default | values | meaning |\n|---|---|---|---|" if defaults else (
        "| key | values | meaning |\n|---|---|---|")
    rows = []
    for name, field in fields.items():
        key = f"{prefix}{field.alias or name}"
        default = [f"`{show_value(defaults[key])}`"] if defaults else []
        cells = [f"`{key}`", *default, describe_values(field), field.description or ""]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"### {title}\n", head, *rows, ""])


def updated() -> dict[Path, str]:
    """Return the texts of the files that show keys, as they should be."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return {PAGE: f"{before}{BEGIN}\n{key_tables()}\n{END}{after}"}


if __name__ == "__main__":
    for path, text in updated().items():
        path.write_text(text, encoding="utf-8")
