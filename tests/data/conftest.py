"""What is fetched while data is tested lies in a folder of the test's own."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("tessera.data.shards.CACHE", tmp_path / "cache")
