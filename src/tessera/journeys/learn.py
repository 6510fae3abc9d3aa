"""`learn`: a folder of captioned pictures in, a trained model, pictures and a report out. One command, one folder.

Each stage leaves its result in the folder; given again, the command goes on with the first stage that is not done.
It knows the order of the work and no details of any stage.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tessera.config import (
    DataConfig,
    DVAEConfig,
    EvaluateConfig,
    LearnConfig,
    MachineConfig,
    OptimConfig,
    PicturesConfig,
    SampleConfig,
    TextToImageConfig,
    TokensConfig,
    TrainConfig,
    TransformerConfig,
    seconds,
)
from tessera.config.merging import read_json
from tessera.data.check import Health, check, show
from tessera.data.codes import encode
from tessera.errors import ConfigError, DataError, TesseraError
from tessera.evaluate import page, report
from tessera.evaluate.evaluation import evaluate
from tessera.evaluate.features import load as load_features
from tessera.evaluate.telling import summary
from tessera.files.atomic import whole, write_whole
from tessera.generate.pipeline import Picture, Pipeline
from tessera.generate.sheet import contact_sheet
from tessera.journeys.preview import preview
from tessera.journeys.training import codes_of, judged
from tessera.machine import paths
from tessera.machine.device import choose_device
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.train import job
from tessera.train.objectives.protocol import Objective

Progress = Callable[[str], Callable[[Iterable, int], Iterable]]
"""A title -> something that shows how far an iteration has come."""


TOKENIZER_SHARE, PRIOR_SHARE = 0.25, 0.64
"""Of the budget; the rest is for checking, encoding, drawing and the report."""
SHORT = 64
"""Drawings that are measured at the end; `tessera evaluate` makes 500."""
CAPTION_SHARE = 0.995
"""The text length fits this share of the captions; the others are cut."""


def learn(config: LearnConfig, progress: Progress, say: Callable[[str], None]) -> Run:
    """All stages, each resumable. Returns the finished run."""
    config.check()
    run = Run(config.out or f"runs/{Path(config.pictures).resolve().name}")
    tokenizer = Run(run.folder / "tokenizer")
    with run.held(_began), tokenizer.held():
        return _learn(config, run, tokenizer, progress, say)


def _learn(config: LearnConfig, run: Run, tokenizer_run: Run, progress: Progress, say: Callable[[str], None]) -> Run:
    out = run.folder
    machine = MachineConfig(device=config.device)
    health = check(config.pictures, config.captions, out / "data.json", progress("Checking the pictures"))
    say(f"{len(health.good)} captioned pictures ({health.layout}), {len(health.skipped)} left out.")
    for skip in health.skipped[:20]:
        say(f"  left out: {show(skip.path)}: {skip.reason}")
    if len(health.skipped) > 20:
        say(f"  and {len(health.skipped) - 20} more: tessera data check {config.pictures} lists them all")
    chosen = remembered(out / "learn.json", config, lambda: choose(config, health, machine))

    tokenizer_config, prior_config = stages(config, chosen, machine, out)
    say(
        f"Chosen: {chosen.pixels} px, {chosen.grid} x {chosen.grid} codes, a prior of width {chosen.dim} and depth "
        f"{chosen.depth}; {config.budget} in all. {paths.summary()}"
    )
    run_stage("Image tokenizer", tokenizer_config, tokenizer_run, health)
    if not (out / "codes" / "index.json").is_file():
        tokenizer = image_tokens.load(checkpoint_of(tokenizer_config.out))
        tokenizer.to(choose_device(config.device))
        ahead = progress("Encoding the pictures")
        encode(health.pairs, tokenizer, out / "codes", chosen.views, prior_config.data, config.seed, ahead)
    objective = run_stage("Prior", prior_config, run, health)
    draw_and_report(config, run, objective, health, progress, say)
    return run


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Sizes for this data and this machine; written down once, so that a resumed run has the same."""

    pixels: int
    layers: int
    channels: int
    hidden: int
    levels: tuple[int, ...]
    dim: int
    depth: int
    batch: int
    text_len: int
    vocab: int
    views: int
    flip: bool
    crop: float
    holdout: float
    dropout: float

    @property
    def grid(self) -> int:
        return self.pixels >> self.layers


def choose(config: LearnConfig, health: Health, machine: MachineConfig) -> Choice:
    """A table by machine and time; small data gets dropout and more views of each picture."""
    found = health.settings()
    gpu = choose_device(machine.device).type == "cuda"
    hours = seconds(config.budget) / 3600
    pixels = config.pixels or (found["pixels"] if gpu else min(found["pixels"], 64 if hours < 6 else 128))
    dim, depth, hidden, batch = (512, 12, 160, 64) if gpu else (192, 4, 64, 32) if hours < 2 else (256, 6, 64, 32)
    few = len(health.good) < 3000
    tokenizer = text_tokens.train_bpe(health.captions, 4096)
    lengths = sorted(len(tokenizer.encode(c)) for c in health.captions)
    fitting = lengths[min(len(lengths) - 1, int(CAPTION_SHARE * len(lengths)))]
    return Choice(
        pixels=pixels,
        layers=_halvings(pixels, config.grid or 16),
        channels=3,
        hidden=hidden,
        levels=(6, 6, 6) if not gpu and config.grid != 8 else (8, 5, 5, 5),
        dim=dim,
        depth=depth,
        batch=batch,
        text_len=min(-(-fitting // 4) * 4, 128),
        vocab=4096,
        views=(16 if few else 4) if config.crop < 1 else 2 if found["flip"] else 1,
        flip=found["flip"],
        crop=config.crop,
        holdout=found["holdout"],
        dropout=0.1 if few else 0.0,
    )


def remembered(path: Path, config: LearnConfig, make: Callable[[], Choice]) -> Choice:
    """The choice of the first call, where there was one. Raises ConfigError where that was asked for something else, or
    where what it chose cannot be read."""
    if not path.exists():
        choice = make()
        write_whole(path, json.dumps(dataclasses.asdict(choice), indent=1))
        return choice
    choice = read_json(path, Choice)
    asked = {"pixels": config.pixels, "grid": config.grid and choice.pixels >> _halvings(choice.pixels, config.grid)}
    had = {"pixels": choice.pixels, "grid": choice.grid}
    other = [f"--{name} {had[name]}, not {value}" for name, value in asked.items() if value not in (0, had[name])]
    if config.crop != choice.crop:
        other.append(f"--crop {choice.crop}, not {config.crop}")
    if other:
        raise ConfigError(f"{path.parent} was begun with {'; '.join(other)}. Give the same, or another --out.")
    return choice


def _began(folder: Path) -> bool:
    """Whether a release without markers began to learn in this folder."""
    try:
        read_json(folder / "learn.json", Choice)
    except ConfigError:
        return False
    return True


def _halvings(pixels: int, grid: int) -> int:
    """How often a picture is halved to come near to a grid of codes."""
    return max(1, (pixels // grid).bit_length() - 1)


def stages(config: LearnConfig, c: Choice, machine: MachineConfig, out: Path) -> tuple[TrainConfig, TrainConfig]:
    """The two training runs."""
    budget = seconds(config.budget)
    data = DataConfig(
        path=config.pictures, captions=config.captions, holdout=c.holdout, crop=c.crop, flip=c.flip, truncate=True
    )
    common = {"seed": config.seed, "steps": 10**9, "machine": machine}
    tokenizer = TrainConfig(
        out=str(out / "tokenizer"),
        budget=f"{round(budget * TOKENIZER_SHARE)}s",
        model=DVAEConfig(pixels=c.pixels, layers=c.layers, channels=c.channels, hidden=c.hidden, levels=c.levels),
        data=data,
        optim=OptimConfig(lr=2e-3, weight_decay=0.0, batch=c.batch, warmup=50, betas=(0.9, 0.99)),
        save_every=50,
        valid_every=200,
        preview_every=200,
        **common,
    )
    transformer = TransformerConfig(
        dim=c.dim, depth=c.depth, heads=max(1, c.dim // 64), attn_dropout=c.dropout, ff_dropout=c.dropout
    )
    prior = TrainConfig(
        out=str(out),
        budget=f"{round(budget * PRIOR_SHARE)}s",
        model=TextToImageConfig(text_len=c.text_len, transformer=transformer),
        data=dataclasses.replace(data, codes=str(out / "codes")),
        tokens=TokensConfig(image=str(out / "tokenizer"), vocab=c.vocab),
        optim=OptimConfig(lr=8e-3 if c.dim <= 192 else 3e-3 if c.dim <= 256 else 1.5e-3, batch=c.batch),
        save_every=50,
        valid_every=100,
        preview_every=400,
        **common,
    )
    return tokenizer, prior


def run_stage(title: str, config: TrainConfig, run: Run, health: Health) -> Objective:
    """Train one model to the end of its budget."""
    return job.train(config, job.Ways(preview=preview), title, run, health)


def draw_and_report(
    config: LearnConfig, run: Run, objective: Objective, health: Health, progress: Progress, say: Callable[[str], None]
) -> None:
    """Held-out captions drawn, and report.html."""
    pipeline = Pipeline.load(run.folder, config.device)
    held = objective.held or objective.pairs
    asked = held[:: max(1, len(held) // config.samples)][: config.samples]
    drawn: list[Picture] = []
    sampling = SampleConfig(guidance=config.guidance)
    for i, pair in enumerate(progress("Drawing held-out captions")(asked, len(asked))):
        drawn += pipeline.draw([pair.captions[0]], [config.seed + i], sampling, truncate=True)
    with whole(run.folder / "contact-sheet.png") as fresh:
        contact_sheet(drawn).save(fresh)
    more = measured(config, run, progress, say)
    say("")
    subject = judged(objective, run)
    for name, value in report.write(run, subject, drawn, health.skipped, codes_of(objective), more).items():
        say(f"  {name:<50} {value}")
    say(f"\nReport: {run.folder / 'report.html'}   Pictures: {run.folder / 'contact-sheet.png'}")
    say(f"In full: tessera evaluate {run.folder}")
    say(f'Draw: tessera generate {run.folder} "{asked[0].captions[0]}"')


def measured(config: LearnConfig, run: Run, progress: Progress, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """The short form of `evaluate`, as sections of the report; in a folder of its own beside the full one."""
    count = int(min(SHORT, max(8, seconds(config.budget) / 10)))
    short = EvaluateConfig(
        data=PicturesConfig(path=config.pictures), captions=config.captions, count=count, seeds=1, seed=config.seed,
        features=looking(config.device), guidance=config.guidance, photographs=2 * count, ranked=count // 8,
        out=str(run.folder / "evaluation-short"), device=config.device,
    )  # fmt: skip
    try:
        shown = evaluate(str(run.folder), short, progress)
    except DataError as error:  # a handful of pictures
        say(f"Not measured: {error}")
        return []
    for line in ["", *summary(shown.evaluation)]:
        say(line)
    return page.brief(shown)


def looking(device: str) -> str:
    """The features that the short form can have here."""
    try:
        return "lite2" if load_features("lite2", device) else "none"
    except TesseraError:  # its packages are not installed, or not whole
        return "none"
