"""Ctrl-C and SIGTERM, to one process or to all of them: the step ends, the run saves, and nothing outlives it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ranks import ENVIRONMENT, Job, main_with
from small_runs import dvae_config, go
from tessera import cli
from tessera.config import DataConfig
from tessera.data.batches import NoCaptions, Pictures, WorkerDied, stream
from tessera.data.folder import scan
from tessera.data.sources import Pair
from tessera.errors import DataError
from tessera.store.run import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def pictures(folder: Path) -> Pictures:
    return Pictures(scan(str(folder)).pairs, DataConfig(), 16, 3, 0, NoCaptions())


def workers(ahead) -> list[int]:
    return [w.pid for w in ahead.batches._workers]


def test_workers_leave_signals_to_their_parent_from_their_first_moment(bird_folder):
    source = pictures(bird_folder)
    ahead = stream(source, len(source.pairs), 4, 0, 0, workers=2)
    for pid in workers(ahead):  # perhaps before they have run a line
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    plain = stream(source, len(source.pairs), 4, 0, 0)
    for _ in range(12):
        assert torch.equal(next(ahead).pixels, next(plain).pixels)
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, []), "the parent hears them"


def test_a_worker_that_dies_is_a_sentence_when_the_next_batch_is_asked_for(bird_folder):
    source = pictures(bird_folder)
    ahead = stream(source, len(source.pairs), 4, 0, 0, workers=1)
    next(ahead)
    os.kill(workers(ahead)[0], signal.SIGKILL)
    time.sleep(0.3)  # nothing is raised here

    def drain() -> None:
        for _ in range(9):
            next(ahead)

    with pytest.raises(WorkerDied, match=r"--data\.workers"):
        drain()


def test_a_picture_that_vanishes_is_a_sentence_without_a_traceback(tmp_path):
    source = Pictures([Pair("a", tmp_path / "a.png", ("x",))], DataConfig(), 16, 3, 0, NoCaptions())
    with pytest.raises(DataError) as error:
        next(stream(source, 1, 1, 0, 0, workers=1))
    assert "Traceback" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_worker_that_dies_while_the_run_stops_is_the_stop(bird_folder, tmp_path, monkeypatch):
    from tessera.train.objectives.dvae import TrainDVAE

    batches = TrainDVAE.batches

    def dying(self, start, rank=0, world=1):
        inner = batches(self, start, rank, world)
        yield from (next(inner) for _ in range(3))
        os.kill(os.getpid(), signal.SIGTERM)
        raise WorkerDied("killed")

    monkeypatch.setattr(TrainDVAE, "batches", dying)
    with pytest.raises(cli.Interrupted, match="step 3"):
        go(dvae_config(bird_folder, tmp_path, valid_every=0, save_every=99))
    assert Run(tmp_path).latest().name == "step-000003"


def test_a_worker_that_dies_by_itself_is_not_the_end_of_training(bird_folder, tmp_path, monkeypatch):
    from tessera.train.objectives.dvae import TrainDVAE

    def dying(self, start, rank=0, world=1):
        yield from ()
        raise WorkerDied("killed")

    monkeypatch.setattr(TrainDVAE, "batches", dying)
    with pytest.raises(WorkerDied, match="killed"):
        go(dvae_config(bird_folder, tmp_path, valid_every=0, save_every=99))


def test_sigterm_before_there_is_anything_to_save_ends_with_the_status_of_a_stop(monkeypatch, capsys):
    def work(args: list[str]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(9)

    monkeypatch.setitem(cli.COMMANDS, "train", work)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        cli.main(["train"])
    assert end.value.code == cli.REQUEUE
    assert "Give the same command again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, cli.REQUEUE), (signal.SIGINT, 130)])
def test_a_stop_that_becomes_an_error_in_somebody_elses_import_is_a_stop(monkeypatch, capsys, number, status):
    def work(args: list[str]) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(9)
        except KeyboardInterrupt:
            raise RecursionError from None  # numpy's, as torch imports it

    monkeypatch.setitem(cli.COMMANDS, "train", work)
    with pytest.raises(SystemExit) as end:
        cli.main(["train"])
    assert end.value.code == status
    assert "stopped" in capsys.readouterr().err


def test_a_stop_that_was_lost_in_an_import_ends_the_run_after_its_first_step(bird_folder, tmp_path):
    from tessera.train.signals import terminable

    with terminable():
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(9)
        with pytest.raises(cli.Interrupted, match="step 1"):
            go(dvae_config(bird_folder, tmp_path, valid_every=0, save_every=99))
    assert Run(tmp_path).latest().name == "step-000001"


# Real processes.


def command(pictures: Path, out: Path, steps: int) -> list[str]:
    return [
        "train", "dvae-xs-64", "--data.path", str(pictures), "--steps", str(steps),
        "--save-every", "100000", "--valid-every", "0", "--preview-every", "0", "--model.pixels", "16",
        "--model.layers", "2", "--model.hidden", "8", "--optim.batch", "4", "--data.workers", "2", "--machine.device",
        "cpu", "--machine.threads", "1", "--machine.precision", "float32", "--log-every", "1", "--out", str(out),
    ]  # fmt: skip


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(p) for p in found.stdout.split()]


def steps_logged(run: Run) -> int:
    return max((r["step"] for r in run.read_metrics() if "loss" in r), default=0)


Start = Callable[[list[str]], subprocess.Popen | Job]


def slowly(args: list[str]) -> subprocess.Popen:
    """From the first line of an interpreter on."""
    return subprocess.Popen(
        [sys.executable, "-m", "tessera", *args], env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def terminate_group(start: Start, args: list[str], run: Run, wait: float, first: int) -> tuple[int, str]:
    """SIGTERM for all processes of a job, `wait` seconds after it began or took a step beyond `first`."""
    process = start(args)
    deadline = time.monotonic() + 60
    while first >= 0 and process.poll() is None and steps_logged(run) <= first and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def assert_interrupted_runs_are_the_uninterrupted_one(
    start: Start, pictures: Path, folder: Path, steps: int, waits: list
) -> None:
    """`waits`: for each SIGTERM, whether it comes after a step, and how many seconds later."""
    peace, run = Run(folder / "peace"), Run(folder / "run")
    cli.main(command(pictures, peace.folder, steps))
    statuses = []
    for after_step, wait in waits:
        seen = steps_logged(run)
        args = command(pictures, run.folder, steps)
        status, errors = terminate_group(start, args, run, wait, seen if after_step else -1)
        statuses.append(status)
        assert "Traceback" not in errors, errors
        if status == 75 and run.latest():
            # The row of a step is written before it is saved, so that the step in flight is all that can be lost.
            assert steps_logged(run) - int(run.latest().name[5:]) <= 1
        elif not after_step:
            assert status in (75, -signal.SIGTERM, 0), "it came before the program could listen"
        else:
            assert status in (75, 0), f"{status}: {errors[-2000:]}"
    assert statuses.count(75) > len(waits) // 2
    cli.main(command(pictures, run.folder, steps))
    wanted, found = (load_file(r.folder / f"step-{steps:06d}/weights.safetensors") for r in (peace, run))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_sigterm_to_all_processes_of_a_run_loses_nothing(ranks, bird_folder, tmp_path):
    start = lambda args: ranks.start(0, main_with(args))
    assert_interrupted_runs_are_the_uninterrupted_one(start, bird_folder, tmp_path, 200, [(True, 0.02)])


@pytest.mark.slow
def test_twenty_sigterms_to_all_processes_at_random_moments_lose_nothing(bird_folder, tmp_path):
    noise = random.Random(7)
    waits = [(noise.random() < 0.8, noise.random() * 0.3) for _ in range(14)]
    waits += [(False, noise.random() * 8) for _ in range(6)]
    noise.shuffle(waits)
    assert_interrupted_runs_are_the_uninterrupted_one(slowly, bird_folder, tmp_path, 2000, waits)


def test_workers_end_with_a_parent_that_is_killed(ranks, bird_folder, tmp_path):
    run = Run(tmp_path / "run")
    process = ranks.start(0, main_with(command(bird_folder, run.folder, 10**6)))
    deadline = time.monotonic() + 60
    while steps_logged(run) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    left = children(process.pids[0])
    assert len(left) >= 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while (alive := [p for p in left if Path(f"/proc/{p}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive
    with run.held():
        pass  # nor does the lock outlive it
