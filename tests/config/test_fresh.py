"""Agents that are asked to be computed anew: the count that sets their earlier work aside."""

from pathlib import Path

import yaml

from score import fresh, launch
from score.config.load import merge
from score.workflow import Plan

ROOT = Path(__file__).parents[2]
MICRO = merge(
    yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text())
)


def test_a_count_grows_with_every_request_and_stays_without_one(tmp_path):
    assert fresh.counts(tmp_path, []) == {}
    fresh.remember(tmp_path, fresh.counts(tmp_path, ["dpo"]))
    assert fresh.counts(tmp_path, []) == {"dpo": 1}
    fresh.remember(tmp_path, fresh.counts(tmp_path, ["dpo", "grpo"]))
    assert fresh.counts(tmp_path, []) == {"dpo": 2, "grpo": 1}


def test_all_stages_of_that_agent_and_of_no_other_move(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain, anew = Plan(MICRO), Plan(MICRO | {"fresh": ["dpo"]})
    for stage in ("dpo", "evaluate"):
        assert plain.stage(stage, "dpo", "0") != anew.stage(stage, "dpo", "0")
        assert plain.stage(stage, "dpo", "1") == anew.stage(stage, "dpo", "1"), "a seed that was not asked for"
    assert plain.stage("evaluate", "bc20", "0") == anew.stage("evaluate", "bc20", "0")
    assert plain.stage("rollout", "teacher") != Plan(MICRO | {"fresh": ["teacher"]}).stage("rollout", "teacher")


def test_an_ablation_may_be_named_by_its_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_target, by_name = Plan(MICRO | {"fresh": ["ablation_full"]}), Plan(MICRO | {"fresh": ["score_rl"]})
    assert by_target.stage("grpo", "score_rl", "0") == by_name.stage("grpo", "score_rl", "0")
    assert by_target.stage("grpo", "score_rl", "0") != Plan(MICRO).stage("grpo", "score_rl", "0")


def test_a_job_means_the_work_folder_of_the_run_that_started_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = MICRO | {"fresh": ["dpo"]}
    main = Plan(asked)
    launch.start(main, "local")
    job = Plan(asked, main=False)
    launch.start(job, "local")
    assert job.stage("dpo", "dpo", "0") == main.stage("dpo", "dpo", "0")
    assert Plan(MICRO).stage("dpo", "dpo", "0") == main.stage("dpo", "dpo", "0"), "and a later run continues it"
    assert Plan(asked).stage("dpo", "dpo", "0") != main.stage("dpo", "dpo", "0"), "unless it is asked for again"


def test_the_request_is_no_part_of_the_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Plan(MICRO | {"fresh": ["dpo"]}).resolved() == Plan(MICRO).resolved()
