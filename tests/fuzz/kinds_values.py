"""What people type: settings, prompts, prime pictures, TOML, YAML."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import cache
from pathlib import Path
from typing import Any

import kinds_data
import kinds_foreign
import kinds_runs
from formats import wounded
from harness import GROUND, Tree, lay
from hypothesis import strategies as st
from kind import Files, Values
from kinds_json import TREES
from kinds_runs import SETTINGS, config, data, go, runs
from mutate import NUMBERS

from tessera.cli.data import EncodeConfig, PackConfig
from tessera.cli.generate import GenerateConfig
from tessera.cli.train import DemoConfig
from tessera.config import CLIPConfig, LearnConfig, SampleConfig, TextToImageConfig, TokensConfig, TrainConfig
from tessera.config import merging as settings
from tessera.config.presets import PRESETS, preset
from tessera.generate.pipeline import Pipeline, Request
from tessera.generate.sheet import contact_sheet, prompt_folder
from tessera.imports import pretrained

# Settings.

BASES: dict[str, Any] = {
    "dvae": TrainConfig(data=kinds_runs.DataConfig(path="p")),
    "t2i": TrainConfig(model=TextToImageConfig(), data=kinds_runs.DataConfig(path="p"), tokens=TokensConfig(image="i")),
    "clip": TrainConfig(model=CLIPConfig(), data=kinds_runs.DataConfig(path="p")),
    "learn": LearnConfig(pictures="p"),
    "sample": SampleConfig(),
    "generate": GenerateConfig(run="r", prompt=("a bird",)),
    "encode": EncodeConfig(data="d", out="o"),
    "pack": PackConfig(data="d", out="o"),
    "demo": DemoConfig(),
}  # fmt: skip
MAY_BE_NEGATIVE = {"mean", "guidance"}


def fields(base: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every setting with a number in it."""
    found = []
    for f in dataclasses.fields(base):
        old = getattr(base, f.name)
        if dataclasses.is_dataclass(old):
            found += fields(old, (*path, f.name))
        elif any(isinstance(v, int | float) for v in (old if isinstance(old, tuple) else (old,))):
            found.append((*path, f.name))
    return found


PLACES = [(name, path) for name, base in BASES.items() for path in fields(base)]
ODD = st.one_of(
    st.sampled_from([float("nan"), float("inf"), -float("inf"), -1, 0, 0.0, -0.5, 1e-300, 1e300, 1e309, *NUMBERS, 10**400, True, "1", None]),
    st.integers(), st.floats(), st.lists(st.floats() | st.integers(), max_size=4), TREES,
)  # fmt: skip


class Accepted(AssertionError):
    """A number that no setting should take was taken in silence."""

    def __init__(self, place: str, number: Any):
        self.place = place
        super().__init__(f"{place} is {str(number)[:60]}")


def set_one(case: tuple[tuple[str, tuple[str, ...]], Any]) -> None:
    """Accepted only where it is finite and not negative, but for what may be."""
    (name, path), value = case
    made = settings.merge(BASES[name], nested(path, value))
    settings.check(made)
    if isinstance(made, GenerateConfig):
        sampled = dataclasses.replace(made.sampling)
        options = {"count": made.count, "seed": made.seed, "prime": made.prime, "prime_rows": made.prime_rows}
        made_of = Request("a bird", sampling=sampled, batch=made.batch, **options)
        made_of.check()
    elif hasattr(made, "check"):
        made.check()
    found: Any = made
    for part in path:
        found = getattr(found, part)
    for number in found if isinstance(found, tuple) else (found,):
        finite = isinstance(number, int) or math.isfinite(number)
        if not finite or (number < 0 and path[-1] not in MAY_BE_NEGATIVE):
            raise Accepted(".".join((name, *path)), number)


def nested(path: tuple[str, ...], value: Any) -> Any:
    """{"a": {"b": value}}"""
    for part in reversed(path):
        value = {part: value}
    return value


def leaf(case: Any) -> list[str]:
    name = case[0][1][-1]
    return [name, name.replace("_", "-")]


SOME = [0, 1, 2, 3, 5, 7, 16, 64, 0.0, 0.1, 0.5, 1.0, 3.5, 1e-30, 1e3, 1e9, 1e30, 1e300]
"""Numbers that training may accept, or must refuse; none asks for more memory than there is."""
NOT_TRAINED = {
    "steps",
    "workers",
    "threads",
    "pixels",
    "layers",
    "zero",
    "vocab",
    "text_vocab",
    "image_vocab",
    "plateau_patience",
}


def trainings() -> Any:
    runs()  # before the watch is on
    sizes = {n: [p for p in fields(config(Path("x"), n)) if p[-1] not in NOT_TRAINED] for n in ("vae", "run", "judge")}
    one = st.sampled_from([(n, p) for n, paths in sizes.items() for p in paths])
    values = st.sampled_from(
        [*SOME, -1, float("nan"), float("inf"), [0.5, 0.5], [1, 1], [0.0, 0.0, 0.0], 10**23, 2**63, 2**31]
    )
    return st.tuples(one, values).filter(lambda case: case[0][1][0] != "model" or case[1] not in (10**23, 2**63, 2**31))


def train_one(case: tuple[tuple[str, tuple[str, ...]], Any]) -> None:
    """A step with a setting that `check` takes."""
    (name, path), value = case
    folder = GROUND().case
    lay(data() if name != "run" else {**data(), **runs()["vae"]}, folder)
    go(settings.merge(config(folder, name, steps=1), nested(path, value)))


def either(case: Any) -> list[str]:
    return [*leaf(case), "not finite", *SETTINGS]


# Drawing.


@cache
def pipeline() -> Pipeline:
    folder = GROUND().base / "drawn from"
    lay(runs()["run"], folder)
    return Pipeline.load(folder / "run", "cpu")


REQUEST = ["count", "seed", "prime_rows", "batch", *(f"sampling.{f.name}" for f in dataclasses.fields(SampleConfig))]


def draw_one(case: Any) -> None:
    """The first two pictures of a request."""
    ((_, (field,)), value) = case
    _, _, inner = field.rpartition("sampling.")
    asked = {"sampling": SampleConfig(**{inner: value})} if field != inner else {field: value}
    list(itertools.islice(pipeline().stream(Request("a red bird", **{"count": 2, **asked})), 2))


def drawings() -> Any:
    pipeline()  # before the watch is on
    numbers = [
        float("nan"),
        float("inf"),
        -1,
        -1.5,
        0,
        1,
        2,
        3,
        0.5,
        1e-30,
        1e30,
        1e300,
        10**9,
        2**31,
        2**63 - 1,
        2**63,
        2**64,
        10**30,
    ]
    whole = {"count", "seed", "batch", "sampling.ahead"}  # the command line takes no other numbers there
    kinds = {
        True: st.integers(-4, 70) | st.sampled_from([n for n in numbers if type(n) is int]),
        False: st.sampled_from(numbers) | st.floats(-4, 4),
    }
    return st.sampled_from(REQUEST).flatmap(lambda f: st.tuples(st.just(("request", (f,))), kinds[f in whole]))


def prompts() -> Any:
    pipeline()  # before the watch is on
    words = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
        ["a red bird", "..", "/", "\udcff", "a\0b", "CON", "."]
    )
    return st.builds(lambda text, times: text * times, words, st.sampled_from([1, 1, 1, 1, 3, 50, 500]))


def draw_prompt(prompt: str) -> None:
    """The picture, its folder, its file, the sheet; and the caption that the model would end it with."""
    drawer = pipeline()
    pictures = drawer(prompt, count=1)
    folder = prompt_folder(GROUND().case / "out", prompt)
    assert prompt_folder(GROUND().case / "out", prompt) == folder
    assert folder.parent == GROUND().case / "out"
    pictures[0].save(folder / "0.png")
    contact_sheet(pictures)
    drawer.complete(prompt, [0], SampleConfig())


def primes() -> dict[str, Tree]:
    pipeline()  # before the watch is on
    return kinds_data.picture_files()


def prime(folder: Path, tree: str) -> None:
    file = next(folder.iterdir(), folder / "gone.png")
    list(pipeline().stream(Request("a red bird", prime=str(file))))


def read_prompt_folder(folder: Path, tree: str) -> None:
    prompt_folder(folder, "a red bird")


# Files that people write.


TOML = """steps = 20
seed = 3
[model]
layers = 3
levels = [8, 5, 5]
std = [0.5, 0.5, 0.5, 1]
[data]
path = "birds"
flip = true
[optim]
lr = 1e-3
betas = [0.9, 0.95]
[machine]
precision = "float32"
"""


def read_settings(folder: Path, tree: str) -> None:
    settings.merge(preset(next(iter(PRESETS))), settings.read_toml(folder / "a.toml")).check()


@cache
def vqgan_config() -> Any:
    state = kinds_foreign.vqgan().state_dict()
    return pretrained.vqgan_config(state, "a.ckpt")


def read_yaml(folder: Path, tree: str) -> None:
    pretrained.compare(vqgan_config(), pretrained.read_yaml(folder / "a.yaml"), folder / "a.yaml")


KINDS = [
    Values(name="settings", strategy=lambda: st.tuples(st.sampled_from(PLACES), ODD), call=set_one, names=leaf),
    Values(name="settings trained with", strategy=trainings, call=train_one, names=either),
    Values(name="settings drawn with", strategy=drawings, call=draw_one, names=lambda case: [case[0][1][0].rpartition(".")[2].replace("_", "-")]),
    Values(name="prompts", strategy=prompts, call=draw_prompt, names=lambda case: ["prompt", "beginning", "caption"]),
    Files(name="prime", make=primes, read=prime, vary=wounded, refused=("foreign", "text")),
    Files(name="prompt.json", make=lambda: {"out": {"a_red_bird/prompt.json": b'{"prompt": "a red bird"}'}}, read=read_prompt_folder, vary=wounded),
    Files(name="toml", make=lambda: {"a": {"a.toml": TOML.encode()}}, read=read_settings, vary=wounded, names=(*SETTINGS, "no setting")),
    Files(name="yaml", make=lambda: {"a": {"a.yaml": kinds_foreign.YAML.encode()}}, read=read_yaml, vary=wounded),
]  # fmt: skip
