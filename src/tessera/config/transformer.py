"""The settings of a transformer, which the prior and the judge are made of. It knows no vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from tessera.config.merging import Checked
from tessera.config.ranges import Depth, ShareBelowOne, Width
from tessera.errors import ConfigError

PatternName = Literal["full", "axial_row", "axial_col", "conv_like", "conv_centred", "sparse", "all"]


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
