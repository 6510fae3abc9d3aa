"""The demo: draw birds, `learn` them, then draw colour combinations that were never trained on and measure them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from tessera.config import LearnConfig
from tessera.files.atomic import whole, write_whole
from tessera.files.claim import claim
from tessera.generate.pipeline import Pipeline
from tessera.generate.sheet import contact_sheet
from tessera.journeys import birds
from tessera.journeys.bird_reader import colours_right
from tessera.journeys.learn import Progress, learn
from tessera.machine.device import choose_device
from tessera.store.run import Run


def run(
    config: LearnConfig, count: int, questions: int, progress: Progress, say: Callable[[str], None]
) -> dict[str, float]:
    """Do everything; the same call resumes. Returns the share of asked colours that the drawings have."""
    pictures, out = Path(config.pictures), Path(config.out)
    choose_device(config.device)
    Run(out).make()
    claim(pictures, "birds", drawn_before)
    if not (pictures / f"{count - 1:05d}.txt").is_file():
        say(f"Drawing {count} birds in {pictures}")
        birds.draw_folder(pictures, count, seed=config.seed)
    learn(config, progress, say)
    pipeline = Pipeline.load(out, config.device)
    asked = birds.questions(questions, config.seed)
    say(f"\nDrawing {len(asked)} captions with colour combinations that were never trained on")
    drawn = []
    parts = [asked[i : i + 40] for i in range(0, len(asked), 40)]
    for i, part in enumerate(progress("Drawing")(parts, len(parts))):
        drawn += pipeline.draw(
            [c for c, _ in part],
            [config.seed + 40 * i + j for j in range(len(part))],
            pipeline.sampling,
            batch=40,
            truncate=True,
        )
    shares = colours_right([p.image for p in drawn], [bird for _, bird in asked])
    with whole(out / "contact-sheet.png") as fresh:
        contact_sheet(drawn[:24]).save(fresh, "PNG")
    write_whole(out / "colours.json", json.dumps(shares, indent=1).encode())
    say("\n  Asked colours found in the drawings (untrained combinations)")
    for part, share in shares.items():
        say(f"  {part:<12} {share:6.1%}  {'█' * round(share * 30)}")
    say(f"\nContact sheet: {out / 'contact-sheet.png'}   Report: {out / 'report.html'}")
    say(
        f'Try: tessera generate {out} "a small blue bird with yellow wings, a white belly and a red beak on a branch, '
        'pink background"'
    )
    return shares


def drawn_before(pictures: Path) -> bool:
    """Whether a release without markers drew everything in a folder: only 00000.png, 00000.txt, ..."""
    return all(re.fullmatch(r"\d{5}\.(png|txt)", path.name) for path in pictures.iterdir())
