"""What an experiment asked of its models: one row per stage, agent, seed and role.

    python -m score.report.ledger --config config.resolved.yaml --records correct/bc20-s0/provenance.json ... \
        --out ledger.csv

`n_requests` were answered, `n_retried` are further sendings, `n_failed` were answered by nobody. `cost_usd` is empty
where the config gives no price. What a token of a model in the job itself costs is not money, but it is counted too.
Not in it: training, and its looks at held-out questions. A judge decides for all agents and seeds at once, so its
row has neither.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from score import cli
from score.config import Config, lineage, read
from score.errors import ScoreError
from score.jsonl import write_text
from score.usage import COUNTS, Counts, total

COLUMNS = (
    *("stage", "agent", "seed", "role", "model"),
    *("n_requests", "prompt_tokens", "cached_tokens", "completion_tokens", "n_retried", "n_failed", "cost_usd"),
)
_NAMED = {"requests": "n_requests", "retried": "n_retried", "failed": "n_failed"}


def ledger(records: Iterable[Mapping[str, Any]], config: Config) -> list[dict[str, Any]]:
    """Rows in the order in which their stages first occur; what several records say of one row is summed."""
    found: dict[tuple[str, str, Any, str], list[Counts]] = defaultdict(list)
    for record in records:
        for role, counts in record.get("usage", {}).items():
            found[record["stage"], record.get("agent", ""), record.get("seed", ""), role].append(counts)
    return [_row(*key, total(counts), config) for key, counts in found.items()]


def _row(stage: str, agent: str, seed: Any, role: str, counts: Counts, config: Config) -> dict[str, Any]:
    model = _model(stage, agent, role, config)
    row = {"stage": stage, "agent": agent, "seed": seed, "role": role, "model": model}
    named = {_NAMED.get(name, name): counts[name] for name in COUNTS}
    return row | named | {"cost_usd": _cost(counts, config, model)}


def _model(stage: str, agent: str, role: str, config: Config) -> str:
    """Key in `models` of who answered in that role."""
    if role == "student":
        return lineage.base_model(config, agent)
    if role == "teacher" and stage == "correct":
        return lineage.teacher(config, agent)  # an agent may have one of its own
    return getattr(config.roles, role)


def _cost(counts: Counts, config: Config, model: str) -> str:
    price = config.models[model].price
    if price is None:
        return ""
    usd = counts["prompt_tokens"] * price.prompt + counts["completion_tokens"] * price.completion
    return f"{usd / 1e6:.6f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="provenance of stages that ask models")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    records = []
    for path in args.records:
        try:
            records.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ScoreError(f"{path}: not a provenance record ({error}); remove it to make it anew") from None
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ledger(records, read(args.config)))
    write_text(args.out, text.getvalue())


if __name__ == "__main__":
    cli.run(main)
