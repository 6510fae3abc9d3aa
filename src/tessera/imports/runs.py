"""Foreign checkpoints -> run folders to draw from and train on, and runs -> foreign checkpoints."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from tessera.config import DataConfig, MachineConfig, OptimConfig, TokensConfig, TrackConfig, TrainConfig
from tessera.errors import CheckpointError, ConfigError
from tessera.files.atomic import whole
from tessera.files.claim import claim
from tessera.files.download import checksum
from tessera.files.own import MARKER
from tessera.hub.pull import located
from tessera.imports import dalle_pytorch, deepspeed_folder, pretrained, tokenizers
from tessera.imports.dalle_pytorch import Imported
from tessera.imports.reader import Hollow, read
from tessera.imports.tokenizers import Told
from tessera.models import saved
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.models.pyramid import Pyramid
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN
from tessera.store import manifest
from tessera.store.manifest import BEFORE, Foreign, Manifest
from tessera.store.position import Halvings, Position, State
from tessera.store.run import Run, checkpoint_of
from tessera.store.settings import is_run
from tessera.store.state import write_state
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.tokens.image import Frozen
from tessera.tokens.text import CLIP_VOCAB, Numbers, TextTokenizer

MORE_STEPS = 10_000
"""Steps for which an imported run goes on training; --steps changes it."""
VQGAN_RATE = 1e-4
"""Learning rate of an imported VQGAN: about twice that of taming-transformers, whose batch has an adversary."""
ALONE = Told()
"""Nothing is said of a file beside its name."""
TOKENIZER = "an image tokenizer, which a prior reads with --tokens.image"


def bring_in(
    source: str, out: Path, text: str = "", told: Told = ALONE, decoder: str = "", version: str = "",
    optimizer: bool = True,
) -> list[str]:  # fmt: skip
    """Import a file, a folder of another program, a published tokenizer by name, or a run of this program whose image
    tokenizer is to learn other pictures. Returns notices for the user.

    Nothing is written before everything has been read. Raises CheckpointError if the source cannot be understood,
    ConfigError if `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or set(os.listdir(out)) - {MARKER}):
        raise ConfigError(f"{out} is a file or a folder that is not empty. Name a new folder.")
    found = _read(source, told, decoder, version)
    if isinstance(found.model, TextToImage | CLIP | DiscreteVAE | Pyramid | VQGAN):
        tokenizer = _text_tokenizer(text, found)
        claim(out, "run")
        _write_run(found, source, out, tokenizer, optimizer)
        kind = {TextToImage: "a prior with its image tokenizer", CLIP: "a judge"}.get(type(found.model), TOKENIZER)
        found.notices.insert(0, f"{out}: {kind}, {saved.parameters(found.model):,} parameters.")
        found.notices.append(f"It goes on learning, from your pictures, with: tessera train {out} --data.path PICTURES")
    else:
        claim(out, "model")
        _write(lambda: saved.write(out, found.model), out)
        found.notices.insert(0, f"{out}: an image tokenizer. Train a prior on it with --tokens.image {out}.")
    _write(lambda: manifest.write(out, _made_of(source)), out)
    return found.notices


def _made_of(source: str) -> Manifest:
    """What a manifest says of weights that came from elsewhere."""
    path = located(source)
    weights = next(tokenizers.files(path), path)
    if weights == path and (path / "config.json").is_file():
        return manifest.inherited(manifest.read(path), BEFORE, "the network that it began from")
    digest = checksum(weights) if weights.is_file() else ""
    return Manifest(pictures={}, foreign=(Foreign(part="where it began", name=path.name, sha256=digest),))


def _write(write: Callable[[], None], out: Path) -> None:
    try:
        write()
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"What was imported cannot be written to {out}: {error}") from error


def _read(source: str, told: Told, decoder: str, version: str) -> Imported:
    by_name = source in pretrained.PUBLISHED
    path = Path(source) if by_name else located(source)
    content = None if by_name or path.is_dir() else read(path)
    if tokenizer := _tokenizer(path, content, told):
        return Imported(tokenizer, rate=VQGAN_RATE)
    if told != ALONE:
        raise ConfigError(
            f"{source} is neither a VQGAN nor a relative of one; --yaml, --kind and --pixels are said of those alone. "
            "Leave them out."
        )
    if by_name:
        return Imported(pretrained.published(source), rate=VQGAN_RATE)
    if (path / "config.json").is_file():
        return _own(path)
    if path.is_dir():
        content, notices = deepspeed_folder.read_folder(path)
        found = dalle_pytorch.understood(content, path, version)
        found.notices += notices
        return found
    if isinstance(content, Hollow) or (
        isinstance(content, dict) and any(str(k).startswith("blocks.") for k in content)
    ):
        other = Path(decoder).expanduser() if decoder else path.with_name(path.name.replace("encoder", "decoder"))
        if other == path or not other.is_file():
            raise CheckpointError(f"{path} is one half of OpenAI's dVAE. Name the other with --decoder DECODER.PKL.")
        return Imported(pretrained.openai_dvae(path, other))
    return dalle_pytorch.understood(content, path, version)


def _tokenizer(path: Path, content: object, told: Told) -> VQGAN | None:
    """A VQGAN or a relative in a folder, or in what was read of a file; None where there is something else."""
    if path.is_dir():
        return tokenizers.folder(path, told)
    if state := tokenizers.llamagen_state(content):
        return tokenizers.llamagen(state, tokenizers.arguments(content), path, told)
    is_ckpt = isinstance(content, dict) and "state_dict" in content
    return tokenizers.lightning(content, path, told) if is_ckpt else None


def _own(path: Path) -> Imported:
    """An image tokenizer of this program, and how it was trained. Raises ConfigError for another kind of model."""
    model = saved.read(checkpoint_of(path))
    if not isinstance(model, DiscreteVAE | Pyramid | VQGAN):
        raise ConfigError(
            f"{path} is a Tessera run already: draw from it, train on it, or use it with --tokens.image. Image "
            f"tokenizers alone begin a run of their own, to learn other pictures; this is a {type(model).__name__}."
        )
    return Imported(model, settings=Run(path).config() if is_run(path) else None)


def _text_tokenizer(name: str, found: Imported) -> TextTokenizer | None:
    if not isinstance(found.model, TextToImage | CLIP):
        return None
    vocab = found.model.config.text_vocab
    if not name and vocab == CLIP_VOCAB:
        try:
            return text_tokens.find("clip")
        except ConfigError as error:
            found.notices.append(f"It reads CLIP's 49,408 tokens. {error}")
    if not name:
        found.notices.append(
            f"The file holds no text tokenizer: prompts are token ids below {vocab}. Import with --text to write words."
        )
        return Numbers(vocab)
    tokenizer = text_tokens.find(name)
    if tokenizer.vocab > vocab:
        raise ConfigError(f"The tokenizer '{name}' has {tokenizer.vocab} tokens, the model only {vocab}.")
    if tokenizer.vocab < vocab:
        found.notices.append(f"The tokenizer has {tokenizer.vocab} tokens, the model {vocab}: the rest are not used.")
    return tokenizer


def _write_run(found: Imported, source: str, out: Path, text: TextTokenizer | None, optimizer: bool) -> None:
    config = _train_config(found, source, out)
    run = Run(out)
    run.open(config)

    def write(folder: Path) -> None:
        saved.write(folder, found.model)
        if found.image is not None:
            saved.write(folder / "image_tokenizer", found.image)
        if text is not None:
            text.save(folder / "text_tokenizer")
        step = torch.tensor(float(found.step))
        moments = {n: {"step": step.clone(), **m} for n, m in found.moments.items()} if optimizer else {}
        write_state(folder / "optimizer", {"moments": moments, "scaler": {}})
        write_state(folder / "state", asdict(State(Halvings(1.0, math.inf, 0), Position(step=found.step))))

    run.save(found.step, write, keep=1)


def _train_config(found: Imported, source: str, out: Path) -> TrainConfig:
    """How it was trained here; else as train_dalle.py and train_vae.py trained: Adam, no decay, no warm-up."""
    if known := found.settings:
        fresh = {"data": DataConfig(), "machine": MachineConfig(), "track": TrackConfig()}  # another user's, perhaps
        return replace(known, out=str(out), model=found.model.config, **fresh)
    is_prior = isinstance(found.model, TextToImage)
    return TrainConfig(
        out=str(out),
        steps=found.step + MORE_STEPS,
        model=found.model.config,  # type: ignore[arg-type]
        tokens=TokensConfig(image=source if is_prior else "", text="imported"),
        optim=OptimConfig(
            name="adam", lr=found.rate, betas=(0.9, 0.999), schedule="constant", warmup=0, clip=0.5, batch=4,
            weight_decay=0.0, drop_condition=0.0,
        ),
    )  # fmt: skip


# Out again.


def send_out(run: str, file: Path, form: str) -> list[str]:
    """Write a run's best checkpoint in another program's format. Raises ConfigError if it has no such model."""
    if form not in FORMATS:
        raise ConfigError(f"The format '{form}' is unknown; known: {', '.join(FORMATS)}.")
    if file.exists():
        raise ConfigError(f"{file} exists already; name a new file.")
    checkpoint = checkpoint_of(run)
    model = saved.read(checkpoint)
    content = FORMATS[form](model, checkpoint)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as fresh:
            torch.save(content, fresh)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
        raise ConfigError(f"{file} cannot be written: {error}") from error
    return [f"{file}: {checkpoint} as DALLE-pytorch {content.get('version', dalle_pytorch.VERSION)} saves it."]


def _as_dalle_pytorch(model: nn.Module, checkpoint: Path) -> dict[str, object]:
    if isinstance(model, TextToImage):
        tokenizer = image_tokens.load(checkpoint / "image_tokenizer")
        assert isinstance(tokenizer, Frozen)
        return dalle_pytorch.exported(model, tokenizer.model)
    if isinstance(model, DiscreteVAE):
        state = dalle_pytorch.exported_tokenizer(model)[2]
        return {"hparams": dalle_pytorch.dvae_hparams(model.config), "weights": state}
    if isinstance(model, CLIP):
        state = dalle_pytorch.foreign(model.state_dict(), dalle_pytorch.clip_names(model))
        return {"hparams": dalle_pytorch.clip_hparams(model.config), "weights": state}
    raise ConfigError(f"{checkpoint} holds a {type(model).__name__}, which DALLE-pytorch reads from its own files.")


FORMATS: dict[str, Callable[[nn.Module, Path], dict[str, object]]] = {"dalle-pytorch": _as_dalle_pytorch}
