"""Training a part of a network, or its parts at different rates: what stands still, what moves, exact resumes."""

import json
import shutil

import pytest
import torch
import torchvision
from helpers import TINY, stop_after_step

from segtrain.models.linknet import LinkNet


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of ResNet-18 weights, with BatchNorm statistics of their own."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18(weights=None)
    network.train()(torch.randn(2, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


def last(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)


def results(run_dir):
    return json.loads((run_dir / "results.json").read_text())


def parts(state):
    """Split a state dict of LinkNet into its encoder and the rest."""
    encoder = {key: value for key, value in state.items() if key.startswith("encoder.")}
    return encoder, {key: value for key, value in state.items() if key not in encoder}


@pytest.mark.slow
def test_a_frozen_encoder_stands_still_while_the_rest_learns(segtrain, weights, tmp_path):
    run_dir = tmp_path / "run"
    assert segtrain(*TINY, f"model.pretrained={weights}", "train.freeze_encoder=true", "train.epochs=2",
                    "train.ema_decay=0.5", "optim.weight_decay=0.1", f"hydra.run.dir={run_dir}") == 0
    torch.manual_seed(0)
    before, state = LinkNet(11, pretrained=str(weights)).state_dict(), last(run_dir)
    for moved in (state["model"], state["ema"]):
        encoder, rest = parts(moved)
        assert all(torch.equal(value, before[key]) for key, value in encoder.items())
        assert all(not torch.equal(value, before[key]) for key, value in rest.items())
    assert "encoder frozen" in (run_dir / "train.log").read_text()
    assert results(run_dir)["params"] == 11_534_667, "the network's own, frozen or not"

    evaluated = tmp_path / "evaluated"
    assert segtrain("task=evaluate", f"checkpoint={run_dir}", f"hydra.run.dir={evaluated}", "runtime.threads=1") == 0
    for key in ("miou", "loss", "params", "macs"):
        assert results(evaluated)[key] == results(run_dir)[key]


@pytest.mark.slow
def test_freezing_starts_from_a_checkpoint_too(segtrain, weights, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert segtrain(*TINY, "debug=smoke", f"model.pretrained={weights}", f"hydra.run.dir={first}") == 0
    assert segtrain(*TINY, "debug=smoke", f"checkpoint={first}", "train.freeze_encoder=true",
                    f"hydra.run.dir={second}") == 0
    started, ended = parts(last(first)["model"])[0], parts(last(second)["model"])[0]
    assert all(torch.equal(value, started[key]) for key, value in ended.items())


@pytest.mark.slow
def test_the_encoder_moves_at_its_own_rate(segtrain, tmp_path):
    """After one step of plain SGD, a tenth of the rate has moved the encoder a tenth as far, and the rest as far."""
    torch.manual_seed(0)
    before, moves = LinkNet(11).state_dict(), []
    for number, overrides in enumerate([(), ("train.encoder_lr=0.001",)]):
        run_dir = tmp_path / str(number)
        assert segtrain(*TINY, "debug=smoke", "optim=sgd", "optim.lr=0.01", "optim.momentum=0", "scheduler=constant",
                        "dataset.height=64", "dataset.width=96", "dataset.crop=[64,64]", *overrides,
                        f"hydra.run.dir={run_dir}") == 0
        moves.append({key: value - before[key] for key, value in last(run_dir)["model"].items()})
    torch.testing.assert_close(10 * moves[1]["encoder.layer4.1.conv2.weight"],
                               moves[0]["encoder.layer4.1.conv2.weight"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moves[1]["head.2.weight"], moves[0]["head.2.weight"])
    assert all(moves[0][key].abs().max() > 1e-4 for key in ("encoder.layer4.1.conv2.weight", "head.2.weight"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    ("train.freeze_encoder=true", "train.weight_decay_on=kernels", "optim.weight_decay=0.01"),
    ("train.encoder_lr=1e-4", "train.weight_decay_on=kernels", "optim.weight_decay=0.01", "train.ema_decay=0.9"),
], ids=["frozen", "own rate"])
def test_resume_is_exact(segtrain, weights, tmp_path, monkeypatch, options):
    arguments = (*TINY, "optim=adam", "train.epochs=3", f"model.pretrained={weights}", *options)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert segtrain(*arguments, f"hydra.run.dir={whole}") == 0
    stop_after_step(monkeypatch, 3)
    assert segtrain(*arguments, f"hydra.run.dir={stopped}") == 143
    assert segtrain(f"resume={stopped}") == 0
    assert "no longer bit-identical" not in (stopped / "train.log").read_text()
    one, other = last(whole), last(stopped)
    for key in ("model", "ema"):
        assert all(torch.equal(value, other[key][name]) for name, value in (one[key] or {}).items())
    assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]
    assert all(torch.equal(value["exp_avg"], other["optimizer"]["state"][number]["exp_avg"])
               for number, value in one["optimizer"]["state"].items())


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    return tmp_path_factory.mktemp("plain") / "run"


@pytest.mark.slow
@pytest.mark.parametrize(("option", "said"), [
    ("train.freeze_encoder=true", "continue with the saved train.freeze_encoder"),
    ("train.weight_decay_on=kernels", "other groups of parameters"),
])
def test_a_run_does_not_go_on_with_other_groups_of_parameters(segtrain, plain_run, tmp_path, capsys, option, said):
    if not plain_run.exists():
        assert segtrain(*TINY, "train.epochs=1", f"hydra.run.dir={plain_run}") == 0
    run_dir = shutil.copytree(plain_run, tmp_path / "run")
    assert segtrain(f"resume={run_dir}", option, "train.epochs=2") == 2
    output = capsys.readouterr()
    assert said in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize(("overrides", "said"), [
    (["train.freeze_encoder=true"], "train.freeze_encoder=true would keep random weights"),
    (["train.freeze_encoder=true", "train.encoder_lr=0.1"], "contradict"),
    (["train.freeze_encoder=true", "model.pretrained=/nowhere.pth"], "/nowhere.pth"),
])
def test_what_makes_no_sense_is_refused(segtrain, tmp_path, capsys, overrides, said):
    assert segtrain(*TINY, *overrides, f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_of_another_encoder_are_refused(segtrain, weights, tmp_path, capsys):
    assert segtrain(*TINY, "model.encoder=resnet34", f"model.pretrained={weights}",
                    f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert "does not fit resnet34 (missing: layer1.2.conv1.weight, " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
