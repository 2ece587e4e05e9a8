"""What is checked, when, and what happens: noted beside each check, and written from there into the documentation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", bound=Callable[..., object])

SETTINGS = "when the dataset is built: settings and class file"
LISTED = "when the dataset is built: files and lists"
BUILT = "when the dataset is built: classes of your own"
MATCHED = "when a checkpoint meets a dataset"
READ = "when a file is read: by training before its first step, by task=doctor, by other tasks as they come to it"
SURVEYED = "when all samples have been read: training before its first step, task=doctor"
DOCTOR = "task=doctor only"
START = "when training starts"
TIMES = (SETTINGS, LISTED, BUILT, MATCHED, READ, SURVEYED, DOCTOR, START)
REFUSED, WARNED = "refused", "warning"


@dataclass(frozen=True)
class Check:
    """One row of the table: what is checked, when, what happens, and the kind of finding that the doctor calls it."""

    what: str
    when: str
    then: str
    kind: str | None = None


CHECKS: dict[str, list[Check]] = {}  # by the function that checks; filled while modules are imported


def check(when: str, *whats: str, then: str = REFUSED, kind: str | None = None) -> Callable[[T], T]:
    """Note beside a function what it checks; the function stays as it is."""
    def note(function: T) -> T:
        place = f"{function.__module__}.{function.__qualname__}"
        CHECKS.setdefault(place, []).extend(Check(what, when, then, kind) for what in whats)
        return function

    return note
