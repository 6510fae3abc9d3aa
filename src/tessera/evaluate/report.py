"""report.html: one self-contained page about a run. It knows no engine and no loop."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from tessera.config import kind_of
from tessera.data.check import show
from tessera.data.pictures import grid_image
from tessera.data.sources import Skip
from tessera.evaluate import metrics, plots
from tessera.evaluate.subject import Subject
from tessera.files.atomic import write_whole
from tessera.generate.pipeline import Picture
from tessera.models.saved import parameters
from tessera.store.run import Run

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem;color:#222;background:#fdfcfa}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}img{max-width:100%}
table{border-collapse:collapse}td{padding:.2rem 1.2rem .2rem 0;vertical-align:top}
td:last-child{font-variant-numeric:tabular-nums}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px}figure{margin:0}
.tiles img{width:100%;border-radius:6px}figcaption{font-size:.8rem;color:#555}
.pixel{image-rendering:pixelated}.wide{width:100%}
"""
UNITS = {
    "dvae": "squared error",
    "pyramid": "weighted error",
    "vqgan": "weighted error",
    "t2i": "nats per code",
    "any_order": "nats per code",
    "clip": "nats",
}
"""Of the held-out loss, by kind of model."""
SHOWN, MEASURED = 10, 64
"""Reconstructions on the page, and how many are measured."""


@torch.no_grad()
def write(
    run: Run,
    subject: Subject,
    drawn: Sequence[Picture],
    skipped: Sequence[Skip],
    codes: Tensor | None = None,
    more: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:
    """Write report.html and figures.json into the run folder; returns the figures that stand at its top.

    `codes` are those of the held-out pictures, [B, N], where they are known already; `more` are sections with their
    HTML.
    """
    subject.model.eval()
    pixels = subject.pixels(subject.held, MEASURED) if subject.image else torch.zeros(0)
    own = subject.codes(pixels) if len(pixels) else None
    again = pixels if own is None else subject.decoded(own)
    codes = own if codes is None else codes
    sections = [
        ("Held-out captions, drawn", _tiles(drawn)),
        *more,
        ("Losses", "".join(map(picture, plots.curves(run)))),
        ("Held-out pictures (above) and what their codes keep of them (below)", _reconstructions(pixels, again)),
        ("How often each code is used on held-out pictures", _usage(codes, subject)),
        (f"Left out ({len(skipped)})", _left_out(skipped)),
        ("Settings", _settings(run)),
    ]
    figures = numbers(subject, codes, pixels, again)
    shown = [(name, content) for name, content in sections if content]
    with run.written():
        write_whole(run.folder / "report.html", page(f"Tessera: {run.folder.name}", figures, shown))
        write_whole(run.folder / "figures.json", json.dumps(figures, indent=1))
    return figures


def numbers(subject: Subject, codes: Tensor | None, pixels: Tensor, again: Tensor) -> dict[str, str]:
    """What a reader asks first."""
    counts = f"{len(subject.learned)} learned, {len(subject.held)} held out, {subject.skipped} left out"
    figures = {"captioned pictures": counts, "parameters": f"{parameters(subject.model):,}"}
    held = [(r["held_loss"], r["step"]) for r in subject.curves if "held_loss" in r]
    if held:
        unit = UNITS[kind_of(subject.model.config)]
        figures[f"best held-out loss, {unit}"] = f"{min(held)[0]:.4f} at step {min(held)[1]}"
    if codes is not None and len(codes) and subject.image:
        used, perplexity = metrics.usage(codes, subject.image.vocab)
        figures["best context-free predictor (unigram entropy)"] = f"{metrics.unigram_entropy(codes):.4f}"
        figures["codes in use on held-out pictures"] = f"{used} of {subject.image.vocab}, perplexity {perplexity:.0f}"
    if len(pixels):
        figures["reconstruction of held-out pictures"] = f"{metrics.psnr(again, pixels):.1f} dB"
    return figures


def _reconstructions(pixels: Tensor, again: Tensor) -> str:
    shown = torch.cat((pixels[:SHOWN], again[:SHOWN]))
    return picture(grid_image(shown, len(shown) // 2), "pixel wide") if len(shown) else ""


def _usage(codes: Tensor | None, subject: Subject) -> str:
    return picture(plots.histogram(codes, subject.image.vocab)) if codes is not None and subject.image else ""


def _left_out(skipped: Sequence[Skip]) -> str:
    rows = (f"<tr><td>{html.escape(show(s.path))}</td><td>{html.escape(s.reason)}</td></tr>" for s in skipped)
    return f"<table>{''.join(rows)}</table>" if skipped else ""


def _settings(run: Run) -> str:
    settings = html.escape((run.folder / "config.json").read_text("utf-8"))
    return f"<details><summary>config.json</summary><pre>{settings}</pre></details>"


def _tiles(drawn: Sequence[Picture]) -> str:
    tiles = (
        f"<figure>{picture(p.image, 'pixel')}<figcaption>{html.escape(p.prompt)}</figcaption></figure>" for p in drawn
    )
    return f"<div class=tiles>{''.join(tiles)}</div>" if drawn else ""


def page(title: str, figures: dict[str, str], sections: Sequence[tuple[str, str]]) -> str:
    table = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in figures.items())
    body = "".join(f"<h2>{html.escape(name)}</h2>{content}" for name, content in sections)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><table>{table}</table>{body}</html>"
    )


def picture(of: Image.Image, kind: str = "", form: str = "PNG") -> str:
    """An image inside the page."""
    return f'<img class="{kind}" alt="" src="{data_url(of, form, quality=90)}">'


def data_url(of: Image.Image, form: str, **options: int) -> str:
    """An image as an address that holds it whole; `options` are those of Pillow for the form."""
    buffer = io.BytesIO()
    of.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
