"""The command that draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tessera.cli.arguments import _read, options, positionals
from tessera.cli.screen import drawing, say
from tessera.config import SampleConfig
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Draw pictures from a trained run."""

    count: int = 4
    """Pictures per prompt."""
    seed: int = 0
    """Seed of the first picture; the next ones have seed + 1, seed + 2, ... A seed is the same picture in any batch."""
    out: str = "outputs"
    """Folder for the pictures; each prompt gets one of its own in it."""
    prompts: str = ""
    """A text file with a prompt on each line."""
    sampling: SampleConfig = field(default_factory=SampleConfig)
    prime: str = ""
    """A picture whose top rows the drawn ones begin with."""
    prime_rows: float = 0.4375
    """Share of the rows taken from it."""
    batch: int = 8
    """Pictures drawn at a time."""
    best_of: int = 0
    """Draw this many per prompt and keep the `count` that the judge ranks highest."""
    judge: str = ""
    """A clip run that ranks them; by default the folder `judge` in RUN."""
    weights: Literal["float32", "bf16", "int8"] = "float32"
    """Bits of each weight while drawing; on a CPU int8 is about twice as fast, and hardly to be told apart."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile: ten seconds once, then a quarter to a half faster on a CPU; auto uses it on CUDA."""
    partial: bool = False
    """Write the pictures while they are being drawn, two rows of codes at a time."""
    complete_text: bool = False
    """Let the model end each prompt first; without a prompt it makes one up."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


def generate(args: list[str]) -> None:
    """RUN "PROMPT" ...  Draw pictures from a trained run."""
    words, args = positionals(args, 'generate RUN "PROMPT" ...', many=True)
    config = options(GenerateConfig(), args, 'generate RUN "PROMPT" ...')
    prompts = words[1:] + ([p for p in _read(config.prompts).splitlines() if p.strip()] if config.prompts else [])
    if config.complete_text and not prompts:
        prompts = [""]
    if not prompts:
        raise ConfigError('Say what to draw: tessera generate RUN "a small red bird", or --prompts FILE.')
    config.sampling.check()
    from tessera.generate.pipeline import Picture, Pipeline, Request
    from tessera.generate.sheet import contact_sheet, prompt_folder

    judge = None
    if config.best_of:
        from tessera.generate.judge import CLIPJudge

        judge = CLIPJudge.load(config.judge or Path(words[0]) / "judge", config.device)
    pipeline = Pipeline.load(words[0], config.device, config.weights, config.compile)
    made = []
    for prompt in dict.fromkeys(prompts):
        if config.complete_text:
            (prompt,) = pipeline.complete(prompt, [config.seed], config.sampling)
            say(f"The caption: {prompt}")
        request = Request(
            prompt, config.count, config.seed, config.sampling, config.prime, config.prime_rows, config.batch
        )
        folder = prompt_folder(Path(config.out), prompt)

        def save(pictures: Sequence[Picture], folder: Path = folder) -> None:
            for picture in pictures:
                picture.save(folder / f"{picture.seed}.png")

        with drawing(prompt) as on_step:
            drawn = (
                pipeline.best(request, judge, config.best_of, on_step)
                if judge
                else pipeline.stream(request, on_step, save if config.partial else None)
            )
            for picture in drawn:
                save([picture])
                made.append(picture)
        seeds = [p.seed for p in made[-config.count :]]
        say(f"{folder}: {config.count} pictures, seeds {', '.join(map(str, seeds))}")
    sheet = Path(config.out) / "contact-sheet.png"
    contact_sheet(made).save(sheet)
    say(f"{sheet}: all of them")
