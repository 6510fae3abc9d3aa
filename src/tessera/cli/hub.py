"""Commands that send runs to a hub and fetch them: push, pull."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tessera.cli.arguments import options
from tessera.cli.screen import say


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Send a run to user/name on the Hugging Face hub, or on the one at HF_ENDPOINT: the checkpoint that is drawn from,
    its settings without any path, and its card. No picture that it learned is sent. Stopped, the same command goes
    on."""

    run: str
    """The run folder."""
    name: str
    """user/name."""
    public: bool = False
    """Let everybody see it; otherwise it is private."""
    license: str = ""
    """Its licence, by the hub's short name: mit, cc-by-4.0, ...; by default that in the run's README.md."""
    training: bool = False
    """Send the newest checkpoint with the optimiser's memory too, so that training can go on from it."""
    pictures: bool = False
    """Send report.html, evaluation.html and the previews too, which show pictures that it learned or was measured
    by."""
    manifest: bool = True
    """Send manifest.json, the SHA-256 of every picture that it learned."""
    dry_run: bool = False
    """Show what would be sent, and stop."""


@dataclass(frozen=True, kw_only=True)
class PullConfig:
    """Fetch a run from the Hugging Face hub, or from the one at HF_ENDPOINT, into a folder of its own. Only JSON,
    weights, the card and its pictures are fetched, and nothing in them is run. Stopped, the same command goes on."""

    name: str
    """user/name, or user/name@REVISION."""
    out: str = ""
    """Folder for the run; by default runs/name."""


def push(args: list[str]) -> None:
    """RUN USER/NAME  Send a run to the Hugging Face hub, private by default, with its card and no training pictures."""
    c = options(PushConfig, args, "push")
    from tessera.hub.parcel import Wanted
    from tessera.journeys.publish import push as work
    from tessera.store.run import Run

    wanted = Wanted(training=c.training, pictures=c.pictures, manifest=c.manifest)
    address = work(Run(c.run), c.name, wanted, c.public, c.license, c.dry_run, say)
    say(f'Sent: {address}\nDraw: tessera generate {c.name} "..."' if address else "Nothing was sent.")


def pull(args: list[str]) -> None:
    """USER/NAME [--out RUN]  Fetch a run from the Hugging Face hub."""
    c = options(PullConfig, args, "pull")
    from tessera.hub.pull import pull as work

    folder, commit = work(c.name, Path(c.out) if c.out else None)
    say(f'{folder}: {c.name} as of {commit[:12]}.\nDraw: tessera generate {folder} "..."')
