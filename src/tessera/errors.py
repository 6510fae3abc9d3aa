"""The errors a user can cause. Each message says what was asked, what was found and what to do; it knows no context."""

DISTRIBUTION = "tessera-t2i"
"""What pip calls the package whose import name and command are `tessera`; another project has that name there."""


def install(extra: str) -> str:
    """The line that installs what an extra brings."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class TesseraError(Exception):
    """Anything the user can put right. The command line prints its sentence and no traceback."""


class ConfigError(TesseraError):
    """A setting is unknown, impossible, or contradicts another one."""


class DataError(TesseraError):
    """Pictures or captions are missing, unreadable, or do not fit the settings."""


class CheckpointError(TesseraError):
    """A run folder or a foreign checkpoint is missing, damaged, or of another kind; or it cannot be written."""


REQUEUE = 75
"""Exit status of a run that was asked to stop and saved first (EX_TEMPFAIL): the same command goes on."""
