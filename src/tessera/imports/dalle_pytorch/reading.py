"""A checkpoint that DALLE-pytorch saved -> a model of this house, with Adam's state where the file has it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from tessera.config import TrainConfig
from tessera.config.merging import cast
from tessera.errors import CheckpointError, ConfigError
from tessera.imports import pretrained
from tessera.imports.dalle_pytorch.names import Names, clip_names, dalle_names, dvae_names, translated
from tessera.imports.dalle_pytorch.options import clip_config, dalle_config, dvae_config
from tessera.imports.pretrained import load_weights, without_memory
from tessera.imports.reader import guarded, read, tensors, told
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.models.openai_dvae import OpenAIDVAE
from tessera.models.pyramid import Pyramid
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN
from tessera.nn.rotary import ROUND_DALLE1, angles_dalle1


@dataclass
class Imported:
    """The content of a file."""

    model: TextToImage | CLIP | DiscreteVAE | Pyramid | VQGAN | OpenAIDVAE
    image: DiscreteVAE | VQGAN | OpenAIDVAE | None = None
    """The image tokenizer of a DALLE."""
    step: int = 0
    rate: float = 3e-4
    moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Adam's state by our parameter names; empty if the file has none."""
    settings: TrainConfig | None = None
    """How a run of this program was trained."""
    notices: list[str] = field(default_factory=list)


def load(path: Path, version: str = "") -> Imported:
    """Read a DALLE, DiscreteVAE or CLIP checkpoint. Raises CheckpointError if it is not one, damaged, or incomplete."""
    return understood(read(path), path, version)


def understood(content: object, path: Path | str, version: str = "") -> Imported:
    with guarded(path):
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, not the dict that DALLE-pytorch saves.")
        hparams, weights = content.get("hparams"), content.get("weights")
        if not isinstance(hparams, dict) or weights is None:
            raise CheckpointError(
                f"{path} is not a checkpoint of DALLE-pytorch: it needs 'hparams' and 'weights' and holds "
                f"{told(content, 6)}."
            )
        if isinstance(weights, str):
            raise CheckpointError(
                f"{path} holds a note of DeepSpeed instead of weights: '{weights[:200]}'. Name DeepSpeed's folder."
            )
        weights = tensors(weights, path, "its 'weights'")
        if "text_seq_len" in hparams and "dim" in hparams:
            return _dalle(content, dict(hparams), weights, path, version or _version(content))
        if "visual_enc_depth" in hparams or "visual_patch_size" in hparams or "to_visual_latent.weight" in weights:
            config = clip_config(hparams)
            names = clip_names(without_memory(lambda: CLIP(config)))
            return Imported(load_weights(lambda: CLIP(config), translated(weights, names, 0), path))
        if "image_size" in hparams or "codebook.weight" in weights:
            return Imported(_dvae(hparams, weights, path))
        raise CheckpointError(f"{path}: Tessera knows no model with these hparams ({told(hparams, 6)}).")


def _version(content: Mapping[str, Any]) -> str:
    """The release that wrote a file; the oldest ones did not name it."""
    return cast(content.get("version") or "0.14", str, "version")[:40]


def _dvae(hparams: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path | str) -> DiscreteVAE:
    config = dvae_config(hparams)
    names = dvae_names(without_memory(lambda: DiscreteVAE(config)))
    return load_weights(lambda: DiscreteVAE(config), translated(weights, names, 0), path)


def _dalle(content: dict, hparams: dict, weights: Mapping[str, Tensor], path: Path | str, version: str) -> Imported:
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
    model = load_weights(lambda: TextToImage(config), state, path)
    _check_table(table, model, path)
    found = Imported(model, image)
    if "sparse" in config.transformer.patterns:
        found.notices.append("The original draws its table of 'sparse' attention anew at each start; ours is fixed.")
    if content.get("opt_state"):
        _moments(found, content["opt_state"], own, names, model, path)
    if not content.get("version") and "conv_centred" in config.transformer.patterns:
        found.notices.append("The file names no version; conv_like is read as in releases before 1.5.")
    return found


def _told_by_names(weights: Mapping[str, Tensor], table: Tensor | None) -> dict[str, Any]:
    """Options that older files leave out, from the names of the weights."""
    wrappers = [len(m[1]) // 3 for m in (re.search(r"((?:\.fn)+)\.net\.0\.weight", n) for n in weights) if m]
    return {
        "rotary_emb": table is not None,
        "shift_tokens": bool(wrappers) and min(wrappers) > 2,
        "sandwich_norm": any(".norm_out." in n for n in weights),
        "reversible": any(".layers.blocks." in n for n in weights),
        "share_input_output_emb": "text_emb.linear.weight" in weights,
    }


def _image_tokenizer(params: object, state: Mapping[str, Tensor], path: Path | str) -> DiscreteVAE | VQGAN | OpenAIDVAE:
    if params:
        return _dvae(cast(params, dict, "vae_params"), state, path)
    if not state:
        raise CheckpointError(f"{path} holds no image tokenizer: neither vae_params nor weights of one.")
    if any(n.startswith("model.") for n in state):
        state = {n.removeprefix("model."): v for n, v in state.items() if not n.startswith("model.loss.")}
        config = pretrained.vqgan_config(state, path)
        return load_weights(lambda: VQGAN(config), state, path)
    parts = {"enc.": "encoder.", "dec.": "decoder."}
    renamed = {parts.get(n[:4], n[:4]) + pretrained.plain(n[4:]): v for n, v in state.items()}
    return pretrained.openai_dvae_of(renamed, path)


def _check_table(table: Tensor | None, model: TextToImage, path: Path | str) -> None:
    """The rotary table in the file must equal ours. 1.0 stored it in another shape, without the last, unused row."""
    t = model.config.transformer
    if table is None or t.positions not in ROUND_DALLE1:
        return
    stored = table.float().reshape(-1, table.shape[-1])[:, ::2]
    ours = angles_dalle1(model.layout, t.head_dim)[: len(stored)]
    if stored.shape != ours.shape or not torch.allclose(stored, ours, rtol=2e-3, atol=2e-3):
        raise CheckpointError(f"{path}: no release of DALLE-pytorch wrote such a table of rotary positions.")


def _moments(
    found: Imported, saved: Any, weights: Mapping[str, Tensor], names: Names, model: TextToImage, path: Path | str
) -> None:
    """Adam's moments. The file numbers them in the order of the weights and counts shared ones once."""
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
