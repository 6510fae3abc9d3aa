"""Settings from plain values: the keywords of a call, the JSON of a run."""

from __future__ import annotations

import typing
from dataclasses import fields, replace
from typing import Any

from tessera.config.drawing import PLAIN, Request, SampleConfig
from tessera.config.merging import merge, nearest
from tessera.config.training import TrainConfig
from tessera.errors import ConfigError


def request(prompt: str | Request, usual: SampleConfig = PLAIN, /, **options: Any) -> Request:
    """A Request; `options` are its fields and those of SampleConfig, which are put over the usual ones, or over those
    of a Request. Raises ConfigError that names a wrong one."""
    base = prompt if isinstance(prompt, Request) else Request(prompt, sampling=usual)
    own = {f.name for f in fields(Request)} - {"prompt", "sampling"}
    sampling = {f.name for f in fields(SampleConfig)}
    for name in options:
        if name not in own | sampling:
            near = nearest(name, own | sampling) or "."
            raise ConfigError(f"There is no option '{name}'{near} Known: {', '.join(sorted(own | sampling))}.")
    chosen = merge(base.sampling, {name: value for name, value in options.items() if name in sampling})
    own_options = {name: value for name, value in options.items() if name in own}
    return merge(replace(base, sampling=chosen), own_options)


def train_config(plain: object) -> TrainConfig:
    """The TrainConfig that `to_dict` wrote, now or in an earlier release. Raises ConfigError on anything unknown."""
    return merge(TrainConfig(), typing.cast("dict[str, Any]", plain))
