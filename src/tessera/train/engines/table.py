"""Which engine a run gets. It knows the names of all and loads only the one."""

from __future__ import annotations

from collections.abc import Callable

from tessera.config import TrainConfig
from tessera.errors import ConfigError
from tessera.machine.launch import launched
from tessera.train.engines.protocol import Engine
from tessera.train.engines.single import SingleEngine


def choose(config: TrainConfig) -> Engine:
    """The engine that the settings ask for; `auto` is DDP where a launcher started several processes, else single.

    Raises ConfigError for combinations that cannot work, before anything expensive.
    """
    world, name = launched(), config.machine.engine
    if name == "auto":
        name = "ddp" if world > 1 else "single"
    if name == "single" and world > 1:
        raise ConfigError(
            f"machine.engine is single, but a launcher started {world} processes; take ddp, fsdp or deepspeed."
        )
    if config.optim.batch % (config.optim.accumulate * world):
        raise ConfigError(
            f"optim.batch is {config.optim.batch}: it counts all ranks, and must divide by {world} ranks x "
            f"{config.optim.accumulate} micro-batches."
        )
    if name in ("fsdp", "deepspeed") and (name == "fsdp" or config.machine.zero >= 2):
        from tessera.train.engines.group import runs_layers_again

        if runs_layers_again(config.model):
            raise ConfigError(
                f"Shared layers in reversible wiring give their gradients several times a step, which {name} cannot "
                "cut up: take --machine.engine ddp, or --machine.zero 1, or a model that is not both."
            )
    return ENGINES[name](config)


def _ddp(config: TrainConfig) -> Engine:
    from tessera.train.engines.ddp import DDPEngine

    return DDPEngine(config.machine)


def _fsdp(config: TrainConfig) -> Engine:
    from tessera.train.engines.fsdp import FSDPEngine

    if config.optim.name == "muon":
        raise ConfigError(
            "optim.name muon works on whole matrices, which FSDP cuts up: take adamw, or --machine.engine ddp."
        )
    if config.machine.precision == "fp16":
        raise ConfigError("fsdp computes in bf16 or float32; set --machine.precision.")
    return FSDPEngine(config.machine)


def _deepspeed(config: TrainConfig) -> Engine:
    from tessera.train.engines.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(config.machine, config.optim)


def _horovod(config: TrainConfig) -> Engine:
    from tessera.train.engines.horovod import HorovodEngine

    return HorovodEngine(config.machine)


ENGINES: dict[str, Callable[[TrainConfig], Engine]] = {
    "single": lambda config: SingleEngine(config.machine, adapts=bool(config.budget)),
    "ddp": _ddp,
    "fsdp": _fsdp,
    "deepspeed": _deepspeed,
    "horovod": _horovod,
}
