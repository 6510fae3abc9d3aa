"""The speedrun: what it asks of the drawings, and that nothing that was done before counts as fast."""

import json
from pathlib import Path

import numpy as np
import pytest

import speedrun
from speedrun import Goal, Measured, Target
from tessera.errors import ConfigError
from tessera.evaluate.intervals import Estimate
from tessera.journeys import birds, shapes

NO = Path("/nowhere")


def goal(value: float, wanted: float, better: str) -> Goal:
    return Goal("figure", Estimate(value, value - 1, value + 1, 10), wanted, better)


def test_a_goal_is_met_on_its_own_side():
    assert goal(75, 75, "lower").met
    assert not goal(76, 75, "lower").met
    assert goal(0.9, 0.9, "higher").met
    assert not goal(0.89, 0.9, "higher").met
    assert goal(3, 2, "higher").row() == {"value": 3, "low": 2, "high": 4, "count": 10, "wanted": 2, "met": True}


def test_options_that_are_given_win():
    target = Target(speedrun.given, {"--grid": "8", "--crop": "1"}, speedrun.looks)
    assert speedrun.options(target, []) == ["--grid", "8", "--crop", "1"]
    assert speedrun.options(target, ["--grid", "16", "--no", "x"]) == ["--grid", "16", "--crop", "1", "--no", "x"]
    for odd in (["--grid"], ["grid", "8"], ["--grid", "8", "x"]):
        with pytest.raises(ConfigError, match="come as --name value"):
            speedrun.options(target, odd)


def test_a_journey_is_timed_with_its_children():
    wall, cpu = speedrun.journey(["--version"], threads=1)
    assert 0 < cpu < 60
    assert wall > 0


def test_drawings_that_are_as_asked_meet_the_goal(monkeypatch):
    """And those of other questions do not."""
    for target, asked, drawn in (
        ("birds", birds.questions(speedrun.QUESTIONS), lambda b: birds.draw(b, 64, np.random.default_rng(0))),
        ("shapes", shapes.questions(speedrun.QUESTIONS), shapes.draw),
    ):
        right = [drawn(what) for _, what in asked]
        for pictures, least, most in ((right, 0.97, 1.0), (right[::-1], 0.0, 0.4)):
            monkeypatch.setattr(speedrun, "drawn", lambda run, captions, pictures=pictures: pictures)
            found = speedrun.TARGETS[target].measure(NO, NO)
            assert least <= found.goals[0].found.value <= most
            assert found.goals[0].met == (least > 0.9)


def test_a_row_says_what_it_took(monkeypatch, tmp_path):
    calls, rows = [], []
    fill = lambda folder: folder.mkdir()
    measure = lambda run, data: Measured([goal(1, 2, "lower")], {"other": 3})
    monkeypatch.setitem(speedrun.TARGETS, "toy", Target(fill, {"--crop": "1"}, measure))
    monkeypatch.setattr(speedrun, "journey", lambda command, threads: calls.append(command) or (90.0, 120.4))
    monkeypatch.setattr(speedrun, "row", lambda question, **figures: rows.append(figures))
    speedrun.run("toy", tmp_path / "data", tmp_path / "out", "4m", 3, 1, "less of it", ["--grid", "8"])
    assert calls[0][:2] == ["learn", str(tmp_path / "data")]
    assert calls[0][-4:] == ["--crop", "1", "--grid", "8"]
    assert (rows[0]["minutes"], rows[0]["cpu_seconds"], rows[0]["met"], rows[0]["changed"]) == (
        1.5,
        120,
        True,
        "less of it",
    )


def test_what_was_done_before_does_not_count(tmp_path):
    with pytest.raises(ConfigError, match="is there already"):
        speedrun.run("shapes", tmp_path / "data", tmp_path, "4m", 0, 1, "", [])
    with pytest.raises(ConfigError, match="Name a folder of captioned photographs: --data PICTURES"):
        speedrun.run("photographs", tmp_path / "data", tmp_path / "out", "4m", 0, 1, "", [])
    assert not list(tmp_path.iterdir())


def test_the_table_shows_every_row(monkeypatch, tmp_path):
    monkeypatch.setattr(speedrun, "RESULTS", tmp_path)
    assert len(speedrun.table()) == 2
    about = {
        "date": "today",
        "commit": "abc",
        "minutes": 4.1,
        "cpu_seconds": 300,
        "seed": 0,
        "met": False,
        "changed": "all",
    }
    goals = {"exact": {"value": 0.5, "low": 0.43, "high": 0.57, "count": 200, "wanted": 0.9, "met": False}}
    rows = [{"configuration": name, "goals": goals, **about} for name in ("shapes", "birds")]
    (tmp_path / "speedrun.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    shown = speedrun.table()[2:]
    assert [line.split(" | ")[0] for line in shown] == ["| birds", "| shapes"]
    assert "exact 0.5 [0.43, 0.57] of 0.9 | no | all" in shown[0]
