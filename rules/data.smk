# Questions: benchmarks, training seeds, and the split between the cold start and mentored problem solving.
# The micro-world makes its own; everything else is fetched from the pinned public commit or a mirror of it.


if PLAN.micro:

    localrules:
        benchmark,
        seeds,

    rule benchmark:
        output:
            "results/{experiment}/data/{benchmark}.jsonl",
        log:
            "results/{experiment}/logs/data/{benchmark}.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("micro_questions"),
            split=PLAN.config.data.split,
            n=PLAN.config.data.per_benchmark or 40,
            image=PLAN.image("core"),
        shell:
            "python -m score.micro.tasks --split {params.split} --per-benchmark {params.n} --benchmark {wildcards.benchmark} "
            "--out {output} > {log} 2>&1"

    rule seeds:
        output:
            "results/{experiment}/data/seeds/micro.jsonl",
        log:
            "results/{experiment}/logs/data/seeds.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("micro_questions"),
            n=PLAN.config.data.pool_per_benchmark,
            world=PLAN.config.data.world,
            image=PLAN.image("core"),
        shell:
            "python -m score.micro.tasks --split train --world {params.world} --per-benchmark {params.n} --out {output} > {log} 2>&1"

else:

    localrules:
        fetch,
        benchmark,
        all_questions,
        seeds,

    rule fetch:
        output:
            "results/{experiment}/data/raw/{path}",
        log:
            "results/{experiment}/logs/fetch/{path}.log",
        retries: 2
        container:
            "containers/core.sif"
        params:
            source=PLAN.source_option(),
            image=PLAN.image("core"),
        shell:
            "python -m score.data.fetch {params.source:q} --path {wildcards.path} --out {output} > {log} 2>&1"

    rule benchmark:
        input:
            PLAN.benchmark_files,
        output:
            "results/{experiment}/data/{benchmark}.jsonl",
        log:
            "results/{experiment}/logs/data/{benchmark}.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("benchmark"),
            limit=lambda wildcards: PLAN.limit_option(wildcards.benchmark),
            image=PLAN.image("core"),
        shell:
            "python -m score.data.benchmark --name {wildcards.benchmark} --raw {input} {params.limit} --out {output} "
            "> {log} 2>&1"

    use rule benchmark as all_questions with:
        output:
            "results/{experiment}/data/all/{benchmark}.jsonl",
        log:
            "results/{experiment}/logs/data/{benchmark}.all.log",
        params:
            code=PLAN.code("benchmark"),
            limit="",
            image=PLAN.image("core"),

    rule seeds:
        input:
            PLAN.seed_file,
        output:
            "results/{experiment}/data/seeds/{name}.jsonl",
        log:
            "results/{experiment}/logs/data/{name}.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("seeds"),
            limit=PLAN.per_file_option(),
            image=PLAN.image("core"),
        shell:
            "python -m score.data.seeds --raw {input} {params.limit} --out {output} > {log} 2>&1"


localrules:
    hub_model,
    smollm2,
    wiki_leads,
    splits,


# These two without the digest of their image in the params: what they fetch does not depend on it, and all that acts with
# the model would run again.
rule hub_model:
    output:
        "models/hub/{org}/{name}/{revision}.json",
    log:
        "logs/hub/{org}/{name}.{revision}.log",
    wildcard_constraints:
        org="[^/]+",
        name="[^/]+",
    retries: 2
    container:
        "containers/train.sif"
    shell:
        "HF_HUB_OFFLINE=0 python -m score.models.hub --name {wildcards.org:q}/{wildcards.name:q} --revision {wildcards.revision:q} "
        "--out {output} > {log} 2>&1"


rule smollm2:
    output:
        directory("models/smollm2-135m-instruct"),
    log:
        "logs/smollm2.log",
    container:
        "containers/train.sif"
    shell:
        "python -m score.models.smollm2 --out {output} > {log} 2>&1"


rule splits:
    input:
        seeds=PLAN.seed_tasks(),
        benchmarks=PLAN.benchmark_tasks(),
    output:
        splits="results/{experiment}/data/splits.json",
        contamination="results/{experiment}/data/contamination.json",
        report="results/{experiment}/data/contamination.md",
    log:
        "results/{experiment}/logs/data/splits.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("splits"),
        near=PLAN.near_option(),
        share=PLAN.config.data.cold_start_share,
        held_out=PLAN.config.data.held_out,
        seed=PLAN.config.data.split_seed,
        image=PLAN.image("core"),
    shell:
        "python -m score.data.splits --seeds {input.seeds} --benchmarks {input.benchmarks} {params.near} --share {params.share} "
        "--held-out {params.held_out} --seed {params.seed} --out {output.splits} --contamination {output.contamination} --report {output.report} "
        "> {log} 2>&1"


rule wiki_leads:
    output:
        "corpora/wiki-leads/corpus.jsonl",
    log:
        "logs/wiki_leads.log",
    container:
        "containers/core.sif"
    params:
        image=PLAN.image("core"),
    shell:
        "python -m score.search.wiki --out {output} > {log} 2>&1"
