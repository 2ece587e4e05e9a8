"""Start segtrain, as the command or as `python -m segtrain`: Ctrl-C is answered from the first moment on."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it was told to ignore it
        signal.signal(signal.SIGINT, _stop)
    try:
        from segtrain.cli import main as run  # takes a while to import

        run()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _stop(signum: int, frame: FrameType | None) -> None:
    """Stop what is going on, be it an import; a training that has begun has its own way, `StopSignals`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.write(2, b"\nstopping; Ctrl-C again quits at once\n")
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
