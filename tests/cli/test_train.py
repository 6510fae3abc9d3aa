"""A command that stands in settings is run only where the user typed it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tessera.cli import main
from tessera.config import DataConfig, TrainConfig, to_dict


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("tessera.data.shards.CACHE", tmp_path / "cache")


@pytest.fixture
def strangers_run(tmp_path) -> Path:
    """A run folder whose settings would take pictures from a command."""
    plain = to_dict(TrainConfig(data=DataConfig(path=f"pipe:touch {tmp_path}/ran")))
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text(json.dumps(plain))
    return tmp_path / "evil"


def test_a_command_in_a_run_folder_is_shown_and_not_run(strangers_run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(strangers_run), "--steps", "2"])
    said = capsys.readouterr().err
    assert f"pipe:touch {tmp_path}/ran" in said
    assert "--data.path" in said
    main(["show", str(strangers_run)])
    assert "pipe:touch" in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("by", ["flag", "toml"])
def test_a_command_that_the_user_gives_is_run(strangers_run, tmp_path, capsys, by):
    command = f"pipe:touch {tmp_path}/ran"
    (tmp_path / "mine.toml").write_text(f"[data]\npath = '{command}'\n")
    given = ["--data.path", command] if by == "flag" else ["--config", str(tmp_path / "mine.toml")]
    with pytest.raises(SystemExit):  # there are no pictures in it
        main(["train", str(strangers_run), *given])
    assert (tmp_path / "ran").exists()
