"""Trackers: files that a real run wrote are read back; a failing tracker never stops training."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp())

import subprocess
import sys

import pytest

from small_runs import dvae_config, go
from tessera.config import TrackConfig
from tessera.errors import ConfigError
from tessera.journeys.preview import preview
from tessera.store.run import Run
from tessera.train import loop, trackers
from tessera.train.engines.single import SingleEngine
from tessera.train.job import build

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' libraries


def track(config, use: tuple[str, ...]) -> Run:
    config = dataclasses.replace(config, track=TrackConfig(use=use, project="tests"))  # type: ignore[arg-type]
    objective, run = build(config), Run(config.out)
    run.open(objective.config)
    tracker = trackers.choose(objective.config, run, "test", {})
    try:
        loop.train(objective.config, objective, SingleEngine(config.machine), run, tracker, preview)
    finally:
        tracker.close()
    return run


def config(folder: Path, out: Path, **changes):
    return dvae_config(folder, out, log_every=1, preview_every=3, **changes)


def test_tensorboard_holds_the_run_also_after_resuming(bird_folder, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(config(bird_folder, tmp_path, steps=3), ("tensorboard",))
    run = track(config(bird_folder, tmp_path, steps=6), ("tensorboard",))
    events = EventAccumulator(
        str(run.folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "histograms": 0}
    )
    events.Reload()
    rows = {r["step"]: r for r in run.read_metrics() if "loss" in r}
    found = {e.step: e.value for e in events.Scalars("loss")}
    assert found == pytest.approx({s: r["loss"] for s, r in rows.items()})
    assert {"lr", "norm", "samples_per_s", "temperature", "held_loss", "wait"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Images("samples")] == [3, 6]
    assert events.Histograms("codes")[-1].histogram_value.num > 0


def wandb_records(raw: bytes):
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    position, begun = 7, b""
    while position + 7 <= len(raw):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(raw[position + 4 : position + 6], "little"), raw[position + 6]
        begun += raw[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


def test_wandb_offline_holds_pictures_and_values(bird_folder, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = track(config(bird_folder, tmp_path / "run", steps=6), ("wandb",))
    (offline,) = (run.folder / "wandb").glob("offline-run-*")
    pictures = list((offline / "files" / "media" / "images").glob("samples_*.png"))
    assert len(pictures) == 2
    from wandb.proto import wandb_internal_pb2

    def losses() -> list[float]:
        found = []
        for data in wandb_records(next(offline.glob("*.wandb")).read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {(i.key or ".".join(i.nested_key)): i.value_json for i in record.history.item}
            found += [json.loads(items["loss"])] if "loss" in items else []
        return found

    wanted = [r["loss"] for r in run.read_metrics() if "loss" in r]
    until = time.monotonic() + 30
    while len(losses()) < len(wanted) and time.monotonic() < until:  # its service writes in a process of its own
        time.sleep(0.5)
    assert losses() == pytest.approx(wanted)
    assert json.loads((run.folder / "trackers.json").read_text())["wandb"] in offline.name


def test_trackio_holds_pictures_and_values(bird_folder, tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")
    folder = Path(trackio.TRACKIO_DIR)
    run = track(config(bird_folder, tmp_path / "run", steps=6), ("trackio",))
    from trackio.sqlite_storage import SQLiteStorage

    name = next(
        n
        for n in SQLiteStorage.get_runs("tests")
        if json.loads((run.folder / "trackers.json").read_text())["trackio"] in n
    )
    logs = SQLiteStorage.get_logs("tests", name)
    assert [r["loss"] for r in logs if "loss" in r] == pytest.approx(
        [r["loss"] for r in run.read_metrics() if "loss" in r]
    )
    assert sum("samples" in r for r in logs) == 2
    assert list(folder.rglob("*.png"))


def test_a_failing_tracker_is_told_once_and_training_goes_on(bird_folder, tmp_path, monkeypatch, capsys):
    class Broken:
        def __init__(self, config, run): ...

        def fail(self, *args):
            raise OSError("no network")

        log = notice = picture = histogram = checkpoint = close = fail

    monkeypatch.setitem(trackers.TRACKERS, "wandb", Broken)
    run = track(config(bird_folder, tmp_path, steps=6), ("wandb",))
    assert run.latest().name == "step-000006"
    assert capsys.readouterr().out.count("wandb failed") == 1


def test_nothing_imports_a_tracker():
    code = "import sys, tessera.train.loop, tessera.journeys.learn, tessera.compat.dalle_pytorch; print('wandb' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_a_missing_tracker_names_its_install_line(bird_folder, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match=r"pip install 'tessera-t2i\[trackio\]'"):
        track(config(bird_folder, tmp_path, steps=6), ("trackio",))


def test_the_rows_hold_what_a_reader_asks_for(bird_folder, tmp_path):
    run, _ = go(config(bird_folder, tmp_path, steps=2))
    row = next(r for r in run.read_metrics() if "loss" in r)
    assert {"step", "loss", "lr", "norm", "samples_per_s", "wait", "elapsed", "left_s", "temperature"} <= row.keys()
