"""The call of diffusers' pipelines: the same pictures as our own call, and nothing that is asked for passed over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import MODERN, TINY_DVAE, prior
from small_runs import run_folder
from tessera.compat.diffusers import NONE_SUCH, Output, TextToImagePipeline
from tessera.config import SampleConfig
from tessera.errors import CheckpointError, ConfigError
from tessera.generate.pipeline import Pipeline
from tessera.models.dvae import DiscreteVAE
from tessera.tokens.image import Frozen
from tessera.tokens.text import Numbers


@pytest.fixture
def pipe() -> TextToImagePipeline:
    torch.manual_seed(0)
    usual = SampleConfig(guidance=1.5)
    return TextToImagePipeline(
        Pipeline(prior(MODERN, image_vocab=27), Numbers(20), Frozen(DiscreteVAE(TINY_DVAE).eval()), sampling=usual)
    )


def bytes_of(found: Output) -> list[bytes]:
    return [image.tobytes() for image in found.images]


def test_pictures_are_those_of_our_own_call_with_the_seeds_that_it_tells(pipe):
    found = pipe(["1 2", "3"], num_images_per_prompt=2, guidance_scale=3.0, generator=torch.Generator().manual_seed(7))
    assert len(found.images) == len(found.seeds) == 4
    for prompt, image, seed in zip(["1 2", "1 2", "3", "3"], found.images, found.seeds, strict=True):
        (ours,) = pipe.pipeline(prompt, seed=seed, guidance=3.0)
        assert ours.image.tobytes() == image.tobytes()


def test_a_generator_decides_the_pictures_and_moves_on(pipe):
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    first = bytes_of(pipe("1 2", generator=one))
    assert bytes_of(pipe("1 2", generator=other)) == first
    assert bytes_of(pipe("1 2", generator=other)) != first


def test_a_generator_for_each_picture(pipe):
    each = [torch.Generator().manual_seed(s) for s in (1, 2)]
    found = pipe("1 2", num_images_per_prompt=2, generator=each)
    alone = pipe("1 2", generator=torch.Generator().manual_seed(2))
    assert found.images[1].tobytes() == alone.images[0].tobytes()
    with pytest.raises(ConfigError, match="2 generators for 1 pictures"):
        pipe("1 2", generator=each)


def test_without_a_generator_torchs_own_is_asked(pipe):
    torch.manual_seed(5)
    first = pipe("1 2")
    torch.manual_seed(5)
    assert pipe("1 2").seeds == first.seeds
    assert pipe("1 2").seeds != first.seeds


def test_no_guidance_is_how_the_run_usually_draws(pipe):
    found = pipe("1 2", generator=torch.Generator().manual_seed(1))
    asked = pipe("1 2", generator=torch.Generator().manual_seed(1), guidance_scale=1.5)
    other = pipe("1 2", generator=torch.Generator().manual_seed(1), guidance_scale=6.0)
    assert bytes_of(found) == bytes_of(asked) != bytes_of(other)


def test_forms_of_the_output(pipe):
    image, array, tensor = (
        pipe("1 2", generator=torch.Generator().manual_seed(1), output_type=form).images for form in ("pil", "np", "pt")
    )
    assert array.shape == (1, 16, 16, 3)
    assert tensor.shape == (1, 3, 16, 16)
    assert np.array_equal(array[0], np.asarray(image[0], dtype=np.float32) / 255)
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), array[0])


@pytest.mark.parametrize("name", NONE_SUCH)
def test_what_means_nothing_here_is_named(pipe, name):
    with pytest.raises(ConfigError, match=f"{name} means nothing to this model: .*Leave it out"):
        pipe("1 2", **{name: 1})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_images_per_promt": 2}, "did you mean 'num_images_per_prompt'"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"guidance_scale": "high"}, "guidance"),
        ({"temperature": -1.0}, "temperature"),
        ({"output_type": "latent"}, "output_type is 'latent'; known: pil, np, pt"),
    ],
)
def test_a_wrong_argument_is_a_sentence(pipe, options, says):
    with pytest.raises(ConfigError, match=says):
        pipe("1 2", **options)


def test_no_prompt_is_a_sentence(pipe):
    with pytest.raises(ConfigError, match="There is no prompt"):
        pipe([])


def test_from_a_run(tmp_path):
    folder = str(run_folder(tmp_path / "run"))
    pipe = TextToImagePipeline.from_pretrained(folder, device="cpu")
    found = pipe("1 2", generator=torch.Generator().manual_seed(1))
    moved = pipe.to("cpu")
    assert bytes_of(moved("1 2", generator=torch.Generator().manual_seed(1))) == bytes_of(found)
    with pytest.raises(ConfigError, match=r"torch_dtype is torch.float16; known: torch.float32, torch.bfloat16"):
        TextToImagePipeline.from_pretrained(folder, torch_dtype=torch.float16)
    with pytest.raises(CheckpointError, match="There is no run folder"):
        TextToImagePipeline.from_pretrained(str(tmp_path / "none"))


def test_a_pipeline_that_was_made_by_hand_stays_where_it_is(pipe):
    with pytest.raises(ConfigError, match="was not read from a run"):
        pipe.to("cpu")
