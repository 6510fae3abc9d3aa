"""The original's data set: both forms of its call, and what it names before it gives up."""

from __future__ import annotations

import pytest
from PIL import Image

from conftest import GOLDEN
from tessera.compat.dalle_pytorch.loader import TextImageDataset
from tessera.compat.dalle_pytorch.tokenizer import HugTokenizer
from tessera.errors import DataError

HUG = GOLDEN / "hug_bpe_open.json"


def test_unreadable_pictures_and_long_captions_are_named(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
        (tmp_path / f"{name}.txt").write_text("a bird that is described at length")
    data = TextImageDataset(tmp_path, 16, 8, tokenizer=HugTokenizer(HUG))
    with pytest.raises(DataError, match="None of the 2 pictures"):
        data[0]
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    short = TextImageDataset(str(tmp_path), text_len=3, image_size=8, tokenizer=HugTokenizer(HUG))
    with pytest.raises(DataError, match=r"b.*too long.*truncate_captions=True"):
        short[0]
    cut = TextImageDataset(tmp_path, text_len=3, image_size=8, tokenizer=HugTokenizer(HUG), truncate_captions=True)
    ids, pixels = cut[0]
    assert ids.shape == (3,)
    assert pixels.shape == (3, 8, 8)


def test_the_datasets_two_forms_are_one(tmp_path):
    for i in range(3):
        folder = f"{i:03d}.Bird"
        (tmp_path / "images" / folder).mkdir(parents=True)
        (tmp_path / "text" / folder).mkdir(parents=True)
        Image.new("RGB", (9, 9), (50 * i, 0, 0)).save(tmp_path / "images" / folder / "x.jpg")
        (tmp_path / "text" / folder / "x.txt").write_text(f"bird {i}\n\n")
    images, texts, tokenizer = tmp_path / "images", tmp_path / "text", HugTokenizer(HUG)
    forms = [
        TextImageDataset(images, texts, 16, 8, tokenizer=tokenizer),
        TextImageDataset(str(texts), str(images), text_len=16, image_size=8, tokenizer=tokenizer),
        TextImageDataset(image_folder=images, text_folder=texts, text_len=16, image_size=8, tokenizer=tokenizer),
        TextImageDataset(tmp_path, text_len=16, image_size=8, tokenizer=tokenizer, transparent=True),
    ]
    for data in forms:
        assert len(data) == 3
        for i in range(3):
            ids, pixels = data[i]
            assert tokenizer.decode(ids) == f"bird {i}"
            assert abs(float(pixels[0].mean()) - 50 * i / 255) < 0.02
    assert forms[-1][0][1].shape == (4, 8, 8)
    with pytest.raises(TypeError, match="colour"):
        TextImageDataset(tmp_path, colour=True)
