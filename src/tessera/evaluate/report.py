"""report.html: one self-contained page about a run. It knows no engine and no loop."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tessera.data.check import show
from tessera.data.folder import Skip
from tessera.data.pictures import grid_image, middle_square, read, resized
from tessera.errors import DataError
from tessera.evaluate import metrics
from tessera.files.atomic import whole, write_whole
from tessera.generate.pipeline import Picture
from tessera.models.saved import parameters
from tessera.store.run import Run
from tessera.train.objectives import Objective

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem;color:#222;background:#fdfcfa}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}img{max-width:100%}
table{border-collapse:collapse}td{padding:.2rem 1.2rem .2rem 0;vertical-align:top}
td:last-child{font-variant-numeric:tabular-nums}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px}figure{margin:0}
.tiles img{width:100%;border-radius:6px}figcaption{font-size:.8rem;color:#555}
.pixel{image-rendering:pixelated}.wide{width:100%}
"""
UNITS = {"held_text": "nats per code", "held_accuracy": "nats"}
SHOWN = 10
"""Reconstructions on the page."""


@torch.no_grad()
def write(run: Run, objective: Objective, drawn: Sequence[Picture], skipped: Sequence[Skip]) -> dict[str, str]:
    """Write report.html and figures.json into the run folder; returns the figures that stand at its top."""
    objective.model.eval()
    rows = run.read_metrics()
    codes = objective.held_codes()
    sections = [
        ("Held-out captions, drawn", _tiles(drawn)),
        ("Losses", "".join(map(_img, plots(run)))),
        ("Held-out pictures (above) and what their codes keep of them (below)", _reconstructions(objective)),
        ("How often each code is used on held-out pictures", _usage(codes, objective)),
        (f"Left out ({len(skipped)})", _left_out(skipped)),
        ("Settings", _settings(run)),
    ]
    figures = numbers(rows, objective, torch.cat(codes) if codes else torch.zeros(0, 0, dtype=torch.long))
    shown = [(name, content) for name, content in sections if content]
    with run.written():
        write_whole(run.folder / "report.html", page(f"Tessera: {run.folder.name}", figures, shown))
        write_whole(run.folder / "figures.json", json.dumps(figures, indent=1))
    return figures


def numbers(rows: Sequence[dict[str, Any]], objective: Objective, codes: Tensor) -> dict[str, str]:
    """What a reader asks first."""
    counts = f"{len(objective.pairs)} learned, {len(objective.held)} held out, {objective.skipped} left out"
    figures = {"captioned pictures": counts, "parameters": f"{parameters(objective.model):,}"}
    held = [(r["held_loss"], r["step"]) for r in rows if "held_loss" in r]
    if held:
        unit = next((u for key, u in UNITS.items() if any(key in r for r in rows)), "squared error")
        figures[f"best held-out loss, {unit}"] = f"{min(held)[0]:.4f} at step {min(held)[1]}"
    if len(codes) and objective.image:
        used, perplexity = metrics.usage(codes, objective.image.vocab)
        figures["best context-free predictor (unigram entropy)"] = f"{metrics.unigram_entropy(codes):.4f}"
        figures["codes in use on held-out pictures"] = f"{used} of {objective.image.vocab}, perplexity {perplexity:.0f}"
        if len(pixels := _originals(objective, 64)):
            figures["reconstruction of held-out pictures"] = f"{metrics.psnr(_again(objective, pixels), pixels):.1f} dB"
    return figures


def _originals(objective: Objective, count: int) -> Tensor:
    """The middle squares of the first held-out pictures, [B, C, S, S] in 0 ... 1."""
    image = objective.image
    assert image is not None
    pictures = []
    for pair in islice(objective.held, count):
        try:
            pictures.append(read(pair.image, image.channels))
        except DataError:  # packed codes outlive the pictures they were made of
            continue
    if not pictures:
        return torch.zeros(0, image.channels, image.pixels, image.pixels)
    return torch.stack([resized(p, middle_square(*p.shape[1:]), image.pixels) for p in pictures]).float() / 255


def _again(objective: Objective, pixels: Tensor) -> Tensor:
    assert objective.image is not None
    return objective.image.decode(objective.image.encode(pixels)).float().cpu()


def _reconstructions(objective: Objective) -> str:
    if not (objective.held and objective.image):
        return ""
    pixels = _originals(objective, SHOWN)
    if not len(pixels):
        return ""
    return _img(grid_image(torch.cat((pixels, _again(objective, pixels))), len(pixels)), "pixel wide")


def _usage(codes: Sequence[Tensor], objective: Objective) -> str:
    return _img(_histogram(torch.cat(list(codes)), objective.image.vocab)) if codes and objective.image else ""


def _left_out(skipped: Sequence[Skip]) -> str:
    rows = (f"<tr><td>{html.escape(show(s.path))}</td><td>{html.escape(s.reason)}</td></tr>" for s in skipped)
    return f"<table>{''.join(rows)}</table>" if skipped else ""


def _settings(run: Run) -> str:
    settings = html.escape((run.folder / "config.json").read_text("utf-8"))
    return f"<details><summary>config.json</summary><pre>{settings}</pre></details>"


def _tiles(drawn: Sequence[Picture]) -> str:
    tiles = (
        f"<figure>{_img(p.image, 'pixel')}<figcaption>{html.escape(p.prompt)}</figcaption></figure>" for p in drawn
    )
    return f"<div class=tiles>{''.join(tiles)}</div>" if drawn else ""


def page(title: str, figures: dict[str, str], sections: Sequence[tuple[str, str]]) -> str:
    table = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in figures.items())
    body = "".join(f"<h2>{html.escape(name)}</h2>{content}" for name, content in sections)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><table>{table}</table>{body}</html>"
    )


def _img(picture: Image.Image, kind: str = "") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f'<img class="{kind}" alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


# Plots.

CURVES = (
    ("reconstruction", "training", "-"),
    ("image", "training, codes", "-"),
    ("text", "training, text", "-"),
    ("held_loss", "held out", "o-"),
)


def plots(run: Run) -> list[Image.Image]:
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


def _histogram(codes: Tensor, vocab: int) -> Image.Image:
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
