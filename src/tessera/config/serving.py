"""How a server draws, whom it lets in, and what it bounds. It knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from tessera.config.merging import Checked
from tessera.errors import ConfigError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Addresses that only programs on the same machine reach."""
MOST = 10
"""The most pictures that OpenAI's interface lets a request ask for."""

Seats = Annotated[int, Ge(2), Le(4096)]
Seconds = Annotated[float, Ge(0.1), Le(86_400)]
Bytes = Annotated[int, Ge(1024), Le(2**34)]


@dataclass(frozen=True, kw_only=True)
class Limits(Checked):
    """What a client may ask for, and what all of them together."""

    max_queue: Annotated[int, Ge(2 * MOST), Le(100_000)] = 256
    """Pictures that may wait for a model; a request beyond is told when to come again (429). A quarter is kept for
    clients that have nothing waiting."""
    max_n: Annotated[int, Ge(1), Le(MOST)] = MOST
    """Pictures of one request."""
    max_best_of: Annotated[int, Ge(1), Le(MOST)] = MOST
    """Pictures that one request may have drawn to keep the best (best_of)."""
    max_prompt: Annotated[int, Ge(1), Le(1_000_000)] = 4000
    """Letters of a prompt."""
    max_side: Annotated[int, Ge(8), Le(8192)] = 1024
    """Largest side of a picture that a size asks for."""
    max_body: Bytes = 2**20
    """Bytes of a request without pictures."""
    max_upload: Bytes = 2**25
    """Bytes of a request with pictures."""
    max_upload_pixels: Annotated[int, Ge(1), Le(80_000_000)] = 2**24
    """Pixels of a picture that is sent; it is refused before it is decoded."""
    max_connections: Annotated[int, Ge(1), Le(100_000)] = 512
    """Connections that are open at a time; further ones are closed at once."""
    max_seconds: Seconds = 600.0
    """From the arrival of a request to its last picture; after that it is given up (503)."""
    body_seconds: Seconds = 60.0
    """In which a request must have arrived."""
    drain_seconds: Seconds = 120.0
    """Time for what is being drawn after SIGTERM, before it is given up."""
    url_seconds: Seconds = 3600.0
    """How long a picture that was asked for as a url is kept."""
    url_bytes: Annotated[int, Ge(0), Le(2**36)] = 2**28
    """Memory for such pictures; beyond it the oldest are forgotten. With 0, none are made."""


@dataclass(frozen=True, kw_only=True)
class ServingConfig(Checked):
    """How runs are served."""

    host: str = "127.0.0.1"
    """Address to listen at. Beyond this machine it needs --api-key-file."""
    port: Annotated[int, Ge(0), Le(65_535)] = 8000
    """Port to listen at; 0 takes a free one."""
    api_key_file: str = ""
    """A file with a key on each line; clients send one of them as OpenAI's clients do. Without it, only programs and
    pages of this machine are answered."""
    public_url: str = ""
    """What pictures that are asked for as a url begin with, where a proxy stands before the server
    (https://birds.example.org)."""
    max_batch: Seats = 16
    """Rows that are drawn together, for each model; a picture with guidance takes two."""
    weights: Literal["float32", "bf16", "int8"] = "float32"
    """Bits of each weight; on a CPU int8 is about twice as fast, and its pictures are nearly the same."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile: half a minute at the start, then faster; auto uses it on CUDA."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    threads: Annotated[int, Ge(0), Le(1024)] = 0
    """Threads that draw on a CPU; 0 is torch's own count."""
    log_prompts: bool = False
    """Write prompts into the log. Otherwise nobody can read there what was asked for."""
    limits: Limits = field(default_factory=Limits)

    def rules(self) -> None:
        if self.host not in LOOPBACK and not self.api_key_file:
            raise ConfigError(
                f"--host {self.host} is reachable from other machines, and no API keys are set: anyone could use the "
                "server. Give --api-key-file FILE with one key per line, or leave --host out."
            )
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise ConfigError(f"public-url is '{self.public_url}'; it must begin with http:// or https://.")
