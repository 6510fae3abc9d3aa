"""Every setting, as frozen dataclasses: one table per part of the house. It knows no torch."""

from tessera.config.any_order import PRIORS, AnyOrderConfig, refuse_order
from tessera.config.autoencoder import AutoencoderConfig, adapted
from tessera.config.casting import seconds
from tessera.config.clip import CLIPConfig
from tessera.config.data import DataConfig, NoiseConfig, TokensConfig
from tessera.config.drawing import PLAIN, DrawingConfig, Request, SampleConfig
from tessera.config.dvae import DVAEConfig
from tessera.config.editing import EditingConfig
from tessera.config.evaluation import CompareConfig, EvaluateConfig, PicturesConfig
from tessera.config.learning import LearnConfig
from tessera.config.merging import kind_of, to_dict
from tessera.config.network import MODELS, NetworkConfig
from tessera.config.perceptual import PERCEPTUAL, Lite0, NoPerceptual, Perceptual
from tessera.config.plain import request, train_config
from tessera.config.pyramid import PyramidConfig
from tessera.config.quantizers import EMA, FSQ, LFQ, QUANTIZERS, Gumbel, Lookup, Quantizer, SimVQ
from tessera.config.serving import Limits, ServingConfig
from tessera.config.studio import StudioConfig
from tessera.config.text_to_image import TextToImageConfig
from tessera.config.tracking import TrackConfig
from tessera.config.training import MachineConfig, OptimConfig, TrainConfig
from tessera.config.transformer import PatternName, TransformerConfig
from tessera.config.vqgan import VQGANConfig

__all__ = [
    "EMA",
    "FSQ",
    "LFQ",
    "MODELS",
    "PERCEPTUAL",
    "PLAIN",
    "PRIORS",
    "QUANTIZERS",
    "AnyOrderConfig",
    "AutoencoderConfig",
    "CLIPConfig",
    "CompareConfig",
    "DVAEConfig",
    "DataConfig",
    "DrawingConfig",
    "EditingConfig",
    "EvaluateConfig",
    "Gumbel",
    "LearnConfig",
    "Limits",
    "Lite0",
    "Lookup",
    "MachineConfig",
    "NetworkConfig",
    "NoPerceptual",
    "NoiseConfig",
    "OptimConfig",
    "PatternName",
    "Perceptual",
    "PicturesConfig",
    "PyramidConfig",
    "Quantizer",
    "Request",
    "SampleConfig",
    "ServingConfig",
    "SimVQ",
    "StudioConfig",
    "TextToImageConfig",
    "TokensConfig",
    "TrackConfig",
    "TrainConfig",
    "TransformerConfig",
    "VQGANConfig",
    "adapted",
    "kind_of",
    "refuse_order",
    "request",
    "seconds",
    "to_dict",
    "train_config",
]  # fmt: skip
