"""The constructor options of DALLE-pytorch's classes -> this house's settings, and back. It knows no weights."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Le

from tessera.config import CLIPConfig, DVAEConfig, Gumbel, TextToImageConfig, TransformerConfig, kind_of
from tessera.config.merging import cast, nearest
from tessera.errors import ConfigError
from tessera.imports.reader import told
from tessera.nn.rotary import ROUND_DALLE1

VERSION = "1.6.6"
"""The release whose format is written."""

DALLE_OPTIONS: dict[str, Any] = {
    "num_text_tokens": 10000, "text_seq_len": 256, "dim": 512, "depth": 2, "heads": 8, "dim_head": 64,
    "reversible": False, "loss_img_weight": 7.0, "attn_types": ("full",), "ff_dropout": 0.0, "attn_dropout": 0.0,
    "stable": False, "shift_tokens": None, "rotary_emb": None, "sandwich_norm": None, "shared_attn_ids": None,
    "shared_ff_ids": None, "share_input_output_emb": False, "optimize_for_inference": False, "sparse_attn": False,
}  # fmt: skip
"""Defaults of options that a file leaves out. None: decided by the names of its weights."""

DVAE_OPTIONS: dict[str, Any] = {
    "image_size": 256, "num_layers": 3, "num_tokens": 512, "codebook_dim": 512, "hidden_dim": 64, "channels": 3,
    "num_resnet_blocks": 0, "smooth_l1_loss": False, "temperature": 0.9, "straight_through": False, "reinmax": False,
    "kl_div_loss_weight": 0.0, "normalization": ((0.5, 0.5, 0.5, 0.0), (0.5, 0.5, 0.5, 1.0)),
}  # fmt: skip

CLIP_OPTIONS: dict[str, Any] = {
    "dim_text": 512, "dim_image": 512, "dim_latent": 512, "num_text_tokens": 10000, "text_enc_depth": 6,
    "text_seq_len": 256, "text_heads": 8, "num_visual_tokens": 512, "visual_enc_depth": 6, "visual_heads": 8,
    "visual_image_size": 256, "visual_patch_size": 32, "channels": 3,
}  # fmt: skip


MOST = 2**24
"""Largest number that may describe a model."""
MOST_OF = {
    "depth": 1024, "num_layers": 16, "num_resnet_blocks": 1024, "text_enc_depth": 1024, "visual_enc_depth": 1024,
    "text_seq_len": 2**14, "image_size": 2**14, "visual_image_size": 2**14,
}  # fmt: skip
"""Smaller limits, for numbers by which modules and tables are made before any weight is read."""
POSITIONS = 20_000
"""The longest sequence. The tables of a model grow with its square."""


def options(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options of a class, with its defaults. Raises ConfigError for an unknown option, and for a number that is not
    a number or out of range."""
    found = dict(known)
    for name, value in given.items():
        if name not in known:
            near = nearest(told([name]), known) or "."
            raise ConfigError(f"{what} has an option '{told([name])}' that no release had{near}")
        if type(known[name]) is int:
            value = operator.index(value) if hasattr(value, "__index__") else value
            value = cast(value, Annotated[int, Ge(0), Le(MOST_OF.get(name, MOST))], name)
        elif type(known[name]) is float:
            value = cast(float(value) if hasattr(value, "__float__") else value, float, name)
        found[name] = value
    return found


def _words(value: Any, name: str) -> tuple[str, ...]:
    """Names or numbers, as texts."""
    return tuple(str(cast(v, int | str, name)) for v in cast(value or (), tuple[Any, ...], name))


def dalle_config(given: Mapping[str, Any], vocab: int, grid: int, version: str = VERSION) -> TextToImageConfig:
    """The prior that DALLE(**given) builds over an image tokenizer with `vocab` codes on a `grid`."""
    o = options(given, DALLE_OPTIONS, "The DALLE")
    types = o["attn_types"] or ("full",)
    types = _words(types.split(",") if isinstance(types, str) else types, "attn_types")
    if grid * grid + o["text_seq_len"] > POSITIONS:
        raise ConfigError(f"A sequence of {o['text_seq_len']} text tokens and {grid} x {grid} codes is too long.")
    if "mlp" in types:
        raise ConfigError("attn_types holds 'mlp' (gMLP), which releases 0.13 to 1.3 had and Tessera does not.")
    # Before 1.5 the window of conv_like was centred on the query.
    patterns: Any = tuple("conv_centred" if t == "conv_like" and older(version, 1, 5) else t for t in types)
    transformer = TransformerConfig(
        dim=o["dim"], depth=o["depth"], heads=o["heads"], head_dim=o["dim_head"], patterns=patterns,
        positions="axial" if o["rotary_emb"] is False else "rotary_dalle1", norm="layer", qk_norm=False, ff="geglu",
        ff_mult=4.0, bias=True, shift=o["shift_tokens"] is not False, sandwich=bool(o["sandwich_norm"]),
        layer_scale=True, reversible=bool(o["reversible"]), stable=bool(o["stable"]), zero_init=False,
        attn_dropout=float(o["attn_dropout"]), ff_dropout=float(o["ff_dropout"]),
        shared_attn=_words(o["shared_attn_ids"], "shared_attn_ids"),
        shared_ff=_words(o["shared_ff_ids"], "shared_ff_ids"),
    )  # fmt: skip
    config = TextToImageConfig(
        text_vocab=o["num_text_tokens"], text_len=o["text_seq_len"], image_vocab=vocab, grid=grid,
        image_weight=float(o["loss_img_weight"]), learn_padding=True, tied=bool(o["share_input_output_emb"]),
        transformer=transformer,
    )  # fmt: skip
    config.check()
    return config


def older(version: str, *than: int) -> bool:
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
    return numbers < than


def dvae_config(given: Mapping[str, Any]) -> DVAEConfig:
    """The image tokenizer that DiscreteVAE(**given) builds."""
    o = options(given, DVAE_OPTIONS, "The DiscreteVAE")
    mean, std = o["normalization"] or ((0.0,) * 4, (1.0,) * 4)
    quantizer = Gumbel(
        codes=o["num_tokens"], code_dim=o["codebook_dim"], kl_weight=float(o["kl_div_loss_weight"]),
        temperature=float(o["temperature"]), temperature_end=min(0.5, float(o["temperature"])),
        straight_through=bool(o["straight_through"]), reinmax=bool(o["reinmax"] and o["straight_through"]),
    )  # fmt: skip
    config = DVAEConfig(
        pixels=o["image_size"], channels=o["channels"], quantizer=quantizer, layers=o["num_layers"],
        resblocks=o["num_resnet_blocks"], hidden=o["hidden_dim"],
        reconstruction="smooth_l1" if o["smooth_l1_loss"] else "mse",
        mean=tuple(map(float, mean)), std=tuple(map(float, std)),
    )  # fmt: skip
    config.check()
    return config


def clip_config(given: Mapping[str, Any]) -> CLIPConfig:
    """The judge that CLIP(**given) builds."""
    o = options(given, CLIP_OPTIONS, "The CLIP")
    config = CLIPConfig(
        text_vocab=o["num_text_tokens"], text_len=o["text_seq_len"], pixels=o["visual_image_size"],
        patch=o["visual_patch_size"], channels=o["channels"], dim_text=o["dim_text"], dim_image=o["dim_image"],
        dim_latent=o["dim_latent"], text_depth=o["text_enc_depth"], image_depth=o["visual_enc_depth"],
        text_heads=o["text_heads"], image_heads=o["visual_heads"],
    )  # fmt: skip
    config.check()
    return config


# Settings -> options.


def dalle_hparams(c: TextToImageConfig) -> dict[str, object]:
    """Raises ConfigError where DALLE-pytorch has no such model."""
    t = c.transformer
    wanted = {"norm": "layer", "qk_norm": False, "ff": "geglu", "ff_mult": 4.0, "bias": True, "layer_scale": True}
    foreign_to = [f"{k} {getattr(t, k)} (only {v})" for k, v in wanted.items() if getattr(t, k) != v]
    if t.positions != "axial" and t.positions not in ROUND_DALLE1:
        foreign_to.append(f"positions {t.positions} (only axial, rotary_dalle1)")
    if "conv_like" in t.patterns and "conv_centred" in t.patterns:
        foreign_to.append("conv_like beside conv_centred (releases had one of them)")
    if foreign_to:
        raise ConfigError(
            f"DALLE-pytorch cannot express this model: {'; '.join(foreign_to)}. Train one from preset t2i-dalle1-256."
        )
    return {
        "num_text_tokens": c.text_vocab, "text_seq_len": c.text_len, "dim": t.dim, "depth": t.depth, "heads": t.heads,
        "dim_head": t.head_dim, "reversible": t.reversible, "loss_img_weight": c.image_weight,
        "attn_types": tuple("conv_like" if p == "conv_centred" else p for p in t.patterns),
        "ff_dropout": t.ff_dropout, "attn_dropout": t.attn_dropout, "stable": t.stable, "shift_tokens": t.shift,
        "rotary_emb": t.positions in ROUND_DALLE1, "shared_attn_ids": t.shared_attn or None,
        "shared_ff_ids": t.shared_ff or None, "share_input_output_emb": c.tied,
        **({"sandwich_norm": True} if t.sandwich else {}),
    }  # fmt: skip


def dvae_hparams(c: DVAEConfig) -> dict[str, object]:
    """Raises ConfigError where DALLE-pytorch has no such image tokenizer."""
    q = c.quantizer
    if not isinstance(q, Gumbel):
        raise ConfigError(f"DALLE-pytorch's DiscreteVAE has the quantizer gumbel; this one has {kind_of(q)}.")
    hparams: dict[str, object] = {
        "image_size": c.pixels, "num_layers": c.layers, "num_tokens": q.codes, "channels": c.channels,
        "codebook_dim": q.code_dim, "hidden_dim": c.hidden, "num_resnet_blocks": c.resblocks,
        "smooth_l1_loss": c.reconstruction == "smooth_l1", "temperature": q.temperature,
        "straight_through": q.straight_through, "kl_div_loss_weight": q.kl_weight, "normalization": (c.mean, c.std),
    }  # fmt: skip
    return hparams | ({"reinmax": True} if q.reinmax else {})


def clip_hparams(c: CLIPConfig) -> dict[str, object]:
    """Raises ConfigError where DALLE-pytorch has no such judge."""
    if c.head_dim != 64:
        raise ConfigError(f"DALLE-pytorch's CLIP has heads of width 64, this one of {c.head_dim}.")
    return {
        "dim_text": c.dim_text, "dim_image": c.dim_image, "dim_latent": c.dim_latent, "num_text_tokens": c.text_vocab,
        "text_enc_depth": c.text_depth, "text_seq_len": c.text_len, "text_heads": c.text_heads,
        "visual_enc_depth": c.image_depth, "visual_heads": c.image_heads, "visual_image_size": c.pixels,
        "visual_patch_size": c.patch, "channels": c.channels,
    }  # fmt: skip
