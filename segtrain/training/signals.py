"""Stop a run at the next safe point when a signal asks for it."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from segtrain.distributed import process_group
from segtrain.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STUCK = 20.0  # seconds in which a process must reach a safe point after a signal; torchrun kills it after 30


class StopSignals:
    """Catch SIGINT and SIGTERM while a run can be saved; a second one ends the process at once.

    Several processes stop at the same point, whichever of them got the signal. There a second signal means nothing,
    for torchrun passes on what they may have got already; instead a process ends if it does not get to that point in
    time, since it may be waiting for another that is gone.

    Used as a context manager; outside of the main thread it catches nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.is_agreed = False  # by all processes, when they last asked
        self._former: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._is_safe = False  # the safe point is reached: take what time it takes

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self  # a program's own thread, where Python allows no handlers
        for signum in SIGNALS:
            self._former[signum] = signal.signal(signum, self._note)
        if process_group.is_started():
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            # Python's own handlers wait until torch returns; this file is written to at once
            signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._limit_the_wait, args=(self._pipe[0],), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])  # ends the thread
            self._call_off()
        for signum, handler in self._former.items():
            signal.signal(signum, signal.SIG_IGN if self._pipe is not None and self.signum is not None else handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        is_first, self.signum = self.signum is None, self.signum or signum
        if is_first and process_group.is_main():
            again = "" if process_group.is_started() else "; Ctrl-C again quits without saving"
            with contextlib.suppress(OSError):  # print could be what the signal has interrupted
                os.write(2, f"\nstopping after this step, saving{again}\n".encode())
        if not process_group.is_started():
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)

    def is_requested(self) -> bool:
        """Return whether a signal has come, to any of several processes: they must all ask, at the same point."""
        self.signum = max(process_group.all_gather(self.signum or 0)) or None
        self.is_agreed = self.signum is not None
        if self.is_agreed and process_group.is_started():
            self._call_off()
        return self.is_agreed

    def check(self) -> None:
        """Raise Stopped if `is_requested`."""
        if self.is_requested():
            assert self.signum is not None
            raise Stopped(self.signum)

    def _limit_the_wait(self, pipe: int) -> None:
        """Give this process a limited time from a signal on, until the processes agree to stop."""
        while number := os.read(pipe, 1):
            with self._lock:
                if number[0] in SIGNALS and not self._is_safe:
                    signal.setitimer(signal.ITIMER_REAL, STUCK)  # SIGALRM ends it even where it waits inside torch
        os.close(pipe)

    def _call_off(self) -> None:
        with self._lock:
            self._is_safe = True
            signal.setitimer(signal.ITIMER_REAL, 0)
