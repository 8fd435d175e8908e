"""Ctrl-C within calls of NumPy, LAPACK and ours that don't look for it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["interruptible"]

T = TypeVar("T")
# Operations that take some 50 ms: waiting for a thread costs a thousandth of that.
LONG = 1e8
# Seconds between two looks, where a signal alone would not wake who waits.
INTERVAL = 0.05


def interruptible(operations: float, call: Callable[[], T]) -> T:
    """Return call(), from which Ctrl-C returns at once where it takes so many operations.

    Then it is left to end on a thread of its own, so that it must change nothing: what it would
    have returned is lost. It should release the interpreter's lock.
    """
    if operations < LONG or threading.current_thread() is not threading.main_thread():
        return call()
    done: list[T] = []
    failed: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            done.append(context.run(call))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had
        return call()
    while thread.is_alive():
        thread.join(INTERVAL)
    if failed:
        raise failed[0]
    return done[0]
