"""Training as a user sees it: what a run leaves behind, exact resumes, signals, evaluate equal to train."""

import csv
import io
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import ranks
import torch
import yaml
from helpers import SHARED_RUN, TINY, UNET, mostly_slow, stop_after_step
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtrain.data.camvid import CAMVID
from segtrain.run.loggers import Start
from segtrain.run.loggers.tensorboard import TensorBoard

RESULT_KEYS = {
    "task", "dataset", "split", "num_images", "checkpoint", "loss", "miou", "macc", "pacc", "fwiou", "iiou",
    "iiou_source", "iou_per_class", "acc_per_class", "iiou_per_class", "iou_per_category", "iiou_per_category",
    "category_miou", "category_iiou", "confusion_matrix", "predicted_void", "policy", "inference", "params", "macs",
    "seconds", "images_per_second"}
TIMES = {"train/images_per_second", "train/data_wait"}

SMALL = (*TINY, *UNET)


def read(path):
    return json.loads(path.read_text())


def rows(run_dir):
    """metrics.csv without the columns that are times."""
    with (run_dir / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def events(run_dir):
    """TensorBoard's scalars as (step, value), as its reader shows them after a purge, without the times."""
    accumulator = EventAccumulator(str(run_dir)).Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
            for tag in accumulator.Tags()["scalars"] if tag not in TIMES}


def same_weights(one, other):
    first, second = (torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (one, other))
    for key in ("model", "ema"):
        assert (first[key] is None) == (second[key] is None)
        assert all(torch.equal(first[key][name], second[key][name]) for name in first[key] or {})
    return first["step"] == second["step"] and first["progress"]["best"]["step"] == second["progress"]["best"]["step"]


def resume_and_compare(run_dir, shared_run):
    """Resume a run in another process: it must end as the one that nothing stopped."""
    resumed = ranks.start(run_dir.parent / "said", 1, f"resume={run_dir}")
    assert resumed.wait() == [0], resumed.said(0)
    assert same_weights(shared_run, run_dir)
    assert rows(run_dir) == rows(shared_run)
    assert events(run_dir) == events(shared_run)


def paused(tmp_path, run_dir, step):
    """Start a run in another process and wait until it pauses; return it, and the file that it waits to be gone."""
    mark, deadline = tmp_path / "paused", time.monotonic() + 120
    job = ranks.start(tmp_path / "said", 1, *SHARED_RUN, f"hydra.run.dir='{run_dir}'",
                      at_step=(step, 0, ranks.pause, str(mark)))
    while not mark.exists():
        assert job.processes[0].is_alive(), job.said(0)
        assert time.monotonic() < deadline, "it did not get that far in time"
        time.sleep(0.02)
    return job, mark


def test_run_directory(shared_run):
    results = read(shared_run / "results.json")
    assert set(results) >= RESULT_KEYS
    assert results["task"] == "train"
    assert results["iiou_source"] == "instances"
    assert results["policy"].keys() == {"num_classes", "ignore_index", "resolution", "accumulated_over", "absent_class",
                                        "class_sizes"}
    assert len(results["confusion_matrix"]) == len(results["predicted_void"]) == 11
    assert results["params"] == 122_511  # of that U-Net with 11 classes
    assert Path(results["checkpoint"]) == shared_run / "checkpoints" / "best.pt"

    numbers = rows(shared_run)
    assert [(row["epoch"], row["step"]) for row in numbers] == [("1", "3"), ("2", "6"), ("3", "9"), ("4", "12")]
    best = max(numbers, key=lambda row: float(row["val/miou"]))
    assert float(best["val/miou"]) == results["miou"]
    assert int(best["epoch"]) == results["epoch"]

    saved = yaml.safe_load((shared_run / "config.yaml").read_text())
    assert torch.__version__.startswith(saved["versions"]["torch"])
    assert saved["runtime"]["device"] != "auto"
    assert saved["model"]["num_classes"] == 11
    assert "epoch 4/4" in (shared_run / "train.log").read_text()
    assert "\r" not in (shared_run / "train.log").read_text()


def test_tensorboard(shared_run):
    accumulator = EventAccumulator(str(shared_run)).Reload()
    tags = accumulator.Tags()
    expected = {"train/loss", "train/lr", "train/images_per_second", "train/data_wait", "val/loss", "val/miou",
                "val/iiou", "val/macc", "val/iou/Car", "val/iou/Sky", "best/miou"}
    assert expected <= set(tags["scalars"])
    assert {"val/confusion_matrix", "val/examples"} <= set(tags["images"])
    assert all(len(accumulator.Scalars(tag)) == 4 for tag in tags["scalars"]), "no card of one point"
    assert {event.step: event.value for event in accumulator.Scalars("val/miou")} == pytest.approx(
        {int(row["step"]): float(row["val/miou"]) for row in rows(shared_run)})


def test_tensorboard_shows_the_same_images_with_a_legend_after_every_validation_and_the_config(shared_run):
    accumulator = EventAccumulator(str(shared_run), size_guidance={"images": 0}).Reload()
    shown = accumulator.Images("val/examples")
    assert [event.step for event in shown] == [int(row["step"]) for row in rows(shared_run)]
    sheets = [np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in shown]
    heading, column = 17, 48 + 4  # 32 x 48 pixels an image: input, target, prediction, then the legend
    for sheet in sheets:
        for top in (heading, heading + 32 + 4, heading + 2 * (32 + 4)):
            same = np.s_[top:top + 32, :2 * column]
            assert np.array_equal(sheet[same], sheets[0][same])
        colors = {tuple(color) for color in sheet[heading + 3 * (32 + 4):].reshape(-1, 3).tolist()}
        assert {label.color for label in CAMVID} <= colors
    (told,) = accumulator.Tensors("config/text_summary")
    (text,) = told.tensor_proto.string_val
    lines = text.decode().splitlines()
    assert all(line.startswith("    ") for line in lines)  # Markdown's form of what is shown as it is
    assert "\n".join(line[4:] for line in lines) == (shared_run / "config.yaml").read_text().rstrip("\n")


@pytest.mark.parametrize("names", [("first",), ("optim=adam", "optim=sgd")])
def test_tensorboard_compares_runs_by_what_they_differ_in_and_by_their_best_scores(tmp_path, names):
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    for number, name in enumerate(names):
        common = {"seed": 0, "augmentation": [], "scheduler": {}, "loss": {}, "train": {"epochs": 3}}
        chosen = {"_target_": f"torch.optim.{name}", "lr": 0.1 + number, **({"momentum": 0.9} if number else {})}
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("")
        logger = TensorBoard()
        logger.start(Start(tmp_path / name, {**common, "optim": chosen}, 0, None, None))
        for step, score in ((1, 0.2), (7, 0.5)):
            logger.scalars({"best/miou": score, "train/loss": 1.0, "val/miou": 0.1}, step)
        logger.finish({"miou": 0.5}, tmp_path)
        logger.close()
    events = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(events, str(tmp_path))
    table, request = Context(TBContext(data_provider=provider)), RequestContext()
    columns = table.experiment_from_metadata(request, "", True, table.hparams_metadata(request, ""), None)
    assert {each.name for each in columns.hparam_infos} == {
        "augmentation", "optim", "optim.lr", "seed", "train.epochs", *(["optim.momentum"] if names[1:] else [])}
    differing = {each.name for each in columns.hparam_infos if each.differs}
    assert differing == ({"optim", "optim.lr"} if names[1:] else set())
    assert columns.metric_infos[0].name.tag == "best/miou"


def test_warm_up_and_schedule_reach_the_optimizer(shared_run):
    rates = [float(row["train/lr"]) for row in rows(shared_run)]
    assert rates == pytest.approx([5e-4 * (1 - step / 12) ** 0.9 for step in (3, 6, 9, 12)])


def test_checkpoint_is_plain(shared_run):
    for name in ("last.pt", "best.pt"):
        state = torch.load(shared_run / "checkpoints" / name, weights_only=True)
        assert {"model", "optimizer", "scheduler", "scaler", "ema", "epoch", "step", "rng", "config", "class_sizes",
                "format"} <= set(state)
        assert type(state["config"]) is dict
    assert set(state["class_sizes"]) == {"Car", "Pedestrian", "Bicyclist", "SignSymbol"}


def test_best_holds_the_average(shared_run):
    last = torch.load(shared_run / "checkpoints" / "last.pt", weights_only=True)
    name = "decoder.0.0.0.weight" if "decoder.0.0.0.weight" in last["model"] else next(iter(last["model"]))
    assert not torch.equal(last["model"][name], last["ema"][name])
    if last["progress"]["best"]["epoch"] == last["epoch"]:
        best = torch.load(shared_run / "checkpoints" / "best.pt", weights_only=True)
        assert torch.equal(best["model"][name], last["ema"][name])


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed_is_bit_identical(shared_run, tmp_path):
    run_dir = tmp_path / "killed run"  # a name with a space
    job, _ = paused(tmp_path, run_dir, step=16)
    job.processes[0].kill()
    assert job.wait() == [-signal.SIGKILL], job.said(0)
    metrics = run_dir / "metrics.csv"
    assert len(metrics.read_text().splitlines()) == 3, "it was not in the third epoch"
    assert not (run_dir / "results.json").exists()
    # what a crash may leave behind: a row of an epoch whose checkpoint was never written
    with metrics.open("a") as file:
        file.write("4,12," + ",".join(["0.5"] * 19) + "\n4,12,0.")
    resume_and_compare(run_dir, shared_run)
    first, second = read(run_dir / "results.json"), read(shared_run / "results.json")
    for varying in ("seconds", "images_per_second", "checkpoint"):
        first.pop(varying), second.pop(varying)
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_within_a_step_and_resume_exactly(shared_run, tmp_path, signum, code):
    run_dir = tmp_path / "stopped"
    job, mark = paused(tmp_path, run_dir, step=9)
    os.kill(job.processes[0].pid, signum)
    mark.unlink()
    assert job.wait() == [code], job.said(0)
    assert f"segtrain resume={run_dir}" in job.said(0)
    assert not (run_dir / "results.json").exists()
    resume_and_compare(run_dir, shared_run)


@pytest.mark.slow
def test_a_stop_between_steps_of_an_epoch_is_exact(segtrain, shared_run, tmp_path, monkeypatch):
    """The signal comes after the second of an epoch's three steps: the resume starts with the third."""
    run_dir = tmp_path / "run"
    stop_after_step(monkeypatch, 5)
    assert segtrain(*SHARED_RUN, f"hydra.run.dir={run_dir}") == 143
    assert torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)["step"] == 5
    assert segtrain(f"resume={run_dir}") == 0
    assert same_weights(shared_run, run_dir)
    assert rows(run_dir) == rows(shared_run)


@pytest.mark.slow
def test_a_stop_in_the_validation_is_exact(segtrain, shared_run, tmp_path, monkeypatch):
    from segtrain.tasks import train

    run_dir, stops = tmp_path / "run", []
    original = train.score_split

    def stop_in_it(*args, after_batch, **kwargs):
        if not stops:
            stops.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, after_batch=after_batch, **kwargs)

    monkeypatch.setattr(train, "score_split", stop_in_it)
    assert segtrain(*SHARED_RUN, f"hydra.run.dir={run_dir}") == 143
    assert segtrain(f"resume={run_dir}") == 0
    assert same_weights(shared_run, run_dir)
    assert rows(run_dir) == rows(shared_run)


@pytest.mark.slow
def test_resume_before_the_first_checkpoint(segtrain, shared_run, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text((shared_run / "config.yaml").read_text())
    assert segtrain(f"resume={run_dir}") == 0
    assert same_weights(shared_run, run_dir)


def test_resume_of_a_finished_run_changes_nothing(segtrain, shared_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in shared_run.rglob("*")}
    assert segtrain(f"resume={shared_run}") == 0
    assert "finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in shared_run.rglob("*")} == before


def test_a_change_on_resume_is_logged(segtrain, shared_run, tmp_path):
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv", "checkpoints/last.pt"):
        (run_dir / name).write_bytes((shared_run / name).read_bytes())
    assert segtrain(f"resume={run_dir}", "train.epochs=5") == 0
    log = (run_dir / "train.log").read_text()
    assert "train.epochs 4 -> 5" in log
    assert "no longer bit-identical" in log
    assert [row["epoch"] for row in rows(run_dir)] == ["1", "2", "3", "4", "5"]


@pytest.mark.slow
def test_evaluate_equals_training(segtrain, shared_run, tmp_path):
    run_dir = tmp_path / "evaluated"
    assert segtrain("task=evaluate", f"checkpoint={shared_run}", f"hydra.run.dir={run_dir}", "runtime.threads=1") == 0
    trained, evaluated = read(shared_run / "results.json"), read(run_dir / "results.json")
    assert evaluated["task"] == "evaluate"
    assert sum(trained.pop("drawn_shares").values()) == pytest.approx(1)
    for varying in ("task", "seconds", "images_per_second"):
        trained.pop(varying), evaluated.pop(varying)
    assert {key: evaluated[key] for key in trained} == trained


@pytest.mark.slow
def test_evaluate_takes_overrides_on_top(segtrain, shared_run, tmp_path):
    checkpoint = shared_run / "checkpoints" / "best.pt"
    assert segtrain("task=evaluate", f"checkpoint={checkpoint}", f"hydra.run.dir={tmp_path / 'a'}",
                    "dataset.num_val=2", "dataset.instances=null") == 0
    results = read(tmp_path / "a" / "results.json")
    assert results["num_images"] == 2
    assert results["iiou"] is results["iiou_per_class"] is results["iiou_source"] is None
    assert segtrain("task=evaluate", f"checkpoint={checkpoint}", f"hydra.run.dir={tmp_path / 'b'}",
                    "dataset.split=train") == 0
    assert read(tmp_path / "b" / "results.json")["num_images"] == 12


@pytest.mark.slow
def test_the_score_does_not_depend_on_the_batch_size(segtrain, shared_run, tmp_path):
    found = []
    for size in (1, 3):
        run_dir = tmp_path / str(size)
        assert segtrain("task=evaluate", f"checkpoint={shared_run}", f"hydra.run.dir={run_dir}",
                        f"train.batch_size={size}") == 0
        found.append(read(run_dir / "results.json"))
    assert found[0]["confusion_matrix"] == found[1]["confusion_matrix"]
    assert found[0]["iiou"] == found[1]["iiou"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)


def test_iiou_from_components(segtrain, tmp_path):
    assert segtrain(*SMALL, "debug=smoke", "dataset.instances=components", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert read(tmp_path / "run" / "results.json")["iiou_source"] == "components"


# ---- ends of a run


def test_max_steps(segtrain, tmp_path):
    assert segtrain(*SMALL, "train.max_steps=3", "train.epochs=9", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == ["2", "3"]
    assert read(tmp_path / "run" / "results.json")["step"] <= 3


def test_max_minutes(segtrain, tmp_path):
    assert segtrain(*SMALL, "train.max_minutes=1e-6", "train.epochs=50", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert len(rows(tmp_path / "run")) == 1


def test_patience(segtrain, tmp_path):
    assert segtrain(*SMALL, "train.patience=1", "train.epochs=50", "train.monitor=loss", "optim.lr=1e-12",
                    "train.ema_decay=0.999999999", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert len(rows(tmp_path / "run")) < 50


@pytest.mark.slow
def test_val_every_leaves_cells_empty_and_validates_the_last(segtrain, tmp_path):
    assert segtrain(*SMALL, "train.val_every=2", "train.epochs=3", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert [row["val/miou"] != "" for row in rows(tmp_path / "run")] == [False, True, True]


def test_best_by_loss_is_the_smallest(segtrain, tmp_path):
    assert segtrain(*SMALL, "train.monitor=loss", "train.epochs=3", f"hydra.run.dir={tmp_path / 'run'}") == 0
    losses = [float(row["val/loss"]) for row in rows(tmp_path / "run")]
    assert read(tmp_path / "run" / "results.json")["loss"] == min(losses)


@pytest.mark.slow
def test_one_image_is_learnt_by_heart(segtrain, tmp_path):
    assert segtrain(*SMALL, "debug=overfit", "dataset.crop=[32,48]", "optim=adam", "optim.lr=5e-2", "train.epochs=60",
                    "train.val_every=60", "train.save_every=60", "train.batch_size=1",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0
    losses = [float(row["train/loss"]) for row in rows(tmp_path / "run")]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.slow
def test_seeds(segtrain, tmp_path):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert segtrain(*SMALL, "debug=smoke", f"seed={seed}", f"hydra.run.dir={tmp_path / name}") == 0
        weights.append(torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["model"])
    first = next(iter(weights[0]))
    assert torch.equal(weights[0][first], weights[1][first])
    assert not torch.equal(weights[0][first], weights[2][first])


# ---- starting from weights


def folder_of_two_classes(root):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{number}.jpg")
            Image.fromarray(image[..., 0] // 128).save(root / split / "masks" / f"{number}.png")
    (root / "classes.csv").write_text("name\nbackground\nthing\n")
    return ("dataset=folder", f"dataset.root={root}", "dataset.crop=[32,32]", "train.batch_size=2",
            "runtime.workers=0", "train.report=false", "debug=smoke")


def test_new_head(segtrain, shared_run, tmp_path, capsys):
    folder = folder_of_two_classes(tmp_path / "data")
    assert segtrain(*folder, *UNET, f"checkpoint={shared_run}", f"hydra.run.dir={tmp_path / 'refused'}") == 2
    assert "train.new_head=true" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    assert segtrain(*folder, *UNET, f"checkpoint={shared_run}", "train.new_head=true", "optim.lr=1e-12",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0
    log = (tmp_path / "run" / "train.log").read_text()
    assert "head" in log  # what was left out is listed
    started = torch.load(shared_run / "checkpoints" / "best.pt", weights_only=True)["model"]
    new = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["model"]
    differing = [key for key in new if new[key].shape != started[key].shape]
    assert differing
    assert all(key.startswith("head") for key in differing)
    assert torch.allclose(new["encoder.conv1.weight"] if "encoder.conv1.weight" in new else next(iter(new.values())),
                          started["encoder.conv1.weight"] if "encoder.conv1.weight" in new
                          else next(iter(started.values())), atol=1e-9)


def test_checkpoint_starts_a_new_run(segtrain, shared_run, tmp_path):
    assert segtrain(*SMALL, "debug=smoke", "optim.lr=1e-12", f"checkpoint={shared_run}",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0
    results = read(tmp_path / "run" / "results.json")
    assert results["step"] == 1
    assert results["miou"] == pytest.approx(read(shared_run / "results.json")["miou"], abs=0.05)


# ---- bad input


def damaged(path, shared_run, how):
    good = shared_run / "checkpoints" / "best.pt"
    if how == "missing":
        return path
    if how == "text":
        path.write_text("not a checkpoint")
    elif how == "truncated":
        path.write_bytes(good.read_bytes()[:100_000])
    elif how == "foreign":
        torch.save({"state_dict": {}}, path)
    elif how == "pickle":
        torch.save({"format": "segtrain-1", "payload": Path()}, path)
    return path


@pytest.mark.parametrize("how", mostly_slow(3, ["missing", "text", "truncated", "foreign", "pickle"]))
@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_wrong_checkpoints_are_refused(segtrain, shared_run, tmp_path, capsys, how, task):
    path = damaged(tmp_path / "x.pt", shared_run, how)
    assert segtrain(*TINY, f"task={task}", f"checkpoint={path}", f"hydra.run.dir={tmp_path / 'run'}") == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_checkpoint_of_another_model_is_refused(segtrain, shared_run, tmp_path, capsys):
    assert segtrain(*TINY, "model.encoder=resnet34", f"checkpoint={shared_run}",
                    f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "another model" in capsys.readouterr().err


def test_evaluate_needs_a_checkpoint(segtrain, tmp_path, capsys):
    assert segtrain("task=evaluate", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "checkpoint=" in capsys.readouterr().err


@pytest.mark.parametrize(("override", "named"), [
    ("train.batch_size=6", "train.batch_size"),
    ("train.num_images=9", "train.num_images"),
    ("train.new_head=true", "train.new_head"),
    ("dataset.num_classes=5", "dataset.num_classes"),
    ("model.in_channels=1", "model.in_channels"),
    ("model.pretrained=/nowhere.pth", "/nowhere.pth"),
])
def test_impossible_options_are_refused(segtrain, tmp_path, capsys, override, named):
    assert segtrain(*TINY, override, f"hydra.run.dir={tmp_path / 'date' / 'run'}") == 2
    message = capsys.readouterr().err
    assert named in message
    assert "Traceback" not in message
    assert not (tmp_path / "date").exists()


def test_one_value_a_channel_is_explained(segtrain, tmp_path, capsys):
    assert segtrain(*TINY, "train.batch_size=1", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "train.batch_size" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(segtrain, tmp_path, capsys):
    assert segtrain(*TINY, "optim=sgd", "optim.lr=1e20", "train.epochs=5", f"hydra.run.dir={tmp_path / 'run'}") == 2
    message = capsys.readouterr().err
    assert "optim.lr" in message
    assert "street_train_" in message
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_validation_loss_that_is_not_finite_stops_the_run(segtrain, tmp_path, capsys):
    """The only training step is finite, what it makes of the weights is not."""
    assert segtrain(*TINY, "debug=smoke", "optim=adam", "optim.lr=1e3", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "the loss over 3 images is nan: the network has diverged" in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_full_disk_is_explained(segtrain, tmp_path, capsys, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert segtrain(*SMALL, "debug=smoke", f"hydra.run.dir={tmp_path / 'run'}") == 2
    message = capsys.readouterr().err
    assert "No space left" in message
    assert "Traceback" not in message
