"""The command in odd surroundings: closed streams, no home, few open files, an old locale, a clock that jumps back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY, UNET

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs a shell of Unix")]
RUN = ["-m", "segtrain", *TINY, *UNET, "debug=smoke", "train.report=true"]
BACKWARDS = """
import sys, time
now, calls = time.time, []
time.time = lambda: now() - 100 * len(calls) - (calls.append(1) or 0)
from segtrain.cli import main
main()
"""
CLEAN = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(("before", "arguments", "environment"), [
    pytest.param("exec <&- >&- 2>&-", RUN, {"HOME": "/root"}, id="closed streams"),
    pytest.param("ulimit -n 64", RUN, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                 id="no home, few files, locale C"),
    pytest.param("", RUN, {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}, id="no folders"),
    pytest.param("", ["-c", BACKWARDS, *RUN[2:]], {"HOME": "/root"}, id="clock"),
])
def test_a_run_works_wherever_it_is_started(tmp_path, before, arguments, environment):
    run_dir = tmp_path / ("run" if "LC_ALL" in environment else "größe")
    command = ["sh", "-c", f'{before}\nexec "$0" "$@"', sys.executable, *arguments, f"hydra.run.dir={run_dir}"]
    done = subprocess.run(command, env=CLEAN | environment | {"PYTHONPATH": os.pathsep.join(sys.path)}, cwd=tmp_path,
                          capture_output=True, timeout=200, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    assert "Traceback" not in said
    assert "Logging error" not in said
    assert {"results.json", "report.html", "train.log"} <= {path.name for path in run_dir.iterdir()}
    assert not list(Path(tmp_path).glob("*.lock"))
