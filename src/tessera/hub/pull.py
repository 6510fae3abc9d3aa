"""A run from the hub, on this disk and checked. Only what a run is made of is fetched, and nothing in it is run."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from functools import lru_cache
from pathlib import Path

from tessera.config.merging import read_json
from tessera.errors import CheckpointError, ConfigError
from tessera.files.atomic import whole, write_whole
from tessera.files.claim import claim
from tessera.files.own import MARKER
from tessera.hub.client import EXTRA, Client, Found, Unreachable
from tessera.hub.names import Name, parse, wanted
from tessera.store import manifest
from tessera.store.checkpoint import CHECKSUMS, SETTINGS, step_of, verify
from tessera.store.folder import RunFolder
from tessera.store.run import Run, checkpoint_of
from tessera.store.settings import read_settings

BESIDE = ("config.json", "drawing.json", manifest.NAME, "metrics.jsonl", "README.md", "contact-sheet.png",
          "learning.webp", "evaluation/evaluation.json")  # fmt: skip
"""What of a run lies beside its checkpoints and is of use to others."""
PULLED = "pulled.json"
"""In a run folder: where it came from. Written first, so that checkpoints beside it are known to be copies."""
NAMES = ("best", "latest", MARKER)
_PLAIN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
IN_A_CHECKPOINT = re.compile(
    rf"step-\d{{6,18}}/(?:{_PLAIN}/){{0,3}}(?:{_PLAIN}\.(?:json|safetensors)|youtokentome\.model)"
)
"""Settings, weights, tokenizers: JSON and tensors alone, never a program or a pickle."""

KEPT = (*BESIDE, *NAMES, "step-*.json", "step-*.safetensors", "step-*/youtokentome.model")
"""The same for a cache, in the patterns of a shell."""


def ours(path: str) -> bool:
    """Whether a file of a repository belongs to a run. Nothing else is fetched from one, or taken away in one."""
    return path in BESIDE or path in NAMES or bool(IN_A_CHECKPOINT.fullmatch(path) and ".." not in path)


def located(run: str | Path) -> Path:
    """The folder of a run: the one that is named, or what user/name is on the hub, fetched into the hub's cache and
    checked. Raises CheckpointError where the hub has no such run, ConfigError that names the extra where that is
    needed."""
    name = wanted(run)
    return Path(run).expanduser() if name is None else _fetched_once(name)


@lru_cache(maxsize=64)
def _fetched_once(name: Name) -> Path:
    return fetched(name)


def fetched(name: Name, client: Client | None = None) -> Path:
    """The folder in the hub's cache. Where no hub answers, what was fetched before is taken, with a warning."""
    client = client or _client(name)
    try:
        folder = client.fetch(name.repo, name.revision, _listed(_found(client, name), name))
    except Unreachable as error:
        kept = client.kept(name.repo, name.revision, KEPT)
        if kept is None:
            raise
        warnings.warn(f"{error} Taking what was fetched before, {kept}.", stacklevel=2)
        folder = kept
    check(folder, name)
    return folder


def pull(text: str, out: Path | None = None) -> tuple[Path, str]:
    """Fetch user/name into a run folder, by default runs/NAME. Returns the folder and the commit that it came from.

    Raises ConfigError where the folder holds anything; one in which a pull was stopped is gone on with.
    """
    name = parse(text)
    run = Run(out or Path("runs") / name.repo.rpartition("/")[2])
    if run.exists() or (run.checkpoints() and _pulled_from(run) != name.repo):
        raise ConfigError(f"{run.folder} holds a run already. Name another folder: tessera pull {text} --out FOLDER.")
    client = _client(name)
    claim(run.folder, "run")
    with run.held():
        run.sweep()
        source = client.fetch(name.repo, name.revision, _listed(_found(client, name), name))
        checkpoint = check(source, name)
        with run.written():
            write_whole(run.folder / PULLED, json.dumps({"repo": name.repo, "commit": source.name}))
        _copy(source, checkpoint, run)
    return run.folder, source.name


def _pulled_from(run: Run) -> str:
    """The repository whose run was being pulled into a folder; empty where nothing says so."""
    try:
        found: dict[str, str] = read_json(run.folder / PULLED, dict[str, str])
    except ConfigError:
        return ""
    return found.get("repo", "")


def check(folder: Path, name: Name) -> Path:
    """The checkpoint in what was fetched. Raises CheckpointError where it is not whole, or not what it says it is."""
    from tessera.models import saved  # here, because whoever only asks for a folder's name loads no torch

    try:
        checkpoint = checkpoint_of(folder)
        read_settings(folder / "config.json")
        for place in (checkpoint, checkpoint / "image_tokenizer"):
            if place.is_dir():
                saved.fitting(place)
        manifest.read(folder)
    except (*saved.UNREADABLE, CheckpointError) as error:
        raise CheckpointError(f"What the hub has as {name} is not a whole run of Tessera: {error}") from error
    return checkpoint


def _client(name: Name) -> Client:
    try:
        client = Client()
        assert client.api
    except ConfigError as error:
        raise ConfigError(f"There is no folder {name} here; to look for it on the hub: {EXTRA}.") from error
    return client


def _found(client: Client, name: Name) -> Found:
    found = client.find(name.repo, name.revision)
    if found is None:
        raise CheckpointError(
            f"There is no folder {name} here, and no model of that name on the hub that you may see. A private one "
            "needs `hf auth login` or HF_TOKEN."
        )
    return found


def _listed(found: Found, name: Name) -> list[str]:
    """The files to fetch. Raises CheckpointError where there is no checkpoint among them."""
    files = [path for path in found.files if ours(path)]
    if "config.json" not in files or not any(re.fullmatch(r"step-\d+/weights\.safetensors", path) for path in files):
        shown = ", ".join(sorted(found.files)[:4]) or "nothing"
        raise CheckpointError(f"{name} on the hub is not a run that Tessera pushed: it holds {shown}.")
    return files


def _copy(source: Path, checkpoint: Path, run: Run) -> None:
    """Into a folder of our own; the settings last, so that a folder that has them is whole."""
    found = RunFolder(source).checkpoints()
    for one in sorted(found, key=lambda path: (path.name == checkpoint.name, step_of(path))):
        verify(one)
        settings = one / SETTINGS
        run.settings = settings.read_text("utf-8") if settings.is_file() else ""
        write = lambda fresh, one=one: _tree(one, fresh)
        run.save(step_of(one), write, keep=len(found), best=one.name == checkpoint.name)
    with run.written():
        write_whole(run.folder / "latest", found[-1].name)
        for path in reversed(BESIDE):
            if (source / path).is_file():
                _put(source / path, run.folder / path)


def _put(source: Path, target: Path) -> None:
    if target.parent.name == "evaluation":
        claim(target.parent, "evaluation")
    with whole(target) as fresh:
        shutil.copyfile(source, fresh)


def _tree(source: Path, target: Path) -> None:
    """All files but the two that `commit` writes."""
    for path in source.rglob("*"):
        name = path.relative_to(source)
        if path.is_file() and name.as_posix() not in (SETTINGS, CHECKSUMS):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
