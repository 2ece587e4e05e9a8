"""segtrain --help, TASK --help and models: written from the schema and from conf/."""

import csv
import json
import os
import subprocess
import sys

import pytest
from helpers import CONF, ROOT, refused

from segtrain.commands import encoders, models
from segtrain.commands.help import show_help
from segtrain.config.schema import TASKS, TrainSection


def test_the_help_names_every_command_in_a_screen(segtrain, capsys):
    assert segtrain("--help") == 0
    said = capsys.readouterr().out
    assert {*TASKS, "runs", "models", "env"} <= {line.split()[0] for line in said.splitlines() if line.strip()}
    assert len(said.splitlines()) <= 25
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("task", TASKS)
def test_the_help_of_a_task_lists_its_keys_and_files(capsys, monkeypatch, task):
    monkeypatch.setenv("COLUMNS", "200")
    show_help(["--help", f"task={task}"])
    said = capsys.readouterr().out
    wanted = {f"task.{name}" for name in TASKS[task].model_fields} - {"task.name"}
    if task == "train":
        wanted |= {f"train.{name}" for name in TrainSection.model_fields}
        assert "torchvision/fcn_resnet50" in said
    assert wanted <= {line.split()[0] for line in said.splitlines() if line.strip()}
    assert max(map(len, said.splitlines())) <= 120


@pytest.mark.slow
def test_a_reader_may_close_its_end():
    line = f"{sys.executable} -m segtrain train --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True,
                          env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert done.stdout == "Usage: segtrain train [GROUP=FILE ...] [KEY=VALUE ...]\n0\n"
    assert not done.stderr


def test_models_lists_every_network(capsys):
    models.main(["--json"])
    rows = json.loads(capsys.readouterr().out)
    files = {path.relative_to(CONF / "model").with_suffix("").as_posix() for path in (CONF / "model").rglob("*.yaml")}
    assert {row["model"] for row in rows} == files
    models.main(["pidnet", "--sort", "params"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:5]] == [
        "pidnet_s", "pidnet_m", "pidnet_l"]
    models.main(["--sort", "miou"])
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "fc_densenet121"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "main", lambda arguments: print("encoders", *arguments))
        models.main(["encoders", "timm"])
    assert capsys.readouterr().out == "encoders timm\n"
    with refused("no network is called linkent", "Did you mean 'linknet'?"):
        models.main(["linkent"])


def test_models_and_the_documentation_show_the_same_numbers():
    page, results = ((ROOT / "docs/reference" / name).read_text() for name in ("models.md", "results.md"))
    with (ROOT / "segtrain/commands" / models.NETWORKS).open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    costs = [line.replace(",", "").split("|")[1:] for line in page.split("At 480x360")[1].split("At 640x360")[0]
             .splitlines() if line.startswith("| `")]
    assert len(costs) >= 16
    for name, params, gmacs, latency, _, _, _, training, *_ in ([cell.strip() for cell in row] for row in costs):
        row = rows[name.strip("`")]
        assert (row["params"], float(row["gmacs"]), row["latency_ms"], float(row["train_images_per_second"])) == (
            params, float(gmacs), latency, float(training))
    for name, row in rows.items():
        assert f"{int(row['params']):,}" in page, name
        if row["miou"]:
            assert f"| `{name}` | 100 |" in results
            assert f"| {row['miou']} |" in results


@pytest.mark.slow
def test_parameters_and_operations_are_those_of_the_networks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import network_table
    assert network_table.updated() == network_table.PATH.read_text(), "run python scripts/network_table.py"
