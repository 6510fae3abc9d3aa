"""Bytes made wrong, as a function of a source of choices: anywhere, and where a format is sensitive.

It knows the outside of formats (chunks, headers, checksums) and no reader. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

Mutator = Callable[[Random, bytes], bytes]

NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 10**9,
           2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -128, -(2**31), -(2**63))  # fmt: skip
WORDS = ("", " ", "\0", "\n", "\r\n", ",", ";", "\t", '"', "'", "\\", "/", "..", "../outside/thesis.tex", "/etc/passwd", "~", "{}", "[]",
         "null", "true", "nan", "NaN", "inf", "-Infinity", "1e999", "-1", "0", "1e23", str(10**30), "9" * 5000, "é", "\ufeff", "\u2028",
         "\x85", "\ud800", "\\ud800", "𝔸", "\u202e", "pipe:mkdir it_ran", "gs://a'b;mkdir it_ran", "http://127.0.0.1:9/x.tar", "hf:x",
         "a" * 300, "x" * 140000, "%s%n", "{", "}", "[" * 3000, "(" * 3000, "&a [*a]", "!!python/object/apply:os.mkdir [it_ran]",
         "file_name", "text", "caption", "annotations", "images", "id", "image_id", "a.png", "<0x00>")  # fmt: skip
PAYLOADS = (b"cos\nmkdir\n(Vit_ran\ntR", b"cos\nsystem\n(Vmkdir it_ran\ntR", b"(Vit_ran\nios\nmkdir\n",
            b"\x8c\x02os\x8c\x05mkdir\x93\x8c\x06it_ran\x85R", b"cbuiltins\nexec\n(Vimport os; os.mkdir('it_ran')\ntR",
            b"cargparse\nNamespace\n)\x81}Vx\nVy\nsb", b"cnumpy.core.multiarray\nscalar\n", b"cpathlib.\nPath\n",
            b"ctorch.nn.modules.conv\nConv2d\n)\x81")  # fmt: skip


# Anywhere.


def anywhere(r: Random, raw: bytes) -> bytes:
    """One of the usual wounds, at a place that lies near the beginning as often as not."""
    data = bytearray(raw)
    size = len(data)
    if not size:
        return r.randbytes(r.randrange(1, 40))
    at = min(r.randrange(size), r.randrange(size)) if r.random() < 0.5 else r.randrange(size)
    length = min(size - at, r.choice((1, 2, 4, 8, 16, 64, 512, size)))
    part = bytes(data[at : at + length])
    match r.randrange(11):
        case 0 | 1:
            for _ in range(r.choice((1, 1, 2, 8))):
                data[r.randrange(at, size)] ^= 1 << r.randrange(8)
        case 2:
            data[at] = r.choice((0, 1, 127, 128, 255, r.randrange(256)))
        case 3:
            number, wide = r.choice(NUMBERS), r.choice((2, 4, 8))
            data[at : at + wide] = (number % 2 ** (8 * wide)).to_bytes(wide, r.choice(("little", "big")))
        case 4:
            del data[at:]
        case 5:
            del data[at : at + min(length, 64)]
        case 6:
            data[at:at] = part * r.choice((1, 2, 50))
        case 7:
            data[at:at] = r.choice(
                (r.randbytes(8), bytes(16), b"\xff" * 16, r.choice(WORDS).encode("utf-8", "replace"))
            )
        case 8:
            other = r.randrange(size)
            data[at : at + length] = raw[other : other + length]
        case 9:
            data[at : at + length] = bytes([r.choice((0, 255))]) * length
        case 10:
            data = bytearray(
                r.choice((b"", raw + raw, raw + r.randbytes(20), raw[at:], raw[::-1][:at], r.randbytes(50)))
            )
    return bytes(data)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def text(r: Random, raw: bytes) -> bytes:
    """Lines, words, numbers, encodings."""
    words = raw.decode("utf-8", "replace")
    lines = words.split("\n")
    i = r.randrange(len(lines))
    at = r.randrange(len(words) + 1)
    match r.randrange(10):
        case 0 | 1:
            return _encoded(words[:at] + r.choice(WORDS) + words[at:])
        case 2 | 3:
            found = list(re.finditer(r"[\w.+-]+", words)) or [re.match("", words)]
            hit = r.choice(found)
            new = r.choice((r.choice(WORDS), str(r.choice(NUMBERS)), words[slice(*r.choice(found).span())]))
            return _encoded(words[: hit.start()] + new + words[hit.end() :])
        case 4:
            return _encoded("\n".join(lines[:i] + lines[i + 1 :]))
        case 5:
            return _encoded("\n".join(lines[:i] + [lines[i]] * r.choice((2, 30)) + lines[i:]))
        case 6:
            j = r.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            return _encoded("\n".join(lines))
        case 7:
            return words.encode(
                r.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "shift_jis")), "replace"
            )
        case 8:
            marks = [m.start() for m in re.finditer(r"[^\w\s]", words)] or [0]
            mark = r.choice(marks)
            return _encoded(words[:mark] + r.choice(("", words[mark : mark + 1] * 2, "\\", '"')) + words[mark + 1 :])
    return anywhere(r, raw)


# JSON, by its tree.


def value(r: Random) -> Any:
    """A value that nobody expected."""
    deep: Any = 0
    for _ in range(r.choice((1, 3, 400))):
        deep = r.choice(([deep], {"a": deep}))
    return r.choice((None, True, False, r.choice(NUMBERS), r.choice(NUMBERS), r.choice(WORDS), float("nan"), float("inf"), -0.5, 1e308,
                     10**400, [], {}, [[]], [None], {"": None}, deep, [r.choice(NUMBERS)] * 3, {r.choice(WORDS): 1}, "a" * 100_000))  # fmt: skip


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """The path to every value in a tree, its root too; of a long list the first and the last."""
    found = [path]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    items = list(items)
    for key, child in items if len(items) < 40 else items[:20] + items[-20:]:
        found += places(child, (*path, key))
    return found


def put(tree: Any, path: tuple, change: Callable[[Any, Any], None], root: Any) -> Any:
    """The tree with `change(parent, key)` done at a path; the root is replaced by `root`."""
    if not path:
        return root
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return tree


def dumped(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def json_tree(r: Random, raw: bytes) -> bytes:
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError):
        return text(r, raw)
    found = places(tree)
    path, new, other = r.choice(found), value(r), r.choice(WORDS)
    how = r.randrange(8)

    def change(parent: Any, key: Any) -> None:
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[other] = parent.pop(key)
        elif how == 2 and isinstance(parent, list):
            parent[key:key] = [parent[key]] * r.choice((1, 50))
        elif how == 3:
            parent[key] = [parent[key]]
        elif how == 4 and isinstance(parent[key], int | float):
            parent[key] = r.choice(
                (parent[key] * r.choice((-1, 2, 1000, 0.5)), parent[key] + r.choice((-1, 1)), r.choice(NUMBERS))
            )
        else:
            parent[key] = new

    if r.random() < 0.03:  # deeper than a stack
        return b'{"a":' * r.choice((2000, 100_000)) + b"1"
    return dumped(put(tree, path, change, new))


def json_lines(r: Random, raw: bytes) -> bytes:
    lines = raw.split(b"\n")
    i = r.randrange(len(lines))
    lines[i] = r.choice((json_tree, text))(r, lines[i])
    return b"\n".join(lines)
