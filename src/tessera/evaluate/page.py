"""evaluation.html: one self-contained page that a stranger understands. It measures nothing and knows no run."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tessera.data.pictures import grid_image, to_image
from tessera.evaluate.figures import GROUPS, Evaluation, Figure
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.looking import floats
from tessera.evaluate.meanings import COVERS
from tessera.evaluate.memorisation import RULE, Verdict
from tessera.evaluate.report import STYLE, picture
from tessera.evaluate.telling import bar, number
from tessera.files.atomic import write_whole

NAME = "evaluation.html"
DRAWN, SUSPECTS, OTHERS, CODED = 24, 12, 12, 12
"""Pictures on the page: drawings, the likeliest copies, others beside their nearest, and reconstructions."""

MORE = """
.verdict{padding:1rem 1.4rem;border-radius:10px;background:#eef4ee;border-left:8px solid #4a8f4f;margin:1.2rem 0}
.verdict.leans{background:#fbf4e3;border-color:#d19a1c}.verdict.copies{background:#fbeaea;border-color:#c23b3b}
.verdict b{font-size:1.35rem;display:block}
table.figures{width:100%}.lines{table-layout:fixed}.lines th:nth-child(n+4){width:4.8rem}
.lines th:nth-child(2){width:12rem}.lines th:nth-child(3){width:14.5rem}
.figures td{border-bottom:1px solid #eee;padding:.45rem .8rem .45rem 0;vertical-align:middle}
.figures th{text-align:left;font-weight:600;font-size:.8rem;color:#555}
.figures small{color:#777;display:block;max-width:24rem;line-height:1.3}
.figures .n{white-space:nowrap;font-variant-numeric:tabular-nums}.figures .v{font-weight:600}
.near{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:16px}.near div{display:flex;gap:4px}
.near img{width:25%;border-radius:4px;image-rendering:pixelated}h3{font-size:1rem;margin:1.6rem 0 .3rem}
.glance{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:14px;margin:1.2rem 0}
.glance div{background:#f3f1ec;border-radius:10px;padding:.8rem 1rem}.glance b{font-size:1.5rem;display:block}
.maps{display:flex;gap:2rem;flex-wrap:wrap}.maps img{width:220px;image-rendering:pixelated}
.key span{margin-right:1.4em}.small{font-size:.85rem;color:#555;font-weight:400}
"""
TITLES = {
    "drawings": "Do the drawings look like the photographs?",
    "text": "Do the drawings show what was asked for?",
    "caption": "What is the caption worth to the model?",
    "likelihood": "How well does the model predict pictures it never saw?",
    "tokenizer": "What do the codes keep of a picture?",
    "copying": "Does it copy?",
}
KINDS = {"draws anew": "anew", "leans on its pictures": "leans", "copies": "copies"}
KEY = (
    "<p class='small key'><span>● the model, with its 95 % interval</span><span>left end: floor, pictures without "
    "sense</span><span>◇ codes: held-out pictures after the image tokenizer</span><span>right end: ceiling, "
    f"photographs</span></p><p class=small>{COVERS}</p>"
)


@dataclass(frozen=True)
class Beside:
    """A drawing and the training pictures that are nearest to it, uint8 [C, S, S]."""

    drawing: Tensor
    kept: Tensor
    """What its codes keep of the nearest one by features: what a copy looks like."""
    seen: Tensor
    """The nearest one by features."""
    pixels: Tensor
    """The nearest one by pixels."""
    caption: str
    suspect: float
    """The distance to the nearest one, against that of this one to its own nearest."""


@dataclass(frozen=True)
class Shown:
    """An evaluation with the pictures that show it."""

    evaluation: Evaluation
    drawn: Sequence[tuple[Tensor, str]]
    beside: Sequence[Beside]
    coded: Tensor
    """Held-out pictures, then the same after the image tokenizer, uint8 [2 R, C, S, S]."""
    senseless: Tensor
    """Pictures of senseless codes, uint8 [R, C, S, S]."""


def write(folder: Path, shown: Shown) -> Path:
    path = folder / NAME
    write_whole(path, whole_page(shown))
    return path


def whole_page(shown: Shown) -> str:
    e = shown.evaluation
    title = f"How good is {e.run}?"
    parts = [(name, content) for name, content in [*sections(shown), *about(e)] if content]
    body = "".join(f"<h2>{html.escape(name)}</h2>{content}" for name, content in parts)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{STYLE}{MORE}</style><h1>{html.escape(title)}</h1>{counts(e)}{verdict(e.verdict)}{glance(e.figures)}"
        f"{body}</html>"
    )


def sections(shown: Shown) -> list[tuple[str, str]]:
    """What belongs into a run's own report too."""
    e = shown.evaluation
    return [
        ("Held-out captions, drawn", tiles(shown.drawn)),
        ("Each drawing beside its nearest training pictures", beside(shown.beside)),
        ("The figures", tables(e.figures)),
        ("Held-out pictures (above), what their codes keep (middle), senseless codes (below)", coded(shown)),
        ("Where in the picture", maps(e)),
        ("Words", words(e)),
    ]


def brief(shown: Shown) -> list[tuple[str, str]]:
    """For the page of `learn`: verdict and figures, and the drawings that look most like copies."""
    style = f"<style>{MORE}</style>"
    return [
        (
            "How good it is",
            style
            + verdict(shown.evaluation.verdict)
            + glance(shown.evaluation.figures)
            + tables(shown.evaluation.figures),
        ),
        ("Drawings beside their nearest training pictures", beside(shown.beside[:SUSPECTS])),
        ("What was not measured", notes(shown.evaluation)),
    ]


def counts(e: Evaluation) -> str:
    n = e.pictures
    drawn = (
        f" {n['drawn']:,} drawings of held-out captions, guidance {number(e.settings['guidance'])}."
        if n["drawn"]
        else ""
    )
    return (
        f"<p>{n['learned']:,} pictures learned, {n['held out']:,} held out; of them {n['learned, looked at']:,} and "
        f"{n['held out, looked at']:,} were looked at.{drawn}</p>"
    )


def verdict(found: Verdict | None) -> str:
    if found is None:
        return ""
    return f"<div class='verdict {KINDS[found.word]}'><b>It {found.word}.</b>{html.escape(found.reason)}</div>"


GLANCE = {
    "subject rate": "of the drawings show the photographs' subject; of the photographs themselves {}",
    "R-precision": "of the drawings fit their own caption best; photographs {}",
    "true caption first": "of held-out pictures are told from their caption; by chance {floor}",
    "words seen": "is how well words are seen in drawings, 0.5 is chance; in photographs {}",
    "class agreement": "of held-out pictures stay recognisable as codes; of senseless pictures {floor}",
}
"""What stands at the top of the page, by a part of a figure's name."""


def glance(figures: Sequence[Figure]) -> str:
    """Four figures that need no explanation."""
    cards = []
    for part, words in GLANCE.items():
        for f in figures:
            if part in f.name and len(cards) < 4:
                of = number if "AUC" in f.name else percent
                ends = [of(x.value) if x else "unknown" for x in (f.ceiling, f.floor)]
                cards.append(f"<div><b>{of(f.value.value)}</b>{words.format(ends[0], floor=ends[1])}</div>")
    return f"<div class=glance>{''.join(cards)}</div>" if cards else ""


def percent(share: float) -> str:
    return f"{share:.0%}"


def tables(figures: Sequence[Figure]) -> str:
    """The figures by group, each on its scale from floor to ceiling."""
    parts = []
    for group in GROUPS:
        rows = "".join(_row(f) for f in figures if f.group == group)
        if rows:
            head = "<tr><th>figure<th>model<th>floor → ceiling<th>floor<th>codes<th>ceiling</tr>"
            parts.append(f"<h3>{TITLES[group]}</h3><table class='figures lines'>{head}{rows}</table>")
    return KEY + "".join(parts) if parts else ""


def _row(f: Figure) -> str:
    others = "".join(f"<td class=n>{number(x.value) if x else ''}</td>" for x in (f.floor, f.codes, f.ceiling))
    arrow = {"higher": "↑", "lower": "↓", "nearer": ""}[f.better]
    name = f"{html.escape(f.name)} {arrow}<small>{html.escape(f.about)}</small>"
    return f"<tr><td>{name}</td><td class='n v'>{interval(f.value)}</td><td>{bar(f)}</td>{others}</tr>"


def interval(e: Estimate) -> str:
    """A figure with its interval where it has one."""
    if e.low == e.value == e.high:
        return number(e.value)
    return f"{number(e.value)} <span class=small>{number(e.low)} … {number(e.high)}</span>"


def tiles(drawn: Sequence[tuple[Tensor, str]]) -> str:
    if not drawn:
        return ""
    shown = (f"<figure>{image(p, 'pixel')}<figcaption>{html.escape(c)}</figcaption></figure>" for p, c in drawn)
    return f"<div class=tiles>{''.join(shown)}</div>"


def beside(rows: Sequence[Beside]) -> str:
    """Drawings with their nearest training pictures, the likeliest copies first."""
    if not rows:
        return ""
    told = (
        "<p class=small>Left the drawing; then the training picture that is nearest by what a network sees, first as "
        "its codes keep it, then as it is; right the one nearest by pixels. Those that look most like copies come "
        "first. The number is the drawing's distance to its nearest training picture, against that picture's distance "
        "to its own nearest: a copy has 0, a picture that is as new as the others 1 or more.</p>"
    )
    cells = (
        f"<figure><div>{''.join(image(p) for p in (b.drawing, b.kept, b.seen, b.pixels))}</div>"
        f"<figcaption>{b.suspect:.2f} · {html.escape(b.caption)}</figcaption></figure>"
        for b in rows
    )
    return f"{told}<div class=near>{''.join(cells)}</div>"


def coded(shown: Shown) -> str:
    columns = len(shown.senseless)
    rows = torch.cat((shown.coded, shown.senseless))
    return picture(grid_image(floats(rows), columns), "pixel wide") if columns else ""


def maps(e: Evaluation) -> str:
    """What each place costs, and what the caption saves there."""
    if not e.nats:
        return ""
    shown = [("Nats that a code costs, by its place", e.nats), ("Nats that the caption saves there", e.worth)]
    cells = (
        f"<figure>{picture(heat(values))}<figcaption>{name}: {number(min(values))} (light) to {number(max(values))} "
        "(dark)</figcaption></figure>"
        for name, values in shown
    )
    return f"<div class=maps>{''.join(cells)}</div>"


def heat(values: Sequence[float]) -> Image.Image:
    """Numbers in reading order as a square picture, from light to dark."""
    side = round(len(values) ** 0.5)
    table = np.array(values[: side * side], dtype=np.float64).reshape(side, side)
    share = (table - table.min()) / max(table.max() - table.min(), 1e-12)
    light, dark = np.array([253, 240, 220]), np.array([140, 30, 20])
    colours = light + share[..., None] * (dark - light)
    return Image.fromarray(colours.round().astype(np.uint8)).resize((side * 12, side * 12), Image.Resampling.NEAREST)


def words(e: Evaluation) -> str:
    """How well each word is seen, drawings against photographs."""
    if not e.words:
        return ""
    told = (
        "<p class=small>Area under the ROC curve of a linear probe that was trained on photographs: 0.5 is chance, 1 "
        "is always. Where photographs stay near 0.5, the network cannot see the word, and drawings are not to "
        "blame.</p>"
    )
    cell = lambda x: f"<td class=n>{'' if x is None else f'{x:.2f}'}</td>"
    rows = (
        f"<tr><td>{html.escape(w.word)}</td>{cell(w.drawings)}{cell(w.photographs)}<td class=n>{w.asked}</td></tr>"
        for w in e.words
    )
    head = "<tr><th>word<th>drawings<th>held-out photographs<th>drawings asked for it</tr>"
    return f"{told}<table class=figures>{head}{''.join(rows)}</table>"


def about(e: Evaluation) -> list[tuple[str, str]]:
    settings = "".join(
        f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in e.settings.items()
    )
    cost = "".join(f"<tr><td>{html.escape(k)}</td><td>{number(v)}</td></tr>" for k, v in e.cost.items())
    return [
        ("How the verdict is made", f"<p>{html.escape(RULE)}</p>" if e.verdict else ""),
        ("What was not measured", notes(e)),
        ("Cost", f"<table>{cost}</table>"),
        ("Settings", f"<table>{settings}</table><p class=small>Model {e.model}, held-out pairs {e.asked}.</p>"),
    ]


def notes(e: Evaluation) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(n)}</li>' for n in e.notes)}</ul>" if e.notes else ""


def image(pixels: Tensor, kind: str = "") -> str:
    """A picture, uint8 [C, S, S]; a large one as WebP, so that the page can be sent by mail."""
    return picture(to_image(floats(pixels)), kind, "PNG" if pixels.shape[-1] <= 96 else "WEBP")
