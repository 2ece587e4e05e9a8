"""Files of runs and sweeps, changed at random: what reads them ends well or refuses them, and never fails otherwise."""

import copy
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import yaml
from helpers import segtrain_exits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segtrain.config.saved import read_config
from segtrain.data.label_files import read_marker
from segtrain.errors import UserError
from segtrain.run import checkpoint
from segtrain.run.checkpoint_schema import check_resumable
from segtrain.run.results import RESULTS, check_scores, read_results
from segtrain.run.trackers import read_metrics
from segtrain.run.trained import read_classes
from segtrain.sweep import leaderboard, table

pytestmark = pytest.mark.slow
CASES = int(os.environ.get("MUTATIONS", "0"))  # for a longer search: MUTATIONS=2000 make test-all
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
VALUES = (None, True, 0, -1, 1, 7, 255, 2**31, 2**70, 10**400, 0.5, -0.5, 1e308, math.inf, math.nan, "", "x", "1",
          "<b>&\x1b[2J\udcff", "../..", "/", "x" * 5000, [], [1], ["x"], [[]], [None] * 300, [0] * 3000, {}, {"x": 1},
          {"": {}}, {"_target_": "os.system"}, "${oc.env:HOME}")
TENSORS = (torch.tensor(math.nan), torch.zeros(0), torch.zeros(3, 3), torch.zeros(2, dtype=torch.int64),
           torch.ones(2, 2).to_sparse(), torch.zeros(2, dtype=torch.complex64), torch.full((4,), math.inf),
           torch.zeros(1, dtype=torch.bool))
BYTES = ("cut", "flip", "insert", "lines")
WAYS = (*["replace"] * 4, *["remove"] * 2, "rename", "wrap", "double", "tensor", *BYTES)
FORMATS = {".json": (json.loads, json.dumps), ".yaml": (yaml.safe_load, yaml.safe_dump)}


def list_places(node, place=()):
    """Return where the values of a tree stand, as tuples of keys."""
    inner = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    return [place, *(found for key, value in inner for found in list_places(value, (*place, key)))]


def change(tree, number, how, value):
    """Return a copy of a tree in which one value is replaced, removed, wrapped, doubled, or given another key."""
    places = list_places(tree)
    place = places[number % len(places)]
    if not place:
        return value if how == "replace" else [tree] if how == "wrap" else tree
    tree = copy.deepcopy(tree)
    node = tree
    for key in place[:-1]:
        if isinstance(node[key], tuple):
            node[key] = list(node[key])
        node = node[key]
    key = place[-1]
    if how == "remove":
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        node[value if isinstance(value, int | str) else "renamed"] = node.pop(key)
    elif how == "wrap":
        node[key] = [node[key]]
    elif how == "double" and isinstance(node[key], list | str):
        node[key] = node[key] * 2
    elif how == "tensor" and isinstance(node[key], torch.Tensor):
        old = node[key]
        node[key] = (old.flatten()[:-1], old.double() * math.nan, old.to_sparse() if old.ndim else old, old[None],
                     old.to(torch.int16), old * 0 - 1)[number % 6]
    else:
        node[key] = value
    return tree


@st.composite
def mutations(draw, names):
    """Draw which file is changed and how: its values, or its bytes."""
    return (draw(st.sampled_from(names)), draw(st.sampled_from(WAYS)), draw(st.integers(0, 10**6)),
            draw(st.sampled_from(VALUES + TENSORS)))


def mutate(path, how, number, value):
    """Change a file; return whether it could be done."""
    data = path.read_bytes()
    if how in BYTES:
        place = number % len(data)
        before, byte, after = data[:place], data[place] ^ 1 << number % 8, data[place + 1:]
        path.write_bytes({"cut": before, "flip": before + bytes([byte]) + after,
                          "insert": before + (b"\xff\x00", b"9" * 500, b"[" * 5000, b"\n")[number % 4] + after,
                          "lines": b"\n".join(sorted(data.split(b"\n"))) * 2}[how])
        return True
    try:
        if path.suffix == ".pt":
            torch.save(change(torch.load(path, weights_only=True), number, how, value), path)
        elif path.suffix in FORMATS and not isinstance(value, torch.Tensor):
            read, write = FORMATS[path.suffix]
            path.write_text(write(change(read(path.read_text()), number, how, value)))
        elif path.suffix == ".csv":
            lines = [line.split(",") for line in path.read_text().splitlines()]
            cells = lines[number % len(lines)]
            cells[number // 7 % len(cells)] = str(value)[:300].replace("\udcff", "")
            path.write_text("\n".join(map(",".join, lines)))
        else:
            return False
    except (yaml.YAMLError, ValueError, TypeError, OverflowError):  # what is not written is not read either
        path.write_bytes(data)
        return False
    return True


@pytest.fixture(scope="module")
def made(shared_run, tmp_path_factory):
    """A folder with a run, an evaluation of it, predictions, and a sweep of two evaluations."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(shared_run, root / "run")
    assert segtrain_exits("task=evaluate", f"checkpoint={root / 'run'}", "task.worst=1",
                          f"hydra.run.dir={root / 'evaluated'}") == 0
    for number in (0, 1):
        job = root / "sweep" / f"seed={number}"
        shutil.copytree(root / "evaluated", job)
        leaderboard.update(root / "sweep", job, "evaluate", [f"seed={number}", "task=evaluate"])
    leaderboard.update(root / "sweep", root / "sweep/x", "train", ["seed=3"], error="failed")
    (root / "predicted_by.json").write_text(json.dumps({
        "file_format": 1, "checkpoint": "a.pt", "sha256": "00", "input": "x", "inference": {}, "classes": [
            {"name": "a", "value": 0, "color": [0, 0, 0]}, {"name": "b", "value": 1, "color": [1, 1, 1]}]}))
    return root


def read_checkpoint(path):
    saved = checkpoint.load(path)
    read_classes(saved, path)
    check_resumable(saved, path)


READERS = {
    "run/results.json": lambda path: check_scores(read_results(path, with_scores=True), path),
    "run/config.yaml": read_config,
    "run/metrics.csv": read_metrics,
    "run/checkpoints/last.pt": read_checkpoint,
    "sweep/leaderboard.json": lambda path: table.format_leaderboard(path.parent),
    "predicted_by.json": read_marker,
}


@settings(max_examples=CASES or 60, derandomize=not CASES, **QUIET)
@given(mutation=mutations(list(READERS)))
def test_a_changed_file_is_read_or_refused(made, mutation):
    name, how, number, value = mutation
    path = made / name
    data = path.read_bytes()
    try:
        if mutate(path, how, number, value):
            READERS[name](path)
    except UserError as error:
        message = str(error)
    else:
        message = path.name
    finally:
        path.write_bytes(data)
    assert path.name in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["run/metrics.csv", "sweep/seed=0/results.json", "predicted_by.json"])
def test_a_file_cut_short_anywhere_is_read_or_refused(made, name):
    path = made / name
    data = path.read_bytes()
    read = {"metrics.csv": read_metrics, RESULTS: read_results, "predicted_by.json": read_marker}[path.name]
    refused = 0
    for length in range(0, len(data), 1 if CASES else 3):
        path.write_bytes(data[:length])
        try:
            read(path)
        except UserError:
            refused += 1
    path.write_bytes(data)
    assert refused == 0 if path.suffix == ".csv" else refused > len(data) // 3 - 2


COMMANDS = {
    "report": (["run/results.json", "run/config.yaml", "run/metrics.csv", "run/checkpoints/best.pt", "run/train.log",
                "run/images.json"],
               ["task=report", "task.run=run", "task.evaluation=evaluated", "hydra.run.dir=reported"]),
    "resume": (["run/config.yaml", "run/metrics.csv", "run/checkpoints/last.pt", "run/checkpoints/last.pt",
                "run/checkpoints/last.pt", "run/results.json"],
               ["resume=run", "train.epochs=5", "train.examples=0"]),
    "evaluate": (["run/checkpoints/best.pt"],
                 ["task=evaluate", "checkpoint=run", "task.worst=0", "hydra.run.dir=again"]),
    "sweep": (["sweep/leaderboard.json", "sweep/seed=0/results.json", "sweep/seed=1/config.yaml"],
              ["task=report", "task.run=sweep", "task.jobs=true", "hydra.run.dir=reported"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@settings(max_examples=CASES or 12, derandomize=not CASES, **QUIET)
@given(drawn=st.data())
def test_a_command_ends_well_or_refuses_a_changed_file(made, tmp_path_factory, command, drawn):
    names, arguments = COMMANDS[command]
    name, how, number, value = drawn.draw(mutations(names))
    work = tmp_path_factory.mktemp("work")
    try:
        for part in ("run", "evaluated", "sweep"):
            shutil.copytree(made / part, work / part)
        if command == "resume" and name != "run/results.json":
            (work / "run/results.json").unlink()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(work)
            if mutate(Path(name), how, number, value):
                assert segtrain_exits(*arguments) in (0, 2)
    finally:
        shutil.rmtree(work)
