"""Image tokenizers of other projects that are VQGANs with other names and other values: LlamaGen's, those of diffusers,
IBQ. From their files to our networks; what cannot be told apart is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from tessera.config import VQGANConfig
from tessera.config.merging import cast, read_json
from tessera.errors import CheckpointError, ConfigError
from tessera.imports.pretrained import (
    compare,
    lightning_state,
    load_weights,
    read_yaml,
    setting,
    vqgan_config,
    vqgan_of,
)
from tessera.imports.reader import Hollow, guarded, read, safetensors, tensors
from tessera.models.vqgan import VQGAN


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the user says of a file beside its name."""

    yaml: str = ""
    kind: Literal["", "vqgan", "ibq"] = ""
    pixels: int = VQGANConfig.pixels


def _network(state: Mapping[str, Tensor], path: Path, said: VQGANConfig) -> VQGAN:
    config = vqgan_config(state, path, said)
    return load_weights(lambda: VQGAN(config), state, path)


def _renamed(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...], level: str) -> dict[str, Tensor]:
    """By taming-transformers' names. `level` finds the levels of the decoder, which are numbered from the coarsest and
    are counted anew from the finest."""
    levels = len({m[1] for m in (re.match(level, name) for name in state) if m})
    found = {}
    for name, value in state.items():
        for old, new in rules:
            name = re.sub(old, new, name)
        name = re.sub(r"^decoder\.up\.(\d+)\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.", name)
        found[name] = value
    return found


# LlamaGen (Sun et al. 2024).

LLAMAGEN = (
    (r"^encoder\.conv_blocks\.", "encoder.down."),
    (r"^decoder\.conv_blocks\.", "decoder.up."),
    (r"^((?:en|de)coder\.(?:down|up)\.\d+)\.res\.", r"\1.block."),
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
)
HELD = ("ema", "model", "state_dict")
"""Where a file keeps its weights, in the order of LlamaGen's own loaders: averaged ones first."""


def llamagen_state(content: object) -> dict[object, object] | None:
    """The weights in what a .pt of LlamaGen holds; None where it is something else."""
    held = [content[name] for name in HELD if name in content] if isinstance(content, dict) else []
    state = next((s for s in held if isinstance(s, dict)), None)
    return state if state and any(str(name).startswith("encoder.conv_blocks.") for name in state) else None


def arguments(content: object) -> Mapping[str, object]:
    """The settings that a .pt of LlamaGen holds beside its weights, if any: an argparse.Namespace."""
    args = content.get("args") if isinstance(content, dict) else None
    return vars(args) if isinstance(args, Hollow) else args if isinstance(args, dict) else {}


def llamagen(state: object, settings: Mapping[str, object], path: Path, told: Told) -> VQGAN:
    """Latents and codes are unit vectors unless the settings say otherwise; the weights do not tell."""
    with guarded(path):
        plain = tensors(state, path, "the weights of LlamaGen's tokenizer")
        plain.pop("quantize.codebook_used", None)  # a counter
        unit = cast(settings.get("codebook_l2_norm", True), bool, "codebook_l2_norm")
        named = _renamed(plain, LLAMAGEN, r"decoder\.conv_blocks\.(\d+)\.")
        return _network(named, path, VQGANConfig(pixels=told.pixels, choice="unit" if unit else "nearest"))


# diffusers' VQModel, and folders in general.

DIFFUSERS = (
    (r"^encoder\.down_blocks\.", "encoder.down."),
    (r"^decoder\.up_blocks\.", "decoder.up."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.resnets\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
)
MAPS = re.compile(r"\.attn(_1|\.\d+)\.(q|k|v|proj_out)\.weight$")
"""Linear maps of attention, which are 1 x 1 convolutions here."""


def diffusers(folder: Path, about: Mapping[str, object], told: Told) -> VQGAN:
    """From a folder that `VQModel.save_pretrained` wrote. What counts pixels from 0 says `lookup_from_codebook`: the
    pipelines of aMUSEd, which set it, feed pixels 0 ... 1, all others -1 ... 1."""
    weights = _weights(folder, "diffusion_pytorch_model")
    with guarded(folder):
        if (norm := about.get("norm_type", "group")) != "group":
            raise CheckpointError(
                f"{folder} is a VQModel whose norm_type is '{norm}', as MoVQ of Kandinsky has it: a decoder that "
                "Tessera does not have. Those with norm_type 'group' can be imported."
            )
        named = _renamed(weights, DIFFUSERS, r"decoder\.up_blocks\.(\d+)\.")
        named = {k: v[:, :, None, None] if MAPS.search(k) and v.ndim == 2 else v for k, v in named.items()}
        groups = cast(about.get("norm_num_groups", 32), int, "norm_num_groups")
        from_zero = cast(about.get("lookup_from_codebook", False), bool, "lookup_from_codebook")
        return _network(named, folder, VQGANConfig(pixels=told.pixels, groups=groups, from_zero=from_zero))


def folder(path: Path, told: Told) -> VQGAN | None:
    """A tokenizer of another project in a folder with a config.json; None where that is not one's."""
    try:
        about = read_json(path / "config.json", dict[str, object])
    except ConfigError:
        return None
    if about.get("_class_name") == "VQModel":
        return diffusers(path, about, told)
    if {"codebook_size", "encoder_ch_mult"} <= about.keys():  # ModelArgs of LlamaGen, without a class
        return llamagen(_weights(path, "model"), about, path, told)
    return None


def _weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Tensors in NAME.safetensors, or in the .bin that older releases wrote."""
    file = folder / f"{name}.safetensors"
    if not file.is_file():
        other = folder / ("pytorch_model.bin" if name == "model" else f"{name}.bin")
        if not other.is_file():
            raise CheckpointError(f"{folder} has a config.json and no weights: {file.name} is not there.")
        return tensors(read(other), other, "the weights")
    return safetensors(file)


def files(path: Path) -> Iterator[Path]:
    """What of a folder holds weights, for its checksum."""
    for name in ("diffusion_pytorch_model", "model", "pytorch_model"):
        yield from (file for end in ("safetensors", "bin") if (file := path / f"{name}.{end}").is_file())


# A .ckpt of Lightning: a VQGAN of taming-transformers, or IBQ of SEED-Voken, whose weights have the same names.

CLASSES = {"src.IBQ.models.ibqgan.IBQ": "ibq"}


def lightning(content: object, path: Path, told: Told) -> VQGAN:
    """By what the .yaml says, or the user. A codebook that a linear map chooses from is a VQGAN's; of others the
    weights do not say how their codes are chosen."""
    yaml = Path(told.yaml).expanduser() if told.yaml else None
    settings = read_yaml(yaml) if yaml else None
    named = _kind_of(settings, yaml) if yaml else ""
    if named and told.kind and named != told.kind:
        raise CheckpointError(f"{yaml} describes a tokenizer of the kind {named}, and --kind says {told.kind}.")
    with guarded(path):
        held = content.get("state_dict", content) if isinstance(content, dict) else {}
        either = isinstance(held, dict) and "quantize.embedding.weight" in held
    kind = named or told.kind or ("" if either else "vqgan")
    if kind == "ibq":
        return ibq(content, path, settings, yaml, told)
    if kind == "vqgan":
        return vqgan_of(content, path, yaml, told.pixels)
    raise CheckpointError(
        f"{path} may be a VQGAN of taming-transformers or an IBQ: their weights have the same names and shapes, and "
        "their codes are chosen otherwise. Give its settings with --yaml FILE.YAML, or say --kind vqgan or --kind ibq."
    )


def _kind_of(settings: object, path: Path) -> str:
    """The kind that a .yaml names. Raises CheckpointError where it is none that can be imported."""
    model = settings.get("model") if isinstance(settings, dict) else None
    if not isinstance(model, dict) or "class_path" not in model:
        return "vqgan"  # its own form, which is compared with the weights
    named = str(model["class_path"])[:200]
    if named not in CLASSES:
        raise CheckpointError(f"{path} describes a {named}, which Tessera cannot import. Known: {', '.join(CLASSES)}.")
    return CLASSES[named]


def ibq(content: object, path: Path, settings: object, yaml: Path | None, told: Told) -> VQGAN:
    """Averaged weights, where the settings say `use_ema`, or where nothing says otherwise and they are there."""
    with guarded(path):
        state = lightning_state(content, path, lambda name: name.startswith("loss."))
        averaged = {n: v for n, v in state.items() if n.startswith("model_ema.")}
        own = {n: v for n, v in state.items() if n not in averaged}
        wanted = bool(averaged)
        if yaml:
            root = "model.init_args"
            wanted = cast(setting(settings, f"{root}.use_ema"), bool, "use_ema")
            if isinstance(settings, dict) and settings["model"]["init_args"].get("l2_normalize"):
                raise CheckpointError(f"{yaml} says l2_normalize, and Tessera has IBQ without unit vectors alone.")
        if wanted:
            own = {n: _averaged(averaged, n, path) for n in own}
        found = _network(own, path, VQGANConfig(pixels=told.pixels, choice="product"))
        if yaml:
            compare(found.config, settings, yaml, "model.init_args")
        return found


def _averaged(averaged: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """The averaged copy of a tensor: its name without dots."""
    key = f"model_ema.{name.replace('.', '')}"
    if key not in averaged:
        raise CheckpointError(f"{path} is said to hold averaged weights (use_ema), and {key} is missing.")
    return averaged[key]
