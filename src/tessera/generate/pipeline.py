"""Prompt -> pictures, from a trained run. It knows no command line and no training."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from tessera.config import SampleConfig
from tessera.data.pictures import middle_square, read, resized, to_image
from tessera.device import choose_device, compiles, out_of_memory, release
from tessera.errors import CheckpointError, ConfigError
from tessera.generate import sample
from tessera.generate.weights import compiled, prepare
from tessera.models import saved
from tessera.models.text_to_image import TextToImage
from tessera.store import checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import ImageTokenizer
from tessera.tokens.text import TextTokenizer


@dataclass(frozen=True)
class Picture:
    """A drawn picture. In a notebook it shows itself."""

    image: Image.Image
    prompt: str
    seed: int
    run: str = ""
    codes: tuple[int, ...] = field(default=(), repr=False)
    score: float | None = None
    """How well a judge finds that it fits the prompt: higher is better."""

    def save(self, path: str | Path) -> None:
        """A PNG that carries its prompt, seed and run."""
        about = PngImagePlugin.PngInfo()
        words = {"prompt": self.prompt, "seed": str(self.seed), "run": self.run, "software": "Tessera"}
        for key, value in words.items() if self.score is None else (words | {"score": f"{self.score:.4f}"}).items():
            about.add_itxt(key, value)
        self.image.save(path, "PNG", pnginfo=about)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class Request:
    """What to draw: `count` pictures of a prompt, seeded seed, seed + 1, ..."""

    prompt: str
    count: int = 1
    seed: int = 0
    sampling: SampleConfig = field(default_factory=SampleConfig)
    prime: str = ""
    """A picture whose top rows the drawn ones begin with."""
    prime_rows: float = 0.4375
    """Share of the rows taken from it."""
    batch: int = 8
    """Pictures drawn at a time; it changes no picture."""

    def check(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise ConfigError(f"count is {self.count} and batch {self.batch}; both must be at least 1.")
        if not 0 <= self.prime_rows <= 1:
            raise ConfigError(f"prime-rows is {self.prime_rows}; it is a share of the picture, 0 ... 1.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must not be negative.")
        self.sampling.check()


class Judge(Protocol):
    """Says how well pictures fit their prompts: a score for each, higher is better."""

    def scores(self, pictures: Sequence[Picture]) -> Tensor: ...


class Pipeline:
    """A prior with its two tokenizers."""

    def __init__(
        self, model: TextToImage, text: TextTokenizer, image: ImageTokenizer, name: str = "", compile: bool = False
    ):
        self.model, self.text, self.image, self.name = model.eval(), text, image, name
        self.read = compiled(model) if compile else None
        self.smaller = 0  # the batch that memory once forced, if it did

    @staticmethod
    def load(
        run: str | Path, device: str = "auto", weights: str = "float32", compile: Literal["auto", "on", "off"] = "auto"
    ) -> Pipeline:
        """From a run folder or one of its checkpoints. Raises CheckpointError where it holds no whole model.

        `weights` are float32, bf16 or int8, which is the fastest on a CPU. `compile` costs ten seconds and saves a
        quarter to a half of a picture's time on a CPU; auto does it on CUDA alone.
        """
        folder = Path(run).expanduser()
        if not folder.is_dir():
            raise CheckpointError(f"There is no run folder {run}. Train one with: tessera learn PICTURES --out {run}")
        checkpoint = checkpoint_of(folder)
        model = saved.read(checkpoint)
        if not isinstance(model, TextToImage):
            raise CheckpointError(f"{run} holds an image tokenizer, which draws nothing by itself; name a t2i run.")
        place = choose_device(device)
        tokenizer = image_tokens.load(checkpoint / "image_tokenizer")
        tokenizer.to(place)
        prepare(model.to(place).eval(), weights, compiles(compile, place))
        text = text_tokens.load(checkpoint / "text_tokenizer")
        return Pipeline(model, text, tokenizer, str(run), compiles(compile, place))

    def __call__(self, prompt: str, count: int = 1, seed: int = 0, **sampling: Any) -> list[Picture]:
        """`count` pictures of a prompt; keywords are the fields of SampleConfig, such as temperature and guidance."""
        return list(self.stream(Request(prompt, count, seed, SampleConfig(**sampling))))

    def stream(
        self,
        request: Request,
        on_step: Callable[[int, int], None] = lambda done, total: None,
        on_partial: Callable[[list[Picture]], None] | None = None,
    ) -> Iterator[Picture]:
        """The pictures, as each batch is done. Along the way `on_step(codes done, codes in all)` is called, and
        `on_partial` with the batch's unfinished pictures after every two rows of codes."""
        request.check()
        prime, size, rows = self._prime(request), self.model.layout.codes, 2 * self.model.layout.grid
        prompts = [request.prompt] * request.count
        seeds = range(request.seed, request.seed + request.count)
        before = shown = 0

        def step(drawn: Tensor) -> None:
            nonlocal shown
            batch, done = drawn.shape
            on_step(before + batch * done, request.count * size)
            shown, last = done // rows, shown
            if on_partial and shown > last and done < size:
                first = before // size
                on_partial(self.partial(drawn, prompts[:batch], seeds[first : first + batch]))

        for part in self._draw(prompts, seeds, request.sampling, request.batch, prime, step):
            before += len(part) * size
            yield from part

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: SampleConfig, batch: int = 32
    ) -> list[Picture]:
        """One picture for each prompt with its seed."""
        return [picture for part in self._draw(prompts, seeds, sampling, batch) for picture in part]

    def _draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SampleConfig,
        batch: int,
        prime: Tensor | None = None,
        on_step: Callable[[Tensor], None] = lambda drawn: None,
    ) -> Iterator[list[Picture]]:
        """Batch by batch; where memory runs out the batch is halved, which changes no picture, and drawn again."""
        first = 0
        batch = min(batch, self.smaller or batch)
        while first < len(prompts):
            part, own = prompts[first : first + batch], seeds[first : first + batch]
            begun = None if prime is None else prime.expand(len(part), -1)
            try:
                drawn = sample.codes(self.model, self.tokens(part), own, sampling, begun, on_step, self.read)
                done = self.pictures(drawn, part, own)
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
        scored = [replace(picture, score=score) for picture, score in zip(drawn, scores, strict=True)]
        return sorted(scored, key=lambda p: -(p.score or 0.0))[: request.count]

    def complete(self, beginning: str, seeds: Sequence[int], sampling: SampleConfig) -> list[str]:
        """The beginning of a caption, ended by the model, once for each seed; guidance plays no part in it."""
        ids = torch.tensor([self.text.encode(beginning)], dtype=torch.long, device=self._device)
        if ids.shape[1] >= self.model.config.text_len:
            raise ConfigError(f"The beginning has {ids.shape[1]} tokens; captions end at {self.model.config.text_len}.")
        rows = sample.texts(self.model, ids.repeat(len(seeds), 1), seeds, sampling)
        return [self.text.decode(i for i in row if i < self.model.config.text_vocab) for row in rows.tolist()]

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """[B, T]; raises ConfigError where a prompt is empty, DataError where it is too long for the model."""
        if any(not p.strip() for p in prompts):
            raise ConfigError("The prompt is empty: say what to draw.")
        ids = [self.text.encode(p) for p in prompts]
        names = [f"The prompt '{p[:40]}'" for p in prompts]
        c = self.model.config
        return text_tokens.pad(ids, c.text_len, c.text_vocab, True, names).to(self._device)

    def pictures(self, drawn: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        rows = zip(self.image.decode(drawn), drawn.tolist(), prompts, seeds, strict=True)
        return [Picture(to_image(p), prompt, seed, self.name, tuple(c)) for p, c, prompt, seed in rows]

    @property
    def _device(self) -> torch.device:
        return self.model.image_embedding.weight.device

    def _prime(self, request: Request) -> Tensor:
        """Codes [1, n] of the rows that are given."""
        if not request.prime:
            return torch.zeros(1, 0, dtype=torch.long, device=self._device)
        picture = read(Path(request.prime).expanduser(), self.image.channels)
        small = resized(picture, middle_square(*picture.shape[1:]), self.image.pixels)
        codes = self.image.encode(small[None].float() / 255)
        return codes[:, : round(request.prime_rows * self.image.grid) * self.image.grid]
