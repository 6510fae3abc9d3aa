"""What do fewer bits change? Held-out loss while training in float32 and in bf16, from the same seed; then the trained
prior's held-out loss, and its pictures, with weights of 32, 16 and 8 bits."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from common import row
from tessera.cli import main as tessera
from tessera.config import SampleConfig
from tessera.generate import raster
from tessera.generate.weights import KINDS, prepare
from tessera.journeys import birds
from tessera.models import saved
from tessera.store.run import Run
from tessera.train.job import build

STEPS = 200


def pictures(folder: Path) -> None:
    """Drawn birds, an image tokenizer for them and their codes."""
    birds.draw_folder(folder / "birds", 1500, pixels=64, seed=0)
    tessera(["train", "dvae-xs-64", "--out", str(folder / "vae"), "--steps", "200", "--valid-every", "0", "--optim.lr",
             "2e-3", *quiet(folder)])  # fmt: skip
    tessera(["data", "encode", str(folder / "birds"), str(folder / "codes"), "--tokens", str(folder / "vae"),
             "--views", "1"])  # fmt: skip


def trained(folder: Path, precision: str) -> Run:
    """A prior for them."""
    tessera(["train", "t2i-xs-64", "--out", str(folder / precision), "--data.codes", str(folder / "codes"),
             "--tokens.image", str(folder / "vae"), "--steps", str(STEPS), "--valid-every", "25", "--optim.lr", "6e-3",
             "--machine.precision", precision, *quiet(folder)])  # fmt: skip
    return Run(folder / precision)


def quiet(folder: Path) -> list[str]:
    return ["--data.path", str(folder / "birds"), "--preview-every", "0", "--data.crop", "1", "--data.workers", "0",
            "--save-every", str(STEPS)]  # fmt: skip


def main(folder: Path) -> None:
    pictures(folder)
    curves = {}
    for precision in ("float32", "bf16"):
        run = trained(folder, precision)
        curves[precision] = {r["step"]: round(r["held_loss"], 4) for r in run.read_metrics() if "held_loss" in r}
    row("curves", configuration="held-out nats per code, by step", float32=curves["float32"], bf16=curves["bf16"],
        largest_difference=max(abs(curves["bf16"][s] - v) for s, v in curves["float32"].items()))  # fmt: skip
    bits(Run(folder / "float32"))


@torch.no_grad()
def bits(run: Run) -> None:
    objective = build(run.config())
    pairs = [(b.tokens, b.codes) for b, _ in objective.held_batches()]
    tokens, codes = (torch.cat(part)[:64] for part in zip(*pairs, strict=True))
    drawn, exact = {}, torch.empty(0)
    for kind in KINDS:
        model = prepare(saved.read(run.best()).eval(), kind)
        with torch.inference_mode():
            logp = model.image_logits(tokens, codes).log_softmax(-1)
        exact = exact if len(exact) else logp
        drawn[kind] = raster.codes(model, tokens[:32], range(32), SampleConfig(guidance=2.0))
        same = (drawn[kind] == drawn["float32"]).float()
        row("bits", configuration=f"weights {kind}", held_out=-float(logp.gather(-1, codes[..., None]).mean()),
            kl_to_float32=float((exact.exp() * (exact - logp)).sum(-1).mean()),
            equal_codes=float(same.mean()), equal_pictures=float(same.amin(1).mean()))  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(place))
