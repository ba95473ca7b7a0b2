"""What counts as a score, what counts as none, and which prediction files are refused."""

import json

import pytest

from score.data import benchmarks
from score.errors import ScoreError
from score.evaluate.score import main, read_predictions, read_scores, score, verdict_key
from score.jsonl import write_rows
from score.records import Step, StopReason, Task, Trajectory

JUDGED, MICRO = benchmarks.get("gaia"), benchmarks.get("math2")
TASKS = [Task(f"q{i}", f"Question {i}?", (str(i),), "gaia") for i in range(6)]


def episode(task, answer=None, stop=StopReason.ANSWERED, error=None, **meta):
    steps = (Step("t", "c", "o", error=error), Step("t", "c", "o"))
    meta = {"agent": "a", "run_seed": 0, "tool_calls": {"web_search": 3}} | meta
    tokens = {"prompt": 100, "completion": 20, "calls": 3}
    return Trajectory(task, "plan", steps, stop, answer, tokens, meta=meta)


def scored(trajectories, benchmark=JUDGED, verdicts=None, tasks=TASKS):
    return score(trajectories, tasks, benchmark, verdicts or {}, agent="a", seed=0)


def test_a_judged_benchmark():
    trajectories = [
        episode(TASKS[0], "0"),  # the rules see it
        episode(TASKS[1], "one"),  # the judge accepts
        episode(TASKS[2], "three"),  # the judge refuses
        episode(TASKS[3], None, StopReason.MAX_STEPS),
        episode(TASKS[4], None, StopReason.PARSE_ERROR, error="truncated"),
        episode(TASKS[5], None, StopReason.CONTEXT_OVERFLOW),
    ]
    verdicts = {
        verdict_key("gaia", "Question 1?", "one"): True,
        verdict_key("gaia", "Question 2?", "three"): False,
        verdict_key("gaia", "Question 3?", "three"): True,
    }
    scores = scored(trajectories, verdicts=verdicts)
    assert [row.score for row in scores.rows] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert (scores.mean, scores.n, scores.questions, scores.complete) == (pytest.approx(2 / 6), 6, 6, True)
    assert scores.rates == pytest.approx(
        {"no_answer": 3 / 6, "truncated": 2 / 6, "infrastructure_error": 0, "parse_error": 1 / 6}
    )
    assert scores.means == {
        "steps": 2,
        "tool_calls": 3,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "engine_calls": 3,
    }


def test_what_has_no_outcome_is_never_a_zero():
    trajectories = [
        episode(TASKS[0], "0"),
        episode(TASKS[1], "1", StopReason.INFRASTRUCTURE_ERROR),
        episode(TASKS[2], "two"),  # waits for the judge
        episode(TASKS[3], "three", verdict="none"),
    ]
    scores = scored(trajectories, verdicts={verdict_key("gaia", "Question 3?", "three"): False})
    assert [row.score for row in scores.rows] == [1.0, None, None, 0.0, None, None]
    assert [row.stop for row in scores.rows] == ["answered", "infrastructure_error", "answered", "answered", None, None]
    assert (scores.mean, scores.n, scores.questions, scores.complete) == (0.5, 2, 6, False)
    assert scores.rates["infrastructure_error"] == 0.25
    assert scores.rates["no_answer"] == 0.0


def test_nothing_scored_has_no_mean():
    scores = scored([])
    assert (scores.mean, scores.n, scores.complete) == (None, 0, False)
    assert set(scores.rates.values()) == {0.0}
    assert scores.means == {}


@pytest.mark.parametrize("benchmark", ["math2", "aime24", "hotpotqa"])
def test_rules_decide_the_other_metrics_alone(benchmark):
    scores = scored(
        [episode(task, answer) for task, answer in zip(TASKS, "012994", strict=True)], benchmarks.get(benchmark)
    )
    assert [row.score for row in scores.rows] == [1, 1, 1, 0, 0, 0]
    assert scores.complete


def write(path, *trajectories):
    write_rows(path, [trajectory.to_json() | {"key": "k"} for trajectory in trajectories])


def test_predictions_that_do_not_belong_are_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    good, other = episode(TASKS[0], "0"), Task("q0", "Another question?", ("0",), "gaia")
    cases = [
        (episode(Task("q9", "?", ("1",), "gaia")), r"p\.jsonl:2: question 'q9' is not in the task file"),
        (episode(other), r"p\.jsonl:2: question 'q0' is not in the task file"),
        (good, r"p\.jsonl:2: a second prediction for question 'q0'"),
        (episode(TASKS[1], agent="b"), r"p\.jsonl:2: agent is 'b', these should be 'a''s"),
        (episode(TASKS[1], run_seed=1), r"p\.jsonl:2: run_seed is 1, these should be 0's"),
    ]
    for bad, message in cases:
        write(path, good, bad)
        with pytest.raises(ScoreError, match=message):
            read_predictions(path, TASKS, "a", 0)
    write_rows(path, [{"version": 1}])
    with pytest.raises(ScoreError, match=r"p\.jsonl:1: not a trajectory \(task: Field required\)"):
        read_predictions(path, TASKS, "a", 0)
    write(path, good, episode(TASKS[1], "1"))
    assert len(read_predictions(path, TASKS, "a", 0)) == 2


def test_what_is_read_for_scoring_scores_as_the_whole_trajectories_do(tmp_path):
    trajectories = [
        episode(TASKS[0], "0"),
        episode(TASKS[1], "one", sample=1),
        episode(TASKS[2], None, StopReason.MAX_STEPS, error="truncated"),
        episode(TASKS[3], "3", StopReason.INFRASTRUCTURE_ERROR),
    ]
    write(tmp_path / "p.jsonl", *trajectories)
    assert scored(read_predictions(tmp_path / "p.jsonl", TASKS, "a", 0)) == scored(trajectories)


def test_the_command_scores_every_benchmark_by_its_own_verdicts(tmp_path):
    write_rows(tmp_path / "tasks.jsonl", [task.to_json() for task in TASKS])
    for name in ("gaia", "hle"):
        write(tmp_path / f"{name}.jsonl", *[episode(task, "so-so") for task in TASKS])
        write_verdicts(tmp_path, name, [i < 3 for i in range(6)] if name == "gaia" else [True] * 6)
    main(command(tmp_path, "gaia", "hle"))
    scores = read_scores(tmp_path / "gaia.score.json")
    assert (scores.agent, scores.benchmark, scores.mean, scores.n, scores.complete) == ("a", "gaia", 0.5, 6, True)
    assert scores.to_json() == json.loads((tmp_path / "gaia.score.json").read_text())
    assert read_scores(tmp_path / "hle.score.json").mean == 1


def test_the_command_takes_no_verdict_that_is_none(tmp_path):
    write_rows(tmp_path / "tasks.jsonl", [task.to_json() for task in TASKS])
    write(tmp_path / "gaia.jsonl", *[episode(task, "so-so") for task in TASKS])
    write_verdicts(tmp_path, "gaia", [None, *[True] * 5])
    main(command(tmp_path, "gaia"))
    scores = read_scores(tmp_path / "gaia.score.json")
    assert (scores.mean, scores.n, scores.complete) == (1.0, 5, False), "an unparseable verdict is no zero"
    write_verdicts(tmp_path, "gaia", ["true"])
    with pytest.raises(
        ScoreError, match=r'gaia\.jsonl:1: a verdict needs "key" and a true, false or null "equivalent"'
    ):
        main(command(tmp_path, "gaia"))
    with pytest.raises(ScoreError, match="not a score file"):
        read_scores(tmp_path / "verdicts/gaia.jsonl")


def test_the_command_names_what_does_not_fit_together(tmp_path, capsys):
    write(tmp_path / "gala.jsonl", episode(TASKS[0], "0"))
    write_rows(tmp_path / "tasks.jsonl", [task.to_json() for task in TASKS])
    with pytest.raises(
        ScoreError, match=r"gala\.jsonl: it is named for its benchmark; unknown benchmark 'gala'; did you mean 'gaia'"
    ):
        main(command(tmp_path, "gala"))
    with pytest.raises(SystemExit):
        main([*command(tmp_path, "gala"), "--tasks", "a.jsonl", "b.jsonl"])
    assert "1 prediction files need as many task files, not 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command(tmp_path, "gala"), "--verdicts", "gaia.jsonl"])
    assert "--verdicts takes one file for a benchmark that there are predictions of" in capsys.readouterr().err


def write_verdicts(folder, name, verdicts):
    keys = [verdict_key(name, task.question, "so-so") for task in TASKS]
    rows = [{"key": key, "equivalent": found} for key, found in zip(keys, verdicts, strict=False)]
    write_rows(folder / f"verdicts/{name}.jsonl", rows)


def command(folder, *names):
    words = ["--predictions", *(str(folder / f"{name}.jsonl") for name in names), "--agent", "a", "--seed", "0"]
    words += ["--remembered", str(folder / "work/math.sqlite"), "--tasks", *[str(folder / "tasks.jsonl")] * len(names)]
    return [
        *words,
        "--verdicts",
        *(str(path) for name in names if (path := folder / f"verdicts/{name}.jsonl").exists()),
    ]
