"""Captions shuffled among drawings are found out."""

import pytest
import torch

from tessera.errors import ConfigError, DataError
from tessera.evaluate.text_fit import WordProbes, content_words, r_precision

needs_sklearn = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("sklearn") is None, reason="scikit-learn comes with the judge extra"
)
WORDS = ("red", "blue", "small", "striped")


def photographs(n: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Features in which each word is one noisy direction, and captions that say which are there."""
    noise = torch.Generator().manual_seed(seed)
    shown = torch.rand(n, len(WORDS), generator=noise) < 0.4
    features = torch.randn(n, 12, generator=noise)
    features[:, : len(WORDS)] += 3 * shown
    captions = [
        "A bird that is " + " and ".join(w.title() for w, s in zip(WORDS, row, strict=True) if s) for row in shown
    ]
    return features, captions


def test_r_precision_counts_the_true_caption_first():
    similarity = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.1, 0.5], [0.0, 0.3, 0.3]])
    assert r_precision(similarity, torch.tensor([0, 1, 2])).value == pytest.approx((1 + 0 + 0.5) / 3)


def test_a_judge_that_cannot_tell_scores_chance():
    assert r_precision(torch.zeros(50, 100), torch.zeros(50, dtype=torch.long)).value == pytest.approx(0.01)


def test_content_words_are_what_a_picture_shows():
    assert content_words("This bird has a RED crown, 2 wings & it's l'œuvre.") == {
        "bird",
        "red",
        "crown",
        "wings",
        "œuvre",
    }


@needs_sklearn
def test_probes_find_words_in_other_pictures_and_find_out_shuffled_captions():
    probes = WordProbes.fit(*photographs(300, 0))
    assert set(probes.words) == set(WORDS)  # every caption has "bird"
    features, captions = photographs(200, 1)
    found = probes.score(features, captions)
    assert set(found) == set(WORDS)
    assert all(e.value > 0.9 and e.low > 0.8 for e in found.values())
    assert all(e.low < 0.5 < e.high for e in probes.score(features, captions[1:] + captions[:1]).values())
    told = probes.overall(features, captions, rounds=20)
    assert told.value == pytest.approx(sum(e.value for e in found.values()) / 4)
    assert told.low > 0.8
    assert probes.overall(features, captions[1:] + captions[:1], rounds=20).high < 0.6


@needs_sklearn
def test_the_most_frequent_words_are_probed():
    features, captions = photographs(100, 0)
    counts = {w: sum(w in content_words(c) for c in captions) for w in WORDS}
    assert WordProbes.fit(features, captions, words=2).words == tuple(sorted(WORDS, key=lambda w: (-counts[w], w))[:2])


@needs_sklearn
def test_words_that_tell_nothing_apart_are_left_out():
    with pytest.raises(DataError, match="nothing to probe"):
        WordProbes.fit(torch.randn(20, 4), ["a red bird"] * 20)
    probes = WordProbes.fit(*photographs(60, 0))
    features, _ = photographs(5, 1)
    assert probes.score(features, ["a bird"] * 5) == {}
    with pytest.raises(DataError, match="No caption tells"):
        probes.overall(features, ["a bird"] * 5)


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.decomposition", None)
    with pytest.raises(ConfigError, match=r"pip install 'tessera-t2i\[judge\]'"):
        WordProbes.fit(*photographs(20, 0))
