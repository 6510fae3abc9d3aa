"""Choose the reader for a data path. It knows no layout."""

from __future__ import annotations

from tessera.data import folder as folders
from tessera.data import hub, shards
from tessera.data.sources import Folder


def find(path: str, captions: str = "") -> Folder:
    """The pairs of a folder, of webdataset shards, or of a Hugging Face dataset."""
    if path.startswith(hub.PREFIX):
        return hub.scan(path, captions)
    return shards.scan(path, captions) if shards.are_shards(path) else folders.scan(path, captions)
