"""What a page tells of runs, and the pictures of an evaluation's page."""

from __future__ import annotations

import json

from tessera.studio.drawing import mask_of
from tessera.studio.nearest import beside
from tessera.studio.places import Places
from tessera.studio.runs import POINTS, Seen, Stage, seen

PIXEL = "data:image/png;base64,AAAA"


def test_runs_are_found_by_their_marks_the_last_worked_at_first(tmp_path):
    for name, kind in (("one", "t2i"), ("two", "t2i"), ("judge", "clip"), ("new", ""), ("other", None)):
        folder = tmp_path / name
        folder.mkdir()
        if kind is not None:
            (folder / ".tessera").write_text('{"kind": "run"}')
            (folder / "config.json").write_text(json.dumps({"model": {"kind": kind}}) if kind else "")
    (tmp_path / "studio").mkdir()
    (tmp_path / "one" / "metrics.jsonl").write_text('{"step": 1}\n')
    found = seen(Places(tmp_path, ()))
    assert {run.name for run in found} == {"one", "two", "new"}
    assert not any(run.draws or run.finished for run in found)


def test_options_that_a_run_was_begun_with_are_given_again_and_nothing_else(tmp_path):
    for content, expected in (
        ('{"crop": 1.0, "perceptual": "none", "seed": "--out"}', ["--crop", "1.0", "--perceptual", "none"]),
        ('{"crop": 0.5, "any_order": true}', ["--crop", "0.5", "--any-order"]),
        ('{"crop": "0.5 --out /", "perceptual": "--out", "any_order": "--out"}', []),
        ("[]", []),
        ("", []),
    ):
        (tmp_path / "learn.json").write_text(content)
        assert Seen("birds", tmp_path).begun_with() == expected
    assert Seen("birds", tmp_path / "absent").begun_with() == []


def test_curves_are_thinned_and_end_with_the_newest(tmp_path):
    rows = [{"step": i, "loss": float(-i)} for i in range(10 * POINTS + 7)]
    stage = Stage(
        tmp_path,
        [*rows, {"step": 9, "held_loss": 3.0}, {"step": 12, "held_loss": 2.5}, {"step": 15, "held_loss": 2.75}],
    )
    curve = stage.curve("loss")
    assert len(curve) <= POINTS
    assert curve[-1] == (rows[-1]["step"], rows[-1]["loss"])
    assert curve == sorted(curve)
    assert stage.best == (12, 2.5)
    assert stage.last("held_loss") == 2.75
    assert stage.last("nothing") is None


def test_previews_come_in_their_order_and_links_are_left_out(tmp_path):
    samples = tmp_path / "samples"
    samples.mkdir()
    for name in ("step-000900.png", "step-001000.png", "step-100000000.png", "step-x.png"):
        (samples / name).write_bytes(b"")
    (samples / "step-000001.png").symlink_to(tmp_path / "secret")
    assert [step for step, _ in Stage(tmp_path, []).previews()] == [900, 1000, 100_000_000]


def test_what_lies_nearest_is_read_without_its_html(tmp_path):
    row = "".join(f"<img src='{PIXEL}'>" for _ in range(4))
    bad = "<img src='https://evil.example/x.png'>" * 4
    page = tmp_path / "evaluation.html"
    page.write_text(
        f"<h2>x</h2><img src='{PIXEL}'><div class=near><figure><div>{row}</div><figcaption>0.50 · &lt;b&gt;a bird"
        f"</figcaption></figure><figure>{bad}<figcaption>c</figcaption></figure></div><h2>y</h2><img src='{PIXEL}'>"
    )
    (found,) = beside(page, 10)
    assert found.pictures == [PIXEL] * 4
    assert found.words == "0.50 · <b>a bird"
    assert beside(tmp_path / "absent.html", 10) == []


def test_the_mask_of_a_line_keeps_whole_rows():
    import io

    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(mask_of(64, 3, 8))) as image:
        alpha = np.array(image)[..., 3]
    assert (alpha[:24] == 255).all()
    assert (alpha[24:] == 0).all()
