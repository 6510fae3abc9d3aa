"""The flat shapes: every combination is one picture of its own, the reader names it, and no question was an exercise."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tessera.data.check import check
from tessera.errors import ConfigError
from tessera.journeys import shape_reader, shapes
from tessera.journeys.shapes import Shape


def some(count: int, seed: int) -> list[Shape]:
    every = shapes.combinations()
    return [every[i] for i in np.random.default_rng(seed).permutation(len(every))[:count]]


def test_every_combination_has_a_picture_of_its_own():
    every = shapes.combinations()
    assert len(set(every)) == 9 * 4 * 4 * 8 * 4
    assert len({shapes.pixels_of(shape).tobytes() for shape in every}) == len(every)


def test_a_turn_turns_the_whole_picture_clockwise():
    for shape in some(40, 0):
        upright = dataclasses.replace(shape, turn="upright")
        by = shapes.TURNS.index(shape.turn)
        assert (np.rot90(shapes.pixels_of(upright), -by) == shapes.pixels_of(shape)).all()
    arrow = Shape("arrow", "large", "solid", "black", "turned right")
    columns = (shapes.pixels_of(arrow)[..., 0] < 128).sum(0)
    assert 0 < columns[26] < columns[6] < columns[17]  # its point lies at the right, its shaft at the left


@pytest.mark.parametrize("pixels", [32, 48])
def test_the_reader_names_what_was_drawn(pixels):
    asked = some(200, 1)
    assert shape_reader.measure([shapes.draw(shape, pixels) for shape in asked]) == asked


def test_the_reader_is_the_obvious_search():
    noise, asked = np.random.default_rng(2), some(4, 2)
    rough = [(shapes.pixels_of(s) + noise.normal(0, 60, (32, 32, 3))).clip(0, 255).astype(np.uint8) for s in asked]
    every = shapes.combinations()
    errors = [[float(((r / 255.0 - shapes.pixels_of(s) / 255.0) ** 2).sum()) for s in every] for r in rough]
    obvious = [every[int(np.argmin(row))] for row in errors]
    assert shape_reader.measure([Image.fromarray(r) for r in rough]) == obvious


@pytest.mark.parametrize(("blur", "noise", "least"), [(0.0, 50, 0.99), (0.5, 40, 0.97), (0.7, 16, 0.95)])
def test_the_reader_survives_blur_and_noise(blur, noise, least):
    asked, chance = some(200, 3), np.random.default_rng(3)
    blurred = [np.asarray(shapes.draw(s).filter(ImageFilter.GaussianBlur(blur)), dtype=float) for s in asked]
    rough = [(b + chance.normal(0, noise, b.shape)).clip(0, 255).astype(np.uint8) for b in blurred]
    right = shape_reader.right([Image.fromarray(r) for r in rough], asked)
    assert np.mean(right["exact"]) >= least
    assert all(np.mean(hits) >= np.mean(right["exact"]) for hits in right.values())


def test_the_reader_does_not_find_what_is_not_there():
    """On noise it is right by chance alone, so a model that draws nothing scores nothing."""
    asked, noise = [shape for _, shape in shapes.questions(400)], np.random.default_rng(4)
    rough = [Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in asked]
    right = shape_reader.right(rough, asked)
    assert sum(right["exact"]) <= 2
    chances = {"shape": 1 / 9, "size": 1 / 4, "filling": 1 / 4, "colour": 1 / 8, "turn": 1 / 4}
    assert all(abs(np.mean(right[part]) - chance) < 0.1 for part, chance in chances.items())


def test_other_pictures_than_those_asked_for_are_wrong():
    asked = some(30, 5)
    others = [dataclasses.replace(s, colour="red" if s.colour != "red" else "blue") for s in asked]
    right = shape_reader.right([shapes.draw(s) for s in others], asked)
    assert not any(right["colour"])
    assert not any(right["exact"])
    assert all(all(right[part]) for part in ("shape", "size", "filling", "turn"))


def test_a_third_is_learned_and_the_rest_is_asked(tmp_path):
    learned, asked = shapes.divided(7)
    assert len(learned) == 1382
    assert not set(learned) & set(asked)
    assert set(learned) | set(asked) == set(shapes.combinations())
    assert shapes.divided(8)[0] != learned
    for part in shapes.PARTS:  # every word can be learned
        assert {getattr(s, part) for s in learned} == {getattr(s, part) for s in asked}
    drawn = shapes.questions(300, seed=7)
    assert {shape for _, shape in drawn} <= set(asked)
    assert len(drawn) == 300
    assert all(word in caption for caption, shape in drawn for word in dataclasses.astuple(shape))


def test_the_folder_is_read_back(tmp_path):
    shapes.draw_folder(tmp_path / "a", 12, 32, seed=4)
    shapes.draw_folder(tmp_path / "b", 12, 32, seed=4)
    for name in ("00000.png", "00011.txt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    learned, _ = shapes.divided(4)
    pictures = [Image.open(tmp_path / f"a/{i:05d}.png") for i in range(12)]
    assert shape_reader.measure(pictures) == learned[:12]
    health = check(str(tmp_path / "a"))
    assert len(health.good) == 12
    assert len(health.captions) == 12 * len(shapes.TEMPLATES)
    assert not health.settings()["flip"]  # captions name sides


def test_more_than_there_are_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="5000 pictures were asked for; 1382"):
        shapes.draw_folder(tmp_path / "a", 5000)
    with pytest.raises(ConfigError, match="4000 questions were asked for; 3226"):
        shapes.questions(4000)
