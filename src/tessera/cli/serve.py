"""Commands that serve runs over HTTP: serve, and studio, which shows pages too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tessera.cli.arguments import options
from tessera.cli.screen import say
from tessera.config import ServingConfig, StudioConfig
from tessera.errors import ConfigError, install


@dataclass(frozen=True, kw_only=True)
class ServeRunsConfig(ServingConfig):
    """Serve trained runs to any client of OpenAI's images interface. Each run is a model with the name of its folder:

    curl localhost:8000/v1/images/generations -H 'content-type: application/json' -d '{"prompt": "a red bird"}'

    Requests are drawn side by side; a seed always gives the same picture, whoever else is served. SIGTERM and Ctrl-C
    let what is being drawn finish, and take nothing new; a second one ends at once. /metrics is for Prometheus;
    docs/serving.md says the rest."""

    runs: tuple[str, ...]
    """The run folders. Where one has a clip run in its folder 'judge', this ranks for best_of; otherwise the run itself
    does."""

    def rules(self) -> None:
        super().rules()
        if not self.runs:
            raise ConfigError("Name a run: tessera serve RUN [RUN ...]")


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Around imports that need an extra; what is not installed becomes a sentence with the install line."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"{what} needs a package that is not installed ({error}): {install(extra)}.") from error


def serve(args: list[str]) -> None:
    """RUN [RUN ...]  Serve runs over HTTP, as OpenAI's images interface has it."""
    config = options(ServeRunsConfig, args, "serve")
    with needing("serve", "Serving"):
        from tessera.serve.server import serve as work
    work(config.runs, config, lambda address, models: say(f"Serving {', '.join(models)} at {address}/v1"))


def studio(args: list[str]) -> None:
    """[RUNS]  Open a page to train, draw, edit and judge; also an interface as serve has it."""
    if args and not args[0].startswith("-"):
        args = ["--runs", *args]
    config = options(StudioConfig, args, "studio [RUNS]")
    with needing("studio", "The Studio"):
        from tessera.studio.server import serve as work
    work(config, lambda address, models: say(f"The Studio is at {address} (open it in a browser; Ctrl-C ends it)"))
