# The teacher's demonstrations: its own rollouts, in shards, or published ones.


if PLAN.config.data.demonstrations.source == "rollout":

    localrules:
        gather_rollout,

    rule rollout:
        input:
            tasks=PLAN.seed_tasks(),
            splits="results/{experiment}/data/splits.json",
            model=lambda wildcards: PLAN.model_of(wildcards.agent, "0"),
            corpus=PLAN.corpus(),
        output:
            rows=temp(
                "results/{experiment}/rollout/{agent}/{part}.shards/{scatteritem}.jsonl"
            ),
            record=temp(
                "results/{experiment}/rollout/{agent}/{part}.shards/{scatteritem}.json"
            ),
        log:
            "results/{experiment}/logs/rollout/{agent}/{part}.{scatteritem}.log",
        container:
            "containers/serve.sif"
        resources:
            gpu=lambda wildcards: PLAN.gpus(PLAN.base(wildcards.agent)),
            gpu_model=lambda wildcards: PLAN.gpu_model(PLAN.base(wildcards.agent)),
        params:
            fingerprint=lambda wildcards: PLAN.stage("rollout", wildcards.agent),
            shards=PLAN.code("shards"),
            image=PLAN.image("serve"),
        shell:
            'python -m score.rollout --config "$SCORE_CONFIG" --agent {wildcards.agent} --root results/{wildcards.experiment} '
            "--work results/{wildcards.experiment}/work/rollout/{wildcards.agent}-{params.fingerprint} --tasks {input.tasks} "
            "--splits {input.splits} --part {wildcards.part} --shard {wildcards.scatteritem} --out {output.rows} "
            "--provenance {output.record} 2>&1 | tee {log} >&2"

    rule gather_rollout:
        input:
            unpack(
                PLAN.parts(
                    "rollout",
                    "results/{experiment}/rollout/{agent}/{part}.shards",
                    gather.rollout("{scatteritem}"),
                    made=[
                        "results/{experiment}/rollout/{agent}/{part}.provenance.json"
                    ],
                )
            ),
        output:
            trajectories="results/{experiment}/rollout/{agent}/{part}.jsonl",
            provenance="results/{experiment}/rollout/{agent}/{part}.provenance.json",
        log:
            "results/{experiment}/logs/rollout/{agent}/{part}.log",
        container:
            "containers/core.sif"
        params:
            fingerprint=lambda wildcards: PLAN.stage("rollout", wildcards.agent),
            shards=PLAN.code("shards"),
            image=PLAN.image("core"),
        shell:
            "python -m score.gather rollout --rows {input.rows} --records {input.records} --out {output.trajectories} "
            "--provenance {output.provenance} --fingerprint {params.fingerprint} > {log} 2>&1"

else:

    localrules:
        demonstrations,

    rule demonstrations:
        input:
            raw=f"{PLAN.root}/data/raw/{PLAN.config.data.demonstrations.path}",
            model=lambda wildcards: PLAN.student_folder(),
            benchmarks=PLAN.benchmark_tasks(),
        output:
            "results/{experiment}/rollout/published/cold_start.jsonl",
        log:
            "results/{experiment}/logs/rollout/published.log",
        container:
            "containers/train.sif"
        params:
            code=PLAN.code("demonstrations"),
            tokenizer=lambda wildcards: PLAN.student_tokenizer(),
            near=PLAN.near_option(),
            limit=PLAN.config.data.demonstrations.max_tokens or 10**12,
            seed=PLAN.config.data.split_seed,
            image=PLAN.image("train"),
        shell:
            "python -m score.data.demonstrations --raw {input.raw} {params.tokenizer:q} --max-tokens {params.limit} "
            "--seed {params.seed} {params.near} --exclude {input.benchmarks} --out {output} 2>&1 | tee {log} >&2"
