"""DeepSpeed's configuration: its own JSON, and what our settings say. It needs no DeepSpeed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tessera.config import MachineConfig, OptimConfig
from tessera.config.merging import nearest
from tessera.errors import ConfigError

OWNED = {
    "train_batch_size": "optim.batch",
    "train_micro_batch_size_per_gpu": "optim.batch and optim.accumulate",
    "gradient_accumulation_steps": "optim.accumulate",
    "gradient_clipping": "optim.clip",
}
"""What both its JSON and our settings say."""


def settings(
    machine: MachineConfig, optim: OptimConfig, world: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """DeepSpeed's configuration: the JSON whole, with what we settle filled in.

    Raises ConfigError where the JSON contradicts our settings, or asks for what cannot work.
    """
    given = _read(machine.deepspeed) if machine.deepspeed else {}
    ours = {
        "train_batch_size": optim.batch,
        "train_micro_batch_size_per_gpu": optim.batch // optim.accumulate // world,
        "gradient_accumulation_steps": optim.accumulate,
        "gradient_clipping": float(optim.clip),
    }
    _compare(given, ours, machine.deepspeed)
    zero = dict(given.get("zero_optimization", {"stage": machine.zero}))
    zero.setdefault("stage", machine.zero)
    if machine.offload != "none":
        place = {"device": "nvme", "nvme_path": machine.nvme} if machine.nvme else {"device": "cpu"}
        zero.setdefault("offload_optimizer", place)
        if machine.offload == "parameters":
            zero.setdefault("offload_param", place)
    config = {**given, **ours, "zero_optimization": zero}
    for key in ("bf16", "fp16"):
        config.setdefault(key, {"enabled": dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[key]})
    # Any optimiser of torch's: its own fused ones take minutes to compile and change no number that matters.
    config.setdefault("zero_allow_untested_optimizer", True)
    config.setdefault("zero_force_ds_cpu_optimizer", False)
    _check(config, optim, device, world)
    if config["zero_optimization"]["stage"] == 0:
        config["gradient_clipping"] = 0.0  # we clip there, since the library tells no norm at stage 0
    return config


def _compare(given: dict[str, Any], ours: dict[str, Any], path: str) -> None:
    """Raises ConfigError where the JSON and our settings say different things."""
    conflicts = [
        f"{key} is {given[key]} there and {value} by {OWNED[key]}"
        for key, value in ours.items()
        if given.get(key, "auto") not in ("auto", value)
    ]
    for key in ("optimizer", "scheduler"):
        if key in given:
            conflicts.append(f"'{key}' stands there, and ours are --optim.name, --optim.lr and --optim.schedule")
    if conflicts:
        raise ConfigError(f"{path} and the settings disagree: {'; '.join(conflicts)}.")


def _check(config: dict[str, Any], optim: OptimConfig, device: torch.device, world: int) -> None:
    zero = config["zero_optimization"]
    stage = zero["stage"]
    if optim.name == "muon":
        raise ConfigError(
            "optim.name muon needs whole matrices, which DeepSpeed cuts up: take adamw or --machine.engine ddp."
        )
    if config["fp16"].get("enabled") and device.type == "cpu":
        raise ConfigError("fp16 is refused by DeepSpeed on a CPU: take --machine.precision bf16 or float32.")
    if stage == 0 and config["bf16"].get("enabled"):
        raise ConfigError("DeepSpeed's ZeRO stage 0 in bf16 begins with a hidden empty step: take --machine.zero 1.")
    if "offload_param" in zero and stage != 3:
        raise ConfigError(f"Parameters are offloaded at ZeRO stage 3 only; machine.zero is {stage}.")
    if "offload_optimizer" in zero and stage == 0:
        raise ConfigError("ZeRO stage 0 offloads nothing; set --machine.zero 1, 2 or 3.")
    if optim.ema and zero.get("offload_optimizer", {}).get("device") == "nvme":
        raise ConfigError("optim.ema needs the weights in memory, and they lie on a disk: leave machine.nvme empty.")
    if optim.batch % (optim.accumulate * world):
        raise ConfigError(
            f"optim.batch {optim.batch} does not divide by {optim.accumulate} micro-batches on {world} ranks."
        )


def _read(path: str) -> dict[str, Any]:
    try:
        given = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"machine.deepspeed {path} cannot be read as JSON: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"machine.deepspeed {path} holds no JSON object.")
    for key in given:
        if key not in KNOWN and (near := nearest(key, KNOWN)):
            raise ConfigError(f"{path} has the setting '{key}'{near}")
    return given


KNOWN = frozenset({
    *OWNED, "optimizer", "scheduler", "fp16", "bf16", "amp", "zero_optimization", "steps_per_print",
    "wall_clock_breakdown", "flops_profiler", "activation_checkpointing",
    "communication_data_type", "prescale_gradients", "sparse_gradients",
    "gradient_predivide_factor", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "dump_state", "aio",
    "data_types", "comms_logger", "tensorboard", "wandb", "csv_monitor", "checkpoint", "memory_breakdown", "autotuning",
})  # fmt: skip
