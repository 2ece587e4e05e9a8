"""Probabilities of a picture's classes as a .npy file that is written from the top down, in bounded memory."""

from pathlib import Path

import numpy as np

from segtrain.errors import UserError


class ProbabilityFile:
    """A float16 array (K, H, W), for numpy.load(path, mmap_mode="r"), under a temporary name until it is whole.

    As a context manager it gets its name at the end, or, after an error, is removed.

    Args:
        path: The file, .npy; its folder must exist.
        shape: (K, H, W).

    Raises:
        UserError: If it cannot be written, now or later.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._path, self._temporary, self._shape = path, path.with_name(f"{path.name}.tmp"), shape
        try:
            self._file = self._temporary.open("wb")
            np.lib.format.write_array_header_1_0(
                self._file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        except OSError as error:
            raise self._refusal(error) from error
        self._start = self._file.tell()

    def __enter__(self) -> "ProbabilityFile":
        return self

    def write(self, top: int, probabilities: np.ndarray) -> None:
        """Write the rows from `top` on, (K, rows, W) of any float dtype."""
        num_classes, height, width = self._shape
        values = probabilities.astype("<f2")
        try:
            for number in range(num_classes):
                self._file.seek(self._start + 2 * width * (number * height + top))
                self._file.write(values[number].tobytes())
        except OSError as error:
            raise self._refusal(error) from error

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._file.close()
            if kind is None:
                self._temporary.replace(self._path)
        except OSError as failed:
            raise self._refusal(failed) from failed
        finally:
            self._temporary.unlink(missing_ok=True)

    def _refusal(self, error: OSError) -> UserError:
        return UserError(f"{self._path} cannot be written ({error}): make room or choose another folder with "
                         "task.output=; what was written before is intact.")
