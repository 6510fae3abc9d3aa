"""Any file and any setting: success, or one sentence that names it. `make fuzz` runs many more cases than this."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from random import Random

import pytest
from cases import CASES
from formats import AWARE, mutated
from harness import GROUND, Harm, must_end_well
from kind import Files, unpacked
from kinds import KINDS, count

import fuzz
from tessera.errors import DataError

EACH = int(os.environ.get("TESSERA_FUZZ_CASES", "300"))
"""Of each group of kinds."""
FOUND = sorted((Path(__file__).parent / "found").glob("*/*.json"))


@pytest.mark.parametrize("name", KINDS)
def test_every_case_ends_in_success_or_in_one_sentence_that_names_it(name):
    failures = [f for seed, case in KINDS[name].cases(0, count(name, EACH)) if (f := KINDS[name].run(seed, case))]
    ways = {f.group: f for f in reversed(failures)}
    assert not ways, f"{len(failures)} cases failed in {len(ways)} ways:\n" + "\n".join(map(str, ways.values()))


@pytest.mark.parametrize("file", FOUND, ids=lambda file: f"{file.parent.name}: {file.stem.replace('_', ' ')}")
def test_what_once_failed_ends_well(file):
    name, tree, changes = unpacked(file.read_text())
    failure = KINDS[name].run(-1, (tree, changes))
    assert not failure, f"{failure}\n{failure and failure.trace}"


@pytest.mark.parametrize(
    ("name", "tree", "change"), [(k, t, c) for k, _, t, c in CASES], ids=[f"{k}: {w}" for k, w, *_ in CASES]
)
def test_what_people_thought_of_ends_well(name, tree, change):
    kind = KINDS[name]
    assert isinstance(kind, Files)
    failure = kind.run(-1, (tree, change(kind.trees[tree])))
    assert not failure, f"{failure}\n{failure and failure.trace}"


@pytest.mark.parametrize("name", [n for n, kind in KINDS.items() if type(kind) is Files])
def test_whole_files_are_read_without_an_error(name):
    kind = KINDS[name]
    assert isinstance(kind, Files)
    for tree in kind.trees:
        if not tree.startswith(kind.refused or ("\0",)):
            failure = kind.whole(tree)
            assert not failure, f"{failure}\n{failure and failure.trace}"


# The harness itself: it sees what it is there to see.


def ends(call, **more):
    GROUND().fresh()
    failure = must_end_well(call, **more)
    return failure and failure.error


def test_success_and_one_sentence_are_good_endings():
    def refuse():
        raise DataError("a.png is not a picture")

    assert ends(lambda: 1) is None
    assert ends(refuse, names=["a.png"]) is None
    assert ends(refuse, names=["b.png"]) == "unnamed"


@pytest.mark.parametrize("error", [KeyError, RecursionError, MemoryError, SystemExit, OSError])
def test_any_other_error_is_a_failure(error):
    def fail():
        raise error("x")

    assert ends(fail) == error.__name__


def test_a_call_that_does_not_end_is_stopped_even_where_it_catches_everything():
    def wait():
        while True:
            try:
                time.sleep(5)
            except Exception:
                continue

    began = time.monotonic()
    assert ends(wait, seconds=0.2) == "TooLong"
    assert time.monotonic() - began < 3


def test_a_call_that_takes_all_memory_is_stopped():
    assert ends(lambda: bytearray(8 << 30)) == "MemoryError"


@pytest.mark.parametrize(
    "harm",
    [
        lambda: os.system("true"),
        lambda: subprocess.run(["true"], check=True),
        lambda: os.mkdir("it_ran"),
        lambda: os.remove("thesis.tex"),
        lambda: Path("runs/mine/config.json").write_text("x"),
        lambda: os.rename("thesis.tex", "gone"),
        lambda: (
            Path(GROUND().case, "link").symlink_to(GROUND().outside)
            or Path(GROUND().case, "link", ".env").write_text("x")
        ),
    ],
    ids=["a shell", "a process", "a folder", "a file removed", "a file written", "a file renamed", "through a link"],
)
def test_nothing_is_run_and_nothing_outside_is_touched(harm):
    before = GROUND().state()
    assert ends(harm) == "Harm"
    assert GROUND().state() == before
    assert issubclass(Harm, BaseException)
    assert not issubclass(Harm, Exception), "a reader must not be able to catch it"


def test_a_seed_is_always_the_same_case():
    for end in [*AWARE, ".csv", ".bin"]:
        raw = bytes(range(256)) * 4
        assert mutated(Random("x:1"), f"a{end}", raw) == mutated(Random("x:1"), f"a{end}", raw)
    for name in ("csv", "json in coco", "settings"):
        first, second = ([repr(case) for _, case in KINDS[name].cases(40, 60)] for _ in range(2))
        assert first == second
        assert first[5:10] == [repr(case) for _, case in KINDS[name].cases(45, 50)]


def test_the_driver_counts_goes_on_and_tells_how_to_see_a_case_again(tmp_path, capsys):
    asked = ["toml", "--cases", "5", "--out", str(tmp_path)]
    assert fuzz.main(asked) == 0
    assert "toml: 5 cases" in capsys.readouterr().out
    (tmp_path / "toml.jsonl").write_text('{"seed": 3, "group": ["Harm", "here"], "message": "it ran", "about": "a"}\n')
    assert fuzz.main(asked) == 1  # no case is left, so none is run
    assert "again 'toml' 3" in capsys.readouterr().out
