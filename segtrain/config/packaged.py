"""Read the files of conf/ as they are packaged, without Hydra and without what a command chooses."""

from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

CONF = files("segtrain.conf")


def list_files(group: str) -> list[str]:
    """Return the names of a group's files, without those in folders of it; none if there is no such group."""
    folder = CONF / group
    found = folder.iterdir() if group and folder.is_dir() else ()
    return sorted(path.name.removesuffix(".yaml") for path in found if path.name.endswith(".yaml"))


def read_file(group: str, name: str) -> dict[str, Any] | None:
    """Return the content of a group's file, interpolations left alone; None if there is no such file."""
    path = CONF / group / f"{name}.yaml"
    if not path.is_file():
        return None
    content: Any = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    return content
