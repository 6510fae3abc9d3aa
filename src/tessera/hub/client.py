"""The hub itself, by huggingface_hub, which is imported only here; its errors become sentences. It knows no runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tessera.errors import CheckpointError, ConfigError, TesseraError, install

if TYPE_CHECKING:
    from huggingface_hub import HfApi

EXTRA = install("hub")


@dataclass(frozen=True)
class Found:
    """A repository as it is now."""

    commit: str
    private: bool
    files: dict[str, int]
    """Bytes by path."""


@dataclass(frozen=True)
class Sent:
    """A file on its way: its path there, and where its bytes are."""

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


class Client:
    """Models of one hub: that of HF_ENDPOINT, or huggingface.co. Who asks is known by HF_TOKEN or `hf auth login`."""

    @cached_property
    def api(self) -> HfApi:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise ConfigError(f"The hub needs its library: {EXTRA}.") from error
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        return HfApi(endpoint=endpoint, library_name="tessera")

    def find(self, repo: str, revision: str = "") -> Found | None:
        """The repository; None where there is none that this user may see."""
        api = self.api
        from huggingface_hub.errors import RepositoryNotFoundError

        with self.told(f"{repo} cannot be looked up"):
            try:
                info = api.model_info(repo, revision=revision or None, files_metadata=True)
            except RepositoryNotFoundError:
                return None
            files = {f.rfilename: f.size or 0 for f in info.siblings or ()}
            return Found(info.sha or "", bool(info.private), files)

    def fetch(self, repo: str, revision: str, files: Sequence[str]) -> Path:
        """These files, in a folder of the library's own cache that is called by its commit: what is there already is
        not fetched again, and a file that was cut off goes on where it ended."""
        with self.told(f"{repo} cannot be fetched"):
            return Path(self.api.snapshot_download(repo, revision=revision or None, allow_patterns=list(files)))

    def kept(self, repo: str, revision: str, files: Sequence[str]) -> Path | None:
        """What was fetched before of files with such names (* is any letters), without asking anybody."""
        try:
            return Path(self.api.snapshot_download(
                repo, revision=revision or None, allow_patterns=list(files), local_files_only=True
            ))  # fmt: skip
        except Exception:  # it is not there, or not whole; the library has several words for that
            return None

    def create(self, repo: str, private: bool) -> None:
        with self.told(f"{repo} cannot be created"):
            self.api.create_repo(repo, private=private, exist_ok=True)

    def read(self, repo: str, path: str) -> bytes:
        """One small file, as it is now."""
        with self.told(f"{path} of {repo} cannot be fetched"):
            return Path(self.api.hf_hub_download(repo, path)).read_bytes()

    def commit(self, repo: str, files: Sequence[Sent], gone: Sequence[str], message: str) -> str:
        """Send files and take others away, in one commit; returns its address. Large files go first, each by itself:
        where this is stopped, the same call sends only those that are not there yet."""
        api = self.api
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        adds = [CommitOperationAdd(f.path, f.content) for f in files]
        deletes = [CommitOperationDelete(path) for path in gone]
        with self.told(f"{repo} cannot be written"):
            made = api.create_commit(repo, [*adds, *deletes], commit_message=message, num_threads=2)
        return str(made.commit_url)

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Turn what the library raises, which is of many kinds, into a sentence."""
        try:
            yield
        except TesseraError:
            raise
        except Exception as error:
            raise Unreachable(f"{what}: {_reason(error)}") from error


class Unreachable(CheckpointError):
    """The hub said no, or nothing."""


def _reason(error: Exception) -> str:
    """What went wrong and what to do, by the name of the error's class, since those moved between releases."""
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "Error while uploading x", of which the cause says why
    status = getattr(getattr(error, "response", None), "status_code", 0)
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
    first = first.rstrip(".")
    if status in (401, 403) or type(error).__name__ in ("LocalTokenNotFoundError", "GatedRepoError"):
        return f"{first}. Log in with `hf auth login`, or set HF_TOKEN to a token that may do this."
    if type(error).__name__ == "RevisionNotFoundError":
        return f"{first}. Name a branch, a tag or a commit that is there, or none."
    return f"{type(error).__name__}: {first}. Give the same command again to go on where it stopped."
