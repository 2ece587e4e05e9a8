"""The command line: what it refuses and how, its exit codes, and where a run may go."""

import ast
import errno
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, UNET, composed, mostly_slow, stop_after_step
from PIL import Image

from segtrain import cli
from segtrain.config import build
from segtrain.config.arguments import prepare_arguments
from segtrain.config.saved import config_of, read_config
from segtrain.errors import Stopped, UserError
from segtrain.report import run_page
from segtrain.run import checkpoint
from segtrain.run.results import write_config, write_results
from segtrain.tasks import evaluate, train
from segtrain.terminal import shell

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def task(monkeypatch, run):
    """Let another function be the task."""
    monkeypatch.setattr(train, "run", run)


def raising(error):
    def run(cfg, run_dir):
        raise error
    return run


def left():
    return sorted(str(path) for path in Path().rglob("*"))


def refused(capsys):
    """Return the one line that the user sees."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "To append" not in error
    assert re.fullmatch(r"segtrain: [^\n]+\n", error), error
    return error


# ---- what is refused


@pytest.mark.parametrize(("override", "said"), mostly_slow(10, [
    ("sed=3", "sed is not a key of the configuration. Did you mean 'seed'?"),
    ("+sed=3", "sed is not a key of the configuration. Did you mean 'seed'?"),
    ("epochs=3", "epochs is not a key of the configuration. Did you mean 'train.epochs'?"),
    ("trian.epochs=3", "trian.epochs is not a key of the configuration. Did you mean 'train.epochs'?"),
    ("train.epocs=3", "train.epocs is not a key of the configuration. Did you mean 'train.epochs'?"),
    ("++train.epocs=3", "train.epocs is not a key of the configuration. Did you mean 'train.epochs'?"),
    ("optim.lrr=3", "optim.lrr is not a key of the configuration. Did you mean 'optim.lr'?"),
    ("augmentation.crop.hight=3", "Did you mean 'augmentation.crop.height'?"),
    ("augmentation.flp.p=3", "Did you mean 'augmentation.flip.p'?"),
    ("modl=linknet", "modl is not a key of the configuration. Did you mean 'model'?"),
    ("model=linkent", "Did you mean 'linknet'?"),
    ("optim=adm", "optim is one of adam, adamw, rmsprop, sgd. Did you mean 'adam'?"),
    ("+debug=smok", "Did you mean 'smoke'?"),
    ("model=null", "a group was given what is not the name of one of its files"),
    ("train.epochs=abc", "train.epochs=abc has the wrong type: it must be a whole number."),
    ("++train.epochs=abc", "train.epochs=abc has the wrong type"),
    ("train.epochs=1.5", "train.epochs=1.5 has the wrong type"),
    ("train.epochs=null", "train.epochs=null has the wrong type: it must be a whole number."),
    ("train.epochs=", "train.epochs= has the wrong type"),
    ("+train.epochs=3", "train.epochs is there already: write it without the plus"),
    ("train=3", "train has the wrong type: it is a section, set its values one by one"),
    ("~train.epochs", "train.epochs has no value: give it one"),
    ("~seed", "seed has no value: give it one, seed=..."),
    ("~nothing", "nothing is not a key of the configuration."),
    ("train.epochs=[1", "train.epochs=[1 cannot be read"),
    ("checkpoint=a=b", "a=b does not exist"),
    ("train.epochs", "train.epochs is not an override: write key=value"),
    ("=3", "segtrain: "),
    ("train.epochs=1,2", "train.epochs=1,2 are several values: add -m"),
    ("train.epochs=${nothing}", "train.epochs: Interpolation key 'nothing' not found"),
    ("model@other=linknet", "model@other is not a key of the configuration. Did you mean 'model'?"),
    ("runtime.trusted=mine", "runtime.trusted=mine has the wrong type: it must be a list"),
    ("hydra.job.chd=true", "hydra.job.chd is not a key of the configuration."),
    ("hydra.run.dir=${nothing}", "hydra.run.dir: Interpolation key 'nothing' not found"),
    ("train.monitor=iiou dataset.instances=null", "train.monitor=iiou needs instances"),
    ("runtime.device=foo", "runtime.device=foo is not available here"),
    ("+optim.lrr=3", "optim.lrr is not an argument of torch.optim.RMSprop. Did you mean 'lr'?"),
    ("optim.lr=fast", "optim.lr=fast has the wrong type"),
    ("+resume=x", "resume= is for the command line of a single run"),
    ("resume=", "resume= is not a directory"),
    ("resume=nowhere", "resume=nowhere is not a directory"),
]))
def test_refused(segtrain, capsys, override, said):
    assert segtrain(*override.split(), *TINY) == 2
    assert said in refused(capsys)
    assert not left()


@pytest.mark.parametrize(("text", "said"), [
    ("train:\n  epocs: 3\n", "train.epocs is not a key of the configuration. Did you mean 'train.epochs'?"),
    ("train:\n  epochs: abc\n", "train.epochs=abc has the wrong type"),
    ("sed: 1\n", "sed is not a key of the configuration. Did you mean 'seed'?"),
    ("optim:\n  lrr: 1\n", "optim.lrr is not an argument of torch.optim.RMSprop. Did you mean 'lr'?"),
    ("train: [1\n", "a config file is not valid YAML"),
    ("defaults:\n  - override /model: linkent\n", "model=linkent does not exist"),
])
def test_refused_in_a_file(segtrain, capsys, tmp_path, text, said):
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mine.yaml").write_text(f"# @package _global_\n{text}")
    assert segtrain("experiment=mine", *TINY, "--config-dir", "own") == 2
    assert said in refused(capsys)
    assert left() == ["own", "own/experiment", "own/experiment/mine.yaml"]


def test_a_config_folder_that_is_not_there(segtrain, capsys, tmp_path):
    assert segtrain("--config-dir", "nowhere") == 2
    assert str(tmp_path / "nowhere") in refused(capsys)


def test_own_code_from_the_current_folder(segtrain, tmp_path, monkeypatch):
    Path("own/model").mkdir(parents=True)
    Path("own/model/mine.yaml").write_text("_target_: nearby_module.make\nnum_classes: ${dataset.num_classes}\n")
    Path("nearby_module.py").write_text("import torch\n\n\ndef make(num_classes):\n"
                                        "    return torch.nn.Conv2d(3, num_classes, 1)\n")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    built = []

    def run(cfg, run_dir):
        built.append(build.model(cfg))
        write_config(run_dir, cfg)

    task(monkeypatch, run)
    assert segtrain("model=mine", "hydra.run.dir=run", "--config-dir", "own") == 0
    # what a run directory names is built again only if its owner says so
    assert segtrain("resume=run") == 2
    assert segtrain("resume=run", "runtime.trusted=[nearby_module]") == 0
    assert [network.out_channels for network in built] == [11, 11]


def test_several_processes_need_torchruns_whole_environment(segtrain, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert segtrain() == 2
    assert "start several processes with torchrun, or unset WORLD_SIZE" in refused(capsys)
    assert not left()


# ---- exit codes


@pytest.mark.parametrize(("error", "said"), [
    (UserError("mend this"), "mend this"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied"),
    (MemoryError(), "train.batch_size"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "train.batch_size"),
    (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "), "runtime.workers"),
])
def test_the_users_to_mend_exits_2(segtrain, capsys, monkeypatch, error, said):
    task(monkeypatch, raising(error))
    assert segtrain() == 2
    assert said in refused(capsys)
    assert not left()


def test_a_state_worth_keeping_is_kept(segtrain, capsys, monkeypatch):
    def run(cfg, run_dir):
        (run_dir / "checkpoints").mkdir()
        (run_dir / "checkpoints/last.pt").touch()
        raise UserError("the loss is nan")

    task(monkeypatch, run)
    assert segtrain("hydra.run.dir=run") == 2
    assert "the loss is nan" in refused(capsys)
    assert "ERROR the loss is nan" in Path("run/train.log").read_text()
    assert Path("run/checkpoints/last.pt").exists()


@pytest.mark.parametrize(("error", "code"), [(Stopped(15), 143), (Stopped(2), 130), (KeyboardInterrupt(), 130)])
def test_stopped(segtrain, monkeypatch, capsys, error, code):
    task(monkeypatch, raising(error))
    assert segtrain() == code
    if isinstance(error, KeyboardInterrupt):
        assert "the same command starts it again" in capsys.readouterr().err
        assert not left()


def test_a_stop_that_leaves_something_says_how_to_go_on(segtrain, monkeypatch, capsys):
    def run(cfg, run_dir):
        write_config(run_dir, cfg)
        (run_dir / "predictions").mkdir()
        (run_dir / "predictions/a.png").touch()
        raise KeyboardInterrupt

    task(monkeypatch, run)
    assert segtrain("hydra.run.dir=a run") == 130
    (command,) = re.findall("go on with: (.*)", capsys.readouterr().err)
    task(monkeypatch, lambda cfg, run_dir: None)
    assert segtrain(*shlex.split(command)[1:]) == 0


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), ValueError("ours"), FileNotFoundError("ours")])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    task(monkeypatch, raising(error))
    monkeypatch.setattr(sys, "argv", ["segtrain", "hydra.run.dir=run"])
    with pytest.raises(type(error), match="ours"):
        cli.main()
    log = Path("run/train.log").read_text()
    assert "Traceback" in log
    assert f"{type(error).__name__}: ours" in log


@pytest.mark.slow
def test_a_bug_exits_1():
    code = ("import sys, types\nfrom segtrain import cli\n"
            "sys.modules['segtrain.tasks.train'] = types.SimpleNamespace(run=lambda *_: 1 / 0)\n"
            "sys.argv = ['segtrain', 'hydra.run.dir=run']\ncli.main()\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("ZeroDivisionError") == 1
    assert "ZeroDivisionError" in Path("run/train.log").read_text()


# ---- where a run goes


def test_a_directory_with_a_run_is_not_written_into(segtrain, capsys, monkeypatch):
    def run(cfg, run_dir):
        write_config(run_dir, cfg)
        (run_dir / "checkpoints").mkdir()

    task(monkeypatch, run)
    assert segtrain("hydra.run.dir=run") == 0
    before = left()
    assert segtrain("hydra.run.dir=run") == 2
    assert "continue the run in it with segtrain resume=" in refused(capsys)
    assert left() == before


def test_an_empty_directory_is_used_and_left_empty_if_refused(segtrain, monkeypatch):
    Path("run").mkdir()
    task(monkeypatch, raising(UserError("no")))
    assert segtrain("hydra.run.dir=run") == 2
    assert left() == ["run"]


def test_only_folders_that_were_made_are_removed(segtrain, monkeypatch):
    Path("a").mkdir()
    task(monkeypatch, raising(UserError("no")))
    assert segtrain("hydra.run.dir=a/b/c") == 2
    assert left() == ["a"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_is_no_run_directory(segtrain, capsys, place):
    Path("file").touch()
    assert segtrain(f"hydra.run.dir={place}") == 2
    assert "file" in refused(capsys)
    assert left() == ["file"]


def test_a_folder_that_cannot_be_written(segtrain, capsys, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    assert segtrain("hydra.run.dir=run") == 2
    assert "No space left on device" in refused(capsys)


# ---- resume


def finished(name, *overrides):
    """Make the run directory of a finished run."""
    cfg = composed(*overrides)
    Path(name).mkdir()
    write_config(Path(name), cfg)
    write_results(Path(name), {"miou": 0.5})
    return cfg


def test_resume_needs_a_run(segtrain, capsys):
    Path("other").mkdir()
    assert segtrain("resume=other") == 2
    assert "has no config.yaml" in refused(capsys)
    assert left() == ["other"]


def test_resume_and_a_run_directory_contradict(segtrain, capsys):
    Path("run").mkdir()
    Path("run/config.yaml").touch()
    assert segtrain("resume=run", "hydra.run.dir=other") == 2
    assert "leave out hydra.run.dir=other" in refused(capsys)


@pytest.mark.parametrize(("given", "expected"), [
    ("checkpoint=sweep/seed=0", r"checkpoint='sweep/seed=0'"), ("hydra.run.dir=my run", "hydra.run.dir=my run"),
    ("checkpoint=a,b", "checkpoint=a,b"), ("task.run='sweep/seed=0'", "task.run='sweep/seed=0'"),
    ("checkpoint=~/a=b", "checkpoint='/home/me/a=b'"), ("checkpoint=~/a,~/b", "checkpoint='/home/me/a','/home/me/b'"),
    ("hydra.run.dir=~/out", "hydra.run.dir='/home/me/out'"), ("dataset.root=~", "dataset.root='/home/me'"),
    ("dataset.root=~x", "dataset.root='~x'"), ("+model.pretrained=~/a b", "+model.pretrained='/home/me/a b'"),
    ("dataset.folders=[~/a,{b: ~/c}]", "dataset.folders=[/home/me/a,{b: /home/me/c}]"),
    ("checkpoint=a,b c", "checkpoint='a,b c'"), ("rerun=1e3", "rerun='1e3'"), ("rerun=1e4", "rerun='1e4'"),
    ("checkpoint=null", "checkpoint=null"), ("checkpoint=one=1,two=2", "checkpoint='one=1,two=2'"),
    ("checkpoint=a=1,b=2", "checkpoint='a=1','b=2'"),
    ("--config-dir=~/conf", "--config-dir=/home/me/conf"), ("train.epochs=a=b", "train.epochs=a=b")])
def test_paths_of_any_name_are_taken(monkeypatch, given, expected):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("a=1", "b=2", "a,b c", "1e3", "null"):
        Path(name).mkdir()
    assert prepare_arguments([given]) == [expected]


@pytest.mark.parametrize(("arguments", "made"), mostly_slow(1, [
    (("experiment=mine",), "mine/config.yaml"), (("hydra.run.dir=~/out",), "out/config.yaml"),
    (("-m", "seed=1", "hydra.sweep.dir='~/it,s'"), "it,s/0/config.yaml"),
    (("-m", "seed=1", "experiment=mine"), "all/0/config.yaml")]))
def test_a_folder_called_home_is_never_made(segtrain, tmp_path, monkeypatch, arguments, made):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mine.yaml").write_text(
        "# @package _global_\nhydra: {run: {dir: ~/mine}, sweep: {dir: ~/all}}\n")

    def run(cfg, run_dir):
        write_config(run_dir, cfg)
        write_results(run_dir, {"miou": 0.5})

    task(monkeypatch, run)
    assert segtrain("--config-dir=own", *arguments, "train.report=false") == 0
    assert (tmp_path / "me" / made).is_file()
    assert not Path("~").exists()


@pytest.mark.parametrize("arguments", mostly_slow(1, [
    (["--config-dir=my own", "model=mine", "dataset=folder", "dataset.root='a, b'", "+optim.amsgrad=true",
      "optim=adam"],), (["-cd", "my own", "model=mine", "model.width=5"],), (["dataset.std=[1,1,1]"],)]))
def test_the_command_of_a_report_gives_the_same_config(segtrain, monkeypatch, tmp_path, arguments):
    Path("my own/model").mkdir(parents=True)
    Path("my own/model/mine.yaml").write_text("defaults: [unet]\nwidth: 3\n")
    task(monkeypatch, lambda cfg, run_dir: write_config(run_dir, cfg))
    assert segtrain(*arguments, "hydra.run.dir=first") == 0
    words = shlex.split(run_page._command(read_config(Path("first/config.yaml"))))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert segtrain(*words[1:], "hydra.run.dir=../second") == 0
    assert (tmp_path / "second/config.yaml").read_text() == (tmp_path / "first/config.yaml").read_text()
    assert segtrain("rerun=../first", "hydra.run.dir=../third") == 0
    again = read_config(tmp_path / "third/config.yaml")
    assert {**config_of(again), "rerun": None} == config_of(read_config(tmp_path / "first/config.yaml"))


def test_commands_can_be_pasted_into_a_shell(segtrain, capsys):
    finished("it's a, $run")
    words = shlex.split(shell("resume=it's a, $run"))
    assert (words[0], segtrain(*words[1:])) == ("segtrain", 0)
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize("name", mostly_slow(2, [
    "a run", "a=b,c", "it's", 'a "run"', "[1]", "größe", "a\\b", "'quoted'", "~x", "1e3", "null_"]))
def test_resume_of_any_name(segtrain, capsys, name):
    finished(name)
    assert segtrain(f"resume={name}") == 0
    assert "is finished" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in Path(name).rglob("*")}
    assert segtrain(f"resume={name}", "train.epochs=50") == 0
    assert before == {path: path.stat().st_mtime_ns for path in Path(name).rglob("*")}


def test_resume_takes_the_saved_config_and_overrides(segtrain, monkeypatch):
    finished("a run", "optim=sgd", "runtime.trusted=[mine]", "train.batch_size=2")
    Path("a run/results.json").unlink()
    seen = []
    task(monkeypatch, lambda cfg, run_dir: seen.append((cfg, run_dir.name)))
    assert segtrain("resume='a run'", "train.epochs=7") == 0  # quoted as Hydra would want it
    cfg, name = seen[0]
    assert (cfg.optim["_target_"], cfg.train.epochs, cfg.train.batch_size, name) == ("torch.optim.SGD", 7, 2, "a run")
    assert list(cfg.runtime.trusted) == []


def test_a_saved_config_is_run_again_in_a_new_directory(segtrain, monkeypatch, capsys):
    finished("a=run", "optim=sgd", "augmentation=strong", "dataset.std=[0.5,0.5,0.5]", "runtime.trusted=[mine]")
    seen = []
    task(monkeypatch, lambda cfg, run_dir: seen.append((cfg, run_dir.name)))
    for given in ("a=run", "a=run/config.yaml"):
        assert segtrain(f"rerun={given}", "optim.nesterov=true", "hydra.run.dir=again") == 0
        cfg, name = seen.pop()
        assert (cfg.optim["_target_"], cfg.optim["nesterov"], name) == ("torch.optim.SGD", True, "again")
        assert (cfg.dataset.std, "blur" in cfg.augmentation, cfg.runtime.trusted) == ([0.5, 0.5, 0.5], True, [])
        Path("again/train.log").unlink()
    assert segtrain("rerun=nowhere") == 2
    assert "nowhere" in refused(capsys)
    assert segtrain("--config-dir", "a=run") == 2
    assert "use rerun=a=run" in refused(capsys)


def test_resume_overrides_what_only_the_saved_group_has(segtrain, capsys, monkeypatch):
    finished("run", "optim=sgd", "dataset=camvid", "augmentation=strong")
    Path("run/results.json").unlink()
    seen = []

    def run(cfg, run_dir):
        seen.append(cfg)
        build.optimizer(cfg, torch.nn.Linear(1, 1), CPU)

    task(monkeypatch, run)
    assert segtrain("resume=run", "optim.nesterov=true", "dataset.root=/data", "augmentation.blur.p=0.5") == 0
    cfg = seen[0]
    assert (cfg.optim["nesterov"], cfg.dataset.arguments["root"], cfg.augmentation["blur"]["p"]) == (True, "/data", 0.5)
    assert (cfg.optim["_target_"], cfg.dataset.split) == ("torch.optim.SGD", "val")
    assert segtrain("resume=run", "optim.nestrov=true") == 2
    assert "optim.nestrov is not an argument of torch.optim.SGD. Did you mean 'nesterov'?" in refused(capsys)


def test_a_checkpoint_is_used_with_overrides_of_its_own_groups(segtrain, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluate, "run", lambda cfg, run_dir: seen.append(cfg))
    saved = composed("dataset=camvid", "model.encoder=resnet34")
    monkeypatch.setattr(checkpoint, "find", Path)
    monkeypatch.setattr(checkpoint, "load", lambda path, mapped: {"config": saved.plain()})
    assert segtrain("task=evaluate", "checkpoint=best.pt", "dataset.root=/data") == 0
    assert (seen[0].dataset.arguments["root"], seen[0].model["encoder"]) == ("/data", "resnet34")
    assert (seen[0].task.name, seen[0].checkpoint) == ("evaluate", "best.pt")


def test_resume_refuses_foreign_targets(segtrain, capsys, monkeypatch):
    finished("run", "optim._target_=os.system", "runtime.trusted=[os]")
    Path("run/results.json").unlink()
    task(monkeypatch, lambda cfg, run_dir: None)
    assert segtrain("resume=run") == 2
    assert "optim._target_=os.system in the saved configuration" in refused(capsys)
    assert segtrain("resume=run", "optim=rmsprop") == 0
    assert segtrain("resume=run", "optim._target_=torch.optim.RMSprop") == 0


@pytest.mark.parametrize(("text", "said"), [("a: [", "not valid YAML"), ("model: 3\n", "model=3 has the wrong type"),
                                            ("", "has no value"), ("- 1\n", "not a YAML mapping")])
def test_resume_of_a_damaged_config(segtrain, capsys, text, said):
    Path("run").mkdir()
    Path("run/config.yaml").write_text(text)
    assert segtrain("resume=run") == 2
    message = refused(capsys)
    assert said in message
    assert "run/config.yaml" in message
    assert Path("run/config.yaml").read_text() == text


# ---- help


def in_a_process(*arguments, **environment):
    code = ("import sys\nfrom segtrain import cli\ntry:\n    cli.main()\nfinally:\n"
            "    slow = {'torch', 'albumentations', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)\n"
            "    print(slow or '', end='', file=sys.stderr)\n")
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True,
                          env={**os.environ, **environment})


@pytest.mark.parametrize(("arguments", "said"), [
    (["train", "--help"], "train.epochs  "),
    (["--cfg", "job", "--resolve"], "num_classes: 11"),
    (["runs"], "There is no run in"),
    (["train.epocs=3"], ""),
    (["optim.lr=abc"], "it must be a number, such as 0.0005"),
    (["dataset=folder"], "dataset.root is needed"),
])
def test_answers_without_torch(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = in_a_process(*arguments)
    is_answer = said in done.stdout
    assert done.returncode == (0 if said and is_answer else 2)
    assert is_answer or said in done.stderr
    assert not re.search(r"[{}]", done.stderr), done.stderr


def test_the_version_is_that_of_segtrain(segtrain, capsys):
    assert segtrain("--version") == 0
    assert re.fullmatch(r"segtrain \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_shell_completion():
    line = "segtrain optim="
    done = in_a_process("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert done.returncode == 0
    assert {"optim=adam", "optim=sgd"} <= set(done.stdout.split())


@pytest.mark.slow
def test_commands_that_are_printed_can_be_pasted(segtrain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = "it's (a) run, lr=1 ü"
    run = [*TINY, *UNET, f"hydra.run.dir={folder}", "train.epochs=2"]
    stop_after_step(monkeypatch, 2)
    assert segtrain(*run) == 143
    assert segtrain(*run) == 2
    assert segtrain(*run[:-2], "task=doctor", "hydra.run.dir=[a doctor]") == 0
    said = "".join(capsys.readouterr())
    before = "go on with: |run in it with |train with them: |^ *"
    printed = re.findall(rf"(?:{before})(segtrain .*?)(?:, or choose another.*)?$", said, re.M)
    commands = [words for words in map(shlex.split, printed) if "=" in words[1] or words[1] == "--config-dir"]
    assert [words[1].partition("=")[0] for words in commands] == ["resume", "--config-dir", "resume"], said
    for words in commands:
        assert segtrain(*words[1:], *(run[:-2] if words[1] == "--config-dir" else [])) == 0
    said = capsys.readouterr().out
    printed = re.findall("^ *(segtrain task=.*)$", said, re.M)
    assert len(printed) == 2, "after each training"
    for words in map(shlex.split, printed):
        assert segtrain(*words[1:], "task.worst=0") == 0
    assert (tmp_path / folder / "evaluate-val" / "results.json").exists()


def test_every_command_in_a_message_is_quoted_in_one_place():
    for file in Path(cli.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text())
        documents = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(
            node, ast.Module | ast.FunctionDef | ast.ClassDef) and node.body and isinstance(node.body[0], ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                assert not re.search(r"segtrain [\w.]+=$", node.value), f"{file.name}: use terminal.shell"


@pytest.mark.slow
def test_a_run_finds_its_data_from_another_folder_and_says_when_they_have_moved(
        segtrain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            Path("data", split, kind).mkdir(parents=True)
            for number in range(2):
                values = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
                Image.fromarray(values if kind == "images" else values[..., 0] % 2).save(
                    f"data/{split}/{kind}/{number}.png")
    Path("data/classes.csv").write_text("name\na\nb\n")
    assert segtrain("dataset=folder", "dataset.root=data", *TINY[4:], *UNET, "train.epochs=1", "name=first") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert segtrain("evaluate", "checkpoint=../outputs/first", "task.worst=0") == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    capsys.readouterr()
    assert segtrain("evaluate", "checkpoint=../outputs/first") == 2
    assert f"{tmp_path / 'data'} is what the run was saved with" in capsys.readouterr().err
    assert segtrain("evaluate", "checkpoint=../outputs/first", "dataset.root=../moved", "task.worst=0") == 0
