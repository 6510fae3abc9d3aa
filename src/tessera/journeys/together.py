"""How `learn` works in several processes: the first does everything; the others train beside it, whatever it announces
in the run folder. It knows no stages."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tessera.config.merging import read_json
from tessera.errors import ConfigError
from tessera.files.atomic import write_whole
from tessera.machine.launch import launched

FILE = "stages.json"
LOOK_EVERY = 0.2
"""Seconds between two looks at the file. Who waits is ended by the launcher when the first process fails."""


class Announced:
    """The stages that one start of a job has begun so far, in a file of the run folder."""

    def __init__(self, folder: Path):
        self.path, self.stages = folder / FILE, list[str]()
        names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_STEP_ID")
        self.start = " ".join(os.environ.get(name, "") for name in names)

    def tell(self, stage: str) -> None:
        """Called by the first process before it begins a stage; alone it tells nobody."""
        if launched() > 1:
            self.stages.append(stage)
            write_whole(self.path, json.dumps({"start": self.start, "stages": self.stages}))

    def heard(self) -> Iterator[str]:
        """Every stage that is announced, by the other processes. It never ends by itself."""
        for i in itertools.count():
            while len(stages := self._read()) <= i:
                time.sleep(LOOK_EVERY)
            yield stages[i]

    def _read(self) -> list[str]:
        """Nothing where the file is of an earlier start, or is not there yet."""
        try:
            found = read_json(self.path, dict)
        except ConfigError:
            return []
        return found["stages"] if found.get("start") == self.start else []
