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
from score.cluster import jobs, site
from score.config import Config, lineage, load
from score.config.__main__ import dump
from score.config.mistakes import nearest
from score.data import benchmarks
from score.errors import ScoreError
from score.models import made
from score.train.launch import Layout
from score.wanted import Wanted

MAIN_GROUPS = ("math", "facts")  # tables 1 and 3; the rest is deep search, table 2


_IMAGES = {
    **dict.fromkeys(("rollout", "correct", "evaluate"), "serve"),
    **dict.fromkeys(("sft", "grpo", "dpo", "variance"), "train"),
}
"""Stage -> the image that its rule runs in."""


class Plan(Wanted):
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

    def resolved(self) -> str:
        return dump(self.config)

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

    def per_file_option(self) -> str:
        """How many training questions are taken of a published file, as an option; nothing stands for all."""
        return f"--limit {self.config.data.per_file}" if self.config.data.per_file else ""

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

    def held_out_tasks(self, agent: str) -> list[str]:
        """Training questions, of which a run looks at those in `held_out_splits`; nothing if it looks at none."""
        return self.seed_tasks() if lineage.looks(self.config, agent) else []

    def held_out_splits(self, agent: str) -> list[str]:
        return [f"{self.root}/data/splits.json"] if lineage.looks(self.config, agent) else []

    def held_out_corpus(self, agent: str) -> list[str]:
        return self.corpus() if lineage.looks(self.config, agent) else []

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

    def student_tokenizer(self) -> list[str]:
        """Model folder, or hub name and revision, whose tokenizer measures published demonstrations: as options."""
        model = self.config.models[self.base(self._cold_started())]
        return ["--tokenizer", model.path, *(["--revision", model.revision] if model.revision else [])]

    def _cold_started(self) -> str:
        return next((a.name for a in self.config.agents if a.data == "cold_start"), self.config.agents[0].name)

    def hard_tasks(self, agent: str, seed: str) -> list[str]:
        """The hard tasks that were kept out of the training of an agent and of the one it was corrected as."""
        return [f"{self.corrections(agent, seed)}/hard.jsonl"]

    def part_tasks(self, part: str, agent: str, seed: str) -> list[str]:
        """The questions that an agent attempts in one part of its evaluation."""
        if part == "hard":
            return self.hard_tasks(agent, seed)
        return [f"{self.root}/data/{name}.jsonl" for name in (self.main if part == "main" else self.deep)]

    def samples(self, part: str) -> str:
        """How often the questions of a part are attempted, for the params: nothing if each is once."""
        names = {"main": self.main, "deep": self.deep, "hard": ["hard"]}[part]
        counts = {name: count for name in names if (count := self.config.evaluation.samples(name)) > 1}
        return json.dumps(counts) if counts else ""

    def part_option(self, part: str) -> str:
        """Hard training tasks are scored by rules, without a judge."""
        return "--ruled-only" if part == "hard" else ""

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

    def scored(self, part: str) -> list[str]:
        """The score files of one part of an agent's evaluation, with wildcards."""
        return [path.replace(".jsonl", ".score.json") for path in self.predicted(part)[:-1]]

    def image(self, name: str) -> str:
        """The digest of an image's recipe, for the params of the rules that run in it; nothing if none do."""
        return _recipe(name, self.site.variant if self.site else "cuda") if self.images else ""

    def _inside(self, image: str) -> dict[str, str]:
        """What an image adds to a fingerprint. With another recipe, work is begun anew, not continued."""
        return {"image": self.image(image)} if self.images else {}

    def gpus(self, *models: str | None) -> int:
        """GPUs that a job with these models takes."""
        return sum(self.config.models[name].own_gpus for name in models if name is not None)

    def gpu_model(self, *models: str | None) -> str:
        """The GPU type that the site wants named, for a job that takes GPUs."""
        return (self.site and self.site.gpu_model) or "" if self.gpus(*models) else ""

    def layout(self, agent: str) -> Layout:
        """On how many GPUs and nodes an agent is trained."""
        return Layout.of(self.config, agent)

    def training_gpu_model(self, agent: str) -> str:
        """The GPU type that the site wants named, for an agent's training."""
        return (self.site and self.site.gpu_model) or "" if self.layout(agent).total else ""

    def training_image(self, wildcards: Any) -> str | None:
        """The image that a training job runs in; None where it is on several nodes, and starts the image on each."""
        return None if self.layout(wildcards.agent).nodes > 1 else str(jobs.image("train"))

    def code(self, name: str) -> str:
        """A fingerprint of the modules behind a stage that has no agent."""
        return fingerprint.code(fingerprint.CODE[name])

    def judging(self) -> str:
        """A fingerprint of the evaluation judge, for the params and the work folder."""
        return fingerprint.judging(self.config, **self._inside("serve"))


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
