"""Agents that are asked to be computed anew: the count that sets their earlier work aside."""

from pathlib import Path

import yaml

from score import fresh
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
        assert plain.stage(stage, "dpo") != anew.stage(stage, "dpo")
    assert plain.stage("evaluate", "bc20") == anew.stage("evaluate", "bc20")


def test_a_job_means_the_work_folder_of_the_run_that_started_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = MICRO | {"fresh": ["dpo"]}
    main = Plan(asked)
    main.start()
    job = Plan(asked, main=False)
    job.start()
    assert job.stage("dpo", "dpo") == main.stage("dpo", "dpo")
    assert Plan(MICRO).stage("dpo", "dpo") == main.stage("dpo", "dpo"), "and a later run continues it"
    assert Plan(asked).stage("dpo", "dpo") != main.stage("dpo", "dpo"), "unless it is asked for again"


def test_the_request_is_no_part_of_the_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Plan(MICRO | {"fresh": ["dpo"]}).resolved() == Plan(MICRO).resolved()
