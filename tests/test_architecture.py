"""Nothing in the package is left over, and what the configs name exists; import-linter checks who imports whom."""

import ast
from pathlib import Path

import yaml

from segtrain.commands.shortcuts import COMMANDS
from segtrain.config.schema import LoggerSection

ROOT = Path(__file__).parents[1]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
           for path in (ROOT / "segtrain").rglob("*.py")}
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))


def imported_modules(path):
    """Yield the dotted name of every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names))


def targets(node):
    """Yield every _target_ in a YAML tree."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_no_module_is_unused():
    used = {name for path in MODULES.values() for name in imported_modules(path)}
    used |= {target.rpartition(".")[0] for path in CONFIGS for target in targets(yaml.safe_load(path.read_text()))}
    used |= {"segtrain.__main__", "segtrain.trained_run"}  # python -m segtrain; imported when it is first used
    tasks = {name for name in MODULES if name.startswith("segtrain.tasks.")}  # task=name runs segtrain.tasks.name
    tasks |= {f"segtrain.commands.{name}" for name in COMMANDS}  # segtrain name
    tasks |= {f"segtrain.run.loggers.{name}" for name in LoggerSection.model_fields}  # logger=name
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    unused = sorted(MODULES.keys() - used - tasks - packages)
    assert not unused, f"nothing imports or names {', '.join(unused)}: remove it, or use it"


def test_every_target_of_the_configs_exists():
    for path in CONFIGS:
        for target in targets(yaml.safe_load(path.read_text())):
            module, _, name = target.rpartition(".")
            if module.startswith("segtrain"):
                assert module in MODULES, f"{path.relative_to(ROOT)}: _target_ {target}: there is no module {module}"
                defined = {getattr(node, "name", None) for node in ast.parse(MODULES[module].read_text()).body}
                assert name in defined, f"{path.relative_to(ROOT)}: _target_ {target}: {module} does not define {name}"
