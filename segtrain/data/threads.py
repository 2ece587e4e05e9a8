"""Run jobs in a thread pool and take their results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")
MAX_PENDING_PIXELS = 2**24  # of images that are read ahead, or wait to be written


def map_in_order(function: Callable[[int], T], count: int) -> Iterator[T]:
    """Yield function(0), function(1), ..., computed on all cores, a few ahead: a split may exceed memory."""
    return run_in_order((0, partial(function, index)) for index in range(count))


def run_in_order(jobs: Iterable[tuple[int, Callable[[], T]]]) -> Iterator[T]:
    """Run jobs in threads and yield their results in order.

    A job starts only if, with it, no more than MAX_PENDING_PIXELS and a few jobs per core are pending, or none is.

    Args:
        jobs: Each with the number of pixels that it holds in memory.
    """
    workers = os.cpu_count() or 1
    pending: deque[tuple[int, Future[T]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for pixels, job in jobs:
            while pending and (len(pending) > 2 * workers
                               or pixels + sum(held for held, _ in pending) > MAX_PENDING_PIXELS):
                yield pending.popleft()[1].result()
            pending.append((pixels, pool.submit(job)))
        while pending:
            yield pending.popleft()[1].result()
