"""Run an exported file in the runtimes of its format, and compare the outputs with the checkpoint's predictions."""

import contextlib
import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from segtrain.data.image_form import RGB, ImageForm
from segtrain.errors import UserError
from segtrain.export.program import INPUT
from segtrain.profiling import time_runs

log = logging.getLogger(__name__)
Runner = Callable[[np.ndarray], np.ndarray]  # the file's input -> its output

# Limits of rounding errors: the mean and the largest difference of logits relative to their standard deviation, and the
# share of pixels of the same class. The largest known errors are those of a ResNet-101 with random weights, whose
# float32 logits differ from float64 by 2e-4 on average. Networks that reuse max-pooling indices have wider limits:
# where two maxima are equal up to rounding, a runtime may choose the other one.
MEAN_TOLERANCE, MAX_TOLERANCE, AGREEMENT = 5e-4, 1e-2, 0.999
INDICES_MEAN_TOLERANCE, INDICES_AGREEMENT = 1e-2, 0.99
MAX_SIDE = 640  # pixels, of the images to check with
WARMUP, MAX_TURNS, MIN_TURNS, SECONDS = 1, 10, 3, 2.0  # of timings; no turn starts after so many seconds per function


@dataclass(frozen=True)
class Comparison:
    """A runtime's output for images of one size, compared with the checkpoint's.

    Attributes:
        size: [height, width] of the images.
        max_error: The largest difference of a logit; None for a file that returns labels.
        max_relative, mean_relative: The largest and the mean difference relative to the logits' standard deviation.
        agreement: The share of pixels of the same class.
        passed: Whether rounding explains the differences.
    """

    size: list[int]
    num_images: int
    max_error: float | None
    max_relative: float | None
    mean_relative: float | None
    agreement: float
    passed: bool

    def __str__(self) -> str:
        height, width = self.size
        images = "1 image" if self.num_images == 1 else f"{self.num_images} images"
        logits = "" if self.max_relative is None else (
            f"; logits differ by {self.max_relative:.1e} of their spread at most, {self.mean_relative:.1e} on average")
        return f"{images} of {width}x{height}: {100 * self.agreement:.3f} % of the pixels have the same class{logits}"


def verify_file(path: Path, batches: Sequence[np.ndarray], predict: Callable[[torch.Tensor], torch.Tensor], *,
                labels: bool, pooling_indices: bool, opencv: bool, form: ImageForm = RGB) -> dict[str, Any]:
    """Run an .onnx or .pt2 file in the runtimes of its format, compare and time them.

    Args:
        path: The file.
        batches: Images, (N, H, W, C), of several sizes.
        predict: Computes the checkpoint's logits of images, float32 (N, K, H, W), on the CPU.
        labels: Whether the file returns labels.
        pooling_indices: Whether the network reuses max-pooling indices.
        opencv: Whether to run an .onnx file in OpenCV too.
        form: What images are read as.

    Returns:
        The entries `checks`, `opencv_error`, `latency_ms` and `latency_size` of results.json.

    Raises:
        UserError: If a runtime's outputs differ from the checkpoint's, or the one that the format is for cannot run it.
    """
    logits = [predict(torch.tensor(batch)).numpy() for batch in batches]
    calls: dict[str, Callable[[], object]] = {"torch": lambda: predict(torch.tensor(batches[0]))}
    checks: dict[str, Any] = {}
    opencv_error = None
    for name, load in runtimes(path, opencv=opencv).items():
        try:
            run = load(path)
            found = [compare(run(as_input(batch, labels, form)), expected, pooling_indices=pooling_indices)
                     for batch, expected in zip(batches, logits, strict=True)]
        except Exception as error:  # runtimes raise their own errors
            reason = " ".join(str(error).split())[:300]
            if name != "opencv":
                raise UserError(f"{name} cannot run the exported file ({reason}), which is not kept: try another "
                                "version of it or of torch.") from error
            opencv_error = reason
            log.warning("warning: OpenCV cannot run it (%s); onnxruntime can. task.size=[height,width] may help, "
                        "task.opencv=false leaves this check out.", reason)
            continue
        for comparison in found:
            log.info("  %-12s %s", name, comparison)
            if not comparison.passed:
                raise UserError(_explain_mismatch(name, comparison))
        checks[name] = [asdict(comparison) for comparison in found]
        calls[name] = partial(run, as_input(batches[0], labels, form))
    times = measure_ms(calls)
    height, width = batches[0].shape[1:3]
    log.info("one image of %dx%d takes: %s (CPU, threads: %d)", width, height,
             ", ".join(f"{name} {time:.0f} ms" for name, time in times.items()), torch.get_num_threads())
    return {"checks": checks, "opencv_error": opencv_error, "latency_ms": times, "latency_size": [height, width]}


def _explain_mismatch(name: str, comparison: Comparison) -> str:
    remedy = ("task.opencv=false exports it for other runtimes" if name == "opencv" else
              f"try another version of {name} or of torch")
    return (f"the exported file gives other results in {name} than the checkpoint in torch, and is not kept. "
            f"{comparison}. This is a fault of {name}, of torch's exporter, or of a network's forward that branches on "
            f"its input: {remedy}.")


def compare(actual: np.ndarray, logits: np.ndarray, *, pooling_indices: bool) -> Comparison:
    """Compare a file's output with the expected logits.

    Args:
        actual: Logits, float (N, K, H, W), or labels (N, H, W).
        logits: float (N, K, H, W).
        pooling_indices: Whether the network reuses max-pooling indices. Single logits may then differ much, and only
            the mean and the classes are checked.

    Raises:
        ValueError: If the shapes differ.
    """
    expected, min_agreement = logits.argmax(1), INDICES_AGREEMENT if pooling_indices else AGREEMENT
    num_images, (height, width) = len(logits), logits.shape[2:]
    if actual.shape not in (logits.shape, expected.shape):
        raise ValueError(f"its output has the shape {actual.shape} instead of {logits.shape}")
    if actual.ndim == 3:
        agreement = float((actual == expected).mean())
        return Comparison([height, width], num_images, None, None, None, agreement, agreement >= min_agreement)
    agreement = float((actual.argmax(1) == expected).mean())
    difference = np.abs(actual.astype(np.float64) - logits)
    spread = float(logits.std()) or 1.0
    largest, mean = float(difference.max()), float(difference.mean())
    if not np.isfinite(largest):  # which JSON cannot hold
        largest = mean = float(np.finfo(np.float32).max)
    passed = agreement >= min_agreement and (
        mean <= spread * (INDICES_MEAN_TOLERANCE if pooling_indices else MEAN_TOLERANCE)) and (
        pooling_indices or largest <= MAX_TOLERANCE * spread)
    return Comparison([height, width], num_images, largest, largest / spread, mean / spread, agreement, passed)


# ---- inputs


def make_batches(images: Sequence[np.ndarray], size: tuple[int, int] | None) -> list[np.ndarray]:
    """Make batches, (N, H, W, C), from a few images, (H, W, C), to check a file with.

    They have the file's only size, (height, width), or three sizes: an image in its own size, 640 pixels at most; two
    with odd sides; one in portrait.
    """
    if size is not None:
        return [_resize(image, *size)[None] for image in images]
    height, width = images[0].shape[:2]
    scale = min(1.0, MAX_SIDE / max(height, width))
    height, width = max(32, round(scale * height)), max(32, round(scale * width))
    odd_height, odd_width = (max(33, 3 * side // 4 | 1) for side in (height, width))
    small_height, small_width = max(40, width // 2), max(40, height // 2)
    return [_resize(images[0], height, width)[None],
            np.stack([_resize(images[index % len(images)], odd_height, odd_width) for index in (0, 1)]),
            _resize(images[-1], small_height, small_width)[None]]


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    channels = np.moveaxis(image, 2, 0)  # one by one: OpenCV takes four at once
    return np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_AREA) for channel in channels], -1)


def as_input(images: np.ndarray, labels: bool, form: ImageForm = RGB) -> np.ndarray:
    """Return images, (N, H, W, C), as input of the exported file."""
    images = form.unscale(images)
    return images if labels else np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


# ---- runtimes


def runtimes(path: Path, *, opencv: bool) -> dict[str, Callable[[Path], Runner]]:
    """Return the runtimes of a file's format: names, and functions that load the file."""
    if path.suffix == ".pt2":
        return {"torch.export": load_in_torch_export}
    return {"onnxruntime": load_in_onnxruntime, **({"opencv": load_in_opencv} if opencv else {})}


def load_in_onnxruntime(path: Path) -> Runner:
    """Load a file into onnxruntime, on the CPU, with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its idle threads do not block the CPU
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {INPUT: image})[0]


def load_in_opencv(path: Path) -> Runner:
    """Load a file into OpenCV's dnn module, with as many threads as torch uses."""
    cv2.setNumThreads(torch.get_num_threads())
    with _opencv_quiet():
        net = cv2.dnn.readNetFromONNX(str(path))

    def run(image: np.ndarray) -> np.ndarray:
        with _opencv_quiet():
            net.setInput(image, INPUT)
            return np.asarray(net.forward()).copy()

    return run


def load_in_torch_export(path: Path) -> Runner:
    """Load a file of torch.export."""
    module = torch.export.load(str(path)).module()

    @torch.inference_mode()
    def run(image: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(image)).numpy()

    return run


def measure_ms(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median milliseconds of a few calls of each function, on the CPU.

    The functions take turns, so that a busy machine slows all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARMUP + MAX_TURNS):
        if turn >= WARMUP + MIN_TURNS and sum(map(sum, taken.values())) > SECONDS * len(calls):
            break
        for name, call in calls.items():
            taken[name] += time_runs(call, torch.device("cpu"), warmup=0, repeats=1, seconds=0)
    return {name: 1000 * statistics.median(seconds[WARMUP:]) for name, seconds in taken.items()}


@contextlib.contextmanager
def _opencv_quiet() -> Iterator[None]:
    """Silence OpenCV's messages on the terminal, which its exceptions repeat."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
