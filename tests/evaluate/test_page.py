"""The page: bars from floor to ceiling, heat maps, and that nothing of a caption is taken for HTML."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from tessera.evaluate import page
from tessera.evaluate.figures import Evaluation, Figure, Word
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.meanings import COVERS
from tessera.evaluate.memorisation import Verdict
from tessera.evaluate.telling import EDGE, WIDTH, bar, place, summary


def figure(value: float, floor: float | None = 0.0, ceiling: float | None = 10.0) -> Figure:
    one = lambda v: None if v is None else Estimate(v, v, v, 9)
    return Figure(name="it", group="drawings", value=Estimate(value, value - 1, value + 1, 9), floor=one(floor),
                  ceiling=one(ceiling), codes=one(8.0))  # fmt: skip


@pytest.mark.parametrize(("value", "at"), [(0, 0), (10, 1), (5, 0.5), (99, 1.1), (-99, -0.1)])
def test_a_figure_stands_between_its_floor_and_its_ceiling(value, at):
    assert place(figure(value), value) == pytest.approx(at)


def test_lower_is_better_turns_the_bar_around():
    assert place(figure(3, floor=10, ceiling=0), 3) == pytest.approx(0.7)


def test_a_bar_has_the_value_its_interval_and_the_codes():
    svg = bar(figure(5))
    (middle,) = re.findall(r"<circle cx=([\d.]+)", svg)
    assert float(middle) == pytest.approx(WIDTH / 2)
    assert svg.count("<path") == 1
    assert f"x1={EDGE} x2={WIDTH - EDGE}" in svg


@pytest.mark.parametrize("f", [figure(5, floor=None), figure(5, ceiling=None), figure(5, floor=10.0)])
def test_no_bar_without_two_ends(f):
    assert bar(f) == ""


def test_the_heat_map_is_a_square_from_light_to_dark():
    found = page.heat([0.0, 1.0, 2.0, 4.0])
    assert found.size == (24, 24)
    corners = [sum(found.getpixel(at)) for at in ((0, 0), (23, 0), (0, 23), (23, 23))]  # type: ignore[arg-type]
    assert corners == sorted(corners, reverse=True)
    assert page.heat([1.0] * 4).size == (24, 24), "where all are equal nothing is divided by zero"


def test_captions_are_no_html():
    nasty = "<script>alert(1)</script> & 'quotes'"
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)
    e = Evaluation(
        run=nasty, model="m", settings={"guidance": 2.0, nasty: nasty}, figures=(figure(5),), notes=(nasty,),
        pictures={"learned": 1, "held out": 2, "drawn": 1, "learned, looked at": 1, "held out, looked at": 2},
        verdict=Verdict("copies", nasty), words=(Word(word=nasty, photographs=None, drawings=0.5, asked=1),),
        nats=(1.0, 2.0, 3.0, 4.0), worth=(0.0, 0.0, 0.0, 1.0), cost={"parameters": 12.0},
    )  # fmt: skip
    beside = [page.Beside(picture, picture, picture, picture, nasty, 0.5)]
    shown = page.Shown(e, [(picture, nasty)], beside, torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 3, 4, 4, dtype=torch.uint8))  # fmt: skip
    text = page.whole_page(shown)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 7
    assert "class='verdict copies'" in text
    assert COVERS in text, "what an interval does not cover is said where intervals are explained"
    assert f"  {COVERS}" in summary(e)
    assert f"  {COVERS}" not in summary(dataclasses.replace(e, figures=()))
    assert all(
        f"<h2>{name}" in text for name in ("The figures", "Words", "Where in the picture", "How the verdict is made")
    )
