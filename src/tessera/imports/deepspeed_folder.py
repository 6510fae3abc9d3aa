"""The folders that DALLE-pytorch wrote under DeepSpeed (`dalle-ds-cp`), as the dict of its plain checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from glob import has_magic
from pathlib import Path

from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from tessera.errors import CheckpointError
from tessera.files.regular import open_regular
from tessera.imports.reader import guarded, read, told

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
"""Everything that DeepSpeed's own files name. Its tool would run whatever a file names, so it gets no other file."""


Consolidate = Callable[..., dict[str, Tensor]]
"""DeepSpeed's tool: (folder, tag=) -> the weights put together."""

INNER = ("vae.model.", "vae.network.", "prior.", "joint.")
"""Names that our compat classes add for weights that also have DALLE-pytorch's name."""


def read_folder(folder: Path) -> tuple[Mapping[str, object], list[str]]:
    """hparams, weights and the rest, and notices. Raises CheckpointError for an incomplete folder."""
    with guarded(folder):
        step = _newest(folder)
        states = sorted(step.glob("*model_states.pt"))
        if not states:
            raise CheckpointError(f"{step} holds no *model_states.pt of DeepSpeed.")
        first = read(states[0])
        if not isinstance(first, dict):
            raise CheckpointError(f"{states[0]} holds a {type(first).__name__}, not the dict that DeepSpeed saves.")
        about = read(folder / "auxiliary.pt") if (folder / "auxiliary.pt").is_file() else first
        if not isinstance(about, dict) or "hparams" not in about:
            raise CheckpointError(f"{folder} holds no auxiliary.pt with the options of the model (hparams).")
        kept = {k: about.get(k) for k in ("hparams", "vae_params", "epoch", "version", "vae_class_name")}
        shards = sorted(step.glob("*optim_states.pt"))
        if shards and (installed := _tool()):
            for file in [*states, *shards]:
                _vet(file)
            weights = _whole(installed, folder, step.name)
            shared = first.get("shared_params")
            twice = {n for n in shared if n.startswith(INNER)} if isinstance(shared, dict) else set()
            kept["weights"] = {n: v for n, v in weights.items() if n not in twice}
            return kept, ["Consolidated by DeepSpeed's own tool."]
        if states[0].name.startswith("zero_pp_rank"):
            raise CheckpointError(
                f"{folder} holds weights that ZeRO stage 3 sharded. DeepSpeed's own tool puts them together: "
                "pip install deepspeed."
            )
        if not isinstance(first.get("module"), dict):
            raise CheckpointError(f"{states[0]} holds no 'module' with weights; it holds {told(first, 6)}.")
        notice = "The optimiser state that DeepSpeed sharded is not imported; training goes on with a fresh Adam."
        return {**kept, "weights": dict(first["module"])}, [notice]


def _newest(folder: Path) -> Path:
    """The step that `latest` names, else the highest. A name that leads out of the folder, or that DeepSpeed's tool
    would read as a pattern, is refused: it would open files that were not checked."""
    latest = folder / "latest"
    steps = [p.name for p in folder.glob("global_step*") if p.name.removeprefix("global_step").isdecimal()]
    last = max(steps, key=lambda name: int(name[11:20] or 0), default="")
    name = latest.read_text("utf-8", "replace").strip() if latest.is_file() else last
    if not re.fullmatch(r"\w[\w.-]*", name) or not (folder / name).is_dir():
        raise CheckpointError(
            f"{folder} is not a DeepSpeed checkpoint: it holds no 'latest' that names one of its folders, and no "
            "global_step folder."
        )
    return folder / name


def _tool() -> Consolidate | None:
    try:
        from deepspeed.utils.zero_to_fp32 import (  # type: ignore[import-not-found]
            get_fp32_state_dict_from_zero_checkpoint,
        )
    except ImportError:
        return None
    return get_fp32_state_dict_from_zero_checkpoint  # type: ignore[return-value]


def _vet(file: Path) -> None:
    """Raises CheckpointError if a file names code that the tool would run, or cannot be searched for it: the old
    format, newer protocols of pickle, TorchScript, two formats in one file."""
    try:
        open_regular(file).close()  # torch would wait for a pipe
        names = get_unsafe_globals_in_checkpoint(str(file))
    except Exception as error:  # a file that cannot be searched must not be opened
        raise CheckpointError(
            f"{file} is not a file that DeepSpeed wrote ({type(error).__name__}: {str(error)[:200]}). It is refused, "
            "and nothing in it was run."
        ) from error
    if refused := sorted(set(names) - MAY_NAME):
        raise CheckpointError(f"{file} wants to run {told(refused, 4)}; it is refused, and nothing in it was run.")


def _whole(consolidate: Consolidate, folder: Path, tag: str) -> dict[str, Tensor]:
    if has_magic(str(folder)):
        raise CheckpointError(f"DeepSpeed's tool would read '{folder}' as a pattern; rename it (no *, ?, [).")
    try:
        return {name: value.clone() for name, value in consolidate(str(folder), tag=tag).items()}
    except Exception as error:  # any error of the tool
        raise CheckpointError(f"DeepSpeed's tool cannot put {folder}/{tag} together: {error}") from error
