"""Rotary positions: pairs of channels turned by an angle per position. It does not know attention."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tessera.config import TransformerConfig
from tessera.nn.cache import Index
from tessera.nn.geometry import Layout


class Rotary(nn.Module):
    """Turns pairs of neighbouring channels by an angle per position (Su et al. 2021). Angles [L, R / 2].

    Channels beyond R pass through.
    """

    turns: Tensor

    def __init__(self, angles: Float[Tensor, "L R"]):
        super().__init__()
        self.register_buffer("turns", torch.stack((angles.cos(), angles.sin()), -1), persistent=False)  # [L, R / 2, 2]
        self.turned = 2 * angles.shape[-1]

    def at(self, places: Index) -> Tensor:
        """[T, R / 2, 2], or [B, 1, T, R / 2, 2] where each row of the batch has places of its own."""
        turns = self.turns[places].float()
        return turns if turns.ndim == 3 else turns.unsqueeze(1)

    def forward(self, u: Float[Tensor, "B H T E"], turns: Float[Tensor, "*b T R 2"]) -> Float[Tensor, "B H T E"]:
        """`u` turned by the angles that `at` found."""
        pairs = u[..., : self.turned].float().unflatten(-1, (-1, 2))
        # One complex product is the fastest in torch's own kernels, and the one thing that its compiler cannot fuse.
        product = real_product if torch.compiler.is_compiling() else complex_product
        turned = product(pairs, turns).flatten(-2).to(u.dtype)
        return turned if self.turned == u.shape[-1] else torch.cat((turned, u[..., self.turned :]), -1)


class NoRotary(nn.Module):
    """Turns nothing."""

    def at(self, places: Index) -> tuple[()]:
        return ()

    def forward(self, u: Float[Tensor, "B H T E"], turns: tuple[()]) -> Float[Tensor, "B H T E"]:
        return u


Turn = Rotary | NoRotary


def complex_product(a: Float[Tensor, "*B R 2"], b: Float[Tensor, "*T R 2"]) -> Float[Tensor, "*B R 2"]:
    return torch.view_as_real(torch.view_as_complex(a.contiguous()) * torch.view_as_complex(b))


def real_product(a: Float[Tensor, "*B R 2"], b: Float[Tensor, "*T R 2"]) -> Float[Tensor, "*B R 2"]:
    """The same, written out."""
    (re_a, im_a), (re_b, im_b) = a.unbind(-1), b.unbind(-1)
    return torch.stack((re_a * re_b - im_a * im_b, re_a * im_b + im_a * re_b), -1)


def angles_2d(layout: Layout, head_dim: int) -> Tensor:
    """2-D rotary angles [L, E / 2]: one pair in four turns with the place in the text, the others by row and column."""
    text = head_dim // 8
    rows = (head_dim // 2 - text) // 2
    position = torch.arange(layout.length)
    is_code = position >= layout.text
    row, col = layout.row_col(position)

    def turn(index: Tensor, pairs: int, slowest: float) -> Tensor:
        return index[:, None] * slowest ** (-torch.arange(pairs) / max(pairs - 1, 1))

    along = turn(torch.where(is_code, layout.text, position).float(), text, 1000.0)
    down = turn(torch.where(is_code, row + 1, 0).float(), rows, 50.0)
    across = turn(torch.where(is_code, col + 1, 0).float(), head_dim // 2 - text - rows, 50.0)
    return torch.cat((along, down, across), -1)


def angles_dalle1(layout: Layout, head_dim: int) -> Tensor:
    """DALLE-pytorch's table [L, 3 * (rot // 2)], rot = head_dim // 3: language frequencies by text position (codes
    stand at 8192), then pixel frequencies by row and by column in -1 ... 1 (text stands at -10)."""
    pairs = (head_dim // 3) // 2
    language = 10000.0 ** -(torch.arange(0, 2 * pairs, 2).float() / (head_dim // 3))
    pixel = torch.linspace(1.0, 5.0, pairs) * math.pi
    position = torch.arange(layout.length)
    is_code = position >= layout.text
    axis = torch.linspace(-1.0, 1.0, layout.grid)
    row, col = (axis[u.clamp(0, layout.grid - 1)] for u in layout.row_col(position))
    along = torch.where(is_code, 8192, position).float()[:, None] * language
    down = torch.where(is_code, row, -10.0)[:, None] * pixel
    across = torch.where(is_code, col, -10.0)[:, None] * pixel
    return torch.cat((along, down, across), -1)


ROUND_DALLE1 = {"rotary_dalle1": lambda angles: angles, "rotary_dalle1_half": lambda angles: angles.half().float()}


def rotaries(config: TransformerConfig, layout: Layout) -> tuple[Turn, Turn]:
    """What turns queries and keys, and what turns values (DALL-E 1 turned these too)."""
    if config.positions == "rotary":
        return Rotary(angles_2d(layout, config.head_dim)), NoRotary()
    if config.positions in ROUND_DALLE1:
        both = Rotary(ROUND_DALLE1[config.positions](angles_dalle1(layout, config.head_dim)))
        return both, both
    return NoRotary(), NoRotary()
