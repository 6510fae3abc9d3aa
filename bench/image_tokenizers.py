"""What does an image tokenizer keep of a subject after so many seconds of one core? Each variant trains as `tessera
train` does, on a clock that counts this process's CPU seconds, and is judged on photographs that it never saw.

    python bench/image_tokenizers.py PICTURES OUT SECONDS SEED [variant ...]
"""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import tessera
from common import row
from tessera.config import (
    EMA,
    FSQ,
    DataConfig,
    DVAEConfig,
    Lite0,
    MachineConfig,
    NetworkConfig,
    NoPerceptual,
    OptimConfig,
    PyramidConfig,
    SimVQ,
    TrainConfig,
)
from tessera.config.presets import preset
from tessera.data.pictures import grid_image
from tessera.evaluate import metrics
from tessera.evaluate.distances import class_agreement, kid, named, subject_classes, subject_rate
from tessera.evaluate.features import Seen, load, seen
from tessera.evaluate.intervals import bootstrap
from tessera.evaluate.kept import Arrays, Kept, of_tensor
from tessera.evaluate.looking import floats, spread
from tessera.evaluate.measuring import cosines
from tessera.evaluate.subject import Subject
from tessera.store.run import Run
from tessera.train import loop

HOLDOUT, SHOWN = 0.14, 16
LEARNED, HELD = 1000, 200
"""Pictures that are looked at, at most."""
OPTIM = OptimConfig(lr=2e-3, weight_decay=0.0, batch=16, warmup=50, betas=(0.9, 0.99))
BASE = PyramidConfig(pixels=64, perceptual=Lite0())

Variant = tuple[NetworkConfig, OptimConfig]


def model(**changes: object) -> Variant:
    return dataclasses.replace(BASE, **changes), OPTIM


def looks(**changes: object) -> Variant:
    return model(perceptual=Lite0(**changes))


def optim(**changes: object) -> Variant:
    return BASE, dataclasses.replace(OPTIM, **changes)


def weighed(pixels: float, adversary: float = 0.0, **changes: Any) -> Variant:
    """The pooled head has weight 1 and pixels have `pixels`; changes are the network's or the optimiser's."""
    own = {
        name: changes.pop(name) for name in ("lr", "batch", "ema", "name", "muon_lr", "warmup_share") if name in changes
    }
    network = dataclasses.replace(BASE, perceptual=Lite0(deep=1.0, adversary=adversary), pixel_weight=pixels, **changes)
    return network, dataclasses.replace(OPTIM, **own)


def now(**changes: Any) -> Variant:
    """What `learn` trained before Muon, with changes of the optimiser."""
    return weighed(200.0, reconstruction="mse", ema=0.995, **changes)


def plainly(network: dict[str, Any] | None = None, **changes: Any) -> Variant:
    """The preset for pixels alone, moved by Muon, with changes of the network and of the optimiser."""
    own = preset("plain-xs-64")
    return dataclasses.replace(own.model, **(network or {})), dataclasses.replace(own.optim, **changes)


def plain(**changes: Any) -> Variant:
    """The same, moved by AdamW alone."""
    return plainly(name="adamw", muon_lr=0.0, **changes)


def dvae(layers: int, levels: tuple[int, ...]) -> Variant:
    """As `learn` trains it on a CPU."""
    return DVAEConfig(layers=layers, quantizer=FSQ(levels=levels)), dataclasses.replace(OPTIM, batch=32)


VARIANTS: dict[str, Variant] = {
    "learn, 16 x 16 codes": dvae(2, (6, 6, 6)),
    "learn, 8 x 8 codes": dvae(3, (8, 5, 5, 5)),
    "base": model(),
    "mse alone": model(perceptual=NoPerceptual(), reconstruction="mse"),
    "l1 alone": model(perceptual=NoPerceptual()),
    "no deep term": looks(deep=0.0),
    "deep 0.5": looks(deep=0.5),
    "deep 1": looks(deep=1.0),
    "deep 2": looks(deep=2.0),
    "pixels 4": model(pixel_weight=4.0),
    "deep 1, pixels 4": model(perceptual=Lite0(deep=1.0), pixel_weight=4.0),
    "deep 1, pixels 10": weighed(10.0),
    "deep 1, pixels 20": weighed(20.0),
    "deep 1, pixels 10, sigmoid": weighed(10.0, quantizer=FSQ(bound="sigmoid")),
    "deep 1, pixels 10, lr 4e-3": weighed(10.0, lr=4e-3),
    "deep 1, pixels 40": weighed(40.0),
    "deep 2, pixels 20": model(perceptual=Lite0(deep=2.0), pixel_weight=20.0),
    "deep 1, pixels 20, mean of weights": weighed(20.0, ema=0.995),
    "deep 1, pixels 20, batch 8": weighed(20.0, batch=8),
    "deep 1, pixels 100, mean of weights": weighed(100.0, ema=0.995),
    "deep 1, mse 200, mean of weights": now(),
    "the same, muon 5e-3": now(name="muon", muon_lr=5e-3),
    "the same, muon 1e-2": now(name="muon", muon_lr=1e-2),
    "the same, muon 1e-2, warm-up of a half": now(name="muon", muon_lr=1e-2, warmup_share=0.5),
    "the same, muon 1e-2, warm-up of a half, adversary": now(
        name="muon", muon_lr=1e-2, warmup_share=0.5, adversary=0.1
    ),
    "the same, muon 2e-2": now(name="muon", muon_lr=2e-2),
    "plain": plain(),
    "plain, as learn": plainly(),
    "plain, warm-up of a quarter": plainly(warmup_share=0.25),
    "plain, warm-up of a half": plainly(warmup_share=0.5),
    "plain, a quarter, muon 2e-2": plainly(warmup_share=0.25, muon_lr=2e-2),
    "plain, a half, muon 2e-2": plainly(warmup_share=0.5, muon_lr=2e-2),
    "plain, a quarter, two blocks to draw": plainly({"decoder_blocks": 2}, warmup_share=0.25),
    "plain, a quarter, 64 192": plainly({"widths": (64, 192)}, warmup_share=0.25),
    "plain, warm-up of 7 in 10": plainly(warmup_share=0.7),
    "plain, a half, batch 16": plainly(warmup_share=0.5, batch=16),
    "plain, a half, mean of weights 0.998": plainly(warmup_share=0.5, ema=0.998),
    "plain, a half, two blocks to draw": plainly({"decoder_blocks": 2}, warmup_share=0.5),
    "plain, rate ends at 0": plainly(lr_end=0.0),
    "plain, 8e-3": plainly(lr=8e-3),
    "deep 1, mse 500, mean of weights": weighed(500.0, reconstruction="mse", ema=0.995),
    "deep 1, mse 200, adversary": weighed(200.0, adversary=0.1, reconstruction="mse", ema=0.995),
    "deep 1, pixels 40, adversary": weighed(40.0, adversary=0.1, ema=0.995),
    "deep 1, pixels 40, adversary 0.3": weighed(40.0, adversary=0.3, ema=0.995),
    "no shift": looks(shift=0),
    "half weight": looks(weight=0.5),
    "all taps": looks(taps=(0, 2, 4, 10, 15)),
    "taps 2 4 10": looks(taps=(2, 4, 10)),
    "enlarged 2": looks(enlarge=2),
    "32 64 128": model(widths=(32, 64, 128)),
    "64 128 192": model(widths=(64, 128, 192)),
    "patch 4": model(patch=4, widths=(96, 160)),
    "two decoder blocks": model(decoder_blocks=2),
    "two blocks": model(encoder_blocks=2, decoder_blocks=2),
    "levels 666": model(quantizer=FSQ(levels=(6, 6, 6))),
    "levels 8888": model(quantizer=FSQ(levels=(8, 8, 8, 8))),
    "bound sigmoid": model(quantizer=FSQ(bound="sigmoid")),
    "simvq": model(quantizer=SimVQ(codes=1000)),
    "ema codebook": model(quantizer=EMA(codes=1000)),
    "lr 1e-3": optim(lr=1e-3),
    "lr 4e-3": optim(lr=4e-3),
    "batch 32": optim(batch=32),
    "batch 8": optim(batch=8),
    "mean of weights": optim(ema=0.999),
}


def trained(variant: Variant, pictures: str, out: Path, seconds: int, seed: int) -> Run:
    network, settings = variant
    config = TrainConfig(
        out=str(out), seed=seed, steps=10**9, budget=f"{seconds}s", save_every=10**8, valid_every=0, preview_every=0,
        model=network, optim=settings, data=DataConfig(path=pictures, holdout=HOLDOUT, flip=True, workers=0),
        machine=MachineConfig(device="cpu", threads=1),
    )  # fmt: skip
    return tessera.train(config)


class Judge:
    """Lite2 on the held-out photographs, which are looked at once."""

    def __init__(self, kept: Kept):
        self.features, self.kept = load("lite2", "cpu"), kept

    def see(self, pixels: Tensor) -> Seen:
        """Of uint8 pictures."""

        def make() -> Arrays:
            found = seen(self.features, floats(pixels))
            assert found.probabilities is not None
            return {"features": found.features.numpy(), "probabilities": found.probabilities.numpy()}

        found = self.kept.get("seen", [self.features.name, of_tensor(pixels)], make)
        return Seen(torch.from_numpy(found["features"]), torch.from_numpy(found["probabilities"]))

    def figures(self, subject: Subject, sheet: Path) -> dict[str, object]:
        """Of reconstructions of the held-out photographs, against the learned ones; and of the photographs."""
        _, learned = subject.readable(spread(subject.learned, LEARNED))
        _, held = subject.readable(spread(subject.held, HELD))
        codes = subject.codes(floats(held))
        again = (subject.decoded(codes) * 255).round().to(torch.uint8)
        grid_image(torch.cat((floats(held[:SHOWN]), floats(again[:SHOWN]))), SHOWN).save(sheet)
        reference, photographs, found = map(self.see, (learned, held, again))
        both = (reference, photographs)
        rate = lambda x: asdict(subject_rate(reference.probabilities, x.probabilities))  # type: ignore[arg-type]
        subjects = subject_classes(reference.probabilities)  # type: ignore[arg-type]
        chance = lambda x: asdict(bootstrap(x.probabilities[:, subjects].sum(1).numpy()))
        used, perplexity = metrics.usage(codes, subject.image.vocab)  # type: ignore[union-attr]
        return {
            named("KID", self.features.name): asdict(kid(reference.features, found.features)),
            "class agreement": asdict(class_agreement(photographs.probabilities, found.probabilities)),  # type: ignore[arg-type]
            "subject rate": rate(found),
            "of photographs": {"subject rate": rate(photographs), "KID": kid(*(x.features for x in both)).value},
            "distance": asdict(bootstrap(cosines(photographs.features, found.features))),
            "subject probability": chance(found), "of photographs, subject probability": chance(photographs)["value"],
            "psnr": metrics.psnr(floats(held), floats(again)),
            "codes": used, "perplexity": perplexity, "vocab": subject.image.vocab,  # type: ignore[union-attr]
        }  # fmt: skip


def main(pictures: str, out: str, seconds: str, seed: str, *names: str) -> None:
    torch.set_num_threads(1)
    # The loop's clock: budgets are seconds of this process, so that neighbours on the machine change nothing.
    loop.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    judge = Judge(Kept(Path(out) / "kept"))
    for name in names or VARIANTS:
        folder = Path(out) / f"{name.replace(' ', '-')}-{seconds}-{seed}"
        began = time.process_time()
        run = trained(VARIANTS[name], pictures, folder, int(seconds), int(seed))
        spent, steps = time.process_time() - began, max(r["step"] for r in run.read_metrics())
        figures = judge.figures(Subject.load(run.folder, device="cpu"), Path(f"{folder}.png"))
        row("tokenizers", configuration=name, cpu_seconds=round(spent, 1), steps=steps, seed=int(seed), **figures)


if __name__ == "__main__":
    main(*sys.argv[1:])
