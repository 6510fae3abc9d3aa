"""Several processes encode and pack what one does, bit for bit; killed, started again, one of them alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY_DVAE, fails
from small_data import folder, png
from tessera.cli import main
from tessera.config import DataConfig
from tessera.data import codes, packing
from tessera.data.codes import Codes
from tessera.data.find import find
from tessera.data.share import ALL, Share, share, told
from tessera.errors import ConfigError, DataError
from tessera.files import own
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.tokens import image

PAIRS, PART = 11, 2


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    names = {f"p{i:02d}__png": png((20 * i, 255 - 20 * i, 7 * i)) for i in range(PAIRS - 1)}
    words = {f"p{i:02d}__txt": f"picture {i}" for i in range(PAIRS - 1)}
    return folder(tmp_path_factory.mktemp("data") / "d", **names, **words)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("vae")
    saved.write(out, DiscreteVAE(TINY_DVAE).eval())
    return out


def encoding(data: Path, tokenizer: Path, out: Path, *more: object) -> list[str]:
    fixed = ["data", "encode", data, out, "--tokens", tokenizer, "--views", 2, "--per-part", PART, "--device", "cpu"]
    return [str(word) for word in (*fixed, *more)]


def packed(data: Path, out: Path, *more: object) -> list[str]:
    return [str(word) for word in ("data", "pack", data, out, "--per-shard", PART, *more)]


def contents(root: Path) -> dict[str, bytes]:
    """All files but the note of how many processes there were."""
    return {p.name: p.read_bytes() for p in root.iterdir() if p.is_file() and p.name != "parts.json"}


def times(root: Path) -> dict[str, int]:
    done = (p for p in root.iterdir() if p.suffix in {".npy", ".tar"} and not own.TEMPORARY.fullmatch(p.name))
    return {p.name: p.stat().st_mtime_ns for p in done}


COMMANDS = {"encode": encoding, "pack": lambda data, tokenizer, out, *more: packed(data, out, *more)}


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_processes_write_what_one_writes_bit_for_bit(what, order, data, tokenizer, tmp_path, capsys):
    command = COMMANDS[what]
    main(command(data, tokenizer, tmp_path / "one"))
    capsys.readouterr()
    for turn, rank in enumerate(order):
        main(command(data, tokenizer, tmp_path / "two", "--rank", rank, "--ranks", 2))
        said = capsys.readouterr().out
        assert (f"of rank {order[1]} of 2" in said) == (turn == 0), said
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert len(times(tmp_path / "two")) == 6
    if what == "encode":
        found = Codes(tmp_path / "two")
        assert (len(found), found.index.part) == (PAIRS, PART)
        settings = DataConfig(path=str(data), crop=0.75, flip=False)
        codes.encode(find(str(data)).pairs, image.load(tokenizer), tmp_path / "usual", 2, settings, 0)
        whole = Codes(tmp_path / "usual")
        assert all(torch.equal(found.views(i), whole.views(i)) for i in range(PAIRS))
        rows, chance = np.arange(PAIRS)[::-1].copy(), np.arange(PAIRS, dtype=np.uint64)
        assert np.array_equal(found.some(rows, chance), whole.some(rows, chance))


@pytest.mark.parametrize("what", COMMANDS)
def test_the_rank_that_died_alone_is_redone(what, data, tokenizer, tmp_path, capsys):
    command, out = COMMANDS[what], tmp_path / "out"
    for rank in (0, 2):
        main(command(data, tokenizer, out, "--rank", rank, "--ranks", 3))
    before = times(out)
    with pytest.raises(DataError, match=r"2 of 6 (parts|shards) are missing \(number 1, 4\)"):
        Codes(out) if what == "encode" else find(str(out))
    main(command(data, tokenizer, out, "--rank", 1, "--ranks", 3))
    after = times(out)
    assert {n: after[n] for n in before} == before
    assert len(after) == 6
    assert len(Codes(out) if what == "encode" else find(str(out)).pairs) == PAIRS
    # Any number of processes may finish what another number began.
    part = sorted(after)[3]
    (out / part).unlink()
    main(command(data, tokenizer, out))
    assert {n for n, t in times(out).items() if t != after[n]} == {part}


STOPPED = """
import os, signal, sys
from tessera.files import sums
write, count = sums.write, [0]
def stop(path, content):
    count[0] += 1
    write(path, content)
    if count[0] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
sums.write = stop
from tessera.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("what", COMMANDS)
def test_killed_in_the_middle_of_a_part_the_same_command_goes_on(what, data, tokenizer, tmp_path):
    """One thread of one process, so that the second part is what dies with it."""
    command, out = COMMANDS[what], tmp_path / "out"
    words = command(data, tokenizer, out, "--rank", 0, "--ranks", 2)
    script = STOPPED
    if what == "pack":  # its workers are processes: let the work be done here
        script = (
            "from concurrent.futures import ThreadPoolExecutor as T\nimport tessera.data.packing as p\np.ProcessPoolExecutor = T\np.AHEAD = 0\n"
            + script
        )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    first = times(out)
    assert len(first) == 1
    left = [p.name for p in out.iterdir() if own.TEMPORARY.fullmatch(p.name)]
    assert left
    main(words)
    assert [p.name for p in out.iterdir() if own.TEMPORARY.fullmatch(p.name)] == []
    assert {n: t for n, t in times(out).items() if n in first} == first
    main(command(data, tokenizer, out, "--rank", 1, "--ranks", 2))
    main(command(data, tokenizer, tmp_path / "one"))
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.parametrize("what", COMMANDS)
def test_a_damaged_file_is_found_and_written_again(what, data, tokenizer, tmp_path, capsys):
    command, out = COMMANDS[what], tmp_path / "out"
    main(command(data, tokenizer, out))
    good, name = contents(out), sorted(times(out))[2]
    raw = bytearray(good[name])
    raw[-1 if what == "encode" else 600] ^= 1
    (out / name).write_bytes(raw)
    with pytest.raises(SystemExit, match="1"):
        main(["data", "verify", str(out)])
    assert f"1 files are damaged: {name}" in capsys.readouterr().out
    main(command(data, tokenizer, out, "--verify"))
    assert contents(out) == good
    main(["data", "verify", str(out)])
    assert "every file holds what was written" in capsys.readouterr().out
    (out / sorted(times(out))[0]).with_suffix(".sum").unlink()  # as earlier releases wrote them
    main(["data", "verify", str(out)])


def test_processes_with_different_settings_are_told_and_nothing_is_lost(data, tokenizer, tmp_path, capsys):
    out = tmp_path / "out"
    main(encoding(data, tokenizer, out, "--rank", 0, "--ranks", 2))
    before = contents(out)
    for more, what in ((("--crop", 0.5), "data"), (("--seed", 4), "seed"), (("--views", 3), "views")):
        said = fails(capsys, *encoding(data, tokenizer, out, *more, "--rank", 1, "--ranks", 2))
        assert f"or of another tokenizer ({what})" in said
    torch.manual_seed(1)
    saved.write(tmp_path / "other", DiscreteVAE(TINY_DVAE).eval())
    said = fails(capsys, *encoding(data, tmp_path / "other", out, "--rank", 1, "--ranks", 2))
    assert "another tokenizer (tokenizer)" in said
    said = fails(capsys, *encoding(data, tokenizer, out, "--seed", 4))  # one task of an array, resubmitted alone
    assert "or of another tokenizer (seed)" in said
    assert contents(out) == before


def test_torchrun_says_who_is_who(data, tokenizer, tmp_path):
    words = encoding(data, tokenizer, tmp_path / "out")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, "-m", "tessera", *words], check=True, env=environment, capture_output=True)
    main(encoding(data, tokenizer, tmp_path / "one"))
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


# Who a process is.


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ALL),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Share(3, 8)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "2"}, Share(3, 4)),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4"}, Share(0, 4)),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4", "RANK": "1", "WORLD_SIZE": "2"}, Share(3, 8)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, Share(1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, ALL),  # a batch script: nobody else was started
    ],
)
def test_launchers_are_understood(environment, found):
    assert share(0, 0, environment) == found
    assert share(1, 7, environment) == Share(1, 7), "what was asked for counts"


@pytest.mark.parametrize(
    ("rank", "ranks", "environment", "what"),
    [
        (2, 2, {}, "rank is 2 of 2"),
        (1, 0, {}, "ranks is not given"),
        (0, 0, {"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'"),
        (0, 0, {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}, "--array=0-3"),
    ],
)
def test_what_is_no_share_is_a_sentence(rank, ranks, environment, what):
    with pytest.raises(ConfigError, match=what):
        share(rank, ranks, environment)


def test_every_part_has_one_owner_and_the_missing_are_named():
    for ranks in (1, 2, 3, 7):
        shares = [Share(r, ranks).of(range(20)) for r in range(ranks)]
        assert sorted(part for own_parts in shares for part in own_parts) == list(range(20))
        assert all(Share(0, ranks).owner(part) == r for r in range(ranks) for part in shares[r])
    assert told([1, 4], 6, "parts", Share(0, 3)) == "2 of 6 parts are missing (number 1, 4, of rank 1 of 3)"
    assert told(range(1, 9), 9, "shards", ALL) == "8 of 9 shards are missing (number 1, 2, 3, 4, 5, ...)"


def test_many_shards_are_handed_over_a_few_at_a_time(data, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "AHEAD", 1)
    waiting, most = [0], [0]
    submit = packing.ProcessPoolExecutor.submit

    def counted(pool, work, job):
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return submit(pool, work, job)

    def seen(items, total):
        for item in items:
            waiting[0] -= 1
            yield item

    monkeypatch.setattr(packing.ProcessPoolExecutor, "submit", counted)
    packing.pack(find(str(data)).pairs, tmp_path / "out", 1, seen)
    assert most[0] == 2
