"""Settings: sentences that name the field and the remedy, and ranges that their types carry."""

import dataclasses
import math

import pytest

from tessera.config import (
    FSQ,
    QUANTIZERS,
    CLIPConfig,
    DataConfig,
    DVAEConfig,
    Gumbel,
    LearnConfig,
    Lookup,
    MachineConfig,
    OptimConfig,
    SampleConfig,
    TextToImageConfig,
    TokensConfig,
    TrainConfig,
    TransformerConfig,
    seconds,
    train_config,
)
from tessera.errors import ConfigError

GOOD = TrainConfig(data=DataConfig(path="x"))


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
        (with_("budget", "20 minutes"), "is not a duration"),
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
        ({"patterns": "full"}, "must be a list, each one of full"),
        ({"patterns": ("axial",)}, "did you mean 'axial_"),
        ({"depth": 0}, "at least 1"),
        ({"head_dim": 12}, "multiple of 8"),
        ({"positions": "rotary_dalle1", "head_dim": 4}, "at least 6"),
        ({"patterns": ("everyone",)}, "'everyone'"),
        ({"ff_dropout": 1.0}, "ff-dropout"),
        ({"dim": 65536, "depth": 1024}, "parameters; the most is"),
        ({"shared_attn": ("a",), "patterns": ("full", "axial_row")}, "must share the pattern"),
    ],
)
def test_impossible_transformers_are_refused(bad, says):
    with pytest.raises(ConfigError, match=says):
        TransformerConfig(**bad).check()


def test_durations():
    assert [seconds(s) for s in ("90", "90s", "20m", "1.5h", "2d")] == [90, 90, 1200, 5400, 172800]
    assert seconds("") == float("inf")


def test_learn_refuses_what_it_cannot_do():
    for bad, says in (({"pictures": ""}, "PICTURES"), ({"budget": ""}, "budget"), ({"pixels": 50}, "multiple of 16")):
        with pytest.raises(ConfigError, match=says):
            LearnConfig(**{"pictures": "x", **bad}).check()


# Types carry their ranges.

CONFIGS = [
    DVAEConfig(),
    *(kind() for kind in QUANTIZERS.values()),
    TransformerConfig(),
    TextToImageConfig(),
    CLIPConfig(),
    DataConfig(),
    TokensConfig(),
    OptimConfig(),
    MachineConfig(),
    TrainConfig(data=DataConfig(path="x")),
    SampleConfig(),
    LearnConfig(pictures="x"),
]
WILD = [math.nan, math.inf, -math.inf, -1, -0.5, 0, 0.5, 1, 2**31, 2**63, 2**64, 10**400, 1e23, 1e-300, (), (0,), (math.nan,), [], None, "1", True]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_no_value_of_any_setting_ends_in_anything_but_a_sentence(config):
    """Whatever passes is finite and of bounded size."""
    for f in dataclasses.fields(config):
        old = getattr(config, f.name)
        for value in WILD if isinstance(old, int | float | tuple) and not isinstance(old, bool) else ():
            try:
                dataclasses.replace(config, **{f.name: value}).check()
            except ConfigError:
                continue
            assert type(value) is not bool
            numbers = value if isinstance(value, tuple | list) else [value]
            assert all(math.isfinite(n) and (-1e30 <= n <= 1e30 or f.name == "seed") for n in numbers), f.name


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (with_("seed", -1), "seed is -1; it must be at least 0"),
        (with_("seed", 2**63), "seed is 9223372036854775808"),
        (with_("steps", -1), "steps is -1"),
        (with_("steps", 10**18), "steps is 1000000000000000000"),
        (with_("patience", -1), "patience is -1"),
        (with_("preview_every", -1), "preview-every is -1"),
        (with_("valid_every", -5), "valid-every is -5"),
        (with_("keep", 0), "keep is 0"),
        (with_("data", DataConfig(path="x", workers=-1)), r"data\.workers is -1"),
        (with_("machine", MachineConfig(threads=-1)), r"machine\.threads is -1"),
        (with_("optim", OptimConfig(lr=math.nan)), r"optim\.lr is nan"),
        (with_("optim", OptimConfig(lr=math.inf)), r"optim\.lr is inf"),
        (with_("optim", OptimConfig(betas=(1.0, 1.0))), r"optim\.betas\[0\] is 1\.0; it must be below 1"),
        (with_("optim", OptimConfig(clip=math.nan)), r"optim\.clip is nan"),
        (with_("optim", OptimConfig(weight_decay=math.nan)), r"optim\.weight-decay is nan"),
        (with_("optim", OptimConfig(lr_end=-3)), r"optim\.lr-end is -3"),
        (with_("optim", OptimConfig(accumulate=0)), r"optim\.accumulate is 0"),
        (with_("tokens", TokensConfig(vocab=-4)), r"tokens\.vocab is -4"),
        (with_("model", DVAEConfig(hidden=0)), r"model\.hidden is 0"),
        (with_("model", DVAEConfig(pixels=0)), r"model\.pixels is 0"),
        (with_("model", DVAEConfig(pixels=-32)), r"model\.pixels is -32"),
        (with_("model", DVAEConfig(resblocks=-1)), r"model\.resblocks is -1"),
        (with_("model", DVAEConfig(layers=10**9)), r"model\.layers is 1000000000"),
        (with_("model", DVAEConfig(std=(math.nan,) * 4)), r"model\.std\[0\] is nan"),
        (
            with_("model", DVAEConfig(quantizer=FSQ(levels=()))),
            r"model\.quantizer\.levels is \(\); it must be at least 1 long",
        ),
        (with_("model", DVAEConfig(quantizer=Gumbel(kl_weight=math.nan))), r"model\.quantizer\.kl-weight is nan"),
        (with_("model", DVAEConfig(quantizer=Gumbel(codes=0))), r"model\.quantizer\.codes is 0"),
        (with_("model", DVAEConfig(quantizer=Lookup(code_dim=0))), r"model\.quantizer\.code-dim is 0"),
        (with_("model", CLIPConfig(patch=0)), r"model\.patch is 0"),
        (
            with_("model", TextToImageConfig(transformer=TransformerConfig(depth=10**9))),
            r"model\.transformer\.depth is",
        ),
        (with_("model", TextToImageConfig(text_vocab=2**40)), r"model\.text-vocab is"),
        (with_("budget", "9" * 400 + "d"), "is not a duration"),
        (LearnConfig(pictures="x", samples=0), "samples is 0"),
        (LearnConfig(pictures="x", grid=7), r"grid is 7\. Allowed: 0, 8, 16, 32"),
        (LearnConfig(pictures="x", guidance=math.inf), "guidance is inf"),
        (LearnConfig(pictures="x", crop=math.nan), "crop is nan"),
        (SampleConfig(temperature=math.nan), "temperature is nan"),
        (SampleConfig(temperature=1e-40), "temperature is 1e-40"),
        (SampleConfig(guidance=math.nan), "guidance is nan"),
        (SampleConfig(guidance=math.inf), "guidance is inf"),
        (SampleConfig(top_k=math.nan), "top-k is nan"),
        (SampleConfig(top_k=math.inf), "top-k is inf"),
        (SampleConfig(top_p=math.nan), "top-p is nan"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(config, says):
    with pytest.raises(ConfigError, match=says):
        config.check()


@pytest.mark.parametrize(
    "plain",
    [[], None, 5, {"model": []}, {"model": {"kind": []}}, {"model": {"kind": "t2i", "transformer": {"depth": 10**9}}},
     {"model": {"kind": "dvae", "levels": "x"}}, {"model": {"kind": "dvae", "quantizer": {"kind": "fsq", "levels": "x"}}},
     {"model": {"quantizer": {"kind": 3}}}, {"model": {"quantizer": []}}, {"model": 5}, {"optim": []}, {"steps": None}],
    ids=str,
)  # fmt: skip
def test_settings_of_another_form_are_refused(plain):
    with pytest.raises(ConfigError):
        train_config(plain)
