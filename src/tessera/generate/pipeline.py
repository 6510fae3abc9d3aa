"""Request -> pictures, from a trained run. It does not know the command line or training."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tessera.config import PLAIN, Request, SampleConfig, request
from tessera.config.merging import cast
from tessera.config.ranges import Batch, Seed
from tessera.data.pictures import to_image
from tessera.errors import CheckpointError, ConfigError
from tessera.generate import captions
from tessera.generate.batches import Batches
from tessera.generate.decoder import DrawingBatch, Progress
from tessera.generate.decoders import decoder
from tessera.generate.defaults import find, usual
from tessera.generate.editing import drafted, edited, wanted
from tessera.generate.events import Event, greyed, heard, naming, told
from tessera.generate.given import Given
from tessera.generate.judge import Judge, best
from tessera.generate.live import OnPartial, OnStep, PictureStream
from tessera.generate.masks import Source
from tessera.generate.picture import Picture, begun
from tessera.generate.prompts import Prompts
from tessera.generate.weights import prepare
from tessera.machine.device import choose_device, compiles
from tessera.models import saved
from tessera.models.text_to_image import TextToImage
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer


class Pipeline:
    """A prior with its two tokenizers."""

    def __init__(
        self, model: TextToImage, text: TextTokenizer, image: ImageTokenizer, name: str = "", compile: bool = False,
        sampling: SampleConfig = PLAIN,
    ):  # fmt: skip
        """`sampling` is how it draws where a call says nothing else."""
        c = model.config
        if (image.grid, image.vocab) != (c.grid, c.image_vocab):
            raise CheckpointError(
                f"The image tokenizer has a grid of {image.grid} and {image.vocab} codes, the model {c.grid} and "
                f"{c.image_vocab}: they do not belong together."
            )
        self.model, self.image, self.name, self.sampling = model.eval(), image, name, sampling
        self.text, self.prompts = text, Prompts(text, model.config)
        self.decoder = decoder(model, compile)
        self.batches = Batches()

    @staticmethod
    def load(
        run: str | Path, device: str = "auto", weights: str = "float32", compile: Literal["auto", "on", "off"] = "auto"
    ) -> Pipeline:
        """From a run folder or one of its checkpoints. Raises CheckpointError where it holds no whole model.

        `weights` are float32, bf16 or int8, which is the fastest on a CPU. `compile` costs ten seconds and saves a
        quarter to a half of a picture's time on a CPU; auto does it on CUDA alone.
        """
        cast(compile, Literal["auto", "on", "off"], "compile")
        checkpoint = find(run)
        target = choose_device(device)
        model = saved.read(checkpoint)
        if not isinstance(model, TextToImage):
            raise CheckpointError(
                f"{run} holds a {type(model).__name__}, which does not draw by itself; name a t2i run."
            )
        tokenizer = image_tokens.load(checkpoint / "image_tokenizer")
        tokenizer.to(target)
        prepare(model.to(target).eval(), weights, compiles(compile, target))
        text = text_tokens.load(checkpoint / "text_tokenizer")
        with naming(str(run)):
            return Pipeline(model, text, tokenizer, str(run), compiles(compile, target), usual(run))

    def __call__(self, prompt: str, count: int = 1, seed: int = 0, **options: Any) -> list[Picture]:
        """`count` pictures of a prompt; keywords are the fields of SampleConfig, such as temperature and guidance, and
        of Request, such as truncate. What is not said is as the run usually draws (`sampling`). Raises ConfigError that
        names a wrong keyword or value."""
        asked = request(prompt, self.sampling, count=count, seed=seed, **options)
        return [event for event in self.events(asked, partial=False) if isinstance(event, Picture)]

    def events(self, request: Request, partial: bool = True) -> Generator[Event, None, None]:
        """What happens while a request is drawn: a Step after each step; a Partial after every two rows of codes, if
        wanted; each Picture as soon as its batch is drawn. Closing the generator stops the drawing at that step and
        frees the cache. A wrong request is refused at once, before the first event."""
        self.prompts.accept(request)
        return self.drawn(request, begun(request, self.image), partial)

    def stream(
        self, prompt: str | Request, on_step: OnStep = lambda done, total: None, on_partial: OnPartial | None = None,
        **options: Any,
    ) -> PictureStream:  # fmt: skip
        """The pictures, as each batch is drawn; in a notebook the cell shows them on the way. `options` are those of a
        call. Along the way `on_step(codes done, codes in all)` is called, and `on_partial` with the batch's unfinished
        pictures after every two rows of codes."""
        asked = request(prompt, self.sampling, **options)
        return PictureStream(lambda partial: self.events(asked, partial), asked.count, on_step, on_partial)

    def edit(self, image: Source, prompt: str, mask: Source | None = None, **options: object) -> list[Picture]:
        """Pictures of a prompt that keep what a mask leaves of another picture: see `masks.draft` for picture and mask,
        EditingConfig for `outpaint`, `vary` and `restore`; other options are those of a call."""
        asked, config = wanted(prompt, self.sampling, options)
        events = edited(self, drafted(self, image, mask, config), asked, config)
        return [event for event in events if isinstance(event, Picture)]

    def drawn(self, request: Request, given: Given, partial: bool) -> Generator[Event, None, None]:
        """The events of an accepted request whose pictures know `given` codes."""
        prompts = [request.prompt] * request.count
        seeds = range(request.seed, request.seed + request.count)
        draw = lambda own: self._batch(prompts[own], seeds[own], request.sampling, request.truncate, given.of(own))
        parts = self.batches.drawn(request.count, request.batch, draw)
        show = lambda part, own: self.partial(part.codes, part.mask, prompts[own], seeds[own])
        with naming(self.name):
            yield from told(parts, request.count, self.model.layout.grid, show if partial else None)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: SampleConfig, batch: int = 32,
        truncate: bool = False,
    ) -> list[Picture]:  # fmt: skip
        """One picture for each prompt with its seed. `truncate` cuts prompts that are too long, in silence."""
        sampling.check()
        cast(list(seeds), list[Seed], "seeds")
        cast(batch, Batch, "batch")
        if len(prompts) != len(seeds):
            raise ConfigError(f"There are {len(prompts)} prompts and {len(seeds)} seeds; each prompt needs one.")
        given = Given.nothing(self.model.layout.codes)
        draw = lambda own: self._batch(prompts[own], seeds[own], sampling, truncate, given)
        parts = self.batches.drawn(len(prompts), batch, draw)
        return [picture for part in parts if not isinstance(part, Progress) for picture in part]

    def _batch(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: SampleConfig, truncate: bool, given: Given
    ) -> Generator[Progress, None, list[Picture]]:
        """The steps of one batch, and then its pictures."""
        tokens = self.tokens(prompts, truncate)
        known, mask = (rows.expand(len(tokens), -1) for rows in given)
        drawn = yield from self.decoder.steps(DrawingBatch(tokens, known, mask, seeds, sampling))
        return self.pictures(drawn.codes, prompts, seeds)

    def partial(self, codes: Tensor, mask: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """Unfinished pictures; codes [B, N] that are still to be drawn are grey."""
        return greyed(codes, mask, lambda codes: self.pictures(codes, prompts, seeds))

    def best(
        self, request: Request, judge: Judge, of: int, on_step: OnStep = lambda done, total: None
    ) -> list[Picture]:
        """The `request.count` pictures of `of` drawn that the judge finds to fit best, the best first."""
        if of < request.count:
            raise ConfigError(f"best-of is {of}, less than the {request.count} pictures that are to be kept.")
        return best([*heard(self.events(replace(request, count=of), False), on_step)], judge, request.count)

    def complete(self, beginning: str, seeds: Sequence[int], sampling: SampleConfig) -> list[str]:
        """The beginning of a caption, completed by the model, once for each seed, without guidance."""
        return captions.completed(self.model, self.prompts, beginning, seeds, sampling)

    def tokens(self, prompts: Sequence[str], truncate: bool = False) -> Tensor:
        """[B, T]. Raises ConfigError where a prompt is empty, DataError where it is too long, unless `truncate`."""
        return self.prompts.tokens(prompts, truncate).to(self.model.image_embedding.weight.device)

    def pictures(self, drawn: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """What the image tokenizer makes of codes [B, N]."""
        decoded = self.image.decode(drawn)
        if not decoded.isfinite().all():
            raise CheckpointError("The image tokenizer draws values that are not numbers: its weights are damaged.")
        rows = zip(decoded, drawn.tolist(), prompts, seeds, strict=True)
        return [Picture(to_image(p), prompt, seed, self.name, tuple(c)) for p, c, prompt, seed in rows]
