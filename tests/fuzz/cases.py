"""Cases that are too long to be kept as files, and those that people or attackers thought of: made where they are read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import torch
from harness import Changes, Tree
from kinds_data import packed, saved
from kinds_foreign import torch_bytes

DEEP = 100_000


def edited(file: str, **more: Any) -> Callable[[Tree], Changes]:
    """A JSON file of the tree with other values."""
    return lambda tree: {file: json.dumps({**json.loads(tree[file]), **more}).encode()}


def inside(file: str, part: str, **more: Any) -> Callable[[Tree], Changes]:
    """A JSON file of which one table has other values."""

    def change(tree: Tree) -> Changes:
        content = json.loads(tree[file])
        content[part] |= more
        return {file: json.dumps(content).encode()}

    return change


def put(file: str, content: bytes | str) -> Callable[[Tree], Changes]:
    return lambda tree: {file: content}


def claims(size: int, form: int) -> Callable[[Tree], Changes]:
    """A tar whose first member claims a size; it may be one of the headers that carry a long name."""

    def change(tree: Tree) -> Changes:
        head = tarfile.TarInfo("0.png")
        head.size, head.type = size, bytes([form])
        return {"train.tar": head.tobuf(tarfile.GNU_FORMAT) + tree["train.tar"]}

    return change


def option(name: Any) -> Callable[[Tree], Changes]:
    """One more option of the model in a torch file."""

    def change(tree: Tree) -> Changes:
        content = torch.load(io.BytesIO(tree["a.pt"]), weights_only=True)
        content["hparams"][name] = 3
        return {"a.pt": torch_bytes(content)}

    return change


NEWEST = "run/step-000004"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
SHARD = [("0.png", saved("PNG")), ("0.json", b"[" * DEEP), ("1.png", saved("PNG")), ("1.txt", b"a red bird")]

CASES: list[tuple[str, str, str, Callable[[Tree], Changes]]] = [
    ("csv", "a field over 131,072 letters", "plain", put("metadata.csv", b"file_name,text\na.png," + b"x" * 140_000)),
    ("csv", "a name over 255 letters", "plain", put("metadata.csv", b"file_name,text\n" + b"a" * 300 + b",a red bird\na.png,b\n")),
    ("csv", "a table in UTF-16", "plain", put("metadata.csv", "file_name,text\na.png,red\n".encode("utf-16"))),
    ("jsonl", "a name with a lone surrogate", "plain", put("metadata.jsonl", b'{"file_name": "\\ud800.png", "text": "red"}\n')),
    ("jsonl", "a line nested deeper than the stack", "plain", put("metadata.jsonl", b'{"file_name": "a.png", "text": ' + b"[" * DEEP)),
    ("coco", "nested deeper than the stack", "beside", put("captions.json", b'{"images": ' + b"[" * DEEP)),
    ("coco", "a file name that is a number", "beside", put("captions.json", b'{"images": [{"id": 1, "file_name": 5}], "annotations": []}')),
    ("coco", "a named pipe beside the pictures", "beside", put("more.json", "fifo")),
    ("coco", "a link to nothing beside the pictures", "beside", put("more.json", "link to nothing")),
    ("txt", "a link that points to itself", "utf-8", put("more", "link to itself")),
    ("txt", "a caption that is a picture", "utf-8", put("a.txt", saved("PNG"))),
    ("shards", "one .json nested deeper than the stack", "texts/train.tar", put("train.tar", packed(SHARD))),
    ("prompt.json", "nested deeper than the stack", "out", put("a_red_bird/prompt.json", b"[" * DEEP)),
    ("prompt.json", "empty", "out", put("a_red_bird/prompt.json", b"")),
    ("shards", "a picture that is text", "texts/train.tar", put("train.tar", packed([("0.png", b"a bird"), ("0.txt", b"a red bird")]))),
    ("shards", "a long name of exabytes", "texts/train.tar", claims(2**60, ord("L"))),
    ("shards", "extended headers of terabytes", "texts/train.tar", claims(2**42, ord("x"))),
    ("shards", "a member beyond all offsets", "texts/train.tar", claims(2**80, ord("0"))),
    ("codes", "a part that is a named pipe", "vae", put("codes/part-00000.npy", "fifo")),
    ("dalle", "an option that no release had", "small", option("num_layer")),
    ("dvae", "an option without a name", "new", option(None)),
    ("deepspeed", "latest with lines without end", "whole", put("latest", b"global_step7\n" * 500)),
    ("deepspeed", "latest is not UTF-8", "whole", put("latest", b"\x80\xff")),
    ("deepspeed", "a step that is not a number", "whole", lambda tree: {"latest": "missing", "global_stepx/a": b""}),
    ("deepspeed", "weights that are a list", "whole", lambda tree: {"global_step7/mp_rank_00_model_states.pt": tree["auxiliary.pt"]}),
    ("toml", "a number of thousands of digits", "a", put("a.toml", b"steps = " + b"9" * 5000)),
    ("yaml", "a billion laughs", "a", put("a.yaml", f"{LAUGHS}model: {{target: x, params: {{n_embed: *i}}}}".encode())),
    ("yaml", "nested deeper than the stack", "a", put("a.yaml", b"[" * 5000)),
    ("tokenizers", "an empty model", "yttm.model", put("yttm.model", b"")),
    ("run drawn", "the tokenizer's numbers are null", "run of old", put(f"{NEWEST}/text_tokenizer/config.json", b"null")),
    ("run drawn", "the tokenizer's weights are a named pipe", "run of old", put(f"{NEWEST}/image_tokenizer/weights.safetensors", "fifo")),
    ("run drawn", "layers without end", "run of old", inside(f"{NEWEST}/config.json", "transformer", depth=10**9)),
    ("run drawn", "another width", "run of old", inside(f"{NEWEST}/config.json", "transformer", dim=16)),
    ("run drawn", "a vocabulary of another size", "run of old", edited(f"{NEWEST}/config.json", text_vocab=3)),
    ("run drawn", "a negative grid", "run of old", edited(f"{NEWEST}/config.json", grid=-8)),
    ("run drawn", "best leads out", "run of old", put("run/best", b"../../outside")),
    ("run drawn", "best is empty", "run of old", put("run/best", b"")),
    ("run trained on", "state nested deeper than the stack", "run of old", put(f"{NEWEST}/state/state.json", b'{"a":' * DEEP)),
    ("run trained on", "no optimiser", "run of old", lambda tree: {f: "missing" for f in tree if f.startswith(f"{NEWEST}/optimizer/")}),
    ("run trained on", "no tokenizers", "run of old", lambda tree: {f: "missing" for f in tree if f.startswith(NEWEST) and "_tokenizer/" in f}),
    ("run trained on", "a state that is a list", "run of old", put(f"{NEWEST}/state/state.json", b"[]")),
    ("run trained on", "optimiser state in shards that would run a command", "run of old",
     lambda tree: {f"{NEWEST}/optimizer/.metadata": b"cos\nmkdir\n(Vit_ran\ntR.", f"{NEWEST}/optimizer/state.json": "missing"}),
    ("run trained on", "data that a command would give", "run of old", inside("run/config.json", "data", path="pipe:mkdir it_ran")),
    ("run trained on", "settings that are a list", "run of old", put("run/config.json", b"[]")),
    ("run trained on", "a file in a checkpoint's place", "run of old", put("run/step-000006", b"")),
    ("metrics", "not UTF-8", "run", put("run/metrics.jsonl", b'{"step": 1}\n\xff\xfe\n')),
]  # fmt: skip
"""Kind, what it is, tree, and the changes as a function of the tree."""
