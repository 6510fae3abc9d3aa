"""The command line: the only user of tyro, and the only place that prints. It imports torch only where work begins."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tessera import __version__
from tessera.config import CLIPConfig, DataConfig, LearnConfig, SampleConfig, TextToImageConfig, TrainConfig, to_dict
from tessera.errors import ConfigError, TesseraError
from tessera.launch import die_with_the_launcher
from tessera.presets import PRESETS, preset
from tessera.settings import merge, nearest, read_toml

T = TypeVar("T")

REQUEUE = 75
"""Exit status of a run that was asked to stop and saved first (EX_TEMPFAIL): give the same command again."""


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


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Look at every picture and caption of a folder."""

    captions: str = ""
    """A second folder or COCO JSON with the captions."""
    json: bool = False
    """Print one JSON object instead."""


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Write balanced webdataset shards; interrupted, the same command goes on."""

    captions: str = ""
    """A second folder, COCO JSON or column with the captions."""
    per_shard: int = 1000
    """Pairs in a shard, at most."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encode pictures once, so that the image tokenizer leaves the training step."""

    tokens: str = ""
    """The run with the image tokenizer."""
    captions: str = ""
    """A second folder, COCO JSON or column with the captions."""
    views: int = 4
    """Encodings of each picture: the middle square, and random crops."""
    crop: float = 0.75
    """Smallest area share of a random crop."""
    flip: bool = False
    """Mirror every second view."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """The resolved settings of a preset or a run, and how large its model is."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Turn somebody else's checkpoint into a run folder. Nothing in the file is executed."""

    text: str = ""
    """The text tokenizer of a DALLE or CLIP: clip, chinese, a tokenizer.json, a YouTokenToMe .model, a BERT vocab.txt.
    Without it CLIP's is taken where the model has 49,408 entries; else prompts are token ids."""
    yaml: str = ""
    """The .yaml of a VQGAN, to check its weights against."""
    decoder: str = ""
    """The other half of OpenAI's dVAE, where FILE is its encoder.pkl; by default the file beside it."""
    version: str = ""
    """The release of DALLE-pytorch that wrote FILE, where the file does not say it and you know it."""
    optimizer: bool = True
    """Bring Adam's state along, where FILE has it, so that training goes on as if nothing had happened."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a run's best checkpoint in another program's format."""

    format: str = "dalle-pytorch"
    """dalle-pytorch: a dalle.pt or vae.pt as its release 1.6.6 saves it."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Draw birds, learn them on this machine, and measure what was learnt."""

    out: str = "runs/demo"
    """Folder for everything; the same command goes on in it."""
    budget: str = "12m"
    """Time for learning."""
    birds: int = 8000
    """Pictures to draw and learn from."""
    questions: int = 200
    """Captions with untrained colour combinations that are drawn and measured."""
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """How `train` starts."""

    config: str = ""
    """A TOML file of settings, put over the preset and under the flags."""
    dry_run: bool = False
    """Show the resolved settings and stop."""
    profile: bool = False
    """Profile a few steps, write a trace and a table of the dearest operations, and stop."""


def demo(args: list[str]) -> None:
    """Draw the built-in birds, learn them on this machine, show what was learnt."""
    config = options(DemoConfig(), args, "demo")
    from tessera import demonstration

    out = Path(config.out)
    learning = LearnConfig(
        pictures=str(out / "pictures"),
        out=config.out,
        budget=config.budget,
        seed=config.seed,
        device=config.device,
        grid=8,
        crop=1.0,
    )
    demonstration.run(learning, config.birds, config.questions, bar, say)


def learn(args: list[str]) -> None:
    """PICTURES  Folder of captioned pictures -> trained model, drawings and report. The same command resumes."""

    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError("learn is for one process; under a launcher train one model at a time: tessera train --help.")
    (pictures,), args = positionals(args, "learn PICTURES")
    config = options(dataclasses.replace(LearnConfig(), pictures=pictures), args, "learn PICTURES")
    from tessera.learn import learn as work

    work(config, bar, say)


def train(args: list[str]) -> None:
    """PRESET|RUN  Train one model: image tokenizer dvae-*, prior t2i-*, judge clip-*. The same command resumes."""
    table = "\n".join(f"  {name}" for name in PRESETS)
    (name,), args = positionals(args, "train PRESET|RUN", f"Presets:\n{table}")
    start, args = take(StartConfig(), args)
    base, command = without_command(_preset_or_run(name))
    if start.config:
        base = merge(base, read_toml(start.config))
    config = options(
        base,
        args,
        "train PRESET",
        "--config FILE puts a TOML file over the preset; --dry-run shows the settings; --profile profiles.",
    )
    if command and not config.data.path:
        raise ConfigError(
            f"{name}/config.json takes its pictures from the command '{command[:300]}'. What a run folder says is "
            "never run; if you trust it, give it yourself with --data.path."
        )
    config = config if config.out else dataclasses.replace(config, out=f"runs/{name}")
    if start.profile:
        config = dataclasses.replace(
            config, out=f"{config.out}-profile", steps=8, log_every=1, valid_every=0, preview_every=0, save_every=8
        )
    config.check()
    if os.environ.get("RANK", "0") == "0":
        say(json.dumps(to_dict(config), indent=1))
    if start.dry_run:
        return
    from tessera import plan
    from tessera.evaluate import report
    from tessera.models import saved
    from tessera.preview import preview
    from tessera.store import Run
    from tessera.train import engines, loop, track, trackers
    from tessera.train.objectives import build

    run = Run(config.out)
    engine = engines.choose(config)
    if engine.rank:
        engine.barrier()  # the first rank reads the data first and leaves what it found for the others
    objective = build(config, progress=bar("Checking the pictures") if engine.rank == 0 else None)
    if engine.rank == 0:
        run.open(objective.config)
        engine.barrier()
        say(
            f"{len(objective.pairs)} pairs to learn, {len(objective.held)} held out; "
            f"{saved.parameters(objective.model):,} parameters; {engine.world} x {type(engine).__name__.lower()}."
        )
    free = engine.least(plan.free_memory(engine.device))
    objective.config, expected = plan.settle(objective.config, engine.device, free, engine.world, objective.encoder)
    if engine.rank == 0:
        say(f"Memory expected: {expected}; {plan.size(free)} are free.")
    tracker = trackers.choose(objective.config, run, name) if engine.rank == 0 else track.Several([])
    work = lambda: loop.train(objective.config, objective, engine, run, tracker, preview)
    try:
        profiled(work, run.folder) if start.profile else work()
        engine.close()
    finally:
        tracker.close()
    if engine.rank or start.profile:
        return
    if not engine.replicated:
        objective.model = saved.read(run.best())
    figures = report.write(run, objective, [], ())
    for title, value in figures.items():
        say(f"  {title:<50} {value}")
    say(f"Done: {run.best()}   Report: {run.folder / 'report.html'}")


def profiled(work: Callable[[], object], folder: Path) -> None:
    """Run `work` under torch's profiler; trace.json (for Perfetto) and a table go into the folder."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities, profile_memory=True) as found:
        work()
    found.export_chrome_trace(str(folder / "trace.json"))
    dear = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=48)
    (folder / "profile.txt").write_text(dear, "utf-8")
    say(f"{dear}\n{folder}/trace.json and profile.txt: the dearest operations of 8 steps.")


def _preset_or_run(name: str) -> TrainConfig:
    if name in PRESETS or not (Path(name) / "config.json").is_file():
        return preset(name)
    from tessera.store import Run

    return dataclasses.replace(Run(name).config(), out=name)


def without_command(config: TrainConfig) -> tuple[TrainConfig, str]:
    """Settings without a data path that would start programs, and that path.

    For settings that came out of a run folder, which anybody may have written. Such a path counts only where the user
    has given it too: in Python, in a TOML file (--config), or on the command line. So this pair is all that has to be
    known of where a setting came from: what is still missing once those are merged was not typed.
    """
    from tessera.data.download import starts_programs

    path = config.data.path
    if not starts_programs(path):
        return config, ""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path="")), path


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


def bring_in(args: list[str]) -> None:
    """FILE OUT  A DALLE-pytorch, VQGAN or OpenAI checkpoint -> a run folder to draw from, train on or go on with."""
    (source, out), args = positionals(args, "import FILE OUT", count=2)
    c = options(ImportConfig(), args, "import FILE OUT")
    from tessera.imports import runs

    for line in runs.bring_in(source, Path(out), c.text, c.yaml, c.decoder, c.version, c.optimizer):
        say(line)


def send_out(args: list[str]) -> None:
    """RUN FILE  A run -> a checkpoint that DALLE-pytorch loads."""
    (run, file), args = positionals(args, "export RUN FILE", count=2)
    config = options(ExportConfig(), args, "export RUN FILE")
    from tessera.imports import runs

    for line in runs.send_out(run, Path(file), config.format):
        say(line)


def show(args: list[str]) -> None:
    """PRESET|RUN  The resolved settings and parameter counts."""
    (name,), args = positionals(args, "show PRESET|RUN")
    options(ShowConfig(), args, "show PRESET|RUN")
    from tessera import plan
    from tessera.models.saved import network, parameters
    from tessera.store import Run

    run = Run(name)
    config = run.config() if run.exists() or "/" in name else preset(name)
    say(json.dumps(to_dict(config), indent=1))
    model: Any = config.model
    if isinstance(model, CLIPConfig) and not model.text_vocab:
        model = dataclasses.replace(model, text_vocab=4096, text_len=model.text_len or 64)
        say("(with a text vocabulary of 4,096 and 64 text tokens, which the run would choose)")
    if isinstance(model, TextToImageConfig) and not model.text_vocab:
        model = dataclasses.replace(model, text_vocab=4096, text_len=model.text_len or 64, image_vocab=1000, grid=16)
        say("(with a text vocabulary of 4,096, 64 text tokens, and 16 x 16 of 1,000 codes, which the run would choose)")
    import torch

    with torch.device("meta"):
        count = parameters(network(model))
    say(f"{count:,} parameters: {count * 4 / 1e6:,.1f} MB of float32 weights.")
    for line in plan.table(dataclasses.replace(config, model=model)):
        say(line)


def data(args: list[str]) -> None:
    """check|pack|encode DATA  List a data set's problems; write it as shards; encode its pictures once."""
    verb = next((a for a in args if not a.startswith("-")), "check")
    if verb not in DATA:
        raise ConfigError(f"There is no 'tessera data {verb}'{nearest(verb, DATA)}; known: {', '.join(DATA)}.")
    DATA[verb](args)


def pack(args: list[str]) -> None:
    """DATA OUT  Write webdataset shards of any data set."""
    (_, source, out), args = positionals(args, "data pack DATA OUT", count=3)
    config = options(PackConfig(), args, "data pack DATA OUT")
    from tessera.data.check import check
    from tessera.data.shards import pack as work

    health = check(source, config.captions, progress=bar("Checking"))
    written = work(health.pairs, Path(out), config.per_shard, bar("Writing shards"))
    say(f"{out}: {len(health.pairs)} pairs in {len(written)} shards; {len(health.skipped)} left out.")
    say(f"Train on them with: --data.path {out}")


def encode(args: list[str]) -> None:
    """DATA OUT  Encode every picture once, in several crops and flips, with a trained image tokenizer."""
    (_, source, out), args = positionals(args, "data encode DATA OUT", count=3)
    config = options(EncodeConfig(), args, "data encode DATA OUT")
    if not config.tokens:
        raise ConfigError("Name the run with the image tokenizer: tessera data encode DATA OUT --tokens RUN.")
    from tessera.data.check import check
    from tessera.data.codes import encode as work
    from tessera.device import choose_device
    from tessera.store import checkpoint_of
    from tessera.tokens import image as image_tokens

    tokenizer = image_tokens.load(checkpoint_of(config.tokens))
    tokenizer.to(choose_device(config.device))
    health = check(source, config.captions, progress=bar("Checking"))
    settings = DataConfig(path=source, captions=config.captions, crop=config.crop, flip=config.flip)
    work(health.pairs, tokenizer, Path(out), config.views, settings, config.seed, bar("Encoding"))
    say(f"{out}: {len(health.pairs)} pictures in {config.views} views. Train on them with: --data.codes {out}")


def data_check(args: list[str]) -> None:
    """DATA  List every problem of a data set, and the settings that fit it."""
    (_, folder), args = positionals(args, "data check DATA", count=2)
    config = options(CheckConfig(), args, "data check DATA")
    from tessera.data.check import check
    from tessera.data.check import show as shown

    health = check(folder, config.captions, progress=None if config.json else bar("Checking"))
    if config.json:
        say(json.dumps(health.to_json()))
        return
    sizes = sorted((c.width, c.height) for c in health.good)
    counts = sorted(len(c.pair.captions) for c in health.good)
    words = sorted(len(c.split()) for c in health.captions)
    say(f"{len(health.good)} pairs load ({health.layout}); {len(health.skipped)} left out:")
    for skip in health.skipped:
        say(f"  {shown(skip.path)}: {skip.reason}")
    say(f"Sizes: {sizes[0][0]} x {sizes[0][1]} ... {sizes[-1][0]} x {sizes[-1][1]}")
    say(
        f"Captions per picture: {counts[0]} ... {counts[-1]}; "
        f"words per caption: {words[0]} ... {words[len(words) // 2]} (median) ... {words[-1]}"
    )
    for keys in health.duplicates()[:20]:
        say(f"  equal pictures: {', '.join(map(shown, keys))}")
    say("Settings that fit: " + ", ".join(f"{k} {v}" for k, v in health.settings().items()))
    say(f"Next: tessera learn {folder}")


DATA: dict[str, Callable[[list[str]], None]] = {"check": data_check, "pack": pack, "encode": encode}

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "learn": learn,
    "train": train,
    "generate": generate,
    "import": bring_in,
    "export": send_out,
    "show": show,
    "data": data,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake ends in one sentence and exit status 2."""
    die_with_the_launcher()
    # DeepSpeed's launcher tells each process its rank twice.
    args = [a for a in (sys.argv[1:] if argv is None else argv) if not a.startswith(("--local_rank", "--local-rank"))]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if not args or args[0] in ("-h", "--help", "help"):
        return overview()
    if args[0] == "--version":
        return say(__version__)
    try:
        if args[0] not in COMMANDS:
            raise ConfigError(f"There is no command '{args[0]}'{nearest(args[0], COMMANDS)} Try: tessera --help")
        COMMANDS[args[0]](args[1:])
    except TesseraError as error:
        print(f"tessera: {error}", file=sys.stderr)
        sys.exit(REQUEUE if type(error).__name__ == "Interrupted" else 2)
    except KeyboardInterrupt:
        print("\ntessera: stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


def overview() -> None:
    say(f"Tessera {__version__}: train your own text-to-image transformer on your own captioned pictures.\n")
    say("usage: tessera COMMAND ...\n")
    for name, command in COMMANDS.items():
        what, _, words = (command.__doc__ or "").strip().rpartition("  ")
        say(f"  {name + ' ' + what:<26} {words}")
    say("\nBegin with:  tessera demo     or, with your own pictures:  tessera learn PICTURES --budget 30m")
    say("Options of a command:  tessera COMMAND --help")


# Arguments.


def positionals(
    args: list[str], usage: str, more: str = "", count: int = 1, many: bool = False
) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest; --help alone explains the command."""
    words = next((args[:i] for i, a in enumerate(args) if a.startswith("-")), args)
    asks = {"-h", "--help"} & set(args)
    if asks and more and not words:
        say(
            f"usage: tessera {usage} [options]\n\n{more}\n\n"
            f"Options of a preset: tessera {usage.split()[0]} {next(iter(PRESETS))} --help"
        )
        sys.exit(0)
    if asks and len(words) < count:
        words = words + ["..."] * (count - len(words))
    if len(words) < count or (len(words) > count and not many):
        raise ConfigError(f"usage: tessera {usage} [options]; the names come before the options. {more}")
    return words, args[len([w for w in words if w != "..."]) :]


def options(default: T, args: list[str], usage: str, more: str = "") -> T:
    """The config with flags put over it; tyro prints help and names the nearest option for a wrong one."""
    import tyro

    return tyro.cli(
        type(default),
        args=args,
        default=default,
        prog=f"tessera {usage}",
        description=f"{(type(default).__doc__ or '').strip()} {more}",
        config=(tyro.conf.AvoidSubcommands,) if isinstance(default, TrainConfig) else (tyro.conf.OmitArgPrefixes,),
    )


def take(default: StartConfig, args: list[str]) -> tuple[StartConfig, list[str]]:
    """The start's own options, out of the others."""
    rest, values, words = [], {}, iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--dry-run", "--profile"):
            values[name[2:].replace("-", "_")] = True
        elif name == "--config":
            values["config"] = value if equals else next(words, "")
        else:
            rest.append(word)
    return dataclasses.replace(default, **values), rest


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file {path} cannot be read: {error}") from error


# The screen.


def say(text: str) -> None:
    print(text, flush=True)


def bar(title: str) -> Callable[[Iterable, int], Iterable]:
    """Wraps an iteration in a progress bar with rate and remaining time."""

    def wrapped(items: Iterable, total: int) -> Iterator:
        from rich.progress import track

        yield from track(items, title, total, disable=not sys.stdout.isatty())

    return wrapped


class drawing:
    """A progress bar over the codes of one prompt's pictures."""

    def __init__(self, prompt: str):
        from rich.progress import Progress

        self.bar = Progress(disable=not sys.stdout.isatty())
        self.task = self.bar.add_task(prompt[:40].replace("[", "("), total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self.bar.start()
        return lambda done, total: self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
