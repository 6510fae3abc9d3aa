"""Who may ask: keys, and without keys programs and pages of this machine. It does not know what is asked."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tessera.config.serving import LOOPBACK
from tessera.errors import ConfigError
from tessera.serve.errors import Refused

SHORTEST = 16
"""Letters that a key must have: shorter ones are guessed."""
HOW = "Send a key of this server, as OpenAI's clients do: Authorization: Bearer KEY."


class Doorman(Protocol):
    """Says who a client is, by the headers of its request and its address. Raises Refused where it may not ask."""

    def name(self, headers: Mapping[str, str], address: str) -> str: ...


class Keys:
    """Whoever has one of the keys may ask."""

    def __init__(self, keys: Sequence[str]):
        self.digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def name(self, headers: Mapping[str, str], address: str) -> str:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Refused(401, f"There is no key in the request. {HOW}")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        # All are compared, each in constant time, so that the time of an answer tells nothing of any key.
        if not sum([hmac.compare_digest(digest, own) for own in self.digests]):
            raise Refused(401, f"The key is not one of this server's. {HOW}")
        return f"key-{digest.hex()[:8]}"


class Loopback:
    """Whoever is on this machine may ask, but no page of another site that a browser here happens to show: neither by a
    name that it lets point here (Host), nor by a form or script of its own (Origin)."""

    def name(self, headers: Mapping[str, str], address: str) -> str:
        if _name(f"//{headers.get('host', '')}") not in LOOPBACK:
            raise Refused(
                403, "The request names another host; ask for 127.0.0.1 or localhost, or serve with a key file."
            )
        origin = headers.get("origin")
        if origin is not None and _name(origin) not in LOOPBACK:
            raise Refused(403, "The request comes from a page of another site, which may not draw here.")
        if headers.get("sec-fetch-site") == "cross-site":
            raise Refused(403, "The request comes from a page of another site, which may not draw here.")
        return address


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def doorman(path: str) -> Doorman:
    """Of a key file, or of this machine where there is none. Raises ConfigError where the file holds no good keys."""
    if not path:
        return Loopback()
    try:
        lines = Path(path).expanduser().read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"The key file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The key file {path} is not text in UTF-8; write a key on each line.") from error
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise ConfigError(f"The key file {path} holds no key; write one on each line: openssl rand -hex 24 > {path}")
    if short := [number for number, key in enumerate(keys, 1) if len(key) < SHORTEST]:
        raise ConfigError(
            f"Key {short[0]} in {path} has fewer than {SHORTEST} letters; make one with: openssl rand -hex 24"
        )
    return Keys(keys)
