"""The main journey on a toy: a folder in, a model, pictures and a report out; killed on the way, it goes on."""

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch

from ranks import main_with
from tessera.cli import main
from tessera.config import (
    FSQ,
    AnyOrderConfig,
    DataConfig,
    DVAEConfig,
    LearnConfig,
    MachineConfig,
    NoPerceptual,
    OptimConfig,
    TextToImageConfig,
    TokensConfig,
    TrainConfig,
    TransformerConfig,
    seconds,
)
from tessera.config.presets import preset
from tessera.config.recipes import RECIPES, REPEATS, WIDTHS, levels_for, recipes
from tessera.data.check import Checked, Health
from tessera.data.codes import Codes
from tessera.data.sources import Pair
from tessera.errors import REQUEUE, ConfigError
from tessera.generate import defaults
from tessera.journeys import birds, choice, stages
from tessera.journeys import learn as learning
from tessera.store.run import Run
from tessera.train.signals import Interrupted


def test_learn_from_a_folder(bird_folder, tmp_path, capsys):
    args = [
        "learn",
        str(bird_folder),
        "--out",
        str(tmp_path),
        "--budget",
        "3s",
        "--samples",
        "4",
        "--pixels",
        "32",
        "--grid",
        "8",
    ]
    main(args)
    out = capsys.readouterr().out
    assert "40 captioned pictures" in out
    assert "nats per code" in out
    for name in ("report.html", "figures.json", "contact-sheet.png", "learn.json", "codes/index.json"):
        assert (tmp_path / name).stat().st_size > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 4 + 4
    assert "http" not in page.replace("http://www.w3.org", ""), "the page must be self-contained"
    before = Run(tmp_path).latest()
    main(args)
    assert Run(tmp_path).latest() == before, "the finished command has nothing left to learn"


OLD = choice.Choice(
    pixels=64, layers=2, channels=3, hidden=64, levels=(6, 6, 6), dim=192, depth=4, batch=32, text_len=24, vocab=4096,
    views=4, flip=True, crop=0.75, holdout=0.05, dropout=0.1,
)  # fmt: skip
"""As an earlier release chose."""


def by_steps(monkeypatch, steps: int, **changes: object) -> None:
    """Let both stages of `learn` take so many steps, whatever the clock says."""
    rarely = {"budget": "", "valid_every": 0, "preview_every": 0, "save_every": 10**6}

    def fixed(*args) -> tuple[TrainConfig, ...]:
        return tuple(dataclasses.replace(c, steps=steps, **rarely, **changes) for c in stages.stages(*args))

    monkeypatch.setattr(learning, "stages", fixed)
    monkeypatch.setattr(learning, "prior_budget", lambda *args: "")


def test_the_prior_gets_what_is_left_of_the_time(tmp_path):
    config, tokenizer = LearnConfig(pictures="birds", budget="100s"), Run(tmp_path)
    chosen = dataclasses.replace(OLD, tokenizer_share=0.25)
    left = lambda **more: stages.prior_budget(config, dataclasses.replace(chosen, **more), tokenizer)
    assert left() == "85s", "5 for the search and 10 for the report"
    tokenizer.metrics.write_text('{"step": 1, "elapsed": 3.0}\n{"step": 9, "elapsed": 10.0}\n')
    assert left() == "75s"
    assert left(spent=20.0) == "55s", "checking and encoding took 20"
    assert left(spent=70.0) == "30s", "half of its share at the least"
    config = LearnConfig(pictures="birds", budget="1h")
    assert left(spent=20.0) == f"{3600 - 10 - 20 - 180 - 45}s"


@pytest.mark.parametrize("learned", [200.0, 900.0, 40_000.0])
def test_a_stopped_prior_comes_to_a_good_end_by_the_budget_that_is_named(tmp_path, learned):
    tokenizer, prior = Run(tmp_path / "tokenizer"), Run(tmp_path / "prior")
    for run, elapsed in ((tokenizer, 300.0), (prior, learned)):
        run.folder.mkdir()
        run.metrics.write_text(f'{{"step": 9, "elapsed": {elapsed}}}\n')
    chosen = dataclasses.replace(OLD, spent=40.0)
    budget = stages.good_end(chosen, tokenizer, prior)
    asked = LearnConfig(pictures="birds", budget=budget)
    more = seconds(stages.prior_budget(asked, chosen, tokenizer)) / learned
    assert more >= 1.15, "the rate has time to fall"
    assert more <= 1.15 + 60 / learned, "and the end comes soon"


def test_a_stop_says_how_to_come_to_a_good_end(bird_folder, tmp_path, monkeypatch, capsys):
    by_steps(monkeypatch, 2)
    whole = learning.run_stage

    def stopped(title, *rest):
        if title == "Prior":
            raise Interrupted("Interrupted at step 2.")
        return whole(title, *rest)

    monkeypatch.setattr(learning, "run_stage", stopped)
    command = ["learn", str(bird_folder), "--out", str(tmp_path), "--pixels", "32", "--perceptual", "none"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--no-search"])
    assert ended.value.code == REQUEUE
    assert "For a good end soon, the same command with: --budget 1m" in capsys.readouterr().out


def test_more_time_and_more_pictures_go_on_from_what_is_there(bird_folder, tmp_path, monkeypatch, capsys):
    """Two steps, and then five: the clock has no part in it."""
    pictures, out = Path(shutil.copytree(bird_folder, tmp_path / "birds")), tmp_path / "run"
    by_steps(monkeypatch, 2)
    more = [
        "--out",
        str(out),
        "--samples",
        "2",
        "--pixels",
        "32",
        "--perceptual",
        "none",
        "--no-search",
        "--device",
        "cpu",
    ]
    main(["learn", str(pictures), "--budget", "2s", *more])
    tokenizer, first = Run(out / "tokenizer").latest(), Run(out).latest()
    weights = (tokenizer / "weights.safetensors").read_bytes()
    birds.draw_folder(tmp_path / "new", 5, 32, 99)
    for path in (tmp_path / "new").iterdir():
        path.rename(pictures / f"new-{path.name}")
    by_steps(monkeypatch, 5)
    main(["learn", str(pictures), "--budget", "4s", *more])
    assert "the prior goes on until all that was done took 4s" in capsys.readouterr().out
    assert Run(out / "tokenizer").latest() == tokenizer
    last = Run(out).latest()
    assert [first.name, last.name] == ["step-000002", "step-000005"]
    assert (last / "image_tokenizer/weights.safetensors").read_bytes() == weights
    assert len(Codes(out / "codes")) == 45
    figures = json.loads((out / "figures.json").read_text())
    assert sum(map(int, re.findall(r"(\d+) (?:learned|held out)", figures["captioned pictures"]))) == 45
    assert defaults.kept(out).checkpoint == Run(out).best().name


def test_a_collapsed_tokenizer_is_trained_again_at_half_the_rate(bird_folder, tmp_path, monkeypatch, capsys):
    by_steps(monkeypatch, 2)
    rates = []
    monkeypatch.setattr(learning, "draw_and_report", lambda *args: None)
    monkeypatch.setattr(learning, "collapsed", lambda run: rates.append(run.config().optim.lr) or len(rates) < 3)
    args = ["--out", str(tmp_path), "--pixels", "32", "--perceptual", "none", "--no-search", "--device", "cpu"]
    main(["learn", str(bird_folder), *args])
    assert rates == [4e-3, 2e-3, 1e-3]
    assert capsys.readouterr().out.count("codes collapsed. Again") == 2
    assert [row["step"] for row in Run(tmp_path / "tokenizer").read_metrics() if "held" in row] == [0], "it began again"
    assert json.loads((tmp_path / "learn.json").read_text())["tokenizer_rate"] == 1e-3
    main(["learn", str(bird_folder), *args])
    assert len(rates) == 3, "what was settled stays so"


def test_a_tokenizer_that_collapses_at_every_rate_is_told_and_its_time_counts(
    bird_folder, tmp_path, monkeypatch, capsys
):
    by_steps(monkeypatch, 2)
    monkeypatch.setattr(learning, "draw_and_report", lambda *args: None)
    monkeypatch.setattr(learning, "collapsed", lambda run: True)
    monkeypatch.setattr(learning, "trained", lambda run: 1000.0)
    args = ["--out", str(tmp_path), "--pixels", "32", "--perceptual", "none", "--no-search", "--device", "cpu"]
    main(["learn", str(bird_folder), *args])
    assert "collapsed at every rate that was tried" in capsys.readouterr().out
    assert json.loads((tmp_path / "learn.json").read_text())["spent"] > 2000, "the prior makes room for both"


def test_a_tokenizer_has_collapsed_where_its_last_codes_are_all_alike(tmp_path):
    run = Run(tmp_path)
    run.metrics.write_text('{"step": 1, "loss": 1}\n')
    assert not learning.collapsed(run), "nothing was measured"
    run.metrics.write_text('{"step": 1, "held_perplexity": 1.0}\n{"step": 900, "held_perplexity": 40.0}\n')
    assert not learning.collapsed(run)
    run.metrics.write_text('{"step": 1, "held_perplexity": 40.0}\n{"step": 900, "held_perplexity": 1.02}\n')
    assert learning.collapsed(run)
    run.metrics.write_text('{"step": 9, "held_perplexity": 1.02}\n')
    assert not learning.collapsed(run), "it is too early to say"


def test_learn_killed_in_every_stage_goes_on(ranks, bird_folder, tmp_path):
    command = main_with(["learn", str(bird_folder), "--out", str(tmp_path), "--budget", "2s", "--samples", "2", "--pixels", "32", "--no-search"])  # fmt: skip
    for sign in ("tokenizer/step-000000", "step-000000"):
        process = ranks.start(0, command)
        deadline = time.monotonic() + 120
        while (
            process.poll() is None
            and not (tmp_path / sign / "weights.safetensors").is_file()
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        time.sleep(0.5)
        process.kill()
        process.wait()
    ranks.run(0, command)
    assert (tmp_path / "report.html").is_file()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert float(figures["best held-out loss, nats per code"].split()[0]) > 0


def test_learn_in_two_processes_trains_as_one_model(ranks, bird_folder, tmp_path):
    """Also where the first start was killed: the second goes on, and no stage of the first misleads its processes."""
    command = main_with(["learn", str(bird_folder), "--out", str(tmp_path), "--budget", "2s", "--samples", "2", "--pixels", "32", "--perceptual", "none", "--no-search", "--device", "cpu"])  # fmt: skip
    first = ranks.start(2, command)
    deadline = time.monotonic() + 120
    while first.poll() is None and not (tmp_path / "step-000000").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    ranks.run(2, command)
    assert (tmp_path / "report.html").is_file()
    assert json.loads((tmp_path / "stages.json").read_text())["stages"][-1] == "prior"
    assert Run(tmp_path).config().optim.batch == 32


@pytest.mark.slow
def test_the_demo_learns_to_bind_colours(tmp_path, monkeypatch):
    """A demo cut down to minutes finds far more of the asked colours than chance would, which is 0.17 on average.

    Its stages take fixed numbers of steps, so that it does not depend on the clock. Measured: 0.49 of the colours in its
    drawings (background 0.93, wings 0.53, body 0.50) and 0.77 in what its codes keep of pictures, in 3.5 minutes of one
    core.
    """
    small = {
        "pixels": 32,
        "layers": 2,
        "hidden": 32,
        "levels": (6, 6, 6),
        "dim": 96,
        "depth": 3,
        "views": 1,
        "dropout": 0.0,
    }
    rarely = {"budget": "", "valid_every": 0, "preview_every": 0, "save_every": 10**6}
    machine = MachineConfig(device="cpu", precision="float32", threads=1)
    choose, stages, draw_folder = learning.choose, learning.stages, birds.draw_folder

    def fixed(config: TrainConfig, steps: int, lr: float) -> TrainConfig:
        optim = dataclasses.replace(config.optim, lr=lr)
        return dataclasses.replace(config, steps=steps, optim=optim, machine=machine, **rarely)

    def by_steps(*args) -> tuple[TrainConfig, TrainConfig]:
        tokenizer, prior = stages(*args)
        return fixed(tokenizer, 250, 4e-3), fixed(prior, 500, 8e-3)

    monkeypatch.setattr(learning, "choose", lambda *args: dataclasses.replace(choose(*args), **small))
    monkeypatch.setattr(learning, "stages", by_steps)
    monkeypatch.setattr(learning, "prior_budget", lambda *args: "")
    monkeypatch.setattr(birds, "draw_folder", lambda folder, count, seed: draw_folder(folder, count, 32, seed))
    main(["demo", "--out", str(tmp_path), "--birds", "2000", "--questions", "60"])
    assert Run(tmp_path).latest().name == "step-000500"
    shares = json.loads((tmp_path / "colours.json").read_text())
    assert shares["all"] > 0.35


# What is chosen.


def health(count: int, side: int, caption: str = "a bird") -> Health:
    one = Checked(Pair("x", Path("x.png"), (caption,)), side, side, "")
    return Health("folder", (one,) * count, ())


def chosen_for(found: Health, monkeypatch, pace: float = 50.0, gpu: bool = False, **more) -> choice.Choice:
    """What `learn` chooses on a machine that learns from `pace` pictures a second."""
    monkeypatch.setattr(choice, "_text_length", lambda captions: 16)
    monkeypatch.setattr(choice, "choose_device", lambda name: torch.device("cuda" if gpu else "cpu"))
    config = LearnConfig(**{"pictures": "x", "perceptual": "none", **more})
    return choice.choose(config, found, MachineConfig(), lambda model, machine, batch: pace)


def test_sizes_follow_the_machine_and_the_budget(monkeypatch):
    sizes = lambda c: (c.tokenizer, c.pixels, c.grid, c.dim, c.depth)
    found = health(40, 300)
    assert sizes(chosen_for(found, monkeypatch, budget="119m")) == ("plain-s-64", 64, 8, 192, 3)
    assert sizes(chosen_for(found, monkeypatch, budget="2h")) == ("plain-s-64", 64, 8, 256, 6)
    assert sizes(chosen_for(found, monkeypatch, budget="6h")) == ("pyramid-s-128", 128, 8, 256, 6)
    assert sizes(chosen_for(found, monkeypatch, budget="1m", gpu=True)) == ("pyramid-m-256", 256, 16, 512, 12)
    assert sizes(chosen_for(health(40, 100), monkeypatch, budget="6h")) == ("pyramid-s-128", 64, 8, 256, 6)
    assert sizes(chosen_for(found, monkeypatch, grid=16, pixels=32)) == ("plain-s-64", 32, 16, 192, 3)


def test_small_squares_have_fewer_codes(monkeypatch):
    found = health(40, 300)
    codes = lambda pixels, grid: chosen_for(found, monkeypatch, pixels=pixels, grid=grid).levels
    assert [codes(64, 8), codes(128, 8), codes(32, 8), codes(64, 16)] == [
        (8, 5, 5, 5), (8, 5, 5, 5), (4, 4, 4), (4, 4, 4),
    ]  # fmt: skip
    assert levels_for((3, 3), 4) == (3, 3), "never more than the preset has"


def test_regularisation_follows_how_often_each_picture_is_seen(monkeypatch):
    """10 pictures a second for 60 % of 1,000 seconds are 6,000 pictures; 90 % of them are learned, 95 % from 1,000 on."""
    own = lambda c: (c.dropout, c.weight_decay, c.noise)
    often = chosen_for(health(100, 64), monkeypatch, pace=10, budget="1000s")
    assert often.tokenizer_share == 0.35, "instead of 0.25, with which there would be 66.7 epochs"
    assert often.epochs == 55.6
    assert own(often) == (0.2, 1.0, 0.4)
    rarely = chosen_for(health(1000, 64), monkeypatch, pace=10, budget="1000s")
    assert (rarely.epochs, rarely.tokenizer_share) == (6.3, 0.25)
    assert (rarely.shift, rarely.warmup_share) == (True, 0.5)
    in_any_order = chosen_for(health(1000, 64), monkeypatch, any_order=True)
    assert (in_any_order.shift, in_any_order.depth) == (False, 4), "the token shift reads above and to the left"
    assert own(rarely) == (0.0, 0.05, 0.0)
    assert own(chosen_for(health(1000, 64), monkeypatch, pace=20, budget="1000s")) == (0.1, 0.05, 0.0)
    assert (often.views, chosen_for(health(3000, 64), monkeypatch).views) == (16, 4)
    assert (rarely.views, chosen_for(health(1000, 64), monkeypatch, pace=20, budget="1000s").views) == (4, 7)
    assert chosen_for(health(50, 512, "left of a bird"), monkeypatch, crop=1.0).views == 1
    assert chosen_for(health(50, 512), monkeypatch, crop=1.0).views == 2


def test_what_looks_is_what_is_installed_unless_asked_for(monkeypatch):
    for there, asked, taken in ((True, "auto", "lite0"), (False, "auto", "none"), (True, "none", "none"),
                                (False, "lite0", "lite0")):  # fmt: skip
        monkeypatch.setattr(choice, "installed", lambda name, there=there: there)
        chosen = chosen_for(health(40, 64), monkeypatch, perceptual=asked)
        model = choice.tokenizer_model(chosen)
        assert (chosen.perceptual, chosen.tokenizer) == (taken, "pyramid-xs-64" if taken == "lite0" else "plain-s-64")
        assert chosen.tokenizer_rate == (2e-3 if taken == "lite0" else 4e-3)
        assert chosen.tokenizer_looks == (200 if taken == "lite0" else 400), "3,200 pictures"
        assert model.perceptual == (preset("pyramid-xs-64").model.perceptual if taken == "lite0" else NoPerceptual())


@pytest.mark.parametrize(
    "preset_name", ["pyramid-xs-64", "plain-xs-64", "plain-s-64", "pyramid-s-128", "pyramid-m-256"]
)
@pytest.mark.parametrize(
    ("pixels", "grid"), [(16, 8), (32, 8), (32, 16), (64, 8), (64, 16), (64, 32), (128, 8), (256, 8)]
)
def test_a_pyramid_is_cut_to_any_grid(preset_name, pixels, grid, monkeypatch):
    found = dataclasses.replace(
        chosen_for(health(40, 512), monkeypatch, pixels=pixels, grid=grid), tokenizer=preset_name
    )
    model = choice.tokenizer_model(found)
    model.check()
    assert (model.pixels, model.grid) == (pixels, grid)
    assert model.widths == preset(preset_name).model.widths[-len(model.widths) :]


def test_a_choice_that_was_written_down_is_kept(tmp_path, monkeypatch):
    """And one that an earlier release wrote means what it meant."""
    first = chosen_for(health(40, 64), monkeypatch)
    config, path = LearnConfig(pictures="x"), tmp_path / "learn.json"
    assert choice.remembered(path, config, lambda: first) == first
    assert choice.remembered(path, config, lambda: pytest.fail("it was chosen before")) == first
    with pytest.raises(ConfigError, match="--perceptual none, not lite0"):
        choice.remembered(path, dataclasses.replace(config, perceptual="lite0"), lambda: first)
    old = {
        "pixels": 64, "layers": 2, "channels": 3, "hidden": 64, "levels": [6, 6, 6], "dim": 192, "depth": 4, "batch": 32,
        "text_len": 24, "vocab": 4096, "views": 4, "flip": True, "crop": 0.75, "holdout": 0.05, "dropout": 0.1,
    }  # fmt: skip
    path.write_text(json.dumps(old))
    assert isinstance(choice.tokenizer_model(choice.remembered(path, config, lambda: first)), DVAEConfig)


def test_the_two_runs_of_a_choice_are_those_of_the_first_release(tmp_path):
    """A folder that an earlier release began is gone on with only where every setting is the same, but for those that may
    change: `stop_collapsed` is one."""
    chosen, machine = OLD, MachineConfig(device="cpu")
    config = LearnConfig(pictures="birds", captions="words", budget="30m", seed=5)
    data = DataConfig(path="birds", captions="words", holdout=0.05, crop=0.75, flip=True, truncate=True)
    common = {"seed": 5, "steps": 10**9, "machine": machine, "save_every": 50}
    tokenizer = TrainConfig(
        out=str(tmp_path / "tokenizer"), budget="450s", data=data, valid_every=200, preview_every=200, stop_collapsed=True,
        **common, model=DVAEConfig(pixels=64, layers=2, channels=3, hidden=64, quantizer=FSQ(levels=(6, 6, 6))),
        optim=OptimConfig(lr=2e-3, weight_decay=0.0, batch=32, warmup=50, betas=(0.9, 0.99)),
    )  # fmt: skip
    transformer = TransformerConfig(dim=192, depth=4, heads=3, attn_dropout=0.1, ff_dropout=0.1)
    prior = TrainConfig(
        out=str(tmp_path), budget="1080s", data=dataclasses.replace(data, codes=str(tmp_path / "codes")),
        tokens=TokensConfig(image=str(tmp_path / "tokenizer"), vocab=4096), valid_every=100, preview_every=400, **common,
        model=TextToImageConfig(text_len=24, transformer=transformer), optim=OptimConfig(lr=8e-3, batch=32),
    )  # fmt: skip
    assert stages.stages(config, chosen, machine, tmp_path) == (tokenizer, prior)
    rates = {dim: stages.stages(config, dataclasses.replace(chosen, dim=dim), machine, tmp_path)[1].optim.lr
             for dim in (64, 192, 193, 256, 512, 2048)}  # fmt: skip
    assert rates == {64: 8e-3, 192: 8e-3, 193: 3e-3, 256: 3e-3, 512: 1.5e-3, 2048: 1.5e-3}


def test_every_recipe_names_presets_that_agree():
    for r in RECIPES:
        assert isinstance(preset(r.prior).model, TextToImageConfig)
        assert isinstance(preset(r.any_order).model, AnyOrderConfig)
        for name in (r.tokenizer, r.plain):
            model = preset(name).model
            assert model.pixels == r.pixels
            assert preset(name).optim.weight_decay == 0.0, "as both have it in `stages`"
            dataclasses.replace(model, perceptual=NoPerceptual()).check()
    assert len(recipes()) == len(RECIPES) + 1 + 1 + len(REPEATS) + 1 + 1 + len(WIDTHS) + 1


def test_show_learn_prints_the_recipes_and_the_choice_with_its_reason(bird_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["show", "learn"])
    table = capsys.readouterr().out
    assert [line.split()[2] for line in table.splitlines()[1 : 1 + len(RECIPES)]] == [r.tokenizer for r in RECIPES]
    main(["show", "learn", str(bird_folder), "--budget", "3h", "--device", "cpu"])
    out = capsys.readouterr().out
    assert out.startswith(table)
    assert "40 captioned pictures, 3h, cpu" in out
    assert "from t2i-s-64" in out
    assert "the pictures allow 32, the recipe 64" in out
    main(["show", "learn", str(bird_folder), "--budget", "3h", "--device", "cpu", "--json"])
    chosen = json.loads(capsys.readouterr().out)
    measured = ("epochs",)  # anew by each call
    assert all(f"{name:<11} {value:<12} {reason}" in out for name, value, reason in chosen if name not in measured)
    assert {name for name, *_ in chosen} > {"prior", "epochs", "held out"}
    assert not list(tmp_path.iterdir()), "looking leaves nothing behind"


def test_the_demo_refuses_a_launcher(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        main(["demo", "--out", str(tmp_path / "demo")])
    assert "demo runs in one process" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
