"""How a command ends other than by being done."""


class UserError(Exception):
    """Stop with one readable message that names the file or key at fault and the remedy.

    The command line prints the message without a traceback and exits with code 2.
    """


class Stopped(BaseException):
    """A signal asked the run to end; its state is saved, the command line exits with 128 + signal.

    No Exception: whoever catches those, as a sweep does to go on with its next job, must not catch this.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
