"""Every kind of file and setting, and its share of a group's cases."""

from __future__ import annotations

import kinds_data
import kinds_foreign
import kinds_json
import kinds_runs
import kinds_values
from kind import Kind

GROUPS: dict[str, dict[str, float]] = {
    "pictures": {"pictures": 1.0},
    "csv": {"csv": 1.0},
    "jsonl": {"jsonl": 0.8, "json in jsonl": 0.2},
    "parquet": {"parquet": 1.0},
    "coco": {"coco": 0.7, "json in coco": 0.3},
    "txt": {"txt": 1.0},
    "shards": {"shards": 1.0},
    "run folders": {
        "run drawn": 0.2, "run trained on": 0.08, "judge": 0.12, "codes": 0.15, "learn.json": 0.1, "metrics": 0.04, "prompt.json": 0.1,
        "json in run drawn": 0.05, "json in run trained on": 0.04, "json in codes": 0.06, "json in learn.json": 0.06,
    },
    "foreign": {
        "dalle": 0.2, "dvae": 0.15, "clip": 0.15, "vqgan": 0.06, "openai": 0.1, "deepspeed": 0.12, "tokenizers": 0.15, "clip merges": 0.02,
        "json in tokenizers": 0.05,
    },
    "yaml": {"yaml": 1.0},
    "toml": {"toml": 1.0},
    "prime": {"prime": 1.0},
    "settings": {"settings": 0.8, "settings trained with": 0.08, "settings drawn with": 0.12},
    "prompts": {"prompts": 1.0},
}  # fmt: skip
"""What is counted as one kind, and how its count is split between structures: less for what is slow."""

KINDS: dict[str, Kind] = {
    kind.name: kind for part in (kinds_data, kinds_runs, kinds_foreign, kinds_json, kinds_values) for kind in part.KINDS
}
SHARES = {name: share for shares in GROUPS.values() for name, share in shares.items()}
assert SHARES.keys() == KINDS.keys(), SHARES.keys() ^ KINDS.keys()
assert all(abs(sum(shares.values()) - 1) < 1e-9 for shares in GROUPS.values())


def count(name: str, cases: int) -> int:
    """How many cases of a kind belong to `cases` of its group."""
    return max(1, round(SHARES[name] * cases))
