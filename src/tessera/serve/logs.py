"""A line of JSON for whatever happens. It writes no prompts unless asked to; sentences of errors may quote them."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback

LOG = logging.getLogger("tessera.serve")


class Lines(logging.Formatter):
    """time, level, event, and what else there is to say."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "said", {}),
        }
        if record.exc_info and record.exc_info[1]:
            said |= _frames(record.exc_info[1])
        return json.dumps(said, ensure_ascii=True, default=str)


def _frames(error: BaseException) -> dict[str, object]:
    """Where an error happened, without what it says."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return {"error": type(error).__name__, "at": [f"{frame.name}:{frame.lineno}" for frame in frames]}


def tell(event: str, **said: object) -> None:
    """One line."""
    LOG.info(event, extra={"said": said})


def tell_error(event: str, error: Exception, **said: object) -> None:
    """One line on what is not the client's fault."""
    LOG.error(event, extra={"said": {**said, **_frames(error)}})


def begin() -> None:
    """Send the lines of this part, and uvicorn's, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name, level in (("tessera.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers[:], log.propagate = [handler], False
        log.setLevel(level)
