"""Runs side by side: what is noise, which way is better, and what may not be compared."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tessera.cli import main
from tessera.errors import ConfigError
from tessera.evaluate import compare, figures, recipes
from tessera.evaluate.compare import Comparison, change
from tessera.evaluate.figures import Evaluation, Figure
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.meanings import COVERS
from tessera.evaluate.recipes import Recipe
from tessera.evaluate.telling import number
from tessera.evaluate.welch import difference


def about(value: float, half: float = 1.0) -> Estimate:
    return Estimate(value, value - half, value + half, 50)


def figure(value: float, better: str = "higher", half: float = 1.0, name: str = "it", ceiling: float = 0.0) -> Figure:
    return Figure(name=name, group="drawings", value=about(value, half), better=better, ceiling=about(ceiling))  # type: ignore[arg-type]


def evaluation(run: str, *found: Figure, asked: str = "a", **settings: object) -> Evaluation:
    told = {"count": 500, "guidance": 2.0, "features": "lite2", **settings}
    return Evaluation(run=run, model="m", settings=told, pictures={}, asked=asked, figures=found)


def alone(*evaluations: Evaluation) -> Comparison:
    """Each a run that was trained once."""
    return compare.compare([Recipe(runs=(e,)) for e in evaluations])


def differ(a: Estimate, b: Estimate) -> bool:
    return difference([a], [b]).counts


def test_a_difference_is_noise_up_to_the_root_of_the_squares():
    assert not differ(about(0, 3), about(4.9, 4))
    assert differ(about(0, 3), about(5.1, 4))
    assert differ(about(5.1, 4), about(0, 3))
    assert not differ(about(1, 0), about(1, 0))
    assert differ(about(1, 0), about(1.001, 0))


def test_only_the_sides_that_face_each_other_count():
    low, high = Estimate(0, -100, 1, 9), Estimate(3, 2, 100, 9)
    assert differ(low, high)


def test_what_codes_cost_is_not_compared_between_image_tokenizers():
    cost = dataclasses.replace(figure(10, "lower", name="nats per code"), group="likelihood")
    first, same = (
        evaluation("a", cost, figure(1)),
        evaluation("b", dataclasses.replace(cost, value=about(20)), figure(9)),
    )
    other = dataclasses.replace(same, run="c", codes="another")
    found = alone(first, same, other)
    assert [line.changes for line in found.lines] == [("worse", "unknown"), ("better", "better")]
    assert [w for w in found.warnings if "image tokenizer" in w and w.startswith("c ")] == list(found.warnings)
    assert len(found.warnings) == 1


@pytest.mark.parametrize(
    ("first", "other", "better", "says"),
    [
        (10, 20, "higher", "better"),
        (20, 10, "higher", "worse"),
        (20, 10, "lower", "better"),
        (10, 20, "lower", "worse"),
        (10, 10.5, "lower", "noise"),
        (-10, 3, "nearer", "better"),
        (3, -10, "nearer", "worse"),
    ],
)
def test_which_way_is_better(first, other, better, says):
    assert change([figure(first, better)], [figure(other, better)]) == says


def test_runs_stand_side_by_side_and_the_words_say_what_changed():
    a = evaluation("a", figure(1), figure(50, name="only a"))
    b = evaluation("b", figure(9), figure(3, name="only b"))
    found = alone(a, b)
    assert [line.name for line in found.lines] == ["it", "only a", "only b"]
    assert [line.changes for line in found.lines] == [("better",), ("noise",), ("noise",)]
    table = compare.table(found)
    assert table[0].split() == ["a", "b"]
    assert table[1].endswith("9 [8, 10] +")
    assert compare.sentences(found) == ["it: b is better than a, 9 against 1."]


def test_runs_of_one_name_are_told_apart_by_their_places(tmp_path):
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        figures.write(tmp_path / place, evaluation("birds", figure(1), asked=place))
    found = compare.compare(recipes.load([str(tmp_path / "x"), str(tmp_path / "y")]))
    assert found.names == (str(tmp_path / "x"), str(tmp_path / "y"))
    assert compare.sentences(found) == ["Nothing could be compared."]


def test_equal_runs_say_so():
    found = alone(evaluation("a", figure(1)), evaluation("b", figure(1.1)))
    assert compare.sentences(found) == ["No difference is larger than noise."]


@pytest.mark.parametrize(
    ("other", "changes"), [({"asked": "b"}, ["unknown", "unknown"]), ({"count": 100}, ["unknown", "better"])]
)
def test_what_was_measured_in_another_way_is_not_compared(other, changes):
    own = dataclasses.replace(figure(1, name="nats"), group="likelihood")
    new = dataclasses.replace(figure(9, name="nats"), group="likelihood")
    found = alone(evaluation("a", figure(1), own), evaluation("b", figure(9), new, **other))
    assert [line.changes[0] for line in found.lines] == changes
    assert len(found.warnings) == 1


def test_other_ways_of_drawing_are_compared_and_named():
    found = alone(evaluation("a", figure(1)), evaluation("b", figure(9), guidance=1.0))
    assert found.lines[0].changes == ("better",)
    assert found.warnings == ("b was measured with guidance 1.0, a with 2.0: that is part of what differs.",)


def test_the_command_reads_runs_and_prints_the_rule(tmp_path, capsys):
    for name, value in (("a", 1.0), ("b", 9.0)):
        (tmp_path / name / "evaluation").mkdir(parents=True)
        figures.write(tmp_path / name / "evaluation", evaluation(name, figure(value)))
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    out = capsys.readouterr().out
    assert "b is better than a" in out
    assert "larger than noise" in out
    assert COVERS in out
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "json"])
    assert json.loads(capsys.readouterr().out)["lines"][0]["changes"] == ["better"]


def test_a_run_that_was_not_evaluated_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="was not evaluated yet: tessera evaluate"):
        recipes.load([str(tmp_path), str(tmp_path)])
    with pytest.raises(ConfigError, match="Name the runs"):
        recipes.load([str(tmp_path)])


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"schema": "tessera-evaluation", "version": 1}', '{"schema": 3}'])
def test_a_damaged_evaluation_is_a_sentence(tmp_path, damage):
    (tmp_path / "evaluation.json").write_text(damage)
    with pytest.raises(ConfigError, match=r"evaluation\.json"):
        figures.read(tmp_path)


def test_another_version_is_a_sentence(tmp_path):
    path = figures.write(tmp_path, evaluation("a"))
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ConfigError, match="another version"):
        figures.read(tmp_path)


def test_json_and_back(tmp_path):
    e = dataclasses.replace(evaluation("a", figure(1)), nats=(1.0, 2.0), cost={"seconds": 3.0})
    figures.write(tmp_path, e)
    assert figures.read(tmp_path) == e


@pytest.mark.parametrize(
    ("value", "says"),
    [(3.0, "3"), (1234567.0, "1,234,567"), (1234.5, "1,234"), (0.12345, "0.123"), (0.0, "0"), (2e-6, "2.0e-06")],
)
def test_numbers_have_three_digits(value, says):
    assert number(value) == says
