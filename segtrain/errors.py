"""How a command ends other than by being done."""

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
