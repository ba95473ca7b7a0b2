"""The config: the shipped files are valid, and every mistake is one line that names the place and the nearest word."""

import copy
from pathlib import Path

import pytest
import yaml

from score.config import lineage, load
from score.config.load import merge
from score.errors import ScoreError

ROOT = Path(__file__).parents[2]
PAPER = yaml.safe_load((ROOT / "config.yaml").read_text())
MICRO = merge(PAPER, yaml.safe_load((ROOT / "configs/micro.yaml").read_text()))
SERVED = {"engine": "vllm", "path": "models/small"}


@pytest.mark.parametrize("overlay", [None, *sorted((ROOT / "configs").glob("*.yaml"))])
def test_shipped_configs_are_valid(overlay):
    base = MICRO if overlay and overlay.name.startswith("micro_") else PAPER
    if overlay and overlay.name == "smoke_gpu.yaml":
        base = merge(base, yaml.safe_load((ROOT / "configs/smoke.yaml").read_text()))
    load(base if overlay is None else merge(base, yaml.safe_load(overlay.read_text())))


def changed(path, value, base=MICRO):
    raw = copy.deepcopy(base)
    *parents, last = path.split(".")
    section = raw
    for key in parents:
        section = section[int(key) if key.isdigit() else key]
    section[int(last) if last.isdigit() else last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("protokol", {}, r"protokol: unknown key; did you mean 'protocol'\?"),
        ("protocol.max_step", 3, r"protocol.max_step: unknown key; did you mean 'max_steps'\?"),
        (
            "models.student.forms",
            {"step": "x"},
            "models.student.forms: only a vLLM holds turns to a form, not",
        ),
        ("models.served", SERVED | {"forms": {"plan": "("}}, r"models.served.forms.plan: not a regular expression \("),
        ("models.served", SERVED | {"forms": {"plan": ""}}, "models.served.forms.plan: .*at least 1 character"),
        ("protocol.max_steps", 0, "protocol.max_steps: .*greater than or equal to 1"),
        ("agents.3.metod", "sft", r"agents.3.metod: unknown key; did you mean 'method'\?"),
        ("training.sft.score_sft.learning_rate", 1, "training.sft.score_sft.learning_rate: unknown key"),
        ("models.student.engine", "transformer", "models.student.engine: .*transformers"),
        ("benchmarks", ["math2", "hop22"], r"benchmarks\[1\]: unknown benchmark 'hop22'; did you mean 'hop2'\?"),
        ("benchmarks", ["aime24"], "'aime24' does not belong to data.world 'micro'"),
        ("benchmarks", ["hop7"], "'hop7' does not belong to data.world 'micro'"),
        ("data.world", "micro_long", "'math2' does not belong to data.world 'micro_long'"),
        ("roles.teacher", "orakle", r"roles.teacher: unknown model 'orakle'; did you mean 'oracle'\?"),
        ("agents.5.start", "bc", r"agents.score_sft.start: unknown agent defined above it 'bc'; did you mean 'bc20'\?"),
        ("agents.5.settings", "scoresft", r"agents.score_sft.settings: .* did you mean 'score_sft'\?"),
        ("agents.1.name", "teacher", r"agents\[1\].name: 'teacher' is used twice"),
        ("agents.1.name", "Un trained", "agents.1.name: "),
        ("agents.0.model", "student", "agents: none has the teacher's model 'oracle', so nobody demonstrates"),
        ("data.limits", {"matth2": 3}, r"data.limits.matth2: unknown benchmark 'matth2'; did you mean 'math2'\?"),
        ("roles.teacher", "student", "roles.teacher: 'student' must be served over HTTP"),
        (
            "training.grpo.score_rl.generations",
            7,
            "training.grpo.score_rl.batch: 96 is not a multiple of generations 7",
        ),
        (
            "training.sft.score_sft.micro_batch",
            5,
            "training.sft.score_sft.batch: 32 is not a multiple of micro_batch 5",
        ),
        ("sandbox.require", ["no_netwrok"], "sandbox.require: unknown isolation layer 'no_netwrok'; did you mean"),
        ("frehs", ["bc20"], r"frehs: unknown key; did you mean 'fresh'\?"),
        ("fresh", ["bc2"], r"fresh: unknown agent 'bc2'; did you mean 'bc20'\?"),
        ("skip", ["dop"], r"skip: unknown agent 'dop'; did you mean 'dpo'\?"),
        ("agents.4.ablation", "neither", "'grpo' is 'neither' already"),
        ("agents.6.settings", "score_rl", r"agents.dpo.settings: unknown training.dpo entry 'score_rl'"),
        ("training.dpo.key_step_pairs.micro_batch", 5, "training.dpo.key_step_pairs.batch: 32 is not a multiple of"),
        ("seeds", ["x"], "seeds.0: input should be a valid integer"),
        ("seeds", [0.5], "seeds.0: input should be a valid integer"),
        ("seeds", [0, 0], "names a seed twice"),
        ("seeds", [True], "seeds.0: input should be a valid integer"),
        ("seeds", [-1], "seeds.0: input should be greater than or equal to 0"),
        ("theory", {"prefixes": []}, "theory.prefixes: "),
        ("data.held_out", 0, "training.grpo.score_rl.eval_every: no questions are held out"),
        ("training.sft.score_sft.select", "best", "select: best needs looks at the held-out questions"),
        (
            "data.demonstrations",
            {"source": "published", "path": "SFT/data/train/BC_init_math.json"},
            "score_rl.eval_every: published demonstrations may be of held-out questions",
        ),
        (
            "training.sft.score_sft.lora",
            {"merge": False},
            "agents.ablation_no_short_horizon: beta 0.02 without lora needs .* training.sft.score_sft to true",
        ),
        ("agents.6.data", "cold_start", "agents.dpo.data: only sft agents choose a training set"),
        (
            "agents.9.key_step_reward",
            True,
            "agents.ablation_no_key_step.key_step_reward: the ablation 'no_key_step' has",
        ),
        ("agents.9.start", "bc20", "agents.ablation_no_key_step.start: ablations differ by one switch"),
        ("seeds", [], "seeds: "),
        ("search.backend", "bm25", "search.corpus: backend 'bm25' needs"),
        ("search.backend", "serpr", "search.backend: .*'serper'"),
        ("search.backend", "searxng", "search.url: backend 'searxng' needs the address"),
        ("search.backend", "retrieval", "search.url: backend 'retrieval' needs the address"),
        ("search.url", "http://host:8000", "search.url: backend 'micro' asks no server"),
        ("search", {"backend": "retrieval", "url": "host:8000"}, "search.url: expected http://HOST:PORT"),
        ("search", {"backend": "searxng", "url": "http://u:pass@host"}, "search.url: a password belongs into the env"),
        ("search", {"backend": "tavily", "k": 21}, "search.k: tavily gives at most 20 results"),
        ("search.mode", "replay", "search.cache: mode 'replay' needs a folder"),
        ("search.mode", "record", "search.cache: mode 'record' needs a folder"),
        ("search.mode", "recrod", "search.mode: .*'live', 'record' or 'replay'"),
        ("agents.5.teacher", "orcale", r"agents.score_sft.teacher: unknown model 'orcale'; did you mean 'oracle'\?"),
        ("agents.5.teacher", "student", "agents.score_sft.teacher: 'student' must be served over HTTP"),
        ("agents.2.teacher", "oracle", "agents.bc20.teacher: only agents that train on corrections have one"),
        ("models.oracle.accuracy", 1.2, "models.oracle.accuracy: .*less than or equal to 1"),
        ("models.student.path", None, "models.student.path: engine 'transformers' needs"),
        ("models.student.adapter", "tuned", "models.student.adapter: unknown adapter 'tuned'"),
        ("models.oracle", {"engine": "endpoint", "url": []}, "models.oracle.url: an endpoint needs its URL"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(path, value, message):
    with pytest.raises(ScoreError, match=message) as caught:
        load(changed(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "search",
    [
        {"backend": "searxng", "url": "http://localhost:8888"},
        {"backend": "searxng", "url": "https://user:$PASSWORD@search.example/instance"},
        {"backend": "retrieval", "url": "http://$RETRIEVAL_HOST:8000/retrieve"},
        {"backend": "tavily", "k": 20, "mode": "record", "cache": "$TMPDIR/search"},
        {"backend": "serper", "mode": "replay", "cache": "cache/search"},
    ],
)
def test_searches_that_can_be_described(search):
    load(changed("search", search))


def test_seeds_from_the_command_line_are_texts():
    assert load(changed("seeds", ["0", "12"])).seeds == [0, 12]


def test_an_agent_without_cold_start_has_no_corrections():
    raw = changed("agents.2.data", "demonstrations")
    with pytest.raises(ScoreError, match="no corrections"):
        load(raw)


def test_lineage():
    config = load(MICRO)
    assert [a.name for a in lineage.ancestors(config, "score_rl")] == ["score_rl", "score_sft", "bc20", "untrained"]
    assert lineage.base_model(config, "score_rl") == "student"
    assert lineage.cold_start(config, "score_rl") == "bc20"
    with pytest.raises(ScoreError, match="did you mean 'score_rl'"):
        lineage.agent(config, "scorerl")


def test_an_agent_may_have_a_teacher_of_its_own():
    raw = changed("agents.5.teacher", "other")
    raw["models"]["other"] = {"engine": "oracle", "accuracy": 0.5}
    config = load(raw)
    for name in ("score_sft", "score_rl"):
        assert (lineage.corrected(config, name), lineage.teacher(config, name)) == ("score_sft", "other")
    for name in ("bc20", "sft_both", "grpo"):
        assert (lineage.corrected(config, name), lineage.teacher(config, name)) == ("bc20", "oracle")
    assert lineage.teacher(config, "untrained") == "oracle"
    assert lineage.cold_start(config, "score_sft") == "bc20", "who acts is the same"


def test_agents_are_compared_with_where_they_start_and_the_method_with_all():
    config = load(MICRO)
    assert lineage.compared(config, "dpo") == ["score_sft"]
    assert lineage.compared(config, "score_sft") == ["bc20", "bc_full"]
    rest = {"score_sft", "bc20", "bc_full", "grpo", "dpo", "sft_both"}
    rest |= {f"ablation_{word}" for word in ("no_short_horizon", "no_key_step", "neither")}
    assert set(lineage.compared(config, "score_rl")) == rest
    assert lineage.compared(config, "teacher") == []
    assert "qwen3b_bc20" not in lineage.compared(load(PAPER), "qwen7b_score_rl"), "another student"


def test_the_paper_grid_is_whole():
    """Three students with five rows in table 1, the ablation in table 3, deep search in table 2."""
    config = load(PAPER)
    assert {config.models[m].path.split("/")[-1] for m in config.models} == {
        "Qwen2.5-72B-Instruct", "Qwen2.5-7B-Instruct", "Qwen2.5-3B-Instruct", "Llama-3.1-8B-Instruct", "Qwen3-8B",
    }  # fmt: skip
    assert len(config.benchmarks) == 12
    ablations = {a.name: (a.short_horizon, a.key_step_reward) for a in config.agents if a.name.startswith("ablation_")}
    assert ablations == {
        "ablation_no_short_horizon": (False, True),
        "ablation_no_key_step": (True, False),
        "ablation_neither": (False, False),
    }
    rl = [a for a in config.agents if a.method == "grpo"]
    assert {a.settings for a in rl} == {"score_rl"}, "one budget for all RL runs"
    assert config.roles.reward_judge != config.roles.evaluation_judge


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@models.example/v1",
        "https://hunter2@models.example/v1",
        ["http://models.example/v1", "http://user:hunter2@other.example/v1"],
        "https://models.example/v1?api_key=hunter2",
        "https://models.example/v1#hunter2",
    ],
)
def test_a_secret_in_a_models_url_is_refused_and_not_shown(url):
    """The URL goes into the provenance of every result."""
    with pytest.raises(ScoreError, match=r"^config: models\.oracle\.url: .*api_key_env[^\n]*$") as error:
        load(changed("models.oracle", {"engine": "endpoint", "url": url}))
    assert "hunter2" not in str(error.value)


def test_a_key_in_place_of_its_variable_is_refused_and_not_shown():
    endpoint = {"engine": "endpoint", "url": "https://models.example/v1", "api_key_env": "sk-hunter2"}
    with pytest.raises(ScoreError, match=r"models\.oracle\.api_key_env: no name of an environment variable") as error:
        load(changed("models.oracle", endpoint))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["http://models.example:port/v1", "http://[::1/v1"])
def test_a_models_url_that_no_request_could_use(url):
    with pytest.raises(ScoreError, match=r"models\.oracle\.url: expected http://HOST:PORT/"):
        load(changed("models.oracle", {"engine": "endpoint", "url": url}))


def test_a_models_url_has_a_scheme():
    with pytest.raises(ScoreError, match=r"models\.oracle\.url: expected http://HOST:PORT/"):
        load(changed("models.oracle", {"engine": "endpoint", "url": "models.example:8000/v1"}))
    load(changed("models.oracle", {"engine": "endpoint", "url": "http://[::1]:8000/team@lab/v1/"}))
