"""The DeepSpeed engine: ZeRO 0 to 3, offloading, its own JSON. Imported only when chosen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tessera.config import MachineConfig, OptimConfig
from tessera.config.merging import nearest
from tessera.errors import ConfigError, TesseraError
from tessera.nn.stack import economise
from tessera.store.state import write_state
from tessera.train.engines.group import Several
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.moments import Moments, clean, moments, set_moments
from tessera.train.sharded import read_optimizer


def load() -> Any:
    """The library, without the parts that want a compiler. Raises ConfigError where it is not installed."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError("The deepspeed engine needs DeepSpeed: pip install 'tessera[deepspeed]'.") from error
    # Its shared-memory collectives want to be compiled and may hang at it; gloo does as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class ZeRO(Several):
    """DeepSpeed's engine behind ours."""

    name = "deepspeed"
    optimizer: Any

    replicated = False

    def __init__(self, machine: MachineConfig, optim: OptimConfig):
        self.library = load()
        self.library.utils.logger.setLevel("WARNING")
        super().__init__(machine)
        self.optim, self.settings = optim, settings(machine, optim, self.world, self.dtype, self.device)
        self.stage = self.settings["zero_optimization"]["stage"]
        self.last, self.begun, self.spoiled = True, False, False

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> None:
        config: Any = model.config
        self.network_config = config
        self.bare = model.to(self.device).train()
        economise(model, self.machine.recompute)
        optimizer = make_optimizer(model)
        # The library has its own group settings; ours change per step and are written into its groups.
        self.engine, self.optimizer, *_ = self.library.initialize(
            model=model, optimizer=optimizer, config=self.settings, dist_init_required=False
        )
        self.model = self.engine
        self.base = getattr(self.optimizer, "optimizer", self.optimizer)
        self.names = [(clean(n), p) for n, p in model.named_parameters() if p.requires_grad]
        for memory in self.base.state.values():  # stage 3 tries a step without gradients to make room
            if "step" in memory:
                memory["step"] = memory["step"] * 0

    def micro(self, last: bool) -> AbstractContextManager:
        self.last = last
        return nullcontext()  # precision is the library's matter

    def backward(self, loss: Tensor) -> None:
        if not self.mean(loss).isfinite():  # on any rank: its optimiser would take the step
            self.spoiled = True
        if self.spoiled:
            return
        self.begun = True
        self.engine.backward(loss, scale_wrt_gas=False)
        if self.stage == 0 and self.last:
            self.norm = torch.nn.utils.clip_grad_norm_(self.bare.parameters(), self.optim.clip or float("inf"))
        if not self.last:
            self.engine.step()  # counts the micro-batch

    def step(self, max_norm: float, rate: float) -> Tensor:
        if self.spoiled:
            if self.begun:
                raise TesseraError(
                    "The loss became not finite in the middle of accumulated micro-batches, which DeepSpeed cannot "
                    "take back. The last checkpoint is good; go on from it with the same command, or with another seed."
                )
            self.spoiled = False
            return torch.tensor(float("nan"))
        self.begun = False
        for group in self.base.param_groups:
            group["lr"] = rate
        self.engine.step()
        norm = self.norm if self.stage == 0 else self.engine.get_global_grad_norm()
        return torch.as_tensor(norm if norm is not None else 0.0, dtype=torch.float32).cpu()

    def redo(self) -> bool:
        return False  # the library has counted the micro-batch already

    def reader(self) -> nn.Module:
        if self.stage < 3 and self.dtype == torch.float32:
            return self.bare
        return self.whole_copy(self.network_config)

    def weights(self) -> dict[str, Tensor]:
        """In float32, whatever training computes in."""
        from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]

        found = {}  # parameters alone: no model of ours keeps a buffer
        for name, p in self.names:
            full = safe_get_full_fp32_param(p) if self.stage else p
            if self.rank == 0:
                assert full is not None
                found[name] = full.detach().reshape(getattr(p, "ds_shape", p.shape)).float().cpu().clone()
        return found

    def save(self, folder: Path) -> Callable[[], None]:
        """Whole, by name, so that every engine can go on from it."""
        kept = moments(self.optimizer, self.bare) if self.stage == 0 else self._moments()
        if self.rank == 0:
            write_state(folder, {"moments": kept, "scaler": {}})
        return lambda: None

    def restore(self, checkpoint: Path) -> None:
        kept: Moments = read_optimizer(checkpoint / "optimizer")["moments"]
        if self.stage == 0:
            set_moments(self.optimizer, self.bare, kept)
        elif kept:
            self._set_moments(kept)

    def _flat(self) -> list[Tensor]:
        """The flat float32 tensors, of this rank, that the inner optimiser works on."""
        if self.stage == 3:
            return self.optimizer.fp32_partitioned_groups_flat
        return self.optimizer.single_partition_of_fp32_groups

    def _link(self) -> None:
        """The library ties parameters to their moments after the first group's first step, when the other groups have
        none yet; so it is done again."""
        self.optimizer._hp_optimizer_states_linked = False
        self.optimizer._lazy_init_hp_params_optimizer_state()

    def _moments(self) -> Moments:
        from deepspeed.utils import safe_get_full_optimizer_state  # type: ignore[import-not-found]

        memory = next((self.base.state[p] for p in self._flat() if self.base.state.get(p)), None)
        if memory is None or float(memory["step"]) == 0:
            return {}
        if self.stage < 3:
            self._link()
        step = torch.as_tensor(float(memory["step"]))
        found: Moments = {}
        for name, p in self.names:
            parts = {k: safe_get_full_optimizer_state(p, k) for k in ("exp_avg", "exp_avg_sq")}
            if self.rank == 0:
                shape = getattr(p, "ds_shape", p.shape)
                found[name] = {
                    "step": step.clone(),
                    **{k: v.reshape(shape).cpu().clone() for k, v in parts.items() if v is not None},
                }
        return found

    def _set_moments(self, kept: Moments) -> None:
        step = next(iter(kept.values()))["step"]
        for flat in self._flat():
            memory = self.base.state[flat]
            for key in ("exp_avg", "exp_avg_sq"):
                memory.setdefault(key, torch.zeros_like(flat))
            memory["step"] = step.clone()
        if self.stage < 3:
            from deepspeed.utils import safe_set_full_optimizer_state  # type: ignore[import-not-found]

            self._link()
            for name, p in self.names:
                for key in ("exp_avg", "exp_avg_sq"):
                    safe_set_full_optimizer_state(p, kept[name][key].to(self.device), key)
        else:
            for name, p in self.names:
                for key in ("exp_avg", "exp_avg_sq"):
                    self._set_part(p, kept[name][key], key)

    def _set_part(self, p: Any, value: Tensor, key: str) -> None:
        """This rank's part of a moment, the last one padded (the library's own setter wants even parts)."""
        part, group = self.optimizer._get_fp32_opt_state_partition(p, release_swap_buffers=False, optim_state_key=key)
        size = part.numel()
        flat = nn.functional.pad(value.flatten(), (0, size * self.world - value.numel()))
        part.data.copy_(flat[self.rank * size : (self.rank + 1) * size])
        if self.optimizer._swappable_optimizer_subgroup(group):
            self.optimizer._optimizer_states_and_gradient_swap_out(group)


# Its settings.

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
    conflicts = [
        f"{key} is {given[key]} there and {value} by {OWNED[key]}"
        for key, value in ours.items()
        if given.get(key, "auto") not in ("auto", value)
    ]
    for key in ("optimizer", "scheduler"):
        if key in given:
            conflicts.append(f"'{key}' stands there, and ours are --optim.name, --optim.lr and --optim.schedule")
    if conflicts:
        raise ConfigError(f"{machine.deepspeed} and the settings disagree: {'; '.join(conflicts)}.")
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
