"""A stage in shards: every row is in one of them, and how many there are leaves no trace in the result."""

import contextlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fakes import LocalPool, ScriptedAsyncEngine, ScriptedEngine
from score import attempts, gather, rollout
from score.agent.protocol import plan_text, step_text
from score.config import load
from score.config.__main__ import dump
from score.config.load import merge
from score.correct import __main__ as correct
from score.errors import ScoreError
from score.evaluate import __main__ as evaluate
from score.jsonl import read_rows, write_json, write_rows
from score.records import Task
from score.shards import WHOLE, Shard, join
from score.shards import merge as merge_records

ROOT = Path(__file__).parents[2]
CONFIG = load(
    merge(yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text()))
)


def all_shards(count: int) -> list[Shard]:
    return [Shard(number, count) for number in range(1, count + 1)]


lists, counts = st.lists(st.integers(), max_size=50), st.integers(1, 12)


@given(lists, counts)
def test_every_row_is_in_exactly_one_shard_and_the_shards_are_equally_long(rows, count):
    places = [shard.take(range(len(rows))) for shard in all_shards(count)]
    assert sorted(place for part in places for place in part) == list(range(len(rows)))
    assert max(map(len, places)) - min(map(len, places)) <= 1
    assert [shard.take(rows) for shard in all_shards(count)] == [[rows[i] for i in part] for part in places]


@given(lists, counts)
def test_joining_the_shards_gives_the_rows_in_their_order(rows, count):
    assert join([shard.take(rows) for shard in all_shards(count)]) == rows


@given(lists, st.integers(2, 12), st.data())
def test_shards_of_different_lists_are_refused_by_name(rows, count, data):
    parts = [shard.take(rows) for shard in all_shards(count)]
    number = data.draw(st.integers(1, count))
    parts[number - 1] = parts[number - 1] + [0, 0]
    with pytest.raises(ScoreError, match=rf"shard \d+-of-{count} has \d+ rows, not \d+; remove it to redo it"):
        join(parts)


def test_the_shard_that_lacks_rows_is_named():
    with pytest.raises(ScoreError, match=r"^shard 2-of-3 has 1 rows, not 2; remove it to redo it$"):
        join([[0, 3], [1], [2, 5]])


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.lists(st.integers(0, 1))), min_size=1))
def test_a_merged_record_has_every_value_of_every_shard(records):
    merged = merge_records(records)
    assert merged.pop("shards") == len(records)
    assert set(merged) == {key for record in records for key in record}
    for key, value in merged.items():
        found = [record.get(key) for record in records]
        assert value == found[0] if all(one == found[0] for one in found) else all(one in value for one in found)


@given(counts, st.data())
def test_a_shard_reads_what_it_writes(count, data):
    shard = Shard(data.draw(st.integers(1, count)), count)
    assert Shard.parse(str(shard)) == shard


@pytest.mark.parametrize("word", ["0-of-3", "4-of-3", "1-of-0", "2/8", "2-of-", "-1-of-3", "2-of-8 ", "", "two-of-8"])
def test_a_wrong_shard_ends_a_stage_with_one_line(word):
    with pytest.raises(ScoreError) as error:
        evaluate.main([f"--shard={word}"])
    assert str(error.value) == f"shard {word!r}: expected I-of-N with I from 1 to N, such as 2-of-8"


# The stages themselves, with an engine whose replies are a function of the request's seed.

TASKS = [Task(f"t{i}", f"question {i}", (str(i % 3),), "toy", {"metric": "exact"}) for i in range(29)]
BENCHMARKS = {"math2": TASKS[:17], "hop2": TASKS[17:]}


class Killed(BaseException):
    """The job ends here."""


@dataclass
class Models:
    """The student and the teacher; both count what they are asked."""

    planned: list[str] = field(default_factory=list)
    reviewed: int = 0
    last: int | None = None
    """The number of plans after which the job is killed."""

    def student(self, request) -> str:
        """Plans, then prints, errs, breaks the format or answers, right or not."""
        if all(message.role != "assistant" for message in request.messages):
            if len(self.planned) == self.last:
                raise Killed
            self.planned.append(request.messages[-1].content)
            return plan_text(f"plan {request.seed % 89}")
        value = request.seed // 7 % 5
        answer = step_text("answers", f"final_answer_print({value})")
        turns = [
            "no block",
            step_text("fails", f"raise ValueError({request.seed % 89})"),
            step_text("looks", f"print(web_search('{request.seed % 89}'))"),
            step_text("keeps a value", f"x = {value}\nprint(x)"),
        ]
        return [*turns, answer, answer, answer][request.seed % 7]

    def teacher(self, request) -> str:
        """Finds the plan or a step wrong, or nothing, often not as JSON at first; its rewritten turns are of the kind
        asked for."""
        text, self.reviewed = request.messages[1].content, self.reviewed + 1
        if "<wrong" not in text and len(request.messages) == 2 and request.seed % 3 == 0:
            return "somewhere"
        if "<wrong" not in text:
            return json.dumps({"step": [0, 1, 1, 1, 1, 1, 1, None][request.seed % 8], "analysis": ""})
        fixed = f"y = {request.seed % 89}\nprint(y)"
        return plan_text(f"fixed {request.seed}") if '<wrong n="0">' in text else step_text("fixed", fixed)


@pytest.fixture
def models(monkeypatch):
    """Both models, in place of those that a stage opens."""
    models = Models()

    @contextlib.contextmanager
    def acting(config, agent, seed, root, log, tools):
        engine = ScriptedEngine(models.student)
        yield attempts.Acting(config, agent, seed, "digest", engine, LocalPool(), tools)

    @contextlib.contextmanager
    def open_tools(config, purpose):
        yield {"web_search": str.upper}

    for stage in (rollout, correct, evaluate):
        monkeypatch.setattr(stage, "acting", acting)
        monkeypatch.setattr(stage, "open_tools", open_tools)
    opened = contextlib.nullcontext(ScriptedAsyncEngine(models.teacher))
    monkeypatch.setattr(correct, "open_engine", lambda model, log: opened)
    return models


class Folder:
    """An experiment's files, and its stages as the rules call them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        (path / "config.yaml").write_text(dump(CONFIG))
        write_rows(path / "seeds.jsonl", [task.to_json() for task in TASKS])
        write_json(path / "splits.json", {"cold_start": [], "mentored": [task.id for task in reversed(TASKS)]})
        for name, tasks in BENCHMARKS.items():
            write_rows(path / f"data/{name}.jsonl", [task.to_json() for task in tasks])
        self.benchmarks = [path / f"data/{name}.jsonl" for name in BENCHMARKS]

    def shard(self, stage: str, shard: Shard) -> None:
        out = self.path / stage / f"{shard}.jsonl"
        of_seeds = ["--tasks", self.path / "seeds.jsonl", "--splits", self.path / "splits.json"]
        module, tasks = {
            "rollout": (rollout, [*of_seeds, "--part", "mentored"]),
            "corrections": (correct, of_seeds),
            "evaluation": (evaluate, ["--tasks", *self.benchmarks]),
        }[stage]
        given = ["--config", self.path / "config.yaml", "--agent", "bc20", "--root", self.path, "--shard", shard]
        places = ["--work", self.path / "work" / stage, "--out", out, "--provenance", out.with_suffix(".json")]
        module.main([str(word) for word in (*given, *tasks, *places)])

    def gather(self, stage: str, count: int) -> dict[str, bytes]:
        """File -> content of the stage's result."""
        parts = [self.path / stage / str(shard) for shard in all_shards(count)]
        out = self.path / f"{stage}.result"
        rows, records = ([part.with_suffix(suffix) for part in parts] for suffix in (".jsonl", ".json"))
        words = [stage, "--rows", *rows, "--records", *records, "--config", self.path / "config.yaml"]
        words += ["--tasks", *self.benchmarks, "--out", out / "rows.jsonl", "--out-dir", out]
        words += ["--provenance", self.path / f"{stage}.provenance.json", "--fingerprint", "of the stage"]
        gather.main([str(word) for word in words])
        return {path.name: path.read_bytes() for path in out.iterdir()}

    def provenance(self, stage: str) -> dict:
        return json.loads((self.path / f"{stage}.provenance.json").read_text())


def result(folder: Path, stage: str, count: int) -> dict[str, bytes]:
    experiment = Folder(folder)
    for shard in all_shards(count):
        experiment.shard(stage, shard)
    return experiment.gather(stage, count)


@pytest.mark.parametrize("stage", ["rollout", "corrections", "evaluation"])
def test_the_number_of_shards_leaves_no_trace_in_the_result(tmp_path, models, stage):
    whole = result(tmp_path / "1", stage, 1)
    assert result(tmp_path / "3", stage, 3) == whole
    assert result(tmp_path / "8", stage, 8) == whole
    assert all(whole.values()), "every file has rows"
    counts = [Folder(tmp_path / str(n)).provenance(stage) for n in (1, 3, 8)]
    assert [record.pop("shards") for record in counts] == [1, 3, 8]
    assert counts[0] == counts[1] == counts[2]
    assert counts[0]["fingerprint"] == "of the stage"
    if stage == "corrections":
        assert counts[0]["repairs"]["asked"] == counts[0]["repairs"]["made"] > 3


@pytest.mark.parametrize("stage", ["rollout", "corrections", "evaluation"])
def test_a_stage_interrupted_in_three_shards_goes_on_in_eight_with_what_is_missing(tmp_path, models, stage):
    undisturbed = result(tmp_path / "undisturbed", stage, 3)
    planned, reviewed = sorted(models.planned), models.reviewed
    models.planned, models.reviewed, models.last = [], 0, 17
    interrupted = Folder(tmp_path / "interrupted")
    interrupted.shard(stage, Shard(1, 3))
    with pytest.raises(Killed):
        interrupted.shard(stage, Shard(2, 3))
    models.last = None
    assert result(tmp_path / "interrupted", stage, 8) == undisturbed
    again = len(models.planned) - len(planned)
    assert again < 4, "a batch that nobody had finished is all that was begun twice"
    assert sorted(set(models.planned)) == sorted(set(planned))
    assert models.reviewed == reviewed, "no reply of the teacher is paid for twice"


def test_the_work_of_other_numbers_of_shards_counts_and_is_left_as_it_is(tmp_path, models):
    folder = Folder(tmp_path)
    for shard in all_shards(3):
        folder.shard("evaluation", shard)
    work = tmp_path / "work/evaluation"
    before = {path.name: path.read_bytes() for path in work.glob("attempts.*-of-3.jsonl")}
    assert len(before) == 3
    models.planned.clear()
    for shard in (*all_shards(8), WHOLE):
        folder.shard("evaluation", shard)
    assert models.planned == []
    assert before == {name: (work / name).read_bytes() for name in before}


def test_attempts_at_other_questions_are_refused(tmp_path, models):
    folder = Folder(tmp_path)
    for shard in all_shards(2):
        folder.shard("evaluation", shard)
    maths, facts = folder.benchmarks
    complete = read_rows(facts)
    for changed in (complete[1:], complete[:-1], [*complete, TASKS[0].to_json()], complete[::-1]):
        write_rows(facts, changed)
        with pytest.raises(ScoreError, match=re.escape("attempts at other questions than those of")) as error:
            folder.gather("evaluation", 2)
        assert "\n" not in str(error.value)
    write_rows(facts, complete)
    assert set(folder.gather("evaluation", 2)) == {maths.name, facts.name}
