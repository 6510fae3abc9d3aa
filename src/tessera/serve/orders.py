"""What one client asked a model for, what it is told, and who draws next. It does not know HTTP or models."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tessera.config import EditingConfig, Request
from tessera.generate.given import Given
from tessera.generate.masks import Draft
from tessera.generate.picture import Picture


@dataclass(frozen=True)
class Shown:
    """A picture of which only the first rows are drawn, the `number`th of these."""

    index: int
    number: int
    picture: Picture


@dataclass(frozen=True)
class Made:
    """A finished picture."""

    index: int
    picture: Picture


@dataclass(frozen=True)
class Failed:
    """Nothing more will come."""

    error: Exception


Told = Shown | Made | Failed


class Refusal(Exception):
    """An order that is not taken, or given up. `seconds` is when to try again."""

    def __init__(self, sentence: str, seconds: float = 1.0):
        super().__init__(sentence)
        self.seconds = max(1, math.ceil(seconds))


class Full(Refusal):
    """Too many pictures wait."""


class Draining(Refusal):
    """The server is about to end."""


class Late(Refusal):
    """The time of an order is over."""


@dataclass(frozen=True)
class Sitter:
    """A picture of which a part is kept."""

    draft: Draft
    config: EditingConfig


@dataclass(eq=False)
class Order:
    """The pictures that one request asks of one model, drawn one by one as seats become free."""

    request: Request
    client: str
    tell: Callable[[Told], None]
    """Called in the worker's thread; it must return at once."""
    shows: int = 0
    """Unfinished pictures to show of each."""
    keep: int = 0
    """How many of the pictures are told of, those that the judge ranks highest; 0 is all of them, unjudged."""
    sitter: Sitter | None = None
    deadline: float = math.inf
    began: int = 0
    """Pictures that sat down."""
    given: Given | None = None
    """The codes that are kept, once they are known; one row where all pictures keep the same."""
    drafts: list[Draft] = field(default_factory=list)
    """The pixels that each of these rows keeps."""
    made: dict[int, Picture] = field(default_factory=dict)
    over: bool = False
    """Nobody waits for it any more: it is finished, failed, or given up."""
    since: float = field(default_factory=time.monotonic)

    @property
    def waiting(self) -> int:
        """Pictures that still wait for seats."""
        return 0 if self.over else self.request.count - self.began

    def end(self, event: Failed | None = None) -> None:
        if event and not self.over:
            self.say(event)
        self.over = True

    def say(self, event: Told) -> None:
        with suppress(RuntimeError):  # the event loop of a server that ends is closed
            self.tell(event)


class Line:
    """Pictures that wait for one model. Clients take turns, whatever each of them asked for:

    ann   A A A A A A          who draws next: A B C A B A A A A
    bob   B B
    cat   C
    """

    def __init__(self, most: int):
        self.most, self.own = most, most - most // 4
        self.clients: OrderedDict[str, deque[Order]] = OrderedDict()

    @property
    def waiting(self) -> int:
        return sum(order.waiting for orders in self.clients.values() for order in orders)

    def orders(self) -> Iterator[Order]:
        for orders in self.clients.values():
            yield from orders

    def join(self, order: Order, seconds: float) -> None:
        """Raises Full where too many pictures wait, of all or of this client; the last quarter is for clients with
        nothing waiting. `seconds` is the time that all who wait will take."""
        waiting, own = self.waiting, sum(o.waiting for o in self.clients.get(order.client, ()))
        if waiting + order.waiting > (self.own if own else self.most) or own + order.waiting > self.own:
            raise Full(f"{waiting} pictures wait already, and at most {self.most} may; try again later.", seconds)
        self.clients.setdefault(order.client, deque()).append(order)

    def next(self) -> Order | None:
        """Whose picture is next."""
        self.tidy()
        return next((orders[0] for orders in self.clients.values()), None)

    def take(self) -> tuple[Order, int]:
        """Its next picture sits down; then it is the next client's turn."""
        client, orders = next(iter(self.clients.items()))
        order = orders[0]
        order.began += 1
        self.clients.move_to_end(client)
        return order, order.began - 1

    def tidy(self) -> None:
        """Forget orders of which nothing waits any more."""
        for client in list(self.clients):
            kept = deque(order for order in self.clients[client] if order.waiting)
            if kept:
                self.clients[client] = kept
            else:
                del self.clients[client]
