"""Read and write videos frame by frame, through OpenCV."""

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from segtrain.errors import UserError

CODEC = "mp4v"  # MPEG-4 Part 2: all packages of OpenCV can write it, not all can write H.264


def _ffmpeg_hint() -> str:
    """Return what OpenCV lacks, if that may be the reason."""
    if re.search(r"FFMPEG:\s+YES", cv2.getBuildInformation()):
        return ""
    return (" This OpenCV is built without FFMPEG, and reads and writes hardly any video: pip install "
            "opencv-python-headless gives one with it.")


class VideoReader:
    """A video's frames, in their order, turned upright as the file says.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be opened.

    Attributes:
        frames_per_second: As the file says; 25 if it says nothing useful.
        num_frames: As the file says, which may be an estimate; 0 if it says nothing.
        size: (height, width).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        done, self._first = self._capture.read()
        if not done:
            self._capture.release()
            raise UserError(f"{path} cannot be read as a video: it is damaged, or OpenCV has no decoder for it. "
                            f"Convert it to MP4 with H.264, or to AVI with Motion JPEG, or remove it.{_ffmpeg_hint()}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = rate if 0 < rate <= 1000 else 25.0
        self.num_frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.size: tuple[int, int] = self._first.shape[:2]

    def frames(self) -> Iterator[np.ndarray]:
        """Yield uint8 (H, W, 3) RGB frames until the end, or until one cannot be read; then close the file."""
        try:
            done, frame = True, self._first
            while done:
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                done, frame = self._capture.read()
        finally:
            self._capture.release()


class VideoWriter:
    """An MP4 file that grows frame by frame, under a temporary name until it is whole.

    As a context manager it gets its name at the end, or, after an error, is removed.

    Args:
        path: The file, .mp4; its folder must exist.
        frames_per_second: Above 0.
        size: (height, width) of the frames.

    Raises:
        UserError: If it cannot be written.
    """

    def __init__(self, path: Path, frames_per_second: float, size: tuple[int, int]) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.stem}.part{path.suffix}")
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter.fourcc(*CODEC), frames_per_second,
                                       (size[1], size[0]))
        if not self._writer.isOpened():
            self._remove()
            raise UserError(f"{path} cannot be written as a video of {size[1]}x{size[0]}: its folder cannot be written "
                            f"to, or OpenCV lacks the codec {CODEC}. Choose another folder with task.output=, or "
                            f"install another OpenCV.{_ffmpeg_hint()}")

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 (H, W, 3) RGB."""
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._writer.release()
        if kind is not None:
            self._remove()
        elif not self._temporary.is_file() or not self._temporary.stat().st_size:
            self._remove()
            raise UserError(f"{self._path} could not be written: make room, or choose another folder with "
                            f"task.output=.{_ffmpeg_hint()}")
        else:
            self._temporary.replace(self._path)

    def _remove(self) -> None:
        self._writer.release()
        self._temporary.unlink(missing_ok=True)
