"""`score doctor` and what stops a workflow before submission: each failure has its line and its mend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import score.cluster
from cluster.fake_slurm import (
    ACCOUNTED,
    ALICE,
    ROOT,
    SETTINGS,
    SINFO,
    FakeSlurm,
    config_of,
    profile_of,
    replace_partitions,
    says,
    site_of,
)  # fmt: skip
from engine.test_served import listing, serving
from score.__main__ import main
from score.cluster import apptainer, checks, doctor, jobs, places, preflight, slurm
from score.cluster.finding import Finding
from score.cluster.site import Site
from score.config import Config
from score.engine import served
from score.errors import InfrastructureError, ScoreError


def examine(ask: FakeSlurm, *overlays: str, profile: str = "plain", **options) -> dict[str, Finding]:
    """Findings by name."""
    found = doctor.examine(profile, list(overlays) or ["configs/micro.yaml"], ask=ask, probe=False, **options)
    return {finding.name: finding for finding in found}


def test_a_healthy_site_has_nothing_to_mend(clone):
    found = examine(FakeSlurm())
    assert [f for f in found.values() if f.ok is False] == []
    assert {"versions", "config", "site file", "SLURM", "partition gpu", "partition cpu", "jobs", "keys"} <= set(found)
    says(found["partition gpu"], True, "4 nodes take jobs, 8 GPUs a node")
    says(found["account"], None, "keeps no accounts")
    says(found["probe"], None, "--no-probe")


def test_no_partition_is_asked_about_twice_and_nothing_is_queued(clone):
    ask = FakeSlurm()
    examine(ask)
    assert all("--test-only" in call for call in ask.calls if call[0] == "sbatch")
    assert not [call for call in ask.calls if call[0] == "scancel"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitions: {gpu: {max_gpus: 8}}", "partitions.gpu.max_gpus: unknown limit; did you mean 'max_gpu'?"),
        ("partitons: {gpu: {}}", "partitons: unknown key; did you mean 'partitions'?"),
        ('partitions: {gpu: {max_gpu: "8"}}', "partitions.gpu.max_gpu: input should be a valid integer, not '8'"),
        ("partitions: {gpu: {max_runtime: 3 dys}}", "max_runtime: '3 dys' is no time; minutes or"),
        ("partitions: {gpu: {}", "not valid YAML"),
    ],
)
def test_a_typo_in_the_site_file(clone, text, message):
    (clone / "site.yaml").write_text(text)
    says(examine(FakeSlurm())["site file"], False, "site.yaml", message)


def test_no_site_file(clone):
    (clone / "site.yaml").unlink()
    found = examine(FakeSlurm())
    says(found["site file"], False, "no such file; copy profiles/slurm/site.example.yaml")
    assert found["results"].ok, "what does not need it is checked all the same"
    assert found["keys"].ok


def test_a_profile_of_this_machine(clone, monkeypatch):
    """Nobody asks SLURM; the models that are missing are told."""
    (clone / "site.yaml").unlink()
    (clone / "wrong.yaml").write_text("models: {qwen2.5_7b: {path: /models/gone}}")

    def nobody(command, timeout_s=60):
        raise AssertionError("there is no SLURM")

    found = examine(nobody, "wrong.yaml", profile=str(ROOT / "local"))
    says(found["SLURM"], None, "local/profile.yaml runs jobs on this machine")
    says(found["model qwen2.5_7b"], False, "/models/gone: no such folder")
    assert found["model qwen2.5_72b"].ok
    assert found["results"].ok
    assert "site file" not in found


def test_a_mistake_in_the_config(clone):
    (clone / "wrong.yaml").write_text("sedes: [1]")
    says(examine(FakeSlurm(), "wrong.yaml")["config"], False, "sedes: unknown key; did you mean 'seeds'?")


def test_slurm_that_does_not_answer(clone):
    def silent(command, timeout_s=60):
        raise InfrastructureError("sinfo did not answer within 60 s; is slurmctld up?")

    found = examine(silent)
    says(found["SLURM"], False, "sinfo did not answer")
    assert "jobs" not in found
    assert found["results"].ok, "what does not need SLURM is checked all the same"


@pytest.mark.parametrize(
    ("sinfo", "changed", "words"),
    [
        (SINFO, {"gpu": {"max_gpu": 16}}, ["max_gpu is 16, its largest node has 8", "max_gpu: 8"]),
        (SINFO, {"gpu": {"max_gpu": 8, "max_runtime": "9-00"}}, ["12960 minutes, SLURM ends its jobs after 4320"]),
        (SINFO, {"gpuu": {"max_gpu": 8}}, ["SLURM has no partition 'gpuu'", "did you mean 'gpu'?"]),
        (SINFO.replace("gpu|up", "gpu|down"), {}, ["it is not up"]),
        ("gpu|up|1-00:00:00|4|drained*|gpu:8|bad | fan\n", {}, ["no node of it takes jobs: 4 drained* (bad | fan)"]),
    ],
)
def test_a_partition_that_is_not_as_the_site_file_says(sinfo, changed, words):
    here = replace_partitions(changed)
    name = next(iter(changed), "gpu")
    says(checks.partition(name, here, slurm.partitions(FakeSlurm(sinfo))), False, *words)


def test_some_lost_nodes_are_told_and_fail_nothing():
    sinfo = SINFO + "gpu|up|3-00:00:00|1|drained|gpu:a100:8|fan\n"
    found = checks.partition("gpu", site_of(), slurm.partitions(FakeSlurm(sinfo)))
    says(found, True, "4 nodes take jobs", "not usable: 1 drained (fan)")


def test_the_gpu_type_is_one_that_the_partition_has():
    here = site_of().model_copy(update={"gpu_model": "a10"})
    says(checks.partition("gpu", here, slurm.partitions(FakeSlurm())), False, "no GPU of type 'a10'", "mean 'a100'?")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("infinite", float("inf")), ("1-00:00:00", 1440), ("2:30:00", 150), ("30:00", 30), ("n/a", float("inf"))],
)
def test_slurms_times(text, minutes):
    assert slurm.minutes(text) == minutes


@pytest.mark.parametrize(
    ("named", "settings", "accounts", "ok", "words"),
    [
        ("physics", ACCOUNTED, ALICE, True, "physics"),
        (None, ACCOUNTED, ALICE, True, "SLURM's default for you (you have physics, biology)"),
        ("phisics", ACCOUNTED, ALICE, False, "'phisics' is no account of yours; did you mean 'physics'?"),
        ("physics", ACCOUNTED, "", False, "SLURM knows no account of yours; ask the admins"),
        ("physics", ACCOUNTED, None, None, "sacctmgr does not answer"),
        ("physics", SETTINGS, None, None, "keeps no accounts; 'physics' is ignored"),
    ],
)
def test_the_account(named, settings, accounts, ok, words):
    here = site_of().model_copy(update={"account": named})
    says(preflight.account_finding(here, FakeSlurm(settings=settings, accounts=accounts)), ok, words)


def test_the_quality_of_service():
    here = site_of().model_copy(update={"qos": "lon"})
    found = preflight.account_finding(here, FakeSlurm(settings=ACCOUNTED, accounts=ALICE))
    says(found, False, "no quality of service 'lon' for you; did you mean 'long'?")


def test_squeue_needs_a_slurm_that_remembers_ended_jobs():
    remembers = slurm.settings(FakeSlurm())
    forgets = slurm.settings(FakeSlurm(settings=SETTINGS.replace("300 sec", "60 sec")))
    accounted = slurm.settings(FakeSlurm(settings=ACCOUNTED.replace("300 sec", "60 sec")))
    assert checks.status(profile_of(), remembers).ok
    says(checks.status(profile_of(), forgets), False, "after 60 s, squeue needs 120 s", "status-checks: 20")
    says(checks.status(profile_of(), accounted), False, "slurm-status-command: sacct")
    says(checks.status(profile_of(slurm_status_command="sacct"), remembers), False, "slurm-status-command: squeue")
    assert checks.status(profile_of(slurm_status_command="sacct"), accounted).ok


def test_versions_are_the_locked_ones():
    lock = "snakemake==9.27.1 \\\n    --hash=sha256:aa==b\nother==1 ; python_version > '3'  # via x\n"
    assert checks.locked(lock) == {"snakemake": "9.27.1", "other": "1"}
    assert checks.versions(lock, {"snakemake": "9.27.1"}).ok
    says(checks.versions(lock, {"snakemake": None}), False, "snakemake missing", "install snakemake==9.27.1")


@pytest.fixture
def images(monkeypatch):
    """Stands for `score.cluster.images`: what is wrong with each image, by name."""
    wrong: dict[str, str] = {}
    fake = ModuleType("score.cluster.images")
    fake.check = lambda path, name, variant: wrong.get(name)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(score.cluster, "images", fake, raising=False)
    monkeypatch.setattr(apptainer.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "apptainer" else None)
    return wrong


def test_images_that_are_missing_or_of_another_recipe(clone, images):
    images["serve"] = "containers/serve.sif: no such image; make -C containers VARIANT=cpu"
    found = examine(FakeSlurm(), profile="slurm")
    says(found["image core"], True, "containers/core.sif: cpu")
    says(found["image serve"], False, "no such image; make -C containers")


def test_no_apptainer(clone, images, monkeypatch):
    monkeypatch.setattr(apptainer.shutil, "which", lambda name: None)
    says(examine(FakeSlurm(), profile="slurm")["apptainer"], False, "neither apptainer nor singularity")


def test_what_endpoints_serve_and_gated_models(clone, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(200, listing("lab/small")) as (url, asked):
        teacher = {"engine": "endpoint", "path": "lab/large", "url": url, "api_key_env": None}
        (clone / "far.yaml").write_text(yaml.safe_dump({"models": {"qwen2.5_72b": teacher}}))
        says(examine(FakeSlurm(), "far.yaml")["model qwen2.5_72b"], None, "of the node that a job runs on")
        assert asked == []
        monkeypatch.setattr(served, "is_of_this_node", lambda url: False)
        found = examine(FakeSlurm(), "far.yaml")
    says(found["model qwen2.5_72b"], False, f"{url} serves 'lab/small', not 'lab/large'; correct `path`")
    says(found["model llama3.1_8b"], False, "meta-llama/Llama-3.1-8B-Instruct is gated: accept its licence at https://")
    says(found["model qwen2.5_3b"], True, "rule hub_model will download it", "(licence: Qwen Research)")


def test_keys_of_what_is_used(clone):
    says(examine(FakeSlurm(), "config.yaml")["keys"], False, "not set: SERPER_API_KEY; export it")
    endpoint = {"engine": "endpoint", "url": "https://api.example/v1", "api_key_env": "TEACHER_KEY"}
    config = config_of("configs/micro.yaml", {"models": {"oracle": endpoint, "idle": endpoint | {"api_key_env": "X"}}})
    used = jobs.models(config, jobs.stages(config))
    says(places.keys(config, used, {}), False, "not set: TEACHER_KEY;")
    found = places.keys(config, used, {"TEACHER_KEY": "secret"})
    says(found, True, "TEACHER_KEY set")
    assert "secret" not in found.line()


def test_a_replay_needs_a_cache_and_no_key(tmp_path):
    config = config_of({"search": {"mode": "replay", "cache": str(tmp_path)}})
    assert places.keys(config, [], {}).ok
    says(places.search_cache(config, {}), False, "no train.sqlite, test.sqlite to replay from", "record them first")
    for name in ("train", "test"):
        (tmp_path / f"{name}.sqlite").touch()
    assert places.search_cache(config, {}).ok
    node = config_of({"search": {"mode": "record", "cache": "$NODE_DISK/search"}})
    says(places.search_cache(node, {}), None, "a folder of the compute node")


def test_a_bind_that_is_no_folder(tmp_path):
    says(places.bind(f"{tmp_path}"), True, "there")
    says(places.bind(f"{tmp_path}/typo"), False, "no such folder here")


def test_a_folder_that_cannot_be_written():
    says(places.writable("results", Path("/proc/results")), False, "/proc: cannot be written")


def test_space_is_weighed_against_a_formula(tmp_path):
    paper = config_of()
    found = places.space(paper, tmp_path / "results", tmp_path / "hub")
    assert len(found) == 1, "one file system, one line"
    runs = "7 x model for each of 23 training runs, 6 more for each of 9 that look at held-out questions"
    assert f"5 GB + {runs}, and 6 for 4 at once, 5 downloads" in found[0].says
    (tmp_path / "results/train/qwen7b_bc-s0/model").mkdir(parents=True)
    assert "each of 22 training runs" in places.space(paper, tmp_path / "results", tmp_path / "hub")[0].says
    says(places.enough("space", tmp_path, 10**18, "why"), False, "make room")


def before(ask: FakeSlurm, here: Site | None = None, config: Config | None = None, **options) -> str:
    """What stops a workflow; "" if nothing does."""
    options = {"arrays": "rollout, correct", "images": False} | options
    try:
        preflight.before_submission(config or config_of(), here or site_of(), ask=ask, **options)
    except ScoreError as error:
        return str(error)
    return ""


def test_what_stops_a_workflow_before_submission(images):
    assert before(FakeSlurm(), images=True) == ""
    assert "no partition 'gpuu'; did you mean 'gpu'?" in before(FakeSlurm(), replace_partitions({"gpuu": {}}))
    accounted = FakeSlurm(settings=ACCOUNTED, accounts=ALICE)
    other = site_of().model_copy(update={"account": "phisics"})
    assert before(accounted, other) == "account: 'phisics' is no account of yours; did you mean 'physics'? (site file)"
    assert "no account of yours; ask the admins" in before(FakeSlurm(settings=ACCOUNTED, accounts=""))
    assert "leave 'evaluate' out of slurm-array-jobs" in before(FakeSlurm(), arrays="evaluate")
    images["train"] = "containers/train.sif: of another recipe; make -C containers"
    assert (
        before(FakeSlurm(), images=True) == "image train: containers/train.sif: of another recipe; make -C containers"
    )
    assert before(FakeSlurm(), images=False) == "", "no images, no matter"


def test_the_exit_code(clone, monkeypatch, capsys):
    ask = FakeSlurm()
    monkeypatch.setattr(doctor, "ask_slurm", ask)
    words = ["doctor", "--profile", "plain", "--configfile", "configs/micro.yaml", "--no-probe"]
    main(words)
    ask.sinfo = "cpu|up|infinite|1|idle|(null)|none\n"
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    assert "FAIL  partition gpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["docter"], "commands: doctor"),
        ([], "commands: doctor"),
        (["doctor", "--profile", "dmo"], "--profile dmo: no profile.yaml in ./dmo"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message):
    done = subprocess.run([sys.executable, "-m", "score", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
