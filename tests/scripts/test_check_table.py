"""scripts/check_table.py: the page of checks is current, and no check is missing from it."""

import ast
import importlib

import pytest
from helpers import ROOT

from segtrain.data.checks import CHECKS

# Modules with checks of their own: of one dataset's layout, of downloads, of predictions, and errors passed on.
ELSEWHERE = {"camvid", "cityscapes", "voc", "download", "label_files", "loading", "streets", "formats"}


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("check_table")
    module.import_checks()
    return module


def test_the_page_is_current(table):
    assert table.PAGE.read_text() == table.updated(), "run python scripts/check_table.py"


def functions(tree, prefix=""):
    """Yield the outermost functions of a module or class, by qualified name."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{prefix}{node.name}", node


def refuses(node):
    return any(isinstance(part, ast.Raise) and "UserError" in ast.dump(part) for part in ast.walk(node))


def test_every_check_is_in_the_table(table):
    data = ROOT / "segtrain" / "data"
    files = [*data.rglob("*.py"), *(ROOT / f"{name.replace('.', '/')}.py" for name in table.ELSEWHERE)]
    found, kinds = set(), set()
    for file in files:
        if file.is_relative_to(data) and file.relative_to(data).with_suffix("").parts[0] in ELSEWHERE:
            continue
        module = file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        found |= {f"{module}.{name}" for name, node in functions(ast.parse(file.read_text())) if refuses(node)}
    for node in ast.walk(ast.parse((data / "doctor" / "findings.py").read_text())):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            kinds.add(ast.unparse(node.value.elts[0]).strip("'"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            kinds |= {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set()
    kinds.discard("f'{what}_kinds")
    assert len(found) > 40
    assert not found - CHECKS.keys(), "note them with @check"
    noted = {check.kind for checks in CHECKS.values() for check in checks} - {None}
    assert noted == kinds | {"image_kinds", "mask_kinds", "remark"}
