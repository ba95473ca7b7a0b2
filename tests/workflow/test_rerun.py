"""Running again is predictable: what is planned in a finished experiment after each kind of change, and why."""

import json
import os
from pathlib import Path

import pytest

from workflow.conftest import Job, Project

pytestmark = [pytest.mark.dag, pytest.mark.timeout(1800)]

TRAINING = {"sft", "grpo", "dpo"}
BEFORE = {"seeds", "benchmark", "splits"}
TABLES = {"write_table", "headline", "ledger", "figure3a", "figure3b", "learning_curves", "teacher_tokens", "page"}
SCORING = {"score", "score_deep", "score_hard"}
EVALUATION = {"evaluate", "gather_evaluation", "gather_evaluation_deep", "gather_evaluation_hard", *SCORING}
AGENTS = {
    *("teacher", "untrained", "bc20", "bc_full", "grpo", "score_sft", "dpo", "sft_both", "score_rl"),
    *("ablation_no_short_horizon", "ablation_no_key_step", "ablation_neither"),
}
RL = {"grpo", "score_rl", "ablation_no_short_horizon", "ablation_no_key_step", "ablation_neither"}


def rules(plan: list[Job]) -> set[str]:
    return {job.rule for job in plan} - {"all"}


def agents(plan: list[Job], *of: str) -> set[str]:
    """The agents whose jobs are planned, of some rules or of all."""
    return {job.agent for job in plan if job.agent and (not of or job.rule in of)}


def more_code(text: str) -> str:
    return f"{text}\n\nCHANGED = True\n"


def test_a_finished_experiment_plans_nothing(original):
    assert original.plan() == []


# What changes nothing re-runs nothing.


def test_touching_inputs_and_sources_plans_nothing(original):
    names = ["src", "rules", "configs", "envs", "profiles", "Snakefile", "config.yaml"]
    names += [f"results/tiny/{stage}" for stage in ("data", "rollout", "correct", "train", "eval")]
    roots = [original.folder / name for name in names]
    files = [path for root in roots for path in (root, *root.rglob("*")) if path.is_file() and path.name[0] != "."]
    assert len(files) > 300
    before = {path: path.stat() for path in files}
    try:
        for path in files:
            os.utime(path)
        assert original.plan() == []
    finally:
        for path, stat in before.items():
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("src/score/train/sft.py", "\nimport ", "\n# A comment.\nimport "),
        ("src/score/attempts.py", '"""An agent attempts tasks', '"""Another docstring. An agent attempts tasks'),
        ("rules/train.smk", "rule sft:\n", "# A comment.\nrule sft:\n"),
        ("rules/train.smk", "    resources:\n", "    threads: 2\n    resources:\n        mem_mb=4000,\n"),
        ("rules/rollout.smk", "        resources:\n", "        resources:\n            runtime=60,\n"),
        ("profiles/demo/profile.yaml", "cores: 2", "cores: 1\nset-resources: {sft: {mem_mb: 4000}}"),
        ("configs/micro.yaml", "experiment: micro", "# A comment.\nexperiment: micro"),
        ("profiles/slurm/site.example.yaml", "account: null", "account: lab"),
    ],
)
def test_comments_docstrings_and_resources_plan_nothing(original, path, old, new):
    with original.edited(path, lambda text: text.replace(old, new, 1)):
        assert original.plan() == []


def test_a_label_makes_the_tables_anew_and_nothing_else(original):
    def edit(text: str) -> str:
        return text.replace('label: "SCoRe-RL"', 'label: "SCoRe-RL (ours)"')

    with original.edited("configs/micro.yaml", edit):
        planned = rules(original.plan())
    assert {"agents", "write_table", "headline"} <= planned
    assert planned <= {"config", "agents", *TABLES}


# What changes a stage re-runs it and what follows from it.


@pytest.mark.parametrize(
    ("settings", "trained", "evaluated"),
    [
        ("dpo: {key_step_pairs: {lr: 0.0002}}", {"dpo"}, {"dpo"}),
        ("sft: {bc_full: {lr: 0.001}}", {"bc_full"}, {"bc_full"}),
        ("sft: {score_sft: {lr: 0.0002}}", AGENTS - {"teacher", "untrained", "bc20", "bc_full", "grpo"}, None),
        ("grpo: {score_rl: {lr: 0.0002}}", RL, RL),
    ],
)
def test_a_hyper_parameter_reruns_the_branch_that_it_is_of(original, settings, trained, evaluated):
    plan = original.plan("--config", f"training={{{settings}}}")
    assert agents(plan, *TRAINING) == trained
    assert agents(plan) == (evaluated or trained)
    assert not rules(plan) & {*BEFORE, "rollout", "correct", "gather_rollout", "gather_corrections", "agents"}
    assert rules(plan) & TABLES


@pytest.mark.parametrize(
    ("module", "first", "never", "trained"),
    [
        ("report/tables.py", {"write_table", "headline"}, {*TRAINING, *EVALUATION, "correct", "rollout"}, set()),
        (
            "evaluate/score.py",
            {"score", "score_deep", "score_hard"},
            {*TRAINING, "evaluate", "correct", "rollout"},
            set(),
        ),
        ("evaluate/__main__.py", {"evaluate"}, {*TRAINING, "correct", "rollout"}, set()),
        ("train/dpo.py", {"dpo"}, {"sft", "grpo", "correct", "rollout"}, {"dpo"}),
        ("train/sft.py", {"sft"}, {"rollout", "gather_rollout"}, AGENTS - {"teacher", "untrained"}),
        ("correct/mps.py", {"correct"}, {"rollout"}, AGENTS - {"teacher", "untrained", "bc20", "bc_full"}),
        ("rollout.py", {"rollout"}, set(), AGENTS - {"teacher", "untrained"}),
    ],
)
def test_the_code_of_a_stage_reruns_it_and_what_follows(original, module, first, never, trained):
    with original.edited(f"src/score/{module}", more_code):
        plan = original.plan()
    assert first <= rules(plan)
    assert not rules(plan) & (never | BEFORE | {"config", "agents"})
    assert agents(plan, *TRAINING) == trained
    if trained:
        whole = {job.agent for job in plan if job.rule == "evaluate" and job.wildcards["part"] != "hard"}
        assert whole == trained, "an agent that is the same is not evaluated again"


def test_the_code_that_gathers_shards_is_no_part_of_training(original):
    with original.edited("src/score/gather.py", more_code):
        plan = original.plan()
    assert {"rollout", "gather_rollout", "correct", "evaluate"} <= rules(plan)
    reasons = {job.reason for job in plan if job.rule in TRAINING}
    assert reasons
    assert all(reason.startswith("Input files updated by another job") for reason in reasons)


def test_a_new_benchmark_runs_its_own_attempts_and_no_training(project):
    plan = project.plan("--config", "benchmarks=[math2,hop2,deep11,math3]")
    assert rules(plan) <= {"config", *EVALUATION, *TABLES}
    assert not rules(plan) & {"gather_evaluation_deep", "gather_evaluation_hard", "score_deep", "score_hard"}
    assert {job.wildcards["part"] for job in plan if job.rule == "evaluate"} == {"main"}
    assert agents(plan, "evaluate") == AGENTS

    results = project.folder / "results/tiny"
    before = (results / "eval/bc20/0/hop2.jsonl").read_bytes()
    wanted = "results/tiny/eval/bc20/0/math3.score.json"
    done = project.run("--config", "benchmarks=[math2,hop2,deep11,math3]", "shards={evaluate: 2}", "--", wanted)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (project.folder / wanted).exists()
    assert (results / "eval/bc20/0/hop2.jsonl").read_bytes() == before
    made = results.glob("work/eval/bc20-s0-*/main/attempts.*-of-2.jsonl")
    attempted = [json.loads(line)["task"]["dataset"] for path in made for line in path.read_text().splitlines()]
    assert attempted == ["math3"] * 3, "in the two shards that new work is split into now"
    said = [(results / f"logs/eval/bc20-s0.main.{n}-of-2.log").read_text() for n in (1, 2)]
    assert all("3/5 found finished" in text or "3/4 found finished" in text for text in said), said


# Another number of shards.


@pytest.mark.parametrize(
    "more",
    [("--config", "shards={rollout: 3, correct: 2, evaluate: 8}"), ("--set-scatter", "evaluate=8", "correct=3")],
)
def test_another_number_of_shards_makes_nothing_anew(original, more):
    assert rules(original.plan(*more)) <= {"config"}


def test_what_runs_again_for_its_own_settings_or_code_is_split_as_it_is_now(original):
    with original.edited("src/score/evaluate/__main__.py", more_code):
        plan = original.plan("--config", "shards={evaluate: 3}")
    assert {job.wildcards["scatteritem"] for job in plan if job.rule == "evaluate"} == {"1-of-3", "2-of-3", "3-of-3"}
    assert not rules(plan) & {*TRAINING, "correct", "rollout"}


# Images.

APPTAINER = ("--software-deployment-method", "apptainer")


def one_more_step(text: str) -> str:
    return text.replace("%post\n", "%post\n    true\n")


@pytest.fixture(scope="module")
def in_images(original, tmp_path_factory) -> Project:
    """A copy whose results count as made in images: `--touch` runs nothing and records how it was called."""
    project = original.copy(tmp_path_factory.mktemp("images") / "project")
    done = project.run("--touch", *APPTAINER)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert project.plan(*APPTAINER) == []
    return project


@pytest.mark.parametrize(
    ("image", "first", "never"),
    [
        ("train", TRAINING, {"rollout", "gather_rollout", "config", "agents", *BEFORE}),
        ("serve", {"rollout", "correct", "evaluate"}, {"config", "agents", *BEFORE}),
        ("core", {"config", "agents", "benchmark", "seeds"}, set()),
    ],
)
def test_a_changed_recipe_reruns_what_uses_the_image_and_what_follows(in_images, image, first, never):
    with in_images.edited(f"containers/{image}.def", one_more_step):
        plan = in_images.plan(*APPTAINER)
    because = {job.rule for job in plan if "Params have changed" in job.reason}
    assert because
    assert because <= first
    followed = ("Input files updated by another job", "Missing output files")
    assert all(job.reason.startswith(followed) for job in plan if job.rule not in because), "nothing else is a reason"
    assert first <= rules(plan)
    assert not rules(plan) & never
    assert ("teacher" in agents(plan, "evaluate")) == (image != "train")


def test_a_comment_in_a_recipe_plans_nothing(in_images):
    with in_images.edited("containers/core.def", lambda text: f"# A comment.\n{text}"):
        assert in_images.plan(*APPTAINER) == []


def test_without_images_their_recipes_do_not_matter(original):
    with original.edited("containers/serve.def", one_more_step):
        assert original.plan() == []


# Why.


def test_a_dry_run_says_of_each_job_why_it_would_run(original):
    with original.edited("src/score/train/dpo.py", more_code):
        plan = original.plan()
    why = {job.rule: job.reason for job in plan}
    assert all(why.values()), why
    assert why["dpo"].startswith("Params have changed since last execution:")
    assert "results/tiny/train/dpo-s0/model" in why["evaluate"]


@pytest.mark.parametrize("profile", ["demo", "local", "slurm"])
def test_no_profile_silences_the_reasons(profile):
    text = (Path(__file__).parents[2] / "profiles" / profile / "profile.yaml").read_text()
    assert "reason" not in text
