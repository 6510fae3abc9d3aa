"""Request -> pictures, from a trained run. It does not know the command line or training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tessera.config import Request, SampleConfig, request
from tessera.config.merging import cast
from tessera.config.ranges import Batch, Seed
from tessera.data.pictures import middle_square, resized, to_image
from tessera.errors import CheckpointError, ConfigError
from tessera.generate import captions
from tessera.generate.decoder import Decoder, DrawingBatch, Progress
from tessera.generate.picture import Picture, prime_picture
from tessera.generate.prompts import Prompts
from tessera.generate.raster import RasterDecoder
from tessera.generate.weights import compiled, prepare
from tessera.machine.device import choose_device, compiles, out_of_memory, release
from tessera.models import saved
from tessera.models.text_to_image import TextToImage
from tessera.store.run import checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer


def find(run: str | Path) -> Path:
    """The checkpoint to draw from: the best of a run, or the one that is named. Raises CheckpointError where neither
    exists."""
    folder = Path(cast(run, str | Path, "run")).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"There is no run folder {run}. Train one with: tessera learn PICTURES --out {run}")
    return checkpoint_of(folder)


class Judge(Protocol):
    """Says how well pictures fit their prompts: a score for each, higher is better."""

    def scores(self, pictures: Sequence[Picture]) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """So many codes are drawn, of all that the request asks for."""

    done: int
    total: int


@dataclass(frozen=True)
class Partial:
    """The pictures of a batch of which the first rows are drawn; the rest is grey."""

    pictures: tuple[Picture, ...]


Event = Step | Partial | Picture


@contextmanager
def _naming(run: str) -> Iterator[None]:
    """Put the run's name before what is wrong with its weights."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{run}: {error}" if run else str(error)) from error


class Pipeline:
    """A prior with its two tokenizers."""

    def __init__(
        self, model: TextToImage, text: TextTokenizer, image: ImageTokenizer, name: str = "", compile: bool = False
    ):
        c = model.config
        if (image.grid, image.vocab) != (c.grid, c.image_vocab):
            raise CheckpointError(
                f"The image tokenizer has a grid of {image.grid} and {image.vocab} codes, the model {c.grid} and "
                f"{c.image_vocab}: they do not belong together."
            )
        self.model, self.image, self.name = model.eval(), image, name
        self.text, self.prompts = text, Prompts(text, model.config)
        self.decoder: Decoder = RasterDecoder(model, compiled(model) if compile else None)
        self.smaller = 0  # the batch that memory once forced, if it did

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
        return Pipeline(model, text, tokenizer, str(run), compiles(compile, target))

    def __call__(self, prompt: str, count: int = 1, seed: int = 0, **options: Any) -> list[Picture]:
        """`count` pictures of a prompt; keywords are the fields of SampleConfig, such as temperature and guidance, and
        of Request, such as truncate. Raises ConfigError that names a wrong keyword or value."""
        return list(self.stream(request(prompt, count=count, seed=seed, **options)))

    def events(self, request: Request, partial: bool = True) -> Generator[Event, None, None]:
        """What happens while a request is drawn: a Step after each step; a Partial after every two rows of codes, if
        wanted; each Picture as soon as its batch is drawn. Closing the generator stops the drawing at that step and
        frees the cache. A wrong request is refused at once, before the first event."""
        self.prompts.accept(request)
        return self._events(request, partial)

    def stream(
        self,
        request: Request,
        on_step: Callable[[int, int], None] = lambda done, total: None,
        on_partial: Callable[[list[Picture]], None] | None = None,
    ) -> Iterator[Picture]:
        """The pictures, as each batch is drawn. Along the way `on_step(codes done, codes in all)` is called, and
        `on_partial` with the batch's unfinished pictures after every two rows of codes."""
        self.prompts.accept(request)
        return self._stream(self._events(request, on_partial is not None), on_step, on_partial or (lambda made: None))

    @staticmethod
    def _stream(
        events: Generator[Event, None, None],
        on_step: Callable[[int, int], None],
        on_partial: Callable[[list[Picture]], None],
    ) -> Iterator[Picture]:
        with closing(events):
            for event in events:
                match event:
                    case Step(done, total):
                        on_step(done, total)
                    case Partial(pictures):
                        on_partial(list(pictures))
                    case Picture():
                        yield event

    def _events(self, request: Request, partial: bool) -> Generator[Event, None, None]:
        prime, grid, size = self._prime(request), self.model.layout.grid, self.model.layout.codes
        prompts = [request.prompt] * request.count
        seeds = range(request.seed, request.seed + request.count)
        before = shown = 0
        drawing = self._draw(prompts, seeds, request.sampling, request.batch, request.truncate, prime)
        with _naming(self.name), closing(drawing) as parts:
            for part in parts:
                if isinstance(part, Progress):
                    count, done = len(part.codes), part.done
                    yield Step(before * size + count * done, request.count * size)
                    shown, last = done // (2 * grid), shown
                    if partial and shown > last and done < size:
                        own = slice(before, before + count)
                        yield Partial(tuple(self.partial(part.codes[:, :done], prompts[own], seeds[own])))
                else:
                    before += len(part)
                    yield from part

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SampleConfig,
        batch: int = 32,
        truncate: bool = False,
    ) -> list[Picture]:
        """One picture for each prompt with its seed. `truncate` cuts prompts that are too long, in silence."""
        sampling.check()
        cast(list(seeds), list[Seed], "seeds")
        cast(batch, Batch, "batch")
        if len(prompts) != len(seeds):
            raise ConfigError(f"There are {len(prompts)} prompts and {len(seeds)} seeds; each prompt needs one.")
        parts = self._draw(prompts, seeds, sampling, batch, truncate)
        return [picture for part in parts if not isinstance(part, Progress) for picture in part]

    def _draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SampleConfig,
        batch: int,
        truncate: bool,
        prime: Tensor | None = None,
    ) -> Generator[Progress | list[Picture], None, None]:
        """Batch by batch, the steps of each and then its pictures; where memory runs out the batch is halved, which
        changes no picture, and drawn again."""
        first = 0
        batch = min(batch, self.smaller or batch)
        while first < len(prompts):
            part, own = prompts[first : first + batch], seeds[first : first + batch]
            try:
                tokens = self.tokens(part, truncate)
                begun = tokens[:, :0] if prime is None else prime.expand(len(part), -1)
                asked = DrawingBatch.after(begun, self.model.layout.codes, tokens, own, sampling)
                drawn = yield from self.decoder.steps(asked)
                done = self.pictures(drawn.codes, part, own)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or len(part) == 1:
                    raise
                batch = self.smaller = max(1, len(part) // 2)
                warnings.warn(f"Memory ran out at {len(part)} pictures; drawing {batch} at a time.", stacklevel=2)
                error.__traceback__ = None  # it holds what must be freed
                release()
                continue
            yield done
            first += len(part)

    def partial(self, drawn: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """Pictures of which only the first codes [B, n] are drawn; what is missing is grey."""
        grid = self.model.layout.grid
        rows = drawn.shape[1] // grid
        known = drawn[:, : rows * grid]
        guess = known[:, -grid:].repeat(1, grid - rows)  # the last row again: its lower neighbour in the decoder
        made = self.pictures(torch.cat((known, guess), 1), prompts, seeds)
        for picture in made:
            side = picture.image.width
            cut = side * rows // grid
            picture.image.paste("#c8c8c8", (0, cut, side, side))
        return made

    def best(
        self,
        request: Request,
        judge: Judge,
        of: int,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Picture]:
        """The `request.count` pictures of `of` drawn that the judge finds to fit best, the best first."""
        if of < request.count:
            raise ConfigError(f"best-of is {of}, less than the {request.count} pictures that are to be kept.")
        drawn = list(self.stream(replace(request, count=of), on_step))
        scores = judge.scores(drawn).tolist()
        if not all(map(math.isfinite, scores)):
            raise CheckpointError("The judge's scores are not numbers: its weights are damaged. Name another judge.")
        scored = [replace(picture, score=score) for picture, score in zip(drawn, scores, strict=True)]
        return sorted(scored, key=lambda p: -(p.score or 0.0))[: request.count]

    def complete(self, beginning: str, seeds: Sequence[int], sampling: SampleConfig) -> list[str]:
        """The beginning of a caption, completed by the model, once for each seed, without guidance."""
        ids = torch.tensor([self.prompts.encode(beginning)], dtype=torch.long, device=self._device)
        if ids.shape[1] >= self.prompts.length:
            raise ConfigError(f"The beginning has {ids.shape[1]} tokens; captions end at {self.prompts.length}.")
        rows = captions.texts(self.model, ids.repeat(len(seeds), 1), seeds, sampling)
        return [self.prompts.caption(row) for row in rows.tolist()]

    def tokens(self, prompts: Sequence[str], truncate: bool = False) -> Tensor:
        """[B, T]. Raises ConfigError where a prompt is empty, DataError where it is too long, unless `truncate`."""
        return self.prompts.tokens(prompts, truncate).to(self._device)

    def beyond(self, prompt: str) -> str:
        """The end of a prompt that the model does not read, because it is too long."""
        return self.prompts.beyond(prompt)

    def pictures(self, drawn: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """What the image tokenizer makes of codes [B, N]."""
        decoded = self.image.decode(drawn)
        if not decoded.isfinite().all():
            raise CheckpointError("The image tokenizer draws values that are not numbers: its weights are damaged.")
        rows = zip(decoded, drawn.tolist(), prompts, seeds, strict=True)
        return [Picture(to_image(p), prompt, seed, self.name, tuple(c)) for p, c, prompt, seed in rows]

    @property
    def _device(self) -> torch.device:
        return self.model.image_embedding.weight.device

    def _prime(self, request: Request) -> Tensor:
        """Codes [1, n] of the rows that are given."""
        if not request.prime:
            return torch.zeros(1, 0, dtype=torch.long, device=self._device)
        picture = prime_picture(request.prime, self.image.channels)
        small = resized(picture, middle_square(*picture.shape[1:]), self.image.pixels)
        codes = self.image.encode(small[None].float() / 255)
        return codes[:, : round(request.prime_rows * self.image.grid) * self.image.grid]
