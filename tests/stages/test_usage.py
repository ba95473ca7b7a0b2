"""What models are asked is counted once per reply, by role, across kills and splits, into one ledger."""

import asyncio
import contextlib
import csv
import json
from pathlib import Path

import pytest
import yaml

from fakes import LocalPool, ScriptedAsyncEngine, ScriptedEngine, by_turn, mapping
from score import asked
from score.agent.protocol import plan_text, step_text
from score.attempts import Acting, Attempt, work_rows
from score.config import load
from score.config.schema import Sampling
from score.engine.base import Completion, Request
from score.errors import InfrastructureError, ScoreError
from score.jsonl import write_json, write_rows
from score.judge import __main__ as judge
from score.records import StopReason, Task, Trajectory
from score.report import ledger
from score.shards import WHOLE, Shard
from score.usage import COUNTS, Usage, gathered
from score.workflow import Plan

ROOT = Path(__file__).parents[2]


CONFIG = load(mapping("micro.yaml"))
TASKS = [Task(str(i), f"question {i}", ("5",), "toy", {"metric": "exact"}) for i in range(8)]
TURNS = (plan_text("p"), step_text("a", "final_answer_print(5)"))
REQUEST = Request((), Sampling(), seed=0)


class Killed(BaseException):
    """The job ends here."""


def attempt(folder: Path, shard: Shard = WHOLE, kill_after: int | None = None, tasks=TASKS) -> dict:
    """The counts of the student after one job at these tasks, which may be killed after so many replies."""
    replies = 0

    def reply(request: Request) -> str:
        nonlocal replies
        if replies == kill_after:
            raise Killed
        replies += 1
        return by_turn(*TURNS)(request)

    acting = Acting(CONFIG, "bc20", 0, "digest", ScriptedAsyncEngine(reply, concurrency=1), LocalPool(), {})
    with work_rows(folder, "attempts", shard) as rows, Usage(folder, "attempts", shard) as usage:
        acting = acting.counted(usage)
        try:
            acting.run([Attempt(task) for task in shard.take(tasks)], CONFIG.sampling.evaluate, rows, "test")
        except* Killed:
            pass
        return usage.facts()["usage"]["student"]


def test_a_job_counts_what_it_asks(tmp_path):
    counts = attempt(tmp_path)
    assert counts == {
        **dict.fromkeys(COUNTS, 0),
        "requests": 16,
        "prompt_tokens": 160,
        "completion_tokens": 80,
    }


def test_replies_that_a_killed_job_kept_count_once(tmp_path):
    """The kill falls between two episodes: nothing was asked for in vain."""
    assert attempt(tmp_path, kill_after=6)["requests"] == 6
    assert attempt(tmp_path)["requests"] == 16
    assert attempt(tmp_path)["requests"] == 16, "a job that asks nothing keeps what others have counted"


def test_replies_that_had_to_be_asked_for_again_count_twice(tmp_path):
    """The kill falls into an episode: its first reply was paid for, and it is asked for again."""
    attempt(tmp_path, kill_after=7)
    assert attempt(tmp_path)["requests"] == 17


def test_another_number_of_jobs_counts_what_the_earlier_ones_asked_once(tmp_path):
    attempt(tmp_path, Shard(1, 2))
    attempt(tmp_path, Shard(2, 2), kill_after=4)
    records = [{"usage": {"student": attempt(tmp_path, Shard(number, 3))}} for number in (1, 2, 3)]
    assert gathered(records)["student"]["requests"] == 16


def test_a_torn_line_is_dropped(tmp_path):
    attempt(tmp_path, kill_after=6)
    (journal,) = tmp_path.glob("usage.*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-3])
    assert attempt(tmp_path)["requests"] == 15
    assert attempt(tmp_path)["requests"] == 15


def test_failures_and_retries_are_counted_and_are_no_requests(tmp_path):
    engine = ScriptedAsyncEngine(lambda request: InfrastructureError("down"))
    engine.retried = 0
    with Usage(tmp_path, "x") as usage:
        counted = usage.counted(engine, "teacher")
        for _ in range(2):
            engine.retried += 3
            with pytest.raises(InfrastructureError):
                asyncio.run(counted.complete(REQUEST))
        assert usage.facts()["usage"]["teacher"] == dict.fromkeys(COUNTS, 0) | {"retried": 6, "failed": 2}


def test_a_batched_engine_is_counted_and_an_overflow_asks_it_nothing(tmp_path):
    replies = iter([Completion("", "context", prompt_tokens=99), Completion("a", "stop", None, 7, 3, cached_tokens=4)])
    with Usage(tmp_path, "x") as usage:
        counted = usage.counted(ScriptedEngine(lambda request: next(replies), batch=5), "student")
        assert counted.batch == 5
        assert [completion.text for completion in counted.complete([REQUEST, REQUEST])] == ["", "a"]
        counts = usage.facts()["usage"]["student"]
    assert counts == {
        **dict.fromkeys(COUNTS, 0),
        "requests": 1,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "cached_tokens": 4,
    }


def test_who_answered_goes_into_the_provenance(tmp_path):
    engine = ScriptedAsyncEngine(lambda request: "a")
    engine.served = {"model": "m", "command": ["serve", "m"], "version": "1"}
    with Usage(tmp_path, "x") as usage:
        usage.counted(engine, "teacher")
        assert usage.facts()["servers"] == {"teacher": engine.served}


def test_a_job_that_finds_all_done_still_says_who_answered(tmp_path):
    engine, newer = (ScriptedAsyncEngine(lambda request: "a") for _ in range(2))
    engine.served, newer.served = ({"model": "m", "command": ["serve", "m"], "version": v} for v in "12")
    for _ in range(2):
        with Usage(tmp_path, "x") as usage:
            usage.counted(engine, "teacher")
    with Usage(tmp_path, "x") as usage:
        assert usage.facts()["servers"] == {"teacher": engine.served}
        usage.counted(newer, "teacher")
    for shard in (WHOLE, Shard(1, 2)):
        with Usage(tmp_path, "x", shard) as usage:
            assert usage.facts()["servers"] == {"teacher": [engine.served, newer.served]}, "both have answered"
    with Usage(tmp_path, "x", Shard(2, 2)) as usage:
        assert usage.facts()["servers"] == {}


def test_the_judge_says_who_judged_and_what_it_took(tmp_path, monkeypatch):
    task = Task("q", "Who?", ("Ada Lovelace",), "hle")
    row = Trajectory(task, "plan", (), StopReason.ANSWERED, "the first programmer").to_json()
    write_rows(tmp_path / "tasks.jsonl", [task.to_json()])
    write_rows(tmp_path / "predictions.jsonl", [row, row])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(mapping()))
    engine = ScriptedAsyncEngine(lambda request: '{"equivalent": true}')
    engine.served = {"model": "m", "command": ["serve", "m"], "version": "1"}
    monkeypatch.setattr(judge, "open_engine", lambda model, log: contextlib.nullcontext(engine))
    words = ["--benchmark", "hle"]
    for name, file in {"config": "config.yaml", "tasks": "tasks.jsonl", "predictions": "predictions.jsonl"}.items():
        words += [f"--{name}", f"{tmp_path}/{file}"]
    words += ["--work", f"{tmp_path}/w", "--sample", "0"]
    for name, file in {"out": "v.jsonl", "agreement": "a.json", "provenance": "p.json"}.items():
        words += [f"--{name}", f"{tmp_path}/{file}"]
    for _ in range(2):
        judge.main(words)
        record = json.loads((tmp_path / "p.json").read_text())
        assert record["stage"] == "judge"
        assert record["model"].startswith("Qwen/Qwen2.5-72B-Instruct@")
        assert record["usage"].get("evaluation_judge", {})["requests"] == 1
        assert record["servers"] == {"evaluation_judge": engine.served}


# The ledger.


def counts(**some: int) -> dict[str, int]:
    return dict.fromkeys(COUNTS, 0) | some


def rows_of(folder: Path, config: dict, *records: dict) -> list[dict]:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    paths = [folder / f"{number}.json" for number in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        write_json(path, record)
    out = folder / "ledger.csv"
    ledger.main(["--config", f"{folder}/config.yaml", "--records", *map(str, paths), "--out", str(out)])
    with open(out) as file:
        return list(csv.DictReader(file))


def test_the_ledger_has_one_row_per_stage_agent_seed_and_role(tmp_path):
    priced = mapping("micro.yaml", models={"oracle": {"price": {"prompt": 2.5, "completion": 10}}})
    evaluation = {"stage": "evaluate", "agent": "bc20", "seed": 0}
    rows = rows_of(
        tmp_path,
        priced,
        {"stage": "correct", "agent": "bc20", "seed": 0}
        | {"usage": {"student": counts(requests=3), "teacher": counts(requests=2, prompt_tokens=1000, failed=1)}},
        evaluation | {"usage": {"student": counts(requests=5, prompt_tokens=10)}},
        evaluation | {"usage": {"student": counts(requests=7, prompt_tokens=20, completion_tokens=4)}},
        {"stage": "evaluate", "agent": "teacher", "seed": 0, "usage": {"teacher": counts(completion_tokens=100)}},
    )
    assert list(rows[0]) == list(ledger.COLUMNS)
    shown = [tuple(row[c] for c in ("stage", "agent", "seed", "role", "model", "n_requests")) for row in rows]
    assert shown == [
        ("correct", "bc20", "0", "student", "student", "3"),
        ("correct", "bc20", "0", "teacher", "oracle", "2"),
        ("evaluate", "bc20", "0", "student", "student", "12"),
        ("evaluate", "teacher", "0", "teacher", "oracle", "0"),
    ]
    assert [row["cost_usd"] for row in rows] == ["", "0.002500", "", "0.001000"]
    assert (rows[1]["n_failed"], rows[2]["prompt_tokens"], rows[2]["completion_tokens"]) == ("1", "30", "4")


def test_an_agents_own_teacher_is_named_and_priced(tmp_path):
    config = mapping("micro.yaml", models={"other": {"engine": "oracle", "price": {"prompt": 1, "completion": 1}}})
    (agent,) = [agent for agent in config["agents"] if agent["name"] == "score_sft"]
    before = asked.terms(load(config))
    agent["teacher"] = "other"
    record = {"seed": 0, "usage": {"teacher": counts(requests=1, prompt_tokens=1_000_000)}}
    corrected = [record | {"stage": "correct", "agent": name} for name in ("score_sft", "bc20")]
    rows = rows_of(tmp_path, config, *corrected, record | {"stage": "rollout", "agent": "teacher"})
    assert [(row["model"], row["cost_usd"]) for row in rows] == [("other", "1.000000"), ("oracle", ""), ("oracle", "")]
    assert asked.terms(load(config)) != before, "another teacher makes the ledger anew"


def test_a_record_that_is_none_is_named(tmp_path):
    (tmp_path / "torn.json").write_text("{")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(mapping("micro.yaml")))
    with pytest.raises(ScoreError, match=r"torn\.json: not a provenance record"):
        ledger.main(
            ["--config", f"{tmp_path}/config.yaml", "--records", f"{tmp_path}/torn.json", "--out", f"{tmp_path}/o"]
        )


def test_every_stage_that_asks_models_is_in_the_ledger():
    found = asked.records(Plan(mapping("micro.yaml")))
    folder = "results/micro"
    assert len(found) == len(set(found))
    for path in (
        *("rollout/teacher/cold_start.provenance.json", "rollout/teacher/mentored.provenance.json"),
        *("correct/bc20-s0/provenance.json", "train/score_rl-s0/provenance.json"),
        *("eval/teacher/0/provenance.main.json", "eval/score_rl/0/provenance.deep.json"),
        "eval/score_rl/0/provenance.hard.json",
    ):
        assert f"{folder}/{path}" in found
    assert "results/micro/train/bc20-s0/provenance.json" not in found, "fine-tuning asks nobody"
    assert f"{folder}/eval/ablation_neither/0/provenance.deep.json" not in found, "the ablations have no deep search"


def test_what_the_teacher_wrote_for_whom():
    found = asked.teaching(Plan(mapping("micro.yaml", seeds=[0, 1])))
    cold, mentored = (f"results/micro/rollout/teacher/{part}.provenance.json" for part in ("cold_start", "mentored"))
    corrections = [f"results/micro/correct/bc20-s{seed}/provenance.json" for seed in (0, 1)]
    assert found["untrained"] == []
    assert found["bc20"] == [cold]
    assert found["bc_full"] == [cold, mentored]
    assert found["grpo"] == [cold], "from the question, with a reward for the answer alone, nobody teaches"
    for agent in ("score_sft", "sft_both", "dpo", "score_rl", "ablation_neither"):
        assert sorted(found[agent]) == sorted([cold, *corrections]), agent
    assert "teacher" not in found
    assert " ".join(["--taught bc20", cold]) in asked.teaching_options(Plan(mapping("micro.yaml")))


def test_an_agent_with_a_teacher_of_its_own_is_charged_for_that_one():
    found = asked.teaching(Plan(mapping("micro.yaml", "micro_teachers.yaml")))
    own = {agent: paths for agent, paths in found.items() if any("/correct/" in path for path in paths)}
    folders = [path.split("/")[3] for paths in own.values() for path in paths if "/correct/" in path]
    assert len(folders) == len(set(folders)) == len(own) > 1


@pytest.mark.parametrize(
    ("overlays", "more", "known"),
    [
        (["micro.yaml"], {}, True),
        ([], {"from_reported": True}, False),
        (["smollm2.yaml"], {}, False),  # published demonstrations
        ([], {}, True),
    ],
)
def test_where_it_is_known_what_the_teacher_wrote(overlays, more, known):
    plan = Plan(mapping(*overlays, **more))
    assert plan.counts_teaching is known
    assert any("teacher_tokens" in path for path in plan.figures()) is (known and bool(plan.ladder))


def test_the_papers_agents_are_taught_and_stand_in_tables():
    plan = Plan(mapping())
    drawn = {n: [name for name in plan.of(n) if name in asked.teaching(plan)] for n in (1, 2)}
    assert all(len(names) > 2 for names in drawn.values())


def test_judges_are_in_the_ledger_and_published_demonstrations_are_not():
    paper = asked.records(Plan(mapping()))
    assert {path for path in paper if "verdicts" in path} == {
        f"results/paper/verdicts/{name}.provenance.json" for name in ("gaia", "hle", "webwalker", "xbench")
    }
    published = asked.records(Plan(mapping("smollm2.yaml")))
    assert [path for path in published if "rollout" in path] == []


def test_a_price_makes_the_ledger_anew_and_nothing_else():
    priced = load(mapping("micro.yaml", models={"oracle": {"price": {"prompt": 1, "completion": 1}}}))
    assert asked.terms(priced) != asked.terms(CONFIG)
    assert json.loads(asked.terms(CONFIG))[0]["teacher"] == "oracle"
