"""The site file: mistakes are one line, and jobs get what they need, under the names that reach into an image."""

import copy
from pathlib import Path

import pytest
import yaml

from score.cluster import site
from score.config import load
from score.config.load import merge
from score.errors import ScoreError

ROOT = Path(__file__).parents[2]
RAW = merge(
    yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / "configs/micro.yaml").read_text())
)
CONFIG = load(RAW)
PARTITIONS = "partitions: {gpu: {max_gpu: 8}}"


def read(tmp_path, text: str | bytes) -> site.Site | None:
    file = tmp_path / "site.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return site.read(file)


def test_the_example_is_valid_and_shows_every_key():
    raw = yaml.safe_load((ROOT / site.EXAMPLE).read_text())
    assert site.read(ROOT / site.EXAMPLE) == site.Site.model_validate(raw)
    assert list(raw) == list(site.Site.model_fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"acount: x\n{PARTITIONS}", "acount: unknown key; did you mean 'account'?"),
        (f"enviroment: [X]\n{PARTITIONS}", "enviroment: unknown key; did you mean 'environment'?"),
        ("account: x", "partitions: field required"),
        ("", "partitions: field required"),
        ("partitions: {}", "partitions: dictionary should have at least 1 item after validation, not 0, not {}"),
        ("partitions: [gpu]", "partitions: input should be a valid dictionary, not ['gpu']"),
        ("partitions: {gpu: 8}", "partitions.gpu: input should be a valid dictionary, not 8"),
        ("partitions: {gpu: {max_gpus: 8}}", "partitions.gpu.max_gpus: unknown limit; did you mean 'max_gpu'?"),
        ("partitions: {gpu: {max_gpu: '8'}}", "partitions.gpu.max_gpu: input should be a valid integer, not '8'"),
        ("partitions: {a: {max_mem_mb: 5G}}", "partitions.a.max_mem_mb: input should be a valid number, not '5G'"),
        ("partitions: {a: {max_runtime: soon}}", "partitions.a.max_runtime: 'soon' is no time; minutes or \"2-00"),
        ("partitions: {a: {max_runtime: }}", "partitions.a.max_runtime: input should be a valid number, not None"),
        (f"account: 12\n{PARTITIONS}", "account: input should be a valid string, not 12"),
        (f"variant: rocm\n{PARTITIONS}", "variant: input should be 'cuda' or 'cpu', not 'rocm'"),
        (f"binds: /data\n{PARTITIONS}", "binds: input should be a valid list, not '/data'"),
        ("- account", "top level: input should be a valid dictionary or instance of site"),
        ("account: [x", "not valid YAML (while parsing"),
        (b"account: \xff", "not valid YAML ("),
    ],
)
def test_a_mistake_is_one_line(tmp_path, text, message):
    with pytest.raises(ScoreError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path}/site.yaml: {message}")
    assert "\n" not in str(error.value)


def test_a_site_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "site.yaml").mkdir()
    with pytest.raises(ScoreError, match=r"site\.yaml: cannot be read \(Is a directory\)"):
        site.read(tmp_path / "site.yaml")


@pytest.mark.parametrize("limit", ['"2-00:00:00"', "4h", "240"])
def test_run_times_are_written_as_slurm_or_snakemake_writes_them(tmp_path, limit):
    assert read(tmp_path, f"partitions: {{cpu: {{max_runtime: {limit}}}}}").partitions["cpu"]


def test_without_a_site_file_there_is_no_site_but_one_that_is_named_must_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCORE_SITE", raising=False)
    assert site.read() is None
    monkeypatch.setenv("SCORE_SITE", "")
    assert site.read() is None
    monkeypatch.setenv("SCORE_SITE", "here.yaml")
    with pytest.raises(ScoreError, match=rf"^SCORE_SITE: here\.yaml: no such file; copy {site.EXAMPLE}$"):
        site.read()
    Path("here.yaml").write_text(PARTITIONS)
    assert site.read().partitions == {"gpu": {"max_gpu": 8}}


def test_sbatch_is_told_the_account_and_where_the_partitions_are(tmp_path):
    here = read(tmp_path, f"account: lab\nqos: long\n{PARTITIONS}")
    assert site.submission(here, tmp_path / "site.yaml") == {
        "SBATCH_ACCOUNT": "lab",
        "SBATCH_QOS": "long",
        "SNAKEMAKE_SLURM_PARTITIONS": f"{tmp_path}/site.yaml",
    }
    assert set(site.submission(read(tmp_path, PARTITIONS), tmp_path / "site.yaml")) == {"SNAKEMAKE_SLURM_PARTITIONS"}


def test_the_executor_plugin_reads_the_same_file(tmp_path):
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    read(tmp_path, "account: lab\npartitions: {gpu: {max_gpu: 8, max_runtime: '3-00:00:00'}, cpu: {cluster: old}}")
    gpu, cpu = read_partition_file(tmp_path / "site.yaml")
    assert (gpu.name, gpu.limits.max_gpu, gpu.limits.max_runtime) == ("gpu", 8, 3 * 24 * 60)
    assert (cpu.name, cpu.partition_cluster) == ("cpu", "old")


# What jobs get.


def environment(here: site.Site | None = None, environ=(), *, config=CONFIG, job=True, source=ROOT / "src"):
    return site.environment(here, config, dict(environ), source=source, job=job)


def a_site(**keys) -> site.Site:
    return site.Site.model_validate({"partitions": {"gpu": {}}} | keys)


def binds(variables: dict[str, str]) -> list[str]:
    return variables["APPTAINER_BIND"].split(",")


def a_config(**changes):
    return load(merge(copy.deepcopy(RAW), changes))


def test_jobs_are_offline_unless_the_user_says_otherwise():
    assert environment()["HF_HUB_OFFLINE"] == environment()["APPTAINERENV_HF_HUB_OFFLINE"] == "1"
    asked = environment(environ={"HF_HUB_OFFLINE": "0"})
    assert asked["HF_HUB_OFFLINE"] == asked["APPTAINERENV_HF_HUB_OFFLINE"] == "0"


def test_variables_reach_into_images_under_their_apptainer_names_and_no_others_do():
    given = {"SCORE_CONFIG": "work/c.yaml", "CUDA_VISIBLE_DEVICES": "0,3", "PYTHONPATH": "/x"}
    given |= {"SECRET": "s", "MINE": "m"}
    passed = environment(a_site(environment=["MINE", "ABSENT"]), given)
    inside = {name.removeprefix("APPTAINERENV_"): value for name, value in passed.items() if "ENV_" in name}
    assert inside == {
        "SCORE_CONFIG": "work/c.yaml",
        "CUDA_VISIBLE_DEVICES": "0,3",
        "PYTHONPATH": str(ROOT / "src"),  # and nothing of the user's own, which could stand before locked packages
        "MINE": "m",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(Path.home() / ".cache/huggingface/hub"),
        "HF_HOME": str(Path.home() / ".cache/huggingface"),  # written out: an image has another home folder
    }


def test_downloads_of_the_login_node_have_the_token_and_jobs_have_not():
    given = {"HF_TOKEN": "t", "https_proxy": "http://proxy.example"}
    login, job = environment(environ=given, job=False), environment(environ=given)
    assert (login["APPTAINERENV_HF_TOKEN"], job["APPTAINERENV_HF_TOKEN"]) == ("t", "")
    assert login["APPTAINERENV_https_proxy"] == "http://proxy.example"


def test_what_the_login_node_binds_keeps_no_job_from_starting(tmp_path):
    (tmp_path / "login").mkdir()
    login = environment(environ={"TMPDIR": f"{tmp_path}/login"}, job=False)
    assert f"{tmp_path}/login" not in binds(login)
    job = environment(environ={"APPTAINER_BIND": f"{tmp_path}/gone,{tmp_path}/login"})
    assert f"{tmp_path}/gone" not in binds(job)
    assert f"{tmp_path}/login" in binds(job)


def test_a_job_sees_the_image_that_it_runs_in_also_behind_a_link(tmp_path):
    lab, clone = tmp_path / "lab", tmp_path / "clone"
    for folder in (lab, clone / "containers", clone / "src"):
        folder.mkdir(parents=True)
    for name in ("serve", "train"):
        (lab / f"{name}.sif").touch()
        (clone / f"containers/{name}.sif").symlink_to(lab / f"{name}.sif")
    assert binds(environment(source=clone / "src")).count(str(lab)) == 1
    other = tmp_path / "other"
    (other / "src").mkdir(parents=True)
    (other / "containers").symlink_to(lab)
    assert str(lab) in binds(environment(source=other / "src")), "also where the folder is the link"


def test_keys_of_endpoints_and_of_the_search_backend_reach_jobs(monkeypatch):
    config = a_config(
        models={"remote": {"engine": "endpoint", "url": "https://models.example/v1", "api_key_env": "LAB_KEY"}},
        search={"backend": "searxng", "url": "http://me:$PASSWORD@search.example", "cache": "${CACHE}/search"},
    )
    assert site.keys(config) == ["LAB_KEY", "PASSWORD", "CACHE"]
    assert site.keys(a_config(search={"backend": "serper"})) == ["SERPER_API_KEY"]
    assert site.keys(a_config(search={"backend": "tavily"})) == ["TAVILY_API_KEY"]
    assert site.keys(CONFIG) == []
    passed = environment(config=config, environ={"LAB_KEY": "k", "PASSWORD": "p", "TAVILY_API_KEY": "t"})
    assert (passed["APPTAINERENV_LAB_KEY"], passed["APPTAINERENV_PASSWORD"]) == ("k", "p")
    assert "APPTAINERENV_TAVILY_API_KEY" not in passed


def test_the_model_folder_is_the_cache_of_the_hub_inside_and_outside(tmp_path):
    passed = environment(a_site(models="$WORK/hf"), {"WORK": str(tmp_path)})
    assert passed["HF_HOME"] == passed["APPTAINERENV_HF_HOME"] == f"{tmp_path}/hf"
    assert f"{tmp_path}/hf" not in binds(passed), "apptainer refuses to bind what is not there"
    (tmp_path / "hf").mkdir()
    assert f"{tmp_path}/hf" in binds(environment(a_site(models="${WORK}/hf"), {"WORK": str(tmp_path)}))
    own = environment(environ={"HF_HOME": f"{tmp_path}/hf", "HF_HUB_CACHE": "/elsewhere"})
    assert own["HF_HUB_CACHE"] == own["APPTAINERENV_HF_HUB_CACHE"] == f"{tmp_path}/hf/hub", "where the checks look"
    assert own["APPTAINERENV_HF_HOME"] == f"{tmp_path}/hf"
    assert f"{tmp_path}/hf" in binds(own), "the user's own cache is no less needed than the site's"


def test_scratch_is_a_folder_of_the_node_that_a_job_runs_on(tmp_path):
    here = a_site(scratch=f"{tmp_path}/$SLURM_JOB_ID")
    login = environment(here, job=False)
    assert "TMPDIR" not in login
    (tmp_path / "7").mkdir()
    passed = environment(here, {"SLURM_JOB_ID": "7"}, job=True)
    assert passed["TMPDIR"] == passed["APPTAINERENV_TMPDIR"] == f"{tmp_path}/7"
    assert f"{tmp_path}/7" in binds(passed)


def test_a_variable_that_a_node_lacks_is_named():
    with pytest.raises(ScoreError, match=r"^site\.yaml: scratch: \$LOCAL is not set here$"):
        environment(a_site(scratch="/x/$LOCAL"))
    with pytest.raises(ScoreError, match=r"^site\.yaml: models: \$WORK is not set here$"):
        environment(a_site(models="$WORK"), job=False)


def test_what_exists_of_the_folders_that_a_config_names_is_bound_once(tmp_path):
    for name in ("src", "cache", "corpora", "mirror", "model", "lora", "more"):
        (tmp_path / name).mkdir()
    adapters = {"mine": f"{tmp_path}/lora", "of_the_hub": "lab/lora"}
    config = a_config(
        models={"own": {"engine": "vllm", "path": f"{tmp_path}/model", "adapters": adapters}},
        search={"backend": "bm25", "corpus": f"{tmp_path}/corpora/c.jsonl", "cache": f"{tmp_path}/cache"},
        data={"source": f"{tmp_path}/mirror"},
    )
    here = a_site(binds=[f"{tmp_path}/more", f"{tmp_path}/cache", f"{tmp_path}/absent"])
    given = {"APPTAINER_BIND": f"/opt:/opt,{tmp_path}/src", "HF_HOME": f"{tmp_path}/none"}
    passed = environment(here, given, config=config, source=tmp_path / "src")
    names = ["src", "cache", "corpora", "mirror", "model", "lora", "more"]
    assert binds(passed) == ["/opt:/opt", *(f"{tmp_path}/{name}" for name in names)]
    again = environment(here, given | passed, config=config, source=tmp_path / "src")
    assert binds(again) == binds(passed), "a job inherits the list and makes it once more"
