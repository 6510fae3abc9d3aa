"""The command that draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from tessera.cli.arguments import options, read_text, run_of
from tessera.cli.screen import drawing, say
from tessera.cli.stopping import stoppable
from tessera.config import DrawingConfig, Request
from tessera.config.ranges import Pictures
from tessera.errors import ConfigError
from tessera.files.claim import claim
from tessera.files.own import sweep
from tessera.generate.defaults import usual

if TYPE_CHECKING:
    from tessera.generate.judge import Judge
    from tessera.generate.picture import Picture
    from tessera.generate.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(DrawingConfig):
    """Draw pictures from a trained run."""

    run: str
    """The run folder."""
    prompt: tuple[str, ...]
    """What to draw, each prompt in quotes."""
    count: Pictures = 4
    """Pictures per prompt."""
    prime: str = ""
    out: str = "outputs"
    """Folder for the pictures; each prompt gets one of its own in it."""
    prompts: str = ""
    """A text file with a prompt on each line."""
    best_of: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """Draw this many per prompt and keep the `count` pictures that the judge ranks highest."""
    judge: str = ""
    """A clip run that ranks the pictures, or `self`: the model itself, by what the prompt explains of them. By default
    the folder `judge` in RUN where there is one, else self."""
    weights: Literal["float32", "bf16", "int8"] = "float32"
    """Bits of each weight while drawing; on a CPU int8 is about twice as fast, and its pictures are nearly the same."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile: ten seconds once, then a quarter to a half faster on a CPU; auto uses it on CUDA."""
    partial: bool = False
    """Write each picture while it is drawn, after every two rows of codes."""
    complete_text: bool = False
    """Let the model complete each prompt first; without a prompt it writes one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def rules(self) -> None:
        if self.best_of and self.best_of < self.count:
            raise ConfigError(f"best-of is {self.best_of}, less than the {self.count} pictures to keep (count).")
        if self.judge and not self.best_of:
            raise ConfigError("--judge ranks the pictures of --best-of: give --best-of too, or leave --judge out.")
        if self.partial and self.best_of:
            raise ConfigError("--partial shows pictures that --best-of may not keep: leave one of them out.")
        if self.prime_rows != GenerateConfig.prime_rows and not self.prime:
            raise ConfigError("--prime-rows is a share of the rows of --prime: give --prime too, or leave this out.")


def generate(args: list[str]) -> None:
    """RUN "PROMPT" ...  Draw pictures from a trained run."""
    config = options(GenerateConfig, args, "generate", usual={"sampling": usual(run_of(args))})
    prompts = asked(config)
    made: list[Picture] = []
    out = Path(config.out)

    def kept() -> str:
        half = " Files of pictures that were being drawn show their first rows." if config.partial else ""
        return f"stopped. Pictures kept in {out}: {len(made)}.{half}{f' All in one: {put(out, made)}' if made else ''}"

    with stoppable(kept) as unless_stopped:
        from tessera.generate.pipeline import Pipeline
        from tessera.generate.sheet import MOST

        requests = [requested(prompt, config) for prompt in prompts]
        judge = ready(config)
        pipeline = Pipeline.load(config.run, config.device, config.weights, config.compile)
        if not config.complete_text:
            for request in requests:
                pipeline.tokens([request.prompt], request.truncate)
        for request in requests:
            unless_stopped()
            if config.complete_text:
                request = completed(request, pipeline)
            draw(request, pipeline, judge, config, made)
    say(f"{put(out, made)}: all of them" if len(made) <= MOST else f"{put(out, made)}: the first {MOST}")


def asked(config: GenerateConfig) -> list[str]:
    """The prompts from the command line and from --prompts, without duplicates."""
    lines = read_text(config.prompts).splitlines() if config.prompts else []
    prompts = [*config.prompt] + [line for line in lines if line.strip()]
    if not prompts and config.complete_text:
        return [""]
    if not prompts:
        raise ConfigError('Say what to draw: tessera generate RUN "a small red bird", or --prompts FILE.')
    if not config.complete_text and not all(p.strip() for p in prompts):
        raise ConfigError("The prompt is empty: say what to draw.")
    return list(dict.fromkeys(prompts))


def requested(prompt: str, config: GenerateConfig) -> Request:
    """The checked request for one prompt."""
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(DrawingConfig)}
    request = Request(prompt, **shared)
    dataclasses.replace(request, count=max(config.count, config.best_of)).check()
    return request


def ready(config: GenerateConfig) -> Judge | None:
    """Refuse what cannot be drawn or written before the run's weights are read. Returns the judge of --best-of; None
    where there is none but the model itself."""
    from tessera.generate.defaults import find
    from tessera.generate.judge import CLIPJudge
    from tessera.generate.picture import prime_picture
    from tessera.generate.sheet import began
    from tessera.machine.device import choose_device

    find(config.run)
    choose_device(config.device)
    if config.prime:
        prime_picture(config.prime)
    out = Path(config.out)
    claim(out, "pictures", began)
    sweep(out)
    beside = Path(config.run) / "judge"
    named = config.judge or (beside if beside.is_dir() else "self")
    return CLIPJudge.load(named, config.device) if config.best_of and named != "self" else None


def completed(request: Request, pipeline: Pipeline) -> Request:
    """The request with the prompt that the model completed."""
    (prompt,) = pipeline.complete(request.prompt, [request.seed], request.sampling)
    say(f"The caption: {prompt}")
    return dataclasses.replace(request, prompt=prompt, truncate=True)


def draw(
    request: Request, pipeline: Pipeline, judge: Judge | None, config: GenerateConfig, made: list[Picture]
) -> None:
    """Draw one prompt's pictures into its folder, and add each to `made` as soon as it is finished."""
    from tessera.generate.judge import OwnJudge
    from tessera.generate.sheet import keep_others, prompt_folder

    with writing(config.out):
        folder = prompt_folder(Path(config.out), request.prompt)
    keep_others(folder, range(request.seed, request.seed + max(request.count, config.best_of)))

    def save(pictures: Sequence[Picture]) -> None:
        for picture in pictures:
            path = folder / f"{picture.seed}.png"
            with writing(path):
                picture.save(path)

    seeds = []
    with drawing(request.prompt) as on_step:
        if config.best_of:
            ranks = judge or OwnJudge(pipeline.model, pipeline.prompts)
            drawn: Iterable[Picture] = pipeline.best(request, ranks, config.best_of, on_step)
        else:
            drawn = pipeline.stream(request, on_step, save if config.partial else None)
        for picture in drawn:
            save([picture])
            made.append(picture)
            seeds.append(str(picture.seed))
    more = f" and {len(seeds) - 100} more" if len(seeds) > 100 else ""
    say(f"{folder}: {len(seeds)} pictures, seeds {', '.join(seeds[:100])}{more}")


def put(out: Path, made: list[Picture]) -> Path:
    """Write the contact sheet and return its path."""
    from tessera.generate.sheet import write_sheet

    with writing(out):
        return write_sheet(out, made)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an error of the disk into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}. Make room, or name another folder with --out."
        ) from error
