"""Predict files: images while others are read and written, videos frame by frame."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from segtrain.data.image_form import Pixels, read_pixels
from segtrain.data.images import FORMATS
from segtrain.data.threads import MAX_PENDING_PIXELS, run_in_order
from segtrain.errors import UserError
from segtrain.files import open_regular
from segtrain.inference.inputs import Item
from segtrain.inference.large_images import LargeImage, open_large
from segtrain.inference.predictor import Predictor
from segtrain.inference.video import VideoReader, open_video
from segtrain.inference.writers import Outputs, open_probabilities
from segtrain.terminal import printable
from segtrain.visualize import add_legend, blend

log = logging.getLogger(__name__)


def predict_items(items: Sequence[Item], predictor: Predictor, outputs: Outputs) -> dict[str, Any]:
    """Predict images, then videos; a file that cannot be read is reported and skipped.

    Returns:
        The counts, times and failures for results.json; `failed` is a list of {file, reason}.

    Raises:
        UserError: If an output cannot be written.
    """
    failed: list[dict[str, str]] = []
    num_images = num_windowed = num_videos = num_frames = 0
    video_seconds = 0.0

    def fail(item: Item, reason: str) -> None:
        log.warning("failed: %s", reason)
        failed.append({"file": str(item.path), "reason": reason})

    def note_window(item: Item, window: tuple[int, int]) -> None:
        nonlocal num_windowed
        num_windowed += 1
        log.info("%s is too large to be predicted whole: it is cut into windows of %dx%d, which overlap and are "
                 "blended; task.window= sets others", item.path, window[1], window[0])

    images = [item for item in items if not item.is_video]
    started = time.perf_counter()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large images are predicted in windows
    with (logging_redirect_tqdm([logging.getLogger("segtrain")]),
          tqdm(total=len(images), desc="predicting", unit="image", leave=False, disable=None) as bar):
        for item, error in predict_images(images, predictor, outputs, on_window=note_window):
            bar.update()
            if error is None:
                num_images += 1
            else:
                fail(item, str(error))
    image_seconds = time.perf_counter() - started
    for item in items:
        if not item.is_video:
            continue
        try:
            with tqdm(desc=printable(item.path.name), unit="frame", leave=False, disable=None) as bar:
                frames, seconds, fault = predict_video(item, predictor, outputs, bar.update)
        except UserError as error:
            fail(item, str(error))
            continue
        log.info("%s: %d frames in %.1f s, %s frames a second", item.path, frames, seconds, f"{frames / seconds:.3g}")
        num_videos, num_frames, video_seconds = num_videos + 1, num_frames + frames, video_seconds + seconds
        if fault is not None:
            fail(item, fault)
    return {"num_images": num_images, "num_videos": num_videos, "num_frames": num_frames, "num_windowed": num_windowed,
            "num_failed": len(failed), "failed": failed, "seconds": image_seconds + video_seconds,
            "images_per_second": num_images / image_seconds if num_images else None,
            "frames_per_second": num_frames / video_seconds if num_frames else None}


# ---- images


def predict_images(items: Sequence[Item], predictor: Predictor, outputs: Outputs, *,
                   on_window: Callable[[Item, tuple[int, int]], None]) -> Iterator[tuple[Item, UserError | None]]:
    """Predict images and write their outputs.

    `on_window` is called with an image that is too large to be predicted whole, and the window that it is cut into.

    Yields:
        Each image once it is written, with None; or with the error, if it cannot be read.

    Raises:
        UserError: If an output cannot be written.
    """
    unreadable: list[tuple[Item, UserError]] = []

    def read(item: Item) -> Pixels | LargeImage | UserError:
        try:
            return open_large(item.path, outputs.image_form) or read_pixels(item.path, outputs.image_form)
        except UserError as error:
            return error

    def readable() -> Iterator[tuple[Item, Pixels | LargeImage]]:
        jobs = ((_count_pixels(item.path), partial(read, item)) for item in items)
        for item, image in zip(items, run_in_order(jobs), strict=True):
            if isinstance(image, UserError):
                unreadable.append((item, image))
            else:
                yield item, image

    def to_write() -> Iterator[tuple[int, Callable[[], Item]]]:
        for batch in _batch_by_size(readable(), lambda size: predictor.plan(size).num_images):
            group, images = [item for item, _ in batch], _stack([image for _, image in batch])
            size = (images.shape[1], images.shape[2])
            plan = predictor.plan(size)
            if plan.is_too_large and plan.settings.window is not None:
                on_window(group[0], plan.settings.window)
            with ExitStack() as stack:
                writers = [stack.enter_context(open_probabilities(
                    outputs.path("probabilities", item, ".npy"), (len(outputs.labels), *size))) for item in group
                ] if outputs.probabilities else []

                def write_rows(top: int, values: np.ndarray, writers: Any = writers) -> None:
                    for write, rows in zip(writers, values, strict=True):
                        write(top, rows)

                preds = predictor(images, write_rows if writers else None)
            for (item, image), pred in zip(batch, preds, strict=True):
                yield pred.size, partial(outputs.write, item, image, pred)

    for item in run_in_order(to_write()):
        while unreadable:
            yield unreadable.pop(0)
        yield item, None
    yield from unreadable


def _count_pixels(path: Path) -> int:
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # whatever is wrong is reported when it is read
        return 0


def _stack(images: Sequence[Pixels | LargeImage]) -> np.ndarray | LargeImage:
    """Return images of one size as a batch; a large one is a batch by itself."""
    if isinstance(images[0], LargeImage):
        return images[0]
    return np.stack([image.image for image in images if not isinstance(image, LargeImage)])


_Waiting = list[tuple[Item, Pixels | LargeImage]]


def _batch_by_size(images: Iterable[tuple[Item, Pixels | LargeImage]],
                   max_images: Callable[[tuple[int, int]], int]) -> Iterator[_Waiting]:
    """Batch images of one size, up to `max_images` of it; where too many wait, yield those of the oldest size."""
    waiting: dict[tuple[int, int], _Waiting] = {}
    for item, image in images:
        if isinstance(image, LargeImage):
            yield [(item, image)]
            continue
        size = (image.image.shape[0], image.image.shape[1])
        waiting.setdefault(size, []).append((item, image))
        if len(waiting[size]) >= max_images(size):
            yield waiting.pop(size)
        elif sum(math.prod(other) * len(group) for other, group in waiting.items()) > MAX_PENDING_PIXELS:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


# ---- videos


@contextmanager
def _ended_by_ctrl_c(item: Item) -> Iterator[None]:
    """Let Ctrl-C end what is recorded of a stream, which may have no end of its own, and keep it."""
    try:
        yield
    except KeyboardInterrupt:
        if item.stream is None:
            raise


def predict_video(item: Item, predictor: Predictor, outputs: Outputs,
                  after_batch: Callable[[int], object]) -> tuple[int, float, str | None]:
    """Write a video overlaid with its predictions, above a legend of all classes.

    `after_batch` is called with the number of frames of each batch.

    Returns:
        The number of frames, the seconds that they took, and an error message if the video breaks off.

    Raises:
        UserError: If it cannot be read or written at all.
    """
    started = time.perf_counter()
    if outputs.image_form.channels is not None:
        raise UserError(f"{item.path} is a video, whose frames are red, green and blue of 8 bits, but the network "
                        f"takes images of dataset.channels={outputs.image_form.channels}: give it images.")
    reader = VideoReader(item.path, item.stream)
    batch_size = predictor.plan(reader.size).num_images
    blank = add_legend(np.zeros((*reader.size, 3), np.uint8), outputs.labels)
    size = (blank.shape[0] + blank.shape[0] % 2, blank.shape[1] + blank.shape[1] % 2)  # players want even sides
    num_frames, frames = 0, reader.frames()
    path = outputs.path("videos", item, ".mp4")
    with open_video(path, reader.frames_per_second, size) as write, _ended_by_ctrl_c(item):
        while batch := list(islice(frames, batch_size)):
            for frame, pred in zip(batch, predictor(np.stack(batch)), strict=True):
                shown = add_legend(blend(frame, pred, outputs.labels), outputs.labels)
                write(np.pad(shown, ((0, size[0] - shown.shape[0]), (0, size[1] - shown.shape[1]), (0, 0)),
                             constant_values=255))
            num_frames += len(batch)
            after_batch(len(batch))
    fault = None
    is_short = num_frames < 0.99 * reader.num_frames - 2  # the length that a file states may be an estimate
    if item.stream is None and is_short:
        fault = (f"{item.path} breaks off: {num_frames} of its {reader.num_frames} frames could be read; they are in "
                 f"{path}. Repair the file or copy it again.")
    return num_frames, time.perf_counter() - started, fault
