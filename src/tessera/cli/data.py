"""Commands about data sets: data check, data pack, data encode, data owned."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from tessera.cli.arguments import options
from tessera.cli.screen import bar, say
from tessera.config import DataConfig
from tessera.config.merging import nearest
from tessera.config.ranges import Count, CountOrZero, Seed, ShareAboveZero
from tessera.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Check every picture and caption of a data set."""

    data: str
    """A folder, webdataset shards, or hf:NAME."""
    captions: str = ""
    """A second folder or COCO JSON with the captions."""
    json: bool = False
    """Print one JSON object instead of sentences."""


@dataclass(frozen=True, kw_only=True)
class SharedConfig:
    """What commands have in common whose work several processes may share."""

    rank: CountOrZero = 0
    """Which of several processes this is, from 0. torchrun, srun and arrays of SLURM say it themselves."""
    ranks: CountOrZero = 0
    """How many processes share the work; 0 takes what a launcher says. Each can be started again alone."""
    verify: bool = False
    """Check existing files against their checksums, and write damaged ones again."""


@dataclass(frozen=True, kw_only=True)
class PackConfig(SharedConfig):
    """Write balanced webdataset shards. After an interruption the same command resumes."""

    data: str
    """Any data set that `data check` accepts."""
    out: str
    """Folder for the shards."""
    captions: str = ""
    """A second folder, COCO JSON or column with the captions."""
    per_shard: Count = 1000
    """Largest number of pairs in a shard."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(SharedConfig):
    """Encode pictures once, so that training steps need no image tokenizer."""

    data: str
    """Any data set that `data check` accepts."""
    out: str
    """Folder for the codes."""
    tokens: str = ""
    """The run with the image tokenizer, or user/name on the hub."""
    captions: str = ""
    """A second folder, COCO JSON or column with the captions."""
    views: Annotated[int, Ge(1), Le(1_000)] = 4
    """Number of encodings of each picture: the middle square, then random crops."""
    crop: ShareAboveZero = 0.75
    """Smallest share of the area that a random crop keeps."""
    flip: bool = False
    """Mirror every second encoding."""
    seed: Seed = 0
    """Seed of the random crops."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    per_part: Count = 256
    """Pairs in a file. An interruption loses at most so many; a billion pairs want 100,000."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Read packed codes or shards against the checksums written with them. Exit status 1: some are damaged."""

    folder: str
    """A folder that `data encode` or `data pack` wrote."""


@dataclass(frozen=True, kw_only=True)
class OwnedConfig:
    """Say whether every picture that a run was made of is among these: by the SHA-256 of their files, whatever they are
    called. Exit status 1: not all of them are."""

    data: str
    """Your pictures: a folder, with captions or without, webdataset shards, or hf:NAME."""
    run: str
    """A run folder, or user/name on the hub."""


def data(args: list[str]) -> None:
    """check|pack|encode|verify|owned DATA  Check, pack, encode, verify a data set; was a run made of it alone?"""
    verb, *rest = args if args and not args[0].startswith("-") else ["check", *args]
    if verb not in DATA:
        raise ConfigError(f"There is no 'tessera data {verb}'{nearest(verb, DATA) or '.'} Known: {', '.join(DATA)}.")
    DATA[verb](rest)


def pack(args: list[str]) -> None:
    """DATA OUT  Write a data set as webdataset shards."""
    config = options(PackConfig, args, "data pack")
    out = Path(config.out)
    from tessera.data.check import check
    from tessera.data.packing import begin
    from tessera.data.packing import pack as work
    from tessera.data.share import share, told

    mine = share(config.rank, config.ranks)
    begin(out)
    health = check(config.data, config.captions, progress=bar("Checking"))
    written, missing = work(health.pairs, out, config.per_shard, bar("Writing shards"), mine, config.verify)
    if missing:
        say(f"{out}: rank {mine.rank} is done; {told(missing, len(written), 'shards', mine)}.")
        return
    say(f"{out}: {len(health.pairs)} pairs in {len(written)} shards; {len(health.skipped)} left out.")
    say(f"Train on them with: --data.path {out}")


def encode(args: list[str]) -> None:
    """DATA OUT  Encode every picture once, in several crops, with a trained image tokenizer."""
    config = options(EncodeConfig, args, "data encode")
    out = Path(config.out)
    if not config.tokens:
        raise ConfigError("Name the run with the image tokenizer: tessera data encode DATA OUT --tokens RUN.")
    from tessera.data.check import check
    from tessera.data.codes import begin
    from tessera.data.codes import encode as work
    from tessera.data.share import share, told
    from tessera.hub.pull import located
    from tessera.machine.device import choose_device
    from tessera.store.run import checkpoint_of
    from tessera.tokens import image as image_tokens

    mine = share(config.rank, config.ranks)
    begin(out)
    tokenizer = image_tokens.load(checkpoint_of(located(config.tokens)))
    tokenizer.to(choose_device(config.device))
    health = check(config.data, config.captions, progress=bar("Checking"))
    settings = DataConfig(path=config.data, captions=config.captions, crop=config.crop, flip=config.flip)
    missing = work(
        health.pairs, tokenizer, out, config.views, settings, config.seed, bar("Encoding"), mine, config.per_part,
        config.verify,
    )  # fmt: skip
    if missing:
        parts = -(-len(health.pairs) // config.per_part)
        say(f"{out}: rank {mine.rank} is done; {told(missing, parts, 'parts', mine)}.")
        return
    say(f"{out}: {len(health.pairs)} pictures in {config.views} views. Train on them with: --data.codes {out}")


GROUPS, NAMES = 20, 5
"""Groups of equal pictures that are shown, and names in each."""


def data_check(args: list[str]) -> None:
    """DATA  List every problem of a data set, and settings that fit it."""
    config = options(CheckConfig, args, "data check")
    from tessera.data.check import check
    from tessera.data.check import show as shown

    health = check(config.data, config.captions, progress=None if config.json else bar("Checking"))
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
    equal = health.duplicates()
    for keys in equal[:GROUPS]:
        more = f" and {len(keys) - NAMES:,} more" if len(keys) > NAMES else ""
        say(f"  {len(keys):,} equal pictures: {', '.join(map(shown, keys[:NAMES]))}{more}")
    if len(equal) > GROUPS:
        say(f"  and {len(equal) - GROUPS:,} more groups of equal pictures; --json names all of them.")
    say("Settings that fit: " + ", ".join(f"{k} {v}" for k, v in health.settings().items()))
    say(f"Next: tessera learn {config.data}")


def verify(args: list[str]) -> None:
    """FOLDER  Read packed codes or shards against their checksums."""
    folder = Path(options(VerifyConfig, args, "data verify").folder).expanduser()
    from tessera.data import codes, packing, shards
    from tessera.files.own import kind_of

    kind = kind_of(folder)
    if kind not in ("codes", "shards"):
        raise ConfigError(f"{folder} is not a folder that data encode or data pack wrote.")
    if kind == "shards" and (why := shards.unfinished(folder)):
        raise DataError(f"{folder} is not completely packed: {why}.")
    broken = codes.damaged(folder) if kind == "codes" else packing.damaged(folder)
    if broken:
        shown = ", ".join(broken[:5])
        say(
            f"{folder}: {len(broken)} files are damaged: {shown}. The command that wrote them mends them with --verify."
        )
        sys.exit(1)
    say(f"{folder}: every file holds what was written.")


def owned(args: list[str]) -> None:
    """DATA RUN  Whether every picture that a run was made of is in a folder."""
    config = options(OwnedConfig, args, "data owned")
    from tessera.data.owned import held_against
    from tessera.hub.pull import located
    from tessera.store import manifest

    found = manifest.read(located(config.run))
    if found is None:
        raise ConfigError(
            f"{config.run} has no {manifest.NAME}: it was trained before there were any, or sent without."
        )
    answer = held_against(found, config.data, bar("Looking"))
    for line in answer.told(found):
        say(line)
    if answer.missing:
        sys.exit(1)


DATA: dict[str, Callable[[list[str]], None]] = {
    "check": data_check, "pack": pack, "encode": encode, "verify": verify, "owned": owned,
}  # fmt: skip
