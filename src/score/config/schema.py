"""The experiment's config as pydantic models: every key, its type, its default and what it means.

`config.yaml` gives the paper's values with their sources; overlays in `configs/` change some of them. Unknown keys are
errors (`score.config.load` names the nearest valid one).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from score.config.section import Count, Name, Section, Seed, Share
from score.config.training import Settings


class Protocol(Section):
    """Limits of one episode, the same in rollout, correction, RL and evaluation."""

    max_steps: Count = Field(8, description="thought-code-observation steps; the plan turn does not count")
    max_malformed: Count = Field(3, description="malformed completions in a row that end an episode as parse_error")


class Sandbox(Section):
    timeout_s: float = Field(10.0, gt=0, description="wall-clock seconds of one step")
    memory_mb: Count = Field(2048, description="address space of one episode's interpreter, MiB")
    output_chars: Count = Field(2000, description="characters of an observation; more is cut in the middle")
    require: list[str] = Field(default_factory=list, description="isolation layers without which no job runs")
    python: str | None = Field(None, description="interpreter for the model's code; null: that of envs/sandbox.lock")
    kept: Count = Field(256, description="ended attempts whose interpreters correction keeps, to go on in them")


class Search(Section):
    backend: Literal["none", "micro", "bm25", "serper", "tavily", "searxng", "retrieval"] = Field(
        "serper", description="where web_search looks"
    )
    k: Count = Field(10, description="results per query")
    language: str = Field("en", min_length=1, description="serper, searxng: language of the results")
    corpus: str | None = Field(None, description="bm25: JSON Lines file with title, text, url")
    url: str | None = Field(None, description="searxng, retrieval: the server; may name $VARIABLES")
    mode: Literal["live", "record", "replay"] = Field(
        "live", description="live: no cache; record: ask and keep what the cache lacks; replay: from the cache alone"
    )
    cache: str | None = Field(None, description="folder of train.sqlite and test.sqlite; may name $VARIABLES")
    share_cache: bool = Field(False, description="let training and evaluation read one file, on purpose")


class Price(Section):
    """What an endpoint's owner asks for, in US dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class Forms(Section):
    """Regular expressions that a server holds the agent's turns to."""

    plan: str | None = Field(None, min_length=1)
    step: str | None = Field(None, min_length=1)


class Model(Section):
    """A model and how a job reaches it."""

    engine: Literal["transformers", "vllm", "endpoint", "oracle"]
    path: str | None = Field(None, description="hub name or folder; micro: the shipped base student")
    revision: str | None = Field(None, description="hub revision: a commit, a tag or a branch; null: main as it is")
    licence: str | None = Field(None, description="of the model: its SPDX word, or its name")
    gated: bool = Field(False, description="the hub gives it to accounts that accepted its licence (HF_TOKEN)")
    label: str | None = Field(None, description="name in tables")
    context: Count = Field(8192, description="tokens of conversation plus reply")
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    batch: Count = Field(32, description="in-process: conversations decoded together; over HTTP: requests in flight")
    gpus: int = Field(
        0,
        ge=0,
        description="GPUs that it takes in a job (vllm: tensor parallel; endpoint: none); one that is trained: its "
        "settings' `gpus`",
    )
    url: str | list[str] | None = Field(
        None, description="endpoint: base URL of an OpenAI-compatible server, or several that share the work"
    )
    serves: str | None = Field(None, description="endpoint: what its list of models calls it, where that is not `path`")
    listed: bool = Field(True, description="endpoint: ask for its list of models before it is used")
    api_key_env: str | None = Field(
        "OPENAI_API_KEY", description="endpoint: environment variable that holds the key; null: it asks for none"
    )
    timeout_s: float = Field(600, gt=0, description="seconds before one request is given up and retried")
    retries: int = Field(
        5, ge=0, description="further tries of a request after 408, 409, 429, 5xx or a lost connection"
    )
    start_s: float = Field(1800, gt=0, description="vllm: seconds until the server must be ready")
    memory_fraction: float | None = Field(None, gt=0, le=1, description="vllm: share of a GPU's memory; null: its own")
    prefix_caching: bool = Field(True, description="vllm: compute the conversation so far only once")
    adapters: dict[Name, str] = Field(default_factory=dict, description="vllm: LoRA adapters to serve, name: folder")
    adapter: str | None = Field(None, description="vllm: the one of them that answers; null: the model itself")
    arguments: list[str] = Field(default_factory=list, description="vllm: more words for its command line")
    token_ids: bool = Field(
        False, description="endpoint: it is a vLLM (started with --generation-config vllm); keep ids as sampled"
    )
    forms: Forms | None = Field(
        None, description="vllm: hold its turns to these, for a model that does not keep to the protocol by itself"
    )
    logprobs: bool = Field(False, description="keep the log-probability of each sampled token")
    price: Price | None = Field(None, description="for the cost in ledger.csv")
    leap: Share = Field(0.4, description="oracle: chance that a demonstration skips an eligible step")
    accuracy: Share = Field(1.0, description="oracle: chance that a turn it locates, and one it rewrites, is right")

    @property
    def own_gpus(self) -> int:
        """GPUs that a job takes for it: those of a remote model are elsewhere."""
        return self.gpus if self.engine in ("vllm", "transformers") else 0

    @property
    def urls(self) -> list[str]:
        """The addresses of an endpoint."""
        return [self.url] if isinstance(self.url, str) else list(self.url or ())


class Roles(Section):
    """Four roles, four entries: a judge is never silently the teacher (hazard 11)."""

    teacher: str
    reward_judge: str | None = Field(None, description="None: rules decide everything")
    evaluation_judge: str | None = None


class Sampling(Section):
    temperature: float = Field(0.6, ge=0, description="0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(20, ge=0, description="0 is off")
    repetition_penalty: float = Field(1.0, gt=0)
    max_new_tokens: Count = 4096


class Samplings(Section):
    student: Sampling = Field(description="the student in mentored problem solving")
    evaluate: Sampling = Field(description="every agent at test")
    plan: Sampling = Field(description="the teacher's first thought")
    step: Sampling = Field(description="the teacher's steps and rewritten steps")
    judge: Sampling = Field(description="the teacher locating an error; judges")


class Demonstrations(Section):
    """Where the teacher's demonstrations come from."""

    source: Literal["rollout", "published"] = Field(
        "rollout", description="rollout: the teacher acts; published: a file"
    )
    path: str | None = Field(None, description="published: path of the trajectory file below the source")
    max_tokens: Count | None = Field(None, description="published: keep a seeded subset of at most this many tokens")


class Data(Section):
    world: Literal["published", "micro", "micro_long"] = "published"
    source: str | None = Field(
        None, description="mirror folder or URL of the published files; None: the pinned public commit"
    )
    seeds: list[str] = Field(default_factory=list, description="published: files of training questions")
    pool_per_benchmark: Count = Field(60, description="micro: training questions per micro-benchmark")
    split: Literal["test", "development"] = Field("test", description="micro: which held-out questions are evaluated")
    per_benchmark: Count | None = Field(None, description="questions per benchmark (a seeded subset); None: all")
    limits: dict[str, Count] = Field(default_factory=dict, description="the same for single benchmarks")
    per_file: Count | None = Field(None, description="questions per file of `seeds` (a seeded subset); None: all")
    held_out: int = Field(0, ge=0, description="training questions kept aside for learning curves and `select: best`")
    cold_start_share: Share = Field(0.2, description="share of the others with teacher demonstrations")
    split_seed: int = 0
    near_duplicate: Share | None = Field(
        0.8,
        description="share of a test question's n-grams that drops a training question; null: equal ones only",
    )
    demonstrations: Demonstrations = Demonstrations()

    @property
    def generated(self) -> bool:
        """Does the micro-world make the questions?"""
        return self.world != "published"


class Evaluation(Section):
    """How often a question is attempted at test. One attempt is the paper's."""

    n_samples: Count = Field(1, description="attempts per question, of which score, pass@k and majority are made")
    n_samples_of: dict[str, Count] = Field(default_factory=dict, description="the same for single benchmarks")
    as_published: bool = Field(
        False, description="try a question up to five times until it is answered, as the published code does"
    )

    normalisation: Literal["squad", "arpo"] = Field(
        "squad", description="of short texts before token F1: SQuAD's, or the ARPO paper's"
    )

    def samples(self, benchmark: str) -> int:
        """Attempts per question of a benchmark."""
        return self.n_samples_of.get(benchmark, self.n_samples)


class Correct(Section):
    """Mentored problem solving."""

    max_corrections: Count = 5
    advice: bool = Field(False, description="hand the teacher's analysis, not just the step number, to the rewrite")
    sft_share: Share = Field(0.5, description="share of solved tasks that train SCoRe-SFT; the rest feeds RL")
    hard_in_rl: Share = Field(0.5, description="share of hard tasks that join RL; the rest is kept for figure 3b")


class Judging(Section):
    """The judge at test."""

    agreement: int = Field(
        100, ge=0, description="pairs per benchmark that rules decide and the judge is asked about as well"
    )


Ablation = Literal["initial", "sft", "no_short_horizon", "no_key_step", "neither", "full"]


class Agent(Section):
    """One row of the tables: a model as it is (`prompt`), or trained from another agent (`sft`, `grpo`, `dpo`)."""

    name: Name
    label: str
    method: Literal["prompt", "sft", "grpo", "dpo"] = "prompt"
    model: str | None = Field(None, description="prompt: key of `models`")
    instructed: bool = Field(
        False, description="prompt: put the instructions of prompts/agent.yaml in a system message"
    )
    start: str | None = Field(None, description="trained: the agent it starts from")
    settings: str | None = Field(None, description="trained: name below `training.<method>`")
    data: Literal["cold_start", "demonstrations", "corrections", "both_halves"] | None = Field(
        None, description="sft: training set; both_halves: the corrections that feed RL as well (control)"
    )
    teacher: str | None = Field(
        None, description="sft on corrections: key of `models` that corrects for it; null: roles.teacher"
    )
    short_horizon: bool = Field(True, description="grpo: rollouts start at the verified prefix")
    key_step_reward: bool = Field(True, description="grpo: 0.5 and 0.1 for the key step, not just 1 for the answer")
    baseline: bool = Field(False, description="belongs to the target `baselines`")
    ablation: Ablation | None = Field(None, description="the row of table 3 that it is; target `ablation_<word>`")
    tables: list[Literal[1, 2, 3]] = Field(default_factory=lambda: [1, 2], description="tables with a row of it")
    reported: str | None = Field(None, description="`method` of the paper's row in src/score/report/reported.csv")


class Shards(Section):
    """Into how many jobs a stage of one agent is split, each with its own engine. No result depends on it."""

    rollout: Count = 1
    correct: Count = 1
    evaluate: Count = 1


class Theory(Section):
    """What theorems 3.1 to 3.3 are measured with, in a generated world (target `theory`)."""

    prefixes: list[Annotated[int, Field(ge=0)]] = Field(
        [0, 1, 2, 3], min_length=1, description="lengths of verified prefixes"
    )
    tasks: Count = Field(12, description="corrected trajectories that the prefixes are cut from")
    rollouts: Annotated[int, Field(ge=2)] = Field(16, description="per task and prefix length")
    turn_tokens: Count = Field(24, description="new tokens of one turn")


class Config(Section):
    experiment: Name
    title: str = Field(description="what a table's caption says of the world and the limits of this experiment")
    seeds: list[Seed] = Field(min_length=1)
    protocol: Protocol = Protocol()
    sandbox: Sandbox = Sandbox()
    search: Search = Search()
    models: dict[Name, Model]
    roles: Roles
    sampling: Samplings
    data: Data = Data()
    correct: Correct = Correct()
    evaluation: Evaluation = Evaluation()
    judging: Judging = Judging()
    training: Settings = Settings()
    theory: Theory = Theory()
    shards: Shards = Shards()
    agents: list[Agent] = Field(min_length=1)
    from_reported: bool = Field(
        False, description="draw the paper's own tables and figures from the reported numbers; nothing is run"
    )
    skip: list[str] = Field(default_factory=list, description="agents without rows; trained only if others start there")
    benchmarks: list[str] = Field(min_length=1)
    fresh: list[str] = Field(
        default_factory=list, exclude=True, description="agents of which everything is computed anew, once"
    )
