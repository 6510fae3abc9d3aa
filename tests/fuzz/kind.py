"""What is held against the law: files that are read together, or values that people type, as numbered cases."""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from harness import GROUND, NEAR, SECONDS, Changes, Failure, Tree, lay, must_end_well, released

from tessera.errors import TesseraError

Case = Any
"""What a kind's `run` takes: of files, a tree's name and its changes."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Cases that are numbered by seeds, and what each must end well in."""

    name: str

    def cases(self, first: int, last: int) -> Iterator[tuple[int, Case]]:
        """Seeds and their cases; always the same for a seed."""
        raise NotImplementedError

    def run(self, seed: int, case: Case) -> Failure | None:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Files(Kind):
    """Files that are read together, and are changed by `vary`, from a source of choices, or grown by hypothesis."""

    make: Callable[[], Mapping[str, Tree]]
    """Good trees, by name; all but those whose name begins with one of `refused` are read without an error."""
    read: Callable[[Path, str], Any]
    """Read the tree in a folder."""
    vary: Callable[[Random, Mapping[str, Tree]], tuple[str, Changes]]
    names: Sequence[str] = ()
    """Words of which a message must hold one, besides the folder."""
    nameless: bool = False
    """Whether a message need not name the file, because the caller does."""
    refused: tuple[str, ...] = ()

    @cached_property
    def trees(self) -> Mapping[str, Tree]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.make()

    def cases(self, first: int, last: int) -> Iterator[tuple[int, Case]]:
        for seed in range(first, last):
            yield seed, self.vary(Random(f"{self.name}:{seed}"), self.trees)

    def whole(self, tree: str) -> Failure | None:
        """The good tree: here even one sentence is a failure."""

        def read() -> None:
            try:
                self.read(folder, tree)
            except TesseraError as error:
                raise AssertionError(f"the whole tree '{tree}' is refused: {error}") from error

        folder = GROUND().fresh()
        lay(self.trees[tree], folder)
        return must_end_well(read, kind=self.name, seed=-1)

    def run(self, seed: int, case: Case) -> Failure | None:
        tree, changes = case
        folder = GROUND().fresh()
        lay(self.trees[tree], folder, changes)
        names = () if self.nameless else (str(folder), str(NEAR), *self.names)
        pipes = [folder / name for name, what in changes.items() if what == "fifo"]
        seconds = min(SECONDS, 2.0) if pipes else SECONDS
        with released(pipes, seconds + 1):
            failure = must_end_well(lambda: self.read(folder, tree), names, seconds, self.name, seed)
        return failure and replace(failure, about=f"{tree}: {', '.join(changes)}", case=case)


CHUNK = 100
"""Cases that hypothesis makes at once; a case's number says which chunk and which of it."""


def grown(strategy: Any, name: str, chunk: int) -> list[Any]:
    """The values of one chunk: always the same."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    values: list[Any] = []

    @seed(int.from_bytes(hashlib.blake2b(f"{name}:{chunk}".encode(), digest_size=7).digest()))
    @settings(
        max_examples=CHUNK,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        values.append(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collect()
    return values[:CHUNK]


def chunks(strategy: Any, name: str, first: int, last: int) -> Iterator[tuple[int, Any]]:
    for chunk in range(first // CHUNK, -(-last // CHUNK)):
        for i, value in enumerate(grown(strategy, name, chunk), chunk * CHUNK):
            if first <= i < last:
                yield i, value


@dataclass(frozen=True, kw_only=True)
class Grown(Files):
    """Files whose changes hypothesis makes, from the good trees."""

    strategy: Callable[[Mapping[str, Tree]], Any]

    def cases(self, first: int, last: int) -> Iterator[tuple[int, Case]]:
        return chunks(self.strategy(self.trees), self.name, first, last)


@dataclass(frozen=True, kw_only=True)
class Values(Kind):
    """Settings, prompts and the like, which hypothesis makes."""

    strategy: Callable[[], Any]
    call: Callable[[Any], Any]
    names: Callable[[Any], Sequence[str]]

    def cases(self, first: int, last: int) -> Iterator[tuple[int, Case]]:
        return chunks(self.strategy(), self.name, first, last)

    def run(self, seed: int, case: Case) -> Failure | None:
        GROUND().fresh()
        failure = must_end_well(lambda: self.call(case), self.names(case), kind=self.name, seed=seed)
        return failure and replace(failure, about=repr(case)[:300], case=case)


# Cases that are kept.


def packed(kind: str, tree: str, changes: Changes) -> str:
    """A case as JSON that people can read where it is text."""

    def plain(content: bytes | str) -> dict[str, str]:
        if isinstance(content, str):
            return {"special": content}
        try:
            return {"text": content.decode("utf-8")}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(content).decode()}

    return (
        json.dumps({"kind": kind, "tree": tree, "changes": {n: plain(c) for n, c in changes.items()}}, indent=1) + "\n"
    )


def unpacked(text: str) -> tuple[str, str, Changes]:
    case = json.loads(text)
    how = {"special": str, "text": lambda t: t.encode(), "base64": base64.b64decode}
    return (
        case["kind"],
        case["tree"],
        {n: how[form](value) for n, c in case["changes"].items() for form, value in c.items()},
    )
