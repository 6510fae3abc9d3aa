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
from tessera.evaluate.meanings import MEANINGS
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
    """Of drawings against the training pictures; the ceiling is what held-out pictures get in the drawings' place, the
    floor what exact copies get."""
    ours, theirs, own = (space(x) for x in (learned, held, drawn))
    there = memorisation.nearness(ours, theirs, learned.codes, held.codes)
    here = memorisation.nearness(ours, own, learned.codes, drawn.codes)
    c_t = memorisation.c_t(ours, theirs, own, cells=1)  # held-out sets are small: cells would be smaller still
    label, places = name or "pixels", float(drawn.codes.shape[1])
    runs = [bootstrap(memorisation.longest_run(x.codes, learned.codes).numpy()) for x in (drawn, held)]
    found = [
        _line(named("near a training picture", label), here.near, there.near, 1.0, "near"),
        _line(named("authentic (AuthPct)", label), here.authentic, there.authentic, 0.0, "authentic"),
        _line(named("C_T", label), c_t, exact(0.0, c_t.count), None, "c_t"),
        _line("longest run of shared codes", runs[0], runs[1], places, "run"),
        _line("more than half of the codes in a run", here.runs, there.runs, 1.0, "runs"),
    ]
    return found, memorisation.verdict(here, there, c_t)


def membership(learned: Tensor, held: Tensor) -> Figure:
    """Whether the model's likelihood tells learned from held-out pictures, of nats [B, N]."""
    value = memorisation.membership_auc(-learned.sum(1).numpy(), -held.sum(1).numpy())
    return _line("membership by likelihood, AUC", value, exact(0.5, value.count), 1.0, "membership")


def _line(name: str, drawn: Estimate, held: Estimate, copies: float | None, meaning: str) -> Figure:
    floor = None if copies is None else exact(copies, drawn.count)
    return Figure(
        name=name, group="copying", value=drawn, floor=floor, ceiling=held, better="nearer", about=MEANINGS[meaning]
    )


def order(suspect: Tensor) -> list[int]:
    """The drawings that look most like copies, first."""
    return torch.argsort(suspect, stable=True).tolist()
