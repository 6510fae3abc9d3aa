"""DALLE-pytorch's distributed backends on top of our engines: the calls of its training scripts, on any machine.

Without a GPU, `initialize` makes `.cuda()` in an old script leave tensors and models where they are.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from typing import Any

import torch
from torch import Tensor, nn

from tessera.config import MachineConfig
from tessera.errors import ConfigError
from tessera.train.engines import deepspeed, horovod
from tessera.train.engines import group as distributed

Wrapped = tuple[Any, Any, Any, Any]
"""(model, optimizer, data, schedule)."""


class DistributedBackend:
    """What a training script calls on a backend. Raises ConfigError if it is used before `initialize`."""

    BACKEND_MODULE_NAME = ""
    BACKEND_NAME = ""
    ROOT_RANK = 0

    backend_module: Any = None
    is_initialized = False

    def has_backend(self) -> bool:
        return True

    def check_batch_size(self, batch_size: int) -> None:
        if batch_size < self.get_world_size():
            raise ConfigError(
                f"batch size can't be smaller than number of processes ({batch_size} < {self.get_world_size()})"
            )

    def wrap_arg_parser(self, parser: ArgumentParser) -> ArgumentParser:
        return parser

    def initialize(self) -> None:
        self._initialize()
        self.is_initialized = True
        if not torch.cuda.is_available():
            stay_on_the_cpu()

    def _initialize(self) -> None: ...

    def require_init(self) -> None:
        if not self.is_initialized:
            raise ConfigError(f"{self.BACKEND_NAME} backend has not been initialized; call its initialize() first.")

    def get_world_size(self) -> int:
        self.require_init()
        return self._get_world_size()

    def get_rank(self) -> int:
        self.require_init()
        return self._get_rank()

    def get_local_rank(self) -> int:
        self.require_init()
        return self._get_local_rank()

    def is_root_worker(self) -> bool:
        return self.get_rank() == self.ROOT_RANK

    def is_local_root_worker(self) -> bool:
        return self.get_local_rank() == self.ROOT_RANK

    def local_barrier(self) -> None:
        self.require_init()
        self._local_barrier()

    def distribute(self, args: object = None, model: nn.Module | None = None, optimizer: object = None,
                   model_parameters: object = None, training_data: object = None, lr_scheduler: object = None,
                   **kwargs: object) -> Wrapped:  # fmt: skip
        """(model, optimizer, data, schedule), wrapped as the backend needs them."""
        self.require_init()
        return self._distribute(args, model, optimizer, model_parameters, training_data, lr_scheduler, **kwargs)

    def average_all(self, tensor: Tensor) -> Tensor:
        """The mean over all processes; the argument is not changed."""
        self.require_init()
        return self._average_all(tensor.detach().clone())

    def _get_world_size(self) -> int:
        return 1

    def _get_rank(self) -> int:
        return self.ROOT_RANK

    def _get_local_rank(self) -> int:
        return self.ROOT_RANK

    def _local_barrier(self) -> None: ...

    def _distribute(self, args: object, model: nn.Module | None, optimizer: object, model_parameters: object,
                    training_data: object, lr_scheduler: object, **kwargs: object) -> Wrapped:  # fmt: skip
        return model, optimizer, training_data, lr_scheduler

    def _average_all(self, tensor: Tensor) -> Tensor:
        return tensor


class DummyBackend(DistributedBackend):
    """One process; everything is returned unchanged."""

    BACKEND_MODULE_NAME = "NO MODULE"
    BACKEND_NAME = "Dummy"


class DeepSpeedBackend(DistributedBackend):
    """DeepSpeed's engine: backward and step are its methods."""

    BACKEND_MODULE_NAME = "deepspeed"
    BACKEND_NAME = "DeepSpeed"

    def has_backend(self) -> bool:
        try:
            self.backend_module = deepspeed.load()
        except ConfigError:
            return False
        return True

    def wrap_arg_parser(self, parser: ArgumentParser) -> ArgumentParser:
        if self.has_backend():
            parser = self.backend_module.add_config_arguments(parser)
        else:
            parser.add_argument("--deepspeed", type=lambda _: False, help="ignored, since DeepSpeed is not installed")
        parser.add_argument("--local_rank", type=int, default=-1, help="local rank passed from distributed launcher")
        return parser

    def _initialize(self) -> None:
        self.backend_module = deepspeed.load()
        distributed.join(MachineConfig())
        self.backend_module.init_distributed(
            dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False
        )

    def _get_world_size(self) -> int:
        return torch.distributed.get_world_size()

    def _get_rank(self) -> int:
        return torch.distributed.get_rank()

    def _get_local_rank(self) -> int:
        return int(os.environ.get("LOCAL_RANK", 0))

    def _local_barrier(self) -> None:
        torch.distributed.barrier()

    def _distribute(self, args: object, model: nn.Module | None, optimizer: object, model_parameters: object,
                    training_data: object, lr_scheduler: object, **kwargs: object) -> Wrapped:  # fmt: skip
        config = (
            kwargs.pop("config_params", None) or kwargs.pop("config", None) or getattr(args, "deepspeed_config", None)
        )
        if isinstance(config, dict):
            for key in ("optimizer", "scheduler"):
                if key in config:
                    print(f"WARNING: DeepSpeed's config names its own {key}; it takes precedence.")
            optimizer = None if "optimizer" in config else optimizer
            lr_scheduler = None if "scheduler" in config else lr_scheduler
            config = {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, **config}
            config = {k: v for k, v in config.items() if k != "amp" or v.get("enabled")}
        made = self.backend_module.initialize(
            model=model, optimizer=optimizer, model_parameters=model_parameters, training_data=training_data,
            lr_scheduler=lr_scheduler, config=config, dist_init_required=False, **kwargs,
        )  # fmt: skip
        for p in getattr(model, "used_elsewhere", list)():
            if hasattr(p, "ds_id"):  # sharded by ZeRO 3, and used outside of the module that owns it
                self.backend_module.zero.register_external_parameter(model, p)
        return made

    def _average_all(self, tensor: Tensor) -> Tensor:
        torch.distributed.all_reduce(tensor)
        return tensor / self.get_world_size()


class HorovodBackend(DistributedBackend):
    """Horovod, where it is installed."""

    BACKEND_MODULE_NAME = "horovod.torch"
    BACKEND_NAME = "Horovod"

    def has_backend(self) -> bool:
        try:
            self.backend_module = horovod.load()
        except ConfigError:
            return False
        return True

    def check_batch_size(self, batch_size: int) -> None:
        """Horovod counts the batch of each process."""

    def _initialize(self) -> None:
        self.backend_module = horovod.load()
        self.backend_module.init()

    def _get_world_size(self) -> int:
        return self.backend_module.size()

    def _get_rank(self) -> int:
        return self.backend_module.rank()

    def _get_local_rank(self) -> int:
        return self.backend_module.local_rank()

    def _local_barrier(self) -> None:
        self.backend_module.join()

    def _distribute(self, args: object, model: nn.Module | None, optimizer: object, model_parameters: object,
                    training_data: object, lr_scheduler: object, **kwargs: object) -> Wrapped:  # fmt: skip
        assert model is not None
        self.backend_module.broadcast_parameters(model.state_dict(), root_rank=self.ROOT_RANK)
        self.backend_module.broadcast_optimizer_state(optimizer, root_rank=self.ROOT_RANK)
        return model, self.backend_module.DistributedOptimizer(optimizer), training_data, lr_scheduler

    def _average_all(self, tensor: Tensor) -> Tensor:
        return self.backend_module.allreduce(tensor)


_DEFAULT_BACKEND = DummyBackend()
BACKENDS: list[DistributedBackend] = [_DEFAULT_BACKEND, DeepSpeedBackend(), HorovodBackend()]

is_distributed: bool | None = None
backend: DistributedBackend | None = None


def wrap_arg_parser(parser: ArgumentParser) -> ArgumentParser:
    """Add --distributed_backend and the backends' own arguments."""
    parser.add_argument("--distributed_backend", "--distr_backend", type=str, default=None,
                        help="which distributed backend to use. Do not distribute by default")  # fmt: skip
    for one in BACKENDS:
        parser = one.wrap_arg_parser(parser)
    return parser


def set_backend_from_args(args: Namespace) -> DistributedBackend:
    """Choose and return the backend that the arguments name."""
    global is_distributed, backend
    if getattr(args, "deepspeed", False):
        args.distributed_backend = DeepSpeedBackend.BACKEND_NAME
    if not args.distributed_backend:
        is_distributed, backend = False, _DEFAULT_BACKEND
        return backend
    for one in BACKENDS:
        if one.BACKEND_NAME.lower() == args.distributed_backend.lower():
            if not one.has_backend():
                raise ModuleNotFoundError(f"{one.BACKEND_NAME} backend selected but module not available")
            print(f"Using {one.BACKEND_NAME} for distributed execution")
            is_distributed, backend = True, one
            return one
    raise ValueError(
        f"unknown backend {args.distributed_backend}; known: {', '.join(b.BACKEND_NAME for b in BACKENDS)}"
    )


def require_set_backend() -> None:
    if backend is None:
        raise ConfigError("No backend is set; call distributed_utils.set_backend_from_args at the start of the script.")


def using_backend(test_backend: str | type) -> bool:
    """Whether the backend is that of a name or class."""
    require_set_backend()
    if isinstance(test_backend, str):
        return backend is not None and test_backend == backend.BACKEND_NAME
    return isinstance(backend, test_backend)


def stay_on_the_cpu() -> None:
    """Make `.cuda()` return what it is called on: old scripts call it, and there is no GPU here."""
    stay = lambda self, *args, **kwargs: self
    torch.Tensor.cuda = stay  # type: ignore[method-assign]
    nn.Module.cuda = stay  # type: ignore[method-assign]
