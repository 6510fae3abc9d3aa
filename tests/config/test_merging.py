"""One place holds values against types: what is cast, what is refused, and that the sentence names place and remedy."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from tessera.config import (
    TrainConfig,
)
from tessera.config.merging import Checked, cast, check, differences, merge, read_json, read_toml, short
from tessera.config.presets import preset
from tessera.errors import ConfigError

Count = Annotated[int, Ge(1), Le(10)]


@dataclass(frozen=True, kw_only=True)
class Inner(Checked):
    size: Count = 1
    share: Annotated[float, Gt(0), Lt(1)] = 0.5

    def rules(self) -> None:
        if self.size > 5 and self.share < 0.5:
            raise ConfigError("a large size needs a large share")


@dataclass(frozen=True, kw_only=True)
class Outer(Checked):
    name: str
    inner: Inner = field(default_factory=Inner)
    kinds: tuple[Literal["a", "bb"], ...] = ()
    drop_out: float = 0.0


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (np.int64(3), int, 3),
        (np.float32(0.5), float, 0.5),
        ("x", str | None, "x"),
        (None, str | None, None),
        (7, Count | Literal["auto"], 7),
        ("auto", Count | Literal["auto"], "auto"),
        ([1, 2], tuple[int, ...], (1, 2)),
        ((1, "a"), tuple[int, str], (1, "a")),
        ([[1], []], list[tuple[int, ...]], [(1,), ()]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"name": "n", "inner": {"size": 2}}, Outer, Outer(name="n", inner=Inner(size=2))),
        ([1], Annotated[list[int], MinLen(1), MaxLen(1)], [1]),
        ({"anything": [1, None]}, Any, {"anything": [1, None]}),
    ],
)
def test_a_value_of_the_right_form_is_taken(value, kind, wanted):
    found = cast(value, kind, "x")
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (True, int, "x is True; it must be a whole number"),
        (True, float, "x is True; it must be a number"),
        (1.0, int, r"x is 1\.0; it must be a whole number"),
        ("3", int, "x is '3'; it must be a whole number"),
        (float("nan"), float, "x is nan; it must be a finite number"),
        (float("-inf"), float, "x is -inf; it must be a finite number"),
        pytest.param(10**400, float, "it must be a finite number", id="long"),
        pytest.param(10**5000, Count, "x is a number of thousands of digits; it must be at most 10", id="huge"),
        (0, Count, "x is 0; it must be at least 1"),
        (11, Count, "x is 11; it must be at most 10"),
        (0.0, Annotated[float, Gt(0)], "must be above 0"),
        (1.0, Annotated[float, Lt(1)], "must be below 1"),
        (float("nan"), Annotated[float, Ge(0)], "finite"),
        ([], Annotated[list[int], MinLen(1)], r"x is \[\]; it must be at least 1 long"),
        ([1, 2], Annotated[list[int], MaxLen(1)], "it must be at most 1 long"),
        ("b", Literal["a", "bb"], "x is 'b'; did you mean 'bb'. Allowed: a, bb"),
        (1, Literal["a"], r"x is 1\. Allowed: a"),
        (True, Literal[0, 1], "Allowed: 0, 1"),
        ([], Literal["a"], "Allowed: a"),
        (1.5, int | str | None, "must be a whole number or a text or null"),
        (0, Count | None, "x is 0; it must be at least 1"),
        ("full", tuple[str, ...], "x is 'full'; it must be a list, each a text"),
        ([1], tuple[int, int], "must be a list of 2, each a whole number"),
        ([1, "a"], tuple[int, ...], r"x\[1\] is 'a'"),
        ({"a": "b"}, dict[str, int], r"x\.a is 'b'"),
        ([], dict[str, int], "must be a table"),
        ({1: 1}, dict[str, int], "a name in x is 1"),
        (5, Outer, "x is 5; it must be a table"),
        ({}, Outer, r"'x\.name' is missing"),
        ({"name": "n", "nmae": 1}, Outer, r"'x\.nmae' is unknown; did you mean 'name'"),
        ({"name": "n", "inner": {"size": 0}}, Outer, r"x\.inner\.size is 0"),
        ({"name": "n", "kinds": ["c"]}, Outer, r"x\.kinds\[0\] is 'c'"),
        pytest.param("y" * 10**6, int, "x is 'yyy", id="wide"),
        pytest.param(list(range(10**5)), int, r"x is \[0, 1, 2", id="many"),
    ],
)
def test_a_value_of_another_form_is_named_with_its_place(value, kind, says):
    with pytest.raises(ConfigError, match=says) as refused:
        cast(value, kind, "x")
    assert len(str(refused.value)) < 200


def test_ranges_are_checked_in_every_part_before_any_rule():
    check(Outer(name="n"))
    broken = Outer(name="n", inner=Inner(size=6, share=0.1), drop_out=float("inf"))
    with pytest.raises(ConfigError, match="drop-out is inf"):
        broken.check()
    with pytest.raises(ConfigError, match="a large size"):
        dataclasses.replace(broken, drop_out=0.0).check()
    with pytest.raises(ConfigError, match=r"inner\.share is 2"):
        Outer(name="n", inner=Inner(share=2)).check()


@pytest.mark.parametrize("name", ["drop_out", "drop-out"])
def test_merge_holds_values_against_the_ranges(name):
    assert merge(Outer(name="n"), {name: 1}).drop_out == 1.0
    with pytest.raises(ConfigError, match=r"inner\.size is 11; it must be at most 10"):
        merge(Outer(name="n"), {"inner": {"size": 11}})
    with pytest.raises(ConfigError, match="must be a table"):
        merge(Outer(name="n"), {"inner": 3})


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "\ud800", '{"a": ' * 5000, "9" * 5000, '{"size": "x"}', "[]", "5"]
)
def test_a_json_file_of_another_form_is_one_sentence_with_its_name(tmp_path, text):
    file = tmp_path / "a.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError) as refused:
        read_json(file, Inner)
    assert str(refused.value).startswith(str(file))
    assert len(str(refused.value)) < 400


def test_merge_puts_one_over_the_other():
    base = preset("t2i-s-64")
    merged = merge(base, {"steps": 7, "model": {"transformer": {"dim": 64, "patterns": ["full", "axial_row"]}}})
    assert (merged.steps, merged.model.transformer.dim) == (7, 64)
    assert merged.model.transformer.patterns == ("full", "axial_row")
    assert merged.model.transformer.depth == base.model.transformer.depth


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stepz": 3}, r"'stepz'; did you mean 'steps'"),
        ({"optim": {"learning_rate": 1}}, r"'optim\.learning_rate'"),
        ({"optim": {"shedule": "cosine"}}, r"'optim\.shedule'; did you mean 'schedule'"),
        ({"optim": {"schedule": "cosin"}}, r"optim\.schedule is 'cosin'; did you mean 'cosine'"),
        ({"optim": {"lr": "1e-3"}}, r"optim\.lr is '1e-3'; it must be a number"),
        ({"steps": 1.5}, r"steps is 1\.5; it must be a whole number"),
        ({"steps": True}, r"steps is True"),
        ({"optim": {"betas": [0.9]}}, r"optim\.betas"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(changes, says):
    with pytest.raises(ConfigError, match=says):
        merge(TrainConfig(), changes)


def test_toml(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("steps = 5\n[optim]\nlr = 1e-3\n")
    assert merge(TrainConfig(), read_toml(file)).optim.lr == 1e-3
    file.write_text("steps = = 5\n")
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML: .*line 1"):
        read_toml(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "gone.toml")


def test_differences_are_named():
    other = merge(TrainConfig(), {"steps": 5, "optim": {"lr": 0.5}})
    assert differences(TrainConfig(), other) == ["steps: 1000 -> 5", "optim.lr: 0.001 -> 0.5"]


def test_a_json_file_is_read_with_or_without_a_mark_of_its_encoding(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"size": 2}).encode())
    assert read_json(file, Inner) == Inner(size=2)
    assert read_json(file) == {"size": 2}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_place_of_a_json_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    for name in ("a.json", "gone.json", "."):
        with pytest.raises(ConfigError, match="not a regular file"):
            read_json(tmp_path / name)


def test_a_toml_file_nested_too_deeply_is_a_sentence(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"a\.toml"):
        read_toml(file)


def test_what_is_quoted_is_short():
    assert short("a" * 100, "") == "a" * 57 + "..."
    assert len(short({"k": ["v" * 1000] * 1000})) <= 100
