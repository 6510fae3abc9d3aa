"""Text tokenizers: a BPE trained on your captions, CLIP's, or one from a file. It knows no pictures."""

from __future__ import annotations

import gzip
import html
import importlib.util
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from annotated_types import Ge
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from tessera.config.merging import cast, read_json
from tessera.errors import CheckpointError, ConfigError, DataError, install
from tessera.tokens.youtoken import YouToken

CLIP_VOCAB = 49408


class TextTokenizer(Protocol):
    """Ids lie in 0 ... vocab - 1; the prior adds its own padding ids above them."""

    vocab: int

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def save(self, folder: Path) -> None: ...


class BPE:
    """A HuggingFace `tokenizers` model, after a function that cleans the text."""

    def __init__(self, inner: Tokenizer, cleaning: str = "none"):
        self.inner, self.cleaning = inner, cleaning
        self.clean = CLEANINGS[cleaning]
        self.vocab = inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(self.clean(text), add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The caption, without padding ids (those beyond the vocabulary)."""
        return self.inner.decode([i for i in map(int, ids) if i < self.vocab]).strip()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self.inner.to_str(), "utf-8")
        (folder / "config.json").write_text(json.dumps({"kind": "bpe", "cleaning": self.cleaning}), "utf-8")


def clip_clean(text: str) -> str:
    """CLIP's cleaning of a caption: repair its encoding, unescape HTML twice, collapse white space, lower case."""
    try:
        import ftfy
    except ImportError as error:
        raise ConfigError(f"CLIP's tokenizer needs ftfy: {install('clip')}.") from error
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


CLEANINGS: dict[str, Callable[[str], str]] = {"none": str, "clip": clip_clean}


def train_bpe(captions: Iterable[str], vocab: int) -> BPE:
    """A byte-level BPE trained on the captions, in lower case. Id 0 is <bos>. It can encode any text."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab, 257),
        min_frequency=2,
        special_tokens=["<bos>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    inner.train_from_iterator(captions, trainer)
    return BPE(inner)


def clip_bpe(merges: Path) -> BPE:
    """CLIP's 49,408-entry BPE from its merges file (bpe_simple_vocab_16e6.txt, gzipped or not)."""
    raw = merges.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    lines = [line.split() for line in text.split("\n")[1 : CLIP_VOCAB - 512 - 2 + 1]]
    pairs = [(line[0], line[1]) for line in lines if len(line) == 2]
    if not len(pairs) == len(lines) == CLIP_VOCAB - 514:
        raise ConfigError(f"{merges} is not CLIP's merges file: it does not hold {CLIP_VOCAB - 514} pairs of symbols.")
    letters = list(_byte_letters().values())
    symbols = letters + [s + "</w>" for s in letters] + ["".join(p) for p in pairs]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {symbol: i for i, symbol in enumerate(symbols)}
    with _sound(f"{merges} is not CLIP's merges file"):
        inner = Tokenizer(models.BPE(vocab=vocab, merges=pairs, end_of_word_suffix="</w>"))
    words = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
    inner.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])  # both are in the vocabulary already
    return BPE(inner, "clip")


def _byte_letters() -> dict[int, str]:
    """GPT-2's letters for bytes, in the order in which CLIP numbers them: the printable ones first."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def find_clip_merges() -> Path:
    """CLIP's merges from an installed package that has them; the package itself is not imported."""
    for package, place in (("open_clip", "."), ("dalle_pytorch", "data"), ("clip", ".")):
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            for name in ("bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt"):
                if (path := Path(root, place, name)).is_file():
                    return path
    raise ConfigError(
        "CLIP's merges were not found. Name their file (--tokens.text .../bpe_simple_vocab_16e6.txt.gz), or install a "
        "package that has them: pip install --no-deps open_clip_torch."
    )


class Numbers:
    """The tokenizer of a model without one: prompts are token ids, "17 4 256"."""

    def __init__(self, vocab: int):
        self.vocab = vocab

    def encode(self, text: str) -> list[int]:
        words = text.replace(",", " ").split()
        if bad := [w for w in words if not w.isdecimal() or int(w) >= self.vocab]:
            raise ConfigError(
                f"'{bad[0]}' is not a token id below {self.vocab}. This model was imported without a text tokenizer, "
                "so its prompts are token ids; import it again with --text to write words."
            )
        return [int(w) for w in words]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(str(int(i)) for i in ids if i < self.vocab)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"kind": "numbers", "vocab": self.vocab}), "utf-8")


def chinese() -> BPE:
    """bert-base-chinese from the Hugging Face hub or its cache."""
    try:
        return BPE(Tokenizer.from_pretrained("bert-base-chinese"))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(
            f"bert-base-chinese cannot be fetched ({str(error).splitlines()[0]}). Download its tokenizer.json or "
            "vocab.txt where there is a network and name the file with --tokens.text (or --text)."
        ) from error


def wordpiece(path: Path) -> BPE:
    """A BERT tokenizer from its vocab.txt, one entry a line, as bert-base-chinese has it."""
    entries = path.read_text("utf-8").split("\n")
    entries = entries[:-1] if entries[-1] == "" else entries
    if "[UNK]" not in entries:
        raise ConfigError(f"{path} is not a BERT vocabulary: it has no [UNK].")
    inner = Tokenizer(models.WordPiece({e: i for i, e in enumerate(entries)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.add_special_tokens([e for e in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if e in entries])
    return BPE(inner)


def choose(name: str, captions: Iterable[str], vocab: int) -> TextTokenizer:
    """The tokenizer of this name: bpe (trained on the captions), or one that `find` knows."""
    return train_bpe(captions, vocab) if name == "bpe" else find(name)


def find(name: str) -> TextTokenizer:
    """An existing tokenizer: clip, chinese, a tokenizer.json, a folder with one, a BERT vocab.txt, a YouTokenToMe
    model, or a file of CLIP's merges. Raises ConfigError for anything else."""
    if name in NAMED:
        return NAMED[name]()
    path = Path(name).expanduser()
    if path.is_dir():
        return load(path) if (path / "config.json").is_file() else BPE(_read(path / "tokenizer.json"))
    if not path.is_file():
        raise ConfigError(f"The text tokenizer '{name}' is neither bpe, clip, chinese, nor a file.")
    form = FILES.get(path.suffix, wordpiece if path.name.endswith("vocab.txt") else clip_bpe)
    try:
        return form(path)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read as a text tokenizer: {error}.") from error


NAMED: dict[str, Callable[[], TextTokenizer]] = {"clip": lambda: clip_bpe(find_clip_merges()), "chinese": chinese}
FILES: dict[str, Callable[[Path], TextTokenizer]] = {".json": lambda path: BPE(_read(path)), ".model": YouToken}


def load(folder: Path) -> TextTokenizer:
    """The tokenizer that `save` wrote. Raises CheckpointError if there is none."""
    try:
        config = read_json(folder / "config.json", dict)
        return KINDS[cast(config.get("kind"), str, "kind")](folder, config)
    except (OSError, ValueError, LookupError, ConfigError) as error:
        raise CheckpointError(f"{folder} holds no text tokenizer: {error}") from error


KINDS: dict[str, Callable[[Path, dict], TextTokenizer]] = {
    "bpe": lambda folder, config: BPE(
        _read(folder / "tokenizer.json"), cast(config["cleaning"], Literal["none", "clip"], "cleaning")
    ),
    "youtokentome": lambda folder, config: YouToken(folder / "youtokentome.model"),
    "numbers": lambda folder, config: Numbers(cast(config["vocab"], Annotated[int, Ge(1)], "vocab")),
}


def _read(path: Path) -> Tokenizer:
    with _sound(f"{path} is not a tokenizer.json of HuggingFace tokenizers"):
        return Tokenizer.from_file(str(path))


@contextmanager
def _sound(wrong: str) -> Iterator[None]:
    """Turn what the library raises, which is bare Exception or a panic that is none, into a ConfigError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ConfigError(f"{wrong}: {str(error)[:300]}") from error


def pad(
    ids: Sequence[Sequence[int]], length: int, vocab: int, truncate: bool, names: Sequence[str]
) -> Int[Tensor, "B T"]:
    """Rows of ids, filled up with the padding id of each place (vocab + place).

    Raises DataError that names the caption (`names`) if one is longer than `length`, unless `truncate`.
    """
    rows = torch.arange(vocab, vocab + length).repeat(len(ids), 1)
    for row, caption, name in zip(rows, ids, names, strict=True):
        if len(caption) > length and not truncate:
            raise DataError(
                f"{name}: the caption has {len(caption)} tokens, more than model.text-len {length}. "
                "Raise it, or cut such captions with --data.truncate."
            )
        row[: len(caption)] = torch.tensor(caption[:length], dtype=torch.long)
    return rows
