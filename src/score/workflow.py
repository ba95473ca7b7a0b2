"""What the Snakemake rules ask: which files a target needs. Pure functions of the config, so that the rules stay plain.

All paths are written out here or in the rules as `results/<experiment>/<stage>/...`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from score import fingerprint, fresh, scattered
from score.cluster import site
from score.config import Agent, Config, lineage, load
from score.config.__main__ import dump
from score.config.load import nearest
from score.data import benchmarks
from score.errors import ScoreError
from score.models import made

MAIN_GROUPS = ("math", "facts")  # tables 1 and 3; the rest is deep search, table 2


_IMAGES = {
    **dict.fromkeys(("rollout", "correct", "evaluate"), "serve"),
    **dict.fromkeys(("sft", "grpo", "dpo", "variance"), "train"),
}
"""Stage -> the image that its rule runs in."""


class Plan:
    """One experiment's plan: every method returns paths, names or words for params."""

    def __init__(self, raw: Mapping[str, Any], *, main: bool = True, images: bool = False) -> None:
        """
        Args:
            main: this is the process that a user started, not one of its jobs.
            images: rules run in their images.
        """
        self.config: Config = load(raw)
        if self.config.from_reported:  # beside the experiment's own results, not in their place
            self.config = self.config.model_copy(update={"experiment": f"{self.config.experiment}.reported"})
        self.root = f"results/{self.config.experiment}"
        asked = [lineage.named(self.config, word) for word in self.config.fresh] if main else []
        runs = [run for name in asked for run in (name, *(lineage.run(name, seed) for seed in self.config.seeds))]
        self.is_main, self.fresh = main, fresh.counts(Path(self.root), runs)
        self.site, self.images = site.read(), images
        self.micro = self.config.data.generated
        self.main = [b for b in self.config.benchmarks if benchmarks.get(b).group in MAIN_GROUPS]
        self.deep = [b for b in self.config.benchmarks if b not in self.main]

    def agents(self, method: str | None = None) -> list[str]:
        """Names of agents, by method; those without rows included, as others may start from them."""
        return [agent.name for agent in self.config.agents if method in (None, agent.method)]

    @property
    def shown(self) -> list[Agent]:
        """The agents that have rows."""
        return [agent for agent in self.config.agents if agent.name not in self.config.skip]

    def of(self, table: int) -> list[str]:
        """Names of the agents in a table."""
        return [agent.name for agent in self.shown if table in agent.tables]

    @property
    def ablations(self) -> dict[str, str]:
        """Ablation -> the agent that is it."""
        return {agent.ablation: agent.name for agent in self.shown if agent.ablation}

    def resolved(self) -> str:
        return dump(self.config)

    def agents_json(self) -> str:
        """Rows of the tables: names, labels, membership."""
        models = self.config.models
        rows = [
            {
                "name": a.name,
                "method": a.label,
                "student": models[m].label or m,
                "tables": a.tables,
                "compare": lineage.compared(self.config, a.name),
                "reported": a.reported,
            }
            for a in self.shown
            for m in [lineage.base_model(self.config, a.name)]
        ]
        return json.dumps(rows, indent=1, ensure_ascii=False)

    def of_table(self, table: int) -> list[str]:
        """Benchmarks whose columns the table shows."""
        return self.deep if table == 2 else self.main

    def scores(self, tables: Iterable[int] = (1, 2, 3)) -> list[str]:
        """The score files behind some tables, each once."""
        if self.config.from_reported:
            return []
        wanted = (path for n in tables for agent in self.of(n) for path in self.scores_of(agent, self.of_table(n)))
        return list(dict.fromkeys(wanted))

    def scores_of(self, agent: str, columns: Iterable[str]) -> list[str]:
        """One agent's score files."""
        return [
            f"{self.root}/eval/{agent}/{seed}/{column}.score.json" for seed in self.config.seeds for column in columns
        ]

    def baseline_scores(self) -> list[str]:
        """The score files of the baselines, over the columns of the tables that show them."""
        return [
            path
            for agent in self.shown
            if agent.baseline
            for path in self.scores_of(agent.name, {c: None for n in agent.tables for c in self.of_table(n)})
        ]

    def ablation_scores(self, word: str) -> list[str]:
        """The score files behind one row of table 3."""
        return self.scores_of(self.ablations[word], self.main)

    @property
    def table_numbers(self) -> list[int]:
        """Tables that have at least one row and one column."""
        return [n for n in (1, 2, 3) if self.of(n) and self.of_table(n)]

    def tables(self, numbers: Iterable[int] | None = None) -> list[str]:
        """Files of some tables, or of all that there are."""
        chosen = self.table_numbers if numbers is None else numbers
        return [f"{self.root}/tables/table{n}.{suffix}" for n in chosen for suffix in ("csv", "md", "tex")]

    def all_benchmarks(self) -> list[str]:
        """Every benchmark of the world, whether it is evaluated here or not."""
        return [name for name in benchmarks.NAMES if benchmarks.get(name).world == self.config.data.world]

    def benchmark_tasks(self) -> list[str]:
        """All their questions: none of them may be trained on, whether it is evaluated or not."""
        folder = f"{self.root}/data" if self.micro else f"{self.root}/data/all"
        return [f"{folder}/{name}.jsonl" for name in self.all_benchmarks()]

    def benchmark_files(self, wildcards: Any) -> list[str]:
        """The published files that a benchmark is made of."""
        return [f"{self.root}/data/raw/{path}" for path in benchmarks.get(wildcards.benchmark).files]

    def limit_option(self, benchmark: str) -> str:
        """How many questions are attempted of a benchmark, as an option; nothing stands for all."""
        data = self.config.data
        limit = data.limits.get(benchmark) or data.per_benchmark
        return f"--limit {limit}" if limit else ""

    def near_option(self) -> str:
        """How near a training question may come to a test question, as an option; nothing: only equal ones go."""
        near = self.config.data.near_duplicate
        return "" if near is None else f"--near {near}"

    def source_option(self) -> list[str]:
        """Where published files are fetched from, as an option; nothing stands for the pinned public commit."""
        return ["--source", self.config.data.source] if self.config.data.source else []

    def seed_tasks(self) -> list[str]:
        """Files of training questions."""
        if self.micro:
            return [f"{self.root}/data/seeds/micro.jsonl"]
        return [f"{self.root}/data/seeds/{seed_name(path)}.jsonl" for path in self.config.data.seeds]

    def seed_file(self, wildcards: Any) -> str:
        """The published file behind `data/seeds/{name}.jsonl`."""
        known = {seed_name(path): path for path in self.config.data.seeds}
        if wildcards.name not in known:
            raise ScoreError(f"no training questions named {wildcards.name!r}; {nearest(wildcards.name, known)}")
        return f"{self.root}/data/raw/{known[wildcards.name]}"

    def model_of(self, agent: str, seed: str) -> list[str]:
        """The model that an agent acts with, where a rule makes or fetches it; nothing for a user's own."""
        if lineage.agent(self.config, agent).method != "prompt":
            return [f"{self.root}/train/{lineage.run(agent, seed)}/model"]
        return self.base_models(self.base(agent))

    def base_models(self, *models: str | None) -> list[str]:
        """What a rule makes of some entries of `models`: a converted folder, or the record of a download from the
        hub."""
        wanted = [self.config.models[name] for name in models if name is not None]
        return list(dict.fromkeys(path for model in wanted if (path := made(model))))

    def corpus(self) -> list[str]:
        """The local search corpus that acting needs, if any."""
        return [self.config.search.corpus] if self.config.search.corpus else []

    def start_model(self, agent: str, seed: str) -> list[str]:
        """The trained model that a training run starts from."""
        return self.model_of(lineage.agent(self.config, agent).start, seed)

    def sft_data(self, agent: str, seed: str) -> list[str]:
        """Trajectories that an sft agent is trained on."""
        entry = lineage.agent(self.config, agent)
        if entry.data in ("corrections", "both_halves"):
            halves = ["sft"] if entry.data == "corrections" else ["sft", "other_half"]
            return [f"{self.corrections(agent, seed)}/{half}.jsonl" for half in halves]
        if self.config.data.demonstrations.source == "published":
            return [f"{self.root}/rollout/published/cold_start.jsonl"]
        parts = ["cold_start"] if entry.data == "cold_start" else ["cold_start", "mentored"]
        teacher = next(a.name for a in self.config.agents if a.model == self.config.roles.teacher)
        return [f"{self.root}/rollout/{teacher}/{part}.jsonl" for part in parts]

    def student_folder(self) -> list[str]:
        """The same where a rule makes or fetches it."""
        return self.base_models(self.base(self._cold_started()))

    def student_tokenizer(self) -> str:
        """Model folder or hub name whose tokenizer measures published demonstrations."""
        return self.config.models[self.base(self._cold_started())].path

    def _cold_started(self) -> str:
        return next((a.name for a in self.config.agents if a.data == "cold_start"), self.config.agents[0].name)

    def corrections(self, agent: str, seed: str) -> str:
        """Folder of the corrections that an agent is trained on."""
        return f"{self.root}/correct/{lineage.run(lineage.corrected(self.config, agent), seed)}"

    def student(self, agent: str) -> str:
        """The cold-started agent that acts in the correction of that name."""
        return lineage.cold_start(self.config, agent)

    def teacher(self, agent: str) -> str:
        """Key in `models` of the model that corrects it."""
        return lineage.teacher(self.config, agent)

    def hard_tasks(self, agent: str, seed: str) -> list[str]:
        """The hard tasks that were kept out of the training of an agent and of the one it was corrected as."""
        return [f"{self.corrections(agent, seed)}/hard.jsonl"]

    def part_tasks(self, part: str, agent: str, seed: str) -> list[str]:
        """The questions that an agent attempts in one part of its evaluation."""
        if part == "hard":
            return self.hard_tasks(agent, seed)
        return [f"{self.root}/data/{name}.jsonl" for name in (self.main if part == "main" else self.deep)]

    def part_option(self, part: str) -> str:
        """Hard training tasks are scored by rules, without a judge."""
        return "--ruled-only" if part == "hard" else ""

    @property
    def ladder(self) -> list[str]:
        """The stages of the method whose figures are drawn: from the cold start to the full method (table 3)."""
        top = self.ablations.get("full")
        if top is None:
            return []
        stages = [agent.name for agent in reversed(lineage.ancestors(self.config, top))]
        return stages[stages.index(lineage.cold_start(self.config, top)) :]

    def ladder_corrections(self, name: str) -> list[str]:
        """One file of the corrections that the full method rests on, for every seed."""
        if self.config.from_reported:
            return []
        return [f"{self.corrections(self.ladder[-1], s)}/{name}.jsonl" for s in self.config.seeds if self.ladder]

    def hard_scores(self) -> list[str]:
        """Scores on the hard tasks after each stage."""
        if self.config.from_reported:
            return []
        return [path for agent in self._shown_ladder() for path in self.scores_of(agent, ["hard"])]

    def _shown_ladder(self) -> list[str]:
        shown = {agent.name for agent in self.shown}
        return [name for name in self.ladder if name in shown]

    def rl_logs(self) -> list[str]:
        """Training logs of all RL runs of the student that the full method is shown with."""
        if not self.ladder:
            return []
        base = self.base(self.ladder[-1])
        runs = [agent.name for agent in self.shown if agent.method == "grpo" and self.base(agent.name) == base]
        return [f"{self.root}/train/{lineage.run(name, seed)}/log.csv" for name in runs for seed in self.config.seeds]

    def horizon_scores(self) -> list[str]:
        """Scores of the stages and of BC on all demonstrations, over all benchmarks."""
        full_data = [agent.name for agent in self.shown if agent.data == "demonstrations"]
        agents = [*self._shown_ladder(), *full_data] if self.micro and self.ladder else []
        return [path for agent in agents for path in self.scores_of(agent, self.config.benchmarks)]

    def variance_data(self) -> list[str]:
        """Measured gradients of the model that RL starts from."""
        start = self.ladder[-2:-1] if self.micro else []
        return [f"{self.root}/theory/{lineage.run(agent, s)}.csv" for agent in start for s in self.config.seeds]

    @property
    def taught(self) -> dict[str, float]:
        """SCoRe-SFT agents -> how accurate the oracle is that corrects for them; empty unless there are differences."""
        chosen = [agent.name for agent in self.shown if agent.data == "corrections"]
        teachers = {name: self.config.models[self.teacher(name)] for name in chosen}
        found = {name: model.accuracy for name, model in teachers.items() if model.engine == "oracle"}
        return found if len(set(found.values())) > 1 else {}

    def taught_options(self) -> list[str]:
        """The same for the figure's command, with the names that their corrections go by."""
        return [
            word
            for name, accuracy in self.taught.items()
            for word in ("--teacher", str(accuracy), name, lineage.corrected(self.config, name))
        ]

    def taught_scores(self) -> list[str]:
        """Scores of these agents, and of the students that were corrected."""
        agents = dict.fromkeys([*self.taught, *map(self.student, self.taught)])
        return [path for agent in agents for path in self.scores_of(agent, self.config.benchmarks)]

    def taught_corrections(self) -> list[str]:
        """The corrections that these agents were trained on."""
        seeds = self.config.seeds
        return list(
            dict.fromkeys(f"{self.corrections(name, s)}/trajectories.jsonl" for name in self.taught for s in seeds)
        )

    def figures(self) -> list[str]:
        """The paper's figures and the learning curves, if this experiment has the agents for them."""
        names = ["figure3a", "figure3b", *([] if self.config.from_reported else ["learning_curves"])]
        names = names if self.ladder else []
        return [f"{self.root}/figures/{name}.{suffix}" for name in names for suffix in ("pdf", "png", "csv", "md")]

    def headline(self) -> list[str]:
        """The table of all agents over groups of benchmarks."""
        return [] if self.config.from_reported else [f"{self.root}/tables/headline.md"]

    def ledger(self) -> list[str]:
        """Requests, tokens and cost of all stages."""
        return [] if self.config.from_reported else [f"{self.root}/ledger.csv"]

    def beside_paper(self) -> str:
        """Whether tables and figures are set beside the paper's, as an option: nowhere but on its own questions."""
        return "" if self.micro else "--reported"

    def ablation_rows(self, words: Iterable[str]) -> list[str]:
        """Single rows of table 3."""
        return [f"{self.root}/tables/ablation_{w}.{suffix}" for w in words for suffix in ("csv", "md", "tex")]

    def verdicts(self, benchmark: str) -> list[str]:
        """The verdict file of a benchmark that rules alone cannot score."""
        return [f"{self.root}/verdicts/{benchmark}.jsonl"] if benchmarks.get(benchmark).metric == "judge" else []

    def predictions(self, benchmark: str) -> list[str]:
        """All predictions that a judge sees at once: those of every agent in a table with this column."""
        tables = [2] if benchmark in self.deep else [1, 3]
        agents = {agent: None for table in tables for agent in self.of(table)}
        return [f"{self.root}/eval/{a}/{s}/{benchmark}.jsonl" for a in agents for s in self.config.seeds]

    def stage(self, name: str, agent: str, seed: str | None = None) -> str:
        """A fingerprint for a rule's params and its work folder; `seed` where the stage has one."""
        run = agent if seed is None else lineage.run(agent, seed)
        again = {"fresh": self.fresh[run]} if run in self.fresh else {}
        return fingerprint.stage(self.config, name, agent, **again, **self._inside(_IMAGES[name]))

    def parts(self, stage: str, folder: str, now: Sequence[str], made: Sequence[str]) -> Callable[[Any], dict]:
        """An input function: the rows and records of a result's shards.

        Args:
            folder: of the shards, with wildcards.
            now: the shards that it would be split into now ("1-of-8", ...).
            made: the files of the result, with wildcards; the last one is its provenance.
        """

        def chosen(wildcards: Any) -> dict[str, list[str]]:
            files = [Path(path.format(**wildcards)) for path in made]
            shards = scattered.rests_on(files, self.stage(stage, wildcards.agent, wildcards.get("seed")), now)
            where = folder.format(**wildcards)
            return {
                "rows": [f"{where}/{shard}.jsonl" for shard in shards],
                "records": [f"{where}/{shard}.json" for shard in shards],
            }

        return chosen

    def predicted(self, part: str) -> list[str]:
        """The files of one part of an agent's evaluation, with wildcards; its provenance is the last one."""
        names = {"main": self.main, "deep": self.deep, "hard": ["hard"]}[part]
        folder = "results/{experiment}/eval/{agent}/{seed}"
        return [*(f"{folder}/{name}.jsonl" for name in names), f"{folder}/provenance.{part}.json"]

    def image(self, name: str) -> str:
        """The digest of an image's recipe, for the params of the rules that run in it; nothing if none do."""
        return _recipe(name, self.site.variant if self.site else "cuda") if self.images else ""

    def _inside(self, image: str) -> dict[str, str]:
        """What an image adds to a fingerprint. With another recipe, work is begun anew, not continued."""
        return {"image": self.image(image)} if self.images else {}

    def gpus(self, *models: str | None) -> int:
        """GPUs that a job with these models takes."""
        return sum(self.config.models[name].gpus for name in models if name is not None)

    def gpu_model(self, *models: str | None) -> str:
        """The GPU type that the site wants named, for a job that takes GPUs."""
        return (self.site and self.site.gpu_model) or "" if self.gpus(*models) else ""

    def code(self, name: str) -> str:
        """A fingerprint of the modules behind a stage that has no agent."""
        return fingerprint.code(fingerprint.CODE[name])

    def judging(self) -> str:
        """A fingerprint of the evaluation judge, for the params and the work folder."""
        return fingerprint.judging(self.config, **self._inside("serve"))

    def base(self, agent: str) -> str:
        """Key in `models` of the model that an agent is, or was trained from."""
        return lineage.base_model(self.config, agent)


@functools.cache
def _recipe(name: str, variant: str) -> str:
    from score.cluster import images

    return images.recipe(name, variant)


def seed_name(path: str) -> str:
    """`math_bc_init` from `MPS/data_resource/math_bc_init_seed.jsonl`."""
    return path.rsplit("/", 1)[-1].removesuffix(".jsonl").removesuffix("_seed")


def pattern(names: Iterable[str]) -> str:
    """A wildcard constraint that matches these names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"
