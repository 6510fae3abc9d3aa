"""One run that is served: who waits for it, who sits, and what is told of it. It does not know threads or HTTP."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tessera.generate.judge import Judge, judged, ranked
from tessera.generate.picture import Picture
from tessera.generate.pipeline import Pipeline
from tessera.generate.raster import Decode
from tessera.serve.measures import Measures
from tessera.serve.orders import Failed, Late, Line, Made, Order, Shown
from tessera.serve.seats import Drawing, Seats, places_needed


class Bench:
    """A pipeline whose pictures are drawn side by side."""

    def __init__(
        self, name: str, pipeline: Pipeline, judge: Judge, seats: int, queue: int, measures: Measures,
        decodes: Callable[[], Decode] | None = None,
    ):  # fmt: skip
        self.name, self.pipeline, self.judge, self.measures = name, pipeline, judge, measures
        self.seats, self.line = Seats(pipeline.model, seats, decodes), Line(queue)
        self.orders: dict[Drawing, tuple[Order, int]] = {}
        self.shows: dict[Drawing, list[int]] = {}
        self.unjudged: deque[tuple[Order, int]] = deque()
        self.grid, self.total = pipeline.model.layout.grid, pipeline.model.layout.codes
        self.created, self.seconds = int(time.time()), 0.0

    @property
    def busy(self) -> bool:
        return bool(self.orders or self.unjudged) or self.line.next() is not None

    def asked(self) -> set[Order]:
        """All orders that are not finished."""
        drawn = (order for order, _ in (*self.orders.values(), *self.unjudged))
        return {*self.line.orders(), *drawn}

    def wait(self) -> float:
        """Seconds until those who wait now have sat down, as far as one can tell."""
        return self.line.waiting * self.total * self.seconds * 2 / len(self.seats.taken)

    # One turn: who is unwanted leaves, who waits sits down, everybody gets a code.

    def dismiss(self) -> None:
        """Whatever nobody waits for any more leaves its seats; orders out of time are given up."""
        now = time.monotonic()
        for order in self.asked():
            if not order.over and order.deadline < now:
                order.end(Failed(Late("The request was not drawn in the time that this server gives it.", self.wait())))
        for drawing, (order, _) in list(self.orders.items()):
            if order.over:
                self.measures.cancelled.labels(self.name).inc()
                self._leave(drawing)
        self.unjudged = deque(drawn for drawn in self.unjudged if not drawn[0].over)

    def admits(self, order: Order) -> bool:
        """Whether there are seats, and the judge keeps up."""
        seats = self.seats
        return seats.free >= places_needed(order.request.sampling) and len(self.unjudged) < len(seats.taken)

    def sit(self, order: Order, index: int) -> None:
        """The picture of an order, of which there may be several."""
        if index == 0:
            self.measures.waited.labels(self.name).observe(time.monotonic() - order.since)
        order.given = given = self._given(order) if order.given is None else order.given
        request = order.request
        tokens = self.pipeline.tokens([request.prompt], request.truncate)
        drawing = Drawing(tokens, given, request.seed + index, request.sampling)
        self.orders[drawing], self.shows[drawing] = (order, index), shown_at(order.shows, given.shape[1], self.grid)
        self.seats.sit(drawing)
        self._tell(drawing)

    def step(self) -> None:
        """One code for each picture that sits."""
        if not self.orders:
            return
        began = time.perf_counter()
        self.seats.step()
        taken = time.perf_counter() - began
        self.seconds = 0.9 * self.seconds + 0.1 * taken if self.seconds else taken
        self.measures.stepped(self.name, taken, len(self.orders))
        for drawing in list(self.orders):
            self._tell(drawing)

    def rank(self) -> None:
        """Judge one picture of those of which the best are wanted: one in a turn, so that nobody waits long for a code,
        and no score depends on who else is served. What goes wrong ends that order alone."""
        if not self.unjudged:
            return
        order, index = self.unjudged.popleft()
        try:
            (order.made[index],) = judged([order.made[index]], self.judge)
        except Exception as error:
            order.end(Failed(error))
            raise
        made = [order.made[i] for i in sorted(order.made)]
        if len(made) == order.request.count and all(picture.score is not None for picture in made):
            for place, kept in enumerate(ranked(made, order.keep)):
                order.say(Made(place, kept))
            order.end()

    def fail(self, error: Exception) -> None:
        """What went wrong is told to everybody who sits; those who wait are left alone."""
        for order in {order for order, _ in self.orders.values()}:
            order.end(Failed(error))
        self.orders.clear()
        self.shows.clear()
        self.seats.clear()

    def _given(self, order: Order) -> Tensor:
        device = self.seats.device
        if order.beginning is None:
            return torch.zeros(1, 0, dtype=torch.long, device=device)
        pixels = order.beginning.pixels[None].to(device).float() / 255
        with torch.inference_mode():
            return self.pipeline.image.encode(pixels)[:, : order.beginning.rows * self.grid]

    def _tell(self, drawing: Drawing) -> None:
        """Its order is told what there is to see."""
        order, index = self.orders[drawing]
        if not self.seats.left(drawing):
            picture = self._picture(self.pipeline.pictures, drawing, order)
            self._leave(drawing)
            self._made(order, index, picture)
        elif drawing.done in self.shows[drawing]:
            number = self.shows[drawing].index(drawing.done)
            order.say(Shown(index, number, self._picture(self.pipeline.partial, drawing, order)))

    def _picture(self, make: Callable[..., list[Picture]], drawing: Drawing, order: Order) -> Picture:
        with torch.inference_mode():
            (picture,) = make(self.seats.drawn(drawing), [order.request.prompt], [drawing.seed])
        return replace(picture, run=self.name)

    def _made(self, order: Order, index: int, picture: Picture) -> None:
        order.made[index] = picture
        self.measures.pictures.labels(self.name).inc()
        if order.keep:
            self.unjudged.append((order, index))
            return
        order.say(Made(index, picture))
        if len(order.made) == order.request.count:
            order.end()

    def _leave(self, drawing: Drawing) -> None:
        self.seats.leave(drawing)
        del self.orders[drawing], self.shows[drawing]


def shown_at(count: int, given: int, grid: int) -> list[int]:
    """After how many codes each of `count` unfinished pictures is shown: whole rows, evenly apart. Where fewer rows are
    drawn, there are fewer pictures."""
    first, last = given // grid, grid
    rows = {first + round((last - first) * (i + 1) / (count + 1)) for i in range(count)}
    return sorted(row * grid for row in rows if first < row < last)
