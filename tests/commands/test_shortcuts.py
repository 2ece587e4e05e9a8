"""What the command line may say in short, written out."""

import os

import pytest
from helpers import refused

from segtrain.commands.shortcuts import expand


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(folder, *files):
    for file in ("config.yaml", *files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


@pytest.mark.parametrize(("given", "expected"), [
    ([], []),
    (["model=unet", "train.epochs=2"], ["model=unet", "train.epochs=2"]),
    (["train", "model=unet"], ["task=train", "model=unet"]),
    (["-m", "benchmark", "model=unet,enet"], ["-m", "task=benchmark", "model=unet,enet"]),
    (["--help"], ["--help"]),
    (["--cfg", "job", "model=unet"], ["--cfg", "job", "model=unet"]),
    (["~scheduler", "model=unet"], ["~scheduler", "model=unet"]),
    (["name=first", "seed=1"], ["seed=1", "hydra.run.dir='outputs/first'"]),
    (["-m", "name=a b", "seed=1,2"], ["-m", "seed=1,2", "hydra.sweep.dir='multirun/a b'"]),
    (["evaluate", "checkpoint=elsewhere.pt"], ["task=evaluate", "checkpoint=elsewhere.pt"]),
])
def test_what_is_said_in_short_is_written_out(given, expected):
    assert expand(given) == expected


def test_a_name_that_is_taken_is_numbered_and_said(here, capsys):
    make_run(here / "outputs" / "first")
    make_run(here / "outputs" / "first-2")
    (here / "outputs" / "first-3").mkdir()  # empty, as a refused run leaves it
    assert expand(["name=first"]) == ["hydra.run.dir='outputs/first-3'"]
    assert "outputs/first is taken: this goes into outputs/first-3" in capsys.readouterr().out


def test_last_is_the_run_that_began_last(here, capsys):
    for number, name in enumerate(("b/c", "a", "newest-but-untrained")):
        folder = make_run(here / "outputs" / name, *(["checkpoints/last.pt", "checkpoints/best.pt"] * (number < 2)))

        os.utime(folder / "config.yaml", (number, number))
    assert expand(["resume=last"]) == ["resume='outputs/a'"]
    assert expand(["task=predict", "checkpoint=last", "hydra.run.dir=x"])[1] == "checkpoint='outputs/a'"
    assert "last: outputs/a" in capsys.readouterr().out
    (here / "last").mkdir()
    assert expand(["resume=last"]) == ["resume=last"], "a folder of that name is meant"


@pytest.mark.parametrize("checkpoint", ["outputs/first", "outputs/first/checkpoints/best.pt"])
def test_what_a_checkpoint_is_used_for_goes_into_its_run(here, checkpoint):
    run = make_run(here / "outputs" / "first", "checkpoints/best.pt")

    def folder(*arguments):
        added = [each for each in expand([*arguments, f"checkpoint={checkpoint}"]) if each not in arguments]
        return [each.removeprefix("hydra.run.dir=").strip("'") for each in added if each.startswith("hydra.run")]

    assert folder("task=evaluate") == ["outputs/first/evaluate-val"]
    assert folder("evaluate", "dataset.split=test") == ["outputs/first/evaluate-test"]
    assert folder("predict") == ["outputs/first/predict"]
    make_run(run / "export")
    assert folder("export") == ["outputs/first/export-2"]
    assert folder("export", "hydra.run.dir=mine") == []
    assert folder("-m", "evaluate", "dataset.split=val,test") == []
    assert folder("model=unet") == [], "a training that starts from a checkpoint is a run of its own"


@pytest.mark.parametrize(("given", "parts"), [
    (["trian"], ["trian is neither", "Did you mean 'train'?"]),
    (["rnus"], ["Did you mean 'runs'?"]),
    (["name=a/b"], ["name=a/b", "hydra.run.dir="]),
    (["name="], ["name= must be"]),
    (["name=a", "hydra.run.dir=b"], ["name=a and hydra.run.dir=b"]),
    (["name=a", "resume=b"], ["name=a and resume=b"]),
    (["resume=last"], ["there is no run with checkpoints/last.pt", "outputs"]),
])
def test_what_cannot_be_meant_is_refused(given, parts):
    with refused(*parts):
        expand(given)
