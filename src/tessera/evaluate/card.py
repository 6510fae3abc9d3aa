"""README.md of a run, its model card: what it was made of, how good it is, how to use it. It measures nothing.

The card stands between two marks. What a person writes outside of them stays, and so do the person's licence and other
fields of the YAML at its top; a README.md without the marks is somebody else's and is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tessera.errors import CheckpointError, ConfigError, DataError
from tessera.evaluate import card_words as words
from tessera.evaluate import figures
from tessera.evaluate.drawings import digest_of
from tessera.evaluate.figures import Evaluation
from tessera.files.atomic import write_whole
from tessera.files.regular import read_regular
from tessera.generate import defaults
from tessera.models import saved
from tessera.store import manifest
from tessera.store.run import Run, checkpoint_of
from tessera.store.settings import recorded

NAME = "README.md"
BEGIN = "<!-- Tessera writes this part anew when training ends, in `evaluate` and in `push`. -->"
END = "<!-- Here it ends; what you write below, or above its beginning, stays. -->"
LICENSE = "unknown"
"""Until its owner chooses one."""
LONGEST = 5_000_000
"""Bytes of a card, at most."""
THEIRS = ("license", "license_name", "license_link")
"""Fields at the top that are a person's to fill in."""


@dataclass(frozen=True)
class Card:
    """The fields at the top, and the part between the marks."""

    fields: Mapping[str, object] = field(default_factory=dict)
    body: str = ""

    def over(self, old: str) -> str | None:
        """The text with this card in place of its older one; None where it is not a card of this program."""
        if not old.strip():
            return _text(self.fields, f"{BEGIN}\n{self.body}\n{END}\n")
        top, rest = _parted(old)
        before, begin, middle = rest.partition(BEGIN)
        _, end, after = middle.partition(END)
        if top is None or not begin or not end:
            return None
        return _text(_merged(self.fields, top), f"{before}{BEGIN}\n{self.body}\n{END}{after}")


def write(run: Run, license: str = "") -> bool:
    """Write the card into the run folder, or refresh the one that is there; a `license` takes the place of the one in
    it. Returns whether it was written: a README.md that is not ours stays as it is."""
    old = there(run)
    text = None if old is None else of(run, license=license).over(old)
    if text is None:
        return False
    with run.written():
        write_whole(run.folder / NAME, text)
    return True


def there(run: Run) -> str | None:
    """The README.md of a run folder; empty where it has none, None where it cannot be read as text."""
    try:
        return read_regular(run.folder / NAME, LONGEST).decode("utf-8") if (run.folder / NAME).exists() else ""
    except (DataError, UnicodeDecodeError):
        return None


def of(run: Run, name: str = "", license: str = "") -> Card:
    """What a run's files say; `name` is what others call it. Raises CheckpointError where the folder is not a run with
    a whole checkpoint."""
    facts = gathered(run, name)
    body = "\n\n".join(part for part in words.parts(facts) if part)
    return Card({**words.fields(facts), "license": license or LICENSE}, body)


def license_in(text: str) -> str:
    """The licence that a card names; empty where none was chosen yet."""
    top, _ = _parted(text)
    found = top.get("license") if top else None
    return found if isinstance(found, str) and found != LICENSE else ""


def gathered(run: Run, name: str = "") -> words.Facts:
    checkpoint = checkpoint_of(run.folder)
    config, _ = recorded(run.folder / "config.json", run.checkpoints())
    if config is None:
        raise CheckpointError(f"{run.folder} is not a run folder: it holds no readable config.json.")
    rows = run.read_metrics()
    return words.Facts(
        name=name or str(run.folder),
        title=run.folder.resolve().name,
        config=config,
        parameters=_parameters(checkpoint),
        step=checkpoint.name,
        seconds=max((row.get("elapsed", 0.0) for row in rows), default=0.0),
        held=min(((row["held_loss"], int(row["step"])) for row in rows if "held_loss" in row), default=None),
        manifest=manifest.read(run.folder),
        evaluation=evaluated(run, checkpoint),
        drawing=defaults.kept(run.folder),
        sheet="contact-sheet.png" if (run.folder / "contact-sheet.png").is_file() else "",
    )


def evaluated(run: Run, checkpoint: Path) -> Evaluation | None:
    """The figures of this checkpoint, in full or else in short; None where there are none, or only an older one's."""
    model = digest_of(checkpoint)
    for folder in ("evaluation", "evaluation-short"):
        try:
            found = figures.read(run.folder / folder)
        except ConfigError:
            continue
        if found.model == model:
            return found
    return None


def _parameters(checkpoint: Path) -> int:
    """Counted without memory."""
    import torch

    with torch.device("meta"):
        return saved.parameters(saved.network(saved.described(checkpoint)))


def _text(fields: Mapping[str, object], body: str) -> str:
    top = yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True)
    return "\n".join(["---", f"{top}---", "", body.lstrip("\n")])


def _parted(text: str) -> tuple[dict[str, object] | None, str]:
    """The fields at the top, and what follows them. None where the top is not YAML of fields."""
    if not text.startswith("---\n"):
        return {}, text
    top, end, rest = text[4:].partition("\n---\n")
    try:
        found = yaml.safe_load(top)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None, text
    return (found, rest) if end and isinstance(found, dict) else (None, text)


def _merged(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, object]:
    """Our fields over theirs; but a licence that was chosen stays, and so do their tags beside ours."""
    kept = {key: theirs[key] for key in THEIRS if theirs.get(key) not in (None, "", LICENSE)}
    chosen = {} if ours["license"] != LICENSE else kept
    tags = dict.fromkeys(tag for of in (ours, theirs) for tag in _list(of.get("tags")))
    return {**theirs, **ours, **chosen, "tags": [*tags]}


def _list(value: object) -> list[str]:
    return [tag for tag in value if isinstance(tag, str)] if isinstance(value, list) else []
