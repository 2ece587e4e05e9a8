"""What the documents say is true: their commands run, their examples work, their files and targets exist."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from keras_records import load_record
from PIL import Image

from segtrain.inference.writers import VideoWriter

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TINY = ("dataset.crop=[32,32]", "train.batch_size=2", "train.epochs=1", "runtime.workers=0", "runtime.compile=false")
TINY_STREETS = ("dataset.height=32", "dataset.width=48", "dataset.num_train=4", "dataset.num_val=2")
TINY_MODEL = ("model=unet", "model.width=4")  # in place of the default one, whose checkpoints take seconds to write
NOT_RUN = ("make", "pip", "tensorboard")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """Return the commands of the bash blocks, as lists of arguments."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def in_small(arguments, number):
    """Shrink a training to seconds; what resumes or evaluates takes its sizes from the saved run."""
    if "--cfg" in arguments or any(argument.startswith("resume=") for argument in arguments):
        return arguments
    arguments = [argument.replace("seed=0,1", "seed=0").replace("rmsprop,adam,sgd", "adam,sgd")
                 .replace("num_val=64", "num_val=3") for argument in arguments]
    if not any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for argument in arguments):
        arguments.append(f"hydra.run.dir=outputs/{number}")  # two runs may start in the same second
    if {"task=evaluate", "task=predict", "task=score", "task=convert", "task=doctor", "task=export",
            "task=report"} & set(arguments):
        return arguments
    if "task=benchmark" in arguments:
        return [*(each for each in arguments if not each.startswith("task.size=")), "task.size=[32,32]",
                "task.batch_size=2", "task.seconds=0.01"]
    if not {"hydra.run.dir=outputs/first", "-m"} & set(arguments):
        arguments.append("train.report=false")  # one of a run and one of a sweep will do: they take as long as the run
    streets = not any(argument.startswith(("dataset=", "experiment=")) for argument in arguments)
    any_model = not any(each.startswith(("model", "experiment=")) or "encoder" in each for each in arguments)
    return [*arguments, *TINY, *(TINY_STREETS if streets else ()), *(TINY_MODEL if any_model else ())]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_data(root):
    """Write tiny data in every layout that the documents name."""
    rng = np.random.default_rng(0)
    for index in range(3):
        image = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        for split in ("train", "val"):
            save(root / "CamVid" / split / f"{index}.png", image)
            save(root / "photos" / split / f"{index}.png", image)
            save(root / "CamVid" / f"{split}annot" / f"{index}.png", rng.integers(0, 12, (40, 48), dtype=np.uint8))
            save(root / "mine" / split / "images" / f"{index}.jpg", image)
            save(root / "mine" / split / "masks" / f"{index}.png", rng.integers(0, 3, (40, 48), dtype=np.uint8))
            save(root / "roads" / split / f"{index}.jpg", image)
            save(root / "roads" / split / f"{index}.png", rng.integers(0, 2, (40, 48), dtype=np.uint8))
    with VideoWriter(root / "drive.mp4", 10, image.shape[:2]) as video:
        video.write(image)
    (root / "mine" / "classes.csv").write_text("name\nwall\nfloor\ndoor\n")
    for split in ("train", "val"):
        names = [f"aachen_00000{index}_000019" for index in range(2)]
        (root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (root / "VOCdevkit/VOC2012/ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            ids = rng.integers(7, 12, (40, 48), dtype=np.uint8)
            save(root / "cityscapes/leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png", image)
            save(root / "cityscapes/gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png", ids)
            instances = root / "cityscapes/gtFine" / split / "aachen" / f"{name}_gtFine_instanceIds.png"
            save(instances, ids.astype(np.uint16))
            save(root / "predictions" / f"{name}.png", ids)
            save(root / "VOCdevkit/VOC2012/JPEGImages" / f"{name}.jpg", image)
            save(root / "VOCdevkit/VOC2012/SegmentationClass" / f"{name}.png", rng.integers(0, 21, (40, 48), np.uint8))


def make_weights(root):
    """Write the weights that docs/reference/models.md names, and images of as many classes."""
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), root / "mobilenet_v2.pth")
    np.savez(root / "weights.npz", **load_record("linknet_preact")[1])
    for split in ("train", "val"):
        save(root / "twelve" / split / "images" / "0.png", np.zeros((40, 48, 3), dtype=np.uint8))
        save(root / "twelve" / split / "masks" / "0.png", np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 12)
    (root / "twelve" / "classes.csv").write_text("name\n" + "".join(f"class {number}\n" for number in range(12)))


@pytest.mark.parametrize("name", ["README.md", "docs/reference/configuration.md", "docs/reference/models.md"])
def test_every_command_runs(segtrain, tmp_path, monkeypatch, capsys, name):
    make_data(tmp_path / "data")
    make_weights(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for number, (program, *arguments) in enumerate(commands((ROOT / name).read_text())):
        if program in NOT_RUN:
            continue
        assert program == "segtrain", f"{name}: nobody checks the command {program} {' '.join(arguments)}"
        arguments = in_small([argument.replace("/data/", f"{tmp_path}/data/") for argument in arguments], number)
        code = segtrain(*arguments)
        assert code == 0, f"{name}: segtrain {' '.join(arguments)} exits {code}\n{''.join(capsys.readouterr())}"
    if name == "README.md":
        for file in re.findall(r"^\| `([\w./*]+)` \|", README, re.MULTILINE):
            assert list(Path("outputs").glob(f"*/{file}")), f"README.md: no run leaves {file} behind"
        assert Path("multirun/optimizers/leaderboard.csv").exists()


# Commands in one process, for torch is slow to import.
ONE_AFTER_THE_OTHER = """
import json, sys
from hydra.core.global_hydra import GlobalHydra
from segtrain import cli
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["segtrain", *arguments]
    GlobalHydra.instance().clear()
    try:
        cli.main()
    except SystemExit as ended:
        print("segtrain", *arguments, "ends with", ended.code)
        if ended.code:
            raise
"""


def test_the_examples_of_extending_work(tmp_path):
    """Write the files that docs/how-to/extend.md shows into a copy of the code, and run its commands there."""
    text = (ROOT / "docs/how-to/extend.md").read_text()
    for folder in ("segtrain", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "segtrain" / "conf").symlink_to(tmp_path / "conf")
    for block in [*blocks(text, "python"), *blocks(text, "yaml")]:
        first, _, rest = block.partition("\n")
        path = tmp_path / first.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:  # a class for segtrain/losses.py goes to its end
            file.write(f"\n\n{rest}")
    plain = (tmp_path / "segtrain" / "models" / "plain.py").read_text()
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "wide.py").write_text(plain.replace("PlainNet", "Wide"))
    make_data(tmp_path / "data")
    lines = []
    for number, (program, *arguments) in enumerate(commands(text)):
        assert program == "segtrain"
        lines.append(in_small([argument.replace("/data/", f"{tmp_path}/data/") for argument in arguments], number))
    done = subprocess.run([sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(lines)], cwd=tmp_path, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ends with 0") == len(lines) >= 3
    assert str(ROOT / "segtrain") not in done.stdout


def test_the_tutorial_leads_from_a_folder_to_a_score(segtrain, tmp_path, monkeypatch, capsys):
    """Make the tutorial's data, only fewer images, and run its commands on it, in their order."""
    text = (ROOT / "docs/getting-started/tutorial.md").read_text()
    monkeypatch.chdir(tmp_path)
    numbers = "num_train=120, num_val=40"
    (script,) = blocks(text, "python")
    assert numbers in script
    Path(script.split()[1]).write_text(script.replace(numbers, "num_train=6, num_val=3"))
    refused = [shlex.split(line, comments=True) for line in re.findall(r"^segtrain .*  # refused$", text, re.MULTILINE)]
    outcomes = []
    for number, (program, *arguments) in enumerate(commands(text)):
        if program == "python":
            file = (ROOT if arguments[0].startswith("scripts/") else tmp_path) / arguments[0]
            with monkeypatch.context() as patch:
                patch.setattr(sys, "argv", [str(file), *arguments[1:]])
                runpy.run_path(str(file), run_name="__main__")
        elif program not in NOT_RUN:
            assert program == "segtrain"
            code = segtrain(*in_small(arguments, number))
            said = "".join(capsys.readouterr())
            outcomes.append(code)
            is_refused = [program, *arguments] in refused
            assert code == (2 if is_refused else 0), f"segtrain {' '.join(arguments)} exits {code}\n{said}"
            assert not is_refused or "if 255 is car, use dataset.binary=true" in said  # what the next command does
    assert outcomes.count(2) == 1
    assert Path("cars.png").exists()
    results = [json.loads(file.read_text()) for file in Path("outputs").glob("*/results.json")]
    trained = json.loads(Path("outputs/cars/results.json").read_text())
    (scored,) = (each for each in results if each["task"] == "evaluate")
    assert {key: scored[key] for key in ("miou", "iiou", "confusion_matrix")} == {
        key: trained[key] for key in ("miou", "iiou", "confusion_matrix")}


def test_every_make_target_exists_and_is_listed():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    for document in DOCUMENTS:
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", document.read_text(), re.MULTILINE))
        assert named <= targets, f"{document.name} names make targets that do not exist: {named - targets}"
    listed = subprocess.run(["make", "-s", "-C", ROOT, "help"], check=True, capture_output=True, text=True).stdout
    assert targets <= set(re.findall(r"make ([a-z]+)", listed))
    assert "make test\n" in (ROOT / ".ci" / "run").read_text(), ".ci/run must run the README's test command"


def test_the_file_tree_is_whole():
    shown = set(tree(blocks(README.split("\n## Files\n")[1], "text")[0]))
    for name in shown:
        assert (ROOT / name).exists(), f"README.md shows {name}, which does not exist"
    there = {path.relative_to(ROOT).as_posix() for folder in ("segtrain", "scripts")
             for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"}
    there |= {f"conf/{path.parent.name}/" for path in (ROOT / "conf").glob("*/*.yaml")} | {"conf/hydra/"}
    there |= {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    there |= {path.name for path in ROOT.glob("*.md") if path.name != "README.md"}
    assert not there - shown, f"README.md does not show {', '.join(sorted(there - shown))}: add it with its role"


def tree(text):
    """Yield the paths of an indented tree; what ends with a slash is a folder."""
    folders: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        assert len(line.split()) > 1 or name.endswith("/"), f"README.md gives {name} no role"
        while folders and folders[-1][0] >= indent:
            folders.pop()
        path = (folders[-1][1] if folders else "") + name
        if name.endswith("/"):
            folders.append((indent, path))
        yield path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name} links to {target}, which does not exist"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{document.name} links to {target}, but {file.name} has no such section"
