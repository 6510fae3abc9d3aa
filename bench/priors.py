"""What makes a prior learn more from few pictures in equal time? Named variants of what `learn` trains, on the same
packed codes, judged on held-out pictures.

    python bench/priors.py prepare PICTURES FOLDER [--steps 1000]
    python bench/priors.py train FOLDER VARIANT ... [--steps 300] [--pictures 0] [--seeds 0 1] [--draw 0] [--small]
                                                [--birds]
    python bench/priors.py table

Steps are those of the base; a variant whose step costs more, measured in CPU seconds beside the base's, takes as many
fewer, so that all take equal time. The warm-up is the share of the steps that FOLDER's choice says, else a tenth.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import RESULTS, row
from ideas import UNTIL, with_vectors
from tessera.config import AnyOrderConfig, LearnConfig, MachineConfig, SampleConfig, TrainConfig
from tessera.config.merging import merge, read_json
from tessera.data.check import check
from tessera.data.codes import Codes, encode
from tessera.data.pictures import to_image
from tessera.data.split import Data, split
from tessera.evaluate import likelihood
from tessera.evaluate.distances import kid, subject_rate
from tessera.evaluate.features import load, seen
from tessera.evaluate.intervals import bootstrap
from tessera.evaluate.looking import spread
from tessera.evaluate.memorisation import membership_auc
from tessera.evaluate.subject import Subject
from tessera.generate.decoder import DrawingBatch
from tessera.generate.decoders import decoder
from tessera.generate.given import Given
from tessera.generate.likelihood import nats as code_nats
from tessera.journeys import bird_reader, birds
from tessera.journeys.choice import Choice, choose, remembered
from tessera.journeys.stages import stages
from tessera.machine.device import keep_freed_memory
from tessera.models.any_order import AnyOrder
from tessera.store.run import Run, checkpoint_of
from tessera.tokens import image as image_tokens
from tessera.tokens import text as text_tokens
from tessera.train import job
from tessera.train.engines.single import SingleEngine
from tessera.train.loop import forward_backward, step_seed
from tessera.train.objectives.any_order import TrainAnyOrder
from tessera.train.objectives.raster import TrainTextToImage
from tessera.train.objectives.sizes import resolve
from tessera.train.optim import Schedule, optimizer_of

Changes = Mapping[str, Any]


def optim(**changes: Any) -> Changes:
    return {"optim": changes}


def alike(share: float) -> Changes:
    return {"tokens": {"alike": share}}


def noise(**changes: Any) -> Changes:
    return {"noise": changes}


def stack(**changes: Any) -> Changes:
    return {"model": {"transformer": changes}}


SHIFT = stack(shift=True)
SHIFTED = {**SHIFT, "warm": 4}
MUON, HEADS = optim(name="muon", muon_lr=2e-2), stack(heads=6, head_dim=32)
VARIANTS: dict[str, Changes] = {
    "base": {},
    "little against learning by heart": {
        **optim(weight_decay=0.05),
        **alike(0.0),
        **noise(codes=0.0),
        **stack(attn_dropout=0.1, ff_dropout=0.1),
    },
    "codes not replaced": noise(codes=0.0),
    "dropout 0.1": stack(attn_dropout=0.1, ff_dropout=0.1),
    "dropout 0.3": stack(attn_dropout=0.3, ff_dropout=0.3),
    "rate 4e-3": optim(lr=4e-3),
    "rate 1.2e-2": optim(lr=12e-3),
    "rate 1.6e-2": optim(lr=16e-3),
    "warm-up of a tenth": {"warm": 10},
    "warm-up of a third": {"warm": 3},
    "rate ends at 0": optim(lr_end=0.0),
    "muon 4e-3": optim(name="muon", lr=4e-3),
    "muon 8e-3": optim(name="muon", lr=8e-3),
    "muon 1.2e-2": optim(name="muon", lr=12e-3),
    "muon 2e-2": optim(name="muon", lr=2e-2),
    "muon 2e-2 for matrices": MUON,
    "muon, heads of 32": {**MUON, **HEADS},
    "muon, heads of 32, decay 0.3": {**optim(name="muon", muon_lr=2e-2, weight_decay=0.3), **HEADS},
    "muon, heads of 32, decay 0.05": {**optim(name="muon", muon_lr=2e-2, weight_decay=0.05), **HEADS},
    "muon, heads of 32, near codes 0.4": {**MUON, **HEADS, **noise(codes=0.4)},
    "heads of 32": HEADS,
    "ema 0.99": optim(ema=0.99),
    "ema 0.999": optim(ema=0.999),
    "decay 0.3": optim(weight_decay=0.3),
    "decay 1": optim(weight_decay=1.0),
    "beta2 0.99": optim(betas=(0.9, 0.99)),
    "dropout 0": stack(attn_dropout=0.0, ff_dropout=0.0),
    "dropout 0.2": stack(attn_dropout=0.2, ff_dropout=0.2),
    "relu2": stack(ff="relu2", ff_mult=4.0),
    "geglu": stack(ff="geglu"),
    "depth 2": stack(depth=2),
    "depth 6": stack(depth=6),
    "depth 8, width 128": stack(depth=8, dim=128, heads=2),
    "depth 3, width 256": stack(depth=3, dim=256, heads=4),
    "batch 16": optim(batch=16),
    "batch 64": optim(batch=64),
    "axial positions": stack(positions="axial"),
    "axial patterns": stack(patterns=("axial_row", "axial_col", "conv_like", "full")),
    "token shift": SHIFT,
    "token shift, warm-up of a quarter": SHIFTED,
    "token shift, warm-up of a half": {**SHIFT, "warm": 2},
    "token shift, warm-up of a quarter, muon 3e-2": {**SHIFTED, **optim(muon_lr=3e-2)},
    "token shift, warm-up of a quarter, muon 1.4e-2": {**SHIFTED, **optim(muon_lr=1.4e-2)},
    "token shift, warm-up of a quarter, depth 3": {**stack(shift=True, depth=3), "warm": 4},
    "text shifted, warm-up of a quarter": {**SHIFTED, "unshifted": "codes"},
    "warm-up of a half, image weight 20": {"model": {"image_weight": 20.0}, "warm": 2},
    "warm-up of a half, batch 24": {**optim(batch=24), "warm": 2},
    "warm-up of a half, batch 48": {**optim(batch=48), "warm": 2},
    "warm-up of a half, depth 2": {**stack(depth=2), "warm": 2},
    "warm-up of a half, depth 3": {**stack(depth=3), "warm": 2},
    "warm-up of a half, depth 3, token shift": {**stack(depth=3, shift=True), "warm": 2},
    "warm-up of a half, depth 3, codes shifted": {**stack(depth=3, shift=True), "warm": 2, "unshifted": "text"},
    "tied": {"model": {"tied": True}},
    "image weight 20": {"model": {"image_weight": 20.0}},
    "captions never dropped": optim(drop_condition=0.0),
    "views 1": {"views": 1},
    "views 4": {"views": 4},
    "codes replaced 0.1": noise(codes=0.1, by="any"),
    "codes replaced 0.2": noise(codes=0.2, by="any"),
    "near codes 0.1": noise(codes=0.1, by="near"),
    "near codes 0.2": noise(codes=0.2, by="near"),
    "near codes 0.4": noise(codes=0.4, by="near"),
    "vector 0.1": {"vector": 0.1},
    "vector 0.5": {"vector": 0.5},
    "alike 0.5": alike(0.5),
    "alike 0.9": alike(0.9),
    "shared 0.5": {"shared": 0.5},
    "shared 0.9": {"shared": 0.9},
    "alike 0.5, near codes 0.1": {**alike(0.5), **noise(codes=0.1, by="near")},
    "alike 0.9, muon 8e-3": {**alike(0.9), **optim(name="muon", lr=8e-3)},
    "captions joined 2": noise(join=2),
    "captions joined 3": noise(join=3),
    "words dropped 0.1": noise(drop_words=0.1),
    "aligned with Lite0, 0.5": {"align": 0.5},
    "aligned with Lite0, 2": {"align": 2.0},
    "values of the first layer, half": {"values": 0.5},
    "warm-up of a quarter": {"warm": 4},
    "warm-up of a half": {"warm": 2},
    "warm-up of a fiftieth": {"warm": 50},
    "any order": {"any_order": {"raster_share": 0.0}},
    "any order, half in reading order": {"any_order": {"raster_share": 0.5}},
    "any order, codes not replaced": {"any_order": {"raster_share": 0.0}, **noise(codes=0.0)},
}
"""What each puts over the base. `views` is how many encodings of a picture there are; 1 / `warm` of the steps warm up;
`vector` weighs a second task; `shared` is how much codes with near vectors have in common for good; `values` is the
share of the first layer's values in all others; `unshifted` are positions without a token shift; `any_order` are
settings of a prior of any order, which takes its place."""
SMALL: Changes = {"model": {"text_len": 24, "transformer": {"dim": 96, "depth": 3, "heads": 3, "head_dim": 32}}}
"""A base whose steps cost a quarter, to look at more ideas for more epochs."""
VECTORS = ("vector", "shared", "align", "values", "unshifted")
IDEAS = ("views", "warm", "any_order", *VECTORS)
"""Changes that are not settings of the house."""
FREE = {
    "lr", "warmup", "lr_end", "weight_decay", "betas", "drop_condition", "image_weight", "views", "warm",
    "codes", "by", "alike", "join", "drop_words",
}  # fmt: skip
"""Settings that change a step's cost by no more than the measurement's own spread."""


def only(changes: Changes, *names: str) -> Changes:
    return {name: changes[name] for name in names if name in changes}


def prepare(pictures: str, folder: Path, steps: int) -> None:
    """The first stages of `learn` with a grid of 8: the image tokenizer, and the codes of all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    config, machine = LearnConfig(pictures=pictures, grid=8), MachineConfig(threads=1)
    health = check(pictures, "", folder / "data.json")
    choice = remembered(folder / "learn.json", config, lambda: choose(config, health, machine))
    tokenizer, prior = stages(config, choice, machine, folder)
    tokenizer = dataclasses.replace(tokenizer, steps=steps, budget="")
    began = time.process_time()
    job.train(tokenizer, title="Image tokenizer", health=health)
    print(f"{steps} steps in {time.process_time() - began:.0f} CPU seconds", flush=True)
    image = image_tokens.load(checkpoint_of(tokenizer.out))
    encode(health.pairs, image, folder / "codes", choice.views, prior.data, 0)


class Ground:
    """What all variants learn from: the codes, the split, the tokenizers, and the settings of the base."""

    def __init__(self, folder: Path, pictures: int, size: Changes):
        choice = read_json(folder / "learn.json", Choice)
        learnt = Run(folder / "tokenizer").config().data
        asked = LearnConfig(pictures=learnt.path, grid=8)
        self.config = merge(stages(asked, choice, MachineConfig(threads=1), folder)[1], size)
        self.codes = Codes(folder / "codes")
        learned, self.held = split(self.codes.pairs, self.config.data.holdout)
        self.text = text_tokens.choose("bpe", [c for p in learned for c in p.captions], self.config.tokens.vocab)
        self.image = image_tokens.load(checkpoint_of(folder / "tokenizer"))
        self.learned = spread(learned, pictures)

    def objective(self, changes: Changes, seed: int, steps: int = 100) -> TrainTextToImage:
        """The variant, with fresh weights, for so many steps."""
        views = changes.get("views", self.codes.index.views)
        codes = self.codes.only(self.codes.pairs)
        codes.parts = [part[:, :views] for part in codes.parts]
        share = 1 / changes["warm"] if "warm" in changes else self.config.optim.warmup_share or 0.1
        config: TrainConfig = merge(self.config, optim(warmup=int(steps * share), warmup_share=0.0))
        config = merge(config, {k: v for k, v in changes.items() if k not in IDEAS})
        data = Data(self.learned, self.held, 0, codes)
        kind = TrainTextToImage
        if "any_order" in changes:
            own = {f.name: getattr(config.model, f.name) for f in dataclasses.fields(config.model)}
            own |= {"query_depth": own["transformer"].depth // 2, **changes["any_order"]}
            config, kind = dataclasses.replace(config, model=AnyOrderConfig(**own)), TrainAnyOrder
        sizes = {"image_vocab": self.image.vocab, "grid": self.image.grid}
        config = resolve(dataclasses.replace(config, seed=seed), data, sizes, self.text)
        return with_vectors(kind(config, data, self.text, self.image), **only(changes, *VECTORS))


class Lesson:
    """A training that is taken step by step; its steps are the loop's own."""

    def __init__(self, objective: TrainTextToImage):
        self.objective, config = objective, objective.config
        self.engine, self.schedule = SingleEngine(config.machine), Schedule(config.optim)
        self.engine.add(objective.model, optimizer_of(config.optim), config.optim.clip, config.optim.ema, "model")
        self.batches, self.at = objective.batches(0), 0

    def step(self, done: float) -> float:
        """One step; returns its CPU seconds."""
        began, config = time.process_time(), self.objective.config
        torch.manual_seed(step_seed(config.seed, 0, self.at))
        batch = self.objective.chance(next(self.batches))
        forward_backward(self.objective, self.engine, batch, 1, done)
        self.engine.step({"model": self.schedule.rate(self.at, done)})
        self.at += 1
        return time.process_time() - began


def leaves(changes: Changes) -> Iterator[str]:
    for name, value in changes.items():
        yield from leaves(value) if isinstance(value, Mapping) else (name,)


def relative_cost(ground: Ground, changes: Changes) -> float:
    """CPU seconds of a step of the variant, in those of the base: medians of steps in turn."""
    if set(leaves(changes)) <= FREE:
        return 1.0
    lessons = [Lesson(ground.objective(c, 0)) for c in ({}, changes)]
    costs = [[lesson.step(0.0) for lesson in lessons] for _ in range(4)][1:]
    base, own = (statistics.median(column) for column in zip(*costs, strict=True))
    return 1 + (own / base - 1) * (UNTIL if "align" in changes else 1)


def measure(ground: Ground, name: str, seed: int, steps: int, drawn: int, look: Look) -> dict[str, Any]:
    """Train a variant for the time of so many steps of the base; returns its figures."""
    changes = VARIANTS[name]
    cost = relative_cost(ground, changes)
    total = round(steps / cost)
    lesson = Lesson(ground.objective(changes, seed, total))
    costs = [lesson.step(i / total) for i in range(total)]
    model = lesson.objective.model.eval()
    with torch.no_grad(), lesson.engine.trainees["model"].averaged():
        figures = judged(ground, model, lesson.objective)
        figures |= look(ground, model, drawn) if drawn else {}
    batch = lesson.objective.config.optim.batch
    return {
        "steps": total, "epochs": round(total * batch / len(ground.learned), 1), "relative_cost": round(cost, 3),
        "step_s": round(statistics.median(costs), 4), "cpu_s": round(sum(costs), 1), **figures,
    }  # fmt: skip


def judged(ground: Ground, model: Any, objective: TrainTextToImage) -> dict[str, Any]:
    """Nats of held-out pictures (their middle squares, their first captions) and of as many learned ones."""

    def nats(pairs: list, captions: list[str] | None = None) -> np.ndarray:
        codes = torch.stack([ground.codes.only([p]).views(0)[0] for p in pairs])
        tokens = likelihood.tokens_of(model, ground.text, captions or [p.captions[0] for p in pairs])
        tokens = model.null_caption(tokens) if captions == [""] * len(pairs) else tokens
        return code_nats(model, tokens, codes).double().mean(1).numpy()

    held = ground.held
    own, learned = nats(held), nats(spread(ground.learned, len(held)))
    none = nats(held, [""] * len(held))
    other = nats(held, [held[i].captions[0] for i in likelihood.others(len(held), 0)])
    any_order = {}
    if isinstance(model, AnyOrder):
        tokens = likelihood.tokens_of(model, ground.text, [p.captions[0] for p in held])
        codes = torch.stack([ground.codes.only([p]).views(0)[0] for p in held])
        noise = torch.Generator().manual_seed(0)
        orders = torch.rand(4, *codes.shape, generator=noise).argsort(-1)
        each = torch.stack([code_nats(model, tokens, codes, o).double().mean(1) for o in orders])
        any_order = {"held_any_order": asdict(bootstrap(each.mean(0).numpy()))}
    return {
        **any_order, "held": asdict(bootstrap(own)), "gap": round(float(own.mean() - learned.mean()), 4),
        "worth_none": asdict(bootstrap((none - own) * model.layout.codes)),
        "worth_other": asdict(bootstrap((other - own) * model.layout.codes)),
        "membership": asdict(membership_auc(-learned, -own)),
        "parameters": sum(p.numel() for p in model.parameters()), "nats": [round(x, 4) for x in own.tolist()],
    }  # fmt: skip


WAYS: dict[str, dict[str, Any]] = {
    "": {}, ", 16 steps": {"steps": 16}, ", 8 steps": {"steps": 8},
    ", 16 steps, the surest first": {"steps": 16, "order": "confidence"},
}  # fmt: skip
"""How a prior of any order draws for its figures: code by code, and in fewer steps."""
Look = Callable[[Ground, Any, int], dict[str, Any]]
"""Figures of so many drawings of a model."""


def drawings(ground: Ground, model: Any, captions: Sequence[str], sampling: SampleConfig) -> Tensor:
    """The codes of a drawing of each caption."""
    tokens = likelihood.tokens_of(model, ground.text, captions)
    own, known = decoder(model, False), Given.nothing(model.layout.codes)
    rows = lambda t: (x.expand(len(t), -1) for x in known)
    parts = enumerate(tokens.split(64))
    asked = [DrawingBatch(t, *rows(t), range(64 * i, 64 * i + len(t)), sampling) for i, t in parts]
    return torch.cat([own.codes(batch).codes for batch in asked])


def of_birds(ground: Ground, model: Any, count: int) -> dict[str, Any]:
    """The share of asked colours of built-in birds that were never learned, as the demo usually draws them."""
    asked = birds.questions(count)
    subject = Subject(model=model, image=ground.image, text=None, learned=[], held=[], skipped=0, curves=())
    figures = {}
    for end, options in WAYS.items() if isinstance(model, AnyOrder) else [("", {})]:
        sampling = SampleConfig(guidance=2.5, top_p=0.9, **options)
        codes = drawings(ground, model, [caption for caption, _ in asked], sampling)
        pictures = [to_image(p) for p in subject.decoded(codes)]
        right = bird_reader.hits(pictures, [bird for _, bird in asked])
        each = [sum(hits) / len(hits) for hits in zip(*right.values(), strict=True)]
        figures[f"colours{end}"] = asdict(bootstrap(each))
        figures[f"parts{end}"] = {part: sum(hits) / count for part, hits in right.items()}
    return figures


def of_photographs(ground: Ground, model: Any, count: int) -> dict[str, Any]:
    """Held-out captions drawn as `learn` draws them; KID x 1000 and the subject rate against the learned pictures."""
    features, image = load("lite2"), ground.image
    subject = Subject(model=model, image=image, text=None, learned=[], held=[], skipped=0, curves=())
    photographs = seen(features, subject.pixels(ground.learned, len(ground.learned)))
    asked = [ground.held[i % len(ground.held)].captions[i // len(ground.held)] for i in range(count)]
    figures = {}
    for end, options in WAYS.items() if isinstance(model, AnyOrder) else [("", {})]:
        drawn = drawings(ground, model, asked, SampleConfig(guidance=2.0, **options))
        looks = seen(features, subject.decoded(drawn))
        distance = kid(photographs.features, looks.features)
        figures[f"kid{end}"] = {k: round(v * 1000, 1) if k != "count" else v for k, v in asdict(distance).items()}
        if photographs.probabilities is not None and looks.probabilities is not None:
            figures[f"subject{end}"] = asdict(subject_rate(photographs.probabilities, looks.probabilities))
    return figures


def train(
    folder: Path, names: list[str], steps: int, pictures: int, seeds: list[int], drawn: int, small: bool, look: Look
) -> None:
    keep_freed_memory()
    ground = Ground(folder, pictures, SMALL if small else {})
    t = ground.config.model.transformer  # type: ignore[attr-defined]
    for name in names:
        for seed in seeds:
            figures = measure(ground, name, seed, steps, drawn, look)
            about = {"codes": folder.name, "model": f"{t.dim} x {t.depth}", "pictures": len(ground.learned)}
            row("priors", configuration=name, **about, base_steps=steps, seed=seed, **figures)


def table() -> None:
    """Every variant beside the base of the same pictures, steps and seeds, as Markdown."""
    groups: dict[tuple, dict[str, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for line in (RESULTS / "priors.jsonl").read_text().splitlines():
        r = json.loads(line)
        groups[r["codes"], r.get("model", "192 x 4"), r["pictures"], r["base_steps"]][r["configuration"]][r["seed"]] = r
    for (codes, model, pictures, steps), variants in groups.items():
        print(f"\n{codes}: {model}, {pictures} pictures, {steps} steps of the base\n")
        print("| variant | seeds | epochs | cost of a step | held-out nats | minus base | gap | worth of the caption |")
        print("|---|---|---|---|---|---|---|---|")
        for name, rows in sorted(variants.items(), key=lambda item: difference(item[1], variants["base"])[0]):
            print(line_of(name, rows, variants["base"]))


def difference(rows: Mapping[int, dict], base: Mapping[int, dict]) -> tuple[float, float, float]:
    """Nats per code above the base's, of the same pictures and seeds."""
    common = sorted(rows.keys() & base.keys())
    if not common:
        return float("nan"), float("nan"), float("nan")
    e = bootstrap(np.mean([np.subtract(rows[s]["nats"], base[s]["nats"]) for s in common], axis=0))
    return e.value, e.low, e.high


def line_of(name: str, rows: Mapping[int, dict], base: Mapping[int, dict]) -> str:
    mean: Callable[[Callable[[dict], float]], float] = lambda of: statistics.mean(of(r) for r in rows.values())
    first = next(iter(rows.values()))
    value, low, high = difference(rows, base)
    return (
        f"| {name} | {len(rows)} | {first['epochs']:.0f} | {first['relative_cost']:.2f} "
        f"| {mean(lambda r: r['held']['value']):.3f} | {value:+.3f} [{low:+.3f}, {high:+.3f}] "
        f"| {mean(lambda r: r['gap']):+.3f} | {mean(lambda r: r['worth_none']['value']):.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("prepare", "train", "table"))
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=0, help="learn from so few of them; 0 takes all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draw", type=int, default=0, help="drawings that are judged")
    parser.add_argument("--small", action="store_true", help="a smaller base")
    parser.add_argument("--birds", action="store_true", help="the pictures are the built-in birds: read their colours")
    a = parser.parse_args()
    if a.task == "prepare":
        prepare(a.rest[0], Path(a.rest[1]), a.steps)
    elif a.task == "train":
        look = of_birds if a.birds else of_photographs
        train(Path(a.rest[0]), a.rest[1:] or list(VARIANTS), a.steps, a.pictures, a.seeds, a.draw, a.small, look)
    else:
        table()


if __name__ == "__main__":
    main()
