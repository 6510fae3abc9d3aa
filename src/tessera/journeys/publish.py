"""`push`: a finished run, its card refreshed, to a hub. It knows the order of the work only."""

from __future__ import annotations

from collections.abc import Callable

from tessera.errors import CheckpointError
from tessera.evaluate import card
from tessera.hub import parcel
from tessera.hub import push as hub
from tessera.hub.client import Client, Sent
from tessera.hub.names import Name, parse
from tessera.hub.parcel import Wanted
from tessera.store.run import Run, checkpoint_of

ALONE = Wanted()
"""Nothing beside the checkpoint that is drawn from."""


def push(
    run: Run, to: str, wanted: Wanted = ALONE, public: bool = False, license: str = "", dry: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> str:  # fmt: skip
    """Send a run to user/name; returns the address of the commit, or nothing where `dry` only shows what would be sent.

    `say` takes the list of files before anything is sent. Stopped, the same call sends what is not there yet. Raises
    CheckpointError where the run is not whole or no hub answers, ConfigError where the repository is not ours to write.
    """
    name = parse(to)
    if not run.folder.is_dir():
        raise CheckpointError(f"There is no run folder {run.folder}. Name one that was trained: tessera push RUN {to}")
    checkpoint_of(run.folder)
    if not card.write(run, license):
        say(f"{run.folder / card.NAME} is not a card that Tessera wrote: it stays as it is, and is not sent.")
    files = parcel.packed(run, wanted)
    if dry:
        _show([*files, *_card(run, name, license, "", say)], name, public, say)
        return ""
    client = Client()
    found = hub.opened(client, name, public)
    there = client.read(name.repo, card.NAME).decode("utf-8", "replace") if card.NAME in found.files else ""
    files += _card(run, name, license, there, say)
    _show(files, name, not found.private, say)
    return hub.send(client, name, found, files, say)


def _card(run: Run, name: Name, license: str, there: str, say: Callable[[str], None]) -> list[Sent]:
    """The card as others read it, in place of the one on the hub; nothing where one of both is a person's own."""
    here = card.there(run)
    if here is None or (here and card.BEGIN not in here):
        return []
    chosen = license or card.license_in(there) or card.license_in(here)
    text = card.of(run, name.repo, chosen).over(there or here)
    if text is None:
        say(f"The {card.NAME} of {name} on the hub is not a card that Tessera wrote: it stays as it is.")
        return []
    return [Sent(card.NAME, text.encode())]


def _show(files: list[Sent], name: Name, public: bool, say: Callable[[str], None]) -> None:
    say(f"To {name}, {'which everybody can see' if public else 'which only you and those you let in can see'}:")
    for line in parcel.told(sorted(files, key=lambda f: f.path)):
        say(line)
