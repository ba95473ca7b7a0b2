# Evaluation: one job per agent and seed attempts all benchmarks of a table; judging and scoring are stages of their own.


localrules:
    score,
    score_hard,


rule evaluate:
    input:
        tasks=expand("results/{{experiment}}/data/{name}.jsonl", name=PLAN.main),
        model=lambda wildcards: PLAN.model_of(wildcards.agent, wildcards.seed),
        corpus=PLAN.corpus(),
    output:
        predictions=expand(
            "results/{{experiment}}/eval/{{agent}}/{{seed}}/{name}.jsonl",
            name=PLAN.main,
        ),
        provenance="results/{experiment}/eval/{agent}/{seed}/provenance.main.json",
    log:
        "results/{experiment}/logs/eval/{agent}-s{seed}.main.log",
    container:
        "containers/serve.sif"
    resources:
        gpu=lambda wildcards: PLAN.gpus(PLAN.base(wildcards.agent)),
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "evaluate", wildcards.agent, wildcards.seed
        ),
        part="main",
    shell:
        'python -m score.evaluate --config "$SCORE_CONFIG" --agent {wildcards.agent} --seed {wildcards.seed} '
        "--root results/{wildcards.experiment} --tasks {input.tasks} --provenance {output.provenance} "
        "--work results/{wildcards.experiment}/work/eval/{wildcards.agent}-s{wildcards.seed}-{params.fingerprint}/{params.part} "
        "--out-dir results/{wildcards.experiment}/eval/{wildcards.agent}/{wildcards.seed} 2>&1 | tee {log} >&2"


use rule evaluate as evaluate_deep with:
    input:
        tasks=expand("results/{{experiment}}/data/{name}.jsonl", name=PLAN.deep),
        model=lambda wildcards: PLAN.model_of(wildcards.agent, wildcards.seed),
        corpus=PLAN.corpus(),
    output:
        predictions=expand(
            "results/{{experiment}}/eval/{{agent}}/{{seed}}/{name}.jsonl",
            name=PLAN.deep,
        ),
        provenance="results/{experiment}/eval/{agent}/{seed}/provenance.deep.json",
    log:
        "results/{experiment}/logs/eval/{agent}-s{seed}.deep.log",
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "evaluate", wildcards.agent, wildcards.seed
        ),
        part="deep",


rule evaluate_hard:
    input:
        tasks=lambda wildcards: PLAN.hard_tasks(wildcards.agent, wildcards.seed),
        model=lambda wildcards: PLAN.model_of(wildcards.agent, wildcards.seed),
        corpus=PLAN.corpus(),
    output:
        predictions="results/{experiment}/eval/{agent}/{seed}/hard.jsonl",
        provenance="results/{experiment}/eval/{agent}/{seed}/provenance.hard.json",
    log:
        "results/{experiment}/logs/eval/{agent}-s{seed}.hard.log",
    container:
        "containers/serve.sif"
    resources:
        gpu=lambda wildcards: PLAN.gpus(PLAN.base(wildcards.agent)),
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "evaluate", wildcards.agent, wildcards.seed
        ),
    shell:
        'python -m score.evaluate --ruled-only --config "$SCORE_CONFIG" --agent {wildcards.agent} '
        "--seed {wildcards.seed} --root results/{wildcards.experiment} --tasks {input.tasks} "
        "--work results/{wildcards.experiment}/work/eval/{wildcards.agent}-s{wildcards.seed}-{params.fingerprint}/hard "
        "--provenance {output.provenance} --out-dir results/{wildcards.experiment}/eval/{wildcards.agent}/{wildcards.seed} "
        "2>&1 | tee {log} >&2"


rule judge:
    input:
        tasks="results/{experiment}/data/{benchmark}.jsonl",
        predictions=lambda wildcards: PLAN.predictions(wildcards.benchmark),
    output:
        "results/{experiment}/verdicts/{benchmark}.jsonl",
    log:
        "results/{experiment}/logs/judge/{benchmark}.log",
    container:
        "containers/serve.sif"
    resources:
        gpu=PLAN.gpus(PLAN.config.roles.evaluation_judge),
    params:
        fingerprint=PLAN.judging(),
    shell:
        'python -m score.judge --config "$SCORE_CONFIG" --benchmark {wildcards.benchmark} --tasks {input.tasks} '
        "--predictions {input.predictions} --work results/{wildcards.experiment}/work/judge/{params.fingerprint} --out {output} "
        "2>&1 | tee {log} >&2"


rule score:
    input:
        tasks="results/{experiment}/data/{benchmark}.jsonl",
        predictions="results/{experiment}/eval/{agent}/{seed}/{benchmark}.jsonl",
        verdicts=lambda wildcards: PLAN.verdicts(wildcards.benchmark),
    output:
        "results/{experiment}/eval/{agent}/{seed}/{benchmark}.score.json",
    log:
        "results/{experiment}/logs/score/{agent}-s{seed}.{benchmark}.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("score"),
        verdicts=lambda wildcards, input: (
            f"--verdicts {input.verdicts}" if input.verdicts else ""
        ),
    shell:
        "python -m score.evaluate.score --predictions {input.predictions} --tasks {input.tasks} {params.verdicts} "
        "--benchmark {wildcards.benchmark} --agent {wildcards.agent} --seed {wildcards.seed} --out {output} > {log} 2>&1"


use rule score as score_hard with:
    input:
        tasks=lambda wildcards: PLAN.hard_tasks(wildcards.agent, wildcards.seed),
        predictions="results/{experiment}/eval/{agent}/{seed}/{benchmark}.jsonl",
    output:
        "results/{experiment}/eval/{agent}/{seed}/{benchmark}.score.json",
    wildcard_constraints:
        benchmark="hard",
    params:
        code=PLAN.code("score"),
        verdicts="",
