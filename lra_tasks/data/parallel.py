"""Work cut into chunks, done by several processes, given back in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from longconv._checks import check_int
from lra_tasks.data.errors import KilledProcessError

A = TypeVar("A")
T = TypeVar("T")


def available_processes() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_processes(processes: int | None) -> int | None:
    """A task's option of how many processes prepare its data, at least 1; None stands for all available cores."""
    return None if processes is None else check_int("processes", processes)


def cut(items: Sequence[A], size: int) -> list[Sequence[A]]:
    """Chunks of ``size`` items, the last one of what is left.

    >>> cut("abcde", 2)
    ['ab', 'cd', 'e']
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


def in_order(function: Callable[[A], T], chunks: Iterable[A], processes: int | None = None) -> Generator[T, None, None]:
    """``function`` of every chunk, of which there may be no end, some chunks ahead in ``processes`` processes.

    The results do not depend on the number of processes. Close the iterator (``contextlib.closing``) to stop them; an
    interrupt or an error of ``function`` stops them too.

    Args:
        function: picklable, and a function of the chunk alone.
        chunks: picklable each; taken up as they are needed.
        processes: None for all available cores; 1 works in this process.

    Raises:
        KilledProcessError: a process was killed, as the system does where memory is short.
    """
    processes = available_processes() if processes is None else processes
    if processes == 1:
        yield from map(function, chunks)
        return
    # Forking spares every worker the import of torch; workers use neither threads nor a GPU. macOS cannot fork safely.
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        submitted = (pool.submit(function, chunk) for chunk in chunks)
        pending: deque[Future[T]] = deque(islice(submitted, 2 * processes))
        while pending:
            yield pending.popleft().result()
            pending.extend(islice(submitted, 1))
    except BrokenProcessPool as error:
        raise KilledProcessError(
            "a process that prepares the data was killed, perhaps for want of memory: go on with fewer, such as "
            "--data.processes 1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with count, elapsed and remaining time on standard error; gives the function that advances it."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def _start_worker() -> None:
    """Leave interrupts to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
