"""DALLE-pytorch's classes under the module that whole models saved with `torch.save` name."""

from tessera.compat.dalle_pytorch.clip import CLIP
from tessera.compat.dalle_pytorch.dalle import DALLE
from tessera.compat.dalle_pytorch.image_tokenizers import DiscreteVAE, OpenAIDiscreteVAE, VQGanVAE

__all__ = ["CLIP", "DALLE", "DiscreteVAE", "OpenAIDiscreteVAE", "VQGanVAE"]
