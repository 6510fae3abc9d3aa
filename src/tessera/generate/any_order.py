"""Codes drawn in any order, one at a time or many. It does not know prompts or pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tessera.config import SampleConfig, refuse_order
from tessera.config.any_order import by_code
from tessera.generate.choose import Noise, check_finite, filters, gumbel_max
from tessera.generate.decoder import Decoder, DrawingBatch, Drawn, Progress
from tessera.generate.guidance import Guidance, NoGuidance, guidance
from tessera.generate.orders import chance, sequence, totals
from tessera.generate.raster import Decode, RasterDecoder
from tessera.machine.device import few_rows
from tessera.models.any_order import AnyOrder
from tessera.nn.cache import Past

Ask = Callable[[Int[Tensor, "b n"]], Float[Tensor, "b n K"]]
"""Guided logits of places."""
Chosen = tuple[Int[Tensor, "b n"], Int[Tensor, "b n"], Float[Tensor, "b n K"]]
"""Places, their codes, and the logits that these were drawn from."""


class AnyOrderDecoder(Decoder):
    """Draws the codes that a mask asks for, in any order; what is not masked is read first, and stays.

    known -> begin ---> past
                         |
    .-> left -> ask ---> logits -> guidance.combine -> + noise of (seed, place) -> argmax -> the next, or the surest -.
    |                                                                                                                |
    '------------------------------- read <- codes at their places <-------------------------------------------------'
    """

    def __init__(self, model: AnyOrder, decode: Decode | None = None):
        """`decode` is `model.decode` compiled, for codes that are drawn one by one in reading order."""
        self.model, self.raster = model, RasterDecoder(model, decode)

    def steps(self, batch: DrawingBatch) -> Generator[Progress, None, Drawn]:
        """A step draws one code of each picture, or several. Pictures that know different numbers of codes are drawn
        one group after the other."""
        assert not self.model.training
        refuse_order(batch.sampling, self.model.config)
        mask = batch.mask.to(batch.tokens.device).expand(batch.known.shape)
        counts = mask.sum(1).tolist()
        last = torch.arange(mask.shape[1], device=mask.device) >= mask.shape[1] - counts[0]
        if by_code(batch.sampling) and torch.equal(mask, last.expand_as(mask)):
            return (yield from self.raster.steps(batch))
        canvas = _Canvas(batch, mask)
        for count in sorted(set(counts) - {0}):
            rows = [i for i, own in enumerate(counts) if own == count]
            yield from self._group(batch, rows, count, canvas)
        return Drawn(canvas.codes, canvas.log_probability, canvas.entropy)

    def _group(
        self, batch: DrawingBatch, own: list[int], count: int, canvas: _Canvas
    ) -> Generator[Progress, None, None]:
        """Draw the `count` codes that each of these rows of the batch asks for."""
        sampling, seeds = batch.sampling, [batch.seeds[i] for i in own]
        rows = torch.tensor(own, device=canvas.codes.device)
        left = sequence(sampling, seeds, self.model.layout.grid).to(rows.device)
        left = left[canvas.mask[rows].gather(1, left)].view(len(own), count)
        choose = CHOICES.get(sampling.order, Next)(seeds, sampling, self.model.config.image_vocab, canvas.codes)
        with few_rows(), torch.inference_mode():
            past = self._begun(batch.tokens[rows], *canvas.given(rows, count), guidance(self.model, sampling.guidance))
        done = 0
        for until in totals(count, sampling.steps):
            with few_rows(), torch.inference_mode():
                guided = guidance_at(self.model, sampling, done / count)
                at, found, logits = choose(left, until - done, until / count, self._ask(guided, past))
                canvas.put(rows, at, found, logits)
                left = left[(left[:, :, None] != at[:, None]).all(2)].view(len(own), count - until)
                if until < count:
                    self.model.read(guided.repeat(found), guided.repeat(at), past)
                done = until
            yield canvas.progress()

    def _begun(self, tokens: Tensor, codes: Tensor, at: Tensor, guided: Guidance | NoGuidance) -> Past:
        """A past that knows the captions and the given codes at their places."""
        rows = guided.rows(tokens)
        past = self.model.past(len(rows), self.model.image_embedding.weight.dtype)
        self.model.begin(rows, guided.repeat(codes), guided.repeat(at), past)
        return past

    def _ask(self, guided: Guidance | NoGuidance, past: Past) -> Ask:
        def ask(at: Int[Tensor, "b n"]) -> Float[Tensor, "b n K"]:
            logits = self.model.ask(guided.repeat(at), past)
            check_finite(logits)
            return guided.combine(logits)

        return ask


def guidance_at(model: AnyOrder, sampling: SampleConfig, share: float) -> Guidance | NoGuidance:
    """Guidance where a share of what is asked for is drawn."""
    if sampling.guidance == 1 or sampling.guidance_schedule == "constant":
        return guidance(model, sampling.guidance)
    return Guidance(model, 1 + (sampling.guidance - 1) * share)


class Next:
    """Draws the next places of a sequence. A place of a picture always has the same noise."""

    def __init__(self, seeds: Sequence[int], config: SampleConfig, vocab: int, codes: Int[Tensor, "B N"]):
        self.noises = [Noise([seed], vocab, codes.device) for seed in seeds]
        self.filters = filters(config, vocab)

    def __call__(self, left: Int[Tensor, "b m"], count: int, share: float, ask: Ask) -> Chosen:
        """`count` of the places that are left; then a `share` of what is asked for is drawn."""
        at = left[:, :count]
        logits = ask(at)
        return at, self.draw(logits, at), logits

    def draw(self, logits: Float[Tensor, "b n K"], at: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        noise = torch.cat([own.of(places) for own, places in zip(self.noises, at.tolist(), strict=True)])
        for keep in self.filters:
            logits = keep(logits)
        return gumbel_max(logits, noise)


class Surest(Next):
    """Draws every place that is left and keeps the codes that the model is surest of, with some chance in it that falls
    to nothing (MaskGIT, Chang et al. 2022)."""

    def __init__(self, seeds: Sequence[int], config: SampleConfig, vocab: int, codes: Int[Tensor, "B N"]):
        super().__init__(seeds, config, vocab, codes)
        uniform = torch.stack([torch.rand(codes.shape[1], generator=chance(seed)) for seed in seeds])
        gumbel = -(-uniform.clamp(min=2**-25).log()).log()
        self.chance = config.choice_temperature * gumbel.to(codes.device)

    def __call__(self, left: Int[Tensor, "b m"], count: int, share: float, ask: Ask) -> Chosen:
        logits = ask(left)
        found = self.draw(logits, left)
        sure = logits.float().log_softmax(-1).gather(-1, found[..., None])[..., 0]
        best = (sure + (1 - share) * self.chance.gather(1, left)).topk(count).indices
        return left.gather(1, best), found.gather(1, best), logits.take_along_dim(best[..., None], 1)


CHOICES: dict[str, type[Next]] = {"confidence": Surest}
"""By `order`; the others draw the next places of a sequence."""


class _Canvas:
    """The codes of a batch while they are drawn, and how sure the model was of each."""

    def __init__(self, batch: DrawingBatch, mask: Bool[Tensor, "B N"]):
        self.mask = mask.clone()
        self.codes = batch.known.to(mask.device, copy=True)
        self.log_probability, self.entropy = torch.zeros(2, *mask.shape, device=mask.device)

    def given(self, rows: Int[Tensor, " b"], count: int) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
        """The codes that are known, and their places, in reading order."""
        known = (~self.mask[rows]).nonzero()[:, 1].view(len(rows), self.mask.shape[1] - count)
        return self.codes[rows].gather(1, known), known

    def put(self, rows: Tensor, at: Int[Tensor, "b n"], found: Int[Tensor, "b n"], logits: Tensor) -> None:
        predicted, rows = logits.float().log_softmax(-1), rows[:, None]
        self.codes[rows, at], self.mask[rows, at] = found, False
        self.log_probability[rows, at] = predicted.gather(-1, found[..., None])[..., 0]
        self.entropy[rows, at] = -(predicted.exp() * predicted).sum(-1)

    def progress(self) -> Progress:
        return Progress(self.codes, self.mask, int((~self.mask).sum(1).min()))
