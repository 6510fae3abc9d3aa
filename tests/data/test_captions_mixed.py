"""Captions joined, and words left out: what may come, how often, and that it follows from chance alone."""

from pathlib import Path

import numpy as np
import pytest

from tessera.config import NoiseConfig
from tessera.data.batches import MixedCaptions, captions_of
from tessera.data.sources import Pair
from tessera.tokens.text import train_bpe

PAIRS = [
    Pair("a", Path("a.png"), ("a red bird", "it sings", "two wings")),
    Pair("b", Path("b.png"), ("one blue fish",)),
]
TEXT = train_bpe([c for p in PAIRS for c in p.captions], 300)
INDEX, CHANCE = np.zeros(300, dtype=np.int64), np.random.default_rng(0).integers(2**63, size=300).astype(np.uint64)


def drawn(join: int, dropped: float, index: np.ndarray = INDEX) -> list[str]:
    captions = MixedCaptions(PAIRS, TEXT, 24, True, NoiseConfig(join=join, drop_words=dropped))
    return [TEXT.decode(row.tolist()) for row in captions.some(index, CHANCE[: len(index)])]


def test_one_to_three_captions_stand_one_after_the_other():
    found = drawn(3, 0.0)
    a, b, c = PAIRS[0].captions
    assert {a, b, c} < set(found), "each of them alone too"
    assert {f"{a} {b}", f"{b} {a}", f"{c} {a} {b}"} < set(found), "in any order"
    counts = [sum(part in text for part in (a, b, c)) for text in found]
    assert np.bincount(counts, minlength=4)[1:].tolist() == pytest.approx([100, 100, 100], abs=25)


def test_a_picture_with_one_caption_keeps_it():
    assert set(drawn(3, 0.0, np.ones(20, dtype=np.int64))) == {"one blue fish"}


def test_a_share_of_the_words_is_left_out():
    words = [len(text.split()) for text in drawn(1, 0.25, np.ones(300, dtype=np.int64))]
    assert np.mean(words) == pytest.approx(3 * 0.75, abs=0.15)


def test_it_follows_from_chance_and_reads_the_same_from_files():
    captions = MixedCaptions(PAIRS, TEXT, 24, True, NoiseConfig(join=2, drop_words=0.1))
    assert drawn(2, 0.1) == drawn(2, 0.1)
    rows = captions.some(INDEX[:5], CHANCE[:5])
    for row, chance in zip(rows, CHANCE, strict=False):
        assert row.tolist() == captions.pick(0, np.random.default_rng(int(chance))).tolist()


def test_joined_captions_are_cut_where_they_are_too_long():
    captions = MixedCaptions(PAIRS, TEXT, 4, True, NoiseConfig(join=3))
    assert captions.some(INDEX[:9], CHANCE[:9]).shape == (9, 4)


def test_nothing_asked_for_is_one_caption():
    plain = captions_of((PAIRS, PAIRS), TEXT, 24, True, NoiseConfig())[0]
    mixed, held = captions_of((PAIRS, PAIRS), TEXT, 24, True, NoiseConfig(join=2))
    assert isinstance(mixed, MixedCaptions)
    assert not isinstance(held, MixedCaptions)
    assert not isinstance(plain, MixedCaptions)
    assert set(drawn(1, 0.0)) == {TEXT.decode(r.tolist()) for r in plain.rows(0)}
