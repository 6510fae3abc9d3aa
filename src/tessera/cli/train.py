"""Commands that train: demo, learn, train; and show, which says what would be trained."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from tessera.cli.arguments import known, options, settings
from tessera.cli.parts import warned
from tessera.cli.screen import bar, say
from tessera.config import LearnConfig, TrainConfig, to_dict
from tessera.config.merging import Checked, merge, read_toml
from tessera.config.presets import PRESETS, preset
from tessera.config.ranges import Seed
from tessera.config.recipes import recipes
from tessera.errors import ConfigError
from tessera.files.atomic import whole, write_whole
from tessera.files.own import kind_of
from tessera.machine.launch import launched, rank


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Checked):
    """Draw birds, train on them on this machine, and measure the result."""

    out: str = "runs/demo"
    """Folder for all results; the same command resumes in it."""
    budget: str = "11m"
    """Time for learning, from checking the pictures to the report, for example 90s, 11m or 2h."""
    birds: Annotated[int, Ge(20), Le(99_999)] = 8000
    """Number of pictures to draw and train on."""
    questions: Annotated[int, Ge(1), Le(800)] = 200
    """Number of test captions, with colour combinations that were not trained."""
    seed: Seed = 0
    """Seed of all randomness."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def rules(self) -> None:
        if self.seed + self.questions > 2**63:
            raise ConfigError(f"seed is {self.seed}; with {self.questions} questions the last one is over 2^63 - 1.")


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """How `train` starts."""

    config: str = ""
    """A TOML file of settings: it overrides the preset, and flags override it."""
    dry_run: bool = False
    """Show the final settings and stop."""
    profile: bool = False
    """Profile a few steps, write a trace and a table of the slowest operations, and stop."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show the settings of a preset or a run, and the size of its model."""

    name: str
    """A preset or a run folder."""


def demo(args: list[str]) -> None:
    """Draw birds, train on them on this machine, and show what the model learned."""
    config = options(DemoConfig, args, "demo")
    if launched() > 1:
        raise ConfigError(f"demo runs in one process, and a launcher started {launched()}. Take tessera learn there.")
    from tessera.journeys import demo as demonstration

    out = Path(config.out)
    learning = LearnConfig(
        pictures=str(out / "pictures"),
        out=config.out,
        budget=config.budget,
        seed=config.seed,
        device=config.device,
        grid=8,
        perceptual="none",
        crop=1.0,
    )
    learning.check()
    demonstration.run(learning, config.birds, config.questions, bar, say)


def learn(args: list[str]) -> None:
    """PICTURES  Train on a folder of captioned pictures, draw, and write a report. The same command resumes."""
    if args and not args[0].startswith("-"):
        args = ["--pictures", *args]
    config = options(LearnConfig, args, "learn PICTURES")
    from tessera.journeys.learn import learn as work
    from tessera.machine.device import choose_device

    choose_device(config.device)
    if rank():
        silent: Any = lambda *what: lambda items, total: items
        work(config, silent, lambda line: None)
    else:
        work(config, bar, say)


TRAIN = "\n  ".join(["usage: tessera train PRESET|RUN [options]\n\nPresets:", *PRESETS])
TRAIN += f"\n\nOptions of a preset: tessera train {next(iter(PRESETS))} --help"


def train(args: list[str]) -> None:
    """PRESET|RUN  Train tokenizers (pyramid-*, plain-*, vqgan-*, dvae-*), priors (t2i-*, any-*), judges (clip-*)."""
    if args[:1] in (["-h"], ["--help"]):
        say(TRAIN)
        return
    if not args or args[0].startswith("-"):
        raise ConfigError(TRAIN)
    name = args[0]
    start, args = known(StartConfig, args[1:])
    base, command = without_command(_preset_or_run(name))
    if start.config:
        base = merge(base, read_toml(start.config), notice=warned)
    if command and not base.data.path and not any(word.startswith("--data.path") for word in args):
        raise ConfigError(
            f"{name}/config.json takes its pictures from the command '{command[:300]}'. Tessera never runs a command "
            "from a run folder. If you trust it, give it yourself with --data.path."
        )
    config = settings(base, args)
    config = config if config.out else dataclasses.replace(config, out=f"runs/{name}")
    if start.profile:
        out = free_name(f"{config.out}-profile")
        config = dataclasses.replace(
            config, out=out, steps=8, log_every=1, valid_every=0, preview_every=0, save_every=8, patience=0
        )
        config.check()
    if os.environ.get("RANK", "0") == "0":
        say(json.dumps(to_dict(config), indent=1))
    if start.dry_run:
        return
    from tessera.journeys.training import train as work

    profiler = (lambda steps: profiled(steps, Path(config.out))) if start.profile else None
    work(config, say=say, progress=bar, title=name, profiler=profiler)


def free_name(out: str) -> str:
    """The name, with a number behind it where it is taken: a profile needs a run of its own."""
    names = itertools.chain([out], (f"{out}-{i}" for i in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def profiled(work: Callable[[], object], folder: Path) -> None:
    """Run `work` under torch's profiler; trace.json (for Perfetto) and a table go into the folder."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities, profile_memory=True) as found:
        work()
    with whole(folder / "trace.json") as fresh:
        found.export_chrome_trace(str(fresh))
    slow = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=48)
    write_whole(folder / "profile.txt", slow)
    say(f"{slow}\n{folder}/trace.json and profile.txt: the slowest operations of 8 steps.")


def _preset_or_run(name: str) -> TrainConfig:
    if name in PRESETS:
        return preset(name)
    from tessera.store.run import Run

    run = Run(name)
    if not (run.exists() or run.checkpoints() or kind_of(run.folder) == "run"):
        return preset(name)
    config = dataclasses.replace(run.config(), out=name)
    if run.checkpoints() or not config.tokens.image:
        return config
    # A path in a file never leads out of its folder: without a checkpoint it must be typed.
    return dataclasses.replace(config, tokens=dataclasses.replace(config.tokens, image=""))


def without_command(config: TrainConfig) -> tuple[TrainConfig, str]:
    """Settings without a data path that would start programs, and that path.

    For settings that came out of a run folder, which anybody may have written. Such a path counts only where the user
    has given it too: in Python, in a TOML file (--config), or on the command line. So this pair is all that has to be
    known of where a setting came from: what is still missing once those are merged was not typed.
    """
    from tessera.files.download import starts_programs

    path = config.data.path
    if not starts_programs(path):
        return config, ""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path="")), path


def show(args: list[str]) -> None:
    """PRESET|RUN|learn  Show the settings and the number of parameters; or what learn chooses, and why."""
    if args[:1] == ["learn"]:
        show_learn(args[1:])
        return
    name = options(ShowConfig, args, "show").name
    from tessera.machine import paths
    from tessera.store.run import Run
    from tessera.train import plan

    run = Run(name)
    config = run.config() if run.exists() or "/" in name else preset(name)
    say(json.dumps(to_dict(config), indent=1))
    model, note = plan.assumed(config.model)
    if note:
        say(note)
    count = plan.parameters(model)
    say(f"{count:,} parameters: {count * 4 / 1e6:,.1f} MB of float32 weights.")
    for line in plan.table(dataclasses.replace(config, model=model)):
        say(line)
    say(f"Fast paths of this machine ({paths.SWITCH}=NAME,NAME switches them off):")
    for path, about, state in paths.listed():
        say(f"  {path:<16} {about:<62} {state}")


def show_learn(args: list[str]) -> None:
    """The recipes of learn; with PICTURES what it would choose for them, and why; with --json that alone, as JSON."""
    bare, args = "--json" in args, [a for a in args if a != "--json"]
    for line in [] if bare else recipes():
        say(line)
    if not args:
        return
    if not args[0].startswith("-"):
        args = ["--pictures", *args]
    config = options(LearnConfig, args, "show learn PICTURES")
    from tessera.data.check import check
    from tessera.journeys.explained import explain, heading

    health = check(config.pictures, config.captions, None, None if bare else bar("Checking the pictures"))
    if bare:
        say(json.dumps(explain(config, health)))
        return
    say("")
    say(heading(config, health))
    for chosen in explain(config, health):
        say(f"  {chosen}")
