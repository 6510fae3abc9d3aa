"""A run folder is claimed and locked, tells damage of every kind, and goes on from what is whole."""

import dataclasses
import json
import os
import shutil
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from small_runs import PLAIN, dvae_config, go, prior_config, spoil
from tessera import cli
from tessera.config import LearnConfig, OptimConfig
from tessera.data.check import check
from tessera.errors import CheckpointError, ConfigError, TesseraError
from tessera.evaluate.plots import save_plot
from tessera.files import own
from tessera.journeys.learn import learn
from tessera.journeys.preview import preview, reconstructions
from tessera.models import saved
from tessera.store.checkpoint import CHECKSUMS, SETTINGS, verify
from tessera.store.position import Position
from tessera.store.run import Run, checkpoint_of
from tessera.store.state import read_state, write_state
from tessera.train import trackers
from tessera.train.engines.single import SingleEngine, SingleTrainee
from tessera.train.job import build
from tessera.train.keep import SPOILED, Keeper, begin, newest
from tessera.train.loop import train
from tessera.train.optim import Schedule
from tessera.train.track import JSONL


class Heard:
    """A tracker that remembers what people were told."""

    def __init__(self):
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def log(self, *_: object) -> None: ...

    picture = histogram = checkpoint = close = log


@pytest.fixture(scope="module")
def vae(bird_folder, tmp_path_factory) -> Path:
    """Checkpoints of steps 3 and 6."""
    return go(dvae_config(bird_folder, tmp_path_factory.mktemp("run") / "vae", valid_every=0))[0].folder


@pytest.fixture(scope="module")
def prior(bird_folder, tmp_path_factory, vae) -> Path:
    return go(prior_config(bird_folder, tmp_path_factory.mktemp("run") / "prior", vae, valid_every=0))[0].folder


def copied(run: Path, to: Path) -> Run:
    """As a release without markers, locks and checksums left it, where `old` is asked for by `aged`."""
    shutil.copytree(run, to)
    return Run(to)


def aged(run: Run) -> Run:
    """As the first release left it."""
    for name in (own.MARKER, ".tessera-lock"):
        (run.folder / name).unlink(missing_ok=True)
    for checkpoint in run.checkpoints():
        for name in (CHECKSUMS, SETTINGS):
            (checkpoint / name).unlink()
    return run


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def rewrite_state(checkpoint: Path, change) -> None:
    state = read_state(checkpoint / "state")
    change(state)
    shutil.rmtree(checkpoint / "state")
    write_state(checkpoint / "state", state)


# Whose folder it is.


def test_a_folder_with_other_things_in_it_is_refused_before_anything_is_touched(bird_folder, tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".env").write_text("secret")
    with pytest.raises(ConfigError, match="Tessera did not begin it"):
        go(dvae_config(bird_folder, tmp_path))
    with pytest.raises(ConfigError, match="Tessera did not begin it"):
        learn(LearnConfig(pictures=str(bird_folder), out=str(tmp_path), budget="9s"), lambda title: None, print)  # type: ignore
    assert sorted(p.name for p in tmp_path.iterdir()) == [".env", ".git"]


def test_hidden_files_that_people_put_into_a_run_stay(bird_folder, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    (run.folder / ".git").mkdir()
    (run.folder / ".env").write_text("secret")
    go(dvae_config(bird_folder, run.folder, valid_every=0))
    assert (run.folder / ".git").is_dir()
    assert (run.folder / ".env").read_text() == "secret"


def test_a_run_of_the_first_release_goes_on(bird_folder, vae, tmp_path):
    run = aged(copied(vae, tmp_path / "vae"))
    _, at = go(dvae_config(bird_folder, run.folder, valid_every=0, steps=7))
    assert at.step == 7
    assert own.kind_of(run.folder) == "run"


def test_a_second_process_is_told_who_works_in_the_folder(ranks, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    hold = "import time; from tessera.store.run import Run\nwith Run({!r}).held(): print('held', flush=True); time.sleep(99)"
    holder = ranks.start(0, hold.format(str(run.folder)))
    until = time.monotonic() + 60
    while holder.said() != "held\n" and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(ConfigError, match=f"in use by process {holder.pids[0]} on"), run.held():
        pass
    holder.kill()
    holder.wait()
    with run.held():
        assert run.lock.held
    assert not run.lock.held


def test_the_command_line_holds_the_folder_while_it_trains(bird_folder, tmp_path, monkeypatch):
    seen = []

    def work(config, objective, engine, run, tracker, preview):
        seen.append((run.lock.held, config.out))
        raise TesseraError("enough")

    monkeypatch.setattr("tessera.train.loop.train", work)
    small = ["--model.pixels", "16", "--data.workers", "0", "--machine.threads", "1"]
    with pytest.raises(SystemExit):
        cli.main(["train", "dvae-xs-64", "--data.path", str(bird_folder), "--out", str(tmp_path / "run"), *small])
    assert seen == [(True, str(tmp_path / "run"))]
    assert (tmp_path / "run/.tessera-lock").read_text() == "", "nobody holds it any more"


# Settings.


def test_settings_without_config_json_are_those_of_the_checkpoint(bird_folder, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("[]")):
        damage(run.folder / "config.json")
        with pytest.raises(ConfigError, match="seed: 0 -> 7"):
            run.open(dvae_config(bird_folder, run.folder, valid_every=0, seed=7))
        (notice,) = run.open(dvae_config(bird_folder, run.folder))
        assert "; the settings are those of step-000006" in notice
        assert ".;" not in notice
        assert run.open(dvae_config(bird_folder, run.folder)) == []


def test_checkpoints_that_tell_no_settings_do_not_go_on_without_config_json(bird_folder, vae, tmp_path):
    run = aged(copied(vae, tmp_path / "vae"))
    run.make()
    (run.folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"Restore config\.json"):
        go(dvae_config(bird_folder, run.folder, seed=7))


def test_a_run_that_lost_its_config_json_is_trained_by_its_name(bird_folder, vae, tmp_path, capsys):
    run = copied(vae, tmp_path / "vae")
    (run.folder / "config.json").unlink()
    more = ["--data.workers", "0", "--machine.threads", "1", "--preview-every", "0"]
    cli.main(["train", str(run.folder), "--steps", "7", *more])
    said = "".join(capsys.readouterr().out.split())  # a line is broken where the terminal ends
    assert "config.json is missing; the settings are those of step-000006.".replace(" ", "") in said
    assert run.latest().name == "step-000007"
    (run.folder / "config.json").unlink()
    for checkpoint in run.checkpoints():
        shutil.rmtree(checkpoint)
    with pytest.raises(SystemExit):
        cli.main(["train", str(run.folder), *more])
    assert f"{run.folder} is not a run folder: it holds no readable config.json" in capsys.readouterr().err


def test_the_same_command_with_another_size_is_refused_by_learn(tmp_path):
    from tessera.journeys.learn import Choice, remembered

    sizes = {"pixels": 64, "layers": 2, "channels": 3, "hidden": 8, "levels": (3, 3), "dim": 8, "depth": 1, "batch": 4}
    rest = {"text_len": 8, "vocab": 300, "views": 1, "flip": False, "crop": 0.75, "holdout": 0.1, "dropout": 0.0}
    choice, path = Choice(**sizes, **rest), tmp_path / "learn.json"
    assert remembered(path, LearnConfig(), lambda: choice) == choice
    assert remembered(path, LearnConfig(pixels=64, grid=16), lambda: choice) == choice
    for other in (LearnConfig(pixels=32), LearnConfig(grid=8), LearnConfig(crop=1.0)):
        with pytest.raises(ConfigError, match="was begun with"):
            remembered(path, other, lambda: choice)
    path.write_text("[]")
    with pytest.raises(ConfigError, match=r"learn\.json"):
        remembered(path, LearnConfig(), lambda: choice)


def test_a_full_disk_is_a_sentence_when_a_run_goes_on(bird_folder, vae, tmp_path, monkeypatch):
    run = copied(vae, tmp_path / "vae")
    before = (run.folder / "config.json").read_text()

    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tessera.store.run.write_whole", full)
    monkeypatch.setattr("tessera.store.metrics.write_whole", full)
    with pytest.raises(CheckpointError, match="cannot be written"):
        run.open(dvae_config(bird_folder, run.folder))
    with pytest.raises(CheckpointError, match="cannot be written"):
        run.forget_after(3)
    assert (run.folder / "config.json").read_text() == before


def test_a_tokenizer_that_only_a_file_names_must_be_typed(bird_folder, prior, vae, tmp_path, capsys):
    from tessera.cli.train import _preset_or_run

    run = copied(prior, tmp_path / "prior")
    config = prior_config(bird_folder, run.folder, vae)
    assert _preset_or_run(str(run.folder)).tokens == config.tokens
    for checkpoint in run.checkpoints():
        shutil.rmtree(checkpoint)
    with pytest.raises(SystemExit):
        cli.main(["train", str(run.folder), "--data.path", str(bird_folder)])
    assert "--tokens.image" in capsys.readouterr().err


# Damage.

DAMAGE = {
    "a bit of the weights": lambda c: flip(c / "weights.safetensors"),
    "a bit of the optimiser": lambda c: flip(c / "optimizer/state.safetensors"),
    "a bit of the image tokenizer": lambda c: flip(c / "image_tokenizer/weights.safetensors"),
    "a shard": lambda c: (c / "optimizer/state.json").write_text('{"items": []}'),
    "no tokenizers": lambda c: [shutil.rmtree(c / f"{kind}_tokenizer") for kind in ("image", "text")],
    "no checksums": lambda c: (c / CHECKSUMS).unlink(),
    "checksums cut off": lambda c: (c / CHECKSUMS).write_text('{"sha256": {'),
    "checksums of something else": lambda c: (c / CHECKSUMS).write_text('{"sha256": {"/dev/zero": "0"}}'),
}
"""What checksums tell."""

OLD_DAMAGE = {
    "no optimiser": lambda c: shutil.rmtree(c / "optimizer"),
    "no state": lambda c: shutil.rmtree(c / "state"),
    "no weights": lambda c: (c / "weights.safetensors").unlink(),
    "weights cut off": lambda c: os.truncate(c / "weights.safetensors", 3000),
    "no config": lambda c: (c / "config.json").unlink(),
    "config is a list": lambda c: (c / "config.json").write_text("[]"),
    "another model": lambda c: (c / "config.json").write_text((c / "config.json").read_text().replace("16", "17")),
    "state is a list": lambda c: (c / "state/state.json").write_text("[]"),
    "state is nested": lambda c: (c / "state/state.json").write_text("[" * 100_000),
    "optimiser is a list": lambda c: (c / "optimizer/state.json").write_text("[]"),
    "optimiser without moments": lambda c: (c / "optimizer/state.json").write_text('{"items": []}'),
    "no schedule": lambda c: rewrite_state(c, lambda s: s.pop("schedule")),
    "a step below 0": lambda c: rewrite_state(c, lambda s: s["at"].update(step=-1)),
    "a count below 0": lambda c: rewrite_state(c, lambda s: s["at"].update(stale=-1)),
    "another step": lambda c: rewrite_state(c, lambda s: s["at"].update(step=2)),
    "time is not a number": lambda c: rewrite_state(c, lambda s: s["at"].update(elapsed=float("nan"))),
    "scale is a text": lambda c: rewrite_state(c, lambda s: s["schedule"].update(scale="1")),
    "a file in its place": lambda c: (shutil.rmtree(c), c.write_text("")),
    "an empty folder": lambda c: (shutil.rmtree(c), c.mkdir()),
}
"""What is noticed without them too."""


@pytest.mark.parametrize("name", [*DAMAGE, *OLD_DAMAGE, *(f"{name}, first release" for name in OLD_DAMAGE)])
def test_any_damage_to_the_newest_checkpoint_goes_back_to_the_one_before_and_says_so(
    bird_folder, prior, tmp_path, name
):
    run, told = copied(prior, tmp_path / "prior"), Heard()
    kind, _, old = name.partition(", ")
    if old:
        aged(run)
    (DAMAGE | OLD_DAMAGE)[kind](run.folder / "step-000006")
    objective = build(prior_config(bird_folder, run.folder, run.folder))
    state = newest(objective.networks, run, told)
    assert state.at.step == 3
    assert "step-000006" in told.notices[0]
    assert told.notices[0].endswith(". The checkpoint before it is taken.")
    assert kind not in DAMAGE or told.notices[0].count("step-000006 ") == 1, "named once"


def test_the_run_goes_on_from_the_one_before_to_the_same_end(bird_folder, prior, vae, tmp_path):
    run = copied(prior, tmp_path / "prior")
    for part in ("optimizer", "image_tokenizer", "text_tokenizer"):
        shutil.rmtree(run.folder / "step-000006" / part)
    again, _ = go(prior_config(bird_folder, run.folder, vae, valid_every=0))
    verify(again.latest())
    for part in ("", "image_tokenizer"):
        wanted = saved.read(prior / "step-000006" / part).state_dict()
        assert all(torch.equal(v, wanted[k]) for k, v in saved.read(again.latest() / part).state_dict().items())


def test_a_file_with_a_checkpoints_name_is_replaced_by_the_checkpoint(bird_folder, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    shutil.rmtree(run.folder / "step-000006")
    (run.folder / "step-000006").write_text("")
    go(dvae_config(bird_folder, run.folder, valid_every=0))
    verify(run.folder / "step-000006")


def test_every_file_of_a_checkpoint_has_a_checksum(prior):
    for checkpoint in Run(prior).checkpoints():
        listed = json.loads((checkpoint / CHECKSUMS).read_text())["sha256"]
        files = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
        assert set(listed) == files - {CHECKSUMS}
        assert {"optimizer/state.safetensors", "image_tokenizer/weights.safetensors", SETTINGS} < set(listed)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"..", b"../..", b"/", b"samples", b"step-000009", b"step-6"])
def test_best_names_nothing_but_a_checkpoint_of_this_run(vae, tmp_path, content):
    run, told = copied(vae, tmp_path / "vae"), Heard()
    (run.folder / "best").write_bytes(content)
    assert run.best().name == checkpoint_of(run.folder).name == "step-000006"
    newest({"model": saved.read(run.latest())}, run, told)
    assert "does not name a checkpoint of this run" in told.notices[0]


def test_drawing_passes_over_a_damaged_checkpoint_with_a_warning(vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    shutil.rmtree(run.folder / "step-000006" / "optimizer")
    assert checkpoint_of(run.folder).name == "step-000006", "drawing needs no optimiser"
    flip(run.folder / "step-000006" / "weights.safetensors")
    with pytest.warns(UserWarning, match=r"step-000006 is damaged: weights.safetensors.*Taking .*step-000003"):
        assert checkpoint_of(run.folder).name == "step-000003"
    flip(run.folder / "step-000003" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="No checkpoint of"):
        checkpoint_of(run.folder)
    with pytest.raises(CheckpointError, match="its checksum differs"):
        checkpoint_of(run.folder / "step-000003")


def test_a_link_with_a_checkpoints_name_is_passed_over_and_nothing_behind_it_is_touched(bird_folder, vae, tmp_path):
    run, other = copied(vae, tmp_path / "vae"), copied(vae, tmp_path / "other").folder
    (other / "step-000006/mine.txt").write_text("mine")
    before = {p: p.read_bytes() for p in other.rglob("*") if p.is_file()}
    shutil.rmtree(run.folder / "step-000006")
    for name in ("step-000001", "step-000006", ".step-000006"):
        (run.folder / name).symlink_to(other / "step-000006")
    (run.folder / "best").write_text("step-000006")
    assert run.named_best() is None
    with pytest.warns(UserWarning, match=r"step-000006 is damaged: it is a link.*Taking .*step-000003"):
        assert checkpoint_of(run.folder).name == "step-000003"
    told = Heard()
    assert newest({"model": saved.read(vae / "step-000003")}, run, told).at.step == 3
    assert any("step-000006 is damaged: it is a link" in notice for notice in told.notices)
    go(dvae_config(bird_folder, run.folder, valid_every=0))
    assert not (run.folder / "step-000006").is_symlink()
    verify(run.folder / "step-000006")
    assert (run.folder / "step-000001").is_symlink(), "a link is somebody else's"
    assert {p: p.read_bytes() for p in other.rglob("*") if p.is_file()} == before


def test_a_link_to_a_checkpoint_that_was_typed_is_followed(vae, tmp_path):
    (tmp_path / "link").symlink_to(vae / "step-000003")
    assert checkpoint_of(tmp_path / "link") == tmp_path / "link"


def test_a_newest_checkpoint_without_weights_is_told_when_drawing(vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    (run.folder / "step-000006/weights.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"step-000006 is damaged: weights.safetensors is missing.*step-000003"):
        assert checkpoint_of(run.folder).name == "step-000003"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_best_is_not_waited_for(vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    (run.folder / "best").unlink(missing_ok=True)
    os.mkfifo(run.folder / "best")
    assert run.named_best() is None
    assert run.best() == run.latest()


def test_a_damaged_line_of_metrics_is_left_out(vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    rows = run.read_metrics()
    with run.metrics.open("ab") as file:
        file.write(b'\xff\n[1]\n{"step": "x"}\n{"loss": 1.0}\n{"step": 6, "loss": 1' + b"0" * 400 + b"}\n")
        file.write(b'{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    assert run.read_metrics() == [*rows, {"step": 6, "loss": 1.0}]
    run.forget_after(6)
    assert run.read_metrics() == [*rows, {"step": 6, "loss": 1.0}]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"a": 1}', b'{"a": [1, 2]}'])
def test_what_is_only_a_cache_is_made_again(bird_folder, tmp_path, content):
    (tmp_path / "data.json").write_bytes(content)
    wanted = check(str(bird_folder), cache=tmp_path / "whole.json")
    assert check(str(bird_folder), cache=tmp_path / "data.json") == wanted
    assert json.loads((tmp_path / "data.json").read_text()) == json.loads((tmp_path / "whole.json").read_text())
    run = Run(tmp_path / "run")
    run.make()
    (run.folder / "trackers.json").write_bytes(content)
    assert trackers.remembered(run, "wandb") == trackers.remembered(run, "wandb")


# Order.


def test_steps_beyond_a_million_are_the_newest(bird_folder, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    moved = (run.folder / "step-000006").rename(run.folder / "step-999998")
    rewrite_state(moved, lambda state: state["at"].update(step=999_998))
    (moved / CHECKSUMS).unlink()
    (moved / SETTINGS).unlink()
    config = dvae_config(bird_folder, run.folder, valid_every=0, steps=1_000_003, save_every=2, keep=3)
    _, at = go(config)
    assert at.step == 1_000_003
    assert [p.name for p in run.checkpoints()] == ["step-1000000", "step-1000002", "step-1000003"]
    assert run.best() == run.latest() == run.folder / "step-1000003"
    objective = build(config)
    assert begin(objective, SingleEngine(PLAIN), run, Heard(), {"model": Schedule(config.optim)}, at) == run.latest()


# Spoiled steps.


def test_nothing_is_saved_while_steps_are_spoiled_and_the_good_one_stays(bird_folder, tmp_path, monkeypatch):
    config = dvae_config(bird_folder, tmp_path, steps=100, save_every=1, keep=1, valid_every=1)
    spoil(monkeypatch, set(range(4, 200)))
    with pytest.raises(
        TesseraError, match=rf"{SPOILED} steps in a row, to step 23.*last good checkpoint is step-000002"
    ):
        go(config)
    run = Run(tmp_path)
    assert {p.name for p in run.checkpoints()} - {run.best().name} <= {"step-000002", "step-000003"}
    assert (tmp_path / "step-000002").is_dir(), "no step was taken from the next one, so it may be to blame"
    assert int(run.best().name[5:]) <= 3, "a spoiled step is never the best"


def test_what_is_learned_at_an_absurd_rate_keeps_the_checkpoint_before(bird_folder, tmp_path):
    optim = OptimConfig(batch=4, lr=1e9, warmup=0)
    config = dvae_config(bird_folder, tmp_path, steps=60, save_every=5, valid_every=0, optim=optim)
    with pytest.raises(TesseraError, match=r"The last good checkpoint is step-000000"):
        go(config)
    assert Run(tmp_path).checkpoints()[0].name == "step-000000"


def test_a_save_that_fell_into_a_spoiled_streak_is_made_after_it(bird_folder, tmp_path, monkeypatch):
    spoil(monkeypatch, {2, 3})
    run, _ = go(dvae_config(bird_folder, tmp_path, steps=6, save_every=3, keep=9, valid_every=0))
    assert [p.name for p in run.checkpoints()] == ["step-000000", "step-000004", "step-000006"]


def test_a_stop_in_a_spoiled_streak_waits_for_something_to_save(bird_folder, tmp_path, monkeypatch):
    spoil(monkeypatch, {2, 3})
    config = dvae_config(bird_folder, tmp_path, steps=99, save_every=50, valid_every=0, preview_every=3)
    with pytest.raises(TesseraError, match="Interrupted at step 4; everything is saved"):
        go(config, lambda objective, path: os.kill(os.getpid(), 15))
    assert read_state(Run(tmp_path).latest() / "state")["at"]["spoiled"] == 0


def test_an_end_in_a_spoiled_streak_says_what_is_kept(bird_folder, tmp_path, monkeypatch):
    spoil(monkeypatch, {6})
    config, told = dvae_config(bird_folder, tmp_path, valid_every=0), Heard()
    objective, run = build(config), Run(tmp_path)
    run.open(config)
    train(config, objective, SingleEngine(PLAIN), run, told, preview)
    assert told.notices[-1] == "The last 1 steps were not taken; step-000003 is the last checkpoint."
    assert run.latest().name == "step-000003"


# What a resumed run remembers.


def losses(monkeypatch, *values: float) -> None:
    found = iter(values)
    monkeypatch.setattr("tessera.train.look.evaluate", lambda *_: {"loss": next(found)})


def test_the_best_loss_survives_a_resume(bird_folder, tmp_path, monkeypatch):
    losses(monkeypatch, 1.0, 2.0)
    go(dvae_config(bird_folder, tmp_path, steps=2))
    _, at = go(dvae_config(bird_folder, tmp_path, steps=4))
    assert Run(tmp_path).best().name == "step-000002"
    assert (at.best, at.stale) == (1.0, 1)


def test_the_time_that_was_used_survives_a_resume(bird_folder, tmp_path):
    import time

    slow = dvae_config(bird_folder, tmp_path, steps=3, valid_every=0, preview_every=2)
    _, first = go(slow, lambda objective, path: time.sleep(1.0) or "")
    _, second = go(dvae_config(bird_folder, tmp_path, steps=4, valid_every=0))
    assert second.elapsed > first.elapsed > 1


def test_halvings_of_the_learning_rate_survive_a_resume(bird_folder, tmp_path, monkeypatch):
    losses(monkeypatch, 1.0, 2.0, 2.0)
    optim = OptimConfig(batch=4, warmup=0, schedule="plateau", plateau_patience=2)
    config = dvae_config(bird_folder, tmp_path, steps=3, valid_every=1, optim=optim)
    run, _ = go(config)
    again, at = Schedule(optim), Position()
    begin(build(config), SingleEngine(PLAIN), run, Heard(), {"model": again}, at)
    assert at.step == 3
    assert again.state() == {"scale": 0.5, "best": 1.0, "stale": 0}


def test_a_half_written_checkpoint_is_never_listed_and_is_cleared_away(bird_folder, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    before = {p.name for p in run.folder.iterdir()}

    def killed(folder: Path) -> None:
        shutil.copytree(vae / "step-000006", folder, dirs_exist_ok=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.save(9, killed, keep=2)
    assert run.latest().name == "step-000006"
    assert len({p.name for p in run.folder.iterdir()} - before) == 1
    run.open(dvae_config(bird_folder, run.folder))
    assert {p.name for p in run.folder.iterdir()} == before


def test_what_a_process_that_is_gone_left_half_written_is_cleared_away(bird_folder, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    left = [folder / f".tessera-{own.HOST}-{2**40}-x.json" for folder in (run.folder, run.samples)]
    for path in left:
        path.write_text("{")
    run.open(dvae_config(bird_folder, run.folder))
    assert not any(path.exists() for path in left)


def test_no_rank_writes_into_a_checkpoint_before_the_first_has_begun_it(bird_folder, tmp_path, monkeypatch):
    done: list[str] = []

    class Told(SingleEngine):
        def barrier(self) -> None:
            done.append("all meet")

    begin, commit = Run.begin, Run.commit

    class Writing(Future):
        def result(self, timeout: float | None = None) -> None:
            done.append("all written")

    save = SingleTrainee.save
    monkeypatch.setattr(SingleTrainee, "save", lambda *args: done.append("save") or save(*args) or Writing())
    monkeypatch.setattr(Run, "begin", lambda *args: done.append("begin") or begin(*args))
    monkeypatch.setattr(Run, "commit", lambda *args: done.append("commit") or commit(*args))
    config, run = dvae_config(bird_folder, tmp_path, steps=1, valid_every=0), Run(tmp_path)
    objective = build(config)
    run.open(config)
    train(config, objective, Told(PLAIN), run, Heard(), preview)
    assert done[:7] == ["begin", "all meet", "save", "all written", "all meet", "commit", "all meet"]


def test_a_checkpoint_is_saved_once_for_a_step(bird_folder, tmp_path, monkeypatch):
    steps, save = [], Keeper.save
    monkeypatch.setattr(Keeper, "save", lambda self, **how: steps.append(self.at.step) or save(self, **how))
    go(dvae_config(bird_folder, tmp_path, valid_every=0))
    assert steps == [0, 3, 6]


class Listening(SingleEngine):
    """One process that writes down what ranks compare."""

    def __init__(self):
        super().__init__(PLAIN)
        self.compared: dict[str, float] = {}

    def assert_replicas_equal(self, value: float, what: str) -> None:
        self.compared[what] = value


def test_ranks_compare_their_pairs(bird_folder, tmp_path):
    found = []
    for name, holdout in (("a", 0.2), ("b", 0.2), ("c", 0.5)):
        config = dvae_config(bird_folder, tmp_path / name, steps=1, valid_every=0)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, holdout=holdout))
        objective, run, engine = build(config), Run(config.out), Listening()
        if name == "b":
            objective.pairs = [*objective.pairs[1:], objective.pairs[0]]
        run.open(config)
        train(config, objective, engine, run, JSONL(run), preview)
        found.append(engine.compared["the data"])
    assert len(set(found)) == 3, "other pairs, and another order, are told apart"


# Whole or not at all.


def test_a_picture_is_written_whole_or_not_at_all(bird_folder, tmp_path, monkeypatch):
    from PIL import Image

    config = dvae_config(bird_folder, tmp_path, steps=1, valid_every=0, preview_every=1)
    run, _ = go(config, preview)
    path = run.samples / "step-000001.png"
    before = {p: p.read_bytes() for p in (path, run.folder / "loss.png")}

    save = Image.Image.save

    def half(self, file, *args, **kwargs):
        if not isinstance(file, Path):
            return save(self, file, *args, **kwargs)
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    objective = build(config)
    monkeypatch.setattr(Image.Image, "save", half)
    for work in (lambda: save_plot(run), lambda: reconstructions(objective, path)):
        with pytest.raises(OSError, match="No space"):
            work()
    assert {p: p.read_bytes() for p in before} == before
    assert not list(run.folder.rglob(".tessera-*-*"))


# What the run tells, and when.


class Slow(SingleTrainee):
    """A network whose optimiser's state is all there two steps after its save began."""

    taken = 0

    def apply(self, rate: float) -> None:
        self.taken += 1
        super().apply(rate)

    def save(self, folder: Path) -> Future:
        super().save(folder)
        written, began = Future(), self.taken
        written.set_result(None)
        written.done = lambda: self.taken >= began + 2
        return written


class Background(SingleEngine):
    trainee = Slow


def test_a_checkpoint_written_in_the_background_gets_its_name_when_it_is_there(bird_folder, tmp_path):
    config = dvae_config(bird_folder, tmp_path, valid_every=0, preview_every=1)
    run, seen = Run(tmp_path), []
    objective = build(config)
    run.open(config)
    look = lambda objective, path: seen.append([int(c.name[5:]) for c in run.checkpoints()]) or ""
    train(config, objective, Background(PLAIN), run, JSONL(run), look)
    assert seen == [[0], [0], [0], [0], [0, 3], [0, 3]], "the first one before the first step"
    assert run.latest().name == "step-000006", "the last one is waited for"


def test_a_preview_counts_the_codes_of_the_held_out_pictures(bird_folder, tmp_path):
    config, told = dvae_config(bird_folder, tmp_path, steps=1, valid_every=0, preview_every=1), Heard()
    told.histogram = lambda name, counts, step: told.notice(f"{name} {len(counts)} {sum(counts)} {step}")
    objective, run = build(config), Run(tmp_path)
    run.open(config)
    train(config, objective, SingleEngine(PLAIN), run, told, lambda objective, path: "")
    assert f"codes 12 {16 * len(objective.held)} 1" in told.notices


def test_a_spoiled_step_is_told_with_its_loss(bird_folder, tmp_path, monkeypatch):
    spoil(monkeypatch, {2})
    config, told = dvae_config(bird_folder, tmp_path, steps=3, valid_every=0), Heard()
    objective, run = build(config), Run(tmp_path)
    run.open(config)
    train(config, objective, SingleEngine(PLAIN), run, told, preview)
    assert told.notices == ["Step 2: the loss is nan and the gradient norm nan; the step was not taken."]


# Single parts of a checkpoint.


NOT_ITS_MEMORY = {
    "another shape": lambda memory: memory.update(exp_avg=torch.zeros(7, 7)),
    "whole numbers": lambda memory: memory.update(exp_avg=memory["exp_avg"].long()),
    "a number": lambda memory: memory.update(exp_avg=torch.tensor(0.0)),
    "steps for each weight": lambda memory: memory.update(step=memory["exp_avg"]),
    "one mean missing": lambda memory: memory.pop("exp_avg"),
    "nothing": lambda memory: memory.clear(),
}


@pytest.mark.parametrize("damage", NOT_ITS_MEMORY.values(), ids=list(NOT_ITS_MEMORY))
def test_what_an_optimiser_did_not_write_goes_back_to_the_checkpoint_before(bird_folder, vae, tmp_path, damage):
    run, told = aged(copied(vae, tmp_path / "vae")), Heard()
    folder = run.folder / "step-000006" / "optimizer"
    state = read_state(folder)
    name, memory = next(iter(state["moments"].items()))
    damage(memory)
    shutil.rmtree(folder)
    write_state(folder, state)
    assert newest(build(dvae_config(bird_folder, run.folder)).networks, run, told).at.step == 3
    assert f"of {name}" in told.notices[0]


def test_settings_that_were_edited_in_a_checkpoint_do_not_count(bird_folder, vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    (run.folder / "config.json").unlink()
    path = run.folder / "step-000006" / SETTINGS
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(ConfigError, match="seed: 0 -> 7"):
        run.open(dvae_config(bird_folder, run.folder, valid_every=0, seed=7))
    assert "those of step-000003" in run.open(dvae_config(bird_folder, run.folder, valid_every=0))[0]


def test_where_no_checkpoint_is_whole_the_one_that_was_wanted_is_named(vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    for checkpoint in run.checkpoints():
        flip(checkpoint / "weights.safetensors")
    with pytest.raises(CheckpointError, match="is whole: step-000006"):
        checkpoint_of(run.folder)


def test_a_folder_without_checkpoints_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no checkpoint\. Is it a run folder"):
        Run(tmp_path).best()


def test_saving_by_hand_keeps_as_many_as_were_asked_for(vae, tmp_path):
    run = copied(vae, tmp_path / "vae")
    whole = run.latest()
    assert run.save(9, lambda folder: shutil.copytree(whole, folder, dirs_exist_ok=True), keep=1) == run.latest()
    assert [c.name for c in run.checkpoints()] == ["step-000009"]


def test_weights_that_cannot_be_written_are_a_sentence(vae, tmp_path):
    run = copied(vae, tmp_path / "vae")

    def fail(folder: Path) -> None:
        raise SafetensorError("I/O error")

    with pytest.raises(CheckpointError, match=r"step 9 cannot be written.*I/O error.*before it is step-000006"):
        run.save(9, fail, keep=2)
