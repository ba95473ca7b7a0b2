# First-error correction: the cold-started student acts, the teacher corrects its earliest error. In shards of tasks; the
# training sets are made of all of them together.


localrules:
    gather_corrections,


rule correct:
    input:
        tasks=PLAN.seed_tasks(),
        splits="results/{experiment}/data/splits.json",
        model=lambda wildcards: PLAN.model_of(
            PLAN.student(wildcards.agent), wildcards.seed
        ),
        teacher=lambda wildcards: PLAN.base_models(PLAN.teacher(wildcards.agent)),
        corpus=PLAN.corpus(),
    output:
        rows=temp(
            "results/{experiment}/correct/{agent}-s{seed}/shards/{scatteritem}.jsonl"
        ),
        record=temp(
            "results/{experiment}/correct/{agent}-s{seed}/shards/{scatteritem}.json"
        ),
    log:
        "results/{experiment}/logs/correct/{agent}-s{seed}.{scatteritem}.log",
    container:
        "containers/serve.sif"
    resources:
        gpu=lambda wildcards: PLAN.gpus(
            PLAN.base(wildcards.agent), PLAN.teacher(wildcards.agent)
        ),
        gpu_model=lambda wildcards: PLAN.gpu_model(
            PLAN.base(wildcards.agent), PLAN.teacher(wildcards.agent)
        ),
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "correct", wildcards.agent, wildcards.seed
        ),
        shards=PLAN.code("shards"),
        image=PLAN.image("serve"),
    shell:
        'python -m score.correct --config "$SCORE_CONFIG" --agent {wildcards.agent} --seed {wildcards.seed} '
        "--root results/{wildcards.experiment} --tasks {input.tasks} --splits {input.splits} "
        "--work results/{wildcards.experiment}/work/correct/{wildcards.agent}-s{wildcards.seed}-{params.fingerprint} "
        "--shard {wildcards.scatteritem} --out {output.rows} --provenance {output.record} 2>&1 | tee {log} >&2"


rule gather_corrections:
    input:
        unpack(
            PLAN.parts(
                "correct",
                "results/{experiment}/correct/{agent}-s{seed}/shards",
                gather.correct("{scatteritem}"),
                made=["results/{experiment}/correct/{agent}-s{seed}/provenance.json"],
            )
        ),
    output:
        trajectories="results/{experiment}/correct/{agent}-s{seed}/trajectories.jsonl",
        sft="results/{experiment}/correct/{agent}-s{seed}/sft.jsonl",
        other_half="results/{experiment}/correct/{agent}-s{seed}/other_half.jsonl",
        rl="results/{experiment}/correct/{agent}-s{seed}/rl.jsonl",
        hard="results/{experiment}/correct/{agent}-s{seed}/hard.jsonl",
        provenance="results/{experiment}/correct/{agent}-s{seed}/provenance.json",
    log:
        "results/{experiment}/logs/correct/{agent}-s{seed}.log",
    container:
        "containers/core.sif"
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "correct", wildcards.agent, wildcards.seed
        ),
        shards=PLAN.code("shards"),
        image=PLAN.image("core"),
    shell:
        'python -m score.gather corrections --config "$SCORE_CONFIG" --rows {input.rows} --records {input.records} '
        "--out-dir results/{wildcards.experiment}/correct/{wildcards.agent}-s{wildcards.seed} "
        "--provenance {output.provenance} --fingerprint {params.fingerprint} > {log} 2>&1"
