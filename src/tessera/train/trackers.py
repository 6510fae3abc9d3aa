"""Weights & Biases, TensorBoard and trackio as Trackers. Each library is imported where it is asked for."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from tessera.config import TrainConfig, to_dict
from tessera.config.merging import read_json
from tessera.errors import ConfigError, install
from tessera.files.atomic import write_whole
from tessera.store.run import Run
from tessera.train.track import JSONL, Screen, Several, Tracker


def choose(config: TrainConfig, run: Run, title: str, others: Mapping[str, Tracker]) -> Several:
    """metrics.jsonl, the screen, what is asked for, and others by name. Raises ConfigError where a library is not
    installed."""
    screen = Screen(title)
    asked = {**{name: TRACKERS[name](config, run) for name in config.track.use}, **others}
    return Several([JSONL(run), screen, *(Guarded(name, tracker, screen.notice) for name, tracker in asked.items())])


def remembered(run: Run, name: str) -> str:
    """The id of this run at a tracker: made once, so that a resumed run is continued there."""
    path = run.folder / "trackers.json"
    try:
        known = read_json(path, dict[str, str])
    except ConfigError:  # not there yet, or damaged: the tracker then shows a new run
        known = {}
    if name not in known:
        known[name] = secrets.token_hex(6)
        with run.written():
            write_whole(path, json.dumps(known))
    return known[name]


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What can be plotted."""
    return {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}


class Guarded:
    """A tracker that may fail: it is told once, and training goes on without it."""

    def __init__(self, name: str, inner: Tracker, notice: Callable[[str], None]):
        self.name, self.inner, self.tell = name, inner, notice
        self.works = True

    def _try(self, do: Callable[[], None]) -> None:
        if not self.works:
            return
        try:
            do()
        except Exception as error:  # whatever a network, a disk or a library can do
            self.works = False
            self.tell(f"{self.name} failed ({type(error).__name__}: {error}); training goes on without it.")

    def log(self, row: dict[str, Any]) -> None:
        self._try(lambda: self.inner.log(row))

    def notice(self, text: str) -> None:
        self._try(lambda: self.inner.notice(text))

    def picture(self, name: str, path: Path, step: int, caption: str) -> None:
        self._try(lambda: self.inner.picture(name, path, step, caption))

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None:
        self._try(lambda: self.inner.histogram(name, counts, step))

    def checkpoint(self, folder: Path, step: int) -> None:
        self._try(lambda: self.inner.checkpoint(folder, step))

    def close(self) -> None:
        self._try(self.inner.close)


class WandB:
    """Weights & Biases; WANDB_MODE=offline needs no account."""

    def __init__(self, config: TrainConfig, run: Run):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(f"wandb is not installed: {install('wandb')}.") from error
        self.library: Any = wandb
        os.environ.setdefault("WANDB_SILENT", "true")
        c = config.track
        self.run: Any = wandb.init(
            project=c.project, entity=c.entity or None, name=c.name or run.folder.name, id=remembered(run, "wandb"),
            resume="allow", dir=str(run.folder), config=to_dict(config),
        )  # fmt: skip

    def log(self, row: dict[str, Any]) -> None:
        self.run.log(numbers(row), step=row["step"])

    def notice(self, text: str) -> None: ...

    def picture(self, name: str, path: Path, step: int, caption: str) -> None:
        self.run.log({name: self.library.Image(str(path), caption=caption)}, step=step)

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None:
        thin = _thin(counts, 256)
        edges = [round(i * len(counts) / len(thin)) for i in range(len(thin) + 1)]
        self.run.log({name: self.library.Histogram(np_histogram=(thin, edges))}, step=step)

    def checkpoint(self, folder: Path, step: int) -> None:
        artifact = self.library.Artifact(f"{self.run.id}-model", type="model", metadata={"step": step})
        artifact.add_dir(str(folder))
        self.run.log_artifact(artifact)

    def close(self) -> None:
        self.run.finish()


class TensorBoard:
    """Event files in the run folder, below tensorboard/."""

    def __init__(self, config: TrainConfig, run: Run):
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ConfigError(f"tensorboard is not installed: {install('tensorboard')}.") from error
        self.writer: Any = SummaryWriter(str(run.folder / "tensorboard"))
        self.writer.add_text("config", f"```json\n{json.dumps(to_dict(config), indent=1)}\n```")

    def log(self, row: dict[str, Any]) -> None:
        for name, value in numbers(row).items():
            self.writer.add_scalar(name, value, row["step"])
        self.writer.flush()

    def notice(self, text: str) -> None: ...

    def picture(self, name: str, path: Path, step: int, caption: str) -> None:
        import numpy as np

        self.writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")
        self.writer.add_text(f"{name}/captions", caption, step)
        self.writer.flush()

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None:
        total = sum(counts)
        self.writer.add_histogram_raw(
            name, min=0, max=len(counts), num=total, sum=sum(i * n for i, n in enumerate(counts)),
            sum_squares=sum(i * i * n for i, n in enumerate(counts)), bucket_limits=list(range(1, len(counts) + 1)),
            bucket_counts=list(counts), global_step=step,
        )  # fmt: skip

    def checkpoint(self, folder: Path, step: int) -> None:
        self.writer.add_text("checkpoint", str(folder), step)

    def close(self) -> None:
        self.writer.close()


class Trackio:
    """trackio: a local dashboard; `trackio show` opens it."""

    def __init__(self, config: TrainConfig, run: Run):
        try:
            import trackio  # type: ignore[import-not-found]
        except ImportError as error:
            raise ConfigError(f"trackio is not installed: {install('trackio')}.") from error
        self.library: Any = trackio
        c = config.track
        name = f"{c.name or run.folder.name}-{remembered(run, 'trackio')}"
        self.run: Any = trackio.init(
            project=c.project, name=name, resume="allow", config=to_dict(config), embed=False, auto_log_gpu=False
        )

    def log(self, row: dict[str, Any]) -> None:
        self.library.log(numbers(row), step=row["step"])

    def notice(self, text: str) -> None: ...

    def picture(self, name: str, path: Path, step: int, caption: str) -> None:
        self.library.log({name: self.library.Image(str(path), caption=caption)}, step=step)

    def histogram(self, name: str, counts: Sequence[int], step: int) -> None:
        used = sum(1 for n in counts if n)
        self.library.log(
            {f"{name}/in_use": used, f"{name}/largest_share": max(counts) / max(sum(counts), 1)}, step=step
        )

    def checkpoint(self, folder: Path, step: int) -> None:
        self.library.log({"checkpoint": str(folder)}, step=step)

    def close(self) -> None:
        self.library.finish()


TRACKERS: dict[str, Callable[[TrainConfig, Run], Any]] = {
    "wandb": WandB,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
}


def _thin(counts: Sequence[int], bins: int) -> list[int]:
    """At most `bins` sums of neighbours."""
    if len(counts) <= bins:
        return list(counts)
    edges = [round(i * len(counts) / bins) for i in range(bins + 1)]
    return [sum(counts[a:b]) for a, b in pairwise(edges)]
