"""One model that draws several pictures at once, each at its own place: they sit down and leave between two steps. It
does not know clients, prompts or pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.generate.choose import Noise, check_finite, filters, gumbel_max
from tessera.generate.guidance import guidance
from tessera.generate.raster import Decode, prefilled
from tessera.generate.rows import put, stand_at
from tessera.models.text_to_image import TextToImage
from tessera.nn.cache import Past, Slot


@dataclass(eq=False)
class Drawing:
    """One picture while it is drawn."""

    tokens: Int[Tensor, "1 T"]
    given: Int[Tensor, "1 n"]
    """Its first codes, which are not drawn."""
    seed: int
    sampling: SampleConfig
    seats: tuple[int, ...] = ()
    """Where it sits: with its caption, and with guidance also without."""
    done: int = 0
    """Codes that it has, given ones included."""
    noise: Noise = field(init=False, repr=False)

    @property
    def how(self) -> tuple[float, ...]:
        """Drawings that agree in this are drawn by the same products and filters."""
        s = self.sampling
        return s.guidance, s.temperature, s.top_k, s.top_p


def places_needed(sampling: SampleConfig) -> int:
    """Seats that a picture takes."""
    return 1 if sampling.guidance == 1 else 2


class Beginnings:
    """The pasts of captions and given codes that were read last, each of one row: the pictures of a request, and all
    pictures without a caption, have theirs in common.

    Each is read alone, so that it has the same numbers whoever else draws.
    """

    def __init__(self, model: TextToImage, most: int):
        self.model, self.most = model, most
        self.kept: OrderedDict[bytes, tuple[Past, Tensor]] = OrderedDict()

    def read(self, tokens: Int[Tensor, "1 T"], given: Int[Tensor, "1 n"]) -> tuple[Past, Float[Tensor, "1 K"]]:
        """The past, and logits of the next code."""
        key = torch.cat((tokens, given), 1).cpu().numpy().tobytes()
        if key not in self.kept:
            self.kept[key] = prefilled(self.model, tokens, given)
        self.kept.move_to_end(key)
        while len(self.kept) > self.most:
            self.kept.popitem(last=False)
        return self.kept[key]


class Seats:
    """The rows of one static cache.

    seat   0  1  2  3          codes   a a a a a a . .      caption of picture A
           A  B  A' .                  b b . . . . . .      caption of picture B
                                       a a a a a a . .      A again, without its caption
                                       . . . . . . . .      free

    A step reads the newest code of each and draws the next; who is done, or unwanted, leaves. Only the first rows that
    anybody sits in are computed, as few as one of the fixed `sizes` allows. A picture's codes do not depend on its
    seat, on the size, or on the others: sizes in which this machine computes other bits are left out (`agreeing`).
    """

    def __init__(self, model: TextToImage, count: int, decodes: Callable[[], Decode] | None = None):
        """`decodes` makes a compiled `model.decode` for one size; without it any power of two is a size."""
        self.model, self.text, self.total = model, model.layout.text, model.layout.codes
        self.device = model.image_embedding.weight.device
        with torch.inference_mode():
            self.past = model.past(count, dtype=model.image_embedding.weight.dtype)
            self.codes = torch.zeros(count, self.total, dtype=torch.long, device=self.device)
            wanted = {2**k for k in range(count.bit_length())} if decodes is None else {max(1, count // 4)}
            self.steps = {s: _Step(self.past, s, decodes() if decodes else model.decode) for s in wanted | {count}}
            agree = agreeing(self.past, self.steps, self.codes, self.text)
        self.sizes = sorted(s for s in self.steps if s in agree)
        self.beginnings = Beginnings(model, count)
        self.taken: list[Drawing | None] = [None] * count

    @property
    def free(self) -> int:
        return self.taken.count(None)

    @property
    def drawings(self) -> list[Drawing]:
        """In the order of their seats."""
        return list(dict.fromkeys(d for d in self.taken if d is not None))

    def left(self, drawing: Drawing) -> int:
        """Codes that it still wants."""
        return self.total - drawing.done

    def canvas(self, drawing: Drawing) -> tuple[Int[Tensor, "1 N"], Bool[Tensor, "1 N"]]:
        """The codes of a picture, and which of them are still to be drawn."""
        codes = self.codes[drawing.seats[0]].clone()[None]
        return codes, (torch.arange(self.total, device=codes.device) >= drawing.done)[None]

    @torch.inference_mode()
    def sit(self, drawing: Drawing) -> None:
        """Take the first free seats, read the caption, and draw the first code. There must be room."""
        rows = guidance(self.model, drawing.sampling.guidance).rows(drawing.tokens)
        free = [i for i, other in enumerate(self.taken) if other is None]
        first = []
        for seat, tokens in zip(free[: len(rows)], rows.split(1), strict=True):
            past, logits = self.beginnings.read(tokens, drawing.given)
            put(self.past, seat, past)
            self.codes[seat, : drawing.given.shape[1]] = drawing.given[0]
            first.append(logits)
        drawing.seats, drawing.done = tuple(free[: len(rows)]), drawing.given.shape[1]
        drawing.noise = Noise([drawing.seed], self.model.config.image_vocab, self.device)
        drawing.noise.most = 1  # it moves on through the blocks and never back
        for seat in drawing.seats:
            self.taken[seat] = drawing
        self._draw(torch.cat(first)[:, None], [drawing])

    def leave(self, drawing: Drawing) -> None:
        for seat in drawing.seats:
            self.taken[seat] = None

    def clear(self) -> None:
        """Everybody leaves, and what was read is forgotten."""
        self.taken = [None] * len(self.taken)
        self.beginnings.kept.clear()

    @torch.inference_mode()
    def step(self) -> None:
        """One more code for each picture."""
        drawings = self.drawings
        last = max(seat for d in drawings for seat in d.seats)
        size = next(s for s in self.sizes if s > last)
        rows = torch.tensor([[d.done - 1 if d else 0] for d in self.taken[:size]], device=self.device)
        logits = self.steps[size](self.codes[:size].gather(1, rows), rows + self.text)
        for _, same in groupby(sorted(drawings, key=lambda d: d.how), key=lambda d: d.how):
            group = list(same)
            self._draw(logits[_seats(group)], group)

    def _draw(self, logits: Float[Tensor, "R 1 K"], group: Sequence[Drawing]) -> None:
        """Write the next code of pictures that are drawn the same way; logits of captions, then those without."""
        sampling = group[0].sampling
        if any(self.left(d) == 1 for d in group):  # nan spreads: looking at the last predictions is enough
            check_finite(logits)
        chosen = guidance(self.model, sampling.guidance).combine(logits)
        for keep in filters(sampling, self.model.config.image_vocab):
            chosen = keep(chosen)
        found = gumbel_max(chosen, torch.cat([d.noise.at(d.done, 1) for d in group]))  # [B, 1]
        seats, places = _seats(group), [d.done for d in group] * len(group[0].seats)
        self.codes[seats, places] = found[:, 0].repeat(len(group[0].seats))
        for d in group:
            d.done += 1


def _seats(group: Sequence[Drawing]) -> list[int]:
    """Those with captions, then those without."""
    return [d.seats[i] for i in range(len(group[0].seats)) for d in group]


class _Step:
    """One step of the first `size` rows of a past, whose shapes and addresses never change."""

    def __init__(self, past: Past, size: int, decode: Decode):
        slots = [Slot(*(kept[:size] for kept in slot.kept)) for slot in past.slots]
        self.past, self.decode = Past(slots, len(past.every), past.every.device), decode
        self.past.fix()

    def __call__(self, codes: Int[Tensor, "B 1"], rows: Int[Tensor, "B 1"]) -> Float[Tensor, "B 1 K"]:
        """`rows` of the sequence, at which the codes stand."""
        stand_at(self.past, rows)
        return self.decode(codes, self.past)


def agreeing(past: Past, steps: dict[int, _Step], codes: Int[Tensor, "R N"], text: int) -> set[int]:
    """The sizes in which rows get the bits that they get in the largest, tried on noise. Libraries add up the products
    of few rows in another order, which would let a picture depend on how many others are drawn."""
    noise, (count, total) = torch.Generator(past.every.device).manual_seed(0), codes.shape
    for slot in past.slots:
        for kept in slot.kept[:2]:
            kept.normal_(generator=noise)
    rows = (torch.arange(count, device=past.every.device) * 7919 % total)[:, None]
    found = {size: step(codes[:size, :1], text + rows[:size]).clone() for size, step in steps.items()}
    return {size for size, logits in found.items() if torch.equal(logits, found[count][:size])}
