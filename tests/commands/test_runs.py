"""segtrain runs lists what lies in the folders of runs, whole or damaged."""

import json
import os
import shutil

import pytest
from helpers import refused

from segtrain.commands import env, runs
from segtrain.run.directory import hold


@pytest.fixture
def folder(shared_run, tmp_path, monkeypatch):
    """Return a folder with runs of all kinds."""
    monkeypatch.chdir(tmp_path)
    outputs = tmp_path / "outputs"
    for name in ("finished", "stopped", "failed", "damaged"):
        (outputs / name / "checkpoints").mkdir(parents=True)
        for file in ("config.yaml", "results.json"):
            shutil.copy(shared_run / file, outputs / name)
    (outputs / "stopped" / "results.json").unlink()
    (outputs / "stopped" / "checkpoints" / "last.pt").touch()
    (outputs / "failed" / "results.json").unlink()
    (outputs / "damaged" / "results.json").write_text("{")
    (outputs / "empty").mkdir()
    (outputs / "link").symlink_to(outputs)
    for number, name in enumerate(("stopped", "finished", "failed", "damaged")):
        os.utime(outputs / name / "config.yaml", (10**9 + number, 10**9 + number))
    return outputs


def test_every_run_has_a_row_and_a_state(folder, shared_run, capsys):
    runs.main(["--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["state"]) for row in rows] == [
        ("outputs/damaged", "damaged"), ("outputs/failed", "failed"), ("outputs/finished", "finished"),
        ("outputs/stopped", "stopped")]
    results = json.loads((shared_run / "results.json").read_text())
    assert {name: rows[2][name] for name in ("task", "split", "miou", "epoch")} == {
        "task": "train", "split": "val", "miou": results["miou"], "epoch": results["epoch"]}
    with hold(folder / "stopped"):
        runs.main(["outputs/stopped", "--json"])
    assert json.loads(capsys.readouterr().out)[0]["state"] == "running"


def test_the_table_is_sorted_as_asked(folder, capsys):
    runs.main(["--sort", "miou"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "when", "task", "model", "data", "mIoU", "%", "state"]
    assert lines[2].split()[0] == "outputs/finished"
    assert lines[2].endswith("finished")
    runs.main(["--sort", "run"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == [
        f"outputs/{name}" for name in ("damaged", "failed", "finished", "stopped")]


def test_no_runs_and_no_folder(folder, tmp_path, capsys):
    runs.main(["outputs/empty"])
    assert capsys.readouterr().out == "There is no run in outputs/empty.\n"
    with refused("nowhere is not a folder"):
        runs.main(["nowhere"])


def test_env_names_versions_and_hardware(capsys):
    env.main([])
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("torch  ", "segtrain", "CPU features", "cores"))
