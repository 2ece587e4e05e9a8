"""The loop: equal to a plain loop in torch, and the same however a step is split. Cost and drawing with it."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.data.loading import Batch
from segtrain.data.transforms import Normalize
from segtrain.inference.evaluator import predict_batches
from segtrain.inference.forward import make_predict_fn
from segtrain.labels import Label
from segtrain.losses import CrossEntropy, Dice, WeightedSum, mean_loss
from segtrain.profiling import measure_cost
from segtrain.training.step import accumulated, train_step, update_ema
from segtrain.visualize import colorize, draw_confusion, draw_side_by_side, stack

CPU = torch.device("cpu")
NORMALIZE = Normalize([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], CPU, channels_last=False)
K = 3


class ModeCheck(nn.Module):
    """Pass on the input, and note the mode of every call, those of copies too."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.modes.append(self.training)
        return x


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, K, 1))


def batches(sizes, seed=0):
    """Draw batches of so many images each, every image with another share of void."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (sum(sizes), 6, 7, 3), dtype=torch.uint8, generator=generator)
    targets = torch.randint(K, (sum(sizes), 6, 7), dtype=torch.uint8, generator=generator)
    void = torch.rand(targets.shape, generator=generator)
    targets[void < torch.linspace(0, 0.9, sum(sizes))[:, None, None]] = 255
    stacked, start = [], 0
    for size in sizes:
        numbers = list(range(start, start + size))
        stacked.append(Batch(images[numbers], targets[numbers], numbers))
        start += size
    return stacked


def train(model, data, loss_fn=None, lr=0.1, factor=lambda n: 1.0, accumulate=1, **options):
    """Train with SGD and return the steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return [train_step(model, group, loss_fn or CrossEntropy(), optimizer, scheduler, NORMALIZE, device=CPU, **options)
            for group, _ in accumulated(data, accumulate)]


def assert_same_weights(model, other, atol=0.0):
    for left, right in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=atol)


# ---- training


def test_equals_a_plain_loop():
    data = batches([4, 4, 4])
    ours, plain = network(), network()
    steps = train(ours, data, factor=lambda n: 1 / (1 + n))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for number, (batch, step) in enumerate(zip(data, steps, strict=True)):
        images = batch.images.permute(0, 3, 1, 2) / 255 - 0.5
        loss = F.cross_entropy(plain(images), batch.targets.long(), ignore_index=255)
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step.loss.item() == pytest.approx(loss.item(), abs=1e-6)
        assert step.lr == pytest.approx(0.1 / (1 + number))
        assert step.normalizers.tolist() == [(batch.targets != 255).sum()]
        assert step.indices == batch.indices
        assert step.num_images == 4
    assert_same_weights(ours, plain, atol=1e-6)


@pytest.mark.parametrize("loss_fn", [
    CrossEntropy(torch.tensor([0.2, 1.0, 3.0])),
    WeightedSum({"cross_entropy": CrossEntropy(), "dice": Dice()}, {"cross_entropy": 1.0, "dice": 0.5}),
], ids=["weighted", "two parts"])
def test_accumulation_changes_nothing(loss_fn):
    whole, halves, uneven = network(), network(), network()
    one, = train(whole, batches([8]), loss_fn)
    two, = train(halves, batches([4, 4]), loss_fn, accumulate=2)
    three, = train(uneven, batches([5, 2, 1]), loss_fn, accumulate=3)
    assert_same_weights(whole, halves, atol=1e-6)
    assert_same_weights(whole, uneven, atol=1e-6)
    for step in (two, three):
        assert step.loss.item() == pytest.approx(one.loss.item(), abs=1e-6)
        torch.testing.assert_close(step.loss_sums, one.loss_sums)
        torch.testing.assert_close(step.normalizers, one.normalizers)
        assert step.indices == list(range(8))
        assert step.num_images == 8


def test_step_keeps_float32_on_the_device_and_no_graph():
    step, = train(network(), batches([2]), WeightedSum({"a": CrossEntropy(), "b": Dice()}, {"a": 1.0, "b": 1.0}))
    assert (step.loss.shape, step.loss_sums.shape, step.normalizers.shape) == ((), (2,), (2,))
    for tensor in (step.loss, step.loss_sums, step.normalizers):
        assert tensor.dtype == torch.float32  # some devices know no float64
        assert not tensor.requires_grad


def test_last_group_may_be_smaller():
    model, plain = network(), network()
    steps = train(model, batches([2, 2, 2, 2, 2]), accumulate=2)
    assert [step.num_images for step in steps] == [4, 4, 2]
    assert [index for step in steps for index in step.indices] == list(range(10))
    train(plain, batches([4, 4, 2]))
    assert_same_weights(model, plain, atol=1e-6)


def test_no_batch_no_step():
    assert train(network(), []) == []


def test_scheduler_moves_once_a_step():
    moves = []
    train(network(), batches([2] * 6), accumulate=2, factor=lambda n: moves.append(n) or 1.0)
    assert moves == [0, 1, 2, 3]  # once when it is made, then after each of three steps


def test_batches_are_read_step_by_step():
    read = []
    groups = accumulated((read.append(0) or batch for batch in batches([2] * 5)), 2)
    group, waited = next(groups)
    assert (len(group), len(read)) == (2, 2)
    assert waited >= 0
    assert [len(group) for group, _ in groups] == [2, 1]


def test_clip_norm_bounds_the_whole_gradient():
    data = batches([4])
    free, clipped, loose = network(), network(), network()
    train(free, data, lr=1.0)
    train(clipped, data, lr=1.0, clip_norm=0.01)
    train(loose, data, lr=1.0, clip_norm=1e6)
    start = network()

    def moved(model):
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        return torch.cat([(new - old).detach().flatten() for new, old in pairs])

    assert moved(clipped).norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(moved(clipped) / 0.01, moved(free) / moved(free).norm(), rtol=1e-3, atol=1e-4)
    assert_same_weights(free, loose)


def test_batch_of_void_alone_changes_nothing():
    batch, = batches([2])
    batch.targets.fill_(255)
    for loss_fn in (CrossEntropy(label_smoothing=0.1), Dice(), WeightedSum({"a": CrossEntropy()}, {"a": 1.0})):
        model = network()
        step, = train(model, [batch], loss_fn)
        assert step.loss.item() == 0
        assert all((parameter.grad == 0).all() for parameter in model.parameters())
        assert_same_weights(model, network())


def test_void_batch_beside_a_labelled_one():
    labelled, void = batches([3, 3])
    void.targets.fill_(255)
    alone, together = network(), network()
    one, = train(alone, [labelled])
    two, = train(together, [labelled, void], accumulate=2)
    assert two.loss.item() == pytest.approx(one.loss.item(), abs=1e-6)
    assert_same_weights(alone, together, atol=1e-6)


@pytest.mark.parametrize(("precision", "atol"), [("bf16", 2e-2), ("fp16", 2e-2)])
def test_lower_precision(precision, atol):
    full, lower = network(), network()
    data = batches([4, 4])
    expected = train(full, data)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=precision == "fp16")
    steps = train(lower, data, precision=precision, scaler=scaler, clip_norm=10.0)
    for step, reference in zip(steps, expected, strict=True):
        assert step.loss.dtype == torch.float32
        assert step.loss.item() == pytest.approx(reference.loss.item(), abs=atol)
        assert step.loss.item() != reference.loss.item()
    assert all(parameter.dtype == torch.float32 for parameter in lower.parameters())
    assert_same_weights(full, lower, atol=atol)


def test_scaler_survives_a_batch_of_void():
    batch, = batches([2])
    batch.targets.fill_(255)
    scaler = torch.amp.GradScaler("cpu")
    model = network()
    step, = train(model, [batch], precision="fp16", scaler=scaler)
    assert step.loss.item() == 0
    assert scaler.get_scale() == 65536  # an infinite gradient would halve it
    assert_same_weights(model, network())


def test_mean_loss():
    sums = torch.tensor([6.0, 0.0, 1.0], requires_grad=True)
    loss = mean_loss(sums, torch.tensor([4.0, 0.0, 0.5]))
    assert loss.item() == 3.5
    loss.backward()
    assert sums.grad.tolist() == [0.25, 0.0, 2.0]
    assert mean_loss(torch.tensor([3.0]), torch.tensor([0.0])).item() == 0
    assert mean_loss(torch.tensor([3.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)).item() == 1.5
    assert mean_loss(torch.tensor([float("nan")]), torch.tensor([2.0])).isnan()


# ---- prediction


def predictions(model, data, **options):
    return list(predict_batches(make_predict_fn(model, NORMALIZE, device=CPU, **options), data, device=CPU))


def test_predictions_are_float32_in_order_in_evaluation_mode():
    check = ModeCheck()
    model = nn.Sequential(check, nn.Conv2d(3, K, 1), nn.BatchNorm2d(K), nn.Dropout(0.5)).train()
    before = copy.deepcopy(model.state_dict())
    data = batches([2, 3, 1])
    found = predictions(model, data)
    assert not model.training
    assert len(check.modes) >= 3
    assert not any(check.modes)
    assert [batch.indices for batch, _ in found] == [[0, 1], [2, 3, 4], [5]]
    for (batch, logits), given in zip(found, data, strict=True):
        assert (logits.dtype, logits.shape) == (torch.float32, (len(given.indices), K, 6, 7))
        assert not logits.requires_grad
        assert torch.equal(batch.targets, given.targets)
        torch.testing.assert_close(logits, model(NORMALIZE(given.images)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    _, logits = predictions(model, data, precision="bf16")[0]
    assert logits.dtype == torch.float32


def test_predictions_keep_instances():
    batch, = batches([2])
    batch.instances = [np.zeros((6, 7), np.int32)] * 2
    (shown, _), = predictions(network(), [batch])
    assert shown.instances is batch.instances


def test_gradients_are_on_again_between_predictions():
    for _ in predict_batches(make_predict_fn(network(), NORMALIZE, device=CPU), batches([1, 1]), device=CPU):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


# ---- average


def test_average_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    average = copy.deepcopy(model)
    expected = copy.deepcopy(model.state_dict())
    for seed in range(3):
        torch.manual_seed(seed)
        model.train()(torch.randn(4, 3, 5, 5))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        update_ema(average, model, 0.9)
        for name, value in model.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value if value.is_floating_point() else value.clone()
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)
    assert average[1].num_batches_tracked.item() == 3
    assert not torch.equal(average[1].running_mean, model[1].running_mean)


# ---- cost


def test_cost_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                          nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ConvTranspose2d(8, 5, 2, stride=2))
    params = (3 * 8 * 9 + 8) + 16 + (8 * 9 + 8) + (8 * 5 * 4 + 5)
    macs = 3 * 8 * 9 * 16 * 20 + 8 * 9 * 16 * 20 + 8 * 5 * 4 * 16 * 20
    assert measure_cost(model, (32, 40), 3) == {"params": params, "macs": macs}


def test_cost_leaves_the_network_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)).train()
    model[0].weight.requires_grad_(False)
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    assert measure_cost(model, (32, 32), 1)["params"] == 2 + 4 + 4
    assert [module.training for module in model] == [True, True, False]
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_cost_of_a_network_that_cannot_be_run():
    model = nn.Conv2d(3, 2, 1).train()
    assert measure_cost(model, (32, 32), 1) == {"params": 8, "macs": None}
    assert model.training


# ---- drawing

LABELS = (Label("road", 0, 0, (10, 20, 30)), Label("car", 1, 1, (200, 100, 0)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_colors(dtype):
    drawn = colorize(np.array([[0, 1, 255]], dtype), LABELS)
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == [[[10, 20, 30], [200, 100, 0], [0, 0, 0]]]


def test_side_by_side():
    image = np.full((4, 6, 3), 7, np.uint8)
    target, pred = np.zeros((4, 6), np.int64), np.ones((4, 6), np.int64)
    target[0, 0] = 255
    drawn = draw_side_by_side(image, target, pred, LABELS)
    assert (drawn.shape, drawn.dtype) == ((4, 26, 3), np.uint8)
    assert (drawn[:, :6] == 7).all()
    assert (drawn[:, 6:10] == 255).all()
    assert drawn[0, 10].tolist() == [0, 0, 0]
    assert drawn[1, 10].tolist() == [10, 20, 30]
    assert (drawn[:, 20:] == (200, 100, 0)).all()


def test_stack_of_pictures_of_different_widths():
    drawn = stack([np.full((4, 6, 3), 7, np.uint8), np.full((5, 3, 3), 9, np.uint8)])
    assert (drawn.shape, drawn.dtype) == ((17, 6, 3), np.uint8)
    assert (drawn[:4] == 7).all()
    assert (drawn[8:13, :3] == 9).all()
    for white in (drawn[4:8], drawn[8:13, 3:], drawn[13:]):
        assert (white == 255).all()


def test_confusion_figure_shows_percent_of_rows():
    axes, = draw_confusion([[3, 1], [0, 0]], ["road", "car"]).axes
    assert [text.get_text() for text in axes.texts] == ["75", "25", "0", "0"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["road", "car"]
    assert not draw_confusion(np.eye(41, dtype=int).tolist(), [str(n) for n in range(41)]).axes[0].texts


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_the_norm_of_the_gradient_is_measured_before_it_is_clipped(clip_norm):
    (batch,) = batches([4])
    plain = network()
    CrossEntropy()(plain(NORMALIZE(batch.images)), batch.targets).sum().div(
        CrossEntropy().normalizer(batch.targets).sum()).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()]).norm()
    (step,) = train(network(), [batch], clip_norm=clip_norm, measures_norm=True)
    torch.testing.assert_close(step.gradient_norm, expected)
    assert train(network(), [batch])[0].gradient_norm is None
