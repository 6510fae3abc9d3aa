"""One run that is served: who waits for it, who sits, and what is told of it. It does not know threads or HTTP."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tessera.config.any_order import by_code
from tessera.generate.decoder import DrawingBatch
from tessera.generate.editing import laid_out, restored
from tessera.generate.given import Given
from tessera.generate.judge import Judge, judged, ranked
from tessera.generate.picture import Picture
from tessera.generate.pipeline import Pipeline
from tessera.generate.raster import Decode
from tessera.serve.alone import Alone, Filling
from tessera.serve.measures import Measures
from tessera.serve.orders import Failed, Late, Line, Made, Order, Shown
from tessera.serve.seats import Drawing, Seats, places_needed


class Room(Protocol):
    """Where pictures of one kind are drawn."""

    def sit(self, drawing, /) -> None: ...
    def leave(self, drawing, /) -> None: ...
    def canvas(self, drawing, /) -> tuple[Int[Tensor, "1 N"], Bool[Tensor, "1 N"]]:
        """Its codes, and which of them are still to be drawn."""
        ...


class Bench:
    """A pipeline whose pictures are drawn side by side."""

    def __init__(
        self, name: str, pipeline: Pipeline, judge: Judge, seats: int, queue: int, measures: Measures,
        decodes: Callable[[], Decode] | None = None,
    ):  # fmt: skip
        self.name, self.pipeline, self.judge, self.measures = name, pipeline, judge, measures
        self.seats, self.alone = Seats(pipeline.model, seats, decodes), Alone(pipeline.decoder)
        self.line = Line(queue)
        self.orders: dict[Drawing | Filling, tuple[Order, int]] = {}
        self.shows: dict[Drawing | Filling, list[tuple[int, int]]] = {}
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
        """Whether there are seats, those who are drawn alone included, and the judge keeps up."""
        taken = sum(places_needed(filling.batch.sampling) for filling in self.alone.drawings)
        room = self.seats.free - taken >= places_needed(order.request.sampling)
        return room and len(self.unjudged) < len(self.seats.taken)

    def sit(self, order: Order, index: int) -> None:
        """The picture of an order, of which there may be several."""
        if index == 0:
            self.measures.waited.labels(self.name).observe(time.monotonic() - order.since)
            self._lay_out(order)
        request, seed = order.request, order.request.seed + index
        tokens = self.pipeline.tokens([request.prompt], request.truncate)
        assert order.given
        known, mask = order.given.of(slice(index, index + 1))
        count = int((~mask).sum())
        first = torch.equal(mask[0], torch.arange(self.total, device=mask.device) >= count)
        if by_code(request.sampling) and first and count < self.total:
            drawing: Drawing | Filling = Drawing(tokens, known[:, :count].to(tokens.device), seed, request.sampling)
            row = self.grid
        else:
            drawing = Filling(DrawingBatch(tokens, known.to(tokens.device), mask, [seed], request.sampling))
            row = 1
        shows = list(enumerate(shown_at(order.shows, count, self.total, row)))
        self.orders[drawing], self.shows[drawing] = (order, index), shows
        self._room(drawing).sit(drawing)
        self._tell(drawing)

    def _lay_out(self, order: Order) -> None:
        """What the pictures of an order know before they are drawn."""
        if order.sitter is None:
            order.given = Given.nothing(self.total)
            return
        own, config = order.sitter.draft, order.sitter.config
        order.given, order.drafts = laid_out(self.pipeline, own, order.request, config)

    def _room(self, drawing: Drawing | Filling) -> Room:
        return self.seats if isinstance(drawing, Drawing) else self.alone

    def step(self) -> None:
        """One code for each picture that sits, one step for each that is drawn alone."""
        if not self.orders:
            return
        began = time.perf_counter()
        if self.seats.drawings:
            self.seats.step()
        with torch.inference_mode():
            self.alone.step()
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
        self.alone.clear()

    def _tell(self, drawing: Drawing | Filling) -> None:
        """Its order is told what there is to see."""
        order, index = self.orders[drawing]
        passed = [number for number, at in self.shows[drawing] if at <= drawing.done]
        if drawing.done == self.total:
            picture = self._picture(drawing, order)
            if order.sitter and order.sitter.config.restore:
                own = order.drafts[index % len(order.drafts)]
                picture = replace(picture, image=restored(picture.image, own))
            self._leave(drawing)
            self._made(order, index, picture)
        elif passed:
            del self.shows[drawing][: len(passed)]
            order.say(Shown(index, passed[-1], self._picture(drawing, order)))

    def _picture(self, drawing: Drawing | Filling, order: Order) -> Picture:
        """As far as it is drawn."""
        codes, mask = self._room(drawing).canvas(drawing)
        whose = [order.request.prompt], [drawing.seed]
        with torch.inference_mode():
            if drawing.done == self.total:
                (picture,) = self.pipeline.pictures(codes, *whose)
            else:
                (picture,) = self.pipeline.partial(codes, mask, *whose)
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

    def _leave(self, drawing: Drawing | Filling) -> None:
        self._room(drawing).leave(drawing)
        del self.orders[drawing], self.shows[drawing]


def shown_at(count: int, given: int, total: int, row: int) -> list[int]:
    """After how many codes each of `count` unfinished pictures is shown: whole rows, evenly apart. Where fewer rows are
    drawn, there are fewer pictures."""
    first, last = given // row, total // row
    rows = {first + round((last - first) * (i + 1) / (count + 1)) for i in range(count)}
    return sorted(place * row for place in rows if first < place < last)
