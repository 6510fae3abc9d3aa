"""DALLE-pytorch 1.6.6's own names: `from tessera.compat.dalle_pytorch import DALLE, DiscreteVAE`."""

from tessera.compat.dalle_pytorch.models import CLIP, DALLE, DiscreteVAE, OpenAIDiscreteVAE, VQGanVAE

__version__ = "1.6.6"
__all__ = ["CLIP", "DALLE", "DiscreteVAE", "OpenAIDiscreteVAE", "VQGanVAE", "__version__"]


def __getattr__(name: str) -> object:
    if name == "distributed_utils":  # loads the engines only where they are asked for
        import importlib

        return importlib.import_module("tessera.compat.dalle_pytorch.distributed_utils")
    raise AttributeError(name)
