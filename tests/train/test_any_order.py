"""Training the prior of any order: it learns, resumes, draws its orders from the step, and leaves raster runs alone."""

import dataclasses
import json

import pytest
import torch

from small_runs import PRIOR, dvae_config, go, last_weights, prior_config, whole_and_in_parts
from tessera.config import AnyOrderConfig, NoiseConfig, OptimConfig, to_dict, train_config
from tessera.generate.pipeline import Pipeline
from tessera.models.any_order import AnyOrder
from tessera.train import plan
from tessera.train.job import build
from tessera.train.loop import step_seed
from tessera.train.objectives.any_order import orders

ANY = AnyOrderConfig(transformer=PRIOR.transformer)


@pytest.fixture(scope="module")
def tokenizer(bird_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "dvae"
    go(dvae_config(bird_folder, out))
    return out


@pytest.fixture
def config(bird_folder, tokenizer, tmp_path):
    return dataclasses.replace(prior_config(bird_folder, tmp_path / "any", tokenizer), model=ANY)


def test_a_run_goes_on_as_if_never_stopped_and_draws(config):
    whole, parts = whole_and_in_parts(config)
    for name, value in last_weights(whole).items():
        assert torch.equal(value, last_weights(parts)[name]), name
    pipeline = Pipeline.load(whole.folder, "cpu")
    assert isinstance(pipeline.model, AnyOrder)
    (picture,) = pipeline("a red bird", truncate=True)
    assert len(picture.codes) == 16


def test_it_learns_with_everything_that_a_raster_prior_may_have(config):
    changed = dataclasses.replace(
        config, steps=40, valid_every=40, save_every=40, noise=NoiseConfig(codes=0.2, by="any"),
        model=dataclasses.replace(ANY, tied=True, raster_share=0.5),
        optim=OptimConfig(batch=8, accumulate=2, warmup=4, lr=5e-3, ema=0.9),
    )  # fmt: skip
    run, _ = go(changed)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    images = [row["image"] for row in rows if "image" in row]
    assert images[-1] < images[0]


def test_orders_are_those_of_the_step_and_micro_batches_keep_them(config):
    objective = build(config)
    batch = next(objective.batches(0))
    found = []
    for step in (3, 3, 4):
        torch.manual_seed(step_seed(0, 0, step))
        found.append(objective.chance(batch).order)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(found[0].sort(1).values, torch.arange(16).expand(len(batch.tokens), -1))
    assert len(found[0].unique(dim=0)) == len(batch.tokens)


def test_a_share_of_pictures_is_read_in_reading_order(config):
    objective = build(dataclasses.replace(config, model=dataclasses.replace(ANY, raster_share=1.0)))
    assert torch.equal(objective.chance(next(objective.batches(0))).order, torch.arange(16).expand(4, -1))


def test_held_out_orders_stay():
    assert torch.equal(
        orders(3, 9, torch.Generator().manual_seed(1)), orders(5, 9, torch.Generator().manual_seed(1))[:3]
    )


def test_settings_survive_json_and_a_plan_counts_it(config):
    assert train_config(to_dict(config)) == config
    sized = dataclasses.replace(ANY, text_vocab=20, text_len=5, image_vocab=11, grid=4)
    assert plan.predict(dataclasses.replace(config, model=sized), 4).working > 0
    assert plan.parameters(sized) > 0


def test_an_evaluation_has_its_likelihood_in_other_orders_and_a_verdict_on_copying(config):
    from tessera.config import EvaluateConfig, PicturesConfig
    from tessera.evaluate.evaluation import evaluate

    run, _ = go(dataclasses.replace(config, steps=4, save_every=4, valid_every=4))
    data = PicturesConfig(path=config.data.path)
    asked = EvaluateConfig(data=data, count=12, seeds=3, features="none", device="cpu", ranked=4, steps=4)
    found = evaluate(str(run.folder), asked, lambda title: lambda items, total: items).evaluation
    values = {figure.name: figure.value for figure in found.figures}
    reading, chance = (values[name].value for name in ("nats per code", "nats per code, any order"))
    more = values["reading order against others, nats per picture"]
    assert more.value == pytest.approx(16 * (reading - chance), abs=1e-4)
    assert more.value != 0
    assert found.verdict is not None
