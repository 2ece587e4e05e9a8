"""The floors of ARCHITECTURE.md, enforced: a module imports only from lower floors, or from its own folder."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path
         for path in sorted((ROOT / "segtrain").rglob("*.py"))}
FILES |= {"segtrain.conf.__init__": ROOT / "conf" / "__init__.py"}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}
PACKAGES = {name.removesuffix(".__init__") for name in FILES if name.endswith(".__init__")}

MODELS_MAY_IMPORT = {"torch", "torchvision", *sys.stdlib_module_names}
HYDRA_MAY_BE_IMPORTED_BY = {"segtrain.cli", "segtrain.config.check", "segtrain.config.schema", "segtrain.config.build",
                            "segtrain.run.directory", "segtrain.config.hydra_plugin", "segtrain.config.overrides"}


def floors():
    """Read the picture in ARCHITECTURE.md: the floor of each module and folder that stands directly in segtrain."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    picture = re.search(r"^```text\n(floor .*?)^```", text, re.MULTILINE | re.DOTALL)
    assert picture, "ARCHITECTURE.md has no ```text block that starts with a line 'floor ...'"
    found = {}
    for line in picture[1].splitlines()[1:]:
        number, *names = line.split()
        for name in names:
            assert name not in found, f"ARCHITECTURE.md shows {name} on two floors"
            found[name] = int(number)
    return found


def part(module):
    """Return what stands directly in segtrain: segtrain.models.blocks -> models/, segtrain.training.step -> engine."""
    names = module.split(".")
    if len(names) == 1:
        return "__init__"
    return names[1] + ("/" if f"segtrain.{names[1]}" in PACKAGES else "")


def imports(module):
    """Yield (line, dotted name) of every import, wherever in the file it stands."""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[:len(package.split(".")) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else base


def own_imports(module):
    """Yield (line, module) of the imports from segtrain itself; a package stands for what its __init__ defines."""
    for line, name in imports(module):
        if name.split(".")[0] == "segtrain":
            assert name in MODULES, f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}, which does not exist"
            yield line, name


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_floors_only(module):
    floor, own = floors(), part(module)
    for line, name in own_imports(module):
        other = part(name)
        if other in (own, "__init__"):
            continue
        assert own in floor, f"{own} has no floor"
        assert other in floor, f"{other} has no floor"
        assert floor[other] < floor[own], (
            f"{MODULES[module].relative_to(ROOT)}:{line} (floor {floor[own]}) imports {name} (floor {floor[other]}). "
            "A module imports only from lower floors, or from its own folder. Pass the value as an argument, or move "
            "what both need down; the floors are drawn in ARCHITECTURE.md.")


def test_every_module_has_a_floor():
    floor, parts = floors(), {part(module) for module in MODULES} - {"__init__"}
    assert not parts - floor.keys(), (
        f"no floor for {', '.join(sorted(parts - floor.keys()))}: add it to the picture in ARCHITECTURE.md, one above "
        "the highest floor that it imports from")
    assert not floor.keys() - parts, (
        f"ARCHITECTURE.md gives {', '.join(sorted(floor.keys() - parts))} a floor, but segtrain has no such module")


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("segtrain.models.")])
def test_models_stand_alone(module):
    for line, name in imports(module):
        assert name.startswith("segtrain.models") or name.split(".")[0] in MODELS_MAY_IMPORT, (
            f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}: a model imports torch, torchvision, the "
            "standard library and segtrain.models only, so that it can be used anywhere")


@pytest.mark.parametrize("module", MODULES)
def test_hydra_stays_at_the_top(module):
    if module in HYDRA_MAY_BE_IMPORTED_BY:
        return
    for line, name in imports(module):
        assert name.split(".")[0] not in ("hydra", "omegaconf"), (
            f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}: only "
            f"{', '.join(sorted(HYDRA_MAY_BE_IMPORTED_BY))} do; everything else takes plain arguments")


@pytest.mark.parametrize("module", MODULES)
def test_the_package_needs_nothing_beside_it(module):
    for line, name in imports(module):
        assert name.split(".")[0] not in ("tests", "scripts", "conftest", "conf"), (
            f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}: that is not installed with segtrain")


def test_no_module_is_unused():
    command = re.search(r'^segtrain = "([\w.]+):main"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert command, "pyproject.toml has no [project.scripts] line for segtrain"
    used = {command[1], "segtrain.__main__"}
    used |= {module for module in MODULES if module.startswith("segtrain.tasks.")}  # task=name runs segtrain.tasks.name
    used |= {"segtrain.api"}  # what import segtrain offers, imported when it is first used
    used |= {name for module in MODULES for _, name in own_imports(module)}
    for path in (ROOT / "conf").rglob("*.yaml"):
        used |= {target.rpartition(".")[0] for target in targets(yaml.safe_load(path.read_text()))}
    unused = sorted(MODULES.keys() - PACKAGES - used)
    assert not unused, f"nothing imports or names {', '.join(unused)}: remove it, or use it"


def test_every_target_of_the_configs_exists():
    for path in (ROOT / "conf").rglob("*.yaml"):
        for target in targets(yaml.safe_load(path.read_text())):
            module, _, name = target.rpartition(".")
            if module.startswith("segtrain"):
                assert module in MODULES, f"{path.relative_to(ROOT)}: _target_ {target}: there is no module {module}"
                defined = {getattr(node, "name", None) for node in ast.parse(MODULES[module].read_text()).body}
                assert name in defined, f"{path.relative_to(ROOT)}: _target_ {target}: {module} does not define {name}"


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
