"""The one thread that owns the models: it takes orders from the lines, steps, and tells. It does not know HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from tessera.generate.events import naming
from tessera.machine.device import few_rows
from tessera.machine.threads import choose_threads
from tessera.serve.bench import Bench
from tessera.serve.logs import tell_error
from tessera.serve.orders import Draining, Failed, Order


class Worker:
    """Draws for all who ask, until it is stopped.

    Other threads only `submit` and `cancel`; a Condition guards the lines, never a step.
    """

    def __init__(self, benches: Mapping[str, Bench], threads: int = 0):
        self.benches, self.threads = benches, threads
        self.changed = threading.Condition()
        self.draining = self.stopped = False
        self.thread = threading.Thread(target=self._run, name="drawing", daemon=True)

    def submit(self, name: str, order: Order) -> None:
        """Let an order wait for its turn. Raises Full or Draining."""
        with self.changed:
            if self.draining:
                raise Draining("The server is about to end; ask again, another one may answer.", 5)
            bench = self.benches[name]
            bench.line.join(order, bench.wait())
            self.changed.notify()

    def cancel(self, order: Order) -> None:
        """Nobody waits for the order any more; its rows are free before the next step. One that is over may come."""
        with self.changed:
            order.over = True
            self.changed.notify()

    @property
    def busy(self) -> bool:
        with self.changed:
            return any(bench.busy for bench in self.benches.values())

    @property
    def alive(self) -> bool:
        return self.thread.is_alive() and not self.stopped

    def start(self) -> None:
        self.thread.start()

    def drain(self) -> None:
        """Take no further orders."""
        with self.changed:
            self.draining = True

    def stop(self) -> None:
        """End after the step that is being taken. What is still asked for is given up."""
        with self.changed:
            self.draining = self.stopped = True
            self.changed.notify()
        if self.thread.is_alive():
            self.thread.join()
        gone = Draining("The server ended before the picture was drawn; ask again, another one may answer.", 5)
        for bench in self.benches.values():
            for order in bench.asked():
                order.end(Failed(gone))

    def turn(self) -> None:
        """One step of every model that has somebody to draw for, and one picture judged. What goes wrong with a step
        ends the orders that sit there."""
        for bench in self.benches.values():
            with few_rows():
                self._attempt(bench, lambda bench=bench: self._step(bench), bench.fail)
            self._attempt(bench, bench.rank, lambda error: None)

    def _attempt(self, bench: Bench, work: Callable[[], None], fail: Callable[[Exception], None]) -> None:
        try:
            with naming(bench.name):
                work()
        except Exception as error:
            tell_error("drawing failed", error, model=bench.name)
            bench.measures.failed.labels(bench.name).inc()
            fail(error)

    def _step(self, bench: Bench) -> None:
        self._seat(bench)
        bench.step()

    def _seat(self, bench: Bench) -> None:
        with self.changed:
            bench.dismiss()
        while (taken := self._take(bench)) is not None:
            order, index = taken
            try:
                bench.sit(order, index)
            except Exception as error:
                order.end(Failed(error))
                raise

    def _take(self, bench: Bench) -> tuple[Order, int] | None:
        with self.changed:
            order = bench.line.next()
            return bench.line.take() if order and bench.admits(order) else None

    def _run(self) -> None:
        choose_threads(self.threads, adapts=False)
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.stopped or any(bench.busy for bench in self.benches.values()))
                if self.stopped:
                    return
            self.turn()
