"""What the command line shows: sentences, progress bars. The only place that prints; it knows no command."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def say(text: str) -> None:
    print(text, flush=True)


def unread() -> bool:
    """Whether nobody reads what is shown any longer, as in `tessera --help | head -1`; then nothing more is shown."""
    if not hasattr(select, "poll"):  # Windows
        return False
    shown = select.poll()
    shown.register(sys.stdout.fileno(), select.POLLERR)
    if not shown.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def notice(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """How Python prints a warning: ours as a sentence, others unchanged."""
    if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"tessera: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def bar(title: str) -> Callable[[Iterable, int], Iterable]:
    """Wraps an iteration in a progress bar with rate and remaining time."""

    def wrapped(items: Iterable, total: int) -> Iterator:
        from rich.progress import track

        yield from track(items, title, total, disable=not sys.stdout.isatty())

    return wrapped


class drawing:
    """A progress bar over the codes of one prompt's pictures."""

    def __init__(self, prompt: str):
        from rich.progress import Progress

        self.bar = Progress(disable=not sys.stdout.isatty())
        self.task = self.bar.add_task(prompt[:40].replace("[", "("), total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        return lambda done, total: self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
