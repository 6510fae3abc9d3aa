"""Published image tokenizers: taming-transformers' VQGAN and OpenAI's dVAE, from files or the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tessera.data.download import CACHE, TRIES, download
from tessera.errors import CheckpointError
from tessera.imports.reader import read, state_of
from tessera.models.openai_dvae import OpenAIDVAE, OpenAIDVAEConfig
from tessera.models.vqgan import VQGAN, VQGANConfig

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
"""The tokenizers that DALLE-pytorch downloads by itself, by name."""


def published(name: str, cache: Path = CACHE) -> nn.Module:
    """A tokenizer by name, downloaded once."""
    files = [download(url, cache / name / file, tries=TRIES) for file, url in PUBLISHED[name].items()]
    return openai_dvae(*files) if name == "openai-dvae" else vqgan(*files)


def load_weights(model: nn.Module, state: Mapping[str, Tensor], path: Any) -> nn.Module:
    """Strictly: raises CheckpointError that names what is missing, left over, or of another shape."""
    own = {name: value for name, value in model.state_dict().items() if value.numel()}  # absent tables have no rows
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if missing or extra or wrong:
        shapes = ", ".join(f"{n} {list(state[n].shape)} instead of {list(own[n].shape)}" for n in sorted(wrong)[:3])
        raise CheckpointError(
            f"{path} does not hold the weights of a {type(model).__name__}: "
            f"missing {', '.join(missing[:3]) or 'nothing'} ({len(missing)}); "
            f"unknown {', '.join(extra[:3]) or 'nothing'} ({len(extra)}); "
            f"of another shape {shapes or 'nothing'}."
        )
    model.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    return model.eval()


# VQGAN.


def vqgan(checkpoint: Path, yaml: Path | None = None) -> VQGAN:
    """From a .ckpt and, where there is one, its .yaml; without it the shape of the weights says all but the size."""
    found = read(checkpoint)
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"{checkpoint} holds a {type(found).__name__}, no weights of a VQGAN.")
    # The discriminator, the perceptual network and averaged copies serve training only.
    state = {k: v for k, v in state.items() if not k.startswith(("loss.", "model_ema.")) and isinstance(v, Tensor)}
    config = vqgan_config(state, checkpoint)
    if yaml:
        _compare(config, read_yaml(yaml), yaml)
    return load_weights(VQGAN(config), state, checkpoint)  # type: ignore[return-value]


def vqgan_config(state: Mapping[str, Tensor], path: Any, pixels: int = 256) -> VQGANConfig:
    """What the names and shapes of a VQGAN's weights tell. Raises CheckpointError where they are not one's."""

    def count(pattern: str) -> int:
        return len({m[1] for m in (re.match(pattern, name) for name in state) if m})

    try:
        gumbel = "quantize.embed.weight" in state
        table = state["quantize.embed.weight" if gumbel else "quantize.embedding.weight"]
        levels = count(r"encoder\.down\.(\d+)\.")
        width = len(state["encoder.conv_in.weight"])
        widths = [len(state[f"encoder.down.{i}.block.0.conv1.weight"]) for i in range(levels)]
        return VQGANConfig(
            pixels=pixels,
            width=width,
            widths=tuple(w // width for w in widths),
            resblocks=count(r"encoder\.down\.0\.block\.(\d+)\."),
            attention=tuple(i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in state),
            latent=state["post_quant_conv.weight"].shape[0],
            code_dim=table.shape[1],
            codes=table.shape[0],
            gumbel=gumbel,
        )
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path} does not hold the weights of a VQGAN: {error} is missing.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a .yaml. Raises CheckpointError where it cannot be read."""
    import yaml

    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} is no readable YAML: {error}") from error


def _compare(config: VQGANConfig, settings: Any, path: Path) -> None:
    """Raises CheckpointError where the settings are those of another network."""
    try:
        model = settings["model"]
        params, shape = model["params"], model["params"]["ddconfig"]
        said = {
            "target": "GumbelVQ" in model["target"],
            "n_embed": params["n_embed"],
            "embed_dim": params["embed_dim"],
            "ch": shape["ch"],
            "ch_mult": tuple(shape["ch_mult"]),
            "num_res_blocks": shape["num_res_blocks"],
            "z_channels": shape["z_channels"],
        }
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no configuration of a VQGAN: {error} is missing.") from error
    found = (config.gumbel, config.codes, config.code_dim, config.width, config.widths, config.resblocks, config.latent)
    different = [f"{k} {v} (weights: {f})" for (k, v), f in zip(said.items(), found, strict=True) if v != f]
    if different:
        raise CheckpointError(f"{path} describes another VQGAN than the weights: {', '.join(different)}.")


# OpenAI's dVAE.


def openai_dvae(encoder: Path, decoder: Path) -> OpenAIDVAE:
    """From encoder.pkl and decoder.pkl, or from plain state dicts of them."""
    states = []
    for path, part in ((encoder, "encoder"), (decoder, "decoder")):
        found = read(path)
        state = found if isinstance(found, dict) else state_of(found)
        states.append({f"{part}.{_plain(name)}": value for name, value in state.items()})
    return openai_dvae_of(states[0] | states[1], f"{encoder}, {decoder}")


def _plain(name: str) -> str:
    """dall_e calls a convolution's tensors w and b."""
    name = name.removeprefix("blocks.")
    return re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", name))


def openai_dvae_of(state: Mapping[str, Tensor], path: Any) -> OpenAIDVAE:
    try:
        config = OpenAIDVAEConfig(
            hidden=len(state["encoder.input.weight"]),
            start=len(state["decoder.input.weight"]),
            blocks=len({n for n in state if re.fullmatch(r"encoder\.group_1\.block_\d+\.res_path\.conv_1\.weight", n)}),
            codes=len(state["encoder.output.conv.weight"]),
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: not the weights of OpenAI's dVAE; {error} is missing.") from error
    return load_weights(OpenAIDVAE(config), state, path)  # type: ignore[return-value]
