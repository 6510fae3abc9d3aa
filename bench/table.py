"""The newest row of each question and configuration in bench/results, as the table that docs/speed.md shows."""

from __future__ import annotations

import json
from typing import Any

from common import RESULTS

QUESTIONS = {
    "train-step": ("Training step, notebook's configuration", "seconds", " s"),
    "draw": ("Drawing a picture of 1,024 codes", "seconds", " s"),
    "sparse": ("4,096 image positions", "seconds", " s"),
    "memory": ("The plan against the measured peak", "measured_gb", " GB"),
    "data-jpeg": ("JPEG 500 × 375 → 256 px crop, one core", "figure", " pictures/s"),
    "data-codes": ("Packed codes, one core", "figure", " samples/s"),
}
RATIOS = {
    "ratio": "{:.3g} ×",
    "ratio_cached": "{:.3g} × its cached forward",
    "working_ratio": "{:.2g} × its memory",
}


def newest(question: str) -> list[dict[str, Any]]:
    file = RESULTS / f"{question}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return list({r.get("configuration", ""): r for r in rows}.values())


def lines() -> list[str]:
    table = ["| question | configuration | figure | against the alternative | |", "|---|---|---|---|---|"]
    for question, (title, key, unit) in QUESTIONS.items():
        for r in newest(question):
            ratio = ", ".join(form.format(r[name]) for name, form in RATIOS.items() if name in r)
            figure = f"{r[key]:,.0f}" if r[key] >= 100 else f"{r[key]:.3g}"
            table.append(
                f"| {title} | {r.get('configuration', '')} | {figure}{unit} | {ratio} | {r.get('alternative', '')} |"
            )
    return table


if __name__ == "__main__":
    print("\n".join(lines()))
