"""JSON trees that hypothesis makes, put at every place of a good file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import kinds_data
import kinds_foreign
import kinds_runs
from harness import Tree
from hypothesis import strategies as st
from kind import Files, Grown
from mutate import NUMBERS, dumped, places, put

WORDS = st.text(st.characters(codec=None), max_size=12)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from(NUMBERS), st.floats(), WORDS,
    st.sampled_from(["", "..", "../outside/thesis.tex", "\ud800", "\0", "/etc/passwd", "nan", 10**400, "a" * 5000]),
)  # fmt: skip
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=8
)


@st.composite
def json_changes(draw: Any, trees: Mapping[str, Tree], below: str = "") -> tuple[str, dict[str, bytes]]:
    """One value of one of a tree's JSON files, or of a line of one, is another tree, gone, or under another name."""
    name = draw(st.sampled_from(sorted(trees)))
    file = draw(
        st.sampled_from([f for f in sorted(trees[name]) if f.startswith(below) and f.endswith((".json", ".jsonl"))])
    )
    lines = trees[name][file].split(b"\n") if file.endswith("l") else [trees[name][file]]
    at = draw(st.integers(0, len(lines) - 1))
    content = json.loads(lines[at] or b"{}")
    path = draw(st.sampled_from(places(content)))
    how, new, word = draw(st.integers(0, 5)), draw(TREES), draw(WORDS)

    def change(parent: Any, key: Any) -> None:
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[word] = parent.pop(key)
        else:
            parent[key] = new

    lines[at] = dumped(put(content, path, change, new))
    return name, {file: b"\n".join(lines)}


def in_json(kind: Files, below: str = "") -> Grown:
    own = {f.name: getattr(kind, f.name) for f in dataclasses.fields(kind)}
    strategy = partial(json_changes, below=below)
    return Grown(**{**own, "name": f"json in {kind.name}", "strategy": strategy})


BY_NAME = {k.name: k for k in [*kinds_data.KINDS, *kinds_runs.KINDS, *kinds_foreign.KINDS]}
KINDS = [
    in_json(BY_NAME["coco"]),
    in_json(BY_NAME["jsonl"]),
    in_json(BY_NAME["run drawn"], "run/"),
    in_json(BY_NAME["run trained on"], "run/"),
    in_json(BY_NAME["codes"], "codes/"),
    in_json(BY_NAME["learn.json"], "learn.json"),
    in_json(BY_NAME["tokenizers"], "tokenizer.json"),
]
KINDS[3] = dataclasses.replace(
    KINDS[3], strategy=lambda trees: json_changes({n: trees[n] for n in ("run", "run of old")}, "run/")
)
KINDS[6] = dataclasses.replace(
    KINDS[6], strategy=lambda trees: json_changes({"tokenizer.json": trees["tokenizer.json"]})
)
