"""Seeds of one recipe: gathered from the command line, measured as one, and refused or told of where they are not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tessera.cli import main
from tessera.config import DataConfig, OptimConfig, TokensConfig, TrainConfig, to_dict
from tessera.errors import ConfigError
from tessera.evaluate import figures, recipes
from tessera.evaluate.compare import RULE, TRAINED, compare, pooled, sentences, table
from tessera.evaluate.figures import Evaluation, Figure
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.meanings import COVERS
from tessera.evaluate.recipes import Recipe

GOLDEN = """\
            a1,a2,a3            b1,b2,b3
trainings   3                   3
PSNR, dB    19 [16.5, 21.5]     21.5 [19, 24] +
SSIM        0.5 [0.252, 0.748]  0.6 [0.352, 0.848]
KID × 1000  200 [175, 225]      90 [87.6, 92.4] ++

PSNR, dB: b1,b2,b3 is better than a1,a2,a3, 21.5 against 19, taken by itself.
KID × 1000: b1,b2,b3 is better than a1,a2,a3, 90 against 200, among all figures too.

"""


def line(name: str, value: float, better: str = "higher", half: float = 0.0, group: str = "drawings") -> Figure:
    own = Estimate(value, value - half, value + half, 50)
    return Figure(name=name, group=group, value=own, better=better)  # type: ignore[arg-type]


def evaluation(run: str, *found: Figure, asked: str = "a", codes: str = "", **settings: object) -> Evaluation:
    told = {"count": 500, "guidance": 2.0, **settings}
    return Evaluation(run=run, model=run, settings=told, pictures={}, asked=asked, codes=codes, figures=found)


def trained(name: str, values, **about) -> Recipe:
    """A recipe whose trainings have these values of one figure."""
    return Recipe(runs=tuple(evaluation(f"{name}{i}", line("it", v, **about)) for i, v in enumerate(values)))


def kept(folder: Path, e: Evaluation, config: TrainConfig | None = None) -> str:
    """A run folder with its evaluation, and its settings where they are given."""
    (folder / e.run / "evaluation").mkdir(parents=True)
    figures.write(folder / e.run / "evaluation", e)
    if config:
        (folder / e.run / "config.json").write_text(json.dumps(to_dict(config)))
    return str(folder / e.run)


def six(folder: Path) -> tuple[str, str]:
    """Two recipes of three seeds, as words of the command."""
    words = []
    for name, psnr, kid, ssim, wide in (("a", 19, 200, 0.5, 10), ("b", 21.5, 90, 0.6, 0.5)):
        places = [
            kept(folder, evaluation(f"{name}{i + 1}", line("PSNR, dB", psnr + off), line("SSIM", ssim + off / 10),
                                    line("KID × 1000", kid + wide * off, "lower", 2.0)))
            for i, off in enumerate((-1, 0, 1))
        ]  # fmt: skip
        words.append(",".join(places))
    return words[0], words[1]


def test_the_command_measures_seeds_as_one(tmp_path, capsys):
    a, b = six(tmp_path)
    main(["compare", a, b])
    assert capsys.readouterr().out == f"{GOLDEN}{RULE}\n{TRAINED}\n"
    main(["compare", a, b.split(",")[0], "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == [["a1", "a2", "a3"], ["b1"]]
    assert found["rule"] == f"{RULE} {TRAINED} {COVERS}"
    assert [f["changes"] for f in found["lines"]] == [["noise"], ["noise"], ["better"]]
    assert found["lines"][2]["chances"][0] < 0.05


def test_a_group_has_the_mean_of_its_runs_and_students_interval():
    values = [1.0, 2.5, 2.0]
    found = compare([trained("a", values), trained("b", [9.0])])
    own = found.lines[0].figures[0]
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert own is not None
    assert (own.value.value, own.value.low, own.value.high) == pytest.approx((np.mean(values), *interval), abs=1e-3)
    assert found.runs == (("a0", "a1", "a2"), ("b0",))


def test_the_ends_of_a_line_are_means_too_and_a_missing_one_stays_missing():
    low, high = line("it", 1), line("it", 3)
    ends = (
        dataclasses.replace(low, ceiling=Estimate(5, 5, 5, 9)),
        dataclasses.replace(high, ceiling=Estimate(7, 7, 7, 9)),
    )
    found = pooled(ends)
    assert found.ceiling is not None
    assert found.ceiling.value == 6
    assert found.floor is None
    assert pooled([low]) is not None
    assert pooled([low]) == low


def test_a_figure_that_one_run_lacks_is_the_mean_of_the_others():
    runs = (evaluation("a", line("it", 1), line("judge", 2)), evaluation("b", line("it", 3), line("judge", 4)))
    found = compare([Recipe(runs=(*runs, evaluation("c", line("it", 5)))), trained("d", [9.0])])
    assert [f.figures[0].value.value for f in found.lines if f.figures[0]] == [3, 3]
    assert [f.figures[1] for f in found.lines][1] is None
    assert found.lines[1].changes == ("noise",)
    assert found.warnings == ("Not every run of a,b,c has judge: that is the mean of those that do.",)


def test_a_figure_of_one_run_only_keeps_its_own_interval():
    runs = (evaluation("a", line("it", 1, half=2.0)), evaluation("b"), evaluation("c"))
    found = compare([Recipe(runs=runs), Recipe(runs=(evaluation("d", line("it", 9, half=2.0)),))])
    assert found.lines[0].figures[0] == runs[0].figures[0]
    assert found.lines[0].changes == ("better",)
    assert found.lines[0].chances == (None,)


def test_one_recipe_alone_shows_its_figures(tmp_path):
    a, _ = six(tmp_path)
    found = compare(recipes.load([a]))
    assert [len(f.changes) for f in found.lines] == [0, 0, 0]
    assert sentences(found) == ["One recipe alone: there is nothing to hold it against."]
    assert table(found)[0].split() == ["a1,a2,a3"]


def test_what_codes_cost_is_compared_where_both_recipes_have_the_same_tokenizers():
    def recipe(name: str, value: float, codes: str) -> Recipe:
        cost = line("nats per code", value, "lower", group="likelihood")
        seeds = enumerate(codes)
        return Recipe(runs=tuple(evaluation(f"{name}{i}", dataclasses.replace(cost, value=Estimate(value + i, value + i, value + i, 9)), codes=c) for i, c in seeds))  # fmt: skip

    first = recipe("a", 50, "xyz")
    for codes, says in (("xyz", "better"), ("zxy", "better"), ("xyzxyz", "better"), ("xyy", "unknown"), ("x", "unknown"), ("uvw", "unknown")):  # fmt: skip
        found = compare([first, recipe("b", 5, codes)])
        assert found.lines[0].changes == (says,), codes
        assert any("what a code costs" in w for w in found.warnings) == (says == "unknown")
        assert found.lines[0].figures[0].value.value == 51, "within a recipe its own spread is measured all the same"  # type: ignore[union-attr]


def test_all_figures_are_looked_at_together():
    """Of forty figures of equal recipes some seem to differ, and by Holm's method seldom any."""
    noise, single, together = np.random.default_rng(3), 0, 0
    for _ in range(40):
        a, b = (
            Recipe(runs=tuple(evaluation(f"{name}{k}", *(line(f"{i}", float(noise.normal())) for i in range(40))) for k in range(3)))
            for name in "ab"
        )  # fmt: skip
        found = compare([a, b])
        single += any(f.changes[0] != "noise" for f in found.lines)
        together += any(f.together[0] for f in found.lines)
    assert single > 20
    assert together <= 4


def test_runs_alone_are_told_that_training_again_is_not_covered(tmp_path, capsys):
    places = [kept(tmp_path, evaluation(name, line("it", 1))) for name in "ab"]
    main(["compare", *places])
    out = capsys.readouterr().out
    assert COVERS in out
    assert "trainings of one recipe" not in out


def config(seed: int, lr: float = 1e-3, image: str = "") -> TrainConfig:
    return TrainConfig(
        seed=seed, out=f"runs/{seed}", optim=OptimConfig(lr=lr), tokens=TokensConfig(image=image), data=DataConfig(path="p")
    )  # fmt: skip


def test_runs_that_look_like_seeds_are_named(tmp_path):
    makes = {"a": config(1, image="x"), "b": config(2, image="y"), "c": config(3, lr=2e-3), "d": config(1)}
    places = {name: kept(tmp_path, evaluation(name, line("it", 1)), made) for name, made in makes.items()}
    (said,) = compare(recipes.load(list(places.values()))).warnings
    assert said.startswith("a, b look like seeds of one recipe.")
    assert said.endswith(f"{places['a']},{places['b']}")
    inner = [f"{places[name]}/evaluation" for name in "ab"]
    assert len(compare(recipes.load(inner)).warnings) == 1, "the folder of the evaluation is of the run too"
    assert not compare(recipes.load([",".join(inner), places["c"]])).warnings


def test_runs_of_two_recipes_under_one_comma_are_told(tmp_path):
    places = [kept(tmp_path, evaluation(n, line("it", 1)), c) for n, c in (("a", config(1)), ("b", config(2, lr=5e-3)))]
    (said,) = compare(recipes.load([",".join(places)])).warnings
    assert said == (
        "b was trained with other settings than a (optim.lr: 0.001 -> 0.005): their spread has that too, and is "
        "not that of one recipe."
    )


def test_other_ways_of_drawing_within_a_recipe_are_told(tmp_path):
    places = [kept(tmp_path, evaluation(n, line("it", 1), guidance=g)) for n, g in (("a", 2.0), ("b", 3.0))]
    (said,) = compare(recipes.load([",".join(places)])).warnings
    assert said == "b was drawn with guidance 3.0, a with 2.0: their spread has that too."


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"asked": "b"}, "b was measured on other held-out pictures than a, so they have no common mean"),
        ({"count": 100}, "b was measured with count 100, a with 500, .* Evaluate both with the same --count"),
    ],
)
def test_runs_measured_in_two_ways_have_no_mean(tmp_path, other, says):
    places = [kept(tmp_path, e) for e in (evaluation("a", line("it", 1)), evaluation("b", line("it", 1), **other))]
    with pytest.raises(ConfigError, match=says):
        recipes.load([",".join(places)])
    assert recipes.load(places), "side by side they may stand"


def test_one_training_twice_is_not_two(tmp_path):
    a, b = (kept(tmp_path, evaluation(name, line("it", 1))) for name in "ab")
    with pytest.raises(ConfigError, match=r"has the weights of .* says nothing of training again"):
        recipes.load([f"{a},{a}", b])
    assert recipes.load([f"{a},{b}", b]), "the same runs may be drawn from in two ways"


@pytest.mark.parametrize("word", ["a,", ",a", "a,,b", ","])
def test_a_comma_beside_nothing_is_a_sentence(word):
    with pytest.raises(ConfigError, match="a comma with no run beside it"):
        recipes.load([word, "b"])


def test_a_folder_with_a_comma_in_its_name_is_one_run(tmp_path):
    place = kept(tmp_path, evaluation("a,b", line("it", 1)))
    other = kept(tmp_path, evaluation("c", line("it", 1)))
    assert [len(r.runs) for r in recipes.load([place, other])] == [1, 1]


def test_long_names_are_cut():
    many = Recipe(runs=tuple(evaluation(f"birds-wide-and-deep-{i}") for i in range(3)))
    assert many.name == "birds-wide-and-deep-0 and 2 more"
    assert Recipe(runs=(evaluation("x" * 90),)).name == "x" * 90


LOGGED = {
    "nats per code": (3.87, 3.94, 3.55),
    "SSIM": (0.494, 0.490, 0.453),
    "distance of reconstructions": (0.643, 0.674, 0.684),
    "class agreement": (0.01, 0.02, 0.10),
    "codes in use": (518, 546, 490),
    "perplexity of codes": (169, 195, 194),
}
"""Of three seeds of one recipe (docs/LOG.md, 26 November): all that lay outside of a run's own interval."""


def test_the_logged_seeds_are_covered_by_their_interval():
    """That is arithmetic: three values differ by 2 s at most, and the half-width is 2.48 s."""
    for name, values in LOGGED.items():
        own = pooled([line(name, v) for v in values]).value
        assert max(values) - min(values) < own.high - own.value


def test_two_of_the_logged_seeds_foretell_the_third_as_often_as_they_should():
    """One miss in twenty is promised; here it is one in eighteen: two seeds that are alike by luck (195 and 194)."""
    found = [
        (name, i, compare([trained("two", values[:i] + values[i + 1 :]), trained("third", [values[i]])]))
        for name, values in LOGGED.items()
        for i in range(3)
    ]
    missed = [(name, i) for name, i, c in found if c.lines[0].changes != ("noise",)]
    assert missed == [("perplexity of codes", 0)]
