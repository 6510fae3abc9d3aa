"""DALLE-pytorch's checkpoints, of every release from 0.9 to 1.6, as models of this house, and back."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from tessera.config import CLIPConfig, DVAEConfig, Gumbel, TextToImageConfig, TransformerConfig, kind_of
from tessera.config.merging import cast, nearest
from tessera.errors import CheckpointError, ConfigError
from tessera.imports import pretrained
from tessera.imports.pretrained import load_weights, without_memory
from tessera.imports.reader import guarded, read, tensors, told
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.models.openai_dvae import OpenAIDVAE
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN
from tessera.nn.rotary import ROUND_DALLE1, angles_dalle1

VERSION = "1.6.6"
"""The release whose format is written."""

# Options -> settings.

DALLE_OPTIONS: dict[str, Any] = {
    "num_text_tokens": 10000, "text_seq_len": 256, "dim": 512, "depth": 2, "heads": 8, "dim_head": 64,
    "reversible": False, "loss_img_weight": 7.0, "attn_types": ("full",), "ff_dropout": 0.0, "attn_dropout": 0.0,
    "stable": False, "shift_tokens": None, "rotary_emb": None, "sandwich_norm": None, "shared_attn_ids": None,
    "shared_ff_ids": None, "share_input_output_emb": False, "optimize_for_inference": False, "sparse_attn": False,
}  # fmt: skip
"""What a file leaves out. None: the names of its weights tell."""

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
"""No number that describes a model is larger."""
MOST_OF = {
    "depth": 1024, "num_layers": 16, "num_resnet_blocks": 1024, "text_enc_depth": 1024, "visual_enc_depth": 1024,
    "text_seq_len": 2**14, "image_size": 2**14, "visual_image_size": 2**14,
}  # fmt: skip
"""What modules and tables are made by, before any weight is looked at."""
POSITIONS = 20_000
"""The longest sequence; tables of a model grow with its square."""


def options(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options of a class with its defaults under them. Raises ConfigError for an unknown one, for a number
    that is not one, or that no model has."""
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
    """Names or numbers, as words."""
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


# Names of weights. One table per network, as (DALLE-pytorch's, ours, shape there or () for the same shape).

Names = list[tuple[str, str, tuple[int, ...]]]

SPLIT = ("to_logits.1.weight", "to_logits.1.bias")
"""Theirs are joint over text and codes; ours are two heads."""


def transformer_names(c: TransformerConfig, theirs: str, ours: str) -> Names:
    """In the order in which 1.6.6 registers them."""
    attention, feed = ("fn.fn.fn.fn.fn", "fn.fn.fn.fn") if c.shift else ("fn.fn.fn", "fn.fn")
    maps = {
        0: [(f"{attention}.to_qkv.weight", "fn.qkv.weight")]
        + [(f"{attention}.to_out.0.{kind}", f"fn.out.{kind}") for kind in ("weight", "bias")],
        1: [(f"{feed}.net.0.{kind}", f"fn.up.{kind}") for kind in ("weight", "bias")]
        + [(f"{feed}.net.3.{kind}", f"fn.out.{kind}") for kind in ("weight", "bias")],
    }
    norms = ["norm", "norm_out"] if c.sandwich else ["norm"]
    names: Names = []
    for i in range(c.depth):
        for j, letter in ((0, "f"), (1, "g")):
            there = f"{theirs}.layers.blocks.{i}.{letter}.net" if c.reversible else f"{theirs}.layers.layers.{i}.{j}"
            here = f"{ours}.pairs.{i}.{j}"
            names.append((f"{there}.scale", f"{here}.scale.scale", (1, 1, c.dim)))
            names += [(f"{there}.fn.{n}.{k}", f"{here}.{n}.{k}", ()) for n in norms for k in ("weight", "bias")]
            names += [(f"{there}.{a}", f"{here}.{b}", ()) for a, b in maps[j]]
    return names


def dalle_names(c: TextToImageConfig) -> Names:
    """All of a DALLE's but its image tokenizer's; those in SPLIT stand under one name on both sides."""
    t = c.transformer
    names: Names = []
    if t.positions == "axial":
        names += [
            ("text_pos_emb.weight", "text_position", ()),
            ("image_pos_emb.weights.0", "row_position", (1, c.grid, 1, t.dim)),
            ("image_pos_emb.weights.1", "col_position", (1, 1, c.grid, t.dim)),
        ]
    names += transformer_names(t, "transformer", "transformer")
    names += [("to_logits.0.weight", "norm.weight", ()), ("to_logits.0.bias", "norm.bias", ())]
    names += [(split, split, ()) for split in SPLIT]
    if not c.tied:
        names += [("text_emb.weight", "text_embedding.weight", ()), ("image_emb.weight", "image_embedding.weight", ())]
    return names


def clip_names(model: CLIP) -> Names:
    c = model.text.config, model.image.config
    return [
        ("temperature", "temperature", ()),
        ("text_emb.weight", "text_embedding.weight", ()),
        ("text_pos_emb.weight", "text_position.weight", ()),
        *transformer_names(c[0], "text_transformer", "text"),
        ("to_text_latent.weight", "text_latent.weight", ()),
        ("to_visual_embedding.weight", "patch_embedding.weight", ()),
        ("to_visual_embedding.bias", "patch_embedding.bias", ()),
        ("visual_pos_emb.weight", "patch_position.weight", ()),
        *transformer_names(c[1], "visual_transformer", "image"),
        ("to_visual_latent.weight", "image_latent.weight", ()),
    ]


def dvae_names(model: DiscreteVAE) -> Names:
    own = [n for n in model.state_dict() if not n.startswith("quantize.")]
    return [("codebook.weight", "quantize.codebook.weight", ()), *((n, n, ()) for n in own)]


def canonical(name: str) -> str:
    """The same for a weight in every release: how many `.fn` wrap a layer changed with version, shift and pattern."""
    name = re.sub(r"layers\.blocks\.(\d+)\.f\.net", r"layers.layers.\1.0", name)
    name = re.sub(r"layers\.blocks\.(\d+)\.g\.net", r"layers.layers.\1.1", name)
    name = re.sub(r"(\.fn)+\.(to_qkv|to_out|net)\.", r".fn.\2.", name)
    return re.sub(r"image_pos_emb\.weights_(\d)", r"image_pos_emb.weights.\1", name)


def translated(weights: Mapping[str, Tensor], names: Names, texts: int) -> dict[str, Tensor]:
    """Tensors under our names and shapes; SPLIT ones are cut after `texts` rows. Unknown ones keep their name."""
    table = {canonical(theirs): ours for theirs, ours, _ in names}
    shapes = {ours: shape for _, ours, shape in names}
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        ours = table.get(canonical(name), name)
        if ours in SPLIT:
            kind = ours.rpartition(".")[2]
            found[f"text_head.{kind}"], found[f"image_head.{kind}"] = value[:texts], value[texts:]
        elif ours == "temperature":
            found[ours] = value.reshape(1)  # a scalar there
        else:
            leading = {0: 0, 3: 2, 4: 1}[len(shapes.get(ours, ()))]  # [1, 1, D] -> [D]; [1, g, 1, D] -> [g, 1, D]
            found[ours] = value.reshape(value.shape[leading:])
    return found


def foreign(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """The inverse of `translated`."""
    found = {}
    for theirs, ours, shape in names:
        if ours in SPLIT:
            kind = ours.rpartition(".")[2]
            found[theirs] = torch.cat((state[f"text_head.{kind}"], state[f"image_head.{kind}"]))
        else:
            found[theirs] = state[ours].reshape(() if ours == "temperature" else shape or state[ours].shape)
    return found


# Reading.


@dataclass
class Imported:
    """What a file held."""

    model: nn.Module
    image: nn.Module | None = None
    """The image tokenizer of a DALLE."""
    step: int = 0
    rate: float = 3e-4
    moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Adam's state by our parameter names; empty where the file has none."""
    notices: list[str] = field(default_factory=list)


def load(path: Path, version: str = "") -> Imported:
    """A DALLE, DiscreteVAE or CLIP checkpoint. Raises CheckpointError where it is none, damaged, or incomplete."""
    return understood(read(path), path, version)


def understood(content: Any, path: Any, version: str = "") -> Imported:
    with guarded(path):
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, not the dict that DALLE-pytorch saves.")
        hparams, weights = content.get("hparams"), content.get("weights")
        if not isinstance(hparams, dict) or weights is None:
            raise CheckpointError(
                f"{path} is no checkpoint of DALLE-pytorch: it needs 'hparams' and 'weights' and holds "
                f"{told(content, 6)}."
            )
        if isinstance(weights, str):
            raise CheckpointError(
                f"{path} holds no weights but a note of DeepSpeed: '{weights[:200]}'. Name its folder instead."
            )
        weights = tensors(weights, path, "its 'weights'")
        if "text_seq_len" in hparams and "dim" in hparams:
            return _dalle(content, dict(hparams), weights, path, version or _version(content))
        if "visual_enc_depth" in hparams or "visual_patch_size" in hparams or "to_visual_latent.weight" in weights:
            config = clip_config(hparams)
            names = clip_names(without_memory(lambda: CLIP(config)))  # type: ignore[arg-type]
            return Imported(load_weights(lambda: CLIP(config), translated(weights, names, 0), path))
        if "image_size" in hparams or "codebook.weight" in weights:
            return Imported(_dvae(hparams, weights, path))
        raise CheckpointError(f"{path}: its hparams ({told(hparams, 6)}) are of no model that is known here.")


def _version(content: Mapping[str, Any]) -> str:
    """The release that wrote a file; the oldest ones did not say it."""
    return cast(content.get("version") or "0.14", str, "version")[:40]


def _dvae(hparams: Mapping[str, Any], weights: Mapping[str, Tensor], path: Any) -> DiscreteVAE:
    config = dvae_config(hparams)
    names = dvae_names(without_memory(lambda: DiscreteVAE(config)))  # type: ignore[arg-type]
    return load_weights(lambda: DiscreteVAE(config), translated(weights, names, 0), path)  # type: ignore[return-value]


def _dalle(content: dict, hparams: dict, weights: Mapping[str, Tensor], path: Any, version: str) -> Imported:
    vae_state = {n.removeprefix("vae."): v for n, v in weights.items() if n.startswith("vae.")}
    image = _image_tokenizer(content.get("vae_params"), vae_state, path)
    own = {n: v for n, v in weights.items() if not n.startswith("vae.") and n != "logits_mask"}
    table = own.pop("transformer.pos_emb", None)
    hparams = {**_told_by_names(own, table), **{k: v for k, v in hparams.items() if v is not None}}
    config = dalle_config(hparams, image.config.vocab, image.config.grid, version)
    if table is not None and table.dtype == torch.float16 and config.transformer.positions == "rotary_dalle1":
        rounded = dataclasses.replace(config.transformer, positions="rotary_dalle1_half")
        config = dataclasses.replace(config, transformer=rounded)
    names = dalle_names(config)
    own = {n: v for n, v in own.items() if not (config.tied and re.match(r"(text|image)_emb\.", n))}
    if unused := [n for n in own if re.search(r"attn_fn|master_layout", n)]:
        own = {n: v for n, v in own.items() if n not in unused}
    state = translated(own, names, config.text_vocab + config.text_len)
    if config.tied:
        state["text_embedding.weight"], state["image_embedding.weight"] = (
            state.get(f"{kind}_head.weight", torch.zeros(0)) for kind in ("text", "image")
        )
    model: Any = load_weights(lambda: TextToImage(config), state, path)
    _check_table(table, model, path)
    found = Imported(model, image)
    if "sparse" in config.transformer.patterns:
        found.notices.append("The table of 'sparse' attention was random at each start of the original; ours is fixed.")
    if content.get("opt_state"):
        _moments(found, content["opt_state"], own, names, model, path)
    if not content.get("version") and "conv_centred" in config.transformer.patterns:
        found.notices.append("The file names no version; conv_like is read as releases before 1.5 understood it.")
    return found


def _told_by_names(weights: Mapping[str, Tensor], table: Tensor | None) -> dict[str, Any]:
    """Options that older files leave out."""
    wrappers = [len(m[1]) // 3 for m in (re.search(r"((?:\.fn)+)\.net\.0\.weight", n) for n in weights) if m]
    return {
        "rotary_emb": table is not None,
        "shift_tokens": bool(wrappers) and min(wrappers) > 2,
        "sandwich_norm": any(".norm_out." in n for n in weights),
        "reversible": any(".layers.blocks." in n for n in weights),
        "share_input_output_emb": "text_emb.linear.weight" in weights,
    }


def _image_tokenizer(params: Any, state: Mapping[str, Tensor], path: Any) -> Any:
    if params:
        return _dvae(params, state, path)
    if not state:
        raise CheckpointError(f"{path} holds no image tokenizer: neither vae_params nor weights of one.")
    if any(n.startswith("model.") for n in state):
        state = {n.removeprefix("model."): v for n, v in state.items() if not n.startswith("model.loss.")}
        config = pretrained.vqgan_config(state, path)
        return load_weights(lambda: VQGAN(config), state, path)
    parts = {"enc.": "encoder.", "dec.": "decoder."}
    renamed = {parts.get(n[:4], n[:4]) + pretrained._plain(n[4:]): v for n, v in state.items()}
    return pretrained.openai_dvae_of(renamed, path)


def _check_table(table: Tensor | None, model: TextToImage, path: Any) -> None:
    """The rotary table in the file must be the one we compute; 1.0 kept it in another shape, one unused row short."""
    t = model.config.transformer
    if table is None or t.positions not in ROUND_DALLE1:
        return
    stored = table.float().reshape(-1, table.shape[-1])[:, ::2]
    ours = angles_dalle1(model.layout, t.head_dim)[: len(stored)]
    if stored.shape != ours.shape or not torch.allclose(stored, ours, rtol=2e-3, atol=2e-3):
        raise CheckpointError(f"{path}: its table of rotary positions is none that a release of DALLE-pytorch wrote.")


def _moments(
    found: Imported, saved: Any, weights: Mapping[str, Tensor], names: Names, model: TextToImage, path: Any
) -> None:
    """Adam's moments, which the file numbers in the order of the weights, shared ones counted once."""
    texts = model.config.text_vocab + model.config.text_len
    real = {name: p.data_ptr() for name, p in model.named_parameters(remove_duplicate=False)}
    order, seen = [], set()
    for name in weights:
        ours = next(iter(translated({name: weights[name]}, names, texts)))
        if (place := real.get(ours)) not in seen:
            seen.add(place)
            order.append(name)
    try:
        groups, state = saved["param_groups"], saved["state"]
        found.rate = cast(float(groups[0]["lr"]), Annotated[float, Gt(0)], "lr")
        if sum(len(g["params"]) for g in groups) != len(order):
            raise ValueError(f"it counts {sum(len(g['params']) for g in groups)} parameters, the weights {len(order)}")
        unique = {p.data_ptr(): n for n, p in reversed(list(model.named_parameters()))}
        for i, name in enumerate(order):
            found.step = max(found.step, cast(int(state[i]["step"]), Annotated[int, Ge(0), Le(10**12)], "step"))
            for kind in ("exp_avg", "exp_avg_sq"):
                moment = state[i][kind].float()
                if moment.shape != weights[name].shape:
                    raise ValueError(f"{name} is {list(weights[name].shape)}, its moment {list(moment.shape)}")
                if not moment.isfinite().all():
                    raise ValueError(f"the moment of {name} holds NaN or infinity")
                for ours, value in translated({name: moment}, names, texts).items():
                    found.moments.setdefault(unique[real[ours]], {})[kind] = value
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, ConfigError) as error:
        raise CheckpointError(
            f"{path}: its optimiser state does not fit its weights ({error}). Import it with --no-optimizer."
        ) from error


# Writing.


def exported(model: TextToImage, image: nn.Module, epoch: int = 0) -> dict[str, Any]:
    """The dict that train_dalle.py of 1.6.6 saves. Raises ConfigError where DALLE-pytorch has no such model."""
    c, t = model.config, model.config.transformer
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
    params, kind, state = exported_tokenizer(image)
    hparams = {
        "num_text_tokens": c.text_vocab, "text_seq_len": c.text_len, "dim": t.dim, "depth": t.depth, "heads": t.heads,
        "dim_head": t.head_dim, "reversible": t.reversible, "loss_img_weight": c.image_weight,
        "attn_types": tuple("conv_like" if p == "conv_centred" else p for p in t.patterns),
        "ff_dropout": t.ff_dropout, "attn_dropout": t.attn_dropout, "stable": t.stable, "shift_tokens": t.shift,
        "rotary_emb": t.positions in ROUND_DALLE1, "shared_attn_ids": t.shared_attn or None,
        "shared_ff_ids": t.shared_ff or None, "share_input_output_emb": c.tied,
        **({"sandwich_norm": True} if t.sandwich else {}),
    }  # fmt: skip
    weights = {f"vae.{n}": v for n, v in state.items()} | dalle_state(model)
    return {
        "hparams": hparams,
        "vae_params": params,
        "epoch": epoch,
        "version": "1.4.2" if "conv_centred" in t.patterns else VERSION,
        "vae_class_name": kind,
        "weights": {n: v.detach().cpu().contiguous() for n, v in weights.items()},
        "opt_state": None,
        "scheduler_state": None,
    }


def dalle_state(model: TextToImage) -> dict[str, Tensor]:
    """A prior's weights as 1.6.6 names and orders them."""
    found = foreign(model.state_dict(), dalle_names(model.config))
    if (table := rotary_table(model)) is not None:
        first = next(i for i, name in enumerate(found) if name.startswith("transformer."))
        items = list(found.items())
        found = dict([*items[:first], ("transformer.pos_emb", table), *items[first:]])
    if model.config.tied:
        for kind in ("text_emb", "image_emb"):
            found |= {f"{kind}.linear.{k}": found[f"to_logits.1.{k}"] for k in ("weight", "bias")}
    return found


def rotary_table(model: TextToImage) -> Tensor | None:
    """The buffer `transformer.pos_emb` [1, L, R]: every angle twice."""
    t = model.config.transformer
    if t.positions not in ROUND_DALLE1:
        return None
    return ROUND_DALLE1[t.positions](angles_dalle1(model.layout, t.head_dim)).repeat_interleave(2, -1)[None]


def centred(names: Iterable[str], shift: bool) -> bool:
    """Whether a release before 1.3 named the weights: fewer `.fn` wrapped its layers. conv_like was centred then."""
    wrappers = [len(m[1]) // 3 for m in (re.search(r"((?:\.fn)+)\.to_qkv\.", n) for n in names) if m]
    return bool(wrappers) and max(wrappers) < (5 if shift else 3)


def exported_tokenizer(image: nn.Module) -> tuple[dict[str, Any] | None, str, dict[str, Tensor]]:
    """vae_params, vae_class_name and weights of an image tokenizer, as they stand in a dalle.pt."""
    state = dict(image.state_dict())
    if isinstance(image, VQGAN):
        return None, "VQGanVAE", {f"model.{n}": v for n, v in state.items()}
    if isinstance(image, OpenAIDVAE):
        return None, "OpenAIDiscreteVAE", {openai_name(n): v for n, v in state.items()}
    assert isinstance(image, DiscreteVAE)
    return dvae_hparams(image.config), "DiscreteVAE", foreign(state, dvae_names(image))


def openai_name(name: str) -> str:
    """encoder.input.weight -> enc.blocks.input.w"""
    name = re.sub(r"^(enc|dec)oder\.", r"\1.blocks.", name)
    return re.sub(r"\.weight$", ".w", re.sub(r"\.bias$", ".b", name))


def dvae_hparams(c: DVAEConfig) -> dict[str, Any]:
    """Raises ConfigError where DALLE-pytorch has no such image tokenizer."""
    q = c.quantizer
    if not isinstance(q, Gumbel):
        raise ConfigError(f"DALLE-pytorch's DiscreteVAE has the quantizer gumbel; this one has {kind_of(q)}.")
    hparams = {
        "image_size": c.pixels, "num_layers": c.layers, "num_tokens": q.codes, "channels": c.channels,
        "codebook_dim": q.code_dim, "hidden_dim": c.hidden, "num_resnet_blocks": c.resblocks,
        "smooth_l1_loss": c.reconstruction == "smooth_l1", "temperature": q.temperature,
        "straight_through": q.straight_through, "kl_div_loss_weight": q.kl_weight, "normalization": (c.mean, c.std),
    }  # fmt: skip
    return hparams | ({"reinmax": True} if q.reinmax else {})


def clip_hparams(c: CLIPConfig) -> dict[str, Any]:
    """Raises ConfigError where DALLE-pytorch has no such judge."""
    if c.head_dim != 64:
        raise ConfigError(f"DALLE-pytorch's CLIP has heads of width 64, this one of {c.head_dim}.")
    return {
        "dim_text": c.dim_text, "dim_image": c.dim_image, "dim_latent": c.dim_latent, "num_text_tokens": c.text_vocab,
        "text_enc_depth": c.text_depth, "text_seq_len": c.text_len, "text_heads": c.text_heads,
        "visual_enc_depth": c.image_depth, "visual_heads": c.image_heads, "visual_image_size": c.pixels,
        "visual_patch_size": c.patch, "channels": c.channels,
    }  # fmt: skip
