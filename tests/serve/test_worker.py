"""The worker against drawing each request alone: whoever comes, goes and is cancelled, nobody gets another picture, nobody
is forgotten, and clients take turns."""

from __future__ import annotations

import random
import time

import pytest
import torch

from small_server import bench, pipeline
from tessera.config import Request, SampleConfig
from tessera.generate.pipeline import Pipeline
from tessera.models.text_to_image import TextToImage
from tessera.serve.bench import shown_at
from tessera.serve.orders import Draining, Failed, Full, Late, Line, Made, Order, Shown
from tessera.serve.worker import Worker

WAYS = [SampleConfig(), SampleConfig(guidance=2.0, top_p=0.9), SampleConfig(temperature=0.5, top_k=6)]


@pytest.fixture(scope="module")
def own() -> Pipeline:
    return pipeline()


class Client:
    """An order and what was told of it."""

    def __init__(self, prompt: str, count: int = 1, seed: int = 0, sampling: SampleConfig = WAYS[0], **options):
        self.events = []
        self.order = Order(
            Request(prompt, count=count, seed=seed, sampling=sampling), options.pop("client", "ann"), self.events.append, **options
        )  # fmt: skip

    @property
    def made(self) -> list[Made]:
        return [event for event in self.events if isinstance(event, Made)]


def alone(own: Pipeline, order: Order) -> dict[int, tuple[int, ...]]:
    """The slow, obvious way."""
    return dict(enumerate(picture.codes for picture in own.stream(order.request)))


@pytest.mark.parametrize("chance", [random.Random(seed) for seed in range(2)], ids=["0", "1"])
def test_whatever_comes_and_goes_everybody_gets_the_picture_of_its_seed(own, chance):
    worker, clients, cancelled = Worker({"tiny": bench(own, seats=5)}), [], []
    tiny = worker.benches["tiny"]
    for _ in range(400):
        if len(clients) < 14 and chance.random() < 0.3:
            prompt = " ".join(str(chance.randrange(1, 20)) for _ in range(chance.randrange(1, 5)))
            new = Client(
                prompt, chance.randrange(1, 5), chance.randrange(2**40), chance.choice(WAYS),
                client=chance.choice("abc"), shows=chance.randrange(4),
            )  # fmt: skip
            worker.submit("tiny", new.order)
            clients.append(new)
        if clients and chance.random() < 0.03:
            gone = chance.choice(clients)
            worker.cancel(gone.order)
            cancelled.append(gone)
        worker.turn()
        assert sum(d is not None for d in tiny.seats.taken) == sum(len(d.seats) for d in tiny.orders)
        if len(clients) == 14 and not worker.busy:
            break
    assert not worker.busy
    assert tiny.seats.free == 5
    for client in clients:
        wanted = alone(own, client.order)
        assert all(event.picture.codes == wanted[event.index] for event in client.made)
        for event in client.events:
            if isinstance(event, Shown):
                done = shown_at(client.order.shows, 0, 16, 4)[event.number]
                missing = torch.arange(16) >= done
                (half,) = own.partial(torch.tensor([wanted[event.index]]), missing, ["1"], [0])
                assert event.picture.image.tobytes() == half.image.tobytes()
        if client not in cancelled:
            assert sorted(event.index for event in client.made) == list(range(client.order.request.count)), (
                "nothing is lost"
            )
            for index in wanted:
                own_events = [e for e in client.events if e.index == index]
                assert [e.number for e in own_events[:-1]] == list(range(client.order.shows))
                assert isinstance(own_events[-1], Made)


def test_a_request_joins_at_the_next_step_and_its_first_partial_comes_in_the_batchs_own_steps(own):
    worker = Worker({"tiny": bench(own, seats=4)})
    early = [Client(str(n + 1), count=1, seed=n) for n in range(3)]
    for client in early:
        worker.submit("tiny", client.order)
    for _ in range(5):
        worker.turn()
    late = Client("9", seed=9, shows=3)
    worker.submit("tiny", late.order)
    turns = 0
    while not late.events:
        worker.turn()
        turns += 1
    assert turns == 4 - 1, "one row of codes, of which the first is drawn when it sits down"
    assert all(not client.made for client in early)


def test_who_leaves_frees_its_rows_before_the_next_step(own, monkeypatch):
    read, decode = [], TextToImage.decode
    monkeypatch.setattr(TextToImage, "decode", lambda s, c, p: read.append(len(c)) or decode(s, c, p))
    worker = Worker({"tiny": bench(own, seats=8)})
    tiny = worker.benches["tiny"]
    stays, leaves = Client("1", seed=1), Client("2", count=7, seed=2)
    worker.submit("tiny", stays.order)
    worker.turn()
    worker.submit("tiny", leaves.order)
    worker.turn()
    assert tiny.seats.free == 0
    worker.cancel(leaves.order)
    read.clear()
    worker.turn()
    assert tiny.seats.free == 7
    assert read == [tiny.seats.sizes[0]], "not one step more"
    waits = Client("3", count=7)
    worker.submit("tiny", waits.order)
    worker.turn()
    assert tiny.seats.free == 0, "and the next one has them"


def test_one_who_waits_and_leaves_is_forgotten(own):
    worker = Worker({"tiny": bench(own, seats=2)})
    for client in (first := Client("1", count=2), second := Client("2", count=5)):
        worker.submit("tiny", client.order)
    worker.turn()
    worker.cancel(second.order)
    assert worker.benches["tiny"].line.waiting == 0
    while worker.busy:
        worker.turn()
    assert len(first.made) == 2
    assert not second.events


def test_clients_take_turns_whatever_each_asked_for():
    line = Line(100)
    for client, counts in {"ann": [3, 3], "bob": [2], "cat": [1]}.items():
        for count in counts:
            line.join(Client("1", count=count, client=client).order, 0)
    drawn = []
    while line.next():
        order, index = line.take()
        drawn.append(f"{order.client[0]}{index}")
    assert " ".join(drawn) == "a0 b0 c0 a1 b1 a2 a0 a1 a2"


def test_the_line_is_bounded_and_keeps_a_place_for_those_who_have_none():
    line = Line(40)
    line.join(Client("1", count=10).order, 0)
    line.join(Client("1", count=10).order, 0)
    with pytest.raises(Full, match="20 pictures wait already, and at most 40") as full:
        line.join(Client("1", count=11).order, 7.2)
    assert full.value.seconds == 8
    line.join(Client("1", count=10).order, 0)
    line.join(Client("1", count=10, client="bob").order, 0)
    with pytest.raises(Full):
        line.join(Client("1", client="cat").order, 0)


def test_an_order_whose_time_is_over_is_told_so_and_leaves(own):
    worker = Worker({"tiny": bench(own, seats=2)})
    for client in (sits := Client("1", count=2, deadline=time.monotonic() + 0.05), waits := Client("2", deadline=0.0)):
        worker.submit("tiny", client.order)
    worker.turn()
    assert isinstance(waits.events[0].error, Late)
    time.sleep(0.06)
    worker.turn()
    assert isinstance(sits.events[-1].error, Late)
    assert worker.benches["tiny"].seats.free == 2
    assert not worker.busy


def test_what_goes_wrong_ends_those_who_sit_and_those_who_wait_are_drawn(own, monkeypatch):
    worker = Worker({"tiny": bench(own, seats=2)})
    tiny = worker.benches["tiny"]
    for client in (sits := Client("1", count=2), waits := Client("2", seed=5)):
        worker.submit("tiny", client.order)
    worker.turn()

    def broken() -> None:
        raise RuntimeError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(tiny.seats, "step", broken)
        worker.turn()
    assert isinstance(sits.events[-1], Failed)
    while worker.busy:
        worker.turn()
    assert waits.made[0].picture.codes == alone(own, waits.order)[0]


class Counting:
    """A judge that likes later seeds, and counts how many pictures it is shown at a time."""

    def __init__(self, wrong: float = 0.0):
        self.shown, self.wrong = [], wrong

    def scores(self, pictures):
        self.shown.append(len(pictures))
        return torch.tensor([float(p.seed) + self.wrong for p in pictures])


def test_judging_takes_turns_with_drawing(own):
    worker = Worker({"tiny": bench(own, judge := Counting(), seats=8)})
    best, other = Client("1", count=6, seed=1, keep=2), Client("2", seed=5, client="bob")
    worker.submit("tiny", best.order)
    while not judge.shown:
        worker.turn()
    worker.submit("tiny", other.order)
    before = len(judge.shown)
    worker.turn()
    (drawing,) = worker.benches["tiny"].seats.drawings
    assert drawing.done == 2, "its first code when it sat down, and one in the same turn"
    assert len(judge.shown) == before + 1
    while worker.busy:
        worker.turn()
    assert judge.shown == [1] * 6
    assert [(m.index, m.picture.seed, m.picture.score) for m in best.made] == [(0, 6, 6.0), (1, 5, 5.0)]
    assert [m.picture.codes for m in other.made] == [alone(own, other.order)[0]]


def test_who_leaves_is_judged_no_more(own):
    worker = Worker({"tiny": bench(own, judge := Counting(), seats=8)})
    worker.submit("tiny", (gone := Client("1", count=6, keep=1)).order)
    while not judge.shown:
        worker.turn()
    worker.cancel(gone.order)
    worker.turn()
    assert judge.shown == [1]
    assert not worker.busy
    assert not gone.events


def test_a_judge_that_is_damaged_ends_its_order_alone(own):
    worker = Worker({"tiny": bench(own, Counting(float("nan")), seats=8)})
    best, other = Client("1", count=2, keep=1), Client("2", count=9, client="bob")
    for client in (best, other):
        worker.submit("tiny", client.order)
    while worker.busy:
        worker.turn()
    (failed,) = best.events
    assert "scores are not numbers" in str(failed.error)
    assert len(other.made) == 9


def test_the_judge_is_waited_for_where_more_is_drawn_than_it_can_see(own):
    worker = Worker({"tiny": (tiny := bench(own, Counting(), seats=4, queue=1000))})
    tiny.unjudged.extend((Client("1", keep=1).order, 0) for _ in range(4))
    assert not tiny.admits(Client("1").order)
    tiny.unjudged.pop()
    assert tiny.admits(Client("1").order)
    assert worker.busy


def test_a_worker_that_stops_tells_everybody_and_takes_nobody(own):
    worker = Worker({"tiny": bench(own, seats=2)})
    worker.start()
    clients = [Client("1", count=8, seed=n) for n in range(3)]
    for client in clients:
        worker.submit("tiny", client.order)
    worker.stop()
    assert all(len(c.made) == 8 or isinstance(c.events[-1].error, Draining) for c in clients)
    assert not worker.alive
    with pytest.raises(Draining):
        worker.submit("tiny", Client("1").order)


@pytest.mark.parametrize(
    ("count", "given", "grid"), [(0, 0, 4), (3, 0, 4), (2, 0, 16), (3, 8, 4), (3, 0, 2), (3, 15, 16)]
)
def test_unfinished_pictures_are_shown_after_whole_rows_evenly_apart(count, given, grid):
    shown = shown_at(count, given * (grid if given > grid else 1), grid * grid, grid)
    assert len(shown) <= count
    assert all(place % grid == 0 and place < grid * grid for place in shown)
    assert shown == sorted(set(shown))
    if count and grid - given // grid > count:
        gaps = {b - a for a, b in zip(shown, [*shown[1:], grid * grid], strict=True)}
        assert max(gaps) - min(gaps) <= grid
