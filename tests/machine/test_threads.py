"""How many threads: the count that measured fastest, and measured again where steps become slow."""

import pytest
import torch

from tessera.config import MachineConfig
from tessera.machine.threads import Fixed, Measured, candidates
from tessera.train.engines.single import SingleEngine


class Machine:
    """A computer with four cores whose speed with each count of threads is given."""

    def __init__(self, seconds: dict[int, float]):
        self.seconds, self.now, self.tried = seconds, 0.0, 0

    def measure(self, count: int) -> float:
        self.tried += 1
        return self.seconds[count]

    def steps(self, threads: Measured, seconds: float, count: int = 10) -> None:
        for _ in range(count):
            self.now += seconds
            threads.tick()


@pytest.fixture
def four_cores(monkeypatch):
    counts = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    return counts


def test_candidates_are_halves():
    assert candidates(6) == [6, 3, 1]


def test_the_fastest_count_is_taken_and_of_equal_ones_the_largest(four_cores):
    machine = Machine({4: 1.0, 2: 0.99, 1: 0.5})
    assert Measured(machine.measure, lambda: machine.now).count == 1
    assert four_cores[-1] == 1
    four_cores.append(4)
    assert Measured(Machine({4: 1.0, 2: 0.97, 1: 0.96}).measure).count == 4


def test_slow_steps_are_answered_by_measuring_again_and_a_free_machine_by_more_threads(four_cores):
    machine = Machine({4: 1.0, 2: 2.0, 1: 4.0})
    threads = Measured(machine.measure, lambda: machine.now)
    machine.steps(threads, 4.0)
    assert (threads.count, machine.tried) == (4, 3)  # as fast as ever: nothing to measure
    machine.seconds = {4: 9.0, 2: 2.0, 1: 4.0}
    machine.steps(threads, 9.0)
    assert (threads.count, machine.tried) == (2, 6)
    machine.seconds = {4: 1.0, 2: 2.0, 1: 4.0}
    machine.steps(threads, 5.0)
    assert threads.count == 4


def test_only_runs_that_depend_on_the_clock_change_their_threads(four_cores, monkeypatch):
    assert isinstance(SingleEngine(MachineConfig(device="cpu")).threads, Fixed)
    assert isinstance(SingleEngine(MachineConfig(device="cpu", threads=2), adapts=True).threads, Fixed)
    monkeypatch.setattr("tessera.machine.threads.seconds_with", lambda count: 1.0)
    assert isinstance(SingleEngine(MachineConfig(device="cpu"), adapts=True).threads, Measured)
