"""The load of `bench/serve.py`, in short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tessera

BENCH = Path(tessera.__file__).parents[2] / "bench"


@pytest.mark.slow
def test_a_short_load_loses_nothing_and_finds_no_error(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(BENCH)!r}); import common; "
        f"common.RESULTS = __import__('pathlib').Path({str(tmp_path)!r}); import serve; serve.load(0.3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
