"""What tables and figures need: which rows, columns, scores and logs. Pure functions of the config."""

from __future__ import annotations

import json
from collections.abc import Iterable

from score.config import Agent, Config, lineage


class Wanted:
    """The report's side of a plan (`score.workflow.Plan` has the stages): every method returns paths or names."""

    config: Config
    root: str
    """The experiment's results folder."""
    micro: bool
    """Are the questions generated?"""
    main: list[str]
    """Benchmarks of tables 1 and 3."""
    deep: list[str]
    """Benchmarks of table 2."""

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
        wanted = (path for n in tables for agent in self.of(n) for path in self.scores_of(agent, self.of_table(n)))
        return list(dict.fromkeys(wanted))

    def scores_of(self, agent: str, columns: Iterable[str]) -> list[str]:
        """One agent's score files; none where only reported numbers are drawn."""
        if self.config.from_reported:
            return []
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
        return [path for agent in self._shown_ladder() for path in self.scores_of(agent, ["hard"])]

    def _shown_ladder(self) -> list[str]:
        shown = {agent.name for agent in self.shown}
        return [name for name in self.ladder if name in shown]

    def rl_logs(self) -> list[str]:
        """Training logs of all RL runs of the student that the full method is shown with."""
        if not self.ladder or self.config.from_reported:
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
        start = self.ladder[-2:-1] if self.micro and not self.config.from_reported else []
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
        names += ["teacher_tokens"] if self.counts_teaching else []
        names = names if self.ladder else []
        return [f"{self.root}/figures/{name}.{suffix}" for name in names for suffix in ("pdf", "png", "csv", "md")]

    @property
    def counts_teaching(self) -> bool:
        """Whether it is known what the teacher wrote: not for published demonstrations, nor where nothing is run."""
        return self.config.data.demonstrations.source != "published" and not self.config.from_reported

    def on_page(self) -> list[str]:
        """What the report's page shows, in its order."""
        files = [*self.headline(), *self.tables(), *self.figures()]
        numbers = [f"{path.removesuffix('.png')}.md" for path in files if path.endswith(".png")]
        return [path for path in files if path.endswith((".md", ".png")) and path not in numbers]

    def headline(self) -> list[str]:
        """The table of all agents over groups of benchmarks."""
        return [] if self.config.from_reported else [f"{self.root}/tables/headline.md"]

    def ledger(self) -> list[str]:
        """Requests, tokens and cost of all stages."""
        return [] if self.config.from_reported else [f"{self.root}/ledger.csv"]

    def contamination(self) -> list[str]:
        """The count of test questions among the training questions; none where nobody that is shown was trained."""
        trained = any(agent.method for agent in self.shown) and not self.config.from_reported
        return [f"{self.root}/data/contamination.json"] if trained else []

    def beside_paper(self) -> str:
        """Whether tables and figures are set beside the paper's, as an option: nowhere but on its own questions."""
        return "" if self.micro else "--reported"

    def ablation_rows(self, words: Iterable[str]) -> list[str]:
        """Single rows of table 3."""
        return [f"{self.root}/tables/ablation_{w}.{suffix}" for w in words for suffix in ("csv", "md", "tex")]

    def corrections(self, agent: str, seed: str) -> str:
        """Folder of the corrections that an agent is trained on."""
        return f"{self.root}/correct/{lineage.run(lineage.corrected(self.config, agent), seed)}"

    def student(self, agent: str) -> str:
        """The cold-started agent that acts in the correction of that name."""
        return lineage.cold_start(self.config, agent)

    def teacher(self, agent: str) -> str:
        """Key in `models` of the model that corrects it."""
        return lineage.teacher(self.config, agent)

    def base(self, agent: str) -> str:
        """Key in `models` of the model that an agent is, or was trained from."""
        return lineage.base_model(self.config, agent)
