"""Drawing refuses what it cannot do, in a sentence, and never gives a wrong picture in silence."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import weakref
from dataclasses import fields
from typing import Any

import pytest
import torch
from PIL import Image

import tessera
from conftest import CLASSIC, MODERN, TINY_CLIP, TINY_DVAE, prior
from tessera.cli.generate import GenerateConfig
from tessera.config import SampleConfig
from tessera.errors import CheckpointError, ConfigError, DataError, TesseraError
from tessera.generate import raster
from tessera.generate.events import Partial, Step
from tessera.generate.judge import CLIPJudge
from tessera.generate.pipeline import Picture, Pipeline, Request
from tessera.generate.raster import RasterDecoder
from tessera.models.clip import CLIP
from tessera.models.dvae import DiscreteVAE
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import Frozen
from tessera.tokens.text import Numbers


def pipeline(**changes: Any) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline(prior(MODERN, image_vocab=27, **changes), Numbers(20), Frozen(DiscreteVAE(TINY_DVAE).eval()))


# A prompt that is too long.


def test_a_prompt_longer_than_the_text_is_refused_with_both_lengths_and_the_words_that_would_be_lost():
    for draw in (lambda p: p("1 2 3 4 5 6 7"), lambda p: p.draw(["1 2 3 4 5 6 7"], [0], SampleConfig())):
        with pytest.raises(DataError, match=r"has 7 tokens and the model reads 5: '6 7' would be lost.*--truncate"):
            draw(pipeline())


def test_truncate_cuts_with_a_notice():
    model = pipeline()
    with pytest.warns(UserWarning, match="'6 7' is cut off"):
        (cut,) = model("1 2 3 4 5 6 7", truncate=True)
    assert cut.codes == model("1 2 3 4 5")[0].codes
    (quiet,) = model.draw(["1 2 3 4 5 6 7"], [0], SampleConfig(), truncate=True)
    assert quiet.codes == cut.codes


def test_a_judge_that_reads_less_of_the_prompt_says_so():
    torch.manual_seed(0)
    picture = Picture(Image.new("RGB", (16, 16)), "1 2 3 4 5 6 7", 0)
    with pytest.warns(UserWarning, match="The judge reads 5 of the 7 tokens"):
        CLIPJudge(CLIP(TINY_CLIP), Numbers(20)).scores([picture])


# Values and names.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temprature": 1}, "no option 'temprature'; did you mean 'temperature'"),
        ({"cond_scale": 1}, "no option 'cond_scale'"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"guidance": math.inf}, "guidance is inf"),
        ({"guidance": "2"}, "guidance is '2'; it must be a number"),
        ({"top_k": math.nan}, "top_k is nan"),
        ({"count": 0}, "count is 0"),
        ({"count": 10**9}, "count is 1000000000; it must be at most 1000000"),
        ({"count": 1.5}, "count is 1.5; it must be a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": 2**63 - 2, "count": 3}, "the last seed would be over"),
        ({"batch": 0}, "batch is 0"),
        ({"prime_rows": 1.5}, "prime_rows is 1.5"),
        ({"prime": "/nowhere.png"}, r"/nowhere\.png cannot be used"),
    ],
)
def test_a_wrong_option_is_named(options, says):
    with pytest.raises(TesseraError, match=says):
        pipeline()("1 2", **options)


@pytest.mark.parametrize(
    ("prompt", "says"), [(" ", "empty"), (["1"], "must be a text"), ("1 \udc80", "not text in UTF-8")]
)
def test_a_prompt_that_is_not_text_is_refused(prompt, says):
    with pytest.raises(ConfigError, match=says):
        pipeline()(prompt)
    if isinstance(prompt, str) and prompt.strip():
        with pytest.raises(ConfigError, match=says):
            pipeline().complete(prompt, [0], SampleConfig())


def test_the_last_seed_is_drawn():
    (picture,) = pipeline()("1 2", seed=2**63 - 2)
    assert picture.seed == 2**63 - 2


@pytest.mark.parametrize(
    ("prompts", "seeds", "batch", "says"),
    [
        (["1"], [0, 1], 8, "1 prompts and 2 seeds"),
        (["1"], [-1], 8, r"seeds\[0\] is -1"),
        (["1"], [0], 0, "batch is 0"),
    ],
)
def test_lists_of_prompts_and_seeds_are_checked(prompts, seeds, batch, says):
    with pytest.raises(ConfigError, match=says):
        pipeline().draw(prompts, seeds, SampleConfig(), batch)


def test_load_names_a_wrong_keyword(tmp_path):
    with pytest.raises(ConfigError, match="no option 'devise'; did you mean 'device'"):
        tessera.load(str(tmp_path), devise="cpu")
    with pytest.raises(ConfigError, match="compile is 'maybe'"):
        tessera.load(str(tmp_path), compile="maybe")
    with pytest.raises(ConfigError, match="run is None"):
        tessera.load(None)  # type: ignore[arg-type]


# Parts that do not belong together, and damaged ones.


@pytest.mark.parametrize("changes", [{"grid": 8}, {"image_vocab": 11}])
def test_an_image_tokenizer_of_another_model_is_refused_before_anything_is_drawn(changes):
    model = prior(MODERN, **{"image_vocab": 27, **changes})
    with pytest.raises(CheckpointError, match="do not belong together"):
        Pipeline(model, Numbers(20), Frozen(DiscreteVAE(TINY_DVAE)))


def test_a_text_tokenizer_with_more_tokens_than_the_model_is_refused():
    own = pipeline()
    model = Pipeline(own.model, Numbers(1000), own.image)
    with pytest.raises(CheckpointError, match="gives the token 500 and the model has 20"):
        model("1 500")


@pytest.mark.parametrize("transformer", [MODERN, CLASSIC], ids=["modern", "dalle1"])
@pytest.mark.parametrize("part", ["image_head", "image_embedding", "norm"])
def test_a_model_with_damaged_weights_draws_nothing(transformer, part):
    model = prior(transformer)
    weight = next(p for name, p in model.named_parameters() if part in name)
    with torch.no_grad():
        weight.view(-1)[1::2] = math.nan  # not the whole, so that the first predictions may be sound
    with pytest.raises(CheckpointError, match="weights are damaged"):
        raster.codes(model, torch.tensor([[3, 4, 7, 23, 24]]), [0], SampleConfig())


def test_a_text_head_with_damaged_weights_completes_nothing():
    model = pipeline()
    torch.nn.init.constant_(model.model.text_head.weight, math.nan)
    with pytest.raises(CheckpointError, match="weights are damaged"):
        model.complete("1", [0], SampleConfig())


def test_an_image_tokenizer_with_damaged_weights_draws_nothing():
    model = pipeline()
    for weight in model.image.model.parameters():
        torch.nn.init.constant_(weight, math.nan)
    with pytest.raises(CheckpointError, match="image tokenizer"):
        model("1 2")


@pytest.mark.parametrize("part", ["model", "image"])
def test_damaged_weights_are_told_with_the_run_that_holds_them(part):
    own = pipeline()
    model = Pipeline(own.model, Numbers(20), own.image, "runs/birds")
    network = {"model": model.model, "image": model.image.model}[part]
    for weight in network.parameters():
        torch.nn.init.constant_(weight, math.nan)
    with pytest.raises(CheckpointError, match=r"^runs/birds: The .*weights are damaged"):
        model("1 2")


def test_a_judge_with_damaged_weights_ranks_nothing():
    class Broken:
        def scores(self, pictures):
            return torch.full((len(pictures),), math.nan)

    with pytest.raises(CheckpointError, match="judge's scores"):
        pipeline().best(Request("1 2"), Broken(), 2)


# Events, and stopping half-way.


class Tiny:
    """A tokenizer of pictures of one pixel a code."""

    grid, vocab = 4, 11

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes / 10).reshape(-1, 1, 4, 4).expand(-1, 3, -1, -1)


class Words:
    def encode(self, text: str) -> list[int]:
        return [3, 4]


def test_drawing_halves_the_batch_that_does_not_fit(monkeypatch):
    pipeline = Pipeline(prior(MODERN), Words(), Tiny())
    wanted = [p.codes for p in pipeline.stream(Request("a bird", count=8))]
    asked, steps = [], RasterDecoder.steps

    def cramped(self, batch):
        asked.append(len(batch.tokens))
        if len(batch.tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return steps(self, batch)

    monkeypatch.setattr(RasterDecoder, "steps", cramped)
    with pytest.warns(UserWarning, match="Memory ran out") as warned:
        found = [p.codes for p in pipeline.stream(Request("a bird", count=8))]
    assert found == wanted
    assert asked == [8, 4, 2, 2, 2, 2]
    assert len(warned) == 2
    assert [p.codes for p in pipeline.stream(Request("a bird", count=4))] == wanted[:4]
    assert asked[6:] == [2, 2], "it remembers"


def test_a_single_picture_that_does_not_fit_is_an_error(monkeypatch):
    pipeline = Pipeline(prior(MODERN), Words(), Tiny())

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(RasterDecoder, "steps", full)
    with pytest.raises(torch.OutOfMemoryError):
        pipeline.draw(["a bird"], [0], SampleConfig())


def test_unfinished_pictures_come_along_the_way():
    seen: list = []
    pipeline = Pipeline(prior(MODERN), Words(), Tiny())
    (whole,) = pipeline.stream(Request("a bird"), on_partial=seen.extend)
    (half,) = seen
    assert half.seed == whole.seed
    assert half.image.getpixel((0, 3)) == (200, 200, 200)
    assert half.image.crop((0, 0, 4, 2)).tobytes() == whole.image.crop((0, 0, 4, 2)).tobytes()


def asked(**options: Any) -> Request:
    return Request("1 2", **{"count": 3, "batch": 2, "seed": 4, **options})


def test_events_tell_of_every_step_every_two_rows_and_every_picture():
    model = pipeline()
    events = list(model.events(asked()))
    steps = [e for e in events if isinstance(e, Step)]
    assert [e.done for e in steps] == [*range(2, 33, 2), *range(33, 49)]
    assert {e.total for e in steps} == {48}
    pictures = [e for e in events if isinstance(e, Picture)]
    assert [p.codes for p in pictures] == [p.codes for p in model("1 2", count=3, seed=4)]
    shown = [[p.seed for p in e.pictures] for e in events if isinstance(e, Partial)]
    assert shown == [[4, 5], [6]]
    kinds = [type(e).__name__[0] for e in events]
    assert "".join(kinds) == "SSSSSSSSP" + "SSSSSSSSPP" + "SSSSSSSSP" + "SSSSSSSSP"
    assert not any(isinstance(e, Partial) for e in model.events(asked(), partial=False))


def test_what_is_wrong_with_a_request_is_said_before_the_first_event():
    with pytest.raises(ConfigError, match="count is 0"):
        pipeline().events(asked(count=0))
    with pytest.raises(DataError, match="has 7 tokens"):
        pipeline().stream(Request("1 2 3 4 5 6 7"))


@pytest.mark.parametrize("way", ["events", "stream"])
@pytest.mark.parametrize("ahead", [1, 4])
def test_closing_half_way_stops_at_that_step_and_frees_the_cache(monkeypatch, way, ahead):
    """Without the collector of cycles, which a server should not have to wait for."""
    model, held, steps, past, decode = pipeline(), [], [], TextToImage.past, TextToImage.decode

    def made(*args, **options):
        own = past(*args, **options)
        held.extend(weakref.ref(kept) for slot in own.slots for kept in slot.kept)
        held.append(weakref.ref(own))
        return own

    def count(self, codes, past):
        steps.append(1)
        return decode(self, codes, past)

    monkeypatch.setattr(TextToImage, "past", made)
    monkeypatch.setattr(TextToImage, "decode", count)
    model = pipeline()
    request = asked(sampling=SampleConfig(guidance=2.0, ahead=ahead))
    gc.collect()
    gc.disable()
    try:
        drawing = model.events(request) if way == "events" else model.stream(request)
        for _ in range(5 if way == "events" else 1):
            next(drawing)
        assert way == "stream" or held[-1]() is not None
        read = len(steps)
        drawing.close()  # type: ignore[attr-defined]
        assert not [ref for ref in held if ref() is not None]
    finally:
        gc.enable()
    assert len(steps) == read
    (whole, *_) = model.stream(request)
    assert whole.codes == model("1 2", seed=4, guidance=2.0)[0].codes, "and the next request is drawn as ever"


def test_a_request_that_fails_in_a_callback_frees_the_cache_too(monkeypatch):
    held, past = [], TextToImage.past
    monkeypatch.setattr(TextToImage, "past", lambda *a, **k: (p := past(*a, **k), held.append(weakref.ref(p)))[0])

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(pipeline().stream(asked(), stop))
    assert held[0]() is None


def test_a_request_needs_no_torch():
    code = (
        "import sys; from tessera.config import Request, request; request('a bird', count=2, guidance=2.0).check(); "
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "False"


def test_the_command_line_and_python_share_their_options():
    shared = {f.name for f in fields(Request)} - {"prompt"}
    assert shared < {f.name for f in fields(GenerateConfig)}
