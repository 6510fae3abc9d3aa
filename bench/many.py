"""A million pairs through the command line: packed, read, encoded, read again, each in a process of its own, with its
seconds and the most memory it had. Two ranks take turns where work is shared.

    python bench/many.py FOLDER [--pairs 1000000]
    python bench/many.py FOLDER --listed      # codes alone, made by chance: what the parts and their index cost

The pictures are tiny JPEGs, so that what is measured is what a pair costs, not what a pixel costs. FOLDER must not be
there; it is left, to be removed by whoever named it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
import torch

from common import row
from tessera.config import DataConfig, DVAEConfig, Lookup
from tessera.data.batches import Captions, NoCaptions, Packed, Pictures, stream
from tessera.data.codes import Codes
from tessera.data.find import find
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.tokens import image as image_tokens
from tessera.tokens.text import train_bpe

SIDE, EACH, READ, BATCH = 16, 1000, 65_536, 256
"""Side of a picture, pictures in a folder, pairs that are read in training order, pairs in a batch."""


def draw(folder: Path, pairs: int) -> None:
    """Pictures in folders of a thousand, and one table of captions."""
    noise = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w") as table:
        for i in range(pairs):
            name = f"{i // EACH:05d}/{i:08d}.jpg"
            if i % EACH == 0:
                (folder / name).parent.mkdir()
            pixels = np.repeat(np.repeat(noise.integers(0, 255, (4, 4, 3), dtype=np.uint8), 4, 0), 4, 1)
            (folder / name).write_bytes(simplejpeg.encode_jpeg(pixels, quality=80))
            table.write(json.dumps({"file_name": name, "text": f"picture {i} of many, drawn by chance"}) + "\n")


def network(folder: Path) -> None:
    torch.manual_seed(0)
    config = DVAEConfig(pixels=SIDE, layers=2, hidden=16, resblocks=0, quantizer=Lookup(codes=256, code_dim=8))
    saved.write(folder, DiscreteVAE(config).eval())


def read_shards(folder: str) -> float:
    """Pairs a second, pictures decoded and cropped, in the order of an epoch."""
    pairs = find(folder).pairs
    source = Pictures(pairs, DataConfig(path=folder), SIDE, 3, 0, NoCaptions())
    return paced(stream(source, len(pairs), BATCH, 0, 0))


def read_codes(folder: str) -> float:
    codes = Codes(Path(folder))
    words = train_bpe([c for p in codes.pairs[:EACH] for c in p.captions], 400)
    return paced(stream(Packed(codes, Captions(codes.pairs, words, 32, True), 0), len(codes), BATCH, 0, 0))


def paced(batches) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    for _ in range(READ // BATCH):
        next(batches)
    return READ / (time.perf_counter() - began)


def list_codes(folder: str, pairs: int) -> float:
    """Pairs a second written as parts of random codes with their index; no picture is read."""
    from tessera.data import codes
    from tessera.data.sources import Pair

    noise = np.random.default_rng(0)
    listed = [
        Pair(f"{i:08d}.jpg", Path(f"{i:08d}.jpg"), (f"picture {i} of many, drawn by chance",)) for i in range(pairs)
    ]
    codes._encode_part = lambda numbered, *rest: noise.integers(0, 256, (len(numbered), 1, 64), dtype=np.uint16)
    network(Path(folder) / "vae")
    began = time.perf_counter()
    tokenizer = image_tokens.load(Path(folder) / "vae")
    codes.encode(listed, tokenizer, Path(folder) / "codes", 1, DataConfig(), 0, per_part=10_000)
    return pairs / (time.perf_counter() - began)


READERS: dict[str, Callable[[str], float]] = {"shards": read_shards, "codes": read_codes}


def phase(name: str, pairs: int, *words: object) -> None:
    """A row for one process: its seconds, and the most memory that it or a process of its own had."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    said = process.stdout.read().strip().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed: {said}")
    took = time.perf_counter() - began
    rate = {"read_per_s": round(float(said[-1]))} if str(words[0]) == __file__ else {"said": said[-2:]}
    row("many", configuration=name, pairs=pairs, seconds=round(took, 1), cpu_s=round(used.ru_utime + used.ru_stime, 1),
        peak_gb=round(used.ru_maxrss / 2**20 * 1.073741824, 3), pairs_per_s=round(pairs / took), **rate)  # fmt: skip


def size(folder: Path) -> tuple[int, int]:
    """Files in a folder, and their bytes."""
    found = [e.stat().st_size for e in os.scandir(folder) if e.is_file()]
    return len(found), sum(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--read", choices=READERS)
    parser.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--listed", action="store_true", help="codes alone, made by chance")
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.read:
        print(READERS[a.read](a.folder))
        return
    if a.list:
        print(list_codes(a.folder, a.pairs))
        return
    root, n = Path(a.folder), a.pairs
    if a.listed:
        phase("write listed codes", n, __file__, root, "--list", "--pairs", n)
        phase("read listed codes", n, __file__, root / "codes", "--read", "codes")
        files, held = size(root / "codes")
        index = (root / "codes" / "index.json").stat().st_size
        row("many", configuration="size of listed codes", pairs=n, files=files, bytes=held, index_bytes=index)
        return
    pictures, shards, codes = root / "pictures", root / "shards", root / "codes"
    draw(pictures, n)
    network(root / "vae")
    tessera = ("-m", "tessera", "data")
    for rank in (0, 1):
        phase(f"pack, rank {rank} of 2", n, *tessera, "pack", pictures, shards, "--per-shard", 10_000, "--rank", rank,
              "--ranks", 2)  # fmt: skip
    phase("read shards", n, __file__, shards, "--read", "shards")
    for rank in (0, 1):
        phase(f"encode, rank {rank} of 2", n, *tessera, "encode", shards, codes, "--tokens", root / "vae", "--views", 1,
              "--per-part", 10_000, "--rank", rank, "--ranks", 2, "--device", "cpu")  # fmt: skip
    phase("read codes", n, __file__, codes, "--read", "codes")
    phase("verify codes", n, *tessera, "verify", codes)
    for name in (shards, codes):
        files, held = size(name)
        index = (name / "index.json").stat().st_size if (name / "index.json").is_file() else 0
        row("many", configuration=f"size of {name.name}", pairs=n, files=files, bytes=held, index_bytes=index)


if __name__ == "__main__":
    main()
