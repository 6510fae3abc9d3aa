"""What torch.compile makes of the model gives the same numbers. In a process of its own: the shape checks of the other
tests cannot be traced."""

import os
import shutil
import subprocess
import sys

import pytest

SETUP = """
import dataclasses
import torch
from tessera.config import MachineConfig, SampleConfig, TextToImageConfig, TransformerConfig
from tessera.generate import raster
from tessera.generate.rows import put, stand_at
from tessera.generate.weights import compiled, prepare
from tessera.models.text_to_image import TextToImage
from tessera.train.engines.single import SingleEngine

MODERN = TransformerConfig(dim=32, depth=2, heads=2, head_dim=16, zero_init=False)
CLASSIC = TransformerConfig(
    dim=32, depth=2, heads=2, head_dim=12, positions="rotary_dalle1", norm="layer", qk_norm=False, ff="geglu",
    bias=True, shift=True, layer_scale=True, reversible=True, zero_init=False, patterns=("full", "axial_row"),
)
SPARSE = dataclasses.replace(MODERN, depth=4, patterns=("axial_row", "axial_col", "conv_like", "sparse"))
def prior(config):
    torch.manual_seed(0)
    return TextToImage(TextToImageConfig(text_vocab=20, text_len=5, image_vocab=11, grid=4, transformer=config))
"""

DRAWING = """
for config, kind in CASES:
    model, tokens = prepare(prior(config).eval(), kind, compile=True), torch.tensor([[3, 4, 7, 23, 24]])
    for guidance in (1.0, 2.0):
        config = SampleConfig(guidance=guidance, top_k=5)
        plain = raster.codes(model, tokens, [1], config)
        assert torch.equal(raster.codes(model, tokens, [1], config, decode=compiled(model)), plain), (kind, guidance)
"""

APART = """
torch._dynamo.config.error_on_recompile = True
tokens, codes = torch.randint(1, 20, (2, 5)), torch.randint(0, 11, (2, 16))
for config in (CLASSIC, SPARSE):
    model = prepare(prior(config).eval(), "float32", compile=True)
    decode, past = compiled(model), model.past(2)
    past.fix()
    with torch.inference_mode():
        whole = model.image_logits(tokens, codes)
        for i, n in enumerate((5, 1)):
            alone = model.past(1)
            model.prefill(tokens[i : i + 1], codes[i : i + 1, :n], alone)
            put(past, i, alone)
        for k in range(4):
            at = torch.tensor([[5 + k], [1 + k]])
            stand_at(past, at + model.layout.text)
            found = decode(codes.gather(1, at), past)[:, 0]
            assert (found - whole[[0, 1], [6 + k, 2 + k]]).abs().max() < 1e-4, k
"""

TRAINING = """
tokens, codes = torch.randint(1, 20, (4, 5)), torch.randint(0, 11, (4, 16))
for config in (MODERN, CLASSIC):
    found = {}
    for how in ("on", "off"):
        for recompute in ("on", "off"):
            model = prior(config)
            engine = SingleEngine(MachineConfig(device="cpu", precision="float32", compile=how, recompute=recompute))
            trainee = engine.add(model, lambda m: torch.optim.SGD(m.parameters(), lr=1.0), clip=1.0)
            losses = []
            for _ in range(3):
                loss = trainee.model(tokens, codes).total
                trainee.backward(loss)
                engine.step({"model": 0.1})
                losses.append(loss.item())
            found[how, recompute] = losses
    wanted = found["off", "off"]
    assert wanted[2] < wanted[0]
    for key, losses in found.items():
        assert max(abs(a - b) for a, b in zip(losses, wanted)) < 1e-5, (key, losses, wanted)
"""


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(
    "script",
    [
        pytest.param('CASES = [(CLASSIC, "int8")]' + DRAWING, id="drawing"),
        pytest.param(
            'CASES = [(CLASSIC, "float32"), (MODERN, "bf16"), (SPARSE, "float32")]' + DRAWING,
            id="drawing, all",
            marks=pytest.mark.slow,
        ),
        pytest.param(APART, id="rows at their own places", marks=pytest.mark.slow),
        pytest.param(TRAINING, id="training", marks=pytest.mark.slow),
    ],
)
def test_compiled_models_give_the_same_numbers(script):
    # A pool of compilers would be more processes that import torch, on cores that other tests have.
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, "-c", SETUP + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
