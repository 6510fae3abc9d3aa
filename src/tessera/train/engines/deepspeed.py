"""The DeepSpeed engine: ZeRO 0 to 3, and offloading. Imported only when chosen."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tessera.config import MachineConfig, OptimConfig
from tessera.errors import ConfigError, TesseraError, install
from tessera.store.state import write_state
from tessera.train.engines.deepspeed_settings import settings
from tessera.train.engines.group import ProcessGroupEngine, whole_copy
from tessera.train.engines.protocol import MakeOptimizer
from tessera.train.engines.single import SingleTrainee
from tessera.train.moments import Moments, clean, moments, set_moments
from tessera.train.sharded import read_optimizer


def load() -> Any:
    """The library, without the parts that want a compiler. Raises ConfigError where it is not installed."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(f"The deepspeed engine needs DeepSpeed: {install('deepspeed')}.") from error
    # Its shared-memory collectives want to be compiled and may hang at it; gloo does as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class DeepSpeedTrainee(SingleTrainee):
    """A network with a DeepSpeed engine of its own behind it."""

    memory_format = torch.preserve_format
    optimizer: Any

    def prepare(self, make_optimizer: MakeOptimizer) -> None:
        self.stage, self.last = self.engine.stage, True
        before = {} if self.engine.dtype == torch.float32 else copy.deepcopy(self.bare.state_dict())
        clip = 0.0 if self.stage == 0 or math.isinf(self.clip) else self.clip
        # The library has its own group settings; ours change per step and are written into its groups.
        self.theirs, self.optimizer, *_ = self.engine.library.initialize(
            model=self.bare, optimizer=make_optimizer(self.bare), dist_init_required=False,
            config=copy.deepcopy(self.engine.settings) | {"gradient_clipping": clip},
        )  # fmt: skip
        self.model = self.theirs
        self.base = getattr(self.optimizer, "optimizer", self.optimizer)
        self.names = [(clean(n), p) for n, p in self.bare.named_parameters() if p.requires_grad]
        for memory in self.base.state.values():  # stage 3 tries a step without gradients to make room
            if "step" in memory:
                memory["step"] = memory["step"] * 0
        if self.stage:  # `norm` looks for numbers that are not finite, once for all networks
            self.optimizer.check_grad_overflow, self.optimizer.check_overflow = True, lambda *_, **__: None
        if before:  # its float32 weights were made of those in low precision
            self.load(before)

    def masters(self) -> list[Tensor]:
        """The flat float32 tensors, of this rank, that the inner optimiser works on."""
        if self.stage == 0:
            return super().masters()
        if self.stage == 3:
            return self.optimizer.fp32_partitioned_groups_flat
        return self.optimizer.single_partition_of_fp32_groups

    def micro(self, last: bool) -> AbstractContextManager:
        self.last = last
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.theirs.backward(loss, scale_wrt_gas=False)
        if not self.last:
            self.theirs.step()  # counts the micro-batch

    def norm(self) -> Tensor:
        if self.stage == 0:
            return torch.nn.utils.clip_grad_norm_(self.bare.parameters(), self.clip)
        self.norms = self._group_norms()
        return _combined(self.norms) / self.optimizer.loss_scale

    def apply(self, rate: float) -> None:
        for group in self.base.param_groups:
            group["lr"] = rate
        self._step(self.norms if self.stage else [])
        self.average.update()

    def discard(self) -> None:
        """By the library's own way of leaving out a step whose numbers overflow."""
        if self.stage == 0:
            self.theirs.zero_grad()
        self._step([torch.tensor(-1.0)])
        if self.stage and self.theirs.was_step_applied():
            raise TesseraError(
                "A gradient is not finite, and this release of DeepSpeed took the step all the same. The last "
                "checkpoint is good; go on from it with the same command and DeepSpeed 0.19 or newer."
            )

    def _group_norms(self) -> list[Tensor]:
        """As the library takes them; -1 where one is not finite."""
        zero = self.optimizer
        if self.stage == 3:
            return type(zero)._get_norm_groups(zero)
        if zero.cpu_offload:
            getattr(zero, "_wait_for_offload_copies", lambda: None)()
            return [zero.complete_grad_norm_calculation_for_cpu_offload(part) for part in zero.params_in_partition]
        parts = enumerate(zero.params_in_partition)
        return [zero.get_grad_norm_direct(zero.averaged_gradients[i], part) for i, part in parts]

    def _step(self, norms: list[Tensor]) -> None:
        """The library's step, which finds the norms that `_group_norms` has taken already."""
        self.optimizer._get_norm_groups = lambda: norms
        self.optimizer.scaled_global_norm = lambda: _combined(norms)
        self.theirs.step()

    def follow(self) -> None:
        if self.stage in (1, 2):
            self.optimizer.update_lp_params()
        elif self.stage == 3:
            self.optimizer._partition_all_parameters()
            for group in range(len(self.optimizer.fp16_groups)):
                self.optimizer._reassign_or_swap_out_partitioned_parameters(group)
            if small := self.optimizer.persistent_parameters:  # these stay whole on every rank
                small[0].all_gather(small)

    def reader(self) -> nn.Module:
        if self.stage < 3 and self.engine.dtype == torch.float32:
            return self.bare
        return whole_copy(self)

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]

        found = {}  # parameters alone: no model of ours keeps a buffer
        for name, p in self.names:
            full = safe_get_full_fp32_param(p) if self.stage else p
            if self.engine.rank == 0:
                assert full is not None
                found[name] = full.detach().reshape(getattr(p, "ds_shape", p.shape)).float().cpu().clone()
        return found

    def load(self, weights: Mapping[str, Tensor]) -> None:
        if self.stage == 0:
            self.bare.load_state_dict(weights, strict=False)
            return
        for name, p in self.names:
            self._set(p, weights[name], None)
        self.follow()

    def save(self, folder: Path) -> Future | None:
        """Whole, by name, so that every engine can go on from it."""
        kept = moments(self.optimizer, self.bare) if self.stage == 0 else self._moments()
        if self.engine.rank == 0:
            write_state(folder, {"moments": kept, "scaler": {}})

    def restore(self, folder: Path) -> None:
        kept: Moments = read_optimizer(folder)["moments"]
        if self.stage == 0:
            set_moments(self.optimizer, self.bare, kept)
        elif kept:
            self._set_moments(kept)

    def _link(self) -> None:
        """The library ties parameters to their moments after the first group's first step, when the other groups have
        none yet; so it is done again."""
        self.optimizer._hp_optimizer_states_linked = False
        self.optimizer._lazy_init_hp_params_optimizer_state()

    def _moments(self) -> Moments:
        from deepspeed.utils import safe_get_full_optimizer_state  # type: ignore[import-not-found]

        memory = next((self.base.state[p] for p in self.masters() if self.base.state.get(p)), None)
        if memory is None or float(memory["step"]) == 0:
            return {}
        if self.stage < 3:
            self._link()
        step = torch.as_tensor(float(memory["step"]))
        found: Moments = {}
        for name, p in self.names:
            parts = {k: safe_get_full_optimizer_state(p, k) for k in ("exp_avg", "exp_avg_sq")}
            if self.engine.rank == 0:
                shape = getattr(p, "ds_shape", p.shape)
                found[name] = {
                    "step": step.clone(),
                    **{k: v.reshape(shape).cpu().clone() for k, v in parts.items() if v is not None},
                }
        return found

    def _set_moments(self, kept: Moments) -> None:
        step = next(iter(kept.values()))["step"]
        for flat in self.masters():
            memory = self.base.state[flat]
            for key in ("exp_avg", "exp_avg_sq"):
                memory.setdefault(key, torch.zeros_like(flat))
            memory["step"] = step.clone()
        if self.stage < 3:
            self._link()
        for name, p in self.names:
            for key in ("exp_avg", "exp_avg_sq"):
                self._set(p, kept[name][key], key)

    def _set(self, p: Any, value: Tensor, key: str | None) -> None:
        """This rank's part of a moment, or of the float32 weights where there is no key. Stage 3 pads the last part,
        which the library's own setter does not."""
        if self.stage < 3:
            p.set_full_hp_param(value.to(self.engine.device), key)
            return
        part, group = self.optimizer._get_fp32_opt_state_partition(p, release_swap_buffers=False, optim_state_key=key)
        size, rank = part.numel(), self.engine.rank
        flat = nn.functional.pad(value.flatten(), (0, size * self.engine.world - value.numel()))
        part.data.copy_(flat[rank * size : (rank + 1) * size])
        if self.optimizer._swappable_optimizer_subgroup(group):
            self.optimizer._optimizer_states_and_gradient_swap_out(group)


def _combined(norms: list[Tensor]) -> Tensor:
    """One norm of those of several groups; NaN where one of them is negative, the library's sign for not finite."""
    each = torch.stack([norm.float() for norm in norms])
    return torch.linalg.vector_norm(torch.where(each < 0, torch.nan, each))


class DeepSpeedEngine(ProcessGroupEngine):
    """DeepSpeed's engines, one for each network, behind ours."""

    name = "deepspeed"
    replicated = False
    trainee = DeepSpeedTrainee

    def __init__(self, machine: MachineConfig, optim: OptimConfig):
        self.library = load()
        self.library.utils.logger.setLevel("WARNING")
        super().__init__(machine)
        self.settings = settings(machine, optim, self.world, self.dtype, self.device)
        self.stage: int = self.settings["zero_optimization"]["stage"]

    def autocast(self) -> AbstractContextManager:
        return nullcontext()  # precision is the library's matter

    def redo(self) -> bool:
        return False  # the library has counted the micro-batch already
