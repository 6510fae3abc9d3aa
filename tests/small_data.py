"""Data sets of one good pair, and whatever else a test puts beside it."""

import io

from PIL import Image


def png(colour="red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root, **files):
    """A folder of one good pair and these files; __ in a name is a dot."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in {"good__png": png(), "good__txt": "a good one", **files}.items():
        path = root / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return root
