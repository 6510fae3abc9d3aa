"""The settings of each kind of network. It knows no training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, MinLen

from tessera.config.merging import Checked, Kind
from tessera.config.quantizers import FSQ, Quantizer
from tessera.config.ranges import (
    Channels,
    Depth,
    GridSide,
    NotNegative,
    Pixels,
    ShareBelowOne,
    TextLength,
    Vocabulary,
    Width,
)
from tessera.errors import ConfigError

PatternName = Literal["full", "axial_row", "axial_col", "conv_like", "conv_centred", "sparse", "all"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Kind):
    """What the settings of every kind of network that can be trained must provide."""

    needs_codes: ClassVar[bool] = False
    """Whether it learns from the codes of an image tokenizer."""
    usual: ClassVar[Mapping[str, int]] = {}
    """Sizes that a run takes from its data where they are 0, with usual values."""

    @classmethod
    def kinds(cls) -> Mapping[str, type[NetworkConfig]]:
        return MODELS

    def assumed(self) -> tuple[Self, str]:
        """The settings with usual values for what a run would take from its data, and a sentence about that."""
        open_ = {name: value for name, value in self.usual.items() if not getattr(self, name)}
        if not open_:
            return self, ""
        sizes = ", ".join(f"{name.replace('_', '-')} {value:,}" for name, value in open_.items())
        return dataclasses.replace(self, **open_), f"(with {sizes}, which the run would choose)"


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(NetworkConfig):
    """A discrete VAE (DALL-E, Ramesh et al. 2021, section 2.1): pixels <-> a grid of codes."""

    pixels: Pixels = 64
    """Side of the square pictures, a multiple of 2 ** layers."""
    channels: Channels = 3
    """1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha."""
    quantizer: Quantizer = field(default_factory=FSQ)
    """Turns the encoder's output into codes; each kind has settings of its own."""
    layers: Annotated[int, Ge(1), Le(12)] = 3
    """Halvings of the side: the grid of codes has side pixels / 2 ** layers."""
    resblocks: Annotated[int, Ge(0), Le(1_024)] = 1
    """Residual blocks at the lowest resolution, in the encoder and in the decoder."""
    hidden: Width = 64
    """Width of every convolution."""
    reconstruction: Literal["mse", "smooth_l1"] = "mse"
    """The reconstruction loss, over normalised pixels."""
    mean: tuple[Annotated[float, Ge(-1e6), Le(1e6)], ...] = (0.5, 0.5, 0.5, 0.0)
    """Subtracted from the pixels, channel by channel."""
    std: tuple[Annotated[float, Ge(1e-6), Le(1e6)], ...] = (0.5, 0.5, 0.5, 1.0)
    """Divides the pixels, channel by channel."""

    @property
    def grid(self) -> int:
        return self.pixels >> self.layers

    @property
    def vocab(self) -> int:
        """How many different codes there are."""
        return self.quantizer.vocab

    def rules(self) -> None:
        if self.pixels % 2**self.layers:
            raise ConfigError(
                f"model.pixels is {self.pixels} and model.layers is {self.layers}: the side must be a multiple of "
                f"2 ** layers = {2**self.layers}. Try model.pixels {2**self.layers * max(1, self.grid)}."
            )
        if self.vocab > 65536:
            raise ConfigError(f"The image tokenizer has {self.vocab} codes; packed codes hold at most 65,536.")
        if min(len(self.mean), len(self.std)) < self.channels:
            raise ConfigError(f"model.mean and model.std need {self.channels} numbers each.")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Checked):
    """A stack of attention and feed-forward branches over text and a grid of codes."""

    dim: Width = 256
    """Width of the residual stream."""
    depth: Depth = 6
    """Layers; each is one attention and one feed-forward branch."""
    heads: Annotated[int, Ge(1), Le(1_024)] = 4
    """Attention heads."""
    head_dim: Annotated[int, Ge(1), Le(8_192)] = 64
    """Width of a head."""
    patterns: Annotated[tuple[PatternName, ...], MinLen(1)] = ("full",)
    """Which positions each layer attends to, cycled over depth: full, axial_row, axial_col, conv_like, conv_centred,
    sparse; all (the future too) is only for encoders."""
    positions: Literal["none", "axial", "rotary", "rotary_dalle1", "rotary_dalle1_half"] = "rotary"
    """axial: learned row and column embeddings; rotary: 2-D rotary; rotary_dalle1: DALLE-pytorch's, which rotates the
    values too; rotary_dalle1_half repeats the rounded angles of its half-precision files."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm or LayerNorm before each branch."""
    qk_norm: bool = True
    """Normalise queries and keys (Henry et al. 2020)."""
    ff: Literal["swiglu", "geglu", "relu2"] = "swiglu"
    """Activation of the feed-forward branch."""
    ff_mult: Annotated[float, Gt(0), Le(64)] = 8 / 3
    """Hidden width of the feed-forward branch, in multiples of dim."""
    bias: bool = False
    """Biases on the output projections and in the feed-forward branch."""
    shift: bool = False
    """Token shift: part of each position's channels comes from the position before, above or left."""
    sandwich: bool = False
    """A second norm after each branch (CogView)."""
    layer_scale: bool = False
    """Learned scale on each branch's output (Touvron et al. 2021)."""
    reversible: bool = False
    """Reversible wiring: activation memory does not grow with depth (Gomez et al. 2017)."""
    stable: bool = False
    """DALLE-pytorch's `stable`: output divided by its largest value, damped embedding gradients."""
    zero_init: bool = True
    """Start each branch at zero and embeddings small; off gives torch's defaults, as DALL-E 1 had."""
    attn_dropout: ShareBelowOne = 0.0
    """Dropout after attention."""
    ff_dropout: ShareBelowOne = 0.0
    """Dropout inside the feed-forward branch."""
    shared_attn: tuple[str, ...] = ()
    """Ids cycled over depth; layers with the same id share their attention weights."""
    shared_ff: tuple[str, ...] = ()
    """Ids cycled over depth; layers with the same id share their feed-forward weights."""

    def rules(self) -> None:
        if self.positions == "rotary" and self.head_dim % 8:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need a multiple of 8.")
        if self.positions.startswith("rotary_dalle1") and self.head_dim < 6:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary_dalle1 positions need at least 6.")
        parameters = self.depth * self.dim * (4 * self.heads * self.head_dim + 2 * self.ff_mult * self.dim)
        if parameters > 1e11:
            raise ConfigError(
                f"dim {self.dim}, depth {self.depth}, heads {self.heads} and head_dim {self.head_dim} make over "
                f"{parameters:.1g} parameters; the most is 1e11."
            )
        pattern_of: dict[str, str] = {}
        for i in range(self.depth if self.shared_attn else 0):
            name, pattern = self.shared_attn[i % len(self.shared_attn)], self.patterns[i % len(self.patterns)]
            if pattern_of.setdefault(name, pattern) != pattern:
                raise ConfigError(
                    f"shared_attn id '{name}' stands at layers with patterns {pattern_of[name]} and {pattern}; "
                    "layers that share attention must share the pattern."
                )


@dataclass(frozen=True, kw_only=True)
class TextToImageConfig(NetworkConfig):
    """The prior: text tokens, then image codes, one after the other (Ramesh et al. 2021, section 2.2)."""

    text_vocab: Vocabulary = 0
    """Size of the text vocabulary without padding; 0 takes it from the text tokenizer."""
    text_len: TextLength = 0
    """Text tokens per caption, padded; 0 chooses it from the captions."""
    image_vocab: Vocabulary = 0
    """How many codes there are; 0 takes it from the image tokenizer."""
    grid: GridSide = 0
    """Side of the grid of codes; 0 takes it from the image tokenizer."""
    image_weight: NotNegative = 7.0
    """loss = (text + image_weight * image) / (1 + image_weight)."""
    learn_padding: bool = False
    """Count padding tokens in the text loss, as DALL-E 1 did."""
    tied: bool = False
    """Embeddings and output heads share their weights."""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)

    needs_codes: ClassVar[bool] = True
    usual: ClassVar[Mapping[str, int]] = {"text_vocab": 4096, "text_len": 64, "image_vocab": 1000, "grid": 16}

    def rules(self) -> None:
        if "all" in self.transformer.patterns:
            raise ConfigError("patterns has 'all', which shows a prior the codes that it must predict; try 'full'.")


@dataclass(frozen=True, kw_only=True)
class CLIPConfig(NetworkConfig):
    """The judge: scores a picture against a sentence (CLIP, Radford et al. 2021), as DALLE-pytorch built it."""

    text_vocab: Vocabulary = 0
    """Size of the text vocabulary without padding; 0 takes it from the text tokenizer."""
    text_len: TextLength = 0
    """Text tokens per caption, padded; 0 chooses it from the captions."""
    pixels: Pixels = 64
    """Side of the square pictures, a multiple of patch."""
    patch: Pixels = 8
    """Side of a patch."""
    channels: Channels = 3
    """1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha."""
    dim_text: Width = 256
    """Width of the text encoder."""
    dim_image: Width = 256
    """Width of the picture encoder."""
    dim_latent: Width = 256
    """Width of the embeddings that are compared."""
    text_depth: Depth = 4
    """Layers of the text encoder."""
    image_depth: Depth = 4
    """Layers of the picture encoder."""
    text_heads: Annotated[int, Ge(1), Le(1_024)] = 4
    image_heads: Annotated[int, Ge(1), Le(1_024)] = 4
    head_dim: Annotated[int, Ge(1), Le(8_192)] = 64
    """Width of a head."""

    usual: ClassVar[Mapping[str, int]] = {"text_vocab": 4096, "text_len": 64}

    def rules(self) -> None:
        if self.pixels % self.patch:
            raise ConfigError(f"model.pixels is {self.pixels}; it must be a multiple of model.patch ({self.patch}).")


MODELS: dict[str, type[NetworkConfig]] = {"dvae": DVAEConfig, "t2i": TextToImageConfig, "clip": CLIPConfig}
