"""What a data set is made of: pictures, tables, texts, shards. Good ones, and who reads them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from formats import wounded
from harness import Tree
from kind import Files
from PIL import Image

from tessera.data import check, pictures, shards
from tessera.files import download


def plain(mode: str, size: tuple[int, int] = (12, 9)) -> Image.Image:
    """A small picture with something in it."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    colour = Image.fromarray(noise, "RGBA")
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(noise[..., 0].astype(kind) * kind(257))
    return colour.convert(mode) if mode != "PA" else colour.convert("P").convert("PA")


def saved(form: str, mode: str = "RGB", **more: Any) -> bytes:
    buffer = io.BytesIO()
    plain(mode).save(buffer, form, **more)
    return buffer.getvalue()


def exif() -> Image.Exif:
    """Turned, with a place, a text and a thumbnail's directory."""
    found = Image.Exif()
    found[274], found[270], found[306], found[33434] = 6, "a bird", "2026:11:24 10:00:00", (1, 125)
    found.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 1.5), 29: "2026:11:24"})
    found.get_ifd(0x8769).update({36867: "2026:11:24 10:00:00", 37386: (50, 1), 40962: 12})
    return found


FOREIGN = {"avif": "AVIF", "jp2": "JPEG2000", "ico": "ICO", "ppm": "PPM", "pcx": "PCX", "tga": "TGA", "dds": "DDS", "sgi": "SGI",
           "eps": "EPS", "icns": "ICNS", "im": "IM", "msp": "MSP", "xbm": "XBM", "pdf": "PDF", "mpo": "MPO"}  # fmt: skip
"""Formats that Pillow knows and a data set may hold by a wrong name."""


def picture_files() -> dict[str, Tree]:
    made: dict[str, Callable[[], bytes]] = {}
    for mode in ("RGB", "L", "CMYK"):
        made[f"jpeg {mode}/a.jpg"] = partial(saved, "JPEG", mode)
        made[f"jpeg {mode} turned/a.jpg"] = partial(saved, "JPEG", mode, exif=exif(), comment=b"a bird")
    made["jpeg progressive/a.jpg"] = partial(saved, "JPEG", progressive=True, icc_profile=b"x" * 200, dpi=(72, 72))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        made[f"png {mode}/a.png"] = partial(saved, "PNG", mode)
    made["png turned/a.png"] = partial(saved, "PNG", "RGBA", exif=exif())
    made["png transparent/a.png"] = partial(saved, "PNG", "P", transparency=3)
    made["png grey transparent/a.png"] = partial(saved, "PNG", "L", transparency=3)
    made["gif/a.gif"] = partial(saved, "GIF", "P", transparency=1)
    made["gif moving/a.gif"] = partial(saved, "GIF", "P", save_all=True, append_images=[plain("L")], disposal=2)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        made[f"bmp {mode}/a.bmp"] = partial(saved, "BMP", mode)
    for name, more in {"lossy": {}, "lossless": {"lossless": True}, "turned": {"exif": exif()}}.items():
        made[f"webp {name}/a.webp"] = partial(saved, "WEBP", "RGBA", **more)
    made["webp moving/a.webp"] = partial(saved, "WEBP", save_all=True, append_images=[plain("RGB")])
    for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"):
        made[f"tiff {mode}/a.tif"] = partial(saved, "TIFF", mode)
    for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"tiff {way}/a.tiff"] = partial(saved, "TIFF", compression=way)
    made["tiff pages/a.tif"] = partial(saved, "TIFF", save_all=True, append_images=[plain("L")], exif=exif())
    made["text/a.png"] = lambda: b"a red bird\n"
    for name, form in FOREIGN.items():
        made[f"foreign {name}/a.jpg"] = partial(saved, form, "1" if form in ("MSP", "XBM") else "RGB")
    trees: dict[str, Tree] = {}
    for place, make in made.items():
        name, _, file = place.partition("/")
        try:
            trees[name] = {file: make()}
        except (OSError, KeyError):  # this Pillow was built without it
            continue
    return trees


def read_picture(folder: Path, tree: str) -> None:
    file = next(folder.iterdir(), folder / "gone.png")
    for channels in (3, 1, 4):
        found = pictures.read(file, channels)
        assert found.shape[0] == channels


PICTURES = Files(
    name="pictures",
    make=picture_files,
    read=read_picture,
    vary=wounded,
    nameless=True,
    refused=("foreign", "text"),
)


# Tables and texts.


def two() -> dict[str, bytes]:
    return {"a.png": saved("PNG"), "b.jpg": saved("JPEG", "L")}


def parquet(texts: Any) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    table = pyarrow.table({"file_name": ["a.png", "b.jpg"], "text": texts})
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def csv_files() -> dict[str, Tree]:
    tables = {
        "plain": 'file_name,text\na.png,a red bird\nb.jpg,"a ""blue"" bird, sitting\non a line"\n',
        "more columns": "id,file_name,caption,split\n1,a.png,a red bird,train\n2,b.jpg,a blue bird,train\n3,a.png,again,x\n",
    }
    return {n: {**two(), "metadata.csv": t.encode()} for n, t in tables.items()}


def jsonl_files() -> dict[str, Tree]:
    tables = {
        "plain": [
            {"file_name": "a.png", "text": "a red bird"},
            {"file_name": "b.jpg", "text": "ein blauer Vogel, größer"},
        ],
        "lists": [
            {"file_name": "a.png", "captions": ["a red bird", "red"]},
            {"file_name": "./b.jpg", "text": "x", "more": {"a": [1]}},
        ],
    }
    return {n: {**two(), "metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()} for n, rows in tables.items()}


def parquet_files() -> dict[str, Tree]:
    columns = {
        "plain": ["a red bird", "a blue bird"],
        "lists": [["a red bird"], ["a", "b"]],
        "binary": [b"a red bird", b"b"],
    }
    return {n: {**two(), "metadata.parquet": parquet(texts)} for n, texts in columns.items()}


def coco_files() -> dict[str, Tree]:
    info = {"description": "birds", "year": 2017}
    listed = [{"id": 1, "file_name": "a.png", "width": 12, "height": 9}, {"id": 2, "file_name": "b.jpg", "license": 3}]
    told = [{"id": 7, "image_id": 1, "caption": "a red bird"}, {"id": 8, "image_id": 2, "caption": "blue"},
            {"id": 9, "image_id": 1, "caption": "a bird, red"}]  # fmt: skip
    boxes = [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4.5]}]
    captions = json.dumps({"info": info, "images": listed, "annotations": told}).encode()
    instances = json.dumps({"info": info, "images": listed, "annotations": boxes}).encode()
    official = {f"annotations/{n}_train2017.json": c for n, c in (("captions", captions), ("instances", instances))}
    return {
        "beside": {**two(), "captions.json": captions},
        "in annotations": {**two(), "annotations/captions.json": captions},
        "official": {**{f"train2017/{n}": c for n, c in two().items()}, **official},
    }


def text_files() -> dict[str, Tree]:
    words = "a red bird, größer\nsecond caption\n"
    trees = {code: words.encode(code) for code in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1")}
    found: dict[str, Tree] = {n: {**two(), "a.txt": raw, "b.txt": b"a blue bird"} for n, raw in trees.items()}
    found["two trees"] = {
        "images/1/a.png": saved("PNG"),
        "texts/1/a.txt": b"red",
        "images/2/a.png": saved("PNG"),
        "texts/2/a.txt": b"b",
    }
    found["with a json"] = {**two(), "a.txt": b"red", "b.txt": b"blue", "notes.json": b'{"images": "none of them"}'}
    return found


def read_data(folder: Path, tree: str) -> None:
    found = check.check(str(folder), cache=folder / ".cache" / "data.json")
    assert found.good
    found.to_json()


def data_kind(name: str, make: Callable[[], Mapping[str, Tree]], pictures_too: bool = False) -> Files:
    fixed = frozenset() if pictures_too else frozenset({"a.png", "b.jpg", "train2017/a.png", "train2017/b.jpg"})
    return Files(name=name, make=make, read=read_data, vary=partial(wounded, fixed=fixed))


CSV = data_kind("csv", csv_files)
JSONL = data_kind("jsonl", jsonl_files)
PARQUET = data_kind("parquet", parquet_files)
COCO = data_kind("coco", coco_files)
TXT = data_kind("txt", text_files, pictures_too=True)


# Shards.


def packed(members: Sequence[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, bufsize=512) as tar:
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()[: -(-sum(1024 + len(b) for _, b in members) // 512) * 512 + 20480]


def shard_files() -> dict[str, Tree]:
    picture, told = saved("PNG"), json.dumps({"caption": "a red bird", "width": 12}).encode()
    texts = [(f"000{i}.{end}", body) for i in range(2) for end, body in (("png", picture), ("txt", b"a red bird"))]
    fields = [(f"a/000{i}.{end}", body) for i in range(2) for end, body in (("jpg", saved("JPEG")), ("json", told))]
    long = [(f"{'d' * 90}/{'é' * 60}.{end}", body) for end, body in (("png", picture), ("txt", b"red"))]
    return {
        "texts/train.tar": {"train.tar": packed(texts)},
        "json/train.tar": {"train.tar": packed(fields)},
        "long names/train.tar": {"train.tar": packed(long)},
        "pax/train.tar": {"train.tar": packed(long, tarfile.PAX_FORMAT)},
        "zipped/train.tar.gz": {"train.tar.gz": gzip.compress(packed(texts), mtime=0)},
        "a folder/": {"0.tar": packed(texts), "1.tar": packed(fields)},
        "a range/{0..1}.tar": {"0.tar": packed(texts), "1.tar": packed(fields)},
    }


def read_shards(folder: Path, tree: str) -> None:
    """With the cache in the case's own folder."""
    old = shards.CACHE
    shards.CACHE = download.CACHE = folder / "cache"
    try:
        assert check.check(str(folder / tree.partition("/")[2])).good
    finally:
        shards.CACHE = download.CACHE = old


SHARDS = Files(name="shards", make=shard_files, read=read_shards, vary=wounded)

KINDS = [PICTURES, CSV, JSONL, PARQUET, COCO, TXT, SHARDS]
