"""How a command ends other than by being done.
The nearest name that exists, for a message about one that does not.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Stop with one readable message that names the file or key at fault and the remedy.

    The command line prints the message without a traceback and exits with code 2.

    Args:
        message: What is wrong, and the remedy.
        files: All the files at fault, where the message names the first of several.
    """

    def __init__(self, message: str, files: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.files = list(files)


class Stopped(BaseException):
    """A signal asked the run to end; its state is saved, the command line exits with 128 + signal.

    No Exception: whoever catches those, as a sweep does to go on with its next job, must not catch this.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to a misspelt one, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def nearest_key(key: str, known: Iterable[str]) -> str:
    """Do so for a dotted key: first among its own section's, then over the whole length, then by its last part.

    The last finds train.epochs for epochs.
    """
    keys = list(known)
    section, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in keys if other.rpartition(".")[0] == section}
    last_parts = {other.rpartition(".")[2]: other for other in reversed(keys)}
    for wanted, candidates, cutoff in (
            (name, siblings, 0.6), (key, {other: other for other in keys}, 0.8), (name, last_parts, 0.6)):
        matches = difflib.get_close_matches(wanted, candidates, n=1, cutoff=cutoff)
        if matches:
            return f" Did you mean '{candidates[matches[0]]}'?"
    return ""
