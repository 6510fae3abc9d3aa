"""Every setting, as frozen dataclasses: one table per part of the house. It knows no torch."""

from tessera.config.drawing import DrawingConfig, Request, SampleConfig, request
from tessera.config.evaluation import CompareConfig, EvaluateConfig, PicturesConfig
from tessera.config.learning import LearnConfig
from tessera.config.networks import (
    MODELS,
    CLIPConfig,
    DVAEConfig,
    NetworkConfig,
    PatternName,
    TextToImageConfig,
    TransformerConfig,
    kind_of,
)
from tessera.config.ranges import seconds
from tessera.config.training import (
    DataConfig,
    MachineConfig,
    OptimConfig,
    TokensConfig,
    TrackConfig,
    TrainConfig,
    to_dict,
    train_config,
)

__all__ = [
    "MODELS", "CLIPConfig", "CompareConfig", "DVAEConfig", "DataConfig", "DrawingConfig", "EvaluateConfig",
    "LearnConfig", "MachineConfig", "NetworkConfig", "OptimConfig", "PatternName", "PicturesConfig", "Request",
    "SampleConfig", "TextToImageConfig", "TokensConfig", "TrackConfig", "TrainConfig", "TransformerConfig", "kind_of",
    "request", "seconds", "to_dict", "train_config",
]  # fmt: skip
