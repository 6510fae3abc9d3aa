"""Commands that read and write other programs' checkpoints: import, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tessera.cli.arguments import options, positionals
from tessera.cli.screen import say


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
