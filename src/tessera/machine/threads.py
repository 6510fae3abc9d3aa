"""How many threads a run on a CPU takes, chosen by measuring, because other programs may have some of the cores."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

SLOWER = 1.5
"""How many times a step may take as long as the best so far before the threads are counted anew."""
PATIENCE = 30.0
"""Seconds between two measurements, at least; and after which a run with fewer threads than cores tries more."""
EVERY = 10
"""Steps over which the time of a step is taken."""
GAIN = 0.95
"""A smaller count must take less than this share of the time of a larger one."""


class Fixed:
    """The threads stay as they are: what a run that must be reproducible to the last bit needs, because sums are cut
    up by threads."""

    def tick(self) -> None:
        """A step is done."""


class Measured:
    """The count of threads that is fastest now; measured at the start and whenever steps become slow."""

    def __init__(self, measure: Callable[[int], float] | None = None, clock: Callable[[], float] = time.monotonic):
        self.most, self.measure, self.clock = torch.get_num_threads(), measure or seconds_with, clock
        self.count = self.most
        self.choose()

    def choose(self) -> None:
        """Take the fastest count; of nearly equal ones the largest."""
        self.count, fastest = self.most, self.measure(self.most)
        for count in candidates(self.most)[1:]:
            if (taken := self.measure(count)) < GAIN * fastest:
                self.count, fastest = count, taken
        torch.set_num_threads(self.count)
        self.chosen = self.since = self.clock()
        self.steps, self.best = 0, float("inf")

    def tick(self) -> None:
        """A step is done. Where the last ones were slow, or other programs may be gone by now, measure again."""
        self.steps += 1
        if self.steps % EVERY:
            return
        now = self.clock()
        taken, self.since = (now - self.since) / EVERY, now
        slow, fewer = taken > SLOWER * self.best, self.count < self.most
        self.best = min(self.best, taken)
        if (slow or fewer) and now - self.chosen > PATIENCE:
            self.choose()


def choose_threads(asked: int, adapts: bool) -> Fixed | Measured:
    """As many as are asked for; where none are, torch's own count, or what is fastest where a run `adapts`."""
    if asked:
        torch.set_num_threads(asked)
    return Measured() if adapts and not asked else Fixed()


def candidates(most: int) -> list[int]:
    """Every count worth trying: all, half as many, ... one."""
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts


def seconds_with(count: int) -> float:
    """The time of a row of small products and elementwise work, as a training step has them: the median of five."""
    torch.set_num_threads(count)
    x, weight = torch.ones(1024, 256), torch.ones(256, 256) / 256
    times = []
    with torch.no_grad():
        for _ in range(6):
            began = time.perf_counter()
            for _ in range(8):
                x = F.gelu(F.linear(x, weight))
            times.append(time.perf_counter() - began)
    return sorted(times[1:])[2]
