"""Ctrl-C and SIGTERM while a command works: it stops and says what it kept. It knows no command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A command was asked to stop. `status` is the exit status that shells expect after the signal."""

    def __init__(self, sentence: str, status: int):
        super().__init__(sentence)
        self.status = status


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does. Then `kept` saves what there is and says what it saved."""
    number = signal.SIGINT

    def handle(caught: int, frame: object) -> None:
        nonlocal number
        number = signal.Signals(caught)
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, handle) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(kept(), 128 + number) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
