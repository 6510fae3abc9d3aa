"""Training: a job from settings to checkpoints. Called, it is `tessera.train(config)`."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Train(ModuleType):
    """This part of the house has the name of the public function, which is one of the journeys."""

    def __call__(self, config: Any, **options: Any) -> Any:
        return importlib.import_module("tessera.journeys.training").train(config, **options)


sys.modules[__name__].__class__ = _Train
