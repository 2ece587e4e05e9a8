"""From files to files: pictures are read, predicted and written side by side, videos frame by frame."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segtrain.data.images import FORMATS, read_image
from segtrain.data.label_files import FileForm, make_folder, write_label_map
from segtrain.data.threads import MAX_PENDING_PIXELS, run_in_order
from segtrain.errors import UserError
from segtrain.files import write_file
from segtrain.inference.inputs import Item
from segtrain.inference.predictor import Predictor
from segtrain.inference.writers import ProbabilityFile, VideoReader, VideoWriter
from segtrain.labels import Label
from segtrain.visualize import blended, occurring, with_legend

FOLDERS = ("predictions", "overlays", "probabilities", "videos")
JPEG_QUALITY = 90
JPEG_SIDE = 65500  # the longest that the format takes


@dataclass(frozen=True)
class Outputs:
    """Where predictions go, and what is written.

    Attributes:
        folder: Of all that is written.
        labels: The classes.
        form: What index pictures hold.
        overlays: Whether pictures are also shown under their predictions.
        probabilities: Whether the probabilities of all classes are kept, too.
    """

    folder: Path
    labels: Sequence[Label]
    form: FileForm
    overlays: bool
    probabilities: bool

    def path(self, kind: str, item: Item, suffix: str) -> Path:
        """Return a file of one kind of output; its folder is made."""
        path = self.folder / kind / f"{item.name}{suffix}"
        make_folder(path.parent)
        return path

    def is_done(self, item: Item) -> bool:
        """Say whether all of an item's outputs are there, and are not older than it is."""
        wanted = [("videos", ".mp4")] if item.is_video else [("predictions", ".png")]
        if not item.is_video:
            wanted += [("overlays", ".jpg")] * self.overlays + [("probabilities", ".npy")] * self.probabilities
        paths = [self.folder / kind / f"{item.name}{suffix}" for kind, suffix in wanted]
        return all(path.is_file() and path.stat().st_mtime >= item.path.stat().st_mtime for path in paths)

    def write(self, item: Item, image: np.ndarray, pred: np.ndarray) -> Item:
        """Write a picture's overlay and its index picture; image is uint8 (H, W, 3), pred uint8 (H, W) train ids."""
        if self.overlays:
            drawn = blended(image, pred, self.labels)
            if max(drawn.shape) <= JPEG_SIDE:
                drawn = with_legend(drawn, occurring(pred, self.labels))
            scale = min(1.0, JPEG_SIDE / max(drawn.shape))
            if scale < 1:
                drawn = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            write_file(self.path("overlays", item, ".jpg"),
                        lambda file: Image.fromarray(drawn).save(file, format="JPEG", quality=JPEG_QUALITY))
        # last, for where it is, all is
        write_label_map(self.path("predictions", item, ".png"), pred, self.labels, self.form)
        return item


def predict_pictures(items: Sequence[Item], predictor: Predictor, outputs: Outputs, *, image_bits: int | None,
                     failed: Callable[[Item, UserError], None], windowed: Callable[[Item, tuple[int, int]], None],
                     done: Callable[[Item], None]) -> None:
    """Predict pictures and write what is wanted of each.

    Args:
        items: The pictures.
        predictor: What makes predictions.
        outputs: What is written, and where.
        image_bits: How many of 16 bits are used, as of `read_image`.
        failed: Called with a picture that cannot be read; the others go on.
        windowed: Called with a picture that is too large to be taken whole, and the windows that it is cut into.
        done: Called with each picture that is predicted and written.

    Raises:
        UserError: If an output cannot be written.
    """

    def read(item: Item) -> np.ndarray | UserError:
        try:
            return read_image(item.path, image_bits)
        except UserError as error:
            return error

    def readable() -> Iterator[tuple[Item, np.ndarray]]:
        jobs = ((_pixels(item.path), partial(read, item)) for item in items)
        for item, image in zip(items, run_in_order(jobs), strict=True):
            if isinstance(image, UserError):
                failed(item, image)
            else:
                yield item, image

    def to_write() -> Iterator[tuple[int, Callable[[], Item]]]:
        for group, images in _batches(readable(), lambda size: predictor.plan(size).num_images):
            size = images.shape[1:3]
            plan = predictor.plan((size[0], size[1]))
            if plan.is_too_large and plan.settings.window is not None:
                windowed(group[0], plan.settings.window)
            with ExitStack() as stack:
                files = [stack.enter_context(ProbabilityFile(
                    outputs.path("probabilities", item, ".npy"), (len(outputs.labels), *size))) for item in group
                ] if outputs.probabilities else []

                def keep(top: int, values: np.ndarray, files: list[ProbabilityFile] = files) -> None:
                    for file, each in zip(files, values, strict=True):
                        file.write(top, each)

                preds = predictor(images, keep if files else None)
            for item, image, pred in zip(group, images, preds, strict=True):
                yield pred.size, partial(outputs.write, item, image, pred)

    for item in run_in_order(to_write()):
        done(item)


def _pixels(path: Path) -> int:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return picture.width * picture.height
    except Exception:  # whatever is wrong comes up when it is read
        return 0


def _batches(images: Iterable[tuple[Item, np.ndarray]],
             most: Callable[[tuple[int, int]], int]) -> Iterator[tuple[list[Item], np.ndarray]]:
    """Put images of one size together, as many as `most` says of it; a size that others keep waiting goes alone."""
    waiting: dict[tuple[int, int], list[tuple[Item, np.ndarray]]] = {}
    for item, image in images:
        size = (image.shape[0], image.shape[1])
        waiting.setdefault(size, []).append((item, image))
        if len(waiting[size]) >= most(size):
            yield _stacked(waiting.pop(size))
        elif sum(math.prod(each) * len(group) for each, group in waiting.items()) > MAX_PENDING_PIXELS:
            yield _stacked(waiting.pop(next(iter(waiting))))
    for group in waiting.values():
        yield _stacked(group)


def _stacked(group: list[tuple[Item, np.ndarray]]) -> tuple[list[Item], np.ndarray]:
    images = [image for _, image in group]
    return [item for item, _ in group], images[0][None] if len(images) == 1 else np.stack(images)


def predict_video(item: Item, predictor: Predictor, outputs: Outputs,
                  after_batch: Callable[[int], object]) -> tuple[int, float, str | None]:
    """Write a video that shows another under its predictions, over a legend of all classes.

    Args:
        item: The video.
        predictor: What makes predictions.
        outputs: Where it goes.
        after_batch: Called with the number of frames of each batch.

    Returns:
        Its frames, the seconds that they took, and what was wrong with it in the end, if it broke off.

    Raises:
        UserError: If it cannot be read or written at all.
    """
    started = time.perf_counter()
    reader = VideoReader(item.path)
    at_once = predictor.plan(reader.size).num_images
    blank = with_legend(np.zeros((*reader.size, 3), np.uint8), outputs.labels)
    size = (blank.shape[0] + blank.shape[0] % 2, blank.shape[1] + blank.shape[1] % 2)  # players want even sides
    num_frames = 0
    with VideoWriter(outputs.path("videos", item, ".mp4"), reader.frames_per_second, size) as writer:
        for frames in _grouped(reader.frames(), at_once):
            for frame, pred in zip(frames, predictor(frames), strict=True):
                shown = with_legend(blended(frame, pred, outputs.labels), outputs.labels)
                writer.write(np.pad(shown, ((0, size[0] - shown.shape[0]), (0, size[1] - shown.shape[1]), (0, 0)),
                                    constant_values=255))
            num_frames += len(frames)
            after_batch(len(frames))
    fault = None
    if num_frames < 0.99 * reader.num_frames - 2:  # what a file says of its length may be an estimate
        fault = (f"{item.path} breaks off: {num_frames} of its {reader.num_frames} frames could be read; they are in "
                 f"{outputs.path('videos', item, '.mp4')}. Repair the file or copy it anew.")
    return num_frames, time.perf_counter() - started, fault


def _grouped(frames: Iterable[np.ndarray], number: int) -> Iterator[np.ndarray]:
    group: list[np.ndarray] = []
    for frame in frames:
        group.append(frame)
        if len(group) == number:
            yield np.stack(group)
            group = []
    if group:
        yield np.stack(group)
