"""Planning: what is built for which target, in seconds, with errors before any job starts."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from snakemake.iocontainers import Wildcards

from score import workflow
from score.config.load import merge
from score.workflow import Plan
from workflow.conftest import with_apptainer

ROOT = Path(__file__).parents[2]


def snakemake(*args: str, timeout: float = 60) -> subprocess.CompletedProcess:
    command = ["snakemake", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=with_apptainer())


def rules_of(dry_run: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from the job stats of a dry run."""
    lines = dry_run.stdout.split("Job stats:")[1].split("\n\n")[0].splitlines()[3:]
    return {name: int(count) for name, count in (line.split() for line in lines if len(line.split()) == 2)}


def test_the_full_paper_grid_plans():
    planned = snakemake("--profile", "slurm", "-n")
    assert planned.returncode == 0, planned.stderr[-2000:]
    jobs = rules_of(planned)
    assert {"rollout", "correct", "sft", "grpo", "evaluate", "gather_evaluation_deep", "judge", "score"} <= set(jobs)
    assert jobs["grpo"] == 9
    assert jobs["sft"] == 13
    assert jobs["dpo"] == 1


def test_where_there_is_no_apptainer_it_plans_but_does_not_run(tmp_path):
    for tool in ("sh", "bash", "git", "which"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    here = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), str(tmp_path)])}
    command = [sys.executable, "-m", "snakemake", "--config", "experiment=unbuilt", "--profile"]
    run = partial(subprocess.run, cwd=ROOT, env=os.environ | here, capture_output=True, text=True, timeout=60)
    assert rules_of(run([*command, "slurm", "-n"]))["grpo"] == 9
    refused = run([*command, "demo", "--sdm", "apptainer", "--", "results/unbuilt/agents.json"])
    assert refused.returncode != 0
    assert "error: neither apptainer nor singularity is on the PATH" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("profile", ["demo", "local", "slurm"])
def test_profiles_are_found_by_name(profile):
    assert (ROOT / profile / "profile.yaml").exists()
    assert not (ROOT / "profiles" / "default").exists(), "Snakemake would load it by itself and let it win"


def test_a_table_needs_only_its_own_columns():
    jobs = rules_of(snakemake("--profile", "demo", "-n", "table2", "--config", "experiment=unbuilt"))
    assert "gather_evaluation" not in jobs
    assert jobs["evaluate"] == jobs["gather_evaluation_deep"] == 9
    jobs = rules_of(snakemake("--profile", "slurm", "-n", "table1", "--config", "experiment=unbuilt"))
    assert "gather_evaluation_deep" not in jobs
    assert "judge" not in jobs


def test_a_narrower_run_has_fewer_columns():
    jobs = rules_of(snakemake("--profile", "slurm", "-n", "--config", "experiment=unbuilt", "benchmarks=[aime24,gaia]"))
    assert jobs["judge"] == 1
    assert jobs["all_questions"] == 12, "no benchmark's question may be trained on, evaluated or not"


def test_a_seed_is_a_run_of_its_own():
    jobs = rules_of(snakemake("--profile", "demo", "-n", "--config", "experiment=unbuilt", "seeds=[0,1,2]"))
    assert jobs["grpo"] == 15
    assert jobs["rollout"] == 2, "the teacher's demonstrations of both parts are shared"


def plan_of(target: str, *config: str) -> set[str]:
    """What a target would run for the demo from nothing: "rule agent" of trainings, else the rule."""
    done = snakemake("--profile", "demo", "-n", target, "--config", "experiment=unbuilt", *config)
    assert done.returncode == 0, done.stdout + done.stderr
    found, rule = set(), ""
    for line in done.stdout.splitlines():
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
            found.add(rule)
        elif "wildcards:" in line and rule in ("sft", "grpo", "dpo"):
            found.add(f"{rule} {line.split('agent=')[1].split(',')[0]}")
    return found


def test_an_ablation_builds_its_own_row_and_what_that_needs():
    plan = plan_of("ablation_no_key_step")
    assert {"grpo ablation_no_key_step", "sft score_sft", "sft bc20", "correct", "write_ablation"} <= plan
    assert not plan & {
        "grpo score_rl",
        "grpo grpo",
        "dpo",
        "gather_evaluation_deep",
        "write_table",
        "headline",
        "figure3a",
    }
    assert "grpo" not in plan_of("ablation_initial")
    assert "grpo score_rl" in plan_of("ablation_full")


def test_figures_need_no_more_than_they_show():
    assert not plan_of("figure3a") & {"grpo", "sft score_sft", "evaluate"}
    stages = plan_of("figure3b")
    assert {"grpo score_rl", "sft score_sft", "sft bc20", "gather_evaluation_hard"} <= stages
    assert not stages & {"dpo", "gather_evaluation", "gather_evaluation_deep", "grpo grpo"}


def test_teachers_of_falling_quality_share_one_cold_start():
    overlay = ["--configfile", "configs/micro.yaml", "configs/micro_teachers.yaml"]
    jobs = rules_of(snakemake("--profile", "demo", "-n", "teacher_quality", *overlay, "--config", "experiment=unbuilt"))
    assert (jobs["correct"], jobs["sft"], jobs["rollout"]) == (5, 6, 1)
    assert jobs["teacher_quality"] == 1
    assert "write_table" not in jobs
    jobs = rules_of(snakemake("--profile", "demo", "-n", *overlay, "--config", "experiment=unbuilt"))
    assert "teacher_quality" not in jobs


def test_baselines_leave_the_ablations_alone():
    plan = plan_of("baselines")
    assert {"dpo dpo", "grpo grpo", "sft bc_full", "sft sft_both", "write_baselines"} <= plan
    assert not plan & {"grpo score_rl", "grpo ablation_neither"}


def test_an_agent_that_is_switched_off_is_trained_only_for_others():
    plan = plan_of("tables", "skip=[score_sft,dpo]")
    assert "sft score_sft" in plan, "SCoRe-RL starts from it"
    assert "dpo" not in plan


@pytest.mark.parametrize(
    ("target", "config", "message"),
    [
        ("tabel1", [], "unknown target 'tabel1'; did you mean 'table1'?"),
        ("ablation_no_horizon", [], "did you mean 'ablation_no_short_horizon'?"),
        (
            "ablation_neither",
            ["skip=[ablation_neither]"],
            "target 'ablation_neither': its agent 'ablation_neither' is switched off (`skip`)",
        ),
        ("tabel-1", [], "unknown target 'tabel-1'; did you mean 'table1'?"),
        ("figure3a", ["skip=[score_rl]"], "target 'figure3a': it needs an agent with `ablation: full`"),
        ("teacher_quality", [], "it needs agents with `data: corrections` whose oracles differ in accuracy"),
        ("table2", ["benchmarks=[math2]"], "target 'table2': it needs agents and benchmarks of table 2"),
        ("table1", ["skip=[dop]"], "skip: unknown agent 'dop'; did you mean 'dpo'?"),
        ("table1", ["fresh=[score_lr]"], "fresh: unknown agent 'score_lr'; did you mean 'score_rl'?"),
    ],
)
def test_a_wrong_target_ends_with_one_line(target, config, message):
    done = snakemake("--profile", "demo", "-n", target, *(["--config", *config] if config else []))
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("benchmarks=[aime42]", "unknown benchmark 'aime42'; did you mean 'aime2"),
        ("sedes=[1]", "sedes: unknown key; did you mean 'seeds'?"),
        ("seeds=[x]", "seeds.0: input should be a valid integer"),
        ('roles={teacher: "qwen72b"}', "roles.teacher: unknown model 'qwen72b'; did you mean 'qwen2.5_72b'?"),
    ],
)
def test_mistakes_end_before_any_job_with_one_line(config, message):
    done = snakemake("--profile", "slurm", "-n", "--config", config)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert message in said
    assert "Traceback" not in said


def test_the_linter_has_nothing_to_say():
    done = snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr


MICRO = merge(
    yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text())
)


def test_another_image_begins_the_work_of_its_stages_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stages(images: bool, **recipes: str) -> dict[str, str]:
        monkeypatch.setattr(workflow, "_recipe", lambda name, variant: recipes[name])
        plan = Plan(MICRO, images=images)
        names = ("rollout", "correct", "evaluate", "sft", "grpo", "dpo", "variance")
        agents = {"sft": "bc20", "dpo": "dpo", "rollout": "teacher"}
        return {name: plan.stage(name, agents.get(name, "score_rl")) for name in names} | {"judge": plan.judging()}

    before = stages(True, serve="1", train="1")
    after = stages(True, serve="1", train="2")
    assert {name for name in before if before[name] != after[name]} == {"sft", "grpo", "dpo", "variance"}
    after = stages(True, serve="2", train="1")
    assert {name for name in before if before[name] != after[name]} == {"rollout", "correct", "evaluate", "judge"}
    assert stages(False, serve="1", train="1") == stages(False, serve="2", train="2")


def test_each_rule_has_the_recipe_of_its_image_in_its_params():
    for path in (ROOT / "rules").glob("*.smk"):
        for block in re.split(r"^\s*(?:use )?rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = re.match(r"\w+", block)[0]
            image = re.search(r'"containers/(\w+)\.sif"', block)
            if image and name not in ("hub_model", "smollm2"):  # what they fetch does not depend on it
                assert f'image=PLAN.image("{image[1]}")' in block, name
            if not image and "params:" in block:  # it inherits the container
                assert "image=PLAN.image(" in block, name


@pytest.mark.parametrize(
    ("record", "count"),
    [
        (lambda now: {"fingerprint": now, "shards": 3}, 3),
        (lambda now: {"fingerprint": "of other code", "shards": 3}, 2),
        (lambda now: {"shards": 3}, 2),
        (lambda now: None, 2),
    ],
)
def test_a_result_keeps_the_shards_that_it_was_made_of_as_long_as_nothing_else_changes(
    tmp_path, monkeypatch, record, count
):
    monkeypatch.chdir(tmp_path)
    plan = Plan(MICRO)
    wildcards = Wildcards(fromdict={"experiment": "micro", "agent": "bc20", "seed": "0"})
    folder = tmp_path / "results/micro/eval/bc20/0"
    parts = plan.parts(
        "evaluate",
        "results/{experiment}/eval/{agent}/{seed}/main.shards",
        ["1-of-2", "2-of-2"],
        made=plan.predicted("main"),
    )
    assert len(parts(wildcards)["rows"]) == 2, "nothing is made yet"
    folder.mkdir(parents=True)
    for path in plan.predicted("main"):
        Path(path.format(**wildcards)).touch()
    known = record(plan.stage("evaluate", "bc20", "0"))
    (folder / "provenance.main.json").write_text(json.dumps(known) if known else '{"fingerprint": "tor')
    shards = [f"results/micro/eval/bc20/0/main.shards/{number}-of-{count}" for number in range(1, count + 1)]
    assert parts(wildcards) == {
        "rows": [f"{shard}.jsonl" for shard in shards],
        "records": [f"{shard}.json" for shard in shards],
    }
    (folder / "math2.jsonl").unlink()
    assert len(parts(wildcards)["rows"]) == 2, "what is new is split as it would be now"


def test_the_papers_own_tables_and_figures_need_no_run(tmp_path):
    """`from_reported` is one command that runs nothing else, and it leaves an experiment's own results alone."""
    shutil.rmtree(ROOT / "results/paper.reported", ignore_errors=True)
    done = snakemake("--profile", "local", "tables", "figures", "--config", "from_reported=true", timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    made = {path.name for path in (ROOT / "results/paper.reported").glob("*/*.*") if path.suffix in (".md", ".png")}
    tables = {f"table{n}.md" for n in (1, 2, 3)}
    assert made == tables | {f"figure3{letter}.{suffix}" for letter in "ab" for suffix in ("md", "png")}
    assert "50.8" in (ROOT / "results/paper.reported/tables/table3.md").read_text()
    assert not (ROOT / "results/paper/tables").exists()
    shutil.rmtree(ROOT / "results/paper.reported")
    for target in ("ablations", "learning_curves", "reproduction"):
        planned = snakemake("--profile", "local", "-n", target, "--config", "from_reported=true")
        assert not {"sft", "grpo", "evaluate", "rollout", "correct"} & set(rules_of(planned)), target
