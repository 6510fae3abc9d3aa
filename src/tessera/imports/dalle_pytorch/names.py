"""Names of weights: one table per network, of (DALLE-pytorch's name, ours, the shape there or () for the same)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tessera.config import TextToImageConfig, TransformerConfig
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE

Names = list[tuple[str, str, tuple[int, ...]]]

SPLIT = ("to_logits.1.weight", "to_logits.1.bias")
"""One joint output layer there; two heads here."""


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
    """All of a DALLE's weights but its image tokenizer's. Those in SPLIT have the same name on both sides."""
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
    """One name for a weight in every release. The number of `.fn` around a layer changed with release and options."""
    name = re.sub(r"layers\.blocks\.(\d+)\.f\.net", r"layers.layers.\1.0", name)
    name = re.sub(r"layers\.blocks\.(\d+)\.g\.net", r"layers.layers.\1.1", name)
    name = re.sub(r"(\.fn)+\.(to_qkv|to_out|net)\.", r".fn.\2.", name)
    return re.sub(r"image_pos_emb\.weights_(\d)", r"image_pos_emb.weights.\1", name)


def translated(weights: Mapping[str, Tensor], names: Names, texts: int) -> dict[str, Tensor]:
    """Tensors under our names and shapes. SPLIT ones are cut after `texts` rows. Unknown ones keep their name."""
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


def centred(names: Iterable[str], shift: bool) -> bool:
    """Whether a release before 1.3 wrote the weights: it has fewer `.fn` around a layer. conv_like was centred then."""
    wrappers = [len(m[1]) // 3 for m in (re.search(r"((?:\.fn)+)\.to_qkv\.", n) for n in names) if m]
    return bool(wrappers) and max(wrappers) < (5 if shift else 3)


def openai_name(name: str) -> str:
    """encoder.input.weight -> enc.blocks.input.w"""
    name = re.sub(r"^(enc|dec)oder\.", r"\1.blocks.", name)
    return re.sub(r"\.weight$", ".w", re.sub(r"\.bias$", ".b", name))
