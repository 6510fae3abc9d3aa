"""What a training is made of, written down before its first step: manifest.json. It trains nothing."""

from __future__ import annotations

from pathlib import Path

from tessera.data.check import hashes
from tessera.hub.pull import located
from tessera.imports.imagenet import SHA256
from tessera.models.openai_dvae import OpenAIDVAEConfig
from tessera.store import manifest
from tessera.store.manifest import HELD, LEARNED, TOKENIZER, Foreign, Manifest
from tessera.store.run import Run
from tessera.tokens import image as image_tokens
from tessera.train.objectives.protocol import Objective

LOOKING = {"lite0": "EfficientNet-Lite0 with ImageNet's weights"}
"""Networks that look on while an image tokenizer learns, by the names of the settings."""


def declare(objective: Objective, run: Run, cache: Path | None = None) -> Manifest:
    """Write the manifest of a run that is about to learn, or to learn on: then what it had before stays in it.

    `cache` is where `check` left what it found of the pictures.
    """
    known = cache or run.folder / "data.json"
    own = manifest.of_files({LEARNED: hashes(objective.pairs, known), HELD: hashes(objective.held, known)})
    had = manifest.read(run.folder)
    taken = had if had is not None else _taken_over(objective, run)
    found = manifest.joined(manifest.joined(taken, own), Manifest(pictures={}, foreign=_looking(objective)))
    with run.written():
        manifest.write(run.folder, found)
    return found


def _taken_over(objective: Objective, run: Run) -> Manifest:
    """What a run that writes its first manifest contains already."""
    if run.checkpoints():  # a release without manifests began it; the names in its settings lead nowhere
        return Manifest(pictures={}, unknown=("what it was made of before it had a manifest",))
    return _tokenizer(objective) if objective.config.model.needs_codes else manifest.EMPTY


def _tokenizer(objective: Objective) -> Manifest:
    """What the image tokenizer was made of, as its own run says."""
    if isinstance(objective.image.config, OpenAIDVAEConfig):
        return Manifest(pictures={}, foreign=(Foreign(part="the image tokenizer", name="OpenAI's dVAE"),))
    older = manifest.read(located(objective.config.tokens.image))
    return manifest.inherited(older, TOKENIZER, "the image tokenizer")


def _looking(objective: Objective) -> tuple[Foreign, ...]:
    """The frozen networks by which the image tokenizer, itself or that of a prior, was trained."""
    names = image_tokens.helpers(objective.image) if objective.image is not None else ()
    return tuple(
        Foreign(part="the loss of the image tokenizer", name=LOOKING.get(n, n), sha256=SHA256.get(n, "")) for n in names
    )
