"""Whether drawings are copies: figures, the verdict, and which training picture each drawing is nearest to.

It knows no files. Training and held-out pictures are seen through the image tokenizer, as drawings are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tessera.evaluate import memorisation
from tessera.evaluate.distances import named
from tessera.evaluate.figures import Figure
from tessera.evaluate.intervals import Estimate, bootstrap
from tessera.evaluate.looking import Look
from tessera.evaluate.measuring import exact
from tessera.evaluate.memorisation import Verdict


@dataclass(frozen=True)
class Nearest:
    """Of each drawing the nearest training picture, by its number."""

    seen: Tensor
    """By features, [B]; by pixels where nothing looked."""
    pixels: Tensor
    """[B]."""
    suspect: Tensor
    """How near: the distance by features, against that of the training picture to its own nearest, [B]."""


def space(look: Look) -> Tensor:
    """What distances are taken in: features where there are any, else pixels."""
    return look.features if look.features.shape[1] else look.small.float()


def nearest(learned: Look, drawn: Look) -> Nearest:
    ours, theirs = space(learned), space(drawn)
    index, distance = memorisation.nearest(theirs, ours)
    usual = memorisation.nearest_other(ours)[1][index].clamp(min=1e-9)
    pixels = memorisation.nearest(drawn.small.float(), learned.small.float())[0]
    return Nearest(index, pixels, distance / usual)


def measured(learned: Look, held: Look, drawn: Look, name: str) -> tuple[list[Figure], Verdict]:
    """Of drawings against the training pictures; the ceiling is what held-out pictures get in the drawings' place."""
    ours, theirs, own = (space(x) for x in (learned, held, drawn))
    there = memorisation.nearness(ours, theirs, learned.codes, held.codes)
    here = memorisation.nearness(ours, own, learned.codes, drawn.codes)
    c_t = memorisation.c_t(ours, theirs, own)
    label = name or "pixels"
    runs = [bootstrap(memorisation.longest_run(x.codes, learned.codes).numpy()) for x in (drawn, held)]
    places = exact(float(drawn.codes.shape[1]), len(drawn))
    found = [
        _line(named("near a training picture", label), here.near, there.near, 1.0, "Share of drawings as near to a training picture as 1 % of the training pictures are to each other."),
        _line(named("authentic (AuthPct)", label), here.authentic, there.authentic, 0.0, "Share of drawings farther from their nearest training picture than that one is from the next."),
        Figure(name=named("C_T", label), group="copying", value=c_t, ceiling=exact(0.0, c_t.count), better="nearer",
               about="z-score of the drawings' distances to training pictures against those of held-out pictures: below -3 is nearer."),
        Figure(name="longest run of shared codes", group="copying", value=runs[0], ceiling=runs[1], floor=places,
               better="nearer", about="Codes in a row that a drawing has in common with one training picture; the ceiling is what held-out pictures have."),
        _line("more than half of the codes in a run", here.runs, there.runs, 1.0, "Share of drawings with a run of more than half of their codes in common with a training picture."),
    ]  # fmt: skip
    return found, memorisation.verdict(here, there, c_t)


def membership(learned: Tensor, held: Tensor) -> Figure:
    """Whether the model's likelihood tells learned from held-out pictures, of nats [B, N]."""
    value = memorisation.membership_auc(-learned.sum(1).numpy(), -held.sum(1).numpy())
    return Figure(name="membership by likelihood, AUC", group="copying", value=value, ceiling=exact(0.5, value.count),
                  floor=exact(1.0, value.count), better="nearer",
                  about="Chance that a learned picture is likelier than a held-out one; 0.5 where nothing tells them apart.")  # fmt: skip


def _line(name: str, drawn: Estimate, held: Estimate, copies: float, about: str) -> Figure:
    """The floor is what exact copies get."""
    return Figure(name=name, group="copying", value=drawn, ceiling=held, floor=exact(copies, drawn.count),
                  better="nearer", about=about)  # fmt: skip


def order(suspect: Tensor) -> list[int]:
    """The drawings that look most like copies, first."""
    return torch.argsort(suspect, stable=True).tolist()
