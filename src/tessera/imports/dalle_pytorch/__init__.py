"""DALLE-pytorch's checkpoints, of every release from 0.9 to 1.6, as models of this house, and back."""

from tessera.imports.dalle_pytorch.names import canonical, clip_names, foreign
from tessera.imports.dalle_pytorch.options import VERSION, clip_config, clip_hparams, dalle_config, dvae_hparams
from tessera.imports.dalle_pytorch.reading import Imported, load, understood
from tessera.imports.dalle_pytorch.writing import exported, exported_tokenizer

__all__ = [
    "VERSION", "Imported", "canonical", "clip_config", "clip_hparams", "clip_names", "dalle_config", "dvae_hparams",
    "exported", "exported_tokenizer", "foreign", "load", "understood",
]  # fmt: skip
