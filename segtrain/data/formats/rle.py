"""Run lengths: COCO's, as numbers or text, those of CVAT and Darwin, and the bit stream of Label Studio's brush."""

from collections.abc import Sequence

import numpy as np


def decode_text(text: str) -> np.ndarray:
    """Return the run lengths, int64, of COCO's compressed text: five bits a letter from "0" on, lowest first.

    From the fourth on, a number is the difference to the one two before. ValueError if the text is cut off or holds
    other letters.
    """
    letters = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(letters) or letters.min() < 0 or letters.max() > 63:
        raise ValueError("its text holds letters that COCO does not use")
    is_last = letters < 32
    if not is_last[-1]:
        raise ValueError("its text is cut off")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError("its text holds a number that is too large")
    shifts = 5 * (np.arange(len(letters)) - np.repeat(starts, lengths))
    values = np.add.reduceat((letters & 31) << shifts, starts)
    runs = np.where(letters[ends] & 16, values - (1 << 5 * lengths), values)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def encode_text(runs: Sequence[int]) -> str:
    """Return COCO's compressed text of run lengths; see `decode_text`."""
    letters = []
    for place, run in enumerate(runs):
        value, more = int(run) - (int(runs[place - 2]) if place > 2 else 0), True
        while more:
            letter, value = value & 31, value >> 5
            more = value != (-1 if letter & 16 else 0)
            letters.append(chr(48 + letter + 32 * more))
    return "".join(letters)


def encode_mask(mask: np.ndarray) -> list[int]:
    """Return COCO's run lengths of a mask, bool (H, W): down the columns, zeros first."""
    flat = np.asarray(mask, bool).T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def expand_runs(runs: np.ndarray, width: int, height: int, *, by_columns: bool) -> np.ndarray:
    """Return the mask, bool (H, W), of run lengths that take turns, zeros first, and sum to its pixels."""
    inside = np.zeros(len(runs), bool)
    inside[1::2] = True
    flat = np.repeat(inside, runs)
    return flat.reshape(width, height).T if by_columns else flat.reshape(height, width)


def decode_brush(data: bytes, width: int, height: int) -> np.ndarray:
    """Return the mask, bool (H, W), of Label Studio's brush: RGBA values, row by row; alpha above 0 is inside.

    A stream has the number of values in 32 bits, the bits a value less 1 in 5, four sizes less 1 in 4 each; then
    blocks: a bit that says "repeat", which of the sizes in 2, a length less 1 in so many, one value or one for each.

    Raises:
        ValueError: If it is not such a stream, or holds values for another size.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    text = bits.tobytes().translate(bytes([48, 49]) + bytes(254))  # of the letters 0 and 1, to be read as numbers

    def number(start: int, count: int) -> int:
        if start + count > len(text):
            raise ValueError("its brush data is cut off")
        return int(text[start:start + count], 2)

    expected, total = width * height * 4, number(0, 32)
    if total != expected:
        raise ValueError(f"its brush data has {total} values, but {width}x{height} pixels of 4 channels are {expected}")
    word, sizes = number(32, 5) + 1, [number(37 + 4 * place, 4) + 1 for place in range(4)]
    if word != 8:
        raise ValueError(f"its brush data has {word} bits a value instead of 8")
    values = np.empty(total, np.uint8)
    at, done = 53, 0
    while done < total:
        header, size = number(at, 3), 0
        size = sizes[header & 3]
        length, at = number(at + 3, size) + 1, at + 3 + size
        if done + length > total:
            raise ValueError("its brush data has more values than it says")
        if header & 4:
            values[done:done + length] = number(at, 8)
            at += 8
        else:
            if at + 8 * length > len(bits):
                raise ValueError("its brush data is cut off")
            values[done:done + length] = np.packbits(bits[at:at + 8 * length])
            at += 8 * length
        done += length
    return values[3::4].reshape(height, width) > 0
