"""Presets: each is sound, and a wrong name is answered with the nearest."""

import dataclasses
import json

import pytest

from tessera.config import (
    DataConfig,
    TokensConfig,
    to_dict,
    train_config,
)
from tessera.config.presets import PRESETS, preset
from tessera.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_sound_and_survive_json(name):
    config = dataclasses.replace(preset(name), data=DataConfig(path="x"), tokens=TokensConfig(image="y"))
    config.check()
    assert train_config(json.loads(json.dumps(to_dict(config)))) == config


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 't2i-s-128'"):
        preset("t2i-s-182")
