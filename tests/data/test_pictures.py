"""Reading one picture: six formats and no other, and damage that costs that picture alone."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from small_data import folder
from tessera.data.check import check
from tessera.data.pictures import read
from tessera.errors import DataError


def reason_of(work, *errors):
    """What the expected error says, or None where there is none."""
    try:
        work()
    except errors as error:
        return str(error)


def test_a_picture_in_a_format_that_starts_programs_is_not_opened(tmp_path):
    data = folder(tmp_path, eps__jpg=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", eps__txt="a drawing")
    health = check(str(data))
    assert [s.reason for s in health.skipped] == ["not a picture, whatever its name says"]


def test_any_damage_of_a_photograph_is_its_own_skip():
    from tempfile import TemporaryDirectory

    exif, buffer = Image.Exif(), io.BytesIO()
    exif[274], exif[270] = 6, "words" * 8
    Image.new("RGB", (24, 24), "red").save(buffer, "JPEG", exif=exif)
    noise = np.random.default_rng(0)
    with TemporaryDirectory() as place:
        path = Path(place) / "x.jpg"
        for _ in range(300):
            raw = bytearray(buffer.getvalue())
            for at in noise.integers(2, 140, 3):
                raw[at] = int(noise.integers(256))
            path.write_bytes(raw)
            assert reason_of(lambda: read(path), DataError) is None or "x.jpg" in reason_of(
                lambda: read(path), DataError
            )
