# Evaluation: one job per agent, seed and shard attempts all benchmarks of a part (main: maths and facts; deep: deep search;
# hard: the training tasks kept out for figure 3b); judging and scoring are stages of their own.


localrules:
    gather_evaluation,
    gather_evaluation_deep,
    gather_evaluation_hard,
    score,
    score_deep,
    score_hard,


rule evaluate:
    input:
        tasks=lambda wildcards: PLAN.part_tasks(
            wildcards.part, wildcards.agent, wildcards.seed
        ),
        model=lambda wildcards: PLAN.model_of(wildcards.agent, wildcards.seed),
        corpus=PLAN.corpus(),
    output:
        rows=temp(
            "results/{experiment}/eval/{agent}/{seed}/{part}.shards/{scatteritem}.jsonl"
        ),
        record=temp(
            "results/{experiment}/eval/{agent}/{seed}/{part}.shards/{scatteritem}.json"
        ),
    log:
        "results/{experiment}/logs/eval/{agent}-s{seed}.{part}.{scatteritem}.log",
    wildcard_constraints:
        part="main|deep|hard",
    container:
        "containers/serve.sif"
    resources:
        gpu=lambda wildcards: PLAN.gpus(PLAN.base(wildcards.agent)),
        gpu_model=lambda wildcards: PLAN.gpu_model(PLAN.base(wildcards.agent)),
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "evaluate", wildcards.agent, wildcards.seed
        ),
        shards=PLAN.code("shards"),
        which=lambda wildcards: PLAN.part_option(wildcards.part),
        samples=lambda wildcards: PLAN.samples(wildcards.part),
        image=PLAN.image("serve"),
    shell:
        'python -m score.evaluate --config "$SCORE_CONFIG" --agent {wildcards.agent} --seed {wildcards.seed} '
        "--root results/{wildcards.experiment} --tasks {input.tasks} {params.which} --shard {wildcards.scatteritem} "
        "--work results/{wildcards.experiment}/work/eval/{wildcards.agent}-s{wildcards.seed}-{params.fingerprint}/{wildcards.part} "
        "--out {output.rows} --provenance {output.record} 2>&1 | tee {log} >&2"


rule gather_evaluation:
    input:
        unpack(
            PLAN.parts(
                "evaluate",
                "results/{experiment}/eval/{agent}/{seed}/main.shards",
                gather.evaluate("{scatteritem}"),
                made=PLAN.predicted("main"),
            )
        ),
        tasks=lambda wildcards: PLAN.part_tasks("main", wildcards.agent, wildcards.seed),
    output:
        predictions=expand(
            "results/{{experiment}}/eval/{{agent}}/{{seed}}/{name}.jsonl",
            name=PLAN.main,
        ),
        provenance="results/{experiment}/eval/{agent}/{seed}/provenance.main.json",
    log:
        "results/{experiment}/logs/eval/{agent}-s{seed}.main.log",
    container:
        "containers/core.sif"
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "evaluate", wildcards.agent, wildcards.seed
        ),
        shards=PLAN.code("shards"),
        which=PLAN.part_option("main"),
        samples=PLAN.samples("main"),
        image=PLAN.image("core"),
    shell:
        "python -m score.gather evaluation --rows {input.rows} --records {input.records} --tasks {input.tasks} "
        "{params.which} --out-dir results/{wildcards.experiment}/eval/{wildcards.agent}/{wildcards.seed} "
        "--provenance {output.provenance} --fingerprint {params.fingerprint} > {log} 2>&1"


use rule gather_evaluation as gather_evaluation_deep with:
    input:
        unpack(
            PLAN.parts(
                "evaluate",
                "results/{experiment}/eval/{agent}/{seed}/deep.shards",
                gather.evaluate("{scatteritem}"),
                made=PLAN.predicted("deep"),
            )
        ),
        tasks=lambda wildcards: PLAN.part_tasks("deep", wildcards.agent, wildcards.seed),
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
        shards=PLAN.code("shards"),
        which=PLAN.part_option("deep"),
        samples=PLAN.samples("deep"),
        image=PLAN.image("core"),


use rule gather_evaluation as gather_evaluation_hard with:
    input:
        unpack(
            PLAN.parts(
                "evaluate",
                "results/{experiment}/eval/{agent}/{seed}/hard.shards",
                gather.evaluate("{scatteritem}"),
                made=PLAN.predicted("hard"),
            )
        ),
        tasks=lambda wildcards: PLAN.part_tasks("hard", wildcards.agent, wildcards.seed),
    output:
        predictions="results/{experiment}/eval/{agent}/{seed}/hard.jsonl",
        provenance="results/{experiment}/eval/{agent}/{seed}/provenance.hard.json",
    log:
        "results/{experiment}/logs/eval/{agent}-s{seed}.hard.log",
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "evaluate", wildcards.agent, wildcards.seed
        ),
        shards=PLAN.code("shards"),
        which=PLAN.part_option("hard"),
        samples=PLAN.samples("hard"),
        image=PLAN.image("core"),


rule judge:
    input:
        tasks="results/{experiment}/data/{benchmark}.jsonl",
        predictions=lambda wildcards: PLAN.predictions(wildcards.benchmark),
        judge=PLAN.base_models(PLAN.config.roles.evaluation_judge),
    output:
        verdicts="results/{experiment}/verdicts/{benchmark}.jsonl",
        agreement="results/{experiment}/verdicts/{benchmark}.agreement.json",
        provenance="results/{experiment}/verdicts/{benchmark}.provenance.json",
    log:
        "results/{experiment}/logs/judge/{benchmark}.log",
    container:
        "containers/serve.sif"
    resources:
        gpu=PLAN.gpus(PLAN.config.roles.evaluation_judge),
        gpu_model=PLAN.gpu_model(PLAN.config.roles.evaluation_judge),
    params:
        fingerprint=PLAN.judging(),
        code=PLAN.code("judge"),
        sample=PLAN.config.judging.agreement,
        image=PLAN.image("serve"),
    shell:
        'python -m score.judge --config "$SCORE_CONFIG" --benchmark {wildcards.benchmark} --tasks {input.tasks} '
        "--predictions {input.predictions} --work results/{wildcards.experiment}/work/judge/{params.fingerprint} "
        "--out {output.verdicts} --agreement {output.agreement} --sample {params.sample} --provenance {output.provenance} "
        "2>&1 | tee {log} >&2"


# One process scores all benchmarks of a part (score and score_deep are this rule for theirs): a start costs as much as a
# thousand records.
rule score_hard:
    input:
        tasks=lambda wildcards: PLAN.part_tasks("hard", wildcards.agent, wildcards.seed),
        predictions=PLAN.predicted("hard")[:-1],
        verdicts=[],
    output:
        PLAN.scored("hard"),
    log:
        "results/{experiment}/logs/score/{agent}-s{seed}.hard.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("score"),
        normalisation=PLAN.config.evaluation.normalisation,
        image=PLAN.image("core"),
    shell:
        "python -m score.evaluate.score --predictions {input.predictions} --tasks {input.tasks} --verdicts {input.verdicts} "
        "--normalisation {params.normalisation} --agent {wildcards.agent} --seed {wildcards.seed} "
        "--remembered results/{wildcards.experiment}/work/mathverify.sqlite > {log} 2>&1"


if PLAN.main:

    use rule score_hard as score with:
        input:
            tasks=lambda wildcards: PLAN.part_tasks(
                "main", wildcards.agent, wildcards.seed
            ),
            predictions=PLAN.predicted("main")[:-1],
            verdicts=[path for name in PLAN.main for path in PLAN.verdicts(name)],
        output:
            PLAN.scored("main"),
        log:
            "results/{experiment}/logs/score/{agent}-s{seed}.main.log",


if PLAN.deep:

    use rule score_hard as score_deep with:
        input:
            tasks=lambda wildcards: PLAN.part_tasks(
                "deep", wildcards.agent, wildcards.seed
            ),
            predictions=PLAN.predicted("deep")[:-1],
            verdicts=[path for name in PLAN.deep for path in PLAN.verdicts(name)],
        output:
            PLAN.scored("deep"),
        log:
            "results/{experiment}/logs/score/{agent}-s{seed}.deep.log",
