"""A prior of any order is served whole: edits of any part, pictures in steps, beside all others."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from PIL import Image

from models.test_any_order import any_prior
from small_server import bench, mask_file, opened, picture_file, pipeline, serving
from tessera.generate.pipeline import Pipeline


@pytest.fixture(scope="module")
def reference() -> Pipeline:
    return pipeline(model=any_prior(image_vocab=27))


@pytest.fixture(scope="module")
def served():
    with serving([bench(pipeline(model=any_prior(image_vocab=27)))]) as own:
        yield own


@pytest.fixture(scope="module")
def client(served):
    with served.client() as own:
        yield own


def hole_file() -> bytes:
    own = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    own.paste((0, 0, 0, 0), (4, 4, 12, 12))
    own.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


HOW = [
    {},
    {"steps": 3},
    {"order": "random", "guidance": 2.0},
    {"steps": 2, "order": "confidence", "choice_temperature": 0.5, "guidance": 3.0, "guidance_schedule": "linear"},
]


@pytest.mark.parametrize("how", HOW)
def test_edits_and_pictures_are_those_that_python_draws(client, reference, how):
    asked = {"prompt": "1 2", "n": 2, "extra_body": {"seed": 4, **how}}
    made = client.images.edit(image=("x.png", picture_file()), mask=("m.png", hole_file()), **asked)
    wanted = reference.edit(picture_file(), "1 2", hole_file(), count=2, seed=4, **how)
    assert [opened(d.b64_json).tobytes() for d in made.data] == [p.image.tobytes() for p in wanted]
    assert made.usage.input_tokens_details.image_tokens == 12
    assert made.usage.output_tokens == 2 * 4
    drawn = client.images.generate(**asked)
    whole = reference("1 2", count=2, seed=4, **how)
    assert [opened(d.b64_json).tobytes() for d in drawn.data] == [p.image.tobytes() for p in whole]


def test_pictures_are_extended_and_varied(client, reference):
    for body in ({"outpaint": "0.5,0.5,1,0"}, {"vary": 0.5}, {"vary": 0.5, "vary_first": "random", "restore": False}):
        made = client.images.edit(image=picture_file(), prompt="1 2", n=2, extra_body={"seed": 4, **body})
        wanted = reference.edit(picture_file(), "1 2", count=2, seed=4, **body)
        assert [opened(d.b64_json).tobytes() for d in made.data] == [p.image.tobytes() for p in wanted]


def test_many_at_once_get_what_each_gets_alone(served, client, reference):
    """Some sit in seats and some are drawn alone; nobody's picture depends on the others."""

    def ask(i: int) -> list[bytes]:
        extra = {"seed": i, **HOW[i % len(HOW)]}
        if i % 3 == 0:
            made = client.images.edit(image=picture_file(), mask=("m.png", hole_file()), prompt="1", extra_body=extra)
        else:
            made = client.images.generate(prompt="1", n=2, extra_body=extra)
        return [opened(d.b64_json).tobytes() for d in made.data]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(24)))
    for i, pictures in enumerate(found):
        how = HOW[i % len(HOW)]
        wanted = (
            reference.edit(picture_file(), "1", hole_file(), seed=i, **how)
            if i % 3 == 0
            else reference("1", count=2, seed=i, **how)
        )
        assert pictures == [p.image.tobytes() for p in wanted], (i, how)
    assert not served.bench.alone.drawings
    assert served.bench.seats.free == len(served.bench.seats.taken)


def test_a_stream_shows_unfinished_pictures_in_order(client):
    events = list(client.images.edit(
        image=picture_file(), mask=("m.png", hole_file()), prompt="1", stream=True, partial_images=2,
    ))  # fmt: skip
    assert events[-1].type == "image_edit.completed"
    numbers = [e.partial_image_index for e in events[:-1]]
    assert numbers
    assert numbers == sorted(numbers)


def test_an_abort_frees_its_place_within_a_step(served, client):
    step = served.bench.alone.step
    stream = client.images.edit(
        image=picture_file(), mask=("m.png", mask_file(8)), prompt="1", n=4, stream=True, partial_images=1,
        extra_body={"order": "random"},
    )  # fmt: skip
    next(iter(stream))
    stream.close()
    assert client.images.generate(prompt="1", n=4).data
    assert not served.bench.alone.drawings
    assert served.bench.alone.step == step


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"outpaint": "1,0,0,0"}, "image has 16 x 16 pixels and goes on by 1,0,0,0; send a square"),
        ({"outpaint": "1"}, "outpaint is '1'; give four numbers"),
        ({"vary": 1.5}, "vary is '1.5'"),
        ({"steps": -1}, "steps is '-1'"),
        ({"order": "spiral"}, "order is 'spiral'"),
    ],
)
def test_what_cannot_be_edited_is_a_bad_request_with_a_sentence(client, body, says):
    with pytest.raises(openai.BadRequestError, match=says):
        client.images.edit(image=picture_file(), mask=("m.png", hole_file()), prompt="1", extra_body=body)


def test_a_prior_of_reading_order_refuses_steps_and_variations_by_name():
    with serving([bench(pipeline())]) as served, served.client() as client:
        with pytest.raises(openai.BadRequestError, match="steps is 4, but this model draws in reading order"):
            client.images.generate(prompt="1", extra_body={"steps": 4})
        with pytest.raises(openai.BadRequestError, match="keeps whole rows at the top"):
            client.images.edit(image=picture_file(), prompt="1", extra_body={"vary": 0.3})
