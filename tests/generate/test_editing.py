"""Editing keeps what the mask keeps, code by code and pixel by pixel, and says what a mask cannot be."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from conftest import MODERN, TINY_DVAE, prior
from models.test_any_order import any_prior
from tessera.config import EditingConfig
from tessera.errors import ConfigError, DataError
from tessera.generate.editing import drafted, laid_out, wanted
from tessera.generate.likelihood import surprise
from tessera.generate.masks import Draft, asked, cells, opened, softened, spread
from tessera.generate.masks import draft as squared
from tessera.generate.pipeline import Pipeline
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen
from tessera.tokens.text import Numbers

SIDE = TINY_DVAE.pixels
GRID = TINY_DVAE.grid
CELL = SIDE // GRID


def pipeline(model=None) -> Pipeline:
    torch.manual_seed(0)
    model = any_prior(image_vocab=27) if model is None else model
    return Pipeline(model, Numbers(20), Frozen(DiscreteVAE(TINY_DVAE).eval()))


def photograph(width: int = SIDE, height: int = SIDE) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def hole(*boxes: tuple[int, int, int, int], side: int = SIDE, mode: str = "L") -> Image.Image:
    """A mask whose boxes (left, top, right, bottom; right and bottom not included) are drawn anew."""
    mask = Image.new(mode, (side, side), 0 if mode == "L" else (9, 9, 9, 255))
    for left, top, right, bottom in boxes:
        ImageDraw.Draw(mask).rectangle((left, top, right - 1, bottom - 1), 255 if mode == "L" else (0, 0, 0, 0))
    return mask


def draft(picture: Image.Image, mask: Image.Image | None, sides: tuple[float, ...] = (0, 0, 0, 0)) -> Draft:
    return squared(opened(picture, 3, "image"), asked(picture, mask), sides, SIDE, GRID)


def codes_of(own: Pipeline, picture: Image.Image) -> list[int]:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    return own.image.encode(pixels)[0].tolist()


MIDDLE = (CELL, CELL, 3 * CELL, 3 * CELL)
INSIDE = {GRID * row + column for row in (1, 2) for column in (1, 2)}


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"order": "confidence", "steps": 3, "guidance": 2.0}])
def test_what_a_mask_keeps_keeps_its_codes_and_its_pixels(options):
    own, picture = pipeline(), photograph()
    before, found = codes_of(own, picture), own.edit(picture, "1 2 3", hole(MIDDLE), count=3, **options)
    assert len({p.codes for p in found}) == 3, "the pictures differ where they are drawn"
    inside, seam = spread(torch.tensor([i in INSIDE for i in range(GRID**2)]), SIDE), CELL // 2
    far = (softened(inside, seam) == 0).numpy()
    assert far.sum() > SIDE, "something lies beyond the seam"
    for one in found:
        assert all(one.codes[i] == before[i] for i in range(GRID**2) if i not in INSIDE)
        assert np.array_equal(np.array(one.image)[far], np.array(picture)[far])
        drawn = np.array(own.pictures(torch.tensor([one.codes]), [""], [0])[0].image)
        assert np.array_equal(np.array(one.image)[inside.numpy()], drawn[inside.numpy()])
    whole = own.edit(picture, "1 2 3", hole(MIDDLE), restore=False, count=3, **options)
    assert [p.codes for p in whole] == [p.codes for p in found]
    assert np.array_equal(np.array(whole[2].image), drawn), "without it all pixels are the image tokenizer's"


def test_a_seed_is_the_same_edit_in_any_batch_and_count():
    own, picture = pipeline(), photograph()
    together = own.edit(picture, "1 2", hole(MIDDLE), count=5, seed=3, batch=5)
    alone = [own.edit(picture, "1 2", hole(MIDDLE), seed=3 + i)[0] for i in range(5)]
    assert [p.codes for p in together] == [p.codes for p in alone]
    varied = own.edit(picture, "1 2", vary=0.5, vary_first="random", count=5, seed=3, batch=2)
    assert [p.codes for p in varied] == [
        own.edit(picture, "1 2", vary=0.5, vary_first="random", seed=3 + i)[0].codes for i in range(5)
    ]


def test_a_mask_of_nothing_returns_the_picture_and_one_of_everything_draws_as_always():
    own, picture = pipeline(), photograph()
    with pytest.warns(UserWarning, match="Nothing is to be drawn anew"):
        (same,) = own.edit(picture, "1 2", hole())
    assert np.array_equal(np.array(same.image), np.array(picture))
    assert list(same.codes) == codes_of(own, picture)
    for options in ({}, {"steps": 4}):
        anew = own.edit(picture, "1 2", hole((0, 0, SIDE, SIDE)), count=2, seed=7, **options)
        drawn = own("1 2", count=2, seed=7, **options)
        assert [p.codes for p in anew] == [p.codes for p in drawn]
        assert all(np.array_equal(np.array(a.image), np.array(b.image)) for a, b in zip(anew, drawn, strict=True))


def test_transparent_means_the_same_in_a_mask_and_in_the_picture_itself():
    own, picture = pipeline(), photograph()
    (white,) = own.edit(picture, "1 2", hole(MIDDLE))
    (clear,) = own.edit(picture, "1 2", hole(MIDDLE, mode="RGBA"))
    itself = picture.convert("RGBA")
    itself.putalpha(hole(MIDDLE, mode="RGBA").getchannel("A"))
    wanted = draft(picture, hole(MIDDLE))
    assert torch.equal(draft(itself, None).drawn, wanted.drawn)
    assert white.codes == clear.codes


def test_a_code_is_drawn_where_any_of_its_pixels_is():
    one = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    one[CELL, 2 * CELL - 1] = True
    assert cells(one, GRID).flatten().nonzero().flatten().tolist() == [GRID + 1]
    large = draft(photograph(8 * SIDE, 8 * SIDE), hole((0, 0, 1, 1), side=8 * SIDE))
    assert large.anew.sum() == 1
    assert large.drawn.nonzero().flatten().tolist() == [0]


def test_outpainting_makes_room_where_it_is_asked_for_and_keeps_the_rest():
    half = photograph(SIDE // 2, SIDE)
    own = draft(half, hole(side=SIDE).crop((0, 0, SIDE // 2, SIDE)), (1.0, 0, 0, 0))
    assert torch.equal(own.anew, torch.arange(SIDE).expand(SIDE, -1) < SIDE // 2)
    assert torch.equal(own.pixels[:, :, SIDE // 2 :], torch.from_numpy(np.array(half)).permute(2, 0, 1))
    edge = own.pixels[:, :, SIDE // 2, None].expand(-1, -1, SIDE // 2)
    assert torch.equal(own.pixels[:, :, : SIDE // 2], edge), "until it is drawn, the edge goes on"
    kept = [i for i in range(GRID**2) if i % GRID >= GRID // 2]
    model = pipeline()
    (found,) = model.edit(half, "1 2", outpaint="1,0,0,0")
    codes = model.image.encode(own.pixels[None].float() / 255)[0].tolist()
    assert [found.codes[i] for i in kept] == [codes[i] for i in kept]
    with pytest.warns(UserWarning, match="the middle 16 x 16 is taken"):
        draft(photograph(SIDE, SIDE), None, (0.5, 0, 0, 0))


def test_variations_redraw_the_least_likely_codes_first_or_any():
    own, picture = pipeline(), photograph()
    wish, config = wanted("1 2", own.sampling, {"vary": 0.25, "count": 2})
    given, _ = laid_out(own, drafted(own, picture, None, config), wish, config)
    assert given.mask.shape[0] == 1
    assert given.mask.sum() == GRID**2 // 4
    found = surprise(own.model, own.tokens(["1 2"]), given.known)
    assert found[given.mask[0]].min() >= found[~given.mask[0]].max()
    wish, config = wanted("1 2", own.sampling, {"vary": 0.25, "vary_first": "random", "count": 2})
    given, drafts = laid_out(own, drafted(own, picture, hole(MIDDLE), config), wish, config)
    assert given.mask.sum(1).tolist() == [GRID**2 // 4 + len(INSIDE)] * 2, "beside what the mask asks for"
    assert not torch.equal(*given.mask)
    assert all(torch.equal(d.anew, spread(m, SIDE)) for d, m in zip(drafts, given.mask, strict=True))


def test_a_prior_of_reading_order_keeps_whole_rows_and_refuses_the_rest_before_it_reads_the_prompt_twice():
    own, picture = pipeline(prior(MODERN, image_vocab=27)), photograph()
    (found,) = own.edit(picture, "1 2", hole((0, 2 * CELL, SIDE, SIDE)))
    assert list(found.codes[: 2 * GRID]) == codes_of(own, picture)[: 2 * GRID]
    for options in ({"mask": hole(MIDDLE)}, {"vary": 0.3}, {"outpaint": "0.5,0.5,1,0"}):
        with pytest.raises(ConfigError, match=r"keeps whole rows at the top.*tessera train any-"):
            own.edit(picture, "1 2", **options)


def moving() -> bytes:
    file = io.BytesIO()
    photograph().save(file, "GIF", save_all=True, append_images=[photograph(SIDE, SIDE).rotate(90)])
    return file.getvalue()


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (b"", "The mask cannot be used: an empty file"),
        (b"not a picture", "The mask cannot be used: not a picture"),
        (moving(), "The mask moves: it holds 2 pictures"),
        ("nowhere.png", "The mask nowhere.png cannot be used: the file is not there"),
    ],
)
def test_a_bad_mask_gets_a_sentence(mask, sentence):
    with pytest.raises(DataError, match=sentence):
        pipeline().edit(photograph(), "1 2", mask)


@pytest.mark.parametrize("outpaint", ["1", "0,0,0,0", "a,b,c,d", "-1,0,0,0", "nan,0,0,1", "9,0,0,0", "1,1,1,1,1"])
def test_bad_sides_get_a_sentence(outpaint):
    with pytest.raises(ConfigError, match=r"outpaint is .*; give four numbers"):
        pipeline().edit(photograph(), "1 2", outpaint=outpaint)


def test_a_mask_of_another_size_is_stretched_with_a_notice():
    picture = photograph(4 * SIDE, 4 * SIDE)
    with pytest.warns(
        UserWarning, match=f"The mask has {SIDE} x {SIDE} pixels and the picture {4 * SIDE} x {4 * SIDE}"
    ):
        found = draft(picture, hole(MIDDLE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = hole(tuple(4 * x for x in MIDDLE), side=4 * SIDE)
        assert torch.equal(draft(picture, wide).drawn, found.drawn)


def test_wrong_options_are_named():
    for options, sentence in (
        ({"temprature": 1}, "There is no option 'temprature'"),
        ({"vary": 2.0}, "vary is 2.0"),
        ({"prime": "x.png"}, "prime begins a picture"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            pipeline().edit(photograph(), "1 2", **options)
    assert EditingConfig(outpaint="0.5, 0,0 ,0").sides() == (0.5, 0, 0, 0)
