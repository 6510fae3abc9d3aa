"""Codes drawn in reading order. It does not know prompts or pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.generate.ahead import window
from tessera.generate.certainty import Measure, Unmeasured
from tessera.generate.choose import Sampler, check_finite
from tessera.generate.decoder import Decoder, DrawingBatch, Drawn, Progress
from tessera.generate.given import Given
from tessera.generate.guidance import guidance
from tessera.machine.device import few_rows
from tessera.models.text_to_image import TextToImage
from tessera.nn.cache import Past

Decode = Callable[[Int[Tensor, "B n"], Past], Float[Tensor, "B n K"]]
"""`TextToImage.decode`, or what a compiler made of it."""


class RasterDecoder(Decoder):
    """Draws codes in reading order, each from those before it.

    tokens -> guidance.rows -> prefill ----.
                                           v
    .-> guidance.repeat -> decode, past -> logits -> guidance.combine -> sampler -> window.accept -.
    |                                                                                              |
    '-------------------------------- the last codes <---------------------------------------------'
    """

    def __init__(self, model: TextToImage, decode: Decode | None = None, certainty: Measure = Unmeasured):
        """`decode` is `model.decode` compiled for one shape; without it, only the keys seen so far are read.
        `certainty` is what is measured of log-probabilities and entropies."""
        self.model, self.decode, self.certainty = model, decode or model.decode, certainty
        self.settle: Callable[[Past], None] = Past.fix if decode else lambda past: None

    def steps(self, batch: DrawingBatch) -> Generator[Progress, None, Drawn]:
        """A step draws one code, or several where guesses of `sampling.ahead` turn out right. Raises ConfigError for a
        mask that is not everything after a first part. The device is waited for only when new noise goes to it."""
        assert not self.model.training
        sampling, text = batch.sampling, self.model.layout.text
        guided = guidance(self.model, sampling.guidance)
        canvas = _Canvas(batch, self.model.config.image_vocab, self.certainty)
        if canvas.left:
            with few_rows(), torch.inference_mode():
                past, logits = prefilled(self.model, guided.rows(batch.tokens), guided.repeat(canvas.given()))
                self.settle(past)
                canvas.draw(guided.combine(logits[:, None]), canvas.done)
            yield canvas.progress()
        while canvas.left:
            with few_rows(), torch.inference_mode():
                first, codes = canvas.inputs()
                past.rewind(text + first - 1, codes.shape[1])
                logits = self.decode(guided.repeat(codes), past)
                canvas.draw(guided.combine(logits), first)
                if not canvas.left:  # nan spreads: looking at the first and the last predictions is enough
                    check_finite(logits)
            yield canvas.progress()
        return canvas.drawn()


class _Canvas:
    """The codes of a batch while they are drawn.

    codes   c c c c c c . . . .
            given | drawn        done = 6
    mask    - - - - - - x x x x
    """

    def __init__(self, batch: DrawingBatch, vocab: int, certainty: Measure):
        device, self.total = batch.tokens.device, batch.known.shape[1]
        self.done = prefix(batch.mask, batch.known)
        self.codes = batch.known.to(device, copy=True)
        self.window = window(batch.sampling.ahead, self.total)
        self.sample = Sampler(batch.seeds, batch.sampling, vocab, device)
        self.certainty = certainty(self.codes)
        self.behind = torch.arange(2 * self.total, device=device) >= self.total  # N times False, N times True

    @property
    def left(self) -> int:
        return self.total - self.done

    def given(self) -> Int[Tensor, "B n"]:
        return self.codes[:, : self.done]

    def inputs(self) -> tuple[int, Int[Tensor, "B n"]]:
        """The place that the next step draws first, and the codes that it reads: they begin one place before."""
        first = self.window.first(self.done)
        return first, self.codes[:, first - 1 : first - 1 + self.window.width]

    def draw(self, logits: Float[Tensor, "B n K"], first: int) -> None:
        """Draw the codes at `first` and after it, and keep those that are right."""
        known, found = self.done, self.sample(logits, first)
        self.done += self.window.accept(self.codes, found, first, known)
        self.certainty.note(logits, self.codes, first, known)

    def progress(self) -> Progress:
        return Progress(self.codes, self.behind[self.left : self.left + self.total], self.done)

    def drawn(self) -> Drawn:
        return Drawn(self.codes, self.certainty.log_probability, self.certainty.entropy)


def prefilled(
    model: TextToImage, rows: Int[Tensor, "R T"], codes: Int[Tensor, "R n"]
) -> tuple[Past, Float[Tensor, "R K"]]:
    """The past of captions and first codes, and logits of the next code. What several rows have in common is read once:

    rows   A B A null null  ->  read   A B null  ->  past   A B A null null
    """
    begun, which = torch.cat((rows, codes), 1).unique(dim=0, return_inverse=True)
    text, first = begun.split((rows.shape[1], codes.shape[1]), 1)
    past = model.past(len(begun), dtype=model.image_embedding.weight.dtype)
    logits = model.prefill(text, first, past)[which]
    check_finite(logits)
    past.spread(which)
    return past, logits


def prefix(mask: Bool[Tensor, "*B N"], known: Int[Tensor, "B N"]) -> int:
    """How many codes are given, where they are the first ones of every picture. Raises ConfigError for other masks."""
    rows = mask.cpu().expand(known.shape)
    given = int((~rows[0]).sum())
    if not torch.equal(rows, (torch.arange(known.shape[1]) >= given).expand_as(rows)):
        raise ConfigError(
            "This model draws in reading order: it keeps whole rows at the top of a picture and draws all below them. "
            "The mask asks for something else, which a prior of any order can do: tessera train any-xs-64."
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
    """The codes of B pictures, the first n of each taken from `prime`."""
    given = Given.first(tokens[:, :0] if prime is None else prime, model.layout.codes)
    return RasterDecoder(model, decode).codes(DrawingBatch(tokens, *given, seeds, config), on_step).codes
