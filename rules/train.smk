# Training runs: supervised fine-tuning, reinforcement learning from the verified prefix, and preferences at the key step.
# In how many processes, on how many GPUs and nodes: the training settings' `gpus`, `nodes`, `sharding`. Only a run on several
# nodes has the resources mpi, tasks and tasks_per_gpu, and no container: its own steps start the image (score.train.launch).


rule sft:
    input:
        data=lambda wildcards: PLAN.sft_data(wildcards.agent, wildcards.seed),
        start=lambda wildcards: PLAN.start_model(wildcards.agent, wildcards.seed),
        tasks=lambda wildcards: PLAN.held_out_tasks(wildcards.agent),
        splits=lambda wildcards: PLAN.held_out_splits(wildcards.agent),
        corpus=lambda wildcards: PLAN.held_out_corpus(wildcards.agent),
    output:
        model=directory("results/{experiment}/train/{agent}-s{seed}/model"),
        log="results/{experiment}/train/{agent}-s{seed}/log.csv",
        left_out="results/{experiment}/train/{agent}-s{seed}/left_out.csv",
        provenance="results/{experiment}/train/{agent}-s{seed}/provenance.json",
    log:
        "results/{experiment}/logs/train/{agent}-s{seed}.log",
    wildcard_constraints:
        agent=pattern(PLAN.agents("sft")),
    container:
        PLAN.training_image
    resources:
        gpu=lambda wildcards: PLAN.layout(wildcards.agent).total,
        gpu_model=lambda wildcards: PLAN.training_gpu_model(wildcards.agent),
        nodes=lambda wildcards: PLAN.layout(wildcards.agent).nodes,
        mpi=lambda wildcards: PLAN.layout(wildcards.agent).mpi,
        tasks=lambda wildcards: PLAN.layout(wildcards.agent).tasks,
        tasks_per_gpu=lambda wildcards: PLAN.layout(wildcards.agent).tasks_per_gpu,
    params:
        fingerprint=lambda wildcards: PLAN.stage("sft", wildcards.agent, wildcards.seed),
        image=PLAN.image("train"),
    shell:
        'python -m score.train.launch --config "$SCORE_CONFIG" --agent {wildcards.agent} --seed {wildcards.seed} '
        "--root results/{wildcards.experiment} --data {input.data} --tasks {input.tasks} --splits {input.splits} "
        "--work results/{wildcards.experiment}/work/train/{wildcards.agent}-s{wildcards.seed}-{params.fingerprint} "
        "--out results/{wildcards.experiment}/train/{wildcards.agent}-s{wildcards.seed} 2>&1 | tee {log} >&2"


rule grpo:
    input:
        data=lambda wildcards: f"{PLAN.corrections(wildcards.agent, wildcards.seed)}/rl.jsonl",
        start=lambda wildcards: PLAN.start_model(wildcards.agent, wildcards.seed),
        tasks=lambda wildcards: PLAN.held_out_tasks(wildcards.agent),
        splits=lambda wildcards: PLAN.held_out_splits(wildcards.agent),
        judge=PLAN.base_models(PLAN.config.roles.reward_judge),
        corpus=PLAN.corpus(),
    output:
        model=directory("results/{experiment}/train/{agent}-s{seed}/model"),
        log="results/{experiment}/train/{agent}-s{seed}/log.csv",
        left_out="results/{experiment}/train/{agent}-s{seed}/left_out.csv",
        provenance="results/{experiment}/train/{agent}-s{seed}/provenance.json",
    log:
        "results/{experiment}/logs/train/{agent}-s{seed}.log",
    wildcard_constraints:
        agent=pattern(PLAN.agents("grpo")),
    priority: 1  # the longest jobs first: evaluations fill the gaps
    container:
        PLAN.training_image
    resources:
        gpu=lambda wildcards: PLAN.layout(wildcards.agent).total,
        gpu_model=lambda wildcards: PLAN.training_gpu_model(wildcards.agent),
        nodes=lambda wildcards: PLAN.layout(wildcards.agent).nodes,
        mpi=lambda wildcards: PLAN.layout(wildcards.agent).mpi,
        tasks=lambda wildcards: PLAN.layout(wildcards.agent).tasks,
        tasks_per_gpu=lambda wildcards: PLAN.layout(wildcards.agent).tasks_per_gpu,
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "grpo", wildcards.agent, wildcards.seed
        ),
        image=PLAN.image("train"),
    shell:
        'python -m score.train.launch --config "$SCORE_CONFIG" --agent {wildcards.agent} --seed {wildcards.seed} '
        "--root results/{wildcards.experiment} --data {input.data} --tasks {input.tasks} --splits {input.splits} "
        "--work results/{wildcards.experiment}/work/train/{wildcards.agent}-s{wildcards.seed}-{params.fingerprint} "
        "--out results/{wildcards.experiment}/train/{wildcards.agent}-s{wildcards.seed} 2>&1 | tee {log} >&2"


rule dpo:
    input:
        data=lambda wildcards: f"{PLAN.corrections(wildcards.agent, wildcards.seed)}/rl.jsonl",
        start=lambda wildcards: PLAN.start_model(wildcards.agent, wildcards.seed),
        tasks=lambda wildcards: PLAN.held_out_tasks(wildcards.agent),
        splits=lambda wildcards: PLAN.held_out_splits(wildcards.agent),
        corpus=lambda wildcards: PLAN.held_out_corpus(wildcards.agent),
    output:
        model=directory("results/{experiment}/train/{agent}-s{seed}/model"),
        log="results/{experiment}/train/{agent}-s{seed}/log.csv",
        left_out="results/{experiment}/train/{agent}-s{seed}/left_out.csv",
        provenance="results/{experiment}/train/{agent}-s{seed}/provenance.json",
    log:
        "results/{experiment}/logs/train/{agent}-s{seed}.log",
    wildcard_constraints:
        agent=pattern(PLAN.agents("dpo")),
    container:
        PLAN.training_image
    resources:
        gpu=lambda wildcards: PLAN.layout(wildcards.agent).total,
        gpu_model=lambda wildcards: PLAN.training_gpu_model(wildcards.agent),
        nodes=lambda wildcards: PLAN.layout(wildcards.agent).nodes,
        mpi=lambda wildcards: PLAN.layout(wildcards.agent).mpi,
        tasks=lambda wildcards: PLAN.layout(wildcards.agent).tasks,
        tasks_per_gpu=lambda wildcards: PLAN.layout(wildcards.agent).tasks_per_gpu,
    params:
        fingerprint=lambda wildcards: PLAN.stage("dpo", wildcards.agent, wildcards.seed),
        image=PLAN.image("train"),
    shell:
        'python -m score.train.launch --config "$SCORE_CONFIG" --agent {wildcards.agent} --seed {wildcards.seed} '
        "--root results/{wildcards.experiment} --data {input.data} --tasks {input.tasks} --splits {input.splits} "
        "--work results/{wildcards.experiment}/work/train/{wildcards.agent}-s{wildcards.seed}-{params.fingerprint} "
        "--out results/{wildcards.experiment}/train/{wildcards.agent}-s{wildcards.seed} 2>&1 | tee {log} >&2"


rule variance:
    input:
        model=lambda wildcards: PLAN.model_of(wildcards.agent, wildcards.seed),
        data=lambda wildcards: f"{PLAN.corrections(wildcards.agent, wildcards.seed)}/other_half.jsonl",
    output:
        spreads="results/{experiment}/theory/{agent}-s{seed}.csv",
        provenance="results/{experiment}/theory/{agent}-s{seed}.provenance.json",
    log:
        "results/{experiment}/logs/theory/{agent}-s{seed}.log",
    container:
        "containers/train.sif"
    resources:
        gpu=lambda wildcards: PLAN.gpus(PLAN.base(wildcards.agent)),
        gpu_model=lambda wildcards: PLAN.gpu_model(PLAN.base(wildcards.agent)),
    params:
        fingerprint=lambda wildcards: PLAN.stage(
            "variance", wildcards.agent, wildcards.seed
        ),
        image=PLAN.image("train"),
    shell:
        'python -m score.train.variance --config "$SCORE_CONFIG" --agent {wildcards.agent} --seed {wildcards.seed} '
        "--root results/{wildcards.experiment} --data {input.data} --out {output.spreads} 2>&1 | tee {log} >&2"
