"""A short run of scripts/chaos.py: kills at random moments, and a fault of each kind that takes no second setting."""

import sys
from pathlib import Path

import pytest
import ranks

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "scripts" / "chaos.py"


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_runs_killed_at_random_moments_end_as_if_nothing_had_been(tmp_path):
    job = ranks.start_script(SCRIPT, str(tmp_path / "runs"), "--kills", "2", "--faults", "0", "--variants", "1",
                             output=tmp_path / "said.txt")
    assert job.wait(500) == [0], job.said(0)
    assert "; 0 faults" in job.said(0)
