"""Commands about data sets: data check, data pack, data encode."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from tessera.cli.arguments import options, positionals
from tessera.cli.screen import bar, say
from tessera.config import DataConfig
from tessera.config.merging import nearest
from tessera.config.ranges import Count, Seed, ShareAboveZero
from tessera.errors import ConfigError


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
    per_shard: Count = 1000
    """Pairs in a shard, at most."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encode pictures once, so that the image tokenizer leaves the training step."""

    tokens: str = ""
    """The run with the image tokenizer."""
    captions: str = ""
    """A second folder, COCO JSON or column with the captions."""
    views: Annotated[int, Ge(1), Le(1_000)] = 4
    """Encodings of each picture: the middle square, and random crops."""
    crop: ShareAboveZero = 0.75
    """Smallest area share of a random crop."""
    flip: bool = False
    """Mirror every second view."""
    seed: Seed = 0
    """Chooses the crops."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


def data(args: list[str]) -> None:
    """check|pack|encode DATA  List a data set's problems; write it as shards; encode its pictures once."""
    verb = next((a for a in args if not a.startswith("-")), "check")
    if verb not in DATA:
        raise ConfigError(f"There is no 'tessera data {verb}'{nearest(verb, DATA) or '.'} Known: {', '.join(DATA)}.")
    DATA[verb](args)


def pack(args: list[str]) -> None:
    """DATA OUT  Write webdataset shards of any data set."""
    (_, source, out), args = positionals(args, "data pack DATA OUT", count=3)
    config = options(PackConfig(), args, "data pack DATA OUT")
    from tessera.data.check import check
    from tessera.data.shards import begin
    from tessera.data.shards import pack as work

    begin(Path(out))
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
    from tessera.data.codes import begin
    from tessera.data.codes import encode as work
    from tessera.machine.device import choose_device
    from tessera.store.run import checkpoint_of
    from tessera.tokens import image as image_tokens

    begin(Path(out))
    tokenizer = image_tokens.load(checkpoint_of(config.tokens))
    tokenizer.to(choose_device(config.device))
    health = check(source, config.captions, progress=bar("Checking"))
    settings = DataConfig(path=source, captions=config.captions, crop=config.crop, flip=config.flip)
    work(health.pairs, tokenizer, Path(out), config.views, settings, config.seed, bar("Encoding"))
    say(f"{out}: {len(health.pairs)} pictures in {config.views} views. Train on them with: --data.codes {out}")


GROUPS, NAMES = 20, 5
"""Groups of equal pictures that are shown, and names in each."""


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
    equal = health.duplicates()
    for keys in equal[:GROUPS]:
        more = f" and {len(keys) - NAMES:,} more" if len(keys) > NAMES else ""
        say(f"  {len(keys):,} equal pictures: {', '.join(map(shown, keys[:NAMES]))}{more}")
    if len(equal) > GROUPS:
        say(f"  and {len(equal) - GROUPS:,} more groups of equal pictures; --json names all of them.")
    say("Settings that fit: " + ", ".join(f"{k} {v}" for k, v in health.settings().items()))
    say(f"Next: tessera learn {folder}")


DATA: dict[str, Callable[[list[str]], None]] = {"check": data_check, "pack": pack, "encode": encode}
