"""The original's text tokenizers: what ends a text is not decoded, and id 0 is a word like any other."""

from __future__ import annotations

from pathlib import Path

from tessera.compat.dalle_pytorch.tokenizer import SimpleTokenizer
from tessera.tokens import text as text_tokens


def toy_merges(path: Path) -> Path:
    """A file of CLIP's shape: 48,894 merges, none of which meets English."""
    letters = list(text_tokens._byte_letters().values())[-222:]
    pairs = [f"{a} {b}" for a in letters for b in letters][: text_tokens.CLIP_VOCAB - 514]
    path.write_text("\n".join(["#version: 0.2", *pairs]) + "\n", "utf-8")
    return path


def test_the_end_of_text_is_not_decoded(tmp_path):
    tokenizer = SimpleTokenizer(str(toy_merges(tmp_path / "merges.txt")))
    ids = tokenizer.encode("a cat")
    assert tokenizer.decode([49406, *ids, 49407, 0, 0]).split() == tokenizer.decode(ids).split()
    assert "endoftext" not in tokenizer.decode([*ids, 49407])
    assert tokenizer.decode([*ids, 40407]) != tokenizer.decode(ids)


def test_id_zero_is_no_padding(tmp_path):
    tokenizer = text_tokens.clip_bpe(toy_merges(tmp_path / "merges.txt"))
    ids = tokenizer.encode("!=")
    assert ids[0] == 0
    rows = text_tokens.pad([ids], 4, tokenizer.vocab, False, [""])
    assert rows[0].tolist() == [*ids, tokenizer.vocab + 2, tokenizer.vocab + 3]
    assert tokenizer.decode(rows[0].tolist()).replace(" ", "") == "!="
