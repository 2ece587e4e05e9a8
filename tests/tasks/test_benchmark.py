"""What a network costs: counted by hand, timed, listed layer by layer, compared in a table."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import mostly_slow
from torch import nn

from segtrain.models.linknet import LinkNet
from segtrain.profiling import MemoryMeter, format_layers, list_layers, measure_cost, time_runs
from segtrain.sweep import leaderboard

CPU = torch.device("cpu")
QUICK = ("task=benchmark", "task.size=[32,64]", "task.batch_size=2", "task.repeats=3", "runtime.threads=1")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def results(folder="run"):
    return json.loads(Path(folder, "results.json").read_text())


# ---- counts


@pytest.mark.parametrize(("layer", "macs", "params"), [
    # outputs of 8x10 pixels, each 3*3*4 products for every one of 6 channels
    (nn.Conv2d(4, 6, 3, padding=1), 8 * 10 * 6 * 36, 6 * 36 + 6),
    (nn.Conv2d(4, 6, 3, padding=1, stride=2, bias=False), 4 * 5 * 6 * 36, 6 * 36),
    (nn.Conv2d(4, 6, 3, padding=2, dilation=2, bias=False), 8 * 10 * 6 * 36, 6 * 36),
    (nn.Conv2d(4, 6, 1, bias=False), 8 * 10 * 6 * 4, 6 * 4),
    (nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), 8 * 10 * 4 * 9, 4 * 9),
    (nn.Conv2d(4, 6, (5, 1), padding=(2, 0), bias=False), 8 * 10 * 6 * 20, 6 * 20),
    # each of 8x10 pixels of 4 channels is spread over a window of 3*3 in 6 channels
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, bias=False), 8 * 10 * 4 * 54, 4 * 54),
    (nn.Linear(10, 7), 4 * 8 * 10 * 7, 77),
    (nn.BatchNorm2d(4), 0, 8),
    (nn.PReLU(4), 0, 4),
    (nn.MaxPool2d(2), 0, 0),
    (nn.Upsample(scale_factor=2), 0, 0),
])
def test_multiply_adds_of_each_kind_of_layer(layer, macs, params):
    network = nn.Sequential(layer, nn.Conv2d(layer(torch.zeros(1, 4, 8, 10)).shape[1], 1, 1, bias=False))
    row, last = list_layers(network, (8, 10), 4)
    assert (row.macs, row.params) == (macs, params)
    assert (row.kind, row.name) == (type(layer).__name__, "0")
    assert row.output_shape == tuple(layer(torch.zeros(1, 4, 8, 10)).shape[1:])
    assert measure_cost(network, (8, 10), 4) == {"params": params + last.params, "macs": macs + last.macs}


def test_the_layers_of_a_network():
    network = LinkNet(12).train()
    network.encoder.bn1.eval()
    rows = list_layers(network, (64, 96), 3)
    assert measure_cost(network, (64, 96), 3) == {
        "params": sum(row.params for row in rows), "macs": sum(row.macs for row in rows)}
    assert (rows[0].name, rows[0].output_shape, rows[0].params) == ("encoder.conv1", (64, 32, 48), 9408)
    assert rows[0].macs == 32 * 48 * 9408
    assert (rows[-1].name, rows[-1].output_shape) == ("head.2", (12, 64, 96))
    assert network.training
    assert not network.encoder.bn1.training
    assert not any(module._forward_hooks for module in network.modules())


def test_a_layer_used_twice_counts_twice():
    conv = nn.Conv2d(4, 4, 1, bias=False)
    row, = list_layers(nn.Sequential(conv, conv), (8, 10), 4)
    assert (row.macs, row.params) == (2 * 8 * 10 * 16, 16)


def test_the_layer_table():
    lines = format_layers(list_layers(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()), (1000, 1000), 3)).splitlines()
    assert lines == [
        "layer  kind    output CxHxW  parameters  MMACs",
        "----------------------------------------------",
        "0      Conv2d  2x1000x1000            8    6.0",
        "1      ReLU    2x1000x1000            0    0.0",
        "----------------------------------------------",
        "sum                                   8    6.0"]


# ---- times and memory


def test_timing_stops_after_the_runs_or_the_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("segtrain.profiling.time.perf_counter", lambda: clock[0])
    runs = []

    def run():
        runs.append(1)
        clock[0] += 1

    assert time_runs(run, CPU, warmup=2, repeats=4, seconds=100) == [1.0] * 4
    assert len(runs) == 6
    assert time_runs(run, CPU, warmup=0, repeats=9, seconds=5) == [1.0] * 5
    assert time_runs(run, CPU, warmup=0, repeats=9, seconds=0.1) == [1.0] * 3, "three at least"
    assert time_runs(run, CPU, warmup=0, repeats=1, seconds=0.1) == [1.0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process's peak memory")
@pytest.mark.slow
def test_peak_memory():
    """The system may count pages of other work of the process, and late: one of three attempts is undisturbed."""
    peaks = []
    for _ in range(3):
        meter = MemoryMeter(CPU)
        meter.reset()
        held = torch.ones(64, 2**18)  # 64 MiB
        torch.ones(128, 2**18)
        first = meter.peak() / 2**20
        meter.reset()
        peaks.append((first, meter.peak() / 2**20))
        assert held[0, 0] == 1
        del held
    assert any(185 < first < 230 and 60 < second < 100 for first, second in peaks), peaks


# ---- the task


@pytest.mark.slow
def test_benchmark(segtrain, capsys):
    assert segtrain(*QUICK, "hydra.run.dir=run", "task.layers=true") == 0
    found = results()
    expected = measure_cost(LinkNet(11), (32, 64), 3)
    assert (found["params"], found["macs"], found["flops"]) == (
        expected["params"], expected["macs"], 2 * expected["macs"])
    assert (found["model"], found["size"], found["batch_size"], found["device"]) == ("LinkNet", [32, 64], 2, "cpu")
    assert (found["precision"], found["compile"], found["channels_last"], found["threads"]) == ("fp32", False, True, 1)
    assert found["latency_p95_ms"] >= found["latency_ms"] > 0
    assert found["latency_runs"] == found["batch_runs"] == found["train_runs"] == 3
    assert found["images_per_second"] > found["train_images_per_second"] > 0
    assert found["train_memory_bytes"] > 4 * 3 * found["params"], "weights, gradients, and what RMSprop keeps"
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert sorted(path.name for path in Path("run").iterdir()) == ["benchmark.log", "config.yaml", "results.json"]
    shown = capsys.readouterr().out
    assert "encoder.layer1.0.conv1" in shown
    assert "parameters  11,534,667" in shown
    assert "GFLOPs at 64x32" in shown


@pytest.mark.slow
def test_benchmark_without_training_in_bf16(segtrain):
    assert segtrain(*QUICK, "hydra.run.dir=run", "task.train=false", "runtime.precision=bf16") == 0
    assert (results()["precision"], results()["layers"]) == ("bf16", None)
    assert results()["latency_ms"] > 0
    assert [results()[f"train_{name}"] for name in ("images_per_second", "runs", "memory_bytes")] == [None] * 3


@pytest.mark.slow
def test_several_networks_in_one_table(segtrain, capsys):
    sweep = ("-m", *QUICK, "model.encoder=resnet34,resnet18,resnet81", "task.train=false", "hydra.sweep.dir=sweep")
    assert segtrain(*sweep) == 2
    table = capsys.readouterr().out.split("leaderboard: ")[-2].splitlines()[-5:-1]
    assert table[0].split() == ["model.encoder", "params", "GMACs", "ms", "ms", "p95", "images/s", "MiB", "train",
                                "img/s", "train", "MiB"]
    assert [line.split()[0] for line in table[1:]] == ["resnet18", "resnet34", "resnet81"]
    assert "Did you mean 'resnet18'" in table[3]
    # the same sweep sorted anew: nothing is measured again
    before = {path: path.stat().st_mtime_ns for path in Path("sweep").rglob("results.json")}
    assert segtrain(*sweep, "task.sort=images_per_second") == 2
    assert {path: path.stat().st_mtime_ns for path in Path("sweep").rglob("results.json")} == before
    with Path("sweep/leaderboard.csv").open() as file:
        speeds = [row["images_per_second"] for row in csv.DictReader(file)]
    assert float(speeds[0]) > float(speeds[1])
    assert speeds[2] == ""


@pytest.mark.slow
def test_the_columns_are_figures_of_the_results(segtrain):
    assert segtrain(*QUICK, "hydra.run.dir=run") == 0
    assert {column.name for column in leaderboard.COSTS} <= results().keys()


@pytest.mark.parametrize(("given", "message"), mostly_slow(3, [
    (("task.size=[3,64]",), "task.size=[3, 64] must be [height, width], each at least 32"),
    (("task.size=64",), "task.size"),
    (("task.repeats=0",), "task.repeats=0 is too small"),
    (("task.siz=[64,64]",), "task.siz is not a key of the configuration. Did you mean 'task.size'"),
    (("task.sort=parms",), "task.sort=parms is not a column of the table"),
    (("dataset=folder",), "give it, dataset.num_classes="),
    (("model.num_classes=0",), "model.num_classes=0: must be at least 1"),
]))
def test_what_is_refused(segtrain, capsys, given, message):
    assert segtrain(*QUICK, *given, "hydra.run.dir=run") == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_the_keys_of_one_task_are_not_those_of_another(segtrain, capsys):
    assert segtrain("task.size=[64,64]", "hydra.run.dir=run") == 2
    assert "task.size is not a key" in capsys.readouterr().err
    assert segtrain("+task.size=[64,64]", "hydra.run.dir=run") == 2
    assert "task.size is not a key" in capsys.readouterr().err
