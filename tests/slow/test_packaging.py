"""What is installed is whole: the wheel, used far from the checkout, and the editable install."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
KINDS = ("*.py", "*.yaml", "*.csv", "py.typed", "templates/*", "vendor/*")
FILES = [path for folder in ("segtrain", "conf") for kind in KINDS for path in (ROOT / folder).rglob(kind)]
WHERE = "import segtrain, segtrain.conf; print(segtrain.__file__); print(segtrain.conf.__file__)"


def run(*command, cwd, **environment):
    """Run a command and return its standard output."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy, so that the checkout stays clean."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("segtrain", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", made, ".",
        cwd=source)
    return next(made.glob("segtrain_cli-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into an empty folder."""
    target = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_every_module_config_and_the_licence(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in FILES}
    expected = {f"segtrain/{name}" if name.startswith("conf/") else name for name in expected}
    assert not expected - inside, "not in the wheel: list their folders in pyproject.toml, tool.setuptools packages"
    strange = {name for name in inside - expected if ".dist-info/" not in name}
    assert not strange, "in the wheel, but no part of the package"
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_wheel_works_from_another_folder(installed, tmp_path):
    environment = {"PYTHONPATH": str(installed)}
    package, conf = run(sys.executable, "-c", WHERE, cwd=tmp_path, **environment).split()
    assert Path(package) == installed / "segtrain" / "__init__.py"
    assert Path(conf) == installed / "segtrain" / "conf" / "__init__.py"
    config = run(installed / "bin" / "segtrain", "--cfg", "job", "optim=adam", cwd=tmp_path, **environment)
    assert "_target_: torch.optim.Adam\n" in config
    assert config == run(sys.executable, "-m", "segtrain", "--cfg", "job", "optim=adam", cwd=tmp_path, **environment)
    assert not list(tmp_path.iterdir())


def test_this_install_finds_its_configs_from_another_folder(tmp_path):
    environment = {"PYTHONPATH": ""}
    conf = Path(run(sys.executable, "-c", WHERE, cwd=tmp_path, **environment).split()[1])
    assert {path.relative_to(ROOT / "conf") for path in FILES if path.suffix == ".yaml"} <= {
        path.relative_to(conf.parent) for path in conf.parent.rglob("*.yaml")}
    command = Path(sys.executable).with_name("segtrain")
    assert "_target_: torch.optim.RMSprop\n" in run(command, "--cfg", "job", cwd=tmp_path, **environment)
