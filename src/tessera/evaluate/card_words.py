"""The words of a model card, from facts to Markdown. It reads no file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tessera.config import (
    PRIORS,
    DVAEConfig,
    NetworkConfig,
    PyramidConfig,
    TextToImageConfig,
    TrainConfig,
    VQGANConfig,
    kind_of,
)
from tessera.errors import install
from tessera.evaluate.figures import GROUPS, Evaluation, Figure
from tessera.evaluate.meanings import COVERS
from tessera.evaluate.memorisation import RULE
from tessera.evaluate.telling import number, told
from tessera.generate.defaults import Drawing
from tessera.store.manifest import HELD, LEARNED, TOKENIZER, Manifest


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card is made of."""

    name: str
    """What others call the run: its folder, or its name on a hub."""
    title: str
    config: TrainConfig
    parameters: int
    step: str
    """The checkpoint's name."""
    seconds: float
    """Of training."""
    held: tuple[float, int] | None
    """The best held-out loss, and its step."""
    manifest: Manifest | None
    evaluation: Evaluation | None
    drawing: Drawing | None
    sheet: str
    """A file with drawings; empty where there is none."""

    @property
    def kind(self) -> str:
        return kind_of(self.config.model)


TOKENIZERS = "an image tokenizer (pictures to codes and back)"
WHAT = {"t2i": "a text-to-image transformer",
        "any_order": "a text-to-image transformer that draws in any order, and edits pictures",
        "dvae": TOKENIZERS, "pyramid": TOKENIZERS, "vqgan": TOKENIZERS,
        "clip": "a judge (CLIP), which scores how well a picture fits a caption"}  # fmt: skip
TASKS = {"t2i": "text-to-image", "any_order": "text-to-image", "clip": "zero-shot-image-classification"}
"""The hub's own words, where it has one."""
TITLES = {
    "drawings": "Do the drawings look like the photographs?",
    "text": "Do the drawings show what was asked for?",
    "caption": "What is the caption worth to the model?",
    "likelihood": "How well does it predict pictures that it never saw?",
    "tokenizer": "What do the codes keep of a picture?",
    "copying": "How near are the drawings to the training pictures?",
}


def fields(facts: Facts) -> dict[str, object]:
    """The fields at the top of the card, which a hub reads."""
    task = {"pipeline_tag": TASKS[facts.kind]} if facts.kind in TASKS else {}
    return {"license": "", "library_name": "tessera", **task, "tags": ["tessera", facts.kind]}


def parts(facts: Facts) -> Iterator[str]:
    """The card, part by part; one that has nothing to say is empty."""
    what = WHAT.get(facts.kind, f"a model of kind {facts.kind}")
    yield f"# {plain(facts.title)}"
    yield f"This is {what} with {facts.parameters:,} parameters, trained with Tessera {_on(facts)}."
    yield f"![Drawings, each above its caption]({facts.sheet})" if facts.sheet else ""
    yield f"## How to use it\n\n{USES.get(facts.kind, _show)(facts.name)}"
    yield f"## What it was trained on\n\n{_pictures(facts)}"
    yield f"## Weights of others\n\n{_foreign(facts)}"
    yield f"## Recipe\n\n{_recipe(facts)}"
    yield f"## How good it is\n\n{_figures(facts)}"
    yield _copies(facts)
    yield f"## Limits\n\n{LIMITS[facts.kind]}" if facts.kind in LIMITS else ""


def plain(text: str) -> str:
    """A text that means nothing to Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def _on(facts: Facts) -> str:
    learned = len(facts.manifest.having(LEARNED)) if facts.manifest else 0
    return f"on {learned:,} pictures" if learned else "or taken over from elsewhere"


# How to use it.


def _draw(name: str) -> str:
    return (
        f'```\n{install("hub")}\ntessera generate {name} "what to draw" --count 8\n```\n\n'
        f'```python\nimport tessera\n\npictures = tessera.load("{name}")("what to draw", count=4, seed=7)\n'
        'pictures[0].image.save("picture.png")\n```\n\n'
        "Captions like those that it learned work best. A seed always gives the same picture."
    )


def _encode(name: str) -> str:
    return f"```\ntessera train t2i-s-64 --data.path PICTURES --tokens.image {name} --out runs/prior\n```"


def _rank(name: str) -> str:
    return f'```\ntessera generate RUN "what to draw" --count 4 --best-of 32 --judge {name}\n```'


def _show(name: str) -> str:
    return f"```\ntessera show {name}\n```"


def _edit(name: str) -> str:
    return f'{_draw(name)}\n\n```\ntessera edit {name} picture.png "what the whole picture shows" --mask mask.png\n```'


USES: Mapping[str, Callable[[str], str]] = {
    "t2i": _draw, "any_order": _edit, "dvae": _encode, "pyramid": _encode, "vqgan": _encode, "clip": _rank,
}  # fmt: skip
LIMITS = dict.fromkeys(
    PRIORS,
    "It draws what its pictures show and knows nothing else: words that its captions never used mean nothing to "
    "it. How fine a drawing can be is bounded by what its codes keep of a picture. Nothing filters what it draws.",
)


# What it was made of.


def _pictures(facts: Facts) -> str:
    found = facts.manifest
    if found is None:
        return "Nobody wrote that down: this run was trained before Tessera kept a manifest."
    rows = {
        "pictures that this network learned": len(found.having(LEARNED)),
        "pictures that its image tokenizer learned": len(found.having(TOKENIZER)),
        "pictures held out, by which it is measured": len(set(found.having(HELD)) - set(found.drawn_from)),
        "pictures that left a trace in the weights, in all": len(found.drawn_from),
        "pictures whose file was gone when this was written": found.unread,
    }
    lines = [f"| {what} | {count:,} |" for what, count in rows.items() if count]
    unknown = [f"Nothing is known of what went into {plain(part)}." for part in found.unknown]
    return "\n\n".join(
        [
            "\n".join(["| | |", "|---|---|", *lines]),
            "`manifest.json` has the SHA-256 of every one of them, and neither the pictures nor their names. Who owns "
            f"the files can show that nothing else was used: `tessera data owned PICTURES {facts.name}`.",
            f"The sorted list of those that left a trace has the SHA-256 `{found.digest}`.",
            *unknown,
        ]
    )


OWN_WORDS = ("bpe", "imported")
"""Vocabularies that were made from the run's own captions, or came with the weights."""


def _foreign(facts: Facts) -> str:
    found, lines = facts.manifest, list[str]()
    if found is None:
        lines.append("Nobody wrote down whether any had a part in the training.")
    elif found.foreign:
        shown = (f"{f.part}: {plain(f.name)}{f' (SHA-256 `{f.sha256}`)' if f.sha256 else ''}" for f in found.foreign)
        lines += ["Weights that others trained had a part in the training:", "\n".join(f"- {line}" for line in shown)]
    elif found.unknown:
        lines.append("None that is known of.")
    else:
        lines.append("None: all weights began at random, and learned from the pictures above alone.")
    text = Path(facts.config.tokens.text).name
    if facts.config.model.needs_codes and text not in OWN_WORDS:
        lines.append(
            f"Its captions are cut into the words of another vocabulary (`{plain(text)}`), which has no weights."
        )
    if facts.drawing and facts.drawing.tried:
        lines.append(
            "How it draws was chosen among several ways by what EfficientNet-Lite0 sees, which others trained on "
            "ImageNet; that moved no weight."
        )
    return "\n\n".join(lines)


# The recipe.


def _recipe(facts: Facts) -> str:
    c = facts.config
    rows = {"preset": c.preset, "checkpoint": facts.step, **_sizes(c.model)}
    rows |= {
        "batch": f"{c.optim.batch:,}",
        "optimiser": f"{c.optim.name}, learning rate {c.optim.lr:g}, {c.optim.schedule}",
        "captions left out (for guidance)": f"{c.optim.drop_condition:.0%}" if facts.kind in PRIORS else "",
        "training": f"{facts.seconds / 60:,.1f} minutes" if facts.seconds else "",
        "seed": str(c.seed),
    }
    if facts.drawing:
        s = facts.drawing.sampling
        rows["draws with"] = (
            f"guidance {s.guidance:g}, top-p {s.top_p:g}, top-k {s.top_k:g}, temperature {s.temperature:g}"
        )
    lines = [f"| {what} | {plain(value)} |" for what, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines, "", "All settings are in `config.json`."])


def _sizes(model: NetworkConfig) -> dict[str, str]:
    if isinstance(model, TextToImageConfig):
        t = model.transformer
        return {
            "transformer": f"width {t.dim}, depth {t.depth}, {t.heads} heads of {t.head_dim}",
            "text": f"{model.text_len} tokens of {model.text_vocab:,}",
            "codes": f"{model.grid} x {model.grid} of {model.image_vocab:,}",
        }
    if isinstance(model, DVAEConfig | PyramidConfig | VQGANConfig):
        return {"pictures": f"{model.pixels} px", "codes": f"{model.grid} x {model.grid} of {model.vocab:,}"}
    return {}


# How good it is.


def _figures(facts: Facts) -> str:
    held = f"Best held-out loss: {facts.held[0]:.4f}, at step {facts.held[1]:,}." if facts.held else ""
    e = facts.evaluation
    if e is None:
        return "\n\n".join(filter(None, [held, f"It was not evaluated: `tessera evaluate {facts.name}`."]))
    drawn = f" and {e.pictures['drawn']:,} drawings of held-out captions" if e.pictures.get("drawn") else ""
    counts = (
        f"Measured on {e.pictures.get('held out, looked at', 0):,} held-out pictures{drawn}, each figure with its 95 % "
        "interval. Floor is what senseless pictures or chance get, ceiling what photographs get."
    )
    tables = [_table(group, [f for f in e.figures if f.group == group]) for group in GROUPS]
    notes = "\n".join(f"- {plain(note)}" for note in e.notes)
    return "\n\n".join(filter(None, [held, counts, *tables, plain(COVERS), notes]))


def _table(group: str, of: list[Figure]) -> str:
    """The figures of one group with what senseless pictures (floor) and photographs (ceiling) get."""
    if not of:
        return ""
    arrow = {"higher": "↑", "lower": "↓", "nearer": ""}
    rows = [
        f"| {plain(f.name)} {arrow[f.better]} | {plain(told(f.value))} | {number(f.floor.value) if f.floor else ''} | "
        f"{number(f.ceiling.value) if f.ceiling else ''} |"
        for f in of
    ]
    return "\n".join([f"**{TITLES[group]}**", "", "| figure | model | floor | ceiling |", "|---|---|---|---|", *rows])


def _copies(facts: Facts) -> str:
    if facts.kind not in PRIORS:
        return ""
    e = facts.evaluation
    if e is None or e.verdict is None:
        return "## Does it copy?\n\nThat was not measured."
    return f"## Does it copy?\n\n**It {e.verdict.word}.** {plain(e.verdict.reason)}\n\n{plain(RULE)}"
