"""Ctrl-C and SIGTERM: before a run has begun they end it, in the loop they are a question asked after each step. It
knows no loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tessera.errors import TesseraError
from tessera.machine.launch import STOPS


class Interrupted(TesseraError):
    """The user or a scheduler asked the run to stop; everything that was done is saved."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM let the step end and the run save; a second Ctrl-C stops at once.

    One that came before, and was lost in somebody else's code, counts.
    """
    outside = signal.getsignal(signal.SIGTERM)
    caught = list(outside.caught) if isinstance(outside, _End) else []

    def handle(number: int, frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    with _handled(STOPS, handle):
        yield lambda: bool(caught)


class Terminated(KeyboardInterrupt):
    """SIGTERM where there is nothing to save: as Ctrl-C there, it is no error that anybody should catch on the way."""


class _End:
    """Handles a signal by ending the program where it stands, and remembers it."""

    def __init__(self):
        self.caught: list[int] = []

    def __call__(self, number: int, frame: object) -> None:
        self.caught.append(number)
        raise self.stop()

    def stop(self) -> KeyboardInterrupt:
        return Terminated() if signal.SIGTERM in self.caught else KeyboardInterrupt()


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated, so that what is open is closed and the status tells a scheduler to begin again.

    A library that is stopped in the middle of its import may answer with any error of its own: that is the stop, too.
    """
    end = _End()
    with _handled(STOPS, end):
        try:
            yield
        except TesseraError:
            raise
        except Exception:
            if end.caught:
                raise end.stop() from None
            raise


@contextmanager
def _handled(signals: tuple[signal.Signals, ...], handle: Callable[[int, object], None]) -> Iterator[None]:
    wanted = signals if threading.current_thread() is threading.main_thread() else ()
    before = [signal.signal(s, handle) for s in wanted]
    try:
        yield
    finally:
        for s, old in zip(wanted, before, strict=True):
            signal.signal(s, old)
