"""A model in a folder: whatever was cut off, edited or swapped is a sentence before anything is drawn."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import MODERN, TINY_DVAE, prior
from tessera.config import Gumbel
from tessera.errors import CheckpointError
from tessera.generate.pipeline import Pipeline
from tessera.models import saved
from tessera.models.dvae import DiscreteVAE
from tessera.tokens import image, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A prior with its tokenizers, as a checkpoint holds them."""
    made = tmp_path_factory.mktemp("saved") / "t2i"
    tokenizer = image.Frozen(DiscreteVAE(TINY_DVAE))
    saved.write(made, prior(MODERN, image_vocab=tokenizer.vocab, grid=tokenizer.grid))
    tokenizer.save(made / "image_tokenizer")
    text.Numbers(20).save(made / "text_tokenizer")
    return made


def first_release(folder: Path) -> None:
    """Weights that do not tell the config that they were saved with."""
    save_file(load_file(folder / "weights.safetensors"), folder / "weights.safetensors")


def edit(path: Path, *names: str, value: object) -> None:
    """Change one value, however deep, of a JSON file."""
    about = json.loads(path.read_text())
    place = about
    for name in names[:-1]:
        place = place[name]
    place[names[-1]] = value
    path.write_text(json.dumps(about))


EDITS = [
    (("transformer", "dim"), 64), (("transformer", "dim"), 10**9), (("transformer", "dim"), -8),
    (("transformer", "heads"), 3), (("transformer", "depth"), 2), (("text_vocab",), 10**12), (("text_vocab",), 21),
    (("text_len",), 6), (("text_len",), "five"), (("kind",), []), (("kind",), "vqgan"), (("kind",), "?"), (("kind",), None),
    (("grid",), -8), (("grid",), 10**6), (("image_vocab",), None), (("transformer",), []),
    (("unknown",), 1),
]  # fmt: skip


@pytest.mark.parametrize("old", [False, True], ids=["", "first release"])
@pytest.mark.parametrize(("names", "value"), EDITS)
def test_another_config_than_that_of_the_weights_is_a_sentence(folder, tmp_path, names, value, old):
    shutil.copytree(folder, tmp_path / "t2i")
    if old:
        first_release(tmp_path / "t2i")
    edit(tmp_path / "t2i/config.json", *names, value=value)
    with pytest.raises(CheckpointError, match="t2i"):
        Pipeline.load(tmp_path / "t2i")


@pytest.mark.parametrize(
    ("name", "value"), [("patterns", ["row"]), ("ff", "geglu"), ("positions", "rotary_dalle1"), ("qk_norm", False)]
)
def test_what_no_shape_tells_is_told_by_the_weights(folder, tmp_path, name, value):
    shutil.copytree(folder, tmp_path / "t2i")
    edit(tmp_path / "t2i/config.json", "transformer", name, value=value)
    with pytest.raises(CheckpointError, match="not the one that weights"):
        saved.read(tmp_path / "t2i")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"kind": {}}'])
@pytest.mark.parametrize("name", ["config.json", "image_tokenizer/config.json", "text_tokenizer/config.json"])
def test_a_damaged_config_is_a_sentence(folder, tmp_path, name, content):
    shutil.copytree(folder, tmp_path / "t2i")
    (tmp_path / "t2i" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="t2i"):
        Pipeline.load(tmp_path / "t2i")


def test_every_setting_of_a_vae_is_saved(tmp_path):
    quantizer = Gumbel(kl_weight=0.3, straight_through=True, temperature=0.7)
    config = dataclasses.replace(TINY_DVAE, quantizer=quantizer, reconstruction="smooth_l1")
    saved.write(tmp_path, DiscreteVAE(config))
    assert saved.read(tmp_path).config == config


def test_weights_of_the_first_release_are_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "t2i")
    first_release(tmp_path / "t2i")
    wanted = saved.read(folder).state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in saved.read(tmp_path / "t2i").state_dict().items())


@pytest.mark.parametrize("vocab", [0, -1, 1.5, "20", None, [20], True])
def test_a_vocabulary_is_a_positive_number(folder, tmp_path, vocab):
    shutil.copytree(folder, tmp_path / "t2i")
    edit(tmp_path / "t2i/text_tokenizer/config.json", "vocab", value=vocab)
    with pytest.raises(CheckpointError, match="no text tokenizer"):
        text.load(tmp_path / "t2i/text_tokenizer")


def test_filling_compares_the_whole_config(folder):
    other = prior(MODERN.__class__(dim=32, depth=3, heads=2, head_dim=16, ff="geglu"), image_vocab=27, grid=4)
    with pytest.raises(CheckpointError, match="describes another model"):
        saved.fill(other, folder)
