"""Run an exported network as its users will, in onnxruntime, OpenCV or torch.export, and compare what it gives."""

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from segtrain.export.traced import INPUT
from segtrain.profiling import timed

Runner = Callable[[np.ndarray], np.ndarray]  # the file's input -> its output

# The differences of rounding stay below: of the logits' mean and largest difference as shares of their standard
# deviation, and of the pixels of the same class. The largest known are those of a ResNet-101 with random weights, of
# which torch's own float32 is 2e-4 on average from its float64. Networks that hand on the places of maxima have limits
# of their own, for where two maxima are equal but for rounding, a runtime may take the other one.
MEAN_TOLERANCE, MAX_TOLERANCE, AGREEMENT = 5e-4, 1e-2, 0.999
PLACES_MEAN_TOLERANCE, PLACES_AGREEMENT = 1e-2, 0.99
LONGEST_SIDE = 640  # of the pictures to check with
WARMUP, MOST_TURNS, LEAST_TURNS, SECONDS = 1, 10, 3, 2.0  # of timings; no turn begins after so many seconds each


@dataclass(frozen=True)
class Check:
    """What a runtime gave for pictures of one size, beside what evaluation computes for them.

    Attributes:
        size: [height, width] of the pictures.
        num_images: How many at once.
        max_error: The largest difference of a logit; None for a file that gives labels.
        max_relative: The same as a share of the logits' standard deviation.
        mean_relative: The mean difference as a share of it.
        agreement: The share of pixels of the same class.
        passed: Whether these differences are those of rounding.
    """

    size: list[int]
    num_images: int
    max_error: float | None
    max_relative: float | None
    mean_relative: float | None
    agreement: float
    passed: bool

    def as_results(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        height, width = self.size
        images = "1 image" if self.num_images == 1 else f"{self.num_images} images"
        logits = "" if self.max_relative is None else (
            f"; logits differ by {self.max_relative:.1e} of their spread at most, {self.mean_relative:.1e} on average")
        return f"{images} of {width}x{height}: {100 * self.agreement:.3f} % of the pixels have the same class{logits}"


def compare(actual: np.ndarray, logits: np.ndarray, *, places: bool) -> Check:
    """Compare what a file gave with the logits that it should have given.

    Args:
        actual: Logits, float (N, K, H, W), or labels (N, H, W).
        logits: float (N, K, H, W).
        places: Whether the network hands on the places of maxima, as `portable.passes_places` says. Then single pixels
            may differ much, and only their mean and the classes count.

    Raises:
        ValueError: If the shapes differ.
    """
    expected, least = logits.argmax(1), PLACES_AGREEMENT if places else AGREEMENT
    num_images, (height, width) = len(logits), logits.shape[2:]
    if actual.shape not in (logits.shape, expected.shape):
        raise ValueError(f"its output has the shape {actual.shape} instead of {logits.shape}")
    if actual.ndim == 3:
        agreement = float((actual == expected).mean())
        return Check([height, width], num_images, None, None, None, agreement, agreement >= least)
    agreement = float((actual.argmax(1) == expected).mean())
    difference = np.abs(actual.astype(np.float64) - logits)
    spread = float(logits.std()) or 1.0
    largest, mean = float(difference.max()), float(difference.mean())
    if not np.isfinite(largest):  # JSON knows no other
        largest = mean = float(np.finfo(np.float32).max)
    passed = agreement >= least and mean <= spread * (PLACES_MEAN_TOLERANCE if places else MEAN_TOLERANCE) and (
        places or largest <= MAX_TOLERANCE * spread)
    return Check([height, width], num_images, largest, largest / spread, mean / spread, agreement, passed)


def check_batches(images: Sequence[np.ndarray], size: tuple[int, int] | None) -> list[np.ndarray]:
    """Make batches to check a file with: of three sizes, or of the only one that the file takes.

    Args:
        images: A few, uint8 (H, W, C).
        size: (height, width) of the file's only size; None: any.

    Returns:
        uint8 (N, H, W, C): an image in its own size, 640 pixels at most; two of odd sides; one in portrait.
    """
    if size is not None:
        return [_resized(image, *size)[None] for image in images]
    height, width = images[0].shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    height, width = max(32, round(scale * height)), max(32, round(scale * width))
    odd_height, odd_width = (max(33, 3 * side // 4 | 1) for side in (height, width))
    small_height, small_width = max(32, width // 2), max(32, height // 2)
    return [_resized(images[0], height, width)[None],
            np.stack([_resized(images[index % len(images)], odd_height, odd_width) for index in (0, 1)]),
            _resized(images[-1], small_height, small_width)[None]]


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def as_input(pictures: np.ndarray, labels: bool) -> np.ndarray:
    """Turn pictures, uint8 (N, H, W, C), into what the exported file reads."""
    return pictures if labels else np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), dtype=np.float32)


def onnxruntime_runner(path: Path) -> Runner:
    """Load a file into onnxruntime, on the CPU, with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.force_spinning_stop", "1")  # its idle threads leave the CPU to others
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {INPUT: image})[0]


def opencv_runner(path: Path) -> Runner:
    """Load a file into OpenCV's dnn module, with as many threads as torch uses."""
    cv2.setNumThreads(torch.get_num_threads())
    with _opencv_quiet():
        net = cv2.dnn.readNetFromONNX(str(path))

    def run(image: np.ndarray) -> np.ndarray:
        with _opencv_quiet():
            net.setInput(image, INPUT)
            return np.asarray(net.forward()).copy()

    return run


def pt2_runner(path: Path) -> Runner:
    """Load a file of torch.export."""
    module = torch.export.load(str(path)).module()

    @torch.inference_mode()
    def run(image: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(image)).numpy()

    return run


def medians_ms(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median milliseconds of a few calls of each function, on the CPU.

    They take turns, so that what else the machine does slows all of them alike, and their ratios can be trusted.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(WARMUP + MOST_TURNS):
        if turn >= WARMUP + LEAST_TURNS and sum(map(sum, taken.values())) > SECONDS * len(runs):
            break
        for name, run in runs.items():
            taken[name] += timed(run, torch.device("cpu"), warmup=0, repeats=1, seconds=0)
    return {name: 1000 * statistics.median(seconds[WARMUP:]) for name, seconds in taken.items()}


@contextlib.contextmanager
def _opencv_quiet() -> Iterator[None]:
    """Keep OpenCV from writing to the terminal what its exceptions say too."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
