"""Published image tokenizers: taming-transformers' VQGAN and OpenAI's dVAE, from files or the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from tessera.config import VQGANConfig
from tessera.config.merging import cast
from tessera.errors import CheckpointError, ConfigError
from tessera.files.download import CACHE, TRIES, download
from tessera.imports.reader import guarded, read, state_of, tensors, told
from tessera.models.openai_dvae import OpenAIDVAE, OpenAIDVAEConfig
from tessera.models.vqgan import VQGAN

Network = TypeVar("Network", bound=nn.Module)

PUBLISHED: dict[str, dict[str, str]] = {
    "openai-dvae": {
        "encoder.pkl": "https://cdn.openai.com/dall-e/encoder.pkl",
        "decoder.pkl": "https://cdn.openai.com/dall-e/decoder.pkl",
    },
    "vqgan-imagenet-f16-1024": {
        "vqgan.1024.model.ckpt": "https://heibox.uni-heidelberg.de/f/140747ba53464f49b476/?dl=1",
        "vqgan.1024.config.yml": "https://heibox.uni-heidelberg.de/f/6ecf2af6c658432c8298/?dl=1",
    },
}
"""The tokenizers that DALLE-pytorch downloads, by name."""


def published(name: str, cache: Path = CACHE) -> OpenAIDVAE | VQGAN:
    """A tokenizer by name, downloaded once."""
    files = [download(url, cache / name / file, tries=TRIES) for file, url in PUBLISHED[name].items()]
    return openai_dvae(*files) if name == "openai-dvae" else vqgan(files[0], files[1])


def load_weights(make: Callable[[], Network], state: Mapping[str, Tensor], path: Path | str) -> Network:
    """The model with exactly these weights. Raises CheckpointError that names weights that are missing, unknown, of
    another shape, or not finite. Shapes are compared before memory is allocated: a file may claim any size."""
    shape = without_memory(make)
    own = {name: value.shape for name, value in shape.state_dict().items() if value.numel()}
    missing, extra = (
        sorted(own.keys() - state.keys()),
        sorted(state.keys() - own.keys()),
    )  # unused tables have no rows
    wrong = sorted(n for n in own.keys() & state.keys() if own[n] != state[n].shape)
    if missing or extra or wrong:
        shapes = ", ".join(f"{n} {list(state[n].shape)} instead of {list(own[n])}" for n in wrong[:3])
        raise CheckpointError(
            f"{path} does not hold the weights of a {type(shape).__name__}: missing {told(missing)} ({len(missing)}); "
            f"unknown {told(extra)} ({len(extra)}); of another shape {shapes or 'nothing'}."
        )
    check_finite(state, path)
    model = make()
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    return model.eval()


def without_memory(make: Callable[[], Network]) -> Network:
    """The model on the meta device: its tensors have shapes and no data."""
    with torch.device("meta"):
        return make()


def check_finite(state: Mapping[str, Tensor], path: Path | str) -> None:
    """Raises CheckpointError that names weights with NaN or infinity: such a model can only draw noise."""
    if broken := [name for name, value in state.items() if not value.float().isfinite().all()]:
        raise CheckpointError(
            f"{path} holds NaN or infinity in {len(broken)} of {len(state)} weights ({told(broken)}): the training "
            "that wrote it had failed. Import an earlier checkpoint."
        )


# VQGAN.


USUAL = VQGANConfig()


def vqgan(checkpoint: Path, yaml: Path | None = None) -> VQGAN:
    """From a .ckpt and, if given, its .yaml. The shapes of the weights say everything but the size of pictures."""
    return vqgan_of(read(checkpoint), checkpoint, yaml)


def vqgan_of(content: object, checkpoint: Path, yaml: Path | None = None, pixels: int = USUAL.pixels) -> VQGAN:
    """From what was read of a .ckpt."""
    with guarded(checkpoint):
        # The discriminator, the perceptual network and averaged copies serve training only.
        state = lightning_state(content, checkpoint, lambda name: name.startswith(("loss.", "model_ema.")))
        config = vqgan_config(state, checkpoint, VQGANConfig(pixels=pixels))
        if yaml:
            compare(config, read_yaml(yaml), yaml)
        return load_weights(lambda: VQGAN(config), state, checkpoint)


def lightning_state(content: object, path: Path, beside: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors of a .ckpt but for those whose names are `beside` the network."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not weights of a VQGAN.")
    own = {k: v for k, v in state.items() if isinstance(v, Tensor) and not (isinstance(k, str) and beside(k))}
    return tensors(own, path, "the weights of a VQGAN")


def vqgan_config(state: Mapping[str, Tensor], path: Path | str, said: VQGANConfig = USUAL) -> VQGANConfig:
    """A VQGAN's settings, from the names and shapes of its weights; `said` has those that are not in them. Raises
    CheckpointError for other weights, ConfigError for settings that no VQGAN has."""

    def count(pattern: str) -> int:
        return len({m[1] for m in (re.match(pattern, name) for name in state) if m})

    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in state:
            raise CheckpointError(f"{path} does not hold the weights of a VQGAN: {name} is missing.")
        found = state[name].shape
        if len(found) != dimensions or not all(found):
            raise CheckpointError(f"{path} does not hold the weights of a VQGAN: {name} has the shape {list(found)}.")
        return found

    gumbel = "quantize.embed.weight" in state
    codes, code_dim = shape("quantize.embed.weight" if gumbel else "quantize.embedding.weight", 2)
    levels = count(r"encoder\.down\.(\d+)\.")
    width = shape("encoder.conv_in.weight", 4)[0]
    each = tuple(shape(f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels))
    multiples = tuple(own // width for own in each)
    exact = all(own == width * multiple for own, multiple in zip(each, multiples, strict=True))
    config = replace(
        said,
        width=width,
        widths=multiples if exact else (1,) * levels,
        level_widths=() if exact else each,
        resblocks=count(r"encoder\.down\.0\.block\.(\d+)\."),
        attention=tuple(i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in state),
        latent=shape("post_quant_conv.weight", 4)[0],
        code_dim=code_dim,
        codes=codes,
        gumbel=gumbel,
        middle_attention="encoder.mid.attn_1.q.weight" in state,
    )
    config.check()
    return config


YAML_BYTES, YAML_DEPTH, YAML_WORD = 1 << 20, 20, 1000
"""Limits of a .yaml: its size, its depth, and the length of a word."""


def read_yaml(path: Path) -> object:
    """The settings in a .yaml. Raises CheckpointError if it cannot be read, is too large or too deep, or refers to
    parts of itself."""
    import yaml

    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        raw = path.read_bytes()
        if len(raw) > YAML_BYTES:
            raise ValueError(f"it has {len(raw):,} bytes")
        text, depth = raw.decode("utf-8"), 0
        for event in yaml.parse(text, yaml.SafeLoader):  # a flat list of events, before anything is built
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > YAML_DEPTH:
                raise ValueError(f"it nests deeper than {YAML_DEPTH} levels")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it refers to parts of itself (&, *)")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > YAML_WORD:
                raise ValueError(f"a word in it has {len(event.value):,} letters")
        return yaml.safe_load(text)
    except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} is not readable YAML of a VQGAN's settings: {str(error)[:300]}") from error


Size = Annotated[int, Ge(0), Le(2**31)]
SAID: dict[str, object] = {
    "n_embed": Size,
    "embed_dim": Size,
    "ddconfig.ch": Size,
    "ddconfig.ch_mult": tuple[Size, ...],
    "ddconfig.num_res_blocks": Size,
    "ddconfig.z_channels": Size,
}
"""Settings that both the .yaml and the shapes of the weights give."""


def compare(config: VQGANConfig, settings: object, path: Path, root: str = "model.params") -> None:
    """Raises CheckpointError if the settings at `root` are those of another network."""
    try:
        places = {name.removeprefix("ddconfig."): (f"{root}.{name}", kind) for name, kind in SAID.items()}
        said = {name: cast(setting(settings, place), kind, place) for name, (place, kind) in places.items()}
        gumbel = root == "model.params" and "GumbelVQ" in cast(setting(settings, "model.target"), str, "model.target")
    except ConfigError as error:
        raise CheckpointError(f"{path} is not a configuration of a VQGAN: {error}") from error
    found = (config.codes, config.code_dim, config.width, config.widths, config.resblocks, config.latent)
    different = [f"{k} {v} (weights: {f})" for (k, v), f in zip(said.items(), found, strict=True) if v != f]
    if gumbel != config.gumbel:
        different.append(f"target {'GumbelVQ' if gumbel else 'VQModel'} (weights: the other)")
    if different:
        raise CheckpointError(f"{path} describes another VQGAN than the weights: {', '.join(different)[:400]}.")


def setting(settings: object, place: str) -> object:
    """The value at a dotted place. Raises ConfigError that names the place if it is missing."""
    for name in place.split("."):
        if not isinstance(settings, dict) or name not in settings:
            raise ConfigError(f"{place} is missing.")
        settings = settings[name]
    return settings


# OpenAI's dVAE.


def openai_dvae(encoder: Path, decoder: Path) -> OpenAIDVAE:
    """From encoder.pkl and decoder.pkl, or from plain state dicts of them."""
    state: dict[str, Tensor] = {}
    for path, part in ((encoder, "encoder"), (decoder, "decoder")):
        found = read(path)
        with guarded(path):
            half = tensors(found if isinstance(found, dict) else state_of(found), path, "the weights of OpenAI's dVAE")
            state |= {f"{part}.{plain(name)}": value for name, value in half.items()}
    return openai_dvae_of(state, f"{encoder}, {decoder}")


def plain(name: str) -> str:
    """dall_e calls a convolution's tensors w and b."""
    name = name.removeprefix("blocks.")
    return re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", name))


def openai_dvae_of(state: Mapping[str, Tensor], path: Path | str) -> OpenAIDVAE:
    def rows(name: str) -> int:
        if name not in state or not state[name].ndim:
            raise CheckpointError(f"{path}: not the weights of OpenAI's dVAE; {name} is missing or a single number.")
        return len(state[name])

    with guarded(path):
        config = OpenAIDVAEConfig(
            hidden=rows("encoder.input.weight"),
            start=rows("decoder.input.weight"),
            blocks=len({n for n in state if re.fullmatch(r"encoder\.group_1\.block_\d+\.res_path\.conv_1\.weight", n)}),
            codes=rows("encoder.output.conv.weight"),
        )
        return load_weights(lambda: OpenAIDVAE(config), state, path)
