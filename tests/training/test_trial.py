"""The trial that chooses precision and memory layout on a CPU."""

import pytest
import torch
import yaml
from helpers import TINY, UNET, composed, mostly_slow, stop_after_step

from segtrain.config import build
from segtrain.run import checkpoint
from segtrain.training import trial
from segtrain.training.state import build_state

SMALL = (*TINY, *UNET, "train.epochs=2", "scheduler=constant", "model.batch_norm=true")
SECONDS = {("fp32", True): 2.0, ("bf16", True): 1.0, ("bf16", False): 0.5, ("fp32", False): 1.95}


@pytest.fixture
def tries(monkeypatch):
    """Let every run be long enough for a trial, on a CPU with bf16 instructions; return the settings it tries."""
    tried, time_step = [], trial.time_step

    def timed(state, setting):
        time_step(state, setting)
        tried.append((setting.precision, setting.channels_last))
        return SECONDS[tried[-1]]

    monkeypatch.setattr(trial, "MIN_PIXELS", 0)
    monkeypatch.setattr(trial, "MIN_SECONDS", 1000.0)
    monkeypatch.setattr(trial, "COMPILE_SECONDS", 1e9)
    monkeypatch.setattr(build, "has_bf16", lambda on: True)
    monkeypatch.setattr(trial, "time_step", timed)
    return tried


def state_of(tmp_path, *overrides):
    state = build_state(composed(*SMALL, *overrides), tmp_path / "run")
    trial.choose_runtime(state)
    return state


def test_the_fastest_setting_is_kept_and_nothing_else_changes(tries, tmp_path, caplog):
    """Bit by bit the state of a run whose command sets what the trial of another has chosen."""
    caplog.set_level("INFO")
    chosen, random_state = state_of(tmp_path), torch.get_rng_state()
    assert (chosen.cfg.runtime.precision, chosen.cfg.runtime.channels_last) == ("bf16", False)
    line = next(line for line in caplog.messages if line.startswith("trial"))
    assert "fp32 2.000, bf16 1.000, bf16 not channels_last 0.500; chosen: bf16 not channels_last" in line
    assert {("fp32", True), ("bf16", True), ("bf16", False)} == set(tries)
    forced = state_of(tmp_path, "runtime.precision=bf16", "runtime.channels_last=false", "runtime.compile=false")
    assert torch.equal(random_state, torch.get_rng_state())
    for one, other in zip(chosen.model.state_dict().values(), forced.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
    assert all(weight.grad is None for weight in chosen.model.parameters())
    assert chosen.cfg.plain() == forced.cfg.plain()
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert chosen.normalize(images).stride() == forced.normalize(images).stride()


@pytest.mark.parametrize(("patch", "overrides", "expected"), mostly_slow(2, [
    ({"MIN_PIXELS": 1e12}, (), ("fp32", True)),  # too short
    ({"GAIN": 3.0}, (), ("fp32", True)),  # not worth it
    ({"MIN_SECONDS": 9.0}, (), ("fp32", True)),  # five more steps take ten seconds
    ({}, ("runtime.channels_last=true",), ("bf16", True)),
    ({}, ("runtime.precision=fp32",), ("fp32", True)),
]))
def test_what_limits_a_trial(tries, tmp_path, monkeypatch, patch, overrides, expected):
    for name, value in patch.items():
        monkeypatch.setattr(trial, name, value)
    runtime = state_of(tmp_path, *overrides).cfg.runtime
    assert (runtime.precision, runtime.channels_last) == expected


def test_a_setting_that_fails_is_not_chosen(tries, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    timed = trial.time_step

    def failing(state, setting):
        if setting.precision == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'")
        return timed(state, setting)

    monkeypatch.setattr(trial, "time_step", failing)
    assert state_of(tmp_path).cfg.runtime.precision == "fp32"
    assert "bf16 fails here: not implemented" in caplog.text


@pytest.mark.slow
def test_a_choice_is_kept_by_a_resume_and_an_evaluation(segtrain, tries, tmp_path, monkeypatch):
    whole, stopped, scored = tmp_path / "whole", tmp_path / "stopped", tmp_path / "scored"
    forced = ("runtime.precision=bf16", "runtime.channels_last=false")
    assert segtrain(*SMALL, *forced, f"hydra.run.dir={whole}") == 0
    with monkeypatch.context() as patch:
        stop_after_step(patch, 3)
        assert segtrain(*SMALL, f"hydra.run.dir={stopped}") == 143
    runtime = yaml.safe_load((stopped / "config.yaml").read_text())["runtime"]
    assert (runtime["precision"], runtime["channels_last"]) == ("bf16", False)
    tries.clear()
    assert segtrain(f"resume={stopped}", "runtime.precision=auto") == 0
    assert not tries
    one, other = (checkpoint.load(run / "checkpoints" / "last.pt")["model"] for run in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)

    assert segtrain("task=evaluate", f"checkpoint={stopped}", f"hydra.run.dir={scored}", "runtime.threads=1") == 0
    trained, evaluated = (yaml.safe_load((run / "results.json").read_text()) for run in (stopped, scored))
    assert [trained[name] for name in ("loss", "miou")] == [evaluated[name] for name in ("loss", "miou")]


@pytest.mark.parametrize(("scored_with", "has_bf16", "expected"), [
    ({"precision": "bf16", "device": "cpu", "channels_last": False}, False, ("bf16", False)),
    ({"precision": "bf16", "device": "cuda", "channels_last": True}, False, ("fp32", True)),
    ({"precision": "bf16", "device": "cuda:1"}, True, ("bf16", True)),
    ({"precision": "fp16", "device": "cuda"}, True, ("fp32", True)),
    ({}, True, ("fp32", True)),
])
def test_auto_with_a_checkpoint_is_what_it_was_scored_with(monkeypatch, scored_with, has_bf16, expected):
    monkeypatch.setattr(build, "has_bf16", lambda on: has_bf16)
    runtime = build.settle(composed(*SMALL), torch.device("cpu"), num_classes=11, cached_in_memory=True,
                           scored_with=scored_with).runtime
    assert (runtime.precision, runtime.channels_last) == expected


def test_emulated_bf16_is_remarked_on(segtrain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "has_bf16", lambda on: False)
    assert segtrain(*SMALL, "runtime.precision=bf16", "train.max_steps=1", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert capsys.readouterr().out.count("this CPU has no bfloat16 instructions") == 1


def test_a_failing_compilation_is_the_users_to_know(segtrain, tmp_path, monkeypatch, capsys):
    class BackendCompilerFailedError(RuntimeError):
        __module__ = "torch._dynamo.exc"

    def compiled(network):
        def fail(images):
            raise BackendCompilerFailedError("no C++ compiler")
        network.forward = fail
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    assert segtrain(*SMALL, "runtime.compile=true", f"hydra.run.dir={tmp_path / 'run'}") == 2
    said = " ".join("".join(capsys.readouterr()).split())
    assert "torch.compile fails (no C++ compiler): use runtime.compile=false" in said
