"""The folders that DALLE-pytorch wrote under DeepSpeed (`dalle-ds-cp`), as the dict of its plain checkpoints."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from torch.serialization import get_unsafe_globals_in_checkpoint

from tessera.errors import CheckpointError
from tessera.imports.reader import read

MAY_NAME = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "argparse.Namespace",
    }
)
"""All that DeepSpeed's own files name. Its tool would run whatever they name, so others never reach it."""


INNER = ("vae.model.", "vae.network.", "prior.", "joint.")
"""Names of our own faces for weights that stand under DALLE-pytorch's too, when they were trained here."""


def read_folder(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """hparams, weights and the rest, and what there is to say. Raises CheckpointError for an incomplete folder."""
    step = _newest(folder)
    states = sorted(step.glob("*model_states.pt"))
    if not states:
        raise CheckpointError(f"{step} holds no *model_states.pt of DeepSpeed.")
    first = read(states[0])
    about = read(folder / "auxiliary.pt") if (folder / "auxiliary.pt").is_file() else first
    if not isinstance(about, dict) or "hparams" not in about:
        raise CheckpointError(f"{folder} holds no auxiliary.pt with the options of the model (hparams).")
    kept = {k: about.get(k) for k in ("hparams", "vae_params", "epoch", "version", "vae_class_name")}
    shards = sorted(step.glob("*optim_states.pt"))
    if shards and (installed := _tool()):
        for file in [*states, *shards]:
            _vet(file)
        weights = _whole(installed, folder, step.name)
        twice = {n for n in first.get("shared_params") or {} if n.startswith(INNER)}
        kept["weights"] = {n: v for n, v in weights.items() if n not in twice}
        return kept, ["Consolidated by DeepSpeed's own tool."]
    if states[0].name.startswith("zero_pp_rank"):
        raise CheckpointError(
            f"{folder} holds weights cut up by ZeRO stage 3, which DeepSpeed's own tool puts together: "
            "pip install deepspeed."
        )
    notice = "Optimiser state cut up by DeepSpeed is left behind; training goes on with a fresh Adam."
    return {**kept, "weights": dict(first["module"])}, [notice]


def _newest(folder: Path) -> Path:
    latest = folder / "latest"
    name = latest.read_text().strip() if latest.is_file() else ""
    steps = sorted(folder.glob("global_step*"), key=lambda p: int(p.name.removeprefix("global_step") or 0))
    step = folder / Path(name).name if name else (steps[-1] if steps else folder)
    if not step.is_dir() or (not name and not steps):
        raise CheckpointError(f"{folder} is no DeepSpeed checkpoint: it holds no 'latest' and no global_step folder.")
    return step


def _tool() -> Any:
    try:
        from deepspeed.utils.zero_to_fp32 import (  # type: ignore[import-not-found]
            get_fp32_state_dict_from_zero_checkpoint,
        )
    except ImportError:
        return None
    return get_fp32_state_dict_from_zero_checkpoint


def _vet(file: Path) -> None:
    names = get_unsafe_globals_in_checkpoint(str(file)) if zipfile.is_zipfile(file) else ["something unreadable"]
    if refused := sorted(set(names) - MAY_NAME):
        raise CheckpointError(
            f"{file} wants to run {', '.join(refused[:4])}; it is refused, and nothing in it was run."
        )


def _whole(consolidate: Any, folder: Path, tag: str) -> dict[str, Any]:
    try:
        return {name: value.clone() for name, value in consolidate(str(folder), tag=tag).items()}
    except Exception as error:  # whatever the tool meets
        raise CheckpointError(f"DeepSpeed's tool cannot put {folder}/{tag} together: {error}") from error
