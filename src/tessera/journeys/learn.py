"""`learn`: a folder of captioned pictures in, a trained model, pictures and a report out. One command, one folder.

Each stage leaves its result in the folder; given again, the command goes on with the first stage that is not done. With
more time or more pictures the image tokenizer stays as it is, since the prior knows its codes, and the prior learns on.
Under a launcher all processes train; the first does the rest.
It knows the order of the work and no details of any stage.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tessera.config import (
    EvaluateConfig,
    LearnConfig,
    MachineConfig,
    PicturesConfig,
    TrainConfig,
    seconds,
)
from tessera.config.merging import read_json
from tessera.data.check import Health, check, show
from tessera.data.codes import encode
from tessera.errors import ConfigError, DataError
from tessera.evaluate import card, page, report
from tessera.evaluate.evaluation import evaluate
from tessera.evaluate.telling import summary
from tessera.files.atomic import whole
from tessera.generate.defaults import usual
from tessera.generate.pipeline import Picture, Pipeline
from tessera.generate.sheet import contact_sheet
from tessera.journeys import ways
from tessera.journeys.choice import (
    SEARCH_SHARE,
    Choice,
    choose,
    remembered,
    write_down,
)
from tessera.journeys.declared import declare
from tessera.journeys.preview import preview
from tessera.journeys.stages import good_end, prior_budget, stages, trained
from tessera.journeys.strip import strip
from tessera.journeys.together import Announced
from tessera.journeys.training import codes_of, judged
from tessera.machine import paths
from tessera.machine.device import choose_device
from tessera.machine.launch import rank
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens.image import ImageTokenizer
from tessera.train import job
from tessera.train.look import COLLAPSED, SETTLED
from tessera.train.objectives.protocol import Objective
from tessera.train.signals import Interrupted
from tessera.train.track import clock

Progress = Callable[[str], Callable[[Iterable, int], Iterable]]
"""A title -> something that shows how far an iteration has come."""


TOGETHER = 8
"""Held-out captions that are drawn at once."""
SHORT = 64
"""Drawings that are measured at the end; `tessera evaluate` makes 500."""


def learn(config: LearnConfig, progress: Progress, say: Callable[[str], None]) -> Run:
    """Do every stage, each of which can be resumed. Returns the finished run."""
    config.check()
    run = Run(config.out or f"runs/{Path(config.pictures).resolve().name}")
    tokenizer = Run(run.folder / "tokenizer")
    if rank():
        follow(config, run, tokenizer)
        return run
    with run.held(_began), tokenizer.held():
        return _learn(config, run, tokenizer, progress, say)


def follow(config: LearnConfig, run: Run, tokenizer: Run) -> None:
    """Train beside the first process, which does everything else."""
    for stage in Announced(run.folder).heard():
        machine, chosen = MachineConfig(device=config.device), read_json(run.folder / "learn.json", Choice)
        tokenizer_config, prior_config = stages(config, chosen, machine, run.folder)
        if stage == "prior":
            budget = prior_budget(config, chosen, tokenizer)
            job.train(dataclasses.replace(prior_config, budget=budget), run=run)
            return
        job.train(tokenizer_config, run=tokenizer)


def planned(config: LearnConfig, chosen: Choice, health: Health, begun: bool) -> Iterator[str]:
    """What will be done, and for how long, in lines; `begun` says that there is a prior already."""
    if begun:
        yield f"Plan: the prior goes on until all that was done took {config.budget}; the codes stay as they are."
        return
    budget = seconds(config.budget)
    share = lambda of: clock(of * budget)
    seen = f": {chosen.epochs:,.0f} times each of {len(health.good):,} pictures" if chosen.epochs else ""
    looks = "and what Lite0 sees" if chosen.perceptual == "lite0" else "alone"
    shares = share(chosen.tokenizer_share), share(chosen.prior_share)
    yield f"Plan: image tokenizer {shares[0]} (pixels {looks}), prior about {shares[1]}{seen},"
    yield f"      how to draw {share(SEARCH_SHARE)}; the rest to encode, measure and report, or the prior's."
    yield "      Stopped at any time, the same command goes on; in the prior it says which --budget ends well soon."


def _learn(config: LearnConfig, run: Run, tokenizer_run: Run, progress: Progress, say: Callable[[str], None]) -> Run:
    out, announced = run.folder, Announced(run.folder)
    began, machine = time.monotonic(), MachineConfig(device=config.device)
    health = check(config.pictures, config.captions, out / "data.json", progress("Checking the pictures"))
    say_what_was_found(config, health, say)
    chosen = remembered(out / "learn.json", config, lambda: choose(config, health, machine))
    say(f"Chosen: {chosen}; {config.budget} in all. {paths.summary()}")
    for line in planned(config, chosen, health, bool(run.checkpoints())):
        say(line)
    training = time.monotonic()
    if not (out / "codes" / "index.json").is_file():
        chosen = train_tokenizer(config, chosen, tokenizer_run, health, announced, say)
    training = time.monotonic() - training
    prior_config = stages(config, chosen, machine, out)[1]
    tokenizer = frozen(run, tokenizer_run)
    tokenizer.to(choose_device(config.device))
    ahead = progress("Encoding the pictures")
    encode(health.pairs, tokenizer, out / "codes", chosen.views, prior_config.data, config.seed, ahead)
    if not run.checkpoints():
        chosen = dataclasses.replace(chosen, spent=chosen.spent + time.monotonic() - began - training)
        write_down(out / "learn.json", chosen)
    prior_config = dataclasses.replace(prior_config, budget=prior_budget(config, chosen, tokenizer_run))
    announced.tell("prior")
    try:
        objective = run_stage("Prior", prior_config, run, health, out / "data.json")
    except Interrupted:
        say(f"For a good end soon, the same command with: --budget {good_end(chosen, tokenizer_run, run)}")
        raise
    ways.choose(config, run, progress, say)
    draw_and_report(config, run, objective, health, progress, say)
    return run


def train_tokenizer(
    config: LearnConfig, chosen: Choice, run: Run, health: Health, announced: Announced, say: Callable[[str], None]
) -> Choice:
    """The image tokenizer, to the end of its share; where its codes collapse, again at half the learning rate, at most
    twice. Returns the choice with the rate that was kept."""
    for again in (2, 1, 0):
        announced.tell("tokenizer")
        run_stage(
            "Image tokenizer",
            stages(config, chosen, MachineConfig(device=config.device), run.folder.parent)[0],
            run,
            health,
            run.folder.parent / "data.json",
        )
        if not collapsed(run):
            break
        if not again:
            say("The image tokenizer's codes collapsed at every rate that was tried: are the pictures all alike?")
            break
        rates = {"tokenizer_rate": chosen.tokenizer_rate / 2, "tokenizer_muon_rate": chosen.tokenizer_muon_rate / 2}
        chosen = dataclasses.replace(chosen, spent=chosen.spent + trained(run), **rates)
        say(f"The image tokenizer's codes collapsed. Again, at a learning rate of {chosen.tokenizer_rate:g}.")
        run.begin_again()
        write_down(run.folder.parent / "learn.json", chosen)
    return chosen


def collapsed(run: Run) -> bool:
    """Whether the last held-out pictures were told apart by hardly any code, after steps enough to find some."""
    found = [(r["step"], r["held_perplexity"]) for r in run.read_metrics() if "held_perplexity" in r]
    return bool(found) and found[-1][0] >= SETTLED and found[-1][1] < COLLAPSED


def frozen(run: Run, tokenizer_run: Run) -> ImageTokenizer:
    """The image tokenizer whose codes the prior learns: once there is a prior, its own."""
    if run.checkpoints():
        return image_tokens.load(checkpoint_of(run.folder) / "image_tokenizer")
    return image_tokens.load(checkpoint_of(tokenizer_run.folder))


def say_what_was_found(config: LearnConfig, health: Health, say: Callable[[str], None]) -> None:
    """How many pictures there are, and which were left out and why."""
    say(f"{len(health.good)} captioned pictures ({health.layout}), {len(health.skipped)} left out.")
    for skip in health.skipped[:20]:
        say(f"  left out: {show(skip.path)}: {skip.reason}")
    if len(health.skipped) > 20:
        say(f"  and {len(health.skipped) - 20} more: tessera data check {config.pictures} lists them all")


def _began(folder: Path) -> bool:
    """Whether a release without markers began to learn in this folder."""
    try:
        read_json(folder / "learn.json", Choice)
    except ConfigError:
        return False
    return True


def run_stage(title: str, config: TrainConfig, run: Run, health: Health, cache: Path) -> Objective:
    """Train one model to the end of its budget. `cache` is where the check left what it found of the pictures."""
    begin = lambda objective, run: declare(objective, run, cache)
    return job.train(config, job.Ways(preview=preview, begin=begin), title, run, health)


def draw_and_report(
    config: LearnConfig, run: Run, objective: Objective, health: Health, progress: Progress, say: Callable[[str], None]
) -> None:
    """Draw held-out captions and write report.html."""
    pipeline = Pipeline.load(run.folder, config.device)
    held = objective.held or objective.pairs
    asked = held[:: max(1, len(held) // config.samples)][: config.samples]
    drawn: list[Picture] = []
    parts = range(0, len(asked), TOGETHER)
    for i in progress("Drawing held-out captions")(parts, len(parts)):
        captions = [pair.captions[0] for pair in asked[i : i + TOGETHER]]
        seeds = range(config.seed + i, config.seed + i + len(captions))
        drawn += pipeline.draw(captions, seeds, pipeline.sampling, batch=TOGETHER, truncate=True)
    with whole(run.folder / "contact-sheet.png") as fresh:
        contact_sheet(drawn).save(fresh)
    more = [*strip(run), *measured(config, run, progress, say)]
    say("")
    subject = judged(objective, run)
    for name, value in report.write(run, subject, drawn, health.skipped, codes_of(objective), more).items():
        say(f"  {name:<50} {value}")
    card.write(run)
    card.write(Run(run.folder / "tokenizer"))
    say(f"\nReport: {run.folder / 'report.html'}   Pictures: {run.folder / 'contact-sheet.png'}")
    say(f"In full: tessera evaluate {run.folder}")
    say(f'Draw: tessera generate {run.folder} "{asked[0].captions[0]}"')


def measured(config: LearnConfig, run: Run, progress: Progress, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """The short form of `evaluate`, as sections of the report; in a folder of its own beside the full one.

    The longer it learned, the sooner it copies, and the more learned pictures are looked at.
    """
    budget = seconds(config.budget)
    count = int(min(SHORT, max(8, budget / 20)))
    short = EvaluateConfig(
        data=PicturesConfig(path=config.pictures), captions=config.captions, count=count, seeds=1, seed=config.seed,
        features="lite2" if ways.looking("lite2", config.device) else "none",
        photographs=int(max(2 * count, budget / 10)), ranked=count // 8,
        out=str(run.folder / "evaluation-short"), device=config.device, **asdict(usual(run.folder)),
    )  # fmt: skip
    try:
        shown = evaluate(str(run.folder), short, progress)
    except DataError as error:  # a handful of pictures
        say(f"Not measured: {error}")
        return []
    for line in ["", *summary(shown.evaluation)]:
        say(line)
    return page.brief(shown)
