"""All rows of bench/results as a table."""

from __future__ import annotations

import json

from common import RESULTS

HIDDEN = {"question", "command", "torch", "date"}


def main() -> None:
    for file in sorted(RESULTS.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        print(f"\n{file.stem}")
        for r in rows:
            shown = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.items() if k not in HIDDEN)
            print("  " + " · ".join(shown))


if __name__ == "__main__":
    main()
