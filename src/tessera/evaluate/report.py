"""report.html: one self-contained page about a run. It knows no training."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tessera.data.check import Health, show
from tessera.data.codes import Codes, write_whole
from tessera.data.folder import Pair
from tessera.data.pictures import grid_image, middle_square, read, resized
from tessera.evaluate import metrics
from tessera.generate.pipeline import Picture, Pipeline
from tessera.models.saved import parameters
from tessera.store import Run

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem;color:#222;background:#fdfcfa}
h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}img{max-width:100%}
table{border-collapse:collapse}td{padding:.2rem 1.2rem .2rem 0;vertical-align:top}
td:last-child{font-variant-numeric:tabular-nums}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:14px}figure{margin:0}
.tiles img{width:100%;border-radius:6px}figcaption{font-size:.8rem;color:#555}
.pixel{image-rendering:pixelated}
"""


def write(
    run: Run, tokenizer: Run, pipeline: Pipeline, held: Sequence[Pair], drawn: Sequence[Picture], health: Health
) -> dict[str, str]:
    """Write report.html and figures.json into the run folder; returns the figures that stand at its top."""
    shown = [_small(p.image, pipeline) for p in list(held)[:12]]
    pixels = torch.stack(shown).float() / 255 if shown else torch.zeros(0, pipeline.image.channels, 8, 8)
    codes = _held_codes(run, held)
    figures, sections = {}, []
    rows, tokenizer_rows = run.read_metrics(), tokenizer.read_metrics()
    figures["captioned pictures"] = f"{len(health.good)} ({len(health.skipped)} left out, {len(held)} held out)"
    figures["parameters of the prior"] = f"{parameters(pipeline.model):,}"
    if len(codes):
        best = min((r["held_loss"] for r in rows if "held_loss" in r), default=float("nan"))
        used, perplexity = metrics.usage(codes, pipeline.image.vocab)
        figures["held-out loss, nats per code"] = f"{best:.4f}"
        figures["best context-free predictor (unigram entropy)"] = f"{metrics.unigram_entropy(codes):.4f}"
        figures["codes in use on held-out pictures"] = f"{used} of {pipeline.image.vocab}, perplexity {perplexity:.0f}"
    if len(pixels):
        again = pipeline.image.decode(pipeline.image.encode(pixels)).cpu()
        figures["reconstruction of held-out pictures"] = f"{metrics.psnr(again, pixels):.1f} dB"
        pair = grid_image(torch.cat((pixels, again)), len(pixels))
        sections.append(("Held-out pictures (above) and what their codes keep of them (below)", _img(pair, "pixel")))
    curves = [("Prior", rows, "nats"), ("Image tokenizer", tokenizer_rows, "squared error")]
    sections.insert(0, ("Losses", "".join(_img(plot(title, r, unit)) for title, r, unit in curves if r)))
    sections.insert(0, ("Held-out captions, drawn", _tiles(drawn)))
    if len(codes):
        sections.append(
            ("How often each code is used on held-out pictures", _img(_histogram(codes, pipeline.image.vocab)))
        )
    left_out = "".join(
        f"<tr><td>{html.escape(show(s.path))}</td><td>{html.escape(s.reason)}</td></tr>" for s in health.skipped
    )
    if left_out:
        sections.append((f"Left out ({len(health.skipped)})", f"<table>{left_out}</table>"))
    settings = html.escape((run.folder / "config.json").read_text("utf-8"))
    sections.append(("Settings", f"<details><summary>config.json</summary><pre>{settings}</pre></details>"))
    write_whole(run.folder / "report.html", page(f"Tessera: {run.folder.name}", figures, sections).encode())
    write_whole(run.folder / "figures.json", json.dumps(figures, indent=1).encode())
    return figures


def _held_codes(run: Run, held: Sequence[Pair]) -> torch.Tensor:
    if not held or not (run.folder / "codes" / "index.json").is_file():
        return torch.zeros(0, 0, dtype=torch.long)
    packed = Codes(run.folder / "codes").only(held)
    return torch.stack([packed.views(i)[0] for i in range(len(held))])


def _small(path: Path, pipeline: Pipeline) -> torch.Tensor:
    picture = read(path, pipeline.image.channels)
    return resized(picture, middle_square(*picture.shape[1:]), pipeline.image.pixels)


def page(title: str, figures: dict[str, str], sections: Sequence[tuple[str, str]]) -> str:
    table = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in figures.items())
    body = "".join(f"<h2>{html.escape(name)}</h2>{content}" for name, content in sections)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><table>{table}</table>{body}</html>"
    )


def _tiles(drawn: Sequence[Picture]) -> str:
    tiles = (
        f"<figure>{_img(p.image, 'pixel')}<figcaption>{html.escape(p.prompt)}</figcaption></figure>" for p in drawn
    )
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _img(picture: Image.Image, kind: str = "") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f'<img class="{kind}" alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def plot(title: str, rows: Sequence[dict[str, Any]], unit: str) -> Image.Image:
    """Training and held-out loss over steps."""
    figure, axes = _figure(title)
    for key, label, style in (
        ("image", "training, codes", "-"),
        ("text", "training, text", "-"),
        ("reconstruction", "training", "-"),
        ("held_loss", "held out", "o-"),
    ):
        points = [(r["step"], r[key]) for r in rows if key in r]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return _drawn(figure)


def _histogram(codes: torch.Tensor, vocab: int) -> Image.Image:
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
