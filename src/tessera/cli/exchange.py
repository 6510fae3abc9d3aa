"""Commands that read and write other programs' checkpoints: import, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tessera.cli.arguments import options
from tessera.cli.screen import say
from tessera.config.ranges import Pixels


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Turn a checkpoint of another program into a run folder. No code in the file is executed. `tessera train OUT
    --data.path PICTURES` then goes on training it, which fine-tunes it on your pictures."""

    file: str
    """A checkpoint, a DeepSpeed folder, or the name of a published tokenizer; or a run of Tessera's own whose image
    tokenizer is to learn other pictures."""
    out: str
    """Folder for the run."""
    text: str = ""
    """The text tokenizer of a DALLE or CLIP: clip, chinese, a tokenizer.json, a YouTokenToMe .model, a BERT vocab.txt.
    By default CLIP's for a vocabulary of 49,408 entries; otherwise prompts are token ids."""
    yaml: str = ""
    """The .yaml of a VQGAN or an IBQ, which says what it is, and what the weights are checked against."""
    kind: Literal["", "vqgan", "ibq"] = ""
    """What a .ckpt without a .yaml is. Their weights have the same names, and their codes are chosen otherwise."""
    pixels: Pixels = 256
    """Side of the pictures that a VQGAN or a relative of one is to take, which no file says."""
    decoder: str = ""
    """The decoder.pkl of OpenAI's dVAE, when FILE is its encoder.pkl; by default the file beside it."""
    version: str = ""
    """The release of DALLE-pytorch that wrote FILE, if the file does not name it."""
    optimizer: bool = True
    """Import Adam's state too, if FILE has it, so that training resumes exactly."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a run's best checkpoint in another program's format."""

    run: str
    """The run folder."""
    file: str
    """The checkpoint to write."""
    format: str = "dalle-pytorch"
    """dalle-pytorch: a dalle.pt or vae.pt as release 1.6.6 saves it."""


def bring_in(args: list[str]) -> None:
    """FILE OUT  Turn a checkpoint of DALLE-pytorch, VQGAN, LlamaGen, diffusers or OpenAI into a run folder."""
    c = options(ImportConfig, args, "import")
    from tessera.imports import runs
    from tessera.imports.tokenizers import Told

    told = Told(yaml=c.yaml, kind=c.kind, pixels=c.pixels)
    for line in runs.bring_in(c.file, Path(c.out), c.text, told, c.decoder, c.version, c.optimizer):
        say(line)


def send_out(args: list[str]) -> None:
    """RUN FILE  Write a run as a checkpoint that DALLE-pytorch loads."""
    config = options(ExportConfig, args, "export")
    from tessera.imports import runs

    for line in runs.send_out(config.run, Path(config.file), config.format):
        say(line)
