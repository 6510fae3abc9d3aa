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
def stoppable(kept: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Let SIGTERM end the block as Ctrl-C does. Then `kept` saves what there is and says what it saved.

    Lends a function that ends the block where the signal's exception was lost in somebody else's code, an import for
    one: call it after such code.
    """
    caught: list[int] = []

    def handle(number: int, frame: object) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    def unless_stopped() -> None:
        if caught:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield unless_stopped
    except KeyboardInterrupt:
        raise Stopped(kept(), 128 + (caught or [signal.SIGINT])[-1]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
