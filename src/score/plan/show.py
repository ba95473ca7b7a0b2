"""An estimate, and a comparison with a ledger, as text: tables in Markdown, formulas, and the assumptions in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from score.plan.assumptions import FIELDS
from score.plan.estimate import COSTED, TRAINING, Cost, Disk, Estimate
from score.plan.ledger import Key, Pair, together
from score.plan.loads import COUNTS, FORMULAS, TERMS, Setting, sums

GB = 1e9
NAMES = ("requests", "prompt tokens", "generated tokens")
"""Of `COUNTS`."""


def paragraphs(found: Estimate, setting: Setting, calibrated_by: Path | None) -> Iterator[str]:
    """All that is said of an estimate."""
    config, costs = setting.config, found.costs
    on_gpus = sum(cost.job.gpus > 0 for cost in costs)
    yield (
        f"experiment {config.experiment!r}: {len(costs)} jobs to run, {on_gpus} of them with GPUs.\n"
        "Estimates from the assumptions below; none of the rates has been measured on hardware."
    )
    if not any(cost.job.rule in COSTED for cost in costs):
        yield "No job starts or trains a model: nothing to pay for."
        return
    yield jobs(costs)
    yield "\n".join([others(costs), *(f"! {line}" for line in late(costs))])
    yield tokens(costs, setting)
    searches = number(sum(cost.load.searches for cost in costs))
    yield f"search calls: {searches} to {config.search.backend} (search.mode: {config.search.mode})"
    yield disk(found.disk)
    yield wall(found)
    if there := endpoints(costs, setting):
        yield f"not counted: GPUs behind {', '.join(there)}, and that jobs which ask one at the same time share it"
    if calibrated_by:
        yield calibration(setting, calibrated_by)
    yield f"formulas: seconds of a rule's jobs; + start_s for each, x GPUs / 3600 = GPU-hours\n{formulas(costs)}"
    training = setting.questions
    yield (
        f"training questions: {training.cold_start:,} cold start, {training.mentored:,} mentored, "
        f"{training.held_out:,} held out ({training.source})"
    )
    yield assumptions(setting)


def endpoints(costs: Sequence[Cost], setting: Setting) -> list[str]:
    """Models that are elsewhere, each once."""
    asked = dict.fromkeys(ask.model for cost in costs for ask in cost.load.asks)
    return [name for name in asked if setting.config.models[name].engine == "endpoint"]


def wall(found: Estimate) -> str:
    if not found.chain:
        return "wall time: not estimated, as all is computed without GPUs"
    return (
        f"wall time: {duration(found.wall)} with --gpus {found.gpus}, each job as soon as there is room; "
        f"{duration(found.chain)} on any number of them: the longest chain of jobs"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table. The first `words` columns are words, the others numbers."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * w if i < words else "-" * (w - 1) + ":" for i, w in enumerate(widths)], *rows]
    cells = [
        [c.ljust(w) if i < words else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def number(value: float) -> str:
    """With as many digits as an estimate has."""
    if value >= 1e5:
        value = round(value, 3 - len(str(int(value))))
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def jobs(found: Sequence[Cost]) -> str:
    """One line per rule that starts or trains a model."""
    rows = []
    for rule in COSTED:
        mine = [cost for cost in found if cost.job.rule == rule]
        if mine:
            gpus = sorted({cost.job.gpus for cost in mine})
            limits = {cost.job.minutes for cost in mine} - {None}
            rows.append(
                [
                    *(rule, str(len(mine)), "-".join(map(str, dict.fromkeys([gpus[0], gpus[-1]])))),
                    f"{number(sum(cost.load.units for cost in mine))} {_units(rule)}",
                    number(sum(cost.gpu_hours for cost in mine)),
                    f"{max(cost.hours for cost in mine):.1f}",
                    f"{min(limits) / 60:.0f}" if limits else "",
                ]
            )
    total = [sum(cost.job.rule in COSTED for cost in found), sum(cost.gpu_hours for cost in found)]
    rows.append(["total", str(total[0]), "", "", number(total[1]), "", ""])
    return table(["rule", "jobs", "GPUs each", "work", "GPU-hours", "longest job, h", "time limit, h"], rows)


def _units(rule: str) -> str:
    return "updates" if rule in TRAINING else "verdicts" if rule == "judge" else "attempts"


def others(found: Sequence[Cost]) -> str:
    counts = Counter(cost.job.rule for cost in found if cost.job.rule not in COSTED)
    listed = ", ".join(f"{rule} {n}" for rule, n in counts.items())
    return f"{sum(counts.values())} other jobs, short and without GPUs{': ' if listed else ''}{listed}"


def late(found: Sequence[Cost]) -> Iterator[str]:
    """Rules whose jobs will meet their time limit."""
    for rule in COSTED:
        slow = [c for c in found if c.job.rule == rule and c.job.minutes and c.hours * 60 > c.job.minutes]
        if slow:
            longest = max(slow, key=lambda cost: cost.hours)
            more = "more GPUs, or " if rule in TRAINING else "more shards, or " if rule in _SHARDED else ""
            yield (
                f"{rule}: jobs that outlast the limit of their first try: {len(slow)} (the longest, {longest.job}, "
                f"takes {longest.hours:.0f} h of {longest.job.minutes / 60:.0f}); a further try goes on where it was. "
                f"Give it {more}--set-resources {rule}:runtime={_minutes(longest.hours)}"
            )


_SHARDED = ("rollout", "correct", "evaluate")


def _minutes(hours: float) -> int:
    """A limit that such a job keeps, a fifth longer, in whole hours."""
    return -(-int(hours * 72) // 60) * 60


def tokens(found: Sequence[Cost], setting: Setting) -> str:
    asks = [ask for cost in found for ask in cost.load.asks]
    rows, priced = [], False
    who = {False: "", True: ", in RL"}
    for (role, model), counts in sums(asks, lambda ask: (ask.role + who[ask.by_trainer], ask.model)).items():
        price = setting.config.models[model].price
        usd = price and (counts["prompt"] * price.prompt + counts["completion"] * price.completion) / 1e6
        priced = priced or usd is not None
        rows.append([role, model, *_counts(counts), "" if usd is None else f"{usd:,.2f}"])
    sampled = sum(cost.load.sampled for cost in found)
    if sampled:
        rows.append(["student, not to train on", "(not in ledger.csv)", "", "", number(sampled), ""])
    header = ["role", "model", *NAMES, "USD"]
    width = len(header) if priced else -1
    return table(header[:width], [row[:width] for row in rows], words=2)


def _counts(counts: Mapping[str, float]) -> list[str]:
    return [number(counts[name]) for name in COUNTS]


def disk(listed: Sequence[Disk]) -> str:
    rows = [[entry.what, entry.formula, f"{entry.size / GB:,.1f}"] for entry in listed]
    rows.append(["total", "", f"{sum(entry.size for entry in listed) / GB:,.1f}"])
    return table(["disk", "formula", "GB"], rows, words=2)


def formulas(found: Sequence[Cost]) -> str:
    """Of the rules that are there."""
    rules = [rule for rule in COSTED if any(cost.job.rule == rule for cost in found)]
    width = max(map(len, rules), default=0)
    lines = [f"  {rule.ljust(width)}  {FORMULAS[rule]}" for rule in rules]
    return "\n".join([*lines, *(f"  {'where'.ljust(width)}  {term}" for term in TERMS)])


def assumptions(setting: Setting) -> str:
    a = setting.assumed
    rows = [
        [name, f"{getattr(a, name):g}", entry.metadata["unit"], entry.metadata["why"]] for name, entry in FIELDS.items()
    ]
    rows += [[name, f"{value:g}", "", "given with --assume"] for name, value in a.own.items()]
    known = {name: p for name, p in setting.parameters.items() if p and f"parameters.{name}" not in a.own}
    rows += [[f"parameters.{name}", f"{p:.3g}", "", "its files, or its name"] for name, p in known.items()]
    return table(["assumption", "value", "unit", "what it is, and where from"], rows, words=4)


def comparison(found: Mapping[Key, Pair]) -> str:
    """Expected and actual, by stage and role and then by role, with actual / expected."""
    rows = [[stage, role, *_pair(pair)] for (stage, role), pair in found.items()]
    roles = dict.fromkeys(role for _, role in found)
    rows += [["all", role, *_pair(together([p for (_, one), p in found.items() if one == role]))] for role in roles]
    header = [word for name in NAMES for word in (f"{name}: expected", "actual", "ratio")]
    return table(["stage", "role", *header], rows, words=2)


def _pair(pair: Pair) -> list[str]:
    cells = []
    for name in COUNTS:
        ratio = pair.ratio(name)
        cells += [number(pair.expected[name]), f"{pair.actual[name]:,.0f}", "" if ratio is None else f"{ratio:.2f}"]
    return cells


def calibration(setting: Setting, file: Path) -> str:
    """Which ratios an estimate was multiplied by."""
    lines = [
        f"  {stage}, {role}: {', '.join(f'{name} x {ratio:.3g}' for name, ratio in by.items())}"
        for (stage, role), by in setting.factors.items()
    ]
    return "\n".join([f"calibrated by {file} (actual / expected there):", *lines])
