"""OpenAI's own client, as its users call it: drawings, streams, edits, models, and every kind of error."""

from __future__ import annotations

import base64
import json
import time

import httpx
import openai
import pytest
from PIL import Image

from small_server import Served, bench, mask_file, opened, picture_file, pipeline, serving
from tessera.config import PLAIN, Limits, request
from tessera.generate.judge import OwnJudge
from tessera.generate.pipeline import Pipeline
from tessera.generate.sheet import words_of


class Brightness:
    """A judge that likes bright pictures."""

    def scores(self, pictures):
        import torch

        return torch.tensor([float(sum(p.image.convert("L").tobytes())) for p in pictures])


@pytest.fixture(scope="module")
def reference() -> Pipeline:
    return pipeline()


@pytest.fixture(scope="module")
def served():
    with serving([bench(pipeline(), Brightness()), bench(pipeline(), name="other")]) as own:
        yield own


@pytest.fixture(scope="module")
def client(served: Served):
    with served.client() as own:
        yield own


def test_pictures_are_those_that_python_draws_with_prompt_and_seed_in_them(client, reference, tmp_path):
    made = client.images.generate(
        prompt="1 2", n=3, model="tiny", extra_body={"seed": 7, "guidance": 2.0, "top_p": 0.9}
    )
    wanted = reference("1 2", count=3, seed=7, guidance=2.0, top_p=0.9)
    assert [opened(d.b64_json).tobytes() for d in made.data] == [p.image.tobytes() for p in wanted]
    path = tmp_path / "x.png"
    path.write_bytes(base64.b64decode(made.data[2].b64_json))
    assert words_of(path) == {"prompt": "1 2", "seed": "9", "run": "tiny", "software": "Tessera"}
    assert [d.seed for d in made.data] == [7, 8, 9]
    assert made.usage.input_tokens == made.usage.input_tokens_details.text_tokens == 2
    assert made.usage.output_tokens == 3 * 16
    assert made.usage.total_tokens == 50
    assert (made.size, made.output_format, made.background) == ("16x16", "png", "opaque")
    assert abs(made.created - time.time()) < 60


def test_what_a_request_does_not_say_is_as_the_run_usually_draws(reference):
    from tessera.config import SampleConfig

    own = pipeline()
    own.sampling = SampleConfig(guidance=3.0, top_p=0.5)
    with serving([bench(own)]) as served, served.client() as client:
        usual = client.images.generate(prompt="1 2", extra_body={"seed": 1})
        other = client.images.generate(prompt="1 2", extra_body={"seed": 1, "top_p": 1.0})
    assert (
        opened(usual.data[0].b64_json).tobytes() == reference("1 2", seed=1, guidance=3.0, top_p=0.5)[0].image.tobytes()
    )
    assert opened(other.data[0].b64_json).tobytes() == reference("1 2", seed=1, guidance=3.0)[0].image.tobytes()


def test_without_a_seed_chance_takes_one_and_says_which(client):
    seeds = {client.images.generate(prompt="3").data[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_guidance_has_the_name_that_other_servers_give_it(client):
    draw = lambda **body: client.images.generate(prompt="1", extra_body={"seed": 1, **body}).data[0].b64_json
    assert draw(guidance_scale=4.0) == draw(guidance=4.0) != draw()


@pytest.mark.parametrize(("format", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("jpeg", "JPEG")])
def test_multiples_of_the_models_side_and_formats(client, format, kind):
    made = client.images.generate(
        prompt="1", size="64x64", output_format=format, output_compression=90, extra_body={"seed": 5}
    )
    picture = opened(made.data[0].b64_json)
    assert (picture.format, picture.size, made.size, made.output_format) == (kind, (64, 64), "64x64", format)
    small = opened(client.images.generate(prompt="1", size="auto", extra_body={"seed": 5}).data[0].b64_json)
    near = small.resize((64, 64), Image.Resampling.LANCZOS).convert("RGB").tobytes()
    assert sum(abs(a - b) for a, b in zip(near, picture.convert("RGB").tobytes(), strict=True)) / len(near) < (
        1 if format == "png" else 25
    )


def test_urls_are_served_for_a_while_and_then_gone(client, served):
    made = client.images.generate(prompt="1", response_format="url", extra_body={"seed": 5})
    assert made.data[0].b64_json is None
    answer = httpx.get(made.data[0].url)
    assert answer.headers["content-type"] == "image/png"
    assert opened(answer.content).size == (16, 16)
    assert httpx.get(made.data[0].url[:-8] + "AAAA.png").json()["error"]["code"] == "picture_not_found"


@pytest.mark.parametrize("partial", [0, 1, 2, 3])
def test_a_stream_shows_partial_pictures_in_order_and_then_the_picture(client, reference, partial):
    events = list(client.images.generate(prompt="1 2", stream=True, partial_images=partial, extra_body={"seed": 3}))
    assert [e.type.split(".")[1] for e in events] == ["partial_image"] * partial + ["completed"]
    assert [e.partial_image_index for e in events[:-1]] == list(range(partial))
    (wanted,) = reference("1 2", seed=3)
    assert opened(events[-1].b64_json).tobytes() == wanted.image.tobytes()
    assert events[-1].usage.total_tokens == 2 + 16
    known = 0
    for event in events[:-1]:
        shown = opened(event.b64_json).convert("RGB")
        rows = next(
            y for y in range(16) if shown.crop((0, y, 16, 16)).getcolors() == [(16 * (16 - y), (200, 200, 200))]
        )
        assert rows > known, "each shows more than the one before"
        known = rows


def test_a_stream_of_several_pictures_says_which_is_which(client):
    events = list(client.images.generate(prompt="4", n=2, stream=True, partial_images=2, extra_body={"seed": 3}))
    for index in (0, 1):
        own = [e for e in events if e.index == index]
        assert [e.type.split(".")[1] for e in own] == ["partial_image", "partial_image", "completed"]
        assert {e.seed for e in own} == {3 + index}


def test_the_best_of_many_is_what_the_judge_likes(client, reference):
    made = client.images.generate(prompt="5", n=2, extra_body={"seed": 0, "best_of": 6})
    drawn = reference("5", count=6, seed=0)
    wanted = sorted(drawn, key=lambda p: -sum(p.image.convert("L").tobytes()))[:2]
    assert [d.seed for d in made.data] == [p.seed for p in wanted]
    assert made.data[0].score >= made.data[1].score
    assert made.usage.output_tokens == 6 * 16, "all that were drawn"


def test_without_a_judge_the_model_ranks_its_own_as_python_does(client, reference):
    asked = request("5 6", PLAIN, count=2, seed=3, guidance=2.0)
    wanted = reference.best(asked, OwnJudge(reference.model, reference.prompts), 7)
    options = {"prompt": "5 6", "n": 2, "model": "other", "extra_body": {"seed": 3, "guidance": 2.0, "best_of": 7}}
    made = client.images.generate(**options)
    assert [opened(d.b64_json).tobytes() for d in made.data] == [p.image.tobytes() for p in wanted]
    assert [d.score for d in made.data] == pytest.approx([p.score for p in wanted], abs=1e-4)
    assert made.usage.total_tokens == 2 + 7 * 16
    events = list(client.images.generate(**options, stream=True))
    assert [(e.type.split(".")[1], e.index) for e in events] == [("completed", 0), ("completed", 1)]
    assert [opened(e.b64_json).tobytes() for e in events] == [p.image.tobytes() for p in wanted]
    assert sum(e.usage.output_tokens for e in events) == 7 * 16


def test_an_edit_keeps_the_rows_that_the_mask_leaves_opaque(client, reference, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(picture_file())
    made = client.images.edit(
        image=("x.png", path.read_bytes()),
        mask=("m.png", mask_file(8)),
        prompt="1 2",
        n=2,
        extra_body={"seed": 4, "guidance": 2.0},
    )
    wanted = reference.edit(path, "1 2", mask_file(8), count=2, seed=4, guidance=2.0)
    assert [opened(d.b64_json).tobytes() for d in made.data] == [p.image.tobytes() for p in wanted]
    assert made.usage.input_tokens_details.image_tokens == 8
    assert made.usage.output_tokens == 2 * 8
    same = {"image": ("x.png", path.read_bytes()), "mask": ("m.png", mask_file(8)), "prompt": "1 2", "n": 2}
    pure = client.images.edit(**same, extra_body={"seed": 4, "guidance": 2.0, "restore": False})
    begun = reference("1 2", count=2, seed=4, guidance=2.0, prime=path, prime_rows=0.5)
    assert [opened(d.b64_json).tobytes() for d in pure.data] == [p.image.tobytes() for p in begun]
    assert [p.codes for p in wanted] == [p.codes for p in begun]
    events = list(client.images.edit(
        image=[path.read_bytes()], mask=("m.png", mask_file(7)), prompt="1 2", stream=True, partial_images=1, extra_body={"seed": 4}
    ))  # fmt: skip
    assert [e.type for e in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert events[-1].usage.input_tokens_details.image_tokens == 4, "a row that the mask touches is drawn"


def test_models_are_listed(client):
    assert [m.id for m in client.models.list()] == ["tiny", "other"]
    assert client.models.retrieve("other").owned_by == "tessera"


# Errors.


@pytest.mark.parametrize(
    ("options", "says", "param"),
    [
        ({"prompt": " "}, "The prompt is empty", None),
        ({"prompt": "1 2 3 4 5 6"}, "has 6 tokens and the model reads 5", None),
        ({"size": "100x100"}, r"this model draws 16x16, 32x32, 48x48, 64x64, \.\.\. 1024x1024", "size"),
        ({"size": "16x32"}, "this model draws 16x16", "size"),
        ({"n": 11}, "n is 11; it should be less than or equal to 10", "n"),
        ({"output_format": "gif"}, "output_format is 'gif'", "output_format"),
        ({"output_compression": 101}, "output_compression is 101", "output_compression"),
        ({"partial_images": 2}, "partial_images are shown in a stream", "partial_images"),
        ({"background": "transparent"}, "draws opaque pictures", "background"),
        ({"extra_body": {"guidanse": 2}}, "no option 'guidanse'; did you mean 'guidance'", "guidanse"),
        ({"extra_body": {"top_k": 2.5}}, "top-k is 2.5", "top_k"),
        ({"extra_body": {"temperature": "warm"}}, "temperature is 'warm'", "temperature"),
        ({"extra_body": {"seed": -1}}, "seed is -1", "seed"),
        ({"extra_body": {"seed": 2**63 - 1}, "n": 2}, "the last seed would be over", "seed"),
        ({"extra_body": {"best_of": 2}, "n": 3}, "best_of is 2, less than the 3", "best_of"),
        ({"extra_body": {"best_of": 2}, "stream": True, "partial_images": 1}, "leave one out", "partial_images"),
        ({"stream": True, "response_format": "url"}, "a stream sends pictures whole", "response_format"),
    ],
)
def test_what_cannot_be_drawn_is_a_bad_request_with_a_sentence(client, options, says, param):
    with pytest.raises(openai.BadRequestError, match=says) as error:
        client.images.generate(**{"prompt": "1 2", **options})
    assert error.value.type == "invalid_request_error"
    assert error.value.param == param


@pytest.mark.parametrize(
    ("image", "mask", "says"),
    [
        (picture_file(), mask_file(4, hole=True), "draws in reading order: it keeps whole rows"),
        (picture_file(), mask_file(16), "mask is opaque everywhere: there is nothing to draw"),
        (picture_file(), None, "image is opaque and there is no mask"),
        (picture_file(), mask_file(8, 32), "mask has 32 x 32 pixels and image 16 x 16"),
        (picture_file(size=(16, 8)), mask_file(8), "image has 16 x 8 pixels; send a square"),
        (b"GIF89a no picture", mask_file(8), "image cannot be used: not a picture"),
        (picture_file(), b"", "mask cannot be used: an empty file"),
    ],
)
def test_edits_that_cannot_be_drawn_are_refused_in_a_sentence(client, image, mask, says):
    with pytest.raises(openai.BadRequestError, match=says):
        client.images.edit(image=image, prompt="1", **({} if mask is None else {"mask": ("m.png", mask)}))


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    def load(self):
        raise AssertionError("it was decoded")

    with serving(limits=Limits(max_upload_pixels=1000)) as served, served.client() as client:
        bomb = picture_file(size=(100, 100))
        monkeypatch.setattr(Image.Image, "load", load)
        with pytest.raises(openai.BadRequestError, match="100 x 100 pixels, more than the 1,000"):
            client.images.edit(image=bomb, mask=("m.png", bomb), prompt="1")


def test_a_server_that_keeps_no_pictures_gives_no_urls():
    with (
        serving(limits=Limits(url_bytes=0)) as served,
        served.client() as client,
        pytest.raises(openai.BadRequestError, match="keeps no pictures: ask for b64_json"),
    ):
        client.images.generate(prompt="1", response_format="url")


def test_a_model_that_is_not_served_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="model 'tinny' does not exist; did you mean 'tiny'"):
        client.images.generate(prompt="1", model="tinny")
    with pytest.raises(openai.NotFoundError, match="Served: tiny, other"):
        client.models.retrieve("dall-e-2")


def test_keys_are_asked_for_and_compared(tmp_path, client):
    keys = tmp_path / "keys"
    keys.write_text("# for the tests\nabcdefgh12345678\nother-key-0123456\n")
    with serving(keys=str(keys)) as served:
        with (
            served.client("wrong-key-01234567") as stranger,
            pytest.raises(openai.AuthenticationError, match="not one of"),
        ):
            stranger.models.list()
        with served.client("other-key-0123456") as friend:
            assert friend.images.generate(prompt="1").data
        assert httpx.get(f"{served.address}/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{served.address}/metrics").status_code == 401
        assert httpx.get(f"{served.address}/health").json() == {"status": "ok"}


def test_a_body_that_is_too_large_is_refused(client):
    small = Limits(max_body=2000, max_upload=4000)
    with serving(limits=small) as served, served.client() as own:
        for prompt in ("1" * 5000, "1" * 3_000_000):
            with pytest.raises(openai.APIStatusError, match="larger than the 2,000 bytes") as error:
                own.images.generate(prompt=prompt)
            assert error.value.status_code == 413
        with pytest.raises(openai.APIStatusError, match="larger than the 4,000 bytes"):
            own.images.edit(image=b"x" * 5000, prompt="1")

        def chunks():
            for _ in range(10):
                yield b" " * 1000

        assert httpx.post(f"{served.address}/v1/images/generations", content=chunks()).status_code == 413


def test_a_full_queue_says_when_to_come_again():
    with serving(limits=Limits(max_queue=20)) as served, served.client() as client:
        served.slow_down(0.05)
        streams = [client.images.generate(prompt="1", n=4, stream=True, partial_images=1)]
        next(streams[0])
        streams.append(client.images.generate(prompt="1", n=9, stream=True))
        with pytest.raises(openai.RateLimitError, match="pictures wait already") as error:
            client.images.generate(prompt="1", n=9)
        assert int(error.value.response.headers["retry-after"]) >= 1
        assert error.value.code == "rate_limit_exceeded"
        for stream in streams:
            stream.close()


def test_a_request_that_takes_too_long_is_given_up():
    with serving(limits=Limits(max_seconds=0.3)) as served, served.client() as client:
        served.slow_down(0.1)
        with pytest.raises(openai.InternalServerError, match="not drawn in the time") as error:
            client.images.generate(prompt="1")
        assert error.value.status_code == 503
        assert error.value.code == "timeout"
        with pytest.raises(openai.APIError, match="not drawn in the time"):
            list(client.images.generate(prompt="1", stream=True))


def test_while_it_drains_nothing_new_is_taken_and_what_is_drawn_is_finished():
    with serving() as served, served.client() as client:
        served.slow_down(0.05)
        stream = client.images.generate(prompt="1", stream=True, partial_images=1)
        next(stream)
        served.server.handle_exit(15, None)
        time.sleep(0.3)
        with pytest.raises(openai.InternalServerError, match="about to end") as error:
            client.images.generate(prompt="1")
        assert (error.value.status_code, error.value.response.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"{served.address}/ready").status_code == 503
        assert next(stream).type == "image_generation.completed"
        stream.close()
        until = time.monotonic() + 5
        while not served.server.should_exit and time.monotonic() < until:
            time.sleep(0.05)
        assert served.server.should_exit, "then it ends"


def test_damaged_weights_are_the_servers_fault_and_end_nobody_else(monkeypatch):
    import torch

    with serving() as served, served.client() as client:
        table = served.bench.pipeline.model.image_embedding.weight
        kept = table.detach().clone()
        with torch.no_grad():
            table.fill_(torch.nan)
        with pytest.raises(openai.InternalServerError, match="tiny: The model predicts values that are not numbers"):
            client.images.generate(prompt="1")
        with torch.no_grad():
            table.copy_(kept)
        assert client.images.generate(prompt="1").data


def test_the_sentence_of_an_error_in_a_stream_reaches_the_client_too(client):
    with pytest.raises(openai.BadRequestError, match="prompt is empty"):
        client.images.generate(prompt=" ", stream=True)


def test_health_readiness_and_metrics(served, client):
    client.images.generate(prompt="1")
    assert httpx.get(f"{served.address}/health").json() == {"status": "ok"}
    assert httpx.get(f"{served.address}/ready").json() == {"status": "ready"}
    text = httpx.get(f"{served.address}/metrics").text
    for line in ('tessera_requests_total{path="/v1/images/generations",status="200"}', 'tessera_pictures_total{model="tiny"}',
                 'tessera_queue_pictures{model="tiny"} 0.0', 'tessera_step_seconds_count{model="tiny"}'):  # fmt: skip
        assert line in text


def test_the_log_holds_no_prompt_unless_it_is_asked_to(caplog, tmp_path):
    import logging

    from tessera.serve.logs import Lines

    for wanted in (False, True):
        caplog.clear()
        with (
            caplog.at_level(logging.INFO, "tessera.serve"),
            serving(log_prompts=wanted) as served,
            served.client() as client,
        ):
            client.images.generate(prompt="17 18", extra_body={"seed": 5})
            with pytest.raises(openai.BadRequestError):
                client.images.generate(prompt="17 18 17 18 17 18")
        lines = [json.loads(Lines().format(record)) for record in caplog.records]
        asked = [line for line in lines if line["event"] == "request"]
        assert [line["status"] for line in asked] == [200, 400]
        assert asked[0]["seed"] == 5
        assert asked[0]["client"] == "127.0.0.1"
        assert ("17 18" in json.dumps(lines)) == wanted
