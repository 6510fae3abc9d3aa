"""Drawing settings by a race."""

import pytest
import torch

from tessera.config import SampleConfig
from tessera.errors import ConfigError
from tessera.evaluate import search
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.search import ROUNDS, TRIED, race
from tessera.evaluate.text_fit import WordProbes
from tessera.evaluate.tried import Tried, ordered
from tessera.generate import defaults

WORDS = ("red", "blue", "green")


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 10)


def tried(guidance: float, distance: float, words: float | None, noise: float = 0.02) -> Tried:
    said = None if words is None else estimate(words, noise)
    return Tried(SampleConfig(guidance=guidance), 10, estimate(distance, 4.0), said)


def test_what_stays_behind_in_either_figure_comes_later():
    near, far, deaf = tried(1, 3.0, 0.8), tried(2, 30.0, 0.8), tried(3, 3.0, 0.6)  # 13.5 and 20 times the noise behind
    assert ordered([deaf, far, near]) == [near, far, deaf]
    assert ordered([tried(1, 5.0, None), near_only := tried(2, 2.0, None)])[0] == near_only


def test_a_figure_that_is_all_noise_does_not_decide():
    """Words differ by 0.1 with a noise of 0.5, distances by 10 with one of 4."""
    near, far = tried(1, 3.0, 0.6, noise=0.5), tried(2, 13.0, 0.7, noise=0.5)
    assert ordered([far, near])[0] == near


def made(course: search.Course, best: SampleConfig, calls: list):
    """Drawings that are like the learned pictures with `best`, and lie the farther away the less like it the settings
    are."""

    def draw(sampling: SampleConfig, first: int, count: int):
        calls.append((sampling, first, count))
        noise = torch.Generator().manual_seed(first)
        said = [WORDS[(first + i) % 3] for i in range(count)]
        away = abs(sampling.guidance - best.guidance) + 3 * abs(sampling.top_p - best.top_p)
        rows = torch.stack([pictured(w, noise) for w in said]) + away
        return rows, said

    return draw


def pictured(word: str, noise: torch.Generator) -> torch.Tensor:
    return 3 * torch.eye(3)[WORDS.index(word)].repeat(4) + torch.randn(12, generator=noise)


def course() -> search.Course:
    noise, found = torch.Generator().manual_seed(9), object.__new__(search.Course)
    captions = [WORDS[i % 3] for i in range(120)]
    found.coded = torch.stack([pictured(w, noise) for w in captions])
    found.probes = WordProbes.fit(found.coded, captions)
    return found


@pytest.mark.parametrize("best", [TRIED[0], TRIED[5], TRIED[-1]])
def test_the_race_finds_the_setting_whose_drawings_are_nearest(best):
    calls: list = []
    on = course()
    found = race(on, made(on, best, calls), 16)
    assert found[0].sampling == best
    assert sorted(map(str, (t.sampling for t in found))) == sorted(map(str, TRIED))


def test_the_better_ones_draw_more_and_nobody_draws_a_picture_twice():
    calls: list = []
    on = course()
    found = race(on, made(on, TRIED[4], calls), 16)
    drawn = {s: [(first, count) for t, first, count in calls if t == s] for s in TRIED}
    assert sorted(map(len, drawn.values())) == [1] * 8 + [2] * 2 + [3] * 2
    for parts in drawn.values():
        assert [first for first, _ in parts] == [0, 16, 32][: len(parts)]
    assert [found[0].count, found[1].count] == [16 * ROUNDS[-1][1]] * 2
    assert found[0].row()["drawings"] == 64


def test_defaults_are_kept_with_the_run_and_read_for_its_checkpoints(tmp_path):
    assert defaults.kept(tmp_path) is None
    assert defaults.usual(tmp_path) == SampleConfig()
    chosen = tried(2, 1.0, 0.7)
    defaults.keep(tmp_path, chosen.sampling, [chosen.row()])
    (tmp_path / "step-000002").mkdir()
    for place in (tmp_path, tmp_path / "step-000002"):
        assert defaults.usual(place) == SampleConfig(guidance=2)
    found = defaults.kept(tmp_path)
    assert found
    assert found.tried[0]["kid"] == 1.0


@pytest.mark.parametrize("text", ["[]", "{", '{"sampling": {"guidance": "x"}}', '{"sampling": {"top_p": 7}}', "{}"])
def test_a_damaged_file_is_a_sentence_that_names_it(tmp_path, text):
    (tmp_path / defaults.FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"drawing\.json"):
        defaults.usual(tmp_path)
