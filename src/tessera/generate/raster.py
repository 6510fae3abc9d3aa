"""Codes drawn in reading order. It knows no prompts and no pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.generate.ahead import window
from tessera.generate.choose import Choice, sound
from tessera.generate.decoder import Decoder, Drawn, Progress, after
from tessera.generate.guidance import guidance
from tessera.machine.device import few_rows
from tessera.models.text_to_image import TextToImage
from tessera.nn.cache import Past

Decode = Callable[[Int[Tensor, "B n"], Past], Float[Tensor, "B n K"]]
"""`TextToImage.decode`, or what a compiler made of it."""


class RasterDecoder(Decoder):
    """Draws codes in reading order, each from those before it.

    given     drawn
    c c c | c c c c . . .
                  ^ read, with the past of all before it: logits of the next
    """

    def __init__(self, model: TextToImage, decode: Decode | None = None):
        """`decode` is `model.decode` compiled for one shape; without it, nobody reads beyond what was seen."""
        self.model, self.decode, self.compiled = model, decode or model.decode, decode is not None

    def steps(
        self,
        tokens: Int[Tensor, "B T"],
        known: Int[Tensor, "B N"],
        mask: Bool[Tensor, "*B N"],
        seeds: Sequence[int],
        sampling: SampleConfig,
    ) -> Generator[Progress, None, Drawn]:
        """A step is a code, or several where guesses of `sampling.ahead` turn out right. Raises ConfigError for a mask
        that is not everything after a first part. The device is waited for only when new noise goes to it."""
        assert not self.model.training
        drawing = _Drawing(self, tokens, known, prefix(mask, known), seeds, sampling)
        if drawing.left:
            drawing.begin()
            yield drawing.progress()
        while drawing.left:
            drawing.go_on()
            yield drawing.progress()
        return drawing.drawn


class _Drawing:
    """One batch of pictures that are being drawn: their codes so far and what the model remembers of them."""

    def __init__(
        self, decoder: RasterDecoder, tokens: Tensor, known: Tensor, given: int, seeds: Sequence[int],
        sampling: SampleConfig,
    ):  # fmt: skip
        self.decoder, self.model, self.tokens = decoder, decoder.model, tokens
        self.done, self.total = given, known.shape[1]
        self.guidance = guidance(self.model, sampling.guidance)
        self.window = window(sampling.ahead, self.total)
        self.choose = Choice(seeds, sampling, self.model.config.image_vocab, tokens.device)
        codes = known.to(tokens.device, copy=True)
        self.drawn = Drawn(codes, *torch.zeros(2, *codes.shape, device=codes.device))
        self.mask = torch.arange(self.total, device=tokens.device) >= given

    @property
    def left(self) -> int:
        return self.total - self.done

    def progress(self) -> Progress:
        return Progress(self.drawn.codes, self.mask, self.done)

    @few_rows()
    @torch.inference_mode()
    def begin(self) -> None:
        """The first code, from the captions and the given codes."""
        prime = self.guidance.repeat(self.drawn.codes[:, : self.done])
        self.past, logits = prefilled(self.model, self.guidance.rows(self.tokens), prime)
        if self.decoder.compiled:
            self.past.fix()
        self._keep(self.choose(self.guidance.combine(logits[:, None]), self.done))

    @few_rows()
    @torch.inference_mode()
    def go_on(self) -> None:
        """The next code, from the last one that was drawn; with guesses behind it perhaps several."""
        first, width = self.window.first(self.done), self.window.width
        self.past.rewind(self.model.layout.text + first - 1, width)
        given = self.drawn.codes[:, first - 1 : first - 1 + width]
        logits = self.decoder.decode(self.guidance.repeat(given), self.past)
        found = self.choose(self.guidance.combine(logits), first)
        self._keep(Drawn(*(new[:, self.done - first :] for new in found)))
        if not self.left:
            sound(logits)  # what is not a number spreads: looking at the first and the last predictions is enough

    def _keep(self, found: Drawn) -> None:
        """Write down what was found from `done` on, of which not all need be right."""
        right = self.window.settle(self.drawn.codes, found.codes, self.done)
        for kept, new in zip(self.drawn, found, strict=True):
            kept[:, self.done : self.done + new.shape[1]] = new
        self.mask[self.done : self.done + right] = False
        self.done += right


def prefilled(
    model: TextToImage, rows: Int[Tensor, "R T"], codes: Int[Tensor, "R n"]
) -> tuple[Past, Float[Tensor, "R K"]]:
    """What is remembered of captions and first codes, and logits of the next. What several rows have in common, a
    caption or the want of one, is read once:

    rows   A B A null null  ->  read   A B null  ->  past   A B A null null
    """
    begun, which = torch.cat((rows, codes), 1).unique(dim=0, return_inverse=True)
    text, first = begun.split((rows.shape[1], codes.shape[1]), 1)
    past = model.past(len(begun), dtype=model.image_embedding.weight.dtype)
    logits = model.prefill(text, first, past)[which]
    sound(logits)
    past.spread(which)
    return past, logits


def prefix(mask: Bool[Tensor, "*B N"], known: Int[Tensor, "B N"]) -> int:
    """How many codes are given, where they are the first ones of every picture. Raises ConfigError elsewhere."""
    rows = mask.cpu().expand(known.shape)
    given = int((~rows[0]).sum())
    if not torch.equal(rows, (torch.arange(known.shape[1]) >= given).expand_as(rows)):
        raise ConfigError(
            "This model draws in reading order: it can keep the first codes of pictures, as many in each, and draw all "
            "that follow. The mask asks for other ones; give one that is False for the first codes and then True."
        )
    return given


def codes(
    model: TextToImage,
    tokens: Int[Tensor, "B T"],
    seeds: Sequence[int],
    config: SampleConfig,
    prime: Int[Tensor, "B n"] | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    decode: Decode | None = None,
) -> Int[Tensor, "B N"]:
    """The codes of B pictures alone, the first n of each taken from `prime`."""
    known, mask = after(tokens[:, :0] if prime is None else prime, model.layout.codes)
    return RasterDecoder(model, decode).codes(tokens, known, mask, seeds, config, on_step).codes
