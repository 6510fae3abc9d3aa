"""Run folders: every file that a run leaves, read by drawing, by training on, by judging, and by `learn`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch as tensors
import torch
from formats import wounded
from harness import GROUND, NEAR, Changes, Tree, lay, lifted
from kind import Files
from kinds_data import saved

from tessera.cli.train import _preset_or_run, without_command
from tessera.config import (
    FSQ,
    CLIPConfig,
    DataConfig,
    DVAEConfig,
    LearnConfig,
    MachineConfig,
    OptimConfig,
    SampleConfig,
    TextToImageConfig,
    TokensConfig,
    TrainConfig,
    TransformerConfig,
)
from tessera.data.codes import Codes, encode
from tessera.data.find import find
from tessera.errors import TesseraError
from tessera.evaluate import plots
from tessera.generate.judge import CLIPJudge
from tessera.generate.pipeline import Pipeline, Request
from tessera.journeys import learn
from tessera.machine.memory import free_memory
from tessera.store.run import Run
from tessera.tokens import image as image_tokens
from tessera.train import loop, plan
from tessera.train.engines.single import SingleEngine
from tessera.train.job import build
from tessera.train.track import JSONL

PLAIN = MachineConfig(device="cpu", precision="float32")
DVAE = DVAEConfig(pixels=8, layers=2, resblocks=0, hidden=4, quantizer=FSQ(levels=(3, 3, 3)))
PRIOR = TextToImageConfig(text_len=8, transformer=TransformerConfig(dim=8, depth=1, heads=1, head_dim=8))
CLIP = CLIPConfig(pixels=16, text_len=8, dim_text=8, dim_image=8, dim_latent=8, text_depth=1, image_depth=1, text_heads=1,
                  image_heads=1, head_dim=8)  # fmt: skip
PICTURE, CLASSES = "a red bird", {"vae": DVAE, "run": PRIOR, "packed": PRIOR, "judge": CLIP}


def data() -> dict[str, bytes]:
    found = {f"data/{i}.png": saved("PNG") for i in range(5)}
    return found | {
        f"data/{i}.txt": f"a {c} bird".encode() for i, c in enumerate(("red", "blue", "black", "grey", "red"))
    }


def config(folder: Path, name: str, steps: int = 4) -> TrainConfig:
    """One of the small runs; holdout is such that one pair of the five is held out."""
    codes = str(folder / "codes") if name == "packed" else ""
    return TrainConfig(
        out=str(folder / name), steps=steps, save_every=2, valid_every=2, preview_every=0, model=CLASSES[name],
        data=DataConfig(path=str(folder / "data"), codes=codes, holdout=0.3, workers=0, truncate=True),
        tokens=TokensConfig(image="" if name in ("vae", "judge") else str(folder / "vae"), vocab=300),
        optim=OptimConfig(batch=2, warmup=1), machine=PLAIN,
    )  # fmt: skip


def go(asked: TrainConfig) -> loop.Position:
    """What `tessera train` does with settings, without a report; a step's work is not measured."""
    loop.matrix_rate, loop.training_flops = lambda engine: 1e9, lambda model: 1e6
    asked.check()
    plan.refuse_too_large(asked.model, free_memory(torch.device("cpu")))
    objective, run = build(asked), Run(asked.out)
    run.open(objective.config)
    tracker = JSONL(run)
    try:
        return loop.train(
            objective.config, objective, SingleEngine(asked.machine), run, tracker, lambda objective, path: ""
        )
    finally:
        tracker.close()


@cache
def runs() -> dict[str, Tree]:
    """Trained once for the process: an image tokenizer, priors on pictures and on packed codes, a judge."""
    torch.manual_seed(0)
    lay(data(), GROUND().fresh())
    with contextlib.chdir(GROUND().outside):
        go(config(NEAR, "vae"))
        pack(NEAR)
        for name in ("run", "packed", "judge"):
            go(config(NEAR, name))
        (NEAR / "learn.json").write_text(json.dumps(dataclasses.asdict(CHOICE)))
        parts = ["data", "codes", "learn.json", *CLASSES]
        found = lifted(NEAR, parts)
    trees = {name: {p: c for p, c in found.items() if p.split("/")[0] in (name, "data", "codes")} for name in parts}
    return trees | {f"{name} of old": unsealed(trees[name]) for name in CLASSES}


def unsealed(tree: Tree) -> Tree:
    """The run as a release wrote it that knew no checksums: what is damaged there, its readers meet."""
    found = {p: c for p, c in tree.items() if not p.endswith(("/checksums.json", "/run.json"))}
    return {p: tensors.save(tensors.load(c)) if p.endswith("/weights.safetensors") else c for p, c in found.items()}


def pack(folder: Path) -> Codes:
    tokenizer = image_tokens.load(Run(folder / "vae").best())
    settings = DataConfig(path=str(folder / "data"))
    encode(find(str(folder / "data")).pairs, tokenizer, folder / "codes", 2, settings, 0)
    return Codes(folder / "codes")


CHOICE = learn.Choice(pixels=16, layers=2, channels=3, hidden=4, levels=(3, 3, 3), dim=64, depth=1, batch=2, text_len=8,
                      vocab=300, views=2, flip=False, crop=0.75, holdout=0.3, dropout=0.0)  # fmt: skip


def only(*names: str) -> dict[str, Tree]:
    return {name: runs()[name] for name in names}


def old_too(*names: str) -> dict[str, Tree]:
    return only(*(each for name in names for each in (name, f"{name} of old")))


def of_the_run(
    r: Random, trees: dict[str, Tree], inside: tuple[str, ...] = ("run", "packed", "vae", "judge")
) -> tuple[str, Changes]:
    """Changes in the run's own folder; half of them in the newest checkpoint, and rarely in both."""
    fixed = frozenset(p for tree in trees.values() for p in tree if not p.startswith(inside) or "samples/" in p)
    return wounded(r, trees, fixed)


def each_run(r: Random, trees: dict[str, Tree]) -> tuple[str, Changes]:
    name = r.choice(sorted(trees))
    return of_the_run(r, {name: trees[name]}, (own(name),))


def own(tree: str) -> str:
    """The run's folder in a tree."""
    return tree.removesuffix(" of old")


# Who reads them.


def draw(folder: Path, tree: str) -> None:
    """One picture, by the file's own sizes."""
    pipeline = Pipeline.load(folder / "run", "cpu")
    (picture,) = pipeline.stream(
        Request(PICTURE, seed=3, sampling=SampleConfig(temperature=0.9, top_k=4, guidance=1.5))
    )
    assert picture.image.size == (pipeline.image.pixels, pipeline.image.pixels)


@cache
def drawn() -> Any:
    import numpy as np
    from PIL import Image

    from tessera.generate.pipeline import Picture

    return Picture(Image.fromarray(np.zeros((16, 16, 3), np.uint8)), PICTURE, 0)


def judge(folder: Path, tree: str) -> None:
    CLIPJudge.load(folder / "judge", "cpu").scores([drawn()])


def resume(folder: Path, tree: str) -> None:
    """A step more, with the run's own settings: `tessera train RUN --steps 5`."""
    run = folder / own(tree)
    config, command = without_command(_preset_or_run(str(run)))
    if command:
        raise TesseraError(f"{run} names a command, which is not run")
    go(dataclasses.replace(config, out=str(run), steps=5, machine=PLAIN))


def codes(folder: Path, tree: str) -> None:
    """Packed codes, as a data set and as an encoding that goes on."""
    import numpy as np

    found = Codes(folder / "codes")
    part = found.only(found.pairs[:2])
    part.some(np.arange(len(part)), np.arange(len(part), dtype=np.uint64))
    part.views(0)
    pack(folder)


def learnt(folder: Path, tree: str) -> None:
    """What `learn` remembers of its first call."""

    def choose() -> learn.Choice:
        raise TesseraError(f"{folder}: chosen anew")

    asked = LearnConfig(pictures="data")
    chosen = learn.remembered(folder / "learn.json", asked, choose)
    for stage in learn.stages(asked, chosen, PLAIN, folder):
        stage.check()


def metrics(folder: Path, tree: str) -> None:
    """The rows of a run, and its report's curves."""
    run = Run(folder / "run")
    run.forget_after(3)
    rows = run.read_metrics()
    assert all(math.isfinite(row.get("step", 0)) for row in rows)
    plots.curves(run)


def curves() -> dict[str, Tree]:
    """The run; matplotlib first makes its own cache, which is no case's fault."""
    lay(runs()["run"], folder := GROUND().fresh())
    plots.curves(Run(folder / "run"))
    return only("run")


def one_file(path: str) -> Any:
    return lambda r, trees: wounded(r, trees, frozenset(p for t in trees.values() for p in t if not p.startswith(path)))


SETTINGS = ("model.", "optim.", "data.", "tokens.", "machine.", "track.", "steps", "seed", "save-every", "save_every", "patience",
            "budget", "image tokenizer", "duration")  # fmt: skip


KINDS = [
    Files(name="run drawn", make=partial(old_too, "run"), read=draw, vary=of_the_run),
    Files(name="judge", make=partial(old_too, "judge"), read=judge, vary=of_the_run),
    Files(
        name="run trained on", make=partial(old_too, "run", "packed", "vae"), read=resume, names=SETTINGS, vary=each_run
    ),
    Files(name="codes", make=partial(only, "vae"), read=codes, vary=one_file("codes/")),
    Files(
        name="learn.json", make=partial(only, "learn.json"), read=learnt, names=SETTINGS, vary=one_file("learn.json")
    ),
    Files(name="metrics", make=curves, read=metrics, vary=one_file("run/metrics")),
]
