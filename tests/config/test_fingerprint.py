"""What makes a stage run again: its settings and its code, and nothing else."""

import copy
from pathlib import Path

import pytest
import yaml

from score import fingerprint
from score.config import load
from score.config.load import merge

ROOT = Path(__file__).parents[2]
MICRO = merge(
    yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text())
)


def stages(change=lambda raw: None):
    raw = copy.deepcopy(MICRO)
    change(raw)
    config = load(raw)
    found = {
        (a.name, kind): fingerprint.stage(config, kind, a.name)
        for a in config.agents
        for kind in ("evaluate", *({a.method} - {"prompt"}))
    }
    return found | {("bc20", "correct"): fingerprint.stage(config, "correct", "bc20")}


def moved(change):
    before, after = stages(), stages(change)
    return {key for key in before if before[key] != after[key]}


def test_one_agents_settings_touch_its_training_only():
    assert moved(lambda raw: raw["training"]["dpo"]["key_step_pairs"].update(lr=5e-4)) == {("dpo", "dpo")}
    both = {("score_sft", "sft"), ("sft_both", "sft")}
    assert moved(lambda raw: raw["training"]["sft"]["score_sft"].update(lr=5e-4)) == both, "they share the settings"


def test_only_a_training_that_looks_at_held_out_questions_depends_on_how_they_are_attempted():
    def looks(raw):
        raw["training"]["sft"]["score_sft"]["eval_every"] = 10

    def hotter(raw):
        looks(raw)
        raw["sampling"]["evaluate"].update(temperature=0.9)

    plain, looking, hot = stages(), stages(looks), stages(hotter)
    both = {("score_sft", "sft"), ("sft_both", "sft")}
    assert {key for key in plain if plain[key] != looking[key]} == both
    assert {key for key in looking if looking[key] != hot[key] and key[1] == "sft"} == both


def test_correction_settings_touch_the_correction_only():
    assert moved(lambda raw: raw.update(correct={"max_corrections": 5})) == {("bc20", "correct")}


def test_how_well_an_oracle_corrects_touches_the_correction_only():
    assert moved(lambda raw: raw["models"]["oracle"].update(accuracy=0.6)) == {("bc20", "correct")}
    assert moved(lambda raw: raw["models"]["oracle"].update(accuracy=1.0)) == set()


def test_a_teacher_of_its_own_touches_that_correction_only():
    def other_teacher(raw, accuracy=0.6):
        raw["models"]["other"] = {"engine": "oracle", "accuracy": accuracy, "leap": 0.4}
        raw["agents"][5]["teacher"] = "other"

    assert moved(other_teacher) == set(), "its training follows from the data"
    raw = copy.deepcopy(MICRO)
    other_teacher(raw)
    of_its_own, shared = (fingerprint.stage(load(raw), "correct", name) for name in ("score_sft", "bc20"))
    assert of_its_own != shared
    other_teacher(raw, accuracy=1.0)
    assert fingerprint.stage(load(raw), "correct", "score_sft") == shared, "the same oracle by another name"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["models"]["oracle"].update(logprobs=True),
        lambda raw: raw["models"]["oracle"].update(token_ids=True),
        lambda raw: raw["models"]["oracle"].update(arguments=["--quantization", "fp8"]),
        lambda raw: raw["models"]["oracle"].update(adapters={"a": "/lora"}, adapter="a"),
        lambda raw: raw["models"]["oracle"].update(engine="endpoint", url="http://other/v1"),
    ],
)
def test_what_a_server_says_touches_all_that_asks_it(change):
    assert moved(change) == {("teacher", "evaluate"), ("bc20", "correct")}


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["models"]["student"].update(batch=7, label="other"),
        lambda raw: raw["models"]["student"].update(memory_fraction=0.5, prefix_caching=False, start_s=60),
        lambda raw: raw["models"]["oracle"].update(price={"prompt": 1, "completion": 2}, api_key_env="OTHER"),
        lambda raw: raw["models"]["student"].update(licence="Apache-2.0", gated=True, serves="other"),
        lambda raw: raw["models"]["student"].update(url=["http://a/v1", "http://b/v1"]),
        lambda raw: raw["agents"][2].update(label="other", tables=[3]),
        lambda raw: raw.update(title="other", benchmarks=["math2"]),
        lambda raw: raw.update(seeds=[0, 1]),
        lambda raw: raw["training"]["sft"]["score_sft"].update(save_every=7, keep=5, checkpointing=True),
        lambda raw: raw["search"].update(mode="record", cache="cache/search"),
        lambda raw: raw["search"].update(mode="replay", cache="elsewhere", share_cache=True),
    ],
)
def test_labels_resources_benchmarks_seeds_and_caches_touch_nothing(change):
    assert moved(change) == set()


def test_test_sampling_touches_evaluations_only():
    touched = moved(lambda raw: raw["sampling"]["evaluate"].update(temperature=0.9))
    assert {stage for _, stage in touched} == {"evaluate", "grpo"}, "RL looks at held-out questions as a test does"
    assert len([stage for _, stage in touched if stage == "evaluate"]) == len(MICRO["agents"])


def test_the_reward_judge_touches_rl_only():
    def other_judge(raw):
        raw["roles"]["reward_judge"] = "oracle"

    assert {stage for _, stage in moved(other_judge)} == {"grpo"}


@pytest.mark.parametrize("change", [{"k": 2}, {"language": "de"}, {"backend": "tavily"}])
def test_what_is_found_touches_all_that_act(change):
    touched = {stage for _, stage in moved(lambda raw: raw["search"].update(change))}
    assert touched == {"evaluate", "grpo", "correct"}


def test_comments_and_docstrings_are_no_code(tmp_path):
    def tree(text):
        path = tmp_path / "module.py"
        path.write_text(text)
        return fingerprint._tree(path)

    plain = tree("def f(x):\n    return x + 1\n")
    documented = '"""Doc."""\n\n# why\ndef f(x):\n    """Doc."""\n    return x + 1  # sum\n'
    assert tree(documented) == plain
    assert tree("def f(x):\n    return x + 2\n") != plain


def test_every_named_module_exists():
    for files in (*fingerprint.CODE.values(), fingerprint.VERDICTS):
        for file in (*files, *fingerprint._MICRO, *fingerprint._DEGRADED):
            assert (ROOT / "src/score" / file).exists(), file


def test_how_it_is_counted_gathered_and_reported_makes_no_model_run_again():
    for file in ("judge/__main__.py", "agreement.py", "usage.py"):
        stages = ("rollout", "correct", "grpo", "evaluate", "shards")
        assert [name for name in stages if file in fingerprint.CODE[name]] == [], file


def test_the_judges_work_is_named_by_what_decides_a_verdict(monkeypatch):
    """Which answers it is asked about, and how far it agrees with rules, is found anew from the rulings that it has."""
    config = load(copy.deepcopy(MICRO))
    before = fingerprint.judging(config)
    monkeypatch.setattr(fingerprint, "CODE", fingerprint.CODE | {"judge": ()})
    assert fingerprint.judging(config) == before
    assert not {"judge/__main__.py", "agreement.py", "evaluate/metrics.py"} & set(fingerprint.VERDICTS)
    monkeypatch.setattr(fingerprint, "VERDICTS", fingerprint.VERDICTS[1:])
    assert fingerprint.judging(config) != before
