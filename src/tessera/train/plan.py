"""How much memory a run will need, before it starts. It knows no data and no engine, only what they would hold."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tessera.config import MachineConfig, NetworkConfig, TrainConfig
from tessera.errors import ConfigError
from tessera.machine.device import choose_device, compiles, computes_bf16, keep_freed_memory, return_freed_memory
from tessera.models import saved
from tessera.nn.loss import Head
from tessera.nn.stack import Branch
from tessera.train.recompute import economise

MOMENTS = {"adam": 2, "adamw": 2, "muon": 2}
"""Numbers that an optimiser keeps for each weight; Muon keeps one for matrices, which is not subtracted."""
SAFE = 0.9
"""Share of the free memory that a plan may fill."""
CONTEXT = 0.6
"""GB of a graphics card that its own library takes."""
CARDS = (8, 11, 16, 24, 80)
ROOMY = 2.0
"""How many times a plan must fit before freed memory may lie about."""


@dataclass(frozen=True)
class Plan:
    """Bytes on one device at the worst moment of a step."""

    weights: float
    gradients: float
    optimizer: float
    """Its moments, and the mean of the weights where one is kept (`optim.ema`)."""
    working: float
    """Activations, the chunk of the loss, and what the engine gathers or sends."""
    tokenizer: float
    """Weights of the image tokenizer, where pictures are encoded in the step."""
    micro: int
    """Pictures at a time on each rank."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.working + self.tokenizer

    def __str__(self) -> str:
        parts = [f"{f.name} {size(getattr(self, f.name))}" for f in dataclasses.fields(self)[:-1]]
        return f"{size(self.total)} at {self.micro} a time: {', '.join(parts)}"


def size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


@dataclass(frozen=True)
class Share:
    """What one rank of `world` holds of the whole model's weights, gradients and optimiser state, and how many bytes of
    copies it needs beside them."""

    weights: float = 1.0
    gradients: float = 1.0
    optimizer: float = 1.0
    copies: float = 0.0
    """In units of the whole model's gradients: buckets that are sent."""


def share(machine: MachineConfig, world: int) -> Share:
    """By engine; formulas from the ZeRO paper (Rajbhandari et al. 2020, figure 1)."""
    part = 1 / world
    name = ("ddp" if world > 1 else "single") if machine.engine == "auto" else machine.engine
    if name == "deepspeed":
        cut = [part if machine.zero >= stage else 1.0 for stage in (3, 2, 1)]
        held = {"none": cut[2], "optimizer": 0.0, "parameters": 0.0}[machine.offload]
        return Share(0.0 if machine.offload == "parameters" else cut[0], cut[1], held)
    if name == "fsdp":
        return Share(part, part, part)
    return Share(copies=1.0 if name in ("ddp", "horovod") and world > 1 else 0.0)


def predict(config: TrainConfig, micro: int, world: int = 1, tokenizer: Any = None) -> Plan:
    """The peak of a step with `micro` pictures at a time; the model's config must be resolved.

    The step is run without memory (torch's fake tensors) and every storage that it would make is counted from birth to
    death, so that no formula has to follow the model. What a compiler saves, and takes for itself, does not count.
    `tokenizer` is the config of an image tokenizer that encodes in the step.
    """
    of = share(config.machine, world)
    held = held_bytes(config.model)
    low = _precision(config.machine)
    whole = config.optim.batch // world == micro
    working = _step_peak(config, micro, low, whole)
    if of.weights < 1:  # a branch is gathered before it is used, and the next one with it; no other copies are kept
        working += 2 * branch_bytes(config.model) * (low.itemsize / 4)
        working -= held / 2 if low != torch.float32 else 0.0
    encode = _encode_peak(tokenizer, micro) if tokenizer else 0.0
    return Plan(
        weights=held * of.weights,
        gradients=held * of.gradients,
        optimizer=(MOMENTS[config.optim.name] + (config.optim.ema > 0)) * held * of.optimizer,
        working=max(working, encode) + held * of.copies,
        tokenizer=held_bytes(tokenizer) if tokenizer else 0.0,
        micro=micro,
    )


def fit(config: TrainConfig, free: float, world: int = 1, tokenizer: Any = None) -> tuple[Plan, int]:
    """The plan with the fewest micro-batches that fits into `free` bytes, and how many those are; one picture at a time
    where nothing fits."""
    rows, count = config.optim.batch // world, config.optim.accumulate
    found = predict(config, rows // count, world, tokenizer)
    guess = scaled(config, world, tokenizer) if found.total > SAFE * free else None
    while found.total > SAFE * free and (more := more_parts(rows, count)):
        count = more
        if (guess and guess(rows // count).total <= SAFE * free) or not more_parts(rows, count):
            found = predict(config, rows // count, world, tokenizer)
    return found, count


def scaled(config: TrainConfig, world: int = 1, tokenizer: Any = None) -> Callable[[int], Plan]:
    """`predict` for any number of pictures from two small ones: memory grows with them in a straight line."""
    few, many = (predict(config, n, world, tokenizer) for n in (4, 8))
    slope = (many.working - few.working) / 4
    return lambda micro: dataclasses.replace(few, working=max(few.working + slope * (micro - 4), 0.0), micro=micro)


def more_parts(rows: int, parts: int) -> int:
    """The next count, at least twice as large, that divides `rows`; 0 where there is none."""
    return next((n for n in range(2 * parts, rows + 1) if rows % n == 0), 0)


def table(config: TrainConfig) -> Iterator[str]:
    """What one process needs, and what fits on cards of usual sizes, in lines."""
    guess, rows = scaled(config), config.optim.batch
    yield f"Training in one process: {guess(rows // config.optim.accumulate)}"
    for gigabytes in CARDS:
        free, parts = SAFE * (gigabytes - CONTEXT) * 1e9, config.optim.accumulate
        while guess(rows // parts).total > free and (more := more_parts(rows, parts)):
            parts = more
        found = guess(rows // parts)
        split = "whole batches" if parts == 1 else f"{parts} micro-batches of {found.micro}"
        yield f"{gigabytes:>4} GB: {f'{split}, {size(found.total)}' if found.total <= free else 'too small'}"


def settle(
    config: TrainConfig, device: torch.device, free: float, world: int = 1, tokenizer: Any = None
) -> tuple[TrainConfig, Plan]:
    """The config with as many micro-batches as `free` bytes a rank ask for, and the plan of it.

    DeepSpeed is told its micro-batches earlier, and a DVAE or CLIP sees its batch whole: those are left as they are. On
    a CPU with room for twice as much, what is freed is kept for the next step, which is faster.
    """
    fixed = config.machine.engine == "deepspeed" or not saved.class_of(config.model).splits
    if fixed:
        found, count = predict(config, config.optim.batch // config.optim.accumulate // world, world, tokenizer), 0
    else:
        found, count = fit(config, free, world, tokenizer)
    if device.type == "cpu":
        keep_freed_memory() if ROOMY * found.total < free else return_freed_memory()
    count = count or config.optim.accumulate
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=count)), found


def parameters(model: Any) -> int:
    """How many a model of these settings has; it is built without memory."""
    with torch.device("meta"):
        return saved.parameters(saved.network(model))


def assumed(model: NetworkConfig) -> tuple[NetworkConfig, str]:
    """The settings with usual values for what a run would take from its data, and a sentence about that."""
    open_ = {name: value for name, value in model.usual.items() if not getattr(model, name)}
    if not open_:
        return model, ""
    sizes = ", ".join(f"{name.replace('_', '-')} {value:,}" for name, value in open_.items())
    return dataclasses.replace(model, **open_), f"(with {sizes}, which the run would choose)"


def refuse_too_large(model: Any, free: float) -> None:
    """Raise ConfigError where the weights alone are more than there is room for, before anything is built or read."""
    count = parameters(assumed(model)[0])
    if 4 * count > free:
        raise ConfigError(
            f"The model has {count:,} parameters: {4 * count / 1e9:,.1f} GB of weights alone, and {free / 1e9:,.1f} GB "
            "are free. Take a smaller preset, or smaller model.* settings."
        )


def held_bytes(model: Any) -> float:
    """Bytes of a model's float32 weights."""
    with torch.device("meta"):
        return 4.0 * saved.parameters(saved.network(model))


def _precision(machine: MachineConfig) -> torch.dtype:
    names = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    auto = torch.bfloat16 if computes_bf16(choose_device(machine.device)) else torch.float32
    return names.get(machine.precision, auto)


def _step_peak(config: TrainConfig, micro: int, low: torch.dtype, whole: bool) -> float:
    """Bytes beyond weights and gradients at the worst moment of a forward and a backward pass."""
    with FakeTensorMode(), torch.device("cpu"):
        model: Any = saved.network(config.model).train()
        economise(model, config.machine.recompute)
        if compiles(config.machine.compile, choose_device(config.machine.device)):
            for head in (m for m in model.modules() if isinstance(m, Head)):
                head.take(_slopes_at_once)
        inputs = saved.inputs(config.model, micro)
        autocast = lambda: torch.autocast("cpu", low) if low != torch.float32 else nullcontext()
        with Tally() as tally:
            for _ in range(1 if whole else 2):  # the second micro-batch meets the gradients of the first
                with autocast():
                    loss = model(*inputs)[0]
                loss.backward()
                del loss
        held = sum(p.numel() * p.element_size() for p in model.parameters() if p.grad is not None)
    return tally.peak - held


def _slopes_at_once(logits: Tensor, targets: Tensor, share: Tensor, summed: bool) -> tuple[Tensor, Tensor, Any]:
    """What compiled slopes make."""
    return logits.new_zeros((), dtype=torch.float32), torch.empty_like(logits), logits[0].float() if summed else None


def _encode_peak(tokenizer: Any, micro: int) -> float:
    with FakeTensorMode(), torch.device("cpu"), torch.no_grad():
        model: Any = saved.network(tokenizer).eval()
        with Tally() as tally:
            model.encode(torch.zeros(micro, tokenizer.channels, tokenizer.pixels, tokenizer.pixels))
    return tally.peak


def branch_bytes(model: Any) -> float:
    """float32 bytes of the largest branch, or of the whole model where it has none."""
    with torch.device("meta"):
        network = saved.network(model)
        branches = [m for m in network.modules() if isinstance(m, Branch)]
        return 4.0 * max((saved.parameters(b) for b in branches), default=saved.parameters(network))


class Tally(TorchDispatchMode):
    """Counts the bytes of every storage that comes into being inside, and how many there were at most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0.0
        self.known: dict[int, Callable] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._see(x.untyped_storage(), before)
        return out

    def _see(self, storage: Any, before: set[int]) -> None:
        key = id(storage)
        if key in self.known or key in before:
            return
        count = storage.nbytes()
        self.known[key] = weakref.finalize(storage, self._forget, key, count)
        self.now += count
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, count: int) -> None:
        self.known.pop(key, None)
        self.now -= count
