"""Pictures that were asked for as a url, for a while, in memory. It does not know models."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable


class Kept:
    """Files under names that nobody can guess, until their time is over or newer ones need the room."""

    def __init__(self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic):
        self.seconds, self.most, self.clock = seconds, most, clock
        self.files: OrderedDict[str, tuple[float, str, bytes]] = OrderedDict()
        self.size = 0

    def put(self, content: bytes, ending: str) -> str:
        """The name under which a file is kept."""
        name = f"{secrets.token_urlsafe(24)}.{ending}"
        self.files[name] = self.clock() + self.seconds, ending, content
        self.size += len(content)
        self._tidy()
        return name

    def get(self, name: str) -> tuple[str, bytes] | None:
        """Its ending and content; None where it is gone, or never was."""
        self._tidy()
        found = self.files.get(name)
        return found[1:] if found else None

    def _tidy(self) -> None:
        now = self.clock()
        while self.files:
            until, _, content = next(iter(self.files.values()))
            if until > now and self.size <= self.most:
                return
            self.files.popitem(last=False)
            self.size -= len(content)
