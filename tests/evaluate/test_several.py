"""Several drawings of a caption, of which the model keeps the best."""

from types import SimpleNamespace

import pytest
import torch

from tessera.config import SampleConfig
from tessera.evaluate import several
from tessera.evaluate.drawings import Asked
from tessera.evaluate.intervals import Estimate
from tessera.evaluate.several import OF, Several, compare
from tessera.evaluate.tried import Tried

SAMPLING = SampleConfig(guidance=2.0)


def tried(distance: float, words: float | None) -> Tried:
    """With a standard error of 1 for distances and of 0.01 for words."""
    said = None if words is None else Estimate(words, words - 0.02, words + 0.02, 10)
    return Tried(SAMPLING, 10, Estimate(distance, distance - 2, distance + 2, 10), said)


@pytest.mark.parametrize(
    ("one", "best", "diversity", "better"),
    [
        (tried(5, 0.60), tried(5, 0.63), 1.0, True),
        (tried(5, 0.60), tried(5.5, 0.63), 0.95, True),
        (tried(5, 0.60), tried(5, 0.605), 1.0, False),  # within the noise
        (tried(5, 0.60), tried(7, 0.63), 1.0, False),  # farther from the pictures
        (tried(5, 0.60), tried(5, 0.63), 0.89, False),  # all alike
        (tried(5, None), tried(3, None), 1.0, False),
    ],
)
def test_it_is_offered_where_words_gain_and_nothing_is_lost(one, best, diversity, better):
    assert Several(one, best, diversity).better == better


def test_the_first_and_the_best_of_the_same_drawings_are_compared(monkeypatch):
    """Drawings are numbers here: the seed's own; the judge likes the third try."""
    wanted, calls = [Asked(i, f"caption {i}", 100 + i) for i in range(5)], []

    def draw(captions, seeds, sampling, truncate):
        calls.append((captions, sampling))
        return [SimpleNamespace(seed=seed, score=None) for seed in seeds]

    def best(pictures, judge, count):
        assert len({p.seed % several.APART for p in pictures}) == 1, "of one caption"
        return [pictures[2]]

    monkeypatch.setattr(several, "best", best)
    monkeypatch.setattr(several, "OwnJudge", lambda model, prompts: None)
    look = lambda pictures: torch.tensor(
        [[float(p.seed % several.APART), float(p.seed // several.APART)] for p in pictures]
    )
    seen = []

    def measure(features):
        seen.append(features.tolist())
        return tried(1, 0.5)

    found = compare(SimpleNamespace(model=None, prompts=None, draw=draw), SAMPLING, wanted, look, measure)
    assert calls == [([a.caption for a in wanted], SAMPLING)] * OF
    assert seen == [[[100.0 + i, turn] for i in range(5)] for turn in (0.0, 2.0)]
    assert found.diversity == 1.0
    assert found.row()["best_of"] == OF
