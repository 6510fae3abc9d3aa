"""Every setting, as frozen dataclasses: one table per part of the house. It knows no torch."""

from tessera.config.drawing import DrawingConfig, Request, SampleConfig, request
from tessera.config.evaluation import CompareConfig, EvaluateConfig, PicturesConfig
from tessera.config.learning import LearnConfig
from tessera.config.merging import kind_of, to_dict
from tessera.config.networks import (
    MODELS,
    CLIPConfig,
    DVAEConfig,
    NetworkConfig,
    PatternName,
    TextToImageConfig,
    TransformerConfig,
)
from tessera.config.perceptual import PERCEPTUAL, Lite0, NoPerceptual, Perceptual
from tessera.config.pyramid import PyramidConfig
from tessera.config.quantizers import EMA, FSQ, LFQ, QUANTIZERS, Gumbel, Lookup, Quantizer, SimVQ
from tessera.config.ranges import seconds
from tessera.config.training import (
    DataConfig,
    MachineConfig,
    OptimConfig,
    TokensConfig,
    TrackConfig,
    TrainConfig,
    train_config,
)

__all__ = [
    "EMA",
    "FSQ",
    "LFQ",
    "MODELS",
    "PERCEPTUAL",
    "QUANTIZERS",
    "CLIPConfig",
    "CompareConfig",
    "DVAEConfig",
    "DataConfig",
    "DrawingConfig",
    "EvaluateConfig",
    "Gumbel",
    "LearnConfig",
    "Lite0",
    "Lookup",
    "MachineConfig",
    "NetworkConfig",
    "NoPerceptual",
    "OptimConfig",
    "PatternName",
    "Perceptual",
    "PicturesConfig",
    "PyramidConfig",
    "Quantizer",
    "Request",
    "SampleConfig",
    "SimVQ",
    "TextToImageConfig",
    "TokensConfig",
    "TrackConfig",
    "TrainConfig",
    "TransformerConfig",
    "kind_of",
    "request",
    "seconds",
    "to_dict",
    "train_config",
]  # fmt: skip
