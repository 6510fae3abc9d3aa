"""The named runs, one aligned table per kind. A preset's meaning never changes after release."""

from __future__ import annotations

import dataclasses

from tessera.config.any_order import AnyOrderConfig
from tessera.config.clip import CLIPConfig
from tessera.config.dvae import DVAEConfig
from tessera.config.merging import nearest
from tessera.config.perceptual import Lite0
from tessera.config.pyramid import PyramidConfig
from tessera.config.quantizers import FSQ, Gumbel
from tessera.config.text_to_image import TextToImageConfig
from tessera.config.training import OptimConfig, TrainConfig
from tessera.config.transformer import TransformerConfig
from tessera.config.vqgan import VQGANConfig
from tessera.errors import ConfigError

# name: pixels, layers, hidden, resblocks, levels, batch, steps
DVAE = {
    "dvae-xs-64":  ( 64, 3,  64, 1, (8, 5, 5, 5), 32,   2_000),
    "dvae-s-64":   ( 64, 2,  64, 1, (8, 8, 8),    32,   4_000),
    "dvae-s-128":  (128, 3,  96, 2, (8, 5, 5, 5), 32,  20_000),
    "dvae-m-128":  (128, 3, 160, 3, (8, 5, 5, 5), 64,  40_000),
    "dvae-m-256":  (256, 3, 192, 3, (8, 8, 8, 8), 64, 100_000),
    "dvae-l-256":  (256, 3, 256, 4, (8, 8, 8, 6, 5), 128, 200_000),
}  # fmt: skip

# name: pixels, patch, widths, blocks of encoder and decoder, levels, batch, steps
PYRAMID = {
    "pyramid-xs-64": ( 64, 2, (48, 96, 160),       1, 1, (8, 5, 5, 5), 16,   2_000),
    "pyramid-s-128": (128, 4, (64, 128, 192),      1, 2, (8, 5, 5, 5), 16,  20_000),
    "pyramid-m-256": (256, 4, (96, 192, 320),      2, 2, (8, 8, 8, 8), 64, 100_000),
}  # fmt: skip

# name: pixels, patch, widths, blocks of the decoder, levels, batch, steps
PLAIN = {
    "plain-xs-64": ( 64, 4, (64, 128), 1, (8, 5, 5, 5), 8,  6_000),
    "plain-s-64":  ( 64, 4, (64, 128), 2, (8, 5, 5, 5), 8,  6_000),
}  # fmt: skip

# name: pixels, width, widths, blocks, code width, codes, batch, steps
VQGAN = {
    "vqgan-s-64":  ( 64, 32, (1, 1, 2, 4),    1, 8, 1024, 16,  4_000),
    "vqgan-s-128": (128, 32, (1, 1, 2, 2, 4), 1, 8, 1024, 16, 20_000),
}  # fmt: skip

# name: dim, depth, heads, learning rate, batch, steps
T2I = {
    "t2i-xxs-64": ( 192,  3,  3,   2e-3,  32,   4_000),
    "t2i-xs-64":  ( 192,  4,  3,   2e-3,  32,   4_000),
    "t2i-s-64":   ( 256,  6,  4, 1.5e-3,  32,  10_000),
    "t2i-s-128":  ( 384,  8,  6,   1e-3,  64,  40_000),
    "t2i-m-128":  ( 512, 12,  8,   8e-4,  64, 100_000),
    "t2i-m-256":  ( 768, 12, 12,   5e-4, 128, 200_000),
    "t2i-l-256":  (1024, 24, 16,   3e-4, 256, 400_000),
    "t2i-xl-256": (1536, 32, 24,   2e-4, 512, 600_000),
}  # fmt: skip


# name: pixels, patch, dim, depth, heads, batch, steps
CLIP = {
    "clip-xs-64":  ( 64,  8, 128,  2,  2,  64,  3_000),
    "clip-s-64":   ( 64,  8, 256,  4,  4, 128,  8_000),
    "clip-s-128":  (128, 16, 384,  6,  6, 256,  20_000),
    "clip-m-256":  (256, 32, 512,  6,  8, 512,  60_000),
}  # fmt: skip


def dvae(name: str) -> TrainConfig:
    pixels, layers, hidden, resblocks, levels, batch, steps = DVAE[name]
    model = DVAEConfig(pixels=pixels, layers=layers, hidden=hidden, resblocks=resblocks, quantizer=FSQ(levels=levels))
    return TrainConfig(preset=name, steps=steps, model=model, optim=OptimConfig(batch=batch, weight_decay=0.0))


def pyramid(name: str) -> TrainConfig:
    """With a perceptual loss, which needs the extra `judge`; --model.perceptual none goes without."""
    pixels, patch, widths, encoder, decoder, levels, batch, steps = PYRAMID[name]
    model = PyramidConfig(
        pixels=pixels, patch=patch, widths=widths, encoder_blocks=encoder, decoder_blocks=decoder,
        quantizer=FSQ(levels=levels), reconstruction="mse", pixel_weight=200.0,
        perceptual=Lite0(deep=1.0),
    )  # fmt: skip
    return TrainConfig(preset=name, steps=steps, model=model, optim=_by_muon(2e-3, batch))


def _averaged(lr: float, batch: int) -> OptimConfig:
    """The optimiser of the image tokenizers whose weights are averaged."""
    return OptimConfig(lr=lr, betas=(0.9, 0.99), weight_decay=0.0, batch=batch, warmup=50, ema=0.995)


def _by_muon(lr: float, batch: int) -> OptimConfig:
    """The same, with kernels moved by Muon (docs/ablation.md)."""
    return dataclasses.replace(_averaged(lr, batch), name="muon", muon_lr=1e-2)


def plain(name: str) -> TrainConfig:
    """A narrow pyramid that learns from pixels alone, in many small steps (docs/ablation.md)."""
    pixels, patch, widths, decoder, levels, batch, steps = PLAIN[name]
    model = PyramidConfig(
        pixels=pixels, patch=patch, widths=widths, decoder_blocks=decoder, quantizer=FSQ(levels=levels),
        reconstruction="mse",
    )  # fmt: skip
    return TrainConfig(preset=name, steps=steps, model=model, optim=_by_muon(4e-3, batch))


def vqgan(name: str) -> TrainConfig:
    """As the pyramids are trained, but with codes that are nearest vectors, and attention where the map is smallest.
    The commitment is 0.25 times the weight of pixels: with less, the encoder runs away from its codes."""
    pixels, width, widths, blocks, code_dim, codes, batch, steps = VQGAN[name]
    model = VQGANConfig(
        pixels=pixels, width=width, widths=widths, resblocks=blocks, attention=(len(widths) - 1,),
        latent=width * widths[-1], code_dim=code_dim, codes=codes, commitment=5.0, revive=True,
        pixel_weight=20.0, perceptual=Lite0(deep=1.0),
    )  # fmt: skip
    return TrainConfig(preset=name, steps=steps, model=model, optim=_averaged(2e-3, batch))


def t2i(name: str) -> TrainConfig:
    dim, depth, heads, lr, batch, steps = T2I[name]
    transformer = TransformerConfig(dim=dim, depth=depth, heads=heads)
    optim = OptimConfig(batch=batch, lr=lr)
    return TrainConfig(preset=name, steps=steps, model=TextToImageConfig(transformer=transformer), optim=optim)


def any_order(name: str) -> TrainConfig:
    """As the t2i preset of the same size; half of the layers answer queries."""
    base = preset(name.replace("any-", "t2i-", 1))
    assert isinstance(base.model, TextToImageConfig)
    transformer = base.model.transformer
    model = AnyOrderConfig(transformer=transformer, query_depth=transformer.depth // 2)
    return dataclasses.replace(base, preset=name, model=model)


def clip(name: str) -> TrainConfig:
    pixels, patch, dim, depth, heads, batch, steps = CLIP[name]
    model = CLIPConfig(
        pixels=pixels, patch=patch, dim_text=dim, dim_image=dim, dim_latent=dim, text_depth=depth, image_depth=depth,
        text_heads=heads, image_heads=heads,
    )  # fmt: skip
    return TrainConfig(preset=name, steps=steps, model=model, optim=OptimConfig(lr=5e-4, batch=batch, weight_decay=0.2))


def dvae_dalle1(name: str) -> TrainConfig:
    """train_vae.py's defaults, at 256 pixels as the notebook used them."""
    quantizer = Gumbel(codes=8192, code_dim=512, temperature=1.0, temperature_end=0.5)
    model = DVAEConfig(pixels=256, layers=3, resblocks=2, hidden=256, quantizer=quantizer)
    optim = OptimConfig(name="adam", lr=1e-3, betas=(0.9, 0.999), schedule="exponential", warmup=0, clip=0.0, batch=8)
    return TrainConfig(preset=name, steps=30_000, model=model, optim=optim)


def t2i_dalle1(name: str) -> TrainConfig:
    """The configuration of the 2021 notebook: text 256 + picture 1,024 positions, image weight 7."""
    transformer = TransformerConfig(
        dim=512, depth=2, heads=4, head_dim=64, positions="rotary_dalle1", norm="layer", qk_norm=False, ff="geglu",
        ff_mult=4.0, bias=True, shift=True, layer_scale=True, reversible=True, zero_init=False,
    )  # fmt: skip
    model = TextToImageConfig(text_len=256, learn_padding=True, transformer=transformer)
    optim = OptimConfig(
        name="adam", lr=3e-4, betas=(0.9, 0.999), schedule="constant", warmup=0, clip=0.5, batch=4, drop_condition=0.0
    )
    return TrainConfig(preset=name, steps=60_000, model=model, optim=optim)


PRESETS = {
    **dict.fromkeys(DVAE, dvae),
    "dvae-dalle1-256": dvae_dalle1,
    **dict.fromkeys(PYRAMID, pyramid),
    **dict.fromkeys(PLAIN, plain),
    **dict.fromkeys(VQGAN, vqgan),
    **dict.fromkeys(T2I, t2i),
    "t2i-dalle1-256": t2i_dalle1,
    **dict.fromkeys((name.replace("t2i-", "any-", 1) for name in T2I), any_order),
    **dict.fromkeys(CLIP, clip),
}


def preset(name: str) -> TrainConfig:
    """The TrainConfig called `name`. Raises ConfigError with the nearest name."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset '{name}'{nearest(name, PRESETS) or '.'} Known: {', '.join(PRESETS)}.")
    return PRESETS[name](name)
