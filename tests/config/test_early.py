"""What is refused before torch is imported: text for numbers and flags, a dataset without its folder."""

import pytest
from helpers import composed, refused

from segtrain.config.early import refuse_early

CHOICES = {"optim": "rmsprop", "dataset": "folder", "augmentation": "crop_flip", "model": "linknet"}


@pytest.mark.parametrize(("override", "parts"), [
    ("optim.lr=abc", ["optim.lr=abc has the wrong type", "a number, such as 0.0005"]),
    ("augmentation.flip.p=often", ["a number, such as 0.5"]),
    ("dataset.binary=nearly", ["dataset.binary=nearly", "true or false"]),
])
def test_text_for_a_number_or_a_flag_is_refused(hydra, override, parts):
    with refused(*parts):
        refuse_early(composed("dataset=folder", "dataset.root=x", override), CHOICES)


@pytest.mark.parametrize("overrides", [
    ["optim.lr=1e-3"], ["optim.lr=${train.epochs}"], ["dataset.std=auto"], ["model.encoder=resnet34"],
    ["dataset.void=[Sky]"], ["+optim.foreach=anything"]])
def test_what_only_the_classes_can_judge_is_left_to_them(hydra, overrides):
    refuse_early(composed("dataset=folder", "dataset.root=x", *overrides), CHOICES)


@pytest.mark.parametrize(("task", "needs"), [("train", True), ("doctor", True), ("benchmark", False)])
def test_a_dataset_needs_its_folder_where_it_is_read(hydra, task, needs):
    cfg = composed("dataset=folder", f"task={task}")
    if needs:
        with refused("dataset.root is needed", "dataset=folder"):
            refuse_early(cfg, CHOICES)
    else:
        refuse_early(cfg, CHOICES)
    refuse_early(composed("dataset=folder", f"task={task}", "resume=x"), CHOICES)


@pytest.mark.parametrize(("arguments", "said"), [
    (["dataset.root=x"], "Did you mean dataset=folder dataset.root=...?"),
    (["optim.momentm=1"], "Did you mean 'optim.momentum'?"),
    (["loss=ce"], "Did you mean 'cross_entropy'?"),
    (["model=resnet"], "Did you mean 'torchvision/deeplabv3_resnet101' or"),
    (["model=DeepLab-v3"], "Did you mean 'torchvision/deeplabv3_"),
    (["optim=adma"], "Did you mean 'adam'?"),
    (["--epochs", "3"], "--epochs is not a flag of segtrain: a setting is written KEY=VALUE. "
                        "Did you mean 'train.epochs'?"),
    (["--lr=0.1"], "KEY=0.1. Did you mean 'optim.lr'?"),
    (["learning_rate=1"], "Did you mean 'optim.lr'?"),
    (["batch-size=4"], "Did you mean 'train.batch_size'?"),
])
def test_suggestions_know_files_parts_and_other_programs(segtrain, capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert segtrain(*arguments) == 2
    assert said in capsys.readouterr().err
