"""The command in odd surroundings: closed streams, no home, few open files, an old locale, a clock that jumps back."""

import os
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("seconds", [0.15, 0.6, 2.5, 5])  # at an import, at another, while it builds, while it reads
def test_ctrl_c_is_answered_at_once_and_the_same_command_starts_again(tmp_path, seconds):
    command = [sys.executable, "-m", "segtrain", *TINY, *UNET, "dataset.num_train=3000", "train.epochs=999",
               "name=first"]
    process = subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ), text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    said = process.communicate(timeout=60)[0]
    assert time.monotonic() - started < 10
    assert process.returncode in (130, -signal.SIGINT), said  # the latter before Python has come to segtrain
    assert process.returncode < 0 or "stopping" in said
    assert process.returncode < 0 or "Traceback" not in said
    assert not (tmp_path / "outputs").exists() or "saved; go on with: segtrain resume=outputs/first" in said
