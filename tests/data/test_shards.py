"""Webdataset shards: local, fetched, damaged; packing; the same samples whatever the ranks and workers."""

from __future__ import annotations

import collections
import gzip
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from small_data import folder, png
from tessera.cli import main
from tessera.config import DataConfig
from tessera.data import hub, packing, shards
from tessera.data.batches import Captions, Pictures, stream
from tessera.data.check import check
from tessera.data.find import find
from tessera.data.pictures import read
from tessera.errors import ConfigError, DataError
from tessera.files import download, own
from tessera.store.run import Run
from tessera.tokens.text import train_bpe


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for stem, columns in samples.items():
            for extension, content in columns.items():
                info = tarfile.TarInfo(f"{stem}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def sample(number: int) -> dict[str, bytes]:
    return {"png": picture(number), "txt": f"shade {number}".encode()}


def folder_of(root: Path, sizes: tuple[int, ...]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = 0
    for i, size in enumerate(sizes):
        write(root / f"part-{i:02d}.tar", {f"{number + j:05d}": sample(number + j) for j in range(size)})
        number += size
    return root


def test_every_way_to_name_shards_finds_the_same(tmp_path):
    root = folder_of(tmp_path / "tars", (3, 5, 4))
    ways = [
        str(root),
        f"{root}/part-{{00..02}}.tar",
        f"{root}/part-0{{0,1,2}}.tar",
        f"pipe:cat {root}/part-00.tar | cat",
    ]
    keys = [[p.key for p in find(way).pairs] for way in ways]
    assert keys[0] == keys[1] == keys[2]
    assert len(keys[0]) == 12
    assert len(keys[3]) == 3
    assert find(str(root)).pairs[4].captions == ("shade 4",)
    with gzip.open(tmp_path / "zipped.tar.gz", "wb") as file:
        file.write((root / "part-01.tar").read_bytes())
    assert len(find(str(tmp_path / "zipped.tar.gz")).pairs) == 5
    with pytest.raises(ConfigError, match="range"):
        find(f"{root}/part-{{a..b}}.tar")
    with pytest.raises(ConfigError, match="more than 1,000,000 shards"):
        find(f"{root}/part-{{0..99999999999}}.tar")


def test_braces_that_are_no_range_stay_as_they_are():
    assert shards.expand("pipe:awk {print} x{1,2}") == ["pipe:awk {print} x1", "pipe:awk {print} x2"]
    assert shards.expand("a{}b}{c") == ["a{}b}{c"]


def zipped(path: Path, number: int) -> None:
    with gzip.open(path, "wb") as file:
        file.write(write(path.with_name("plain.tar"), {"00000": sample(number)}).read_bytes())


@pytest.mark.parametrize("spelling", ["{}", "pipe:cat {}"])
def test_a_zipped_shard_is_read_where_it_lies_and_as_it_is_now(tmp_path, monkeypatch, spelling):
    for number, place in enumerate("ab"):
        (tmp_path / place).mkdir()
        zipped(tmp_path / place / "t.tar.gz", number)
    seen = []
    for place in "ab":
        monkeypatch.chdir(tmp_path / place)
        seen.append(find(spelling.format("t.tar.gz")).pairs[0].captions[0])
    assert seen == ["shade 0", "shade 1"]
    zipped(tmp_path / "b" / "t.tar.gz", 123)
    assert find(spelling.format("t.tar.gz")).pairs[0].captions[0] == "shade 123"


def test_a_zipped_shard_that_is_cut_off_is_named(tmp_path):
    zipped(tmp_path / "t.tar.gz", 1)
    whole = (tmp_path / "t.tar.gz").read_bytes()
    (tmp_path / "t.tar.gz").write_bytes(whole[:-40])
    with pytest.raises(DataError, match="cannot be unpacked"):
        find(str(tmp_path / "t.tar.gz"))


@pytest.mark.parametrize("name", ["guitar.target.png", "backup.tar.gz", "x.tar", "notes.tar.txt"])
def test_a_name_with_tar_in_it_does_not_hide_the_pictures_beside_it(tmp_path, name):
    Image.new("RGB", (9, 9)).save(tmp_path / "guitar.png")
    (tmp_path / "guitar.txt").write_text("a guitar")
    (tmp_path / name).write_bytes(picture(3))
    assert [p.captions for p in find(str(tmp_path)).pairs] == [("a guitar",)]


def test_a_loose_picture_does_not_hide_the_shards_beside_it(tmp_path):
    root = folder_of(tmp_path / "tars", (3, 2))
    (root / "preview.png").write_bytes(picture(1))
    (root / "part-00.tar.md5").write_text("no shard")
    assert len(find(str(root)).pairs) == 5


def test_shards_of_one_name_in_two_folders_keep_their_pictures_apart(tmp_path):
    for name, colour in (("a", "red"), ("b", "blue")):
        data = folder(tmp_path / f"data-{name}", **{"good__png": png(colour), "good__txt": name})
        packing.pack(find(str(data)).pairs, tmp_path / name, 10)
    found = find(f"{tmp_path}/{{a,b}}/shard-000000.tar").pairs
    assert [p.key for p in found] == ["a/shard-000000.tar/000000", "b/shard-000000.tar/000000"]
    assert find(f"{tmp_path}/a/shard-000000.tar").pairs[0].key == "shard-000000.tar/000000"
    assert [int(read(p.image)[0, 0, 0]) for p in found] == [255, 0]
    with pytest.raises(ConfigError, match="named twice"):
        find(f"{tmp_path}/{{a,a}}/shard-000000.tar")


def test_columns(tmp_path):
    about = json.dumps({"caption": "of json", "captions": ["one", "two"], "n": 3}).encode()
    write(
        tmp_path / "a.tar",
        {
            "x/1": {"jpg": picture(1), "json": about},
            "x/2": {"webp": picture(2), "txt": b"first\nsecond\n", "json": about},
            "x/3": {"txt": b"no picture"},
            "x/4": {"png": picture(4)},
            "x/5.y": {"png": picture(5), "json": b"{"},
        },
    )
    found = find(str(tmp_path / "a.tar"))
    assert [p.captions for p in found.pairs] == [("of json",), ("first", "second")]
    assert {s.path.rpartition("/")[2] for s in found.skipped} == {"3", "4", "5"}
    found = find(str(tmp_path / "a.tar"), "json.captions")
    assert [p.captions for p in found.pairs] == [("one", "two")] * 2
    with pytest.raises(DataError, match="none of cls"):
        find(str(tmp_path / "a.tar"), "cls")


def test_damaged_shards_and_members_are_named(tmp_path):
    root = folder_of(tmp_path / "tars", (4, 4, 4))
    whole = (root / "part-01.tar").read_bytes()
    (root / "part-01.tar").write_bytes(whole[: 2 * 2048 + 700])  # in the middle of the third sample
    (root / "part-03.tar").write_bytes(b"these are words, no tar at all" * 40)
    bad = {"00100": {"png": b"no picture", "txt": b"broken"}, "00101": sample(101)}
    write(root / "part-04.tar", bad)
    health = check(str(root))
    keys = [p.key for p in health.pairs]
    assert len([k for k in keys if k.startswith("part-01")]) in (1, 2)
    assert "part-04.tar/00101" in keys
    reasons = {s.path: s.reason for s in health.skipped}
    assert "cut off" in reasons["part-01.tar"] or "damaged" in reasons["part-01.tar"]
    assert "part-03.tar" in reasons
    assert "not a picture" in reasons["part-04.tar/00100"]


@pytest.fixture
def flaky(tmp_path):
    """Serves folders with ranges; every tenth answer breaks off in the middle."""
    counter = collections.Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = tmp_path / self.path[1:]
            if not file.is_file():
                self.send_error(404)
                return
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            body = file.read_bytes()[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            counter["answers"] += 1
            broken = counter["answers"] % 10 == 3
            counter["broken"] += broken
            self.wfile.write(body[: len(body) // 2] if broken else body)

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", counter
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_an_epoch_over_a_server_that_drops_connections(tmp_path, flaky):
    """Each good sample exactly once over 2 ranks x 2 workers; the cut shard and the missing one are named."""
    url, counter = flaky
    root = folder_of(tmp_path / "tars", (5, 7, 6, 5, 8, 5, 6, 7, 5, 6, 5, 7))
    cut = (root / "part-04.tar").read_bytes()
    (root / "part-04.tar").write_bytes(cut[: len(cut) // 2])
    health = check(f"{url}/tars/part-{{00..12}}.tar")
    assert counter["broken"] >= 1
    named = {s.path for s in health.skipped}
    assert named == {"part-04.tar", "part-12.tar"}
    pairs = health.pairs
    good = 72 - 8 + len([p for p in pairs if p.key.startswith("part-04")])
    assert len(pairs) == good
    tokenizer = train_bpe([c for p in pairs for c in p.captions], 300)
    seen = collections.Counter()
    batch = 4
    steps = good // batch
    for rank in (0, 1):
        source = Pictures(pairs, DataConfig(), 8, 3, 0, Captions(pairs, tokenizer, 12, False))
        batches = stream(source, good, batch, 0, 0, rank, 2, workers=2)
        for _ in range(steps):
            for row in next(batches).tokens.tolist():
                seen[tokenizer.decode(row)] += 1
        del batches
    assert set(seen.values()) == {1}
    assert len(seen) == steps * batch


class Breaking(io.BytesIO):
    """An opened file whose connection breaks after 7,000 bytes."""

    opened_at: list[int] = []  # noqa: RUF012

    def seek(self, *args) -> int:
        self.opened_at.append(super().seek(*args))
        self.end = self.tell() + 7_000
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        if self.tell() >= self.end:
            raise OSError("the connection broke")
        return super().read(min(size, self.end - self.tell()))


@pytest.fixture
def store(monkeypatch):
    """An object store in memory, read as s3:// and the like are."""
    files = fsspec.filesystem("memory")
    whole = type(files).open

    def opened(self, path: str, mode: str = "rb", **options):
        file = whole(self, path, mode, **options)
        return Breaking(file.getvalue()) if mode == "rb" else file

    monkeypatch.setitem(download.STORES, "memory", "s3")
    monkeypatch.setattr(type(files), "open", opened)
    Breaking.opened_at.clear()
    yield files
    files.store.clear()


def test_shards_in_an_object_store_are_fetched_once_and_resumed(tmp_path, store):
    root = folder_of(tmp_path / "tars", (3, 5))
    for shard in root.iterdir():
        store.pipe(f"/bucket/{shard.name}", shard.read_bytes())
    found = find("memory://bucket/part-{00..02}.tar")
    assert [p.key for p in found.pairs] == [p.key for p in find(str(root)).pairs]
    assert [s.path for s in found.skipped] == ["part-02.tar"]
    assert Breaking.opened_at == [0, 7000, 0, 7000, 14000], "a broken connection goes on where it broke"
    find("memory://bucket/part-{00..01}.tar")
    assert len(Breaking.opened_at) == 5


def test_packing_is_balanced_resumable_and_verified(bird_folder, tmp_path, capsys):
    out = tmp_path / "packed"
    main(["data", "pack", str(bird_folder), str(out), "--per-shard", "15"])
    files = sorted(out.glob("*.tar"))
    assert len(files) == 3
    first = files[1].read_bytes()
    files[1].unlink()
    (out / f".tessera-{own.HOST}-999999999-shard-000001.tar").write_bytes(b"left by a kill")
    main(["data", "pack", str(bird_folder), str(out), "--per-shard", "15"])
    assert files[1].read_bytes() == first
    assert not list(out.glob(".tessera-*"))
    original, packed = find(str(bird_folder)).pairs, find(str(out)).pairs
    assert [p.image.read_bytes() for p in original] == [p.image.read_bytes() for p in packed]
    assert [p.captions for p in original] == [p.captions for p in packed]
    counts = collections.Counter(p.key.partition("/")[0] for p in packed)
    assert max(counts.values()) - min(counts.values()) <= 1
    with pytest.raises(SystemExit):
        main(["data", "pack", str(bird_folder), str(out), "--per-shard", "7"])
    assert "other pairs or another size" in capsys.readouterr().err


def test_shards_train_and_encode_as_folders_do(bird_folder, tmp_path):
    main(["data", "pack", str(bird_folder), str(tmp_path / "packed"), "--per-shard", "16"])
    small = [
        "--model.pixels",
        "16",
        "--model.layers",
        "2",
        "--model.hidden",
        "8",
        "--steps",
        "2",
        "--preview-every",
        "0",
    ]
    main(["train", "dvae-xs-64", "--data.path", str(tmp_path / "packed"), "--out", str(tmp_path / "vae"), *small])
    assert Run(tmp_path / "vae").latest().name == "step-000002"
    main(
        [
            "data",
            "encode",
            str(tmp_path / "packed"),
            str(tmp_path / "codes"),
            "--tokens",
            str(tmp_path / "vae"),
            "--views",
            "2",
        ]
    )
    prior = [
        "--data.codes",
        str(tmp_path / "codes"),
        "--tokens.image",
        str(tmp_path / "vae"),
        "--out",
        str(tmp_path / "p"),
    ]
    main(["train", "t2i-xs-64", *prior, "--steps", "1", "--preview-every", "0", "--model.transformer.depth", "1"])
    assert Run(tmp_path / "p").latest().name == "step-000001"


def test_hugging_face_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [Image.new("RGB", (9, 8), (40 * i, 0, 0)) for i in range(4)], "text": ["a", "b", "", "d"]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    health = check(f"hf:{tmp_path / 'saved'}")
    assert [p.captions for p in health.pairs] == [("a",), ("b",), ("d",)]
    assert [(c.width, c.height) for c in health.good] == [(9, 8)] * 3
    with pytest.raises(ConfigError, match="cannot be read"):
        hub.scan(f"hf:{tmp_path / 'nothing'}")
