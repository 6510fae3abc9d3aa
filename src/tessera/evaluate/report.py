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
from tessera.data.pictures import grid_image, middle_square, read, resized
from tessera.data.sources import Skip
from tessera.errors import DataError
from tessera.evaluate import metrics
from tessera.evaluate.plots import _histogram, plots
from tessera.files.atomic import write_whole
from tessera.generate.pipeline import Picture
from tessera.models.saved import parameters
from tessera.store.run import Run
from tessera.train.objectives.protocol import Objective

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
