"""Settings: strict merging, sentences that name the field and the remedy, presets that all resolve."""

import dataclasses
import json

import pytest

from tessera.config import (
    DataConfig,
    DVAEConfig,
    LearnConfig,
    OptimConfig,
    TextToImageConfig,
    TokensConfig,
    TrainConfig,
    TransformerConfig,
    seconds,
    to_dict,
    train_config,
)
from tessera.errors import ConfigError
from tessera.presets import PRESETS, preset
from tessera.settings import differences, merge, read_toml

GOOD = TrainConfig(data=DataConfig(path="x"))


def test_merge_puts_one_over_the_other():
    base = preset("t2i-s-64")
    merged = merge(base, {"steps": 7, "model": {"transformer": {"dim": 64, "patterns": ["full", "axial_row"]}}})
    assert (merged.steps, merged.model.transformer.dim) == (7, 64)
    assert merged.model.transformer.patterns == ("full", "axial_row")
    assert merged.model.transformer.depth == base.model.transformer.depth


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stepz": 3}, r"'stepz'; did you mean 'steps'"),
        ({"optim": {"learning_rate": 1}}, r"'optim\.learning_rate'"),
        ({"optim": {"shedule": "cosine"}}, r"'optim\.shedule'; did you mean 'schedule'"),
        ({"optim": {"schedule": "cosin"}}, r"optim\.schedule is 'cosin'; did you mean 'cosine'"),
        ({"optim": {"lr": "1e-3"}}, r"optim\.lr is '1e-3'; it must be a number"),
        ({"steps": 1.5}, r"steps is 1\.5; it must be a whole number"),
        ({"steps": True}, r"steps is True"),
        ({"optim": {"betas": [0.9]}}, r"optim\.betas"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(changes, says):
    with pytest.raises(ConfigError, match=says):
        merge(TrainConfig(), changes)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_sound_and_survive_json(name):
    config = dataclasses.replace(preset(name), data=DataConfig(path="x"), tokens=TokensConfig(image="y"))
    config.check()
    assert train_config(json.loads(json.dumps(to_dict(config)))) == config


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 't2i-s-128'"):
        preset("t2i-s-182")


def with_(part: str, value: object) -> TrainConfig:
    return dataclasses.replace(GOOD, **{part: value})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (TrainConfig(), r"data\.path is empty"),
        (with_("model", TextToImageConfig()), "needs an image tokenizer"),
        (with_("optim", OptimConfig(batch=10, accumulate=4)), "positive multiple"),
        (with_("optim", OptimConfig(lr=0)), r"optim\.lr"),
        (with_("optim", OptimConfig(drop_condition=1.2)), "drop-condition"),
        (with_("data", DataConfig(path="x", holdout=1.0)), "holdout"),
        (with_("data", DataConfig(path="x", crop=0.0)), "crop"),
        (with_("budget", "20 minutes"), "is no duration"),
        (with_("save_every", 0), "save-every"),
        (with_("valid_every", 0).__class__(data=DataConfig(path="x"), valid_every=0, patience=3), "patience"),
        (dataclasses.replace(GOOD, valid_every=0, optim=OptimConfig(schedule="plateau")), "plateau"),
        (with_("model", DVAEConfig(pixels=30)), "multiple of"),
    ],
)
def test_settings_that_cannot_work_together_are_refused_in_a_sentence(config, says):
    with pytest.raises(ConfigError, match=says):
        config.check()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"patterns": "full"}, "list of names"),
        ({"patterns": ("axial",)}, "did you mean 'axial_"),
        ({"depth": 0}, "at least 1"),
        ({"head_dim": 12}, "multiple of 8"),
        ({"positions": "rotary_dalle1", "head_dim": 4}, "at least 6"),
        ({"patterns": ("everyone",)}, "'everyone'"),
        ({"ff_dropout": 1.0}, "ff_dropout"),
        ({"shared_attn": ("a",), "patterns": ("full", "axial_row")}, "must share the pattern"),
    ],
)
def test_impossible_transformers_are_refused(bad, says):
    with pytest.raises(ConfigError, match=says):
        TransformerConfig(**bad).check()


def test_toml(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("steps = 5\n[optim]\nlr = 1e-3\n")
    assert merge(TrainConfig(), read_toml(file)).optim.lr == 1e-3
    file.write_text("steps = = 5\n")
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML: .*line 1"):
        read_toml(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "gone.toml")


def test_durations():
    assert [seconds(s) for s in ("90", "90s", "20m", "1.5h", "2d")] == [90, 90, 1200, 5400, 172800]
    assert seconds("") == float("inf")


def test_differences_are_named():
    other = merge(TrainConfig(), {"steps": 5, "optim": {"lr": 0.5}})
    assert differences(TrainConfig(), other) == ["steps: 1000 -> 5", "optim.lr: 0.001 -> 0.5"]


def test_learn_refuses_what_it_cannot_do():
    for bad, says in (({"pictures": ""}, "PICTURES"), ({"budget": ""}, "budget"), ({"pixels": 50}, "multiple of 16")):
        with pytest.raises(ConfigError, match=says):
            LearnConfig(**{"pictures": "x", **bad}).check()
