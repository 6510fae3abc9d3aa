"""What is decided before torch is loaded."""

import subprocess
import sys

from tessera.machine import launch


def test_waiting_threads_sleep_unless_the_user_said_otherwise(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    launch.wait_politely()
    assert launch.os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    launch.wait_politely()
    assert "GOMP_SPINCOUNT" not in launch.os.environ


def test_the_command_line_decides_how_threads_wait_before_torch_is_loaded():
    code = "import os, sys, tessera.cli as c; c.main(['--version']); print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "1000 False"
