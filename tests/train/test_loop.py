"""Training: resuming is the uninterrupted run, a kill loses nothing, accumulation is the whole batch, schedules, errors."""

import copy
import dataclasses
import json
import math
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ranks import main_with
from small_runs import DVAE, PLAIN, PRIOR, dvae_config, go, prior_config, spoil
from tessera.cli import main
from tessera.config import (
    FSQ,
    DataConfig,
    OptimConfig,
    TrainConfig,
)
from tessera.data.batches import Batch
from tessera.errors import CheckpointError, ConfigError, TesseraError
from tessera.files import own
from tessera.files.claim import LOCK
from tessera.journeys.preview import preview
from tessera.store.run import Run
from tessera.store.state import read_state, write_state
from tessera.train.engines.single import SingleEngine, SingleTrainee
from tessera.train.job import build
from tessera.train.keep import SPOILED, together
from tessera.train.loop import forward_backward, step_seed
from tessera.train.memory import in_memory
from tessera.train.moments import set_moments
from tessera.train.optim import Schedule, optimizer_of, tagged


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.latest() / "weights.safetensors")


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def tokenizer(bird_folder, tmp_path_factory) -> Path:
    return go(dvae_config(bird_folder, tmp_path_factory.mktemp("vae")))[0].folder


class Died(Exception):
    pass


def die(objective, path):
    raise Died


@pytest.mark.parametrize("kind", ["dvae", "t2i", "t2i muon plateau", "t2i reversible"])
def test_three_steps_and_three_more_are_six(bird_folder, tmp_path, tokenizer, kind):
    """Dropout, augmentation, Gumbel noise and condition dropout included, to the last bit."""

    def config(out: Path, **changes) -> TrainConfig:
        if kind == "dvae":
            return dvae_config(bird_folder, out, **changes)
        made = prior_config(bird_folder, out, tokenizer, **changes)
        if "muon" in kind:
            optim = OptimConfig(name="muon", batch=4, warmup=2, schedule="plateau", plateau_patience=1, accumulate=2)
            made = dataclasses.replace(made, optim=optim)
        if "reversible" in kind:
            stack = dataclasses.replace(PRIOR.transformer, reversible=True, shift=True)
            made = dataclasses.replace(made, model=dataclasses.replace(PRIOR, transformer=stack))
        return made

    whole, _ = go(config(tmp_path / "whole"))
    with pytest.raises(Died):  # in step 5; the newest checkpoint is of step 3 or of a better held-out loss at step 4
        go(config(tmp_path / "parts", preview_every=5), show=die)
    parts = Run(tmp_path / "parts")
    assert parts.latest().name in ("step-000003", "step-000004")
    go(config(tmp_path / "parts", preview_every=5))
    assert_same(weights(whole), weights(parts))
    a, b = (load_file(run.latest() / "state/state.safetensors") for run in (whole, parts))
    assert_same(a, b)
    assert read_state(parts.latest() / "state")["at"]["step"] == 6
    steps = [row["step"] for row in parts.read_metrics() if "held_loss" in row]
    assert steps == [2, 4, 6], "a resumed run writes no row twice"


def test_a_run_killed_at_any_moment_goes_on(ranks, bird_folder, tmp_path):
    """SIGKILL at growing delays, in the middle of checkpoint writes too; the end is that of the run left in peace."""
    command = ["train", "dvae-xs-64", "--data.path", str(bird_folder), "--steps", "60", "--save-every", "1",
               "--valid-every", "0", "--preview-every", "0", "--model.pixels", "16", "--model.layers", "2",
               "--model.hidden", "8", "--optim.batch", "4", "--data.workers", "0", "--machine.device", "cpu",
               "--machine.threads", "1", "--machine.precision", "float32", "--out"]  # fmt: skip
    main([*command, str(tmp_path / "peace")])
    run, kills = Run(tmp_path / "killed"), 0
    for extra in (0.05, 0.21, 0.33, 0.47):
        process = ranks.start(0, main_with([*command, str(run.folder)]))
        seen = len(run.checkpoints()) and run.latest().name
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if run.latest() and run.latest().name != seen:
                break
            time.sleep(0.01)
        time.sleep(extra)
        if process.poll() is None:
            kills += 1
            process.kill()
        process.wait()
    assert kills >= 2
    (run.folder / own.temporary("latest")).write_text("half")  # as a kill in the middle of a write leaves it
    (run.folder / ".step-000099").mkdir()
    main([*command, str(run.folder)])
    assert_same(weights(Run(tmp_path / "peace")), weights(run))
    assert {p.name for p in run.folder.glob(".*")} == {own.MARKER, LOCK}, "no temporary files are left over"


def test_ctrl_c_saves_and_says_how_to_go_on(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, preview_every=2)

    def interrupt(objective, path):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TesseraError, match="Interrupted at step 3; everything is saved"):
        go(config, interrupt)
    assert Run(tmp_path).latest().name == "step-000003"


def test_accumulated_micro_batches_give_the_gradient_of_the_batch(bird_folder, tmp_path, tokenizer):
    config = prior_config(bird_folder, tmp_path, tokenizer)
    still = dataclasses.replace(PRIOR.transformer, ff_dropout=0.0, attn_dropout=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(PRIOR, transformer=still, learn_padding=True))
    config = dataclasses.replace(config, optim=OptimConfig(batch=4, drop_condition=0.0))
    gradients = []
    for accumulate in (1, 4):
        objective, engine = build(config), SingleEngine(PLAIN)
        engine.add(objective.model, optimizer_of(config.optim))
        _loss, _ = forward_backward(objective, engine, next(objective.batches(0)), accumulate, 0.0)
        gradients.append({n: p.grad for n, p in objective.model.named_parameters() if p.grad is not None})
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted, atol=1e-5, rtol=1e-4, msg=name)


def test_only_matrices_decay(bird_folder, tmp_path, tokenizer):
    objective = build(prior_config(bird_folder, tmp_path, tokenizer))
    tags = tagged(objective.model)
    named = {id(p): n for n, p in objective.model.named_parameters()}
    assert all("embedding" in named[id(p)] for p in tags["embedding"])
    assert not any("norm" in named[id(p)] or "bias" in named[id(p)] for p in tags["matrix"])
    assert sum(map(len, tags.values())) == sum(1 for p in objective.model.parameters() if p.numel())
    groups = optimizer_of(OptimConfig(weight_decay=0.3))(objective.model).param_groups
    assert [g["weight_decay"] for g in groups] == [0.3, 0.3, 0.0, 0.0], "matrices and heads; embeddings and the rest"


def test_a_gradient_is_clipped_to_the_norm_that_was_asked_for():
    model = torch.nn.Linear(4, 1, bias=False)
    engine = SingleEngine(PLAIN)
    for clip, moved in ((0.5, 0.5), (0.0, 8.0), (100.0, 8.0)):
        trainee = engine.add(model, lambda model: torch.optim.SGD(model.parameters(), lr=1.0), clip)
        before = model.weight.detach().clone()
        trainee.backward(model(torch.full((1, 4), 4.0)).sum())
        assert float(engine.step({"model": 1.0})["model"]) == pytest.approx(8.0), "the norm before clipping"
        assert float((model.weight.detach() - before).norm()) == pytest.approx(moved, rel=1e-4)


def test_the_asked_share_of_captions_is_dropped(bird_folder, tmp_path, tokenizer):
    config = prior_config(bird_folder, tmp_path, tokenizer)
    objective = build(dataclasses.replace(config, optim=OptimConfig(batch=4, drop_condition=0.1)))
    tokens = torch.ones(4000, objective.model.config.text_len, dtype=torch.long)
    batch = Batch(tokens, torch.zeros(0, 0, 0, 0), torch.zeros(0, 0))
    torch.manual_seed(0)
    dropped = (objective.chance(batch).tokens != tokens).all(1).float().mean()
    assert 0.08 < float(dropped) < 0.12


def test_noise_is_of_the_seed_the_rank_and_the_step_and_the_same_in_every_release():
    assert len({step_seed(s, r, t) for s in range(3) for r in range(4) for t in range(100)}) == 1200
    assert step_seed(7, 1, 40) == 7_000_043_000_106, "runs that were begun go on with their noise"
    assert 0 <= step_seed(2**63 - 1, 8, 10**9) < 2**63


def test_ranks_end_together_and_only_the_one_that_failed_speaks():
    class Rank(SingleEngine):
        def __init__(self, others: float):
            super().__init__(PLAIN)
            self.others = others

        def least(self, x: float) -> float:
            return min(x, self.others)

    def fail() -> None:
        raise ConfigError("bad data")

    assert together(Rank(1.0), lambda: 7) == 7
    for others in (0.0, 1.0):
        with pytest.raises(ConfigError, match="bad data"):
            together(Rank(others), fail)
    with pytest.raises(SystemExit) as end:
        together(Rank(0.0), lambda: 7)
    assert end.value.code == 2


def test_schedules():
    rate = lambda name, step, done: Schedule(OptimConfig(lr=1.0, warmup=9, schedule=name, lr_end=0.1)).rate(step, done)
    assert rate("constant", 0, 0.0) == pytest.approx(0.1)
    assert rate("constant", 50, 0.9) == 1.0
    assert rate("cosine", 50, 0.5) == pytest.approx(0.55)
    assert rate("cosine", 50, 1.0) == pytest.approx(0.1)
    assert rate("exponential", 50, 0.5) == pytest.approx(math.sqrt(0.1))


def test_a_warm_up_by_share_lasts_as_long_as_the_training_says():
    rate = Schedule(OptimConfig(lr=1.0, warmup=9, warmup_share=0.25, schedule="constant")).rate
    assert [rate(100, done) for done in (0.0, 0.125, 0.25, 0.5)] == [0.0, 0.5, 1.0, 1.0]
    assert rate(0, 0.5) == pytest.approx(0.1)  # the steps are the least


def test_the_first_step_has_the_rate_that_was_asked_for():
    assert Schedule(OptimConfig(lr=1e-3, schedule="exponential", warmup=0)).rate(0, 0.0) == 1e-3


def test_plateau_halves_and_its_state_survives():
    schedule = Schedule(OptimConfig(lr=1.0, warmup=0, schedule="plateau", plateau_patience=2, lr_end=0.2))
    for loss in (3.0, 2.0, 2.5, 2.5):
        schedule.observe(loss)
    assert schedule.rate(5, 0.1) == 0.5
    again = Schedule(schedule.config)
    again.restore(json.loads(json.dumps(schedule.state())))
    for _ in range(8):
        again.observe(9.0)
    assert again.rate(5, 0.1) == 0.2


def test_early_stop_keeps_the_best(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, steps=500, valid_every=1, patience=2, save_every=50, keep=1)
    config = dataclasses.replace(config, optim=OptimConfig(batch=4, lr=3.0, warmup=0, clip=0.0, schedule="constant"))
    run, at = go(config)
    assert at.step < 500
    assert at.stale == 2
    rows = {r["step"]: r["held_loss"] for r in run.read_metrics() if "held_loss" in r}
    best = min(rows, key=rows.get)
    assert run.best().name == f"step-{best:06d}" or min(rows.values()) == math.inf


def test_a_budget_ends_the_run_and_the_schedule(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, steps=10**9, budget="2s", save_every=10**6, valid_every=0)
    began = time.monotonic()
    run, at = go(config)
    assert 2 <= at.elapsed < 4
    assert time.monotonic() - began < 20
    last = [r for r in run.read_metrics() if "lr" in r][-1]
    assert last["done"] == 1
    assert last["lr"] < 0.1 * config.optim.lr
    assert run.latest().name == f"step-{at.step:06d}"


def test_keeps_n_checkpoints_and_the_best(bird_folder, tmp_path):
    run, _ = go(dvae_config(bird_folder, tmp_path, save_every=1, keep=2, valid_every=0))
    assert [c.name for c in run.checkpoints()] == ["step-000005", "step-000006"]
    assert (tmp_path / "latest").read_text() == "step-000006"


def test_other_settings_in_the_same_folder_are_refused(bird_folder, tmp_path):
    go(dvae_config(bird_folder, tmp_path, steps=1))
    with pytest.raises(ConfigError, match=r"other settings \(seed: 0 -> 1\)"):
        go(dvae_config(bird_folder, tmp_path, steps=1, seed=1))
    go(dvae_config(bird_folder, tmp_path, steps=2))
    assert Run(tmp_path).latest().name == "step-000002"


def test_the_first_checkpoint_comes_before_the_first_step(bird_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tessera.train.loop.forward_backward", None)
    with pytest.raises(TypeError):
        go(dvae_config(bird_folder, tmp_path))
    assert Run(tmp_path).latest().name == "step-000000"


def test_a_full_disk_is_a_sentence_and_the_last_checkpoint_stays(bird_folder, tmp_path, monkeypatch):
    config = dvae_config(bird_folder, tmp_path)
    go(dataclasses.replace(config, steps=3))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tessera.store.run.write_whole", full)
    monkeypatch.setattr("tessera.models.saved.save_file", full)
    with pytest.raises(CheckpointError, match=r"cannot be written"):
        go(config)
    monkeypatch.undo()
    assert Run(tmp_path).latest().name == "step-000003"
    assert not list(tmp_path.glob(".step*"))
    go(config)
    assert Run(tmp_path).latest().name == "step-000006"


def test_an_unwritable_folder_is_a_sentence(bird_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        go(dvae_config(bird_folder, tmp_path / "file" / "run"))


def test_nan_stops_with_advice(bird_folder, tmp_path, monkeypatch):
    config = dvae_config(bird_folder, tmp_path, steps=SPOILED + 5, save_every=100, valid_every=0)
    spoil(monkeypatch, None)
    with pytest.raises(TesseraError, match=rf"{SPOILED} steps in a row.*--optim\.lr"):
        go(config)
    assert Run(tmp_path).latest().name == "step-000000"


def test_a_step_with_nan_is_not_taken_and_counted(bird_folder, tmp_path, monkeypatch):
    spoil(monkeypatch, {2, 3, 7})
    run, _ = go(dvae_config(bird_folder, tmp_path, steps=10, valid_every=0))
    rows = [r for r in run.read_metrics() if "lr" in r]
    assert sum(r.get("spoiled", 0) for r in rows) == 3
    assert all(math.isfinite(r["loss"]) for r in rows)
    assert all(v.isfinite().all() for v in load_file(run.best() / "weights.safetensors").values())


def test_a_damaged_newest_checkpoint_is_passed_over(bird_folder, tmp_path, capsys):
    config = dvae_config(bird_folder, tmp_path / "a", steps=9)
    run, _ = go(config)
    whole, _ = go(dataclasses.replace(config, out=str(tmp_path / "b")))
    weights = run.latest() / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    again, _ = go(config)
    wanted = load_file(whole.latest() / "weights.safetensors")
    found = load_file(again.latest() / "weights.safetensors")
    assert all(torch.equal(wanted[n], found[n]) for n in wanted)
    for checkpoint in again.checkpoints():
        (checkpoint / "state" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="No checkpoint"):
        go(dataclasses.replace(config, steps=12))


def test_previews_are_written(bird_folder, tmp_path, tokenizer):
    go(dvae_config(bird_folder, tmp_path / "a", steps=2, preview_every=2), preview)
    go(prior_config(bird_folder, tmp_path / "b", tokenizer, steps=2, preview_every=2), preview)
    for name in ("a", "b"):
        assert (tmp_path / name / "samples/step-000002.png").stat().st_size > 1000


def test_packed_codes_train_like_pictures(bird_folder, tmp_path, tokenizer):
    """Without augmentation, a run on packed codes sees what a run on pictures sees."""
    from tessera.data.codes import encode
    from tessera.data.folder import scan
    from tessera.tokens import image

    still = DataConfig(path=str(bird_folder), holdout=0.2, crop=1.0, workers=0)
    encode(scan(str(bird_folder)).pairs, image.load(Run(tokenizer).best()), tmp_path / "codes", 1, still, 0)
    losses = []
    for name, data in (("a", still), ("b", dataclasses.replace(still, path="", codes=str(tmp_path / "codes")))):
        run, _ = go(prior_config(bird_folder, tmp_path / name, tokenizer, data=data, steps=4))
        losses.append([r["held_loss"] for r in run.read_metrics() if "held_loss" in r])
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_training_learns(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, steps=150, valid_every=10, preview_every=0)
    run, _ = go(
        dataclasses.replace(
            config,
            optim=OptimConfig(batch=8, lr=5e-3, warmup=5),
            model=dataclasses.replace(DVAE, quantizer=FSQ(), hidden=24),
        )
    )
    held = [r["held_loss"] for r in run.read_metrics() if "held_loss" in r]
    assert held[-1] < 0.6 * held[0]


def test_the_arithmetic_of_a_step_is_counted(bird_folder, tmp_path, tokenizer):
    """Three forward passes; each matrix meets each position once, each position those before it."""
    from tessera.train.work import training_flops

    model = build(prior_config(bird_folder, tmp_path, tokenizer)).model
    c, t = model.config, model.config.transformer
    positions = c.text_len + c.grid * c.grid
    stack = sum(p.numel() for n, p in model.transformer.named_parameters() if p.ndim == 2)
    heads = c.text_len * model.text_head.weight.numel() + c.grid * c.grid * model.image_head.weight.numel()
    attention = 2 * t.depth * positions**2 * t.heads * t.head_dim
    wanted = 3 * 2 * (positions * stack + heads + attention)
    assert abs(training_flops(model) / wanted - 1) < 0.05
    run, _ = go(prior_config(bird_folder, tmp_path / "run", tokenizer, log_every=1))
    assert all(0 < r["mfu"] < 2 and 0 <= r["wait"] < 1 for r in run.read_metrics() if "loss" in r)


def test_a_profile_is_a_trace_and_a_table(bird_folder, tmp_path, capsys):
    small = ["--model.pixels", "16", "--model.layers", "2", "--model.hidden", "8", "--data.workers", "0"]
    main(["train", "dvae-xs-64", "--data.path", str(bird_folder), "--out", str(tmp_path / "run"), "--profile", *small])
    assert "convolution" in capsys.readouterr().out
    folder = tmp_path / "run-profile"
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert "Self CPU" in (folder / "profile.txt").read_text()
    assert not (tmp_path / "run").exists()


def test_state_survives_the_trip(tmp_path):
    tree = {"a": [1, 2.5, "x", None, True, {3: torch.arange(4), "t": (torch.ones(()), [])}]}
    write_state(tmp_path / "s", tree)
    again = read_state(tmp_path / "s")
    assert again["a"][:5] == tree["a"][:5]
    assert torch.equal(again["a"][5][3], torch.arange(4))
    assert again["a"][5]["t"][0] == 1
    (tmp_path / "s/state.json").write_text("{")
    with pytest.raises(CheckpointError, match="no readable training state"):
        read_state(tmp_path / "s")


# Parameters and optimisers.


def test_a_frozen_weight_is_not_trained_and_a_shared_one_once():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[0].weight.requires_grad_(False)
    model[2].weight = model[1].weight
    tags = {name: [id(p) for p in found] for name, found in tagged(model).items()}
    assert tags["matrix"] == [id(model[1].weight)]
    assert tags["other"] == [id(layer.bias) for layer in model], "a bias beside a frozen or shared weight learns"


def test_two_optimisers_remember_and_clear_as_one():
    def step(optimizer, model) -> None:
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters()), "no memory is held for gradients"

    torch.manual_seed(0)
    make, first = optimizer_of(OptimConfig(name="muon", lr=0.1)), torch.nn.Linear(3, 3)
    before = make(first)
    step(before, first)
    second = copy.deepcopy(first)
    after = make(second)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    step(before, first)
    step(after, second)
    assert_same(first.state_dict(), second.state_dict())


def test_a_step_count_lies_where_a_fused_optimiser_looks_for_it():
    model = torch.nn.Linear(2, 2, bias=False, device="meta")
    for fused, where in ((True, "meta"), (False, "cpu")):
        optimizer = torch.optim.AdamW(model.parameters())
        optimizer.param_groups[0]["fused"] = fused
        set_moments(optimizer, model, {"weight": {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2, 2)}})
        memory = optimizer.state[model.weight]
        assert (memory["step"].device.type, memory["exp_avg"].device.type) == (where, "meta")


# Micro-batches.


def test_ranks_meet_at_the_last_micro_batch_alone(bird_folder, tmp_path):
    class Asked(SingleTrainee):
        last: tuple[bool, ...] = ()

        def micro(self, last: bool):
            self.last = (*self.last, last)
            return super().micro(last)

    config = dvae_config(bird_folder, tmp_path)
    objective, engine = build(config), SingleEngine(PLAIN)
    engine.trainee = Asked
    trainee = engine.add(objective.model, optimizer_of(config.optim))
    forward_backward(objective, engine, next(objective.batches(0)), 4, 0.0)
    assert trainee.last == (False, False, False, True)


@pytest.mark.parametrize(
    ("error", "accumulate", "tries"),
    [
        (RuntimeError("shapes"), 1, [1]),
        (torch.OutOfMemoryError("full"), 1, [1, 2, 4]),
        (torch.OutOfMemoryError("full"), 4, [4]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Memory ran out")
def test_only_memory_is_tried_again_and_not_beyond_one_picture_at_a_time(error, accumulate, tries):
    asked = []

    def fail(parts):
        asked.append(parts)
        raise error

    engine = SingleEngine(PLAIN)
    engine.add(torch.nn.Linear(1, 1), optimizer_of(OptimConfig()))
    with pytest.raises(type(error), match=str(error)):
        in_memory(fail, 4, accumulate, engine.redo)
    assert asked == tries
