"""A short run of scripts/chaos.py: kills at random moments, and a fault of each kind that takes no second setting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "chaos.py"


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_runs_killed_at_random_moments_end_as_if_nothing_had_been(tmp_path):
    ended = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "runs", "--kills", "2", "--faults", "0", "--variants", "1"],
        capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "; 0 faults" in ended.stdout
