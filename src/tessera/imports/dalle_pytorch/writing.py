"""A model of this house -> the dict that DALLE-pytorch 1.6.6 saves."""

from __future__ import annotations

from torch import Tensor, nn

from tessera.imports.dalle_pytorch.names import dalle_names, dvae_names, foreign, openai_name
from tessera.imports.dalle_pytorch.options import VERSION, dalle_hparams, dvae_hparams
from tessera.models.dvae import DiscreteVAE
from tessera.models.openai_dvae import OpenAIDVAE
from tessera.models.text_to_image import TextToImage
from tessera.models.vqgan import VQGAN
from tessera.nn.rotary import ROUND_DALLE1, angles_dalle1


def exported(model: TextToImage, image: nn.Module, epoch: int = 0) -> dict[str, object]:
    """The dict that train_dalle.py of 1.6.6 saves. Raises ConfigError where DALLE-pytorch has no such model."""
    hparams = dalle_hparams(model.config)
    params, kind, state = exported_tokenizer(image)
    weights = {f"vae.{n}": v for n, v in state.items()} | dalle_state(model)
    return {
        "hparams": hparams,
        "vae_params": params,
        "epoch": epoch,
        "version": "1.4.2" if "conv_centred" in model.config.transformer.patterns else VERSION,
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


def exported_tokenizer(image: nn.Module) -> tuple[dict[str, object] | None, str, dict[str, Tensor]]:
    """vae_params, vae_class_name and weights of an image tokenizer, as they stand in a dalle.pt."""
    state = dict(image.state_dict())
    if isinstance(image, VQGAN):
        return None, "VQGanVAE", {f"model.{n}": v for n, v in state.items()}
    if isinstance(image, OpenAIDVAE):
        return None, "OpenAIDiscreteVAE", {openai_name(n): v for n, v in state.items()}
    assert isinstance(image, DiscreteVAE)
    return dvae_hparams(image.config), "DiscreteVAE", foreign(state, dvae_names(image))
