"""From images to logits: sliding windows, bands and flip TTA give what the whole image gives, in bounded memory."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.data.transforms import Normalize
from segtrain.inference.forward import InferenceSettings, make_predict_fn, predict_with_flip_tta
from segtrain.inference.sliding_window import (
    blending_weights,
    iterate_bands,
    predict_sliding_window,
    window_starts,
)

CPU = torch.device("cpu")
NORMALIZE = Normalize([0.5, 0.4, 0.3], [1.0, 0.5, 1.0], CPU, channels_last=False)
K = 3
CASES = [((32, 32), 0.0), ((32, 32), 0.25), ((20, 33), 0.5), ((7, 50), 0.9), ((64, 9), 0.25), ((200, 200), 0.5)]


def make_images(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pixel_network(seed=0):
    """Make a network that looks at single pixels only: where windows are cut cannot matter to it."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, K, 1))


def wide_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 7, padding=3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, K, 3, padding=1))


def close(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


# ---- whole


def test_whole_images_are_normalised_and_given_to_the_network_in_evaluation_mode():
    network = wide_network().train()
    given = make_images(2, 8, 9, 3)
    logits = make_predict_fn(network, NORMALIZE, device=CPU)(given)
    assert not network.training
    assert (logits.dtype, logits.requires_grad) == (torch.float32, False)
    close(logits, network((given.permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1))
                          / torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1)).detach())
    assert make_predict_fn(network, NORMALIZE, device=CPU, precision="bf16")(given).dtype == torch.float32


# ---- windows


@pytest.mark.parametrize(("window", "overlap"), CASES)
def test_windows_change_nothing_for_a_network_that_looks_at_single_pixels(window, overlap):
    whole = make_predict_fn(pixel_network(), NORMALIZE, device=CPU)
    given = make_images(2, 75, 61, 3)
    close(predict_sliding_window(whole, given, window, overlap=overlap, batch_size=3), whole(given))


@pytest.mark.parametrize("window", [(75, 61), (75, 100), (1000, 61)])
def test_a_window_of_the_images_size_or_more_is_the_whole_image(window):
    whole = make_predict_fn(wide_network(), NORMALIZE, device=CPU)
    given = make_images(1, 75, 61, 3)
    assert torch.equal(predict_sliding_window(whole, given, window, overlap=0.5, batch_size=4), whole(given))


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.8])
def test_logits_are_the_weighted_mean_over_the_windows(overlap):
    whole = make_predict_fn(wide_network(), NORMALIZE, device=CPU)
    given = make_images(1, 40, 50, 3)
    height, width = 16, 20
    total, weight = torch.zeros(1, K, 40, 50, dtype=torch.float64), torch.zeros(40, 50, dtype=torch.float64)
    hats = [np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in (height, width)]
    hat = torch.from_numpy(np.outer(*hats)).double()
    for y in window_starts(40, height, overlap):
        for x in window_starts(50, width, overlap):
            total[:, :, y:y + height, x:x + width] += hat * whole(given[:, y:y + height, x:x + width])
            weight[y:y + height, x:x + width] += hat
    found = predict_sliding_window(whole, given, (height, width), overlap=overlap, batch_size=5)
    close(found.double(), total / weight)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
def test_the_number_of_windows_at_once_and_of_images_changes_nothing(batch_size):
    whole = make_predict_fn(wide_network(), NORMALIZE, device=CPU)
    given = make_images(3, 40, 50, 3)
    together = predict_sliding_window(whole, given, (16, 20), overlap=0.4, batch_size=batch_size)
    alone = [predict_sliding_window(whole, image[None], (16, 20), overlap=0.4, batch_size=4) for image in given]
    close(together, torch.cat(alone))


def test_the_network_sees_windows_of_one_size_and_at_most_batch_size_of_them():
    seen = []

    def predict(parts):
        seen.append(tuple(parts.shape))
        return torch.zeros(len(parts), K, *parts.shape[1:3])

    predict_sliding_window(predict, make_images(1, 40, 15, 3), (16, 20), overlap=0.25, batch_size=4)
    assert {shape[1:] for shape in seen} == {(16, 15, 3)}
    assert [shape[0] for shape in seen] == [3]
    seen.clear()
    predict_sliding_window(predict, make_images(2, 40, 50, 3), (16, 20), overlap=0.25, batch_size=4)
    assert [shape[0] for shape in seen] == [4, 4, 4, 4, 2]  # 3 x 3 windows of 2 images


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize(("length", "window"), [(100, 32), (33, 32), (32, 32), (10, 32), (1000, 37), (64, 32), (9, 1)])
def test_windows_cover_everything_and_overlap_at_least_as_asked(length, window, overlap):
    found = window_starts(length, window, overlap)
    part = min(window, length)
    assert (found[0], found[-1]) == (0, length - part)
    gaps = np.diff(found)
    assert (gaps > 0).all()
    assert (gaps <= max(1, round(window * (1 - overlap)))).all()
    if len(gaps):
        assert gaps.max() - gaps.min() <= 1  # evenly


def test_no_more_windows_than_needed():
    assert window_starts(64, 32, 0.0) == [0, 32]
    assert window_starts(65, 32, 0.0) == [0, 16, 33]
    assert window_starts(96, 32, 0.5) == [0, 16, 32, 48, 64]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_weights_add_up_to_one_and_fall_off_towards_borders_inside_the_image(overlap):
    begins = window_starts(100, 24, overlap)
    weights = blending_weights(begins, 24)
    total = torch.zeros(100, dtype=torch.float64)
    for begin, weight in zip(begins, weights, strict=True):
        assert (weight > 0).all()
        total[begin:begin + 24] += weight.double()
    torch.testing.assert_close(total, torch.ones(100, dtype=torch.float64), rtol=0, atol=1e-6)
    assert weights[0][0] == 1  # at the image's own border there is no other
    if overlap:
        inner = weights[len(weights) // 2]
        assert max(inner[0], inner[-1]) < 0.2 * inner.max()
        shared = begins[0] + 24 - begins[1]
        assert (weights[0][-shared:].diff() < 0).all()


@pytest.mark.parametrize("options", [{"window": (0, 4)}, {"overlap": 1.0}, {"overlap": -0.1}, {"batch_size": 0}])
def test_arguments_out_of_range(options):
    with pytest.raises(ValueError, match="at least"):
        next(iterate_bands(lambda parts: parts, make_images(1, 8, 8, 3),
                           **{"window": (4, 4), "overlap": 0.5, "batch_size": 1, **options}))


# ---- bands


@pytest.mark.parametrize(("window", "overlap"), CASES)
def test_bands_are_the_whole_from_the_top_down(window, overlap):
    whole = make_predict_fn(wide_network(), NORMALIZE, device=CPU)
    given = make_images(1, 75, 61, 3)
    found = list(iterate_bands(whole, given, window, overlap=overlap, batch_size=4))
    heights = [logits.shape[2] for _, logits in found]
    assert [top for top, _ in found] == [sum(heights[:number]) for number in range(len(heights))]
    assert sum(heights) == 75
    assert torch.equal(torch.cat([logits for _, logits in found], 2),
                       predict_sliding_window(whole, given, window, overlap=overlap, batch_size=4))


def test_a_band_that_was_handed_out_does_not_change_any_more():
    whole = make_predict_fn(wide_network(), NORMALIZE, device=CPU)
    given = make_images(1, 60, 30, 3)
    found = [(logits, logits.clone()) for _, logits in iterate_bands(whole, given, (20, 20), overlap=0.6, batch_size=4)]
    assert len(found) > 3
    assert all(torch.equal(logits, copy) for logits, copy in found)


def test_memory_does_not_grow_with_the_height_of_a_image():
    """Count the elements of every tensor that is made: at no time is one as large as the logits of the image."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                Largest.elements = max(Largest.elements, result.numel())
            return result

    def predict(parts):
        return torch.zeros(len(parts), K, *parts.shape[1:3])

    width, window, batch_size = 200, (16, 32), 4
    most = max(K * window[0] * width, batch_size * K * math.prod(window))
    for height in (64, 1024):
        Largest.elements = 0
        with Largest():
            rows = sum(logits.shape[2] for _, logits in iterate_bands(predict, make_images(1, height, width, 3), window,
                                                              overlap=0.5, batch_size=batch_size))
        assert rows == height
        assert 0 < Largest.elements <= most


# ---- flip TTA


def test_flip_is_the_mean_of_both_views():
    whole = make_predict_fn(wide_network(), NORMALIZE, device=CPU)
    given = make_images(2, 20, 31, 3)
    mirror = torch.from_numpy(np.ascontiguousarray(given.numpy()[:, :, ::-1]))
    close(predict_with_flip_tta(whole, given), (whole(given) + whole(mirror).flip(-1)) / 2)
    assert not torch.allclose(predict_with_flip_tta(whole, given), whole(given), atol=1e-3)


def test_flip_changes_nothing_for_a_network_that_knows_no_left_and_right():
    network = wide_network()
    with torch.no_grad():
        for layer in (network[0], network[3]):
            layer.weight.add_(layer.weight.flip(-1).clone())
    whole = make_predict_fn(network, NORMALIZE, device=CPU)
    given = make_images(2, 20, 31, 3)
    close(predict_with_flip_tta(whole, given), whole(given))


# ---- scales


def test_scales_average_the_logits_of_resized_images_resized_back():
    whole = make_predict_fn(wide_network(), NORMALIZE, device=CPU)
    given = make_images(2, 40, 64, 3)
    expected = [whole(given)]
    for size in ((32, 48), (50, 80)):  # 0.75 makes 30 rows, and no network takes fewer than 32
        resized = F.interpolate(given.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
        logits = whole(resized.round().to(torch.uint8).permute(0, 2, 3, 1))
        expected.append(F.interpolate(logits, (40, 64), mode="bilinear"))
    found = make_predict_fn(wide_network(), NORMALIZE, InferenceSettings(scales=(0.75, 1, 1.25)), device=CPU)(given)
    close(found, sum(expected) / 3)
    assert not torch.allclose(found, expected[0], atol=1e-3)


# ---- together


@pytest.mark.parametrize("settings", [
    InferenceSettings(), InferenceSettings(flip=True), InferenceSettings((16, 20), 0.5),
    InferenceSettings((16, 20), 0.5, flip=True)])
def test_predictor_puts_the_parts_together_and_counts_its_passes(settings):
    passes = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = pixel_network()

        def forward(self, images):
            passes.extend([tuple(images.shape[2:])] * len(images))
            return self.inner(images)

    network, given = Counted(), make_images(1, 40, 50, 3)
    predict = make_predict_fn(network, NORMALIZE, settings, device=CPU, precision="fp32", batch_size=2)
    close(predict(given), make_predict_fn(network.inner, NORMALIZE, device=CPU)(given))
    assert Counter(passes) == settings.passes((40, 50))


def test_every_scale_of_every_window_is_a_pass():
    settings = InferenceSettings((40, 40), 0.5, flip=True, scales=(0.5, 1, 1.5))
    assert settings.passes((40, 100)) == {(32, 32): 8, (40, 40): 8, (60, 60): 8}  # windows at 0, 20, 40 and 60, flipped


def test_what_results_say_of_it():
    assert InferenceSettings().as_results() == {"window": None, "overlap": None, "flip": False, "scales": [1.0]}
    assert InferenceSettings((32, 64), 0.25, flip=True, scales=(1, 2)).as_results() == {
        "window": [32, 64], "overlap": 0.25, "flip": True, "scales": [1, 2]}
