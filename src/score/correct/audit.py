"""How well does a teacher find and correct errors? Scored on errors planted at known turns of micro-world attempts.

    python -m score.correct.audit --config results/micro/config.resolved.yaml --out audit/oracle
    python -m score.correct.audit --config config.yaml --model qwen2.5_72b --per-mutation 50 --out audit/qwen

Any model that is served can be audited; it reviews the attempts as in mentored problem solving. Where the error is, and
what a right correction prints, is known from how the attempts were made (`score.correct.planting`), not from the
oracle's checker. Writes audit.jsonl (a row per attempt), audit.json and audit.md (shares with 95 % intervals), and
confusion.{csv,md,pdf,png}. A killed audit goes on with the replies that it has.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from score import cli, fingerprint, search
from score.attempts import sandbox
from score.config import Config, read_merged
from score.config.mistakes import nearest
from score.config.schema import Model
from score.correct.planting import Planted, planted
from score.correct.teacher import INFRASTRUCTURE, Correction, Failure, Review, Teacher
from score.data.metric import by_rules
from score.engine import digest_of, open_engine
from score.errors import InfrastructureError, ScoreError
from score.jsonl import ResumableRows, Row, write_json, write_rows, write_text
from score.micro.backend import KnowledgeBase
from score.micro.graph import parse
from score.micro.mutations import EVERY, LUCKY
from score.micro.tasks import WORLDS
from score.micro.world import World, make_world
from score.provenance import provenance
from score.report.figures import confusion, values
from score.report.stats import wilson
from score.sandbox.base import SandboxPool, Tools

log = logging.getLogger("audit")

CAPTION = (
    "Attempts with one planted error each; % with Wilson's 95 % interval. located: the teacher names the turn of the "
    "error; early, late: another turn; no turn: none, by name of the failure. corrections right: of those given, "
    "executed before the turn that they replace, they print what is to be found next there, and that turn is not after "
    "the error. right throughout: located, and corrected right. `all` leaves out lucky_value, a step that prints the "
    "right value without having found it: by its definition that turn is the error, but a teacher who judges by what "
    "was printed names the later turn at which a value goes wrong."
)


@dataclass(frozen=True)
class Finding:
    """One attempt, what the teacher said of it, and whether that is right.

    `predicted` is the turn that it named, also where its rewrite was no use (`failure`); `fix` is the rewrite. `right`
    says whether the correction is, `printed` what it printed when executed.
    """

    mutation: str
    k: int
    lapse: int
    benchmark: str
    group: str
    task: str
    question: str
    predicted: int | None = None
    failure: str | None = None
    detail: str = ""
    right: bool | None = None
    fix: dict[str, str] | None = None
    printed: str | None = None


def examine(planted: Planted, review: Review, world: World, pool: SandboxPool, tools: Tools) -> Finding:
    """Holds a review against what was planted. Raises `InfrastructureError` if the sandbox fails."""
    plant, task = planted.plant, planted.plant.task
    known = Finding(
        plant.mutation, plant.k, plant.lapse, task.dataset, task.meta["group"], task.id, task.question
    )  # fmt: skip
    match review:
        case Correction() as correction:
            right, printed = judge(planted, correction, world, pool, tools)
            fix = {"thought": correction.fix.thought, "code": correction.fix.code}
            return dataclasses.replace(known, predicted=correction.k, right=right, fix=fix, printed=printed)
        case Failure(reason, detail, k):
            return dataclasses.replace(known, predicted=k, failure=reason, detail=detail)
    return dataclasses.replace(known, failure="judged_right")


def judge(
    planted: Planted, correction: Correction, world: World, pool: SandboxPool, tools: Tools
) -> tuple[bool, str | None]:
    """Whether a correction is right, and what it printed when executed in the state before the turn that it replaces.

    Right is: it ran, printed the value of something that is not found yet and rests on nothing that is not, or handed
    in the gold answer after everything was found; and no turn before it is wrong. A plan is right in the gold plan's
    words.
    """
    plant, steps = planted.plant, planted.attempt.steps
    graph = parse(plant.task.question, world)
    if correction.k == 0:
        return correction.fix.thought.split() == graph.plan.split(), None
    before = steps[: correction.k - 1]
    with pool.open(tools) as session:
        for step in before:
            session.run(step.code)
        seen = session.run(correction.fix.code)
    outputs = {(step.observation or "").strip() for step in before}
    found = {i for i, node in enumerate(graph.nodes) if node.stdout in outputs}
    if seen.answer is not None:
        sound = len(found) == len(graph.nodes) and by_rules(plant.task, seen.answer) == 1.0
    else:
        wanted = {n.stdout for i, n in enumerate(graph.nodes) if i not in found and found.issuperset(n.needs)}
        sound = seen.error is None and seen.text.strip() in wanted
    return sound and correction.k <= plant.lapse, seen.text


def share(count: int, n: int) -> dict[str, float] | None:
    """A share with Wilson's 95 % interval; None of nothing."""
    return dataclasses.asdict(wilson(count, n)) | {"count": count, "n": n} if n else None


def rates(findings: Sequence[Finding]) -> dict[str, Any]:
    """The shares that `CAPTION` explains. Reviews that the infrastructure ended are counted, and left out of all."""
    judged = [f for f in findings if f.failure != INFRASTRUCTURE]
    named = [f for f in judged if f.predicted is not None]
    given, n = [f for f in named if f.fix is not None], len(judged)
    return {
        "n": n,
        "located": share(sum(f.predicted == f.k for f in named), n),
        "early": share(sum(f.predicted < f.k for f in named), n),
        "late": share(sum(f.predicted > f.k for f in named), n),
        "no_turn": share(n - len(named), n),
        "named_first_wrong_value": share(sum(f.predicted == f.lapse for f in named), n),
        "corrections_right": share(sum(bool(f.right) for f in given), len(given)),
        "right_throughout": share(sum(f.predicted == f.k and bool(f.right) for f in named), n),
        "failures": dict(sorted(Counter(f.failure for f in judged if f.failure).items())),
        "infrastructure": len(findings) - n,
    }


def summary(findings: Sequence[Finding]) -> dict[str, dict[str, Any]]:
    """`all`, and each mutation by itself."""
    parts = {"all": [f for f in findings if f.mutation != LUCKY]}
    for finding in findings:
        parts.setdefault(finding.mutation, []).append(finding)
    return {name: rates(part) for name, part in parts.items()}


_SHOWN = ("located", "early", "late", "no_turn", "corrections_right", "right_throughout")


def table(summary: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One line per mutation, for people."""
    lines = []
    for name, of_part in summary.items():
        failures = ", ".join(f"{count} {failure}" for failure, count in of_part["failures"].items())
        lines.append([name, of_part["n"], *(_percent(of_part[column]) for column in _SHOWN), failures or "–"])
    return pd.DataFrame(lines, columns=["mutation", "n", *(c.replace("_", " ") for c in _SHOWN), "named failures"])


def _percent(share: dict[str, float] | None) -> str:
    return "–" if share is None else values.percent(pd.Series(share))


def review(config: Config, model: Model, plants: Sequence[Planted], out: Path) -> list[Review]:
    """One review per attempt, by the path that mentored problem solving takes."""
    work, sampling = out / "work", config.sampling
    digest = digest_of(model)
    with (
        ResumableRows(work / f"replies.{fingerprint.auditing(model)}.jsonl") as replies,
        open_engine(model, work / "teacher.log") as engine,
    ):
        teacher = Teacher(
            engine, step=sampling.step, judge=sampling.judge, advice=config.correct.advice, identity=digest,
            replies=replies,
        )  # fmt: skip
        return teacher.review([one.attempt for one in plants])


def served(config: Config, name: str) -> Model:
    """The entry of `models`. Raises `ScoreError` if there is none, or if it is not spoken to over HTTP."""
    if name not in config.models:
        raise ScoreError(f"--model: unknown model {name!r}; {nearest(name, config.models)}")
    if config.models[name].engine == "transformers":
        raise ScoreError(f"--model: {name!r} must be served over HTTP (vllm, endpoint, oracle)")
    return config.models[name]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="resolved, or the first of several with --overlay")
    parser.add_argument("--overlay", type=Path, action="append", default=[])
    parser.add_argument("--model", help="name of an entry of `models`; default: roles.teacher")
    parser.add_argument("--world", choices=WORLDS, help="default: the config's, or micro if it has published questions")
    parser.add_argument("--mutation", choices=EVERY, action="append", help="default: all of them")
    parser.add_argument("--per-mutation", type=int, default=20, metavar="N", help="attempts of each (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    args = parser.parse_args(argv)
    if args.per_mutation < 1:
        raise ScoreError(f"--per-mutation: at least 1, not {args.per_mutation}")
    config = read_merged([args.config, *args.overlay])
    name = args.model or config.roles.teacher
    model = served(config, name)
    questions = args.world or (config.data.world if config.data.generated else "micro")
    benchmarks = config.benchmarks if questions == config.data.world else list(WORLDS[questions])
    world = make_world()
    tools: Tools = {"web_search": search.tool(KnowledgeBase(world), 1)}
    with sandbox(config) as pool:
        plants = planted(args.mutation or EVERY, benchmarks, args.per_mutation, args.seed, world, pool, tools)
        log.info("%d attempts planted; %s reviews them", len(plants), name)
        reviews = review(config, model, plants, args.out)
        findings = [examine(one, said, world, pool, tools) for one, said in zip(plants, reviews, strict=True)]
    dead = [finding for finding in findings if finding.failure == INFRASTRUCTURE]
    if len(dead) == len(findings):
        raise InfrastructureError(f"audit: {name} reviewed nothing: {dead[0].detail}")
    if dead:
        log.warning("%d of %d reviews met an infrastructure failure; run it again", len(dead), len(findings))
    settings = {
        "name": name, "model": model.model_dump(mode="json"), "step": config.sampling.step.model_dump(),
        "judge": config.sampling.judge.model_dump(), "advice": config.correct.advice, "benchmarks": benchmarks,
    }  # fmt: skip
    record = provenance(settings, world=questions, seed=args.seed)
    rows = [
        dataclasses.asdict(finding) | {"attempt": one.attempt.to_json()}
        for finding, one in zip(findings, plants, strict=True)
    ]
    save(findings, rows, record, args.out)


def save(findings: Sequence[Finding], rows: Sequence[Row], record: dict[str, Any], out: Path) -> None:
    """Writes everything but the replies, and logs the table."""
    shares = summary(findings)
    name = record["settings"]["model"]["label"] or record["settings"]["name"]
    note = f"MICRO-WORLD ({record['world']}), planted errors; teacher: {name}."
    shown = table(shares).to_markdown(index=False, disable_numparse=True)
    write_rows(out / "audit.jsonl", rows)
    write_json(out / "audit.json", {"shares": shares, **record})
    write_text(out / "audit.md", f"**Audit of a teacher.** {note} {CAPTION}\n\n{shown}\n")
    confusion.save(confusion.pairs_of(rows), note, out)
    log.info("%s\n%s", note, shown)


if __name__ == "__main__":
    cli.run(main)
