"""Text tokenizers."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import GOLDEN
from tessera.errors import ConfigError, DataError
from tessera.tokens import text

CAPTIONS = ["a small red bird", "this bird has blue wings", "a bird with a white belly"] * 5
BPE = text.train_bpe(CAPTIONS, 400)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Lu", "Lt"]), max_size=30))
def test_trained_bpe_knows_every_text(caption):
    import unicodedata

    plain = unicodedata.normalize("NFC", caption).lower()
    ids = BPE.encode(caption)
    assert 0 not in ids, "id 0 is <bos>"
    assert all(0 < i < BPE.vocab for i in ids)
    assert BPE.decode(ids) == plain.strip()


def test_trained_bpe_learns_words_and_ignores_case():
    assert BPE.decode(BPE.encode("A small RED bird")) == "a small red bird"
    assert len(BPE.encode("bird")) == 1
    assert BPE.vocab <= 400


def test_padding_has_an_id_for_each_place():
    rows = text.pad([[5, 6], []], 4, 100, False, ["x", "y"])
    assert rows.tolist() == [[5, 6, 102, 103], [100, 101, 102, 103]]
    assert BPE.decode([*BPE.encode("red"), BPE.vocab + 3]) == "red"


def test_too_long_is_an_error_with_a_remedy_or_is_cut():
    with pytest.raises(DataError, match=r"birds/1\.txt: the caption has 3 tokens.*--data\.truncate"):
        text.pad([[1, 2, 3]], 2, 100, False, ["birds/1.txt"])
    assert text.pad([[1, 2, 3]], 2, 100, True, ["birds/1.txt"]).tolist() == [[1, 2]]


def test_saving_and_loading(tmp_path):
    BPE.save(tmp_path)
    again = text.load(tmp_path)
    assert again.encode(CAPTIONS[1]) == BPE.encode(CAPTIONS[1])
    assert text.choose(str(tmp_path / "tokenizer.json"), [], 0).encode("red") == BPE.encode("red")


def merges_file(path):
    """A made-up file of CLIP's form: real pairs for 'bird', made-up ones for the rest."""
    letters = list(text._byte_letters().values())
    pairs = ["b i", "r d</w>", "bi rd</w>"]
    pairs += [f"{a} {b}{c}" for a in letters for b in letters for c in ("", "</w>")]
    pairs = list(dict.fromkeys(pairs))[: text.CLIP_VOCAB - 514]
    path.write_text("\n".join(["#version", *pairs, "", "left over"]), "utf-8")
    return path


def test_clip_bpe_from_its_merges_file(tmp_path):
    clip = text.choose(str(merges_file(tmp_path / "merges.txt")), [], 0)
    assert clip.vocab == 49408
    bird = 512 + 2
    assert clip.encode("bird") == [bird]
    assert clip.encode("  A  BIRD&amp;amp; ")[1:2] == [bird]
    assert clip.encode("!")[0] == 256, "CLIP's '!</w>'"
    assert clip.decode(clip.encode("a bird , a bird")) == "a bird , a bird"
    clip.save(tmp_path / "saved")
    assert text.load(tmp_path / "saved").encode("A Bird") == clip.encode("a bird")


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    bad = tmp_path / "x.json"
    bad.write_text("{}")
    with pytest.raises(ConfigError, match=r"not a tokenizer\.json"):
        text.choose(str(bad), [], 0)
    short = tmp_path / "merges.txt"
    short.write_text("a b\n")
    with pytest.raises(ConfigError, match="not CLIP's merges"):
        text.choose(str(short), [], 0)
    with pytest.raises(ConfigError, match=r"neither bpe, clip"):
        text.choose("bpee", [], 0)


def test_a_bert_vocabulary_splits_chinese_into_letters(tmp_path):
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "一", "只", "红", "鸟", "bird", "##s", "B"]
    (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n", "utf-8")
    tokenizer = text.find(str(tmp_path / "vocab.txt"))
    assert tokenizer.vocab == 12
    assert tokenizer.encode("一只红鸟 birds B 蓝") == [5, 6, 7, 8, 9, 10, 11, 1]
    tokenizer.save(tmp_path / "saved")
    again = text.load(tmp_path / "saved")
    assert again.encode("红鸟") == [7, 8]
    assert again.decode([7, 8, 9, 10, 15]) == "红 鸟 birds"
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ConfigError, match=r"no \[UNK\]"):
        text.find(str(tmp_path / "vocab.txt"))


def test_a_youtokentome_model_is_saved_and_refused_when_it_is_none(tmp_path):
    golden = GOLDEN / "yttm_open.model"
    tokenizer = text.find(str(golden))
    tokenizer.save(tmp_path / "saved")
    assert text.load(tmp_path / "saved").encode("a red bird") == tokenizer.encode("a red bird") == [79, 55, 81]
    (tmp_path / "cut.model").write_text("\n".join(golden.read_text().splitlines()[:60]))
    with pytest.raises(ConfigError, match="not a YouTokenToMe model"):
        text.find(str(tmp_path / "cut.model"))


def test_numbers_are_prompts_of_models_without_a_tokenizer(tmp_path):
    numbers = text.Numbers(10)
    assert numbers.encode("3, 0 9") == [3, 0, 9]
    assert numbers.decode([3, 0, 12]) == "3 0"
    with pytest.raises(ConfigError, match="'10' is not a token id below 10"):
        numbers.encode("1 10")
    numbers.save(tmp_path)
    assert text.load(tmp_path).vocab == 10


def test_a_panic_of_the_library_is_a_sentence(tmp_path, monkeypatch):
    class Panic(BaseException):
        """As pyo3's."""

    def panic(path: str) -> None:
        raise Panic("range end index 18446744073709551613 out of range")

    (tmp_path / "x.json").write_text("{}")
    monkeypatch.setattr(text, "Tokenizer", SimpleNamespace(from_file=panic))
    with pytest.raises(ConfigError, match=r"x\.json is not a tokenizer\.json.*range end index"):
        text.find(str(tmp_path / "x.json"))
