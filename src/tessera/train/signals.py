"""Ctrl-C and SIGTERM as a question that the loop asks after each step. It knows no loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM let the step end and the run save; a second Ctrl-C stops at once."""
    caught: list[int] = []

    def handle(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = [signal.signal(s, handle) for s in signals]
    try:
        yield lambda: bool(caught)
    finally:
        for s, old in zip(signals, before, strict=True):
            signal.signal(s, old)
