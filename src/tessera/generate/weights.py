"""Weights for drawing: packed for the processor, in float32, bf16 or int8. It does not know prompts."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tessera.errors import ConfigError
from tessera.generate.raster import Decode
from tessera.machine.paths import has
from tessera.models.text_to_image import TextToImage
from tessera.nn.cache import Past
from tessera.nn.loss import Head

Product = Callable[[Tensor], Tensor]
"""[*B, K] -> [*B, N]: what a linear map does."""


class Packed(nn.Module):
    """A linear map whose matrix oneDNN has packed into tiles: on a CPU, eight rows take as long as one."""

    def __init__(self, weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.outputs = dtype, len(weight)
        tiles = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype).contiguous(), None)
        self.tiles = tiles, None if bias is None else bias.detach().to(dtype)
        self.name = id(self)
        PACKED[self.name] = self

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        rows = x.to(self.dtype)
        y = packed(rows, self.name, self.outputs) if torch.compiler.is_compiling() else self.times(rows)
        return y.to(x.dtype)

    def times(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, *self.tiles, "none", [], "")


PACKED: WeakValueDictionary[int, Packed] = WeakValueDictionary()


@torch.library.custom_op("tessera::packed", mutates_args=())
def packed(x: Tensor, name: int, outputs: int) -> Tensor:
    """A Packed product for torch.compile, which cannot hold a packed matrix and so gets its name."""
    return PACKED[name].times(x)


@packed.register_fake
def _(x: Tensor, name: int, outputs: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], outputs)


class Int8(nn.Module):
    """A linear map with weights in -127 ... 127 and a scale for each output; inputs are rounded to bf16."""

    def __init__(self, weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None):
        super().__init__()
        weight = weight.detach()
        scale = weight.abs().amax(1).clamp(min=1e-12).div(127).bfloat16()
        self.scale, self.bias = scale, None if bias is None else bias.detach()
        self.levels = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        rows = x.flatten(0, -2).bfloat16()
        if rows.device.type == "cpu":
            y = torch._weight_int8pack_mm(rows, self.levels, self.scale)
        else:
            y = F.linear(rows, self.levels.bfloat16()) * self.scale  # a compiler fuses the two
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


class Plain(nn.Module):
    """A linear map with weights of the given type."""

    def __init__(self, weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None, dtype: torch.dtype):
        super().__init__()
        self.weight, self.bias = weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class Streamed(nn.Module):
    """Another linear map, except that torch.compile multiplies a single row in a loop of its own: a library's product
    of a matrix and one row does not use the memory's whole bandwidth."""

    def __init__(self, several: nn.Module, weight: Float[Tensor, "N K"], scale: Tensor | None, bias: Tensor | None):
        super().__init__()
        self.several = several
        self.weight, self.scale = weight, None if scale is None else scale.float()
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        if not torch.compiler.is_compiling() or x.numel() > x.shape[-1]:
            return self.several(x)
        y = (self.weight.float() * x.flatten().float()).sum(-1)
        y = y if self.scale is None else y * self.scale
        y = y if self.bias is None else y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], -1)


def product(weight: Tensor, bias: Tensor | None, kind: str, compile: bool) -> Product:
    """The fastest linear map of this kind on the device. int8 becomes bf16 where a row is not a multiple of 16, which
    torch's kernel does not check; a CPU without a fast path gets the same weights in float32."""
    on_cpu = weight.device.type == "cpu"
    if kind == "int8" and weight.shape[1] % 16 == 0:
        levels = Int8(weight, bias)
        if on_cpu and not has("int8"):
            return product(levels.levels.float() * levels.scale.float()[:, None], bias, "float32", compile)
        return Streamed(levels, levels.levels, levels.scale, bias) if compile else levels
    if kind != "float32" and on_cpu and not has("packed_bf16"):
        return product(weight.detach().bfloat16().float(), bias, "float32", compile)
    dtype = torch.float32 if kind == "float32" else torch.bfloat16
    if on_cpu and has(PACKS[dtype]):
        tiled = Packed(weight, bias, dtype)
        return Streamed(tiled, weight.detach().to(dtype), None, bias) if compile else tiled
    plain = Plain(weight, bias, dtype)
    return Streamed(plain, plain.weight, None, bias) if compile else plain


PACKS = {torch.float32: "packed_float32", torch.bfloat16: "packed_bf16"}
"""The fast path that packs matrices of a type."""
KINDS = ("float32", "bf16", "int8")


def prepare(model: nn.Module, kind: str = "float32", compile: bool = False) -> nn.Module:
    """Replace every linear map of `model` by one for drawing, in place; the model can no longer be trained or saved.

    float32 gives the same pictures up to the order of sums; bf16 and int8 read a half and a quarter of the bytes, and
    `docs/LOG.md` says what they change. With `compile`, a CPU holds the weights twice, except for int8. Raises
    ConfigError for another kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"weights is '{kind}'; known: {', '.join(KINDS)}.")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, product(child.weight, child.bias, kind, compile))
        if isinstance(module, Head):
            module.product = product(module.weight, module.bias, kind, compile)
            module.weight = nn.Parameter(module.weight.new_empty(0, module.weight.shape[1]), requires_grad=False)
    return model


def compiled(model: TextToImage) -> Decode:
    """`model.decode` compiled for one shape; on CUDA its kernels are recorded once and replayed as a graph.

    The model must be `prepare`d with `compile`, and must not change afterwards: that is not checked.
    """

    def decode(codes: Tensor, past: Past) -> Tensor:
        return model.decode(codes, past)

    decode.__code__ = decode.__code__.replace()  # the compiler caches by code object: this model gets its own
    cuda = torch.cuda.is_available()
    # Compute the input of a product once, not again for each row of the matrix, as the compiler would.
    before = {"realize_reads_threshold": 1, "realize_opcount_threshold": 1}
    unchanged = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    graphs = {"triton.cudagraphs": cuda, "coordinate_descent_tuning": cuda}
    return torch.compile(decode, fullgraph=True, dynamic=False, options={**before, **unchanged, **graphs})
