"""Captions, the same from every source: bytes to text, text to clean lines, and the columns that hold them.

It knows no files and no pictures.
"""

from __future__ import annotations

import codecs
import re

from tessera.errors import DataError

COLUMNS = ("text", "caption", "captions", "prompt", "description")
"""Names under which tables and samples keep their captions, in the order in which they are tried."""
LARGEST = 1 << 20
"""Largest size of a file of captions, in bytes."""

MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
"""Byte order marks. UTF-32 comes first, because its mark begins with that of UTF-16."""
ASCII = bytes(range(128))
SPACES = b" \t\r\n"
NEWLINE = re.compile(r"\r\n|\r|\n")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
HALF = re.compile(r"[\ud800-\udfff]")
KINDS = {bool: "true or false", int: "a number", float: "a number", dict: "an object"}


def decoded(raw: bytes) -> str:
    """Bytes as text: UTF-8, UTF-16 or UTF-32 with a byte order mark, else the Western Windows-1252.

    Windows-1252 decodes nearly anything, so it is not tried if most bytes are outside ASCII: such a file has another
    encoding, or is not text. Raises DataError with the reason.
    """
    for mark, encoding in MARKS:
        if raw.startswith(mark):
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"it is not text: it begins as {encoding.upper()} and continues as something else"
                ) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        if 2 * len(raw.translate(None, ASCII)) <= len(raw.translate(None, SPACES)):
            return raw.decode("cp1252")
    except UnicodeDecodeError:
        pass
    raise DataError("it is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


def clean(value: object) -> tuple[str, ...]:
    """The captions in a value: each line of a text, or each text of a list, without blank lines and extra spaces.

    Only newlines and carriage returns end a line. Raises DataError with the reason if a caption is not text.
    """
    if isinstance(value, bytes):
        value = decoded(value)
    lines = (
        list(value) if isinstance(value, list | tuple) else NEWLINE.split(value) if isinstance(value, str) else [value]
    )
    return tuple(caption for line in lines if (caption := _caption(line)))


def _caption(line: object) -> str:
    if isinstance(line, bytes):
        line = decoded(line)
    if line is None:
        raise DataError("the caption is empty (null)")
    if not isinstance(line, str):
        raise DataError(f"the caption is {KINDS.get(type(line), f'a {type(line).__name__}')}, not a text")
    if found := CONTROL.search(line):
        raise DataError(f"the caption is not text: it holds the control character {ord(found[0])}")
    if HALF.search(line):
        raise DataError("the caption is not text: it holds half a character (a lone surrogate)")
    return " ".join(line.split())
