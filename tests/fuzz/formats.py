"""Binary formats made wrong by their parts: chunks, headers and checksums that are right around what is not.

It knows the outside of formats and no reader; `wounded` chooses files of a tree and what is done to them.
"""

from __future__ import annotations

import gzip
import io
import pickletools
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from random import Random

from harness import SPECIAL, Changes, Tree
from mutate import NUMBERS, PAYLOADS, Mutator, anywhere, json_lines, json_tree, text


def png(r: Random, raw: bytes) -> bytes:
    """Chunks with a right checksum."""
    chunks, at = [], 8
    while at + 12 <= len(raw):
        (size,) = struct.unpack(">I", raw[at : at + 4])
        chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]))
        at += 12 + size
    if not chunks:
        return anywhere(r, raw)
    i = r.randrange(len(chunks))
    name, body = chunks[i]
    match r.randrange(6):
        case 0:
            del chunks[i]
        case 1:
            chunks[i:i] = [chunks[i]] * r.choice((1, 40))
        case 2:
            r.shuffle(chunks)
        case 3:
            other = r.choice(
                (
                    b"tRNS",
                    b"PLTE",
                    b"eXIf",
                    b"iCCP",
                    b"zTXt",
                    b"iTXt",
                    b"acTL",
                    b"fcTL",
                    b"fdAT",
                    b"gAMA",
                    b"IEND",
                    b"junk",
                )
            )
            chunks.insert(i, (other, r.choice((b"", r.randbytes(30), body, b"a\0\0" + zlib.compress(bytes(200_000))))))
        case _:
            chunks[i] = (name, anywhere(r, body))
    return raw[:8] + b"".join(
        struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks
    )


def jpeg(r: Random, raw: bytes) -> bytes:
    """Segments with a right length."""
    parts, at = [], 2
    while at + 4 <= len(raw) and raw[at] == 0xFF and raw[at + 1] != 0xDA:
        size = int.from_bytes(raw[at + 2 : at + 4], "big")
        parts.append((raw[at + 1], raw[at + 4 : at + 2 + size]))
        at += 2 + size
    if not parts:
        return anywhere(r, raw)
    i = (
        r.choice([n for n, (mark, _) in enumerate(parts) if mark == 0xE1] or [0])
        if r.random() < 0.5
        else r.randrange(len(parts))
    )
    mark, body = parts[i]
    match r.randrange(5):
        case 0:
            del parts[i]
        case 1:
            parts.insert(r.randrange(len(parts)), parts[i])
        case 2:
            parts[i] = (r.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xC0, 0xC2, 0xC4, 0xDB, 0xDD)), body)
        case _:
            parts[i] = (mark, anywhere(r, body)[:65000])
    return raw[:2] + b"".join(bytes((0xFF, m)) + (len(b) + 2).to_bytes(2, "big") + b for m, b in parts) + raw[at:]


def safetensors(r: Random, raw: bytes) -> bytes:
    """The header, its length, and values that are no numbers."""
    size = int.from_bytes(raw[:8], "little")
    if 8 + size > len(raw) or r.random() < 0.25:
        return anywhere(r, raw)
    header, body = raw[8 : 8 + size], raw[8 + size :]
    match r.randrange(6):
        case 0:
            return (r.choice(NUMBERS) % 2**64).to_bytes(8, "little") + raw[8:]
        case 1:
            at = r.randrange(0, max(1, len(body) - 4), 4) if len(body) > 4 else 0
            bad = struct.pack("<f", r.choice((float("nan"), float("inf"), -1e38, 1e38, 0.0)))
            return raw[:8] + header + body[:at] + bad * r.choice((1, max(1, len(body) // 4 - at // 4))) + body[at + 4 :]
        case 2:
            header = re.sub(
                rb'"F32"', r.choice((b'"BF16"', b'"F64"', b'"I32"', b'"BOOL"', b'"F8_E4M3"')), header, count=1
            )
        case 3:
            header = text(r, header)
        case _:
            header = json_tree(r, header)
    return len(header).to_bytes(8, "little") + header + body


def pickled(r: Random, raw: bytes) -> bytes:
    """Whole opcodes gone, doubled, moved, or others put in between."""
    try:
        starts = [at for _, _, at in pickletools.genops(raw)]
    except Exception:
        starts = []
    if len(starts) < 3 or r.random() < 0.2:
        return anywhere(r, raw)
    ops = [raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)]
    i, j = r.randrange(1, len(ops)), r.randrange(1, len(ops))
    match r.randrange(6):
        case 0:
            del ops[i]
        case 1:
            ops.insert(j, ops[i])
        case 2:
            ops[i], ops[j] = ops[j], ops[i]
        case 3:
            ops.insert(i, r.choice(PAYLOADS))
        case 4:
            small = r.choice(
                (
                    b"N",
                    b"]",
                    b"}",
                    b")",
                    b"(",
                    b"0",
                    b"K\x05",
                    b"\x88",
                    b"M\xff\xff",
                    b"J\xff\xff\xff\xff",
                    b"G\x7f\xf8" + bytes(6),
                )
            )
            ops[i] = r.choice(
                (small, b"\x8a\x09" + b"\xff" * 8 + b"\0", b"X\x02\0\0\0\xff\xfe", b"h\x00", b"q\x00", b"R", b"b", b".")
            )
        case _:
            numbers = [n for n, op in enumerate(ops) if op[:1] in b"KMJX\x8aG"] or [i]
            n = r.choice(numbers)
            ops[n] = ops[n][:1] + anywhere(r, ops[n][1:])
    return b"".join(ops)


def zipped(r: Random, raw: bytes) -> bytes:
    """torch's zips: a member changed, gone, renamed or doubled, and the whole zipped again."""
    if r.random() < 0.25:
        return anywhere(r, raw)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as old:
            members = [(n, old.read(n)) for n in old.namelist()]
    except Exception:
        return anywhere(r, raw)
    central = [i for i, (n, _) in enumerate(members) if n.endswith("data.pkl")]
    i = r.choice(central) if central and r.random() < 0.7 else r.randrange(len(members))
    name, body = members[i]
    match r.randrange(10):
        case 0:
            del members[i]
        case 1:
            members[i] = (r.choice((name + "x", "../" + name, "data.pkl", "archive/data/0")), body)
        case 2:
            members.append((name, anywhere(r, body)))
        case _:
            members[i] = (name, (pickled if name.endswith(".pkl") else anywhere)(r, body))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", r.choice((0, 0, 0, 8))) as new:
        warnings.simplefilter("ignore")
        for name, body in members:
            new.writestr(zipfile.ZipInfo(name), body)
    return buffer.getvalue()


def torch_file(r: Random, raw: bytes) -> bytes:
    return (zipped if raw[:2] == b"PK" else pickled)(r, raw)


def tar(r: Random, raw: bytes) -> bytes:
    """Headers with a right checksum, strange members, blocks gone or moved."""
    if raw[:2] == b"\x1f\x8b":
        return gzipped(r, raw, tar)
    data = bytearray(raw)
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads or r.random() < 0.2:
        return anywhere(r, raw)
    at = r.choice(heads)
    match r.randrange(8):
        case 0:
            names = (
                b"../outside/thesis.tex",
                b"/etc/passwd",
                b"a" * 100,
                b"\xff\xfe.png",
                b"",
                b".png",
                b"a.png/b.txt",
                b"0001.PNG",
                b"./0000.png",
            )
            data[at : at + 100] = r.choice(names).ljust(100, b"\0")
        case 1:
            sizes = (
                b"77777777777\0",
                b"00000000000\0",
                b"-0000000001\0",
                b"\x80" + b"\xff" * 11,
                b"\xff" * 12,
                b"99999999999\0",
                b"            ",
            )
            data[at + 124 : at + 136] = r.choice(sizes)
        case 2:
            data[at + 156] = ord(r.choice("0123456789gxLKSNVA\0Z"))
        case 3:
            data[at + 157 : at + 257] = r.choice((b"../outside/thesis.tex", b"0000.png", b"\xff" * 99)).ljust(
                100, b"\0"
            )
        case 4:
            spot = at + r.randrange(0, 500)
            data[spot] = r.randrange(256)
        case 5:
            data[at:at] = _member(r)
            return bytes(data)
        case 6:
            del data[at : at + 512]
            return bytes(data)
        case 7:
            return bytes(data[: at + r.choice((0, 100, 512, 600, 1024))])
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


def _member(r: Random) -> bytes:
    info = tarfile.TarInfo(
        r.choice(("0000.png", "0000.json", "x.y.z.txt", "0000.txt", "é\u2028.txt", "a" * 300 + ".txt", "0009.jpg"))
    )
    body = r.choice(
        (b"", b"[" * 100_000, b'{"caption": [1, {"a": 2}]}', b"\xff\xfea\0", b"x" * 600, b"\0" * 10, r.randbytes(700))
    )
    info.size, info.type = len(body), r.choice((b"0", b"0", b"0", b"1", b"2", b"3", b"5", b"6", b"S"))
    info.linkname = r.choice(("0000.png", "../outside/thesis.tex", "nowhere"))
    if info.type != b"0":
        info.size, body = 0, b""
    head = info.tobuf(r.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)), errors="replace")
    return head + body.ljust(-(-len(body) // 512) * 512, b"\0")


def gzipped(r: Random, raw: bytes, inner: Mutator = anywhere) -> bytes:
    try:
        return gzip.compress(inner(r, gzip.decompress(raw)), 1, mtime=0) if r.random() < 0.6 else anywhere(r, raw)
    except Exception:
        return anywhere(r, raw)


def npy(r: Random, raw: bytes) -> bytes:
    """The header of an array, padded as it must be, and the numbers behind it."""
    size = int.from_bytes(raw[8:10], "little")
    if not raw.startswith(b"\x93NUMPY") or r.random() < 0.3:
        return anywhere(r, raw)
    header = raw[10 : 10 + size].decode("latin-1")
    match r.randrange(4):
        case 0:
            header = re.sub(
                r"'descr': '[^']*'",
                f"'descr': '{r.choice(('|O', '<f4', '<i8', '|V2', '<U3', '>u2', '|b1', '<M8[s]', 'x'))}'",
                header,
            )
        case 1:
            shape = tuple(
                abs(r.choice(NUMBERS)) if r.random() < 0.5 else r.choice((0, 1, 3, 16)) for _ in range(r.randrange(5))
            )
            header = re.sub(r"\([\d, ]*\)", str(shape), header)
        case 2:
            header = header.replace("'fortran_order': False", "'fortran_order': True")
        case 3:
            header = text(r, header.encode("latin-1")).decode("latin-1")
    head = header.encode("latin-1", "replace").rstrip()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return raw[:8] + (len(head) % 65536).to_bytes(2, "little") + head + raw[10 + size :]


AWARE: Mapping[str, Mutator] = {
    ".png": png, ".jpg": jpeg, ".jpeg": jpeg, ".json": json_tree, ".jsonl": json_lines, ".safetensors": safetensors, ".pt": torch_file,
    ".ckpt": torch_file, ".pkl": torch_file, ".tar": tar, ".gz": gzipped, ".npy": npy, ".metadata": pickled,
}  # fmt: skip
"""By the end of a file's name."""
TEXTS = (".csv", ".txt", ".yaml", ".toml", ".json", ".jsonl", ".model", "best", "latest", ".tessera")


def mutated(r: Random, name: str, raw: bytes) -> bytes:
    """The file wounded once or a few times."""
    end = "." + name.rpartition(".")[2] if "." in name else name
    for _ in range(r.choice((1, 1, 1, 2, 4))):
        choice = r.random()
        if end in AWARE and choice < 0.6:
            raw = AWARE[end](r, raw)
        elif end in TEXTS and choice < 0.85:
            raw = text(r, raw)
        else:
            raw = anywhere(r, raw)
    return raw


def wounded(r: Random, trees: Mapping[str, Tree], fixed: Sequence[str] | frozenset[str] = ()) -> tuple[str, Changes]:
    """One of the trees, with one file or a few changed, gone, or no longer a file."""
    name = r.choice(sorted(trees))
    tree = trees[name]
    files = [f for f in sorted(tree) if f not in fixed]
    changes: dict[str, bytes | str] = {}
    for file in r.sample(files, min(len(files), r.choice((1, 1, 1, 1, 2, 3)))):
        chance = r.random()
        if chance < 0.04:
            changes[file] = r.choice(SPECIAL)
        elif chance < 0.06:
            changes[file] = tree[r.choice(files)]
        else:
            changes[file] = mutated(r, file, tree[file])
    return name, changes
