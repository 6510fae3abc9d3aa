"""Every setting, as frozen dataclasses: one table per part of the house. It knows no torch."""

from tessera.config.drawing import SampleConfig
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
    "MODELS", "CLIPConfig", "DVAEConfig", "DataConfig", "LearnConfig", "MachineConfig", "NetworkConfig",
    "OptimConfig", "PatternName", "SampleConfig", "TextToImageConfig", "TokensConfig", "TrackConfig", "TrainConfig",
    "TransformerConfig", "kind_of", "seconds", "to_dict", "train_config",
]  # fmt: skip
