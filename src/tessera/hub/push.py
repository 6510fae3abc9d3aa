"""A run to the hub: the repository, which must be this program's own, and one commit. It does not choose the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tessera.errors import ConfigError
from tessera.files.own import MARKER
from tessera.hub.client import Client, Found, Sent
from tessera.hub.names import Name
from tessera.hub.pull import ours

FOREIGN = (".gitattributes", "README.md")
"""What a repository may hold that this program did not begin: what the hub itself writes."""


def opened(client: Client, name: Name, public: bool) -> Found:
    """The repository, made where there is none, as it is now; private unless said otherwise.

    Raises ConfigError where it is open to everybody and that was not asked for, the other way round, and where it holds
    files but not those of a run.
    """
    if name.revision:
        raise ConfigError(f"{name}: push goes to the newest version; leave '@{name.revision}' out.")
    found = client.find(name.repo)
    if found is None:
        client.create(name.repo, private=not public)
        return client.find(name.repo) or Found("", not public, {})
    if not found.private and not public:
        raise ConfigError(
            f"{name} is open to everybody. Give --public to push there, name another, or make it private in its "
            "settings on the hub. Nothing was sent."
        )
    if found.private and public:
        raise ConfigError(
            f"{name} is private, with all that it ever held. Open it in its settings on the hub, or leave --public "
            "out. Nothing was sent."
        )
    refuse_others(found, name)
    return found


def refuse_others(found: Found, name: Name) -> None:
    """Raise ConfigError where a repository was not begun by this program."""
    others = sorted(set(found.files) - set(FOREIGN))
    if others and MARKER not in found.files:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise ConfigError(
            f"{name} on the hub is not empty and Tessera did not begin it: it holds {shown}. Nothing was sent. Name "
            "another."
        )


def send(client: Client, name: Name, found: Found, files: Sequence[Sent], say: Callable[[str], None]) -> str:
    """Send the files in one commit, in which older files of the run that it has no more go; returns its address."""
    kept = {f.path for f in files}
    gone = [path for path in sorted(found.files) if ours(path) and path not in kept | set(FOREIGN)]
    if gone:
        say(f"  {len(gone)} files of an earlier push go: {', '.join(gone[:3])}{', ...' if len(gone) > 3 else ''}")
    return client.commit(name.repo, files, gone, "Push a run of Tessera")
