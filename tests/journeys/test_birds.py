"""The built-in birds: the reader names what was drawn, and no question was ever an exercise."""

import numpy as np
import pytest
import torch
from PIL import Image

from tessera.journeys import bird_reader, birds


def test_the_reader_names_what_was_drawn():
    for pixels in (64, 96):
        right = 0
        for i in range(60):
            noise = np.random.default_rng([3, i])
            bird = birds.random_bird(noise, lambda b: True)
            found = bird_reader.measure(birds.draw(bird, pixels, noise))
            right += sum(found[part] == getattr(bird, part) for part in birds.PALETTES)
        assert right >= 0.99 * 60 * 5


def test_the_reader_survives_blur_and_noise():
    right = 0
    for i in range(40):
        noise = np.random.default_rng([4, i])
        bird = birds.random_bird(noise, lambda b: True)
        image = birds.draw(bird, 64, noise).resize((32, 32)).resize((64, 64))
        rough = np.asarray(image, dtype=float) + noise.normal(0, 10, (64, 64, 3))
        found = bird_reader.measure(Image.fromarray(rough.clip(0, 255).astype(np.uint8)))
        right += sum(found[part] == getattr(bird, part) for part in birds.PALETTES)
    assert right >= 0.9 * 40 * 5


@pytest.mark.parametrize("pixels", [16, 32])
def test_the_reader_reads_parts_that_fill_no_pixel(pixels):
    """A small bird's beak covers no whole pixel of a small picture; its colour is read where it covers most."""
    masks, sizes = bird_reader._poses(pixels)
    assert (masks.sum(-1) > 0).all()
    assert (sizes == masks.sum(-1)).all()
    for pose in range(0, len(masks), 7):  # pictures in which each pose would be the best
        flat = np.zeros((pixels * pixels, 3))
        for i, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (90, 90, 90)]):
            flat[masks[pose, i] > 0] = colour
        picture = Image.fromarray(flat.reshape(pixels, pixels, 3).astype(np.uint8))
        assert set(bird_reader.measure(picture)) == set(birds.PALETTES)


def test_the_reader_does_not_find_what_is_not_there():
    """On noise it is right by chance alone, so a model that draws nothing scores nothing."""
    asked = birds.questions(60)
    rough = torch.rand(60, 64, 64, 3, generator=torch.Generator().manual_seed(0)).mul(255).byte().numpy()
    right = sum(
        bird_reader.measure(Image.fromarray(picture))[part] == getattr(bird, part)
        for picture, (_, bird) in zip(rough, asked, strict=True)
        for part in birds.PALETTES
    )
    assert right < 0.4 * 60 * 5


def test_questions_are_never_drawn_for_training(tmp_path):
    asked = birds.questions(50)
    assert len({bird.combination for _, bird in asked}) == 50
    assert all(birds.held_out(bird) for _, bird in asked)
    for i in range(200):
        assert not birds.held_out(birds.random_bird(np.random.default_rng([0, i]), lambda b: not birds.held_out(b)))


def test_captions_name_every_colour():
    for caption, bird in birds.questions(30):
        assert all(getattr(bird, part) in caption for part in birds.PALETTES)


def test_drawing_is_a_function_of_the_seed(tmp_path):
    birds.draw_folder(tmp_path / "a", 3, 32, seed=4)
    birds.draw_folder(tmp_path / "b", 3, 32, seed=4)
    for name in ("00000.png", "00002.txt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len((tmp_path / "a/00001.txt").read_text().splitlines()) == 5
