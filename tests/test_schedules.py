"""The course of the learning rate: values by hand, alone and in torch's LambdaLR."""

import math

import pytest
import torch

from segtrain import optim

RUN = {"total_steps": 100, "steps_per_epoch": 10}


@pytest.mark.parametrize(("schedule", "values"), [
    (optim.constant(**RUN), {0: 1, 50: 1, 99: 1}),
    (optim.constant(**RUN, warmup_epochs=2), {0: 1 / 20, 9: 0.5, 19: 1, 20: 1, 99: 1}),
    (optim.constant(**RUN, warmup_epochs=0.25), {0: 1 / 2.5, 1: 2 / 2.5, 2: 1}),
    (optim.constant(**RUN, warmup_epochs=0.05), {0: 1}),
    (optim.step(**RUN, every_epochs=3), {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 99: 0.001}),
    (optim.step(**RUN, every_epochs=0.7, gamma=0.5), {6: 1, 7: 0.5, 13: 0.5, 14: 0.25}),
    (optim.step(**RUN, every_epochs=0.001, gamma=0.5), {0: 1, 1: 0.5}),
    (optim.step(**RUN, every_epochs=1, gamma=0.5, warmup_epochs=2), {0: 1 / 20, 10: 0.5 * 11 / 20, 20: 0.25}),
    (optim.poly(**RUN), {0: 1, 50: 0.5**0.9, 99: 0.01**0.9, 100: 0, 150: 0}),
    (optim.poly(**RUN, power=2, warmup_epochs=1), {0: 0.1, 4: 0.5 * 0.96**2, 10: 0.81}),
    (optim.poly(**RUN, power=0), {0: 1, 99: 1}),
    (optim.cosine(**RUN), {0: 1, 25: 0.5 + math.sqrt(0.125), 50: 0.5, 75: 0.5 - math.sqrt(0.125), 100: 0, 150: 0}),
    (optim.cosine(**RUN, min_factor=0.2), {0: 1, 50: 0.6, 100: 0.2, 150: 0.2}),
    (optim.cosine(**RUN, warmup_epochs=5), {0: 1 / 50, 24: 0.5 * (0.5 + 0.5 * math.cos(0.24 * math.pi)), 50: 0.5}),
])
def test_values_by_hand(schedule, values):
    for step, value in values.items():
        assert schedule(step) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("name", "argument"), [
    ("constant", {"warmup_epochs": -1}), ("step", {"every_epochs": 0}), ("poly", {"power": -1}),
    ("cosine", {"min_factor": 1.5}), ("cosine", {"min_factor": -0.1}), ("poly", {"warmup_epochs": -0.1})])
def test_argument_out_of_range(name, argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        getattr(optim, name)(**RUN, **argument)


@pytest.mark.parametrize("gamma", [0, -0.1])
def test_gamma_out_of_range(gamma):
    with pytest.raises(ValueError, match="gamma"):
        optim.step(**RUN, every_epochs=1, gamma=gamma)


def test_rates_of_an_optimizer():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, optim.poly(**RUN, power=1, warmup_epochs=1))
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.5 * 0.1)
    assert rates[1] == pytest.approx(0.5 * 0.2 * 0.99)
    assert rates[50] == pytest.approx(0.5 * 0.5)
    assert rates[99] == pytest.approx(0.5 * 0.01)
