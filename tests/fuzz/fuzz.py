"""Many cases of every kind: `make fuzz`. Stopped, the same command goes on; what it finds is grouped and written down.

python tests/fuzz/fuzz.py [GROUP or KIND ...] [--cases 20000] [--from 0] [--out runs/fuzz] [--seconds 10]
python tests/fuzz/fuzz.py again KIND SEED      one case again, with its traceback; smaller where hypothesis made it
python tests/fuzz/fuzz.py keep KIND SEED NAME  write the case to tests/fuzz/found, where `make test` reads it
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BATCH = 5000
"""Cases of one child process."""


def batch(name: str, first: int, last: int, out: Path) -> None:
    """In a child: run the cases, write each failure at once and which case is under way, in case this process dies."""
    from kinds import KINDS

    kind, began = KINDS[name], 0.0
    under_way = (out / f"{name}.now").open("w")
    with (out / f"{name}.jsonl").open("a") as found:
        for seed, case in kind.cases(first, last):
            began = began or time.process_time()  # what is made once for the process does not count
            under_way.seek(0)
            under_way.write(f"{seed:12d}")
            under_way.flush()
            if failure := kind.run(seed, case):
                row = {
                    "seed": seed,
                    "group": failure.group,
                    "message": failure.message,
                    "about": failure.about,
                    "trace": failure.trace,
                }
                found.write(json.dumps(row) + "\n")
                found.flush()
            under_way.seek(0)
            under_way.write(f"{seed + 1:12d}")
            under_way.flush()
    with (out / f"{name}.cpu").open("a") as spent:
        spent.write(f"{time.process_time() - began} {last - first}\n")


def run_kind(name: str, first: int, last: int, out: Path, seconds: float) -> None:
    """All cases of a kind, in child processes; one that dies or hangs is noted and passed over."""
    file = name.replace(" ", "_")
    done = out / f"{file}.done"
    state = json.loads(done.read_text()) if done.is_file() else {"next": first}
    while state["next"] < last:
        end = min(state["next"] + BATCH, last)
        command = [sys.executable, str(HERE / "fuzz.py"), "batch", name, str(state["next"]), str(end), str(out)]
        (out / f"{name}.now").unlink(missing_ok=True)
        env = {**os.environ, "TESSERA_FUZZ_SECONDS": str(seconds), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        with (out / f"{file}.log").open("w") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)
        code = _wait(child, out / f"{name}.now", seconds)
        if code:
            end = _died(name, code, out, (out / f"{file}.log").read_text(errors="replace")[-1000:]) + 1
        state["next"] = end
        done.write_text(json.dumps(state))


def _died(name: str, code: int, out: Path, log: str) -> int:
    """Note the case in which a child ended; returns its seed."""
    now = out / f"{name}.now"
    if not now.is_file():
        raise SystemExit(f"{name}: its cases could not be begun:\n{log}")
    row = {"seed": int(now.read_text()), "group": ["died", str(code)], "message": log, "about": ""}
    with (out / f"{name}.jsonl").open("a") as found:
        found.write(json.dumps(row) + "\n")
    return row["seed"]


def _wait(child: subprocess.Popen, now: Path, seconds: float) -> int:
    """Until it ends, or one case takes far longer than the clock in it allows: then it hangs where no signal helps."""
    since, seen = time.monotonic(), ""
    while child.poll() is None:
        time.sleep(0.5)
        text = now.read_text() if now.is_file() else ""
        if text != seen:
            since, seen = time.monotonic(), text
        if time.monotonic() - since > 60 + 5 * seconds:
            os.killpg(child.pid, signal.SIGABRT)
            return child.wait() or 1
    return child.returncode


def told(name: str, cases: int, out: Path) -> int:
    """Print a kind's figures and its failures by group; returns how many groups there are."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    rows, spent = (_lines(out / f"{name}.{end}") for end in ("jsonl", "cpu"))
    for row in {row["seed"]: row for row in map(json.loads, rows)}.values():  # a batch that was stopped ran twice
        groups[tuple(row["group"])].append(row)
    count = sum(map(len, groups.values()))
    seconds, number = (sum(float(line.split()[i]) for line in spent) for i in (0, 1))
    each = 1000 * seconds / max(1, number)
    print(f"{name}: {cases:,} cases, {each:.1f} ms each, {count} failed in {len(groups)} ways", flush=True)
    for (error, place), found in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(
            f"  {len(found):6d} {error} at {place}: {found[0]['message'][:140]!r}\n         again '{name}' {found[0]['seed']} ({found[0]['about'][:80]})"
        )
    return len(groups)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def again(name: str, seed: int) -> int:
    """One case, with all there is to say about it."""
    from kind import Values
    from kinds import KINDS

    kind = KINDS[name]
    case = next(case for number, case in kind.cases(seed, seed + 1) if number == seed)
    failure = kind.run(seed, case)
    print(failure or f"{name} {seed} ends well.")
    if failure:
        print(failure.trace)
        print(repr(failure.case)[:3000])
    if failure and isinstance(kind, Values):
        _smaller(kind, failure)
    return bool(failure)


def _smaller(kind: Any, failure: Any) -> None:
    """hypothesis looks for the smallest value that fails in the same way."""
    from hypothesis import find, settings

    same = lambda value: getattr(kind.run(failure.seed, value), "group", None) == failure.group
    try:
        print(
            "The smallest:",
            repr(find(kind.strategy(), same, settings=settings(max_examples=300, database=None, deadline=None)))[:500],
        )
    except Exception as error:
        print(f"No smaller one was found ({type(error).__name__}).")


def keep(name: str, seed: int, words: str) -> int:
    from kind import Files, packed
    from kinds import KINDS

    kind = KINDS[name]
    assert isinstance(kind, Files), "settings and prompts are kept as tests of their own"
    case = next(case for number, case in kind.cases(seed, seed + 1) if number == seed)
    file = HERE / "found" / name.replace(" ", "_") / f"{words.replace(' ', '_')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(packed(name, *case))
    print(f"{file}: {file.stat().st_size:,} bytes")
    return 0


def main(args: list[str]) -> int:
    verbs = {
        "again": lambda: again(args[1], int(args[2])),
        "keep": lambda: keep(args[1], int(args[2]), " ".join(args[3:])),
    }
    if args and args[0] in verbs:
        return verbs[args[0]]()
    if args and args[0] == "batch":
        batch(args[1], int(args[2]), int(args[3]), Path(args[4]))
        return 0
    from kinds import GROUPS, KINDS, count

    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("kinds", nargs="*")
    asked.add_argument("--cases", type=int, default=20_000)
    asked.add_argument("--from", dest="first", type=int, default=0)
    asked.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    asked.add_argument("--seconds", type=float, default=10.0)
    c = asked.parse_args(args)
    c.out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name in [
        n for k in c.kinds or GROUPS for n in (GROUPS[k] if k in GROUPS and k not in KINDS else GROUPS.get(k, {k: 1}))
    ]:
        last = c.first + count(name, c.cases)
        run_kind(name, c.first, last, c.out, c.seconds)
        wrong += told(name, last - c.first, c.out)
    print(f"{wrong} ways to fail in {c.cases:,} cases of each group." if wrong else "Every case ended well.")
    return min(wrong, 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(HERE))
    sys.exit(main(sys.argv[1:]))
