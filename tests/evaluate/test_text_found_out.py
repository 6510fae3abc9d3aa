"""Captions that are shuffled among pictures are found out: by R-precision, and by word probes. (By the caption's worth:
tests/evaluate/test_journeys.py, which needs a model.)"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tessera.data.folder import scan
from tessera.data.pictures import middle_square, read, resized
from tessera.data.sources import Pair
from tessera.evaluate import texts
from tessera.evaluate.drawings import Asked, asked
from tessera.evaluate.looking import Look
from tessera.journeys import birds

COLOURS = sorted({colour for palette in birds.PALETTES.values() for colour in palette})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    folder = tmp_path_factory.mktemp("birds")
    birds.draw_folder(folder, 260, pixels=24, seed=5)
    return list(scan(str(folder)).pairs)


def pixels(pairs: list[Pair]) -> torch.Tensor:
    found = [read(Path(p.image)) for p in pairs]  # type: ignore[arg-type]
    return torch.stack([resized(x, middle_square(*x.shape[1:]), 24) for x in found])


def looked(pictures: torch.Tensor) -> Look:
    """By how much of the picture has each of 27 coarse colours."""
    coarse = (pictures.long() * 3 // 256).flatten(2)  # [B, 3, P]
    index = coarse[:, 0] * 9 + coarse[:, 1] * 3 + coarse[:, 2]
    counts = torch.nn.functional.one_hot(index, 27).float().mean(1)
    return Look(counts, None, pictures.flatten(1), torch.zeros(len(pictures), 1, dtype=torch.long))


def shuffled(wanted: list[Asked]) -> list[Asked]:
    captions = [a.caption for a in wanted]
    random.Random(0).shuffle(captions)
    return [Asked(a.picture, c, a.seed) for a, c in zip(wanted, captions, strict=True)]


def test_word_probes_find_out_shuffled_captions(pairs):
    pytest.importorskip("sklearn")
    learned, held = pairs[:180], pairs[180:]
    seen, drawn = looked(pixels(learned)), looked(pixels(held))
    wanted = asked(held, len(held), 0)
    true, words = texts.words(learned, seen, wanted, drawn, held, drawn, drawn, "Coarse")
    false, _ = texts.words(learned, seen, shuffled(wanted), drawn, held, drawn, drawn, "Coarse")
    assert true.value.low > 0.55
    assert false.value.low < 0.5 < false.value.high
    assert true.ceiling == true.value, "these drawings are the held-out pictures themselves"
    by_word = {w.word: w for w in words}
    assert by_word["pink"].drawings == by_word["pink"].photographs
    assert by_word["pink"].asked == sum("pink" in a.caption for a in wanted)
    assert "background" not in by_word or by_word["background"].asked < len(held)


def test_a_tokenizer_that_darkens_hides_words_from_probes_on_photographs_alone(pairs):
    """What the codes keep is half as bright; drawings are the held-out pictures through these codes."""
    pytest.importorskip("sklearn")
    learned, held = pairs[:180], pairs[180:]
    seen, coded = looked(pixels(learned)), looked(pixels(learned) // 2)
    look, drawn = looked(pixels(held)), looked(pixels(held) // 2)
    wanted = asked(held, len(held), 0)
    plain, _ = texts.words(learned, seen, wanted, drawn, held, look, look, "Coarse")
    through = texts.words_through_codes(learned, coded, wanted, drawn, held, drawn, look, "Coarse")
    assert through.value == through.ceiling, "these drawings are what the codes keep of the held-out pictures"
    assert through.value.value > plain.value.value + 0.05
    assert through.value.low > 0.55


def test_r_precision_finds_out_shuffled_captions(pairs, monkeypatch):
    """With a judge that knows which colours a caption names, and which colours its picture was made of."""
    held = pairs[:60]
    pictures = pixels(held)

    def vector(text: str) -> torch.Tensor:
        return torch.tensor([float(c in text.replace(",", "").split()) for c in COLOURS]) + 1e-3

    made_of = {p.numpy().tobytes(): vector(" ".join(pair.captions)) for p, pair in zip(pictures, held, strict=True)}
    unit = lambda rows: torch.nn.functional.normalize(torch.stack(rows), dim=-1)
    monkeypatch.setattr(texts, "captions_read", lambda judge, captions: unit([vector(c) for c in captions]))
    monkeypatch.setattr(texts, "pictures_read", lambda judge, some: unit([made_of[p.numpy().tobytes()] for p in some]))
    wanted = asked(held, len(held), 0)
    true = texts.judged(None, wanted, pictures, pictures, held, pairs[60:], 0)  # type: ignore[arg-type]
    false = texts.judged(None, shuffled(wanted), pictures, pictures, held, pairs[60:], 0)  # type: ignore[arg-type]
    assert true.name == "R-precision among 100"
    assert true.value.low > 0.3
    assert false.value.high < 0.2
    assert true.ceiling == true.value
