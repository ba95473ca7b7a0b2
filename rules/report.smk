# Tables from score files. No model runs here.


localrules:
    write_table,
    headline,


rule write_table:
    input:
        agents="results/{experiment}/agents.json",
        scores=lambda wildcards: PLAN.scores([int(wildcards.n)]),
    output:
        csv="results/{experiment}/tables/table{n}.csv",
        md="results/{experiment}/tables/table{n}.md",
    log:
        "results/{experiment}/logs/report/table{n}.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("report"),
        title=PLAN.config.title,
    shell:
        "python -m score.report.tables --table {wildcards.n} --agents {input.agents} --scores {input.scores} "
        "--note {params.title:q} --out-csv {output.csv} --out-md {output.md} > {log} 2>&1"


rule headline:
    input:
        agents="results/{experiment}/agents.json",
        scores=PLAN.scores(),
    output:
        "results/{experiment}/tables/headline.md",
    log:
        "results/{experiment}/logs/report/headline.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("report"),
        title=PLAN.config.title,
    shell:
        "python -m score.report.tables --headline --agents {input.agents} --scores {input.scores} --note {params.title:q} "
        "--out-md {output} > {log} 2>&1"
