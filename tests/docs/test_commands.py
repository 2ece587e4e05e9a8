"""The commands of the README and the guides run, and the code that they show works."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import ROOT
from keras_records import load_record
from PIL import Image

import segtrain
from segtrain.commands.shortcuts import COMMANDS
from segtrain.inference.video import open_video

pytestmark = pytest.mark.slow

PAGES = ("README.md", "docs/getting-started/installation.md", "docs/getting-started/first-run.md",
         *(f"docs/how-to/{name}.md" for name in ("annotations", "benchmark", "datasets", "evaluate", "export",
                                                 "predict", "pretrained-weights", "reports", "sweeps", "train")),
         "docs/reference/configuration.md", "docs/reference/models.md")
TINY = ("dataset.crop=[32,32]", "train.batch_size=2", "train.epochs=1", "runtime.workers=0", "runtime.compile=false")
TINY_STREETS = ("dataset.height=32", "dataset.width=48", "dataset.num_train=4", "dataset.num_val=2")
TINY_MODEL = ("model=unet", "model.width=4")  # in place of the default one, whose checkpoints take seconds to write
NOT_RUN = ("make", "pip", "tensorboard")
NEEDS_PLUGINS = re.compile(r"hydra/launcher=|search=")  # run by tests/sweep/test_sweep_plugins.py


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def commands(text):
    """Return the commands of the bash blocks, as lists of arguments."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def in_small(arguments, number):
    """Shrink a training to seconds; what resumes or evaluates takes its sizes from the saved run."""
    if "--cfg" in arguments:
        return arguments
    if any(argument.startswith("resume=") for argument in arguments):
        return [re.sub(r"^train.epochs=.*", "train.epochs=2", argument) for argument in arguments]
    arguments = [re.sub(r"seed=[0-9,]+", "seed=0", argument).replace("rmsprop,adam,sgd", "adam,sgd")
                 .replace("num_val=64", "num_val=3") for argument in arguments]
    if not any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=", "name=")) for argument in arguments):
        arguments.append(f"hydra.run.dir=outputs/{number}")  # two runs may start in the same second
    if {"task=evaluate", "task=predict", "task=score", "task=convert", "task=doctor", "task=export",
            "task=rasterize", "task=report", "task=classes"} & set(arguments):
        return arguments
    if "task=benchmark" in arguments:
        return [*(argument for argument in arguments if not argument.startswith("task.size=")), "task.size=[32,32]",
                "task.batch_size=2", "task.seconds=0.01"]
    if not {"hydra.run.dir=outputs/first", "name=first", "-m"} & set(arguments):
        arguments.append("train.report=false")  # one of a run and one of a sweep will do: they take as long as the run
    streets = not any(argument.startswith(("dataset=", "experiment=")) for argument in arguments)
    any_model = not any(argument.startswith(("model", "experiment=")) or "encoder" in argument
                        for argument in arguments)
    one_image = ["train.batch_size=1"] if "debug=overfit" in arguments else []
    return [*arguments, *TINY, *(TINY_STREETS if streets else ()), *(TINY_MODEL if any_model else ()), *one_image]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_data(root):
    """Write tiny data in every layout that the documents name."""
    rng = np.random.default_rng(0)
    for frame in ("0001TP_006690", "0001TP_008070", "0006R0_f00930", "0016E5_00390"):  # some of each fold of CamVid
        save(root / "CamVid" / "train" / f"{frame}.png", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        save(root / "CamVid" / "trainannot" / f"{frame}.png", rng.integers(0, 12, (40, 48), dtype=np.uint8))
    (root / "CamVid" / "lists").mkdir()
    (root / "CamVid" / "lists" / "train.txt").write_text("0001TP_006690\n0006R0_f00930\n")
    (root / "CamVid" / "lists" / "val.txt").write_text("0016E5_00390\n")
    for index in range(3):
        image = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        save(root / "CamVid" / "val" / f"{index}.png", image)
        save(root / "CamVid" / "valannot" / f"{index}.png", rng.integers(0, 12, (40, 48), dtype=np.uint8))
        for split in ("train", "val"):
            save(root / "photos" / split / f"{index}.png", image)
            save(root / "mine" / split / "images" / f"{index}.jpg", image)
            save(root / "mine" / split / "masks" / f"{index}.png", rng.integers(0, 3, (40, 48), dtype=np.uint8))
            save(root / "roads" / split / f"{index}.jpg", image)
            save(root / "roads" / split / f"{index}.png", rng.integers(0, 2, (40, 48), dtype=np.uint8))
    with zipfile.ZipFile(ROOT / "tests/oracle/annotations.zip") as archive:
        archive.extractall(root / "plots", [name for name in archive.namelist() if name.startswith("coco/")])
    with open_video(root / "drive.mp4", 10, image.shape[:2]) as write:
        write(image)
    for index in (3, 4):  # one for each of five folds
        save(root / "mine" / "train" / "images" / f"{index}.jpg", image)
        save(root / "mine" / "train" / "masks" / f"{index}.png", rng.integers(0, 3, (40, 48), dtype=np.uint8))
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
    """Write the weights that docs/how-to/pretrained-weights.md names, and images of as many classes."""
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), root / "mobilenet_v2.pth")
    np.savez(root / "weights.npz", **load_record("linknet_preact")[1])
    names = {"aux.p.": "seghead_p.", "aux.boundary.": "seghead_d."}  # as the authors of PIDNet call its heads
    own = segtrain.build_model("pidnet_s", 19).state_dict()
    np.savez(root / "pidnet_s.npz", **{re.sub("|".join(names), lambda found: names[found[0]], name): value.numpy()
                                       for name, value in own.items()})
    for split in ("train", "val"):
        save(root / "twelve" / split / "images" / "0.png", np.zeros((40, 48, 3), dtype=np.uint8))
        save(root / "twelve" / split / "masks" / "0.png", np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 12)
    (root / "twelve" / "classes.csv").write_text("name\n" + "".join(f"class {number}\n" for number in range(12)))


@pytest.mark.parametrize("name", PAGES)
def test_every_command_runs(segtrain, tmp_path, monkeypatch, capsys, name):
    """Run a page's commands in their order, on tiny data."""
    make_data(tmp_path / "data")
    make_weights(tmp_path / "data")
    shutil.copy(tmp_path / "data/photos/val/0.png", tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    for number, (program, *arguments) in enumerate(commands(read(name))):
        line = " ".join([program, *arguments])
        if program in NOT_RUN or NEEDS_PLUGINS.search(line):
            continue
        if program == "python":
            run_script(arguments, ROOT)
            continue
        assert program == "segtrain", f"{name}: no test runs {line}"
        if arguments[0] in COMMANDS:
            assert segtrain(*arguments) == 0
            continue
        arguments = in_small([argument.replace("/data/", f"{tmp_path}/data/") for argument in arguments], number)
        code = segtrain(*arguments)
        assert code == 0, f"{name}: segtrain {' '.join(arguments)} exits {code}\n{''.join(capsys.readouterr())}"


def test_a_run_leaves_the_documented_files(segtrain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert segtrain(*in_small(["hydra.run.dir=outputs/first", "train.log_every=1"], 0)) == 0
    assert segtrain("task=evaluate", "checkpoint=outputs/first", "hydra.run.dir=outputs/scored",
                    "task.save_predictions=true") == 0
    sweep = ["-m", "optim=adam,sgd", "seed=0,1", "hydra.sweep.dir=multirun/sweep", "train.max_steps=1"]
    assert segtrain(*sweep, *TINY, *TINY_STREETS, *TINY_MODEL) == 0
    page = read("docs/reference/run-directory.md")
    folders = {"Training": "outputs/first", "Evaluation": "outputs/scored", "Sweep": "multirun/sweep"}
    for section, folder in folders.items():
        text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
        files = re.findall(r"^\| `([\w./*]+)` \|", text, re.MULTILINE)
        assert len(files) >= 4
        for file in {*files} - {"loggers.json"}:  # which needs the package of a logger
            assert list(Path(folder).glob(file)), f"docs/reference/run-directory.md: {folder} has no {file}"


def run_script(arguments, folder):
    """Run a script in this process, as `python script.py arguments` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(folder / arguments[0]), *arguments[1:]])
        runpy.run_path(str(folder / arguments[0]), run_name="__main__")


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


def test_the_first_change_works(tmp_path):
    """Write the files that the two guides to new code show into a copy of the code, and run their commands there."""
    text = read("docs/how-to/first-change.md") + read("docs/how-to/extend.md")
    for folder in ("segtrain", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "segtrain" / "conf").symlink_to(tmp_path / "conf")
    for block in [*blocks(text, "python"), *blocks(text, "yaml")]:
        first, _, rest = block.partition("\n")
        path = tmp_path / first.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "schema.py":  # the class goes before the table of tasks, which gets an entry
            before, after = path.read_text().split("\n\nTASKS:")
            assert '"report": ReportTask}' in after
            after = after.replace('"report": ReportTask}', '"report": ReportTask, "classes": ClassesTask}')
            path.write_text(f"{before}\n\n{rest}\n\nTASKS:{after}")
            continue
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
    text = read("docs/getting-started/tutorial.md")
    monkeypatch.chdir(tmp_path)
    numbers = "num_train=120, num_val=40"
    (script,) = blocks(text, "python")
    assert numbers in script
    Path(script.split()[1]).write_text(script.replace(numbers, "num_train=6, num_val=3"))
    refused = [shlex.split(line, comments=True) for line in re.findall(r"^segtrain .*  # refused$", text, re.MULTILINE)]
    outcomes = []
    for number, (program, *arguments) in enumerate(commands(text)):
        if program == "python":
            run_script(arguments, ROOT if arguments[0].startswith("scripts/") else tmp_path)
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
    (scored,) = (result for result in results if result["task"] == "evaluate")
    assert {key: scored[key] for key in ("miou", "iiou", "confusion_matrix")} == {
        key: trained[key] for key in ("miou", "iiou", "confusion_matrix")}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_says(tmp_path):
    """Run its cells in a kernel; the numbers may differ between machines, but each cell gives what kind it gave."""
    nbformat, nbclient = (pytest.importorskip(name, reason=f"{name} is not installed") for name in (
        "nbformat", "nbclient"))
    notebook = nbformat.read(ROOT / "docs/notebooks/first-hour.ipynb", 4)
    kinds = [[output.output_type for output in cell.outputs if output.get("name") != "stderr"][-1:]
             for cell in notebook.cells if cell.cell_type == "code"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3",
                                resources={"metadata": {"path": str(tmp_path)}}).execute()
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    assert kinds == [[output.output_type for output in cell.outputs if output.get("name") != "stderr"][-1:]
                     for cell in notebook.cells if cell.cell_type == "code"]
