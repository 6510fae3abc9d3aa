"""What of a run is sent to a hub: the checkpoint that is drawn from, and what says where it comes from. No picture that
it learned, no path of this machine. It sends nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tessera.config import TrackConfig, TrainConfig, to_dict
from tessera.config.merging import read_json
from tessera.errors import ConfigError
from tessera.files.download import starts_programs
from tessera.files.own import MARKER
from tessera.hub import names
from tessera.hub.client import Sent
from tessera.hub.names import PREFIX
from tessera.hub.pull import BESIDE, ours
from tessera.store import manifest
from tessera.store.checkpoint import CHECKSUMS, SETTINGS, Checksums, verify
from tessera.store.run import Run, checkpoint_of
from tessera.store.settings import read_settings

TRAINING = ("optimizer/", "state/", "weights/", "networks/")
"""Folders of a checkpoint that drawing does not need."""
SHOWING = ("report.html", "evaluation/evaluation.html")
"""Pages that show pictures which the run learned, or was measured by."""
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is sent beside the checkpoint that is drawn from."""

    training: bool = False
    """The newest checkpoint whole, with the optimiser's memory, so that training can go on from it."""
    pictures: bool = False
    """The pages and previews that show pictures of the user's."""
    manifest: bool = True
    """The SHA-256 of every picture that it learned."""


def packed(run: Run, wanted: Wanted) -> list[Sent]:
    """The files to send, but for the card. Raises CheckpointError where the folder is not a run with a whole
    checkpoint, ConfigError where its training state cannot be sent."""
    config, best = run.config(), checkpoint_of(run.folder)
    files = [Sent(MARKER, json.dumps({"kind": "run"}).encode())]
    files += [Sent("best", best.name.encode()), Sent("config.json", _json(to_dict(nowhere(config))))]
    whole = run.latest() if wanted.training else None
    if whole:
        verify(whole)
    files += [Sent("latest", (whole or best).name.encode())]
    for checkpoint in {best, whole or best}:
        files += _checkpoint(checkpoint, training=checkpoint == whole)
    left_out = {CARD, "config.json"} | ({manifest.NAME} if not wanted.manifest else set())
    for path in BESIDE:
        if path not in left_out and (run.folder / path).is_file():
            files.append(Sent(path, STAGED.get(path, _same)(run.folder / path)))
    files += [Sent(path, run.folder / path) for path in _showing(run)] if wanted.pictures else []
    return sorted(files, key=lambda f: f.path)


def _checkpoint(folder: Path, training: bool) -> Iterator[Sent]:
    """Its files, with settings that lead nowhere, and checksums of what is sent."""
    known = folder / CHECKSUMS
    sums = read_json(known, Checksums).sha256 if known.is_file() else {}
    changed = (
        {SETTINGS: _json(to_dict(nowhere(read_settings(folder / SETTINGS))))} if (folder / SETTINGS).exists() else {}
    )
    sent: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == CHECKSUMS or (name.startswith(TRAINING) and not training):
            continue
        if not ours(f"{folder.name}/{name}"):
            raise ConfigError(
                f"{folder}/{name} is neither JSON nor safetensors, so others could not read it safely and it is not "
                "sent. Leave --training out, or train on for a step with --machine.engine single, which writes the "
                "optimiser's memory whole."
            )
        content = changed.get(name, path)
        sent[name] = sums.get(name, "") if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        yield Sent(f"{folder.name}/{name}", content)
    if sums:
        yield Sent(f"{folder.name}/{CHECKSUMS}", _json({"sha256": sent}))


def nowhere(config: TrainConfig) -> TrainConfig:
    """The settings without places on this machine: folders keep their last name, so that it can be told whether a run
    held pictures back, and addresses and commands, which may hold keys, become a word."""
    data, tokens = config.data, config.tokens
    return replace(
        config,
        out="",
        data=replace(data, path=_name(data.path), captions=_name(data.captions), codes=_name(data.codes)),
        tokens=replace(tokens, image=_name(tokens.image), text=_name(tokens.text)),
        machine=replace(config.machine, nvme="", deepspeed=""),
        track=TrackConfig(),
    )


def _name(place: str) -> str:
    if starts_programs(place) or "://" in place:
        return "elsewhere"
    if place.startswith(PREFIX):
        return place if place[len(PREFIX) :][:1].isalnum() else "elsewhere"
    return place if names.wanted(place) else Path(place).name


def _same(path: Path) -> Path:
    return path


def _evaluation(path: Path) -> bytes:
    """Without the folder in which the network that looked was found."""
    found = read_json(path, dict[str, object])
    settings = found.get("settings")
    if isinstance(settings, dict) and isinstance(features := settings.get("features"), str):
        settings["features"] = features.partition(":")[0]
    return _json(found)


STAGED: dict[str, Callable[[Path], bytes | Path]] = {"evaluation/evaluation.json": _evaluation}
"""What is not sent as it is."""


def _showing(run: Run) -> Iterator[str]:
    for path in SHOWING:
        if (run.folder / path).is_file():
            yield path
    yield from sorted(p.relative_to(run.folder).as_posix() for p in run.samples.glob("step-*.png") if p.is_file())


def _json(content: object) -> bytes:
    return json.dumps(content, indent=1).encode()


def told(files: list[Sent]) -> list[str]:
    """The list for a reader: each file with its size."""
    width = max(len(f.path) for f in files)
    lines = [f"  {f.path:<{width}}  {size(f.size):>9}" for f in files]
    return [*lines, f"  {len(files)} files, {size(sum(f.size for f in files))}"]


def size(count: int) -> str:
    """Bytes for a reader."""
    units = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    unit = next((unit for unit, of in units.items() if count >= of), "B")
    return f"{count / units[unit]:.1f} {unit}" if unit in units else f"{count} B"
