"""Read and write videos frame by frame, through OpenCV."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from segtrain.errors import UserError
from segtrain.files import atomic_path, check_regular, is_utf8

CODEC = "mp4v"  # MPEG-4 Part 2: all packages of OpenCV can write it, not all can write H.264


def _ffmpeg_hint() -> str:
    """Return what this OpenCV lacks, if anything."""
    if re.search(r"FFMPEG:\s+YES", cv2.getBuildInformation()):
        return ""
    return (" This OpenCV is built without FFMPEG, and reads and writes hardly any video: pip install "
            "opencv-python-headless gives one with it.")


def _check_name(path: Path) -> None:
    """Raise UserError for a name that OpenCV does not take."""
    if not is_utf8(path):
        raise UserError(f"{path} cannot be opened by OpenCV, because its name is not UTF-8: rename it.")


class VideoReader:
    """A video's frames, rotated as the file says; UserError if it cannot be opened.

    `stream` is a URL or the number of a camera, of which `path` is only the name.

    Attributes:
        frames_per_second: As the file states; 25 if it states no possible value.
        num_frames: As the file states, which may be an estimate; 0 if unknown.
        size: (height, width).
    """

    def __init__(self, path: Path, stream: str | int | None = None) -> None:
        if stream is None:
            try:
                check_regular(path)
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error}): replace or remove it.") from error
            _check_name(path)
        self._capture = cv2.VideoCapture(str(path) if stream is None else stream)
        done, self._first = self._capture.read()
        if not done:
            self._capture.release()
            if stream is not None:
                what = f"camera {stream}" if isinstance(stream, int) else f"the stream {path}"
                raise UserError(f"{what} cannot be opened by OpenCV: check that it is there and that nothing else uses "
                                f"it, or give a file.{_ffmpeg_hint()}")
            raise UserError(f"{path} cannot be read as a video: it is damaged, or OpenCV has no decoder for it. "
                            f"Convert it to MP4 with H.264, or to AVI with Motion JPEG, or remove it.{_ffmpeg_hint()}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = rate if 0 < rate <= 1000 else 25.0
        self.num_frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.size: tuple[int, int] = self._first.shape[:2]

    def frames(self) -> Iterator[np.ndarray]:
        """Yield frames, uint8 (H, W, 3) RGB, until the end or until one cannot be read; then close the file."""
        try:
            done, frame = True, self._first
            while done:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                done, frame = self._capture.read()
        finally:
            self._capture.release()


@contextmanager
def open_video(path: Path, frames_per_second: float, size: tuple[int, int],
               ) -> Iterator[Callable[[np.ndarray], object]]:
    """Open an MP4 file for writing. It gets its name at the end; after an error nothing stays.

    Args:
        path: The file, .mp4; its folder must exist.
        frames_per_second: Above 0.
        size: (height, width) of the frames.

    Yields:
        A function that appends a frame, uint8 (H, W, 3) RGB.

    Raises:
        UserError: If it cannot be written.
    """
    _check_name(path)
    with atomic_path(path, f".{path.stem}.part{path.suffix}") as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*CODEC), frames_per_second, size[::-1])
        try:
            if not writer.isOpened():
                raise UserError(f"{path} cannot be written as a video of {size[1]}x{size[0]}: its folder cannot be "
                                f"written to, or OpenCV lacks the codec {CODEC}. Choose another folder with "
                                f"task.output=, or install another OpenCV.{_ffmpeg_hint()}")
            yield lambda frame: writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
        if not temporary.is_file() or not temporary.stat().st_size:
            raise UserError(f"{path} could not be written: make room, or choose another folder with "
                            f"task.output=.{_ffmpeg_hint()}")
