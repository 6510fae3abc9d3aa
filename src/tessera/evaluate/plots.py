"""Curves and histograms as pictures. It knows no run's contents."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tessera.files.atomic import whole
from tessera.store.run import Run

CURVES = (
    ("reconstruction", "training", "-"),
    ("image", "training, codes", "-"),
    ("text", "training, text", "-"),
    ("held_loss", "held out", "o-"),
)


def curves(run: Run) -> list[Image.Image]:
    """The loss curves of a run, and of the image tokenizer that `learn` trained for it."""
    runs = [(run, "")] + [(Run(f), "image tokenizer") for f in [run.folder / "tokenizer"] if f.is_dir()]
    return [plot(title, r.read_metrics()) for r, title in runs]


def plot(title: str, rows: Sequence[dict[str, Any]]) -> Image.Image:
    """Training and held-out loss over steps."""
    figure, axes = _figure(title)
    for key, label, style in CURVES:
        points = [(r["step"], r[key]) for r in rows if key in r]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if axes.lines:
        axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return _drawn(figure)


def histogram(codes: Tensor, vocab: int) -> Image.Image:
    figure, axes = _figure("")
    counts = torch.bincount(codes.flatten(), minlength=vocab).sort(descending=True).values
    axes.fill_between(range(vocab), counts.tolist(), step="mid", alpha=0.7)
    axes.set_yscale("symlog")
    axes.set_xlabel("codes, most used first")
    axes.set_ylabel("uses")
    return _drawn(figure)


def _figure(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # half a second to import, so only where something is drawn

    figure = Figure(figsize=(6.4, 3.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _drawn(figure: Any) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return Image.open(buffer)


def save_plot(run: Run) -> None:
    """loss.png in the run folder."""
    with whole(run.folder / "loss.png") as fresh:
        plot(run.folder.name, run.read_metrics()).save(fresh)
