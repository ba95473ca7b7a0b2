# Tables and figures from score files, corrections and training logs. No model runs here.


localrules:
    write_table,
    headline,
    ledger,
    page,
    write_ablation,


rule write_table:
    input:
        agents="results/{experiment}/agents.json",
        contamination=PLAN.contamination(),
        scores=lambda wildcards: PLAN.scores([int(wildcards.n)]),
    output:
        csv="results/{experiment}/tables/table{n}.csv",
        md="results/{experiment}/tables/table{n}.md",
        tex="results/{experiment}/tables/table{n}.tex",
    log:
        "results/{experiment}/logs/report/table{n}.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("report"),
        title=lambda wildcards: PLAN.config.title,
        rows=lambda wildcards: f"--table {wildcards.n} {PLAN.beside_paper()}",
        image=PLAN.image("core"),
    shell:
        "python -m score.report.tables {params.rows} --agents {input.agents} --scores {input.scores} "
        "--contamination {input.contamination} "
        "--note {params.title:q} --out-csv {output.csv} --out-md {output.md} --out-tex {output.tex} > {log} 2>&1"


use rule write_table as write_ablation with:
    input:
        agents="results/{experiment}/agents.json",
        contamination=PLAN.contamination(),
        scores=lambda wildcards: PLAN.ablation_scores(wildcards.word),
    output:
        csv="results/{experiment}/tables/ablation_{word}.csv",
        md="results/{experiment}/tables/ablation_{word}.md",
        tex="results/{experiment}/tables/ablation_{word}.tex",
    log:
        "results/{experiment}/logs/report/ablation_{word}.log",
    wildcard_constraints:
        word=pattern(PLAN.ablations),
    params:
        code=PLAN.code("report"),
        title=lambda wildcards: PLAN.config.title,
        rows=lambda wildcards: f"--title 'Ablation: {wildcards.word}'",
        image=PLAN.image("core"),


# Each role's tokens and cost. The config is no input, as nowhere: of it only the prices and roles matter here.
rule ledger:
    input:
        records=asked.records(PLAN),
    output:
        f"{PLAN.root}/ledger.csv",
    log:
        f"{PLAN.root}/logs/report/ledger.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("ledger"),
        terms=asked.terms(PLAN.config),
        image=PLAN.image("core"),
    shell:
        'python -m score.report.ledger --config "$SCORE_CONFIG" --records {input.records} --out {output} > {log} 2>&1'


rule headline:
    input:
        agents="results/{experiment}/agents.json",
        contamination=PLAN.contamination(),
        scores=PLAN.scores(),
    output:
        "results/{experiment}/tables/headline.md",
    log:
        "results/{experiment}/logs/report/headline.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("report"),
        title=lambda wildcards: PLAN.config.title,
        image=PLAN.image("core"),
    shell:
        "python -m score.report.tables --headline --agents {input.agents} --scores {input.scores} --note {params.title:q} "
        "--contamination {input.contamination} "
        "--out-md {output} > {log} 2>&1"


# Figures' numbers (.md) are read from beside their pictures.
rule page:
    input:
        parts=PLAN.on_page(),
    output:
        f"{PLAN.root}/report/index.html",
    log:
        f"{PLAN.root}/logs/report/page.log",
    container:
        "containers/core.sif"
    params:
        code=PLAN.code("page"),
        title=lambda wildcards: PLAN.config.title,
        image=PLAN.image("core"),
    shell:
        "python -m score.report.page --title {params.title:q} --parts {input.parts} --out {output} > {log} 2>&1"


if PLAN.baseline_scores():

    localrules:
        write_baselines,

    use rule write_table as write_baselines with:
        input:
            agents="results/{experiment}/agents.json",
            contamination=PLAN.contamination(),
            scores=PLAN.baseline_scores(),
        output:
            csv="results/{experiment}/tables/baselines.csv",
            md="results/{experiment}/tables/baselines.md",
            tex="results/{experiment}/tables/baselines.tex",
        log:
            "results/{experiment}/logs/report/baselines.log",
        params:
            code=PLAN.code("report"),
            title=lambda wildcards: PLAN.config.title,
            rows="--title Baselines",
            image=PLAN.image("core"),


if PLAN.ladder:

    localrules:
        figure3a,
        figure3b,
        learning_curves,

    rule figure3a:
        input:
            corrections=PLAN.ladder_corrections("trajectories"),
        output:
            multiext(f"{PLAN.root}/figures/figure3a", ".pdf", ".png", ".csv", ".md"),
        log:
            f"{PLAN.root}/logs/report/figure3a.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("figures"),
            beside=PLAN.beside_paper(),
            title=lambda wildcards: PLAN.config.title,
            image=PLAN.image("core"),
        shell:
            "python -m score.report.figures.figure3a {params.beside} --corrections {input.corrections} --note {params.title:q} "
            f"--out-dir {PLAN.root}/figures > {{log}} 2>&1"

    rule figure3b:
        input:
            agents=f"{PLAN.root}/agents.json",
            scores=PLAN.hard_scores(),
        output:
            multiext(f"{PLAN.root}/figures/figure3b", ".pdf", ".png", ".csv", ".md"),
        log:
            f"{PLAN.root}/logs/report/figure3b.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("figures"),
            beside=PLAN.beside_paper(),
            title=lambda wildcards: PLAN.config.title,
            image=PLAN.image("core"),
        shell:
            "python -m score.report.figures.figure3b {params.beside} --scores {input.scores} --agents {input.agents} --note {params.title:q} "
            f"--out-dir {PLAN.root}/figures > {{log}} 2>&1"

    rule learning_curves:
        input:
            agents=f"{PLAN.root}/agents.json",
            logs=PLAN.rl_logs(),
        output:
            multiext(
                f"{PLAN.root}/figures/learning_curves", ".pdf", ".png", ".csv", ".md"
            ),
        log:
            f"{PLAN.root}/logs/report/learning_curves.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("figures"),
            title=lambda wildcards: PLAN.config.title,
            image=PLAN.image("core"),
        shell:
            "python -m score.report.figures.learning_curves --logs {input.logs} --agents {input.agents} --note {params.title:q} "
            f"--out-dir {PLAN.root}/figures > {{log}} 2>&1"


if PLAN.ladder and PLAN.counts_teaching:

    localrules:
        teacher_tokens,

    rule teacher_tokens:
        input:
            agents=f"{PLAN.root}/agents.json",
            scores=PLAN.scores([1, 2]),
            records=sum(asked.teaching(PLAN).values(), []),
        output:
            multiext(
                f"{PLAN.root}/figures/teacher_tokens", ".pdf", ".png", ".csv", ".md"
            ),
        log:
            f"{PLAN.root}/logs/report/teacher_tokens.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("figures"),
            taught=asked.teaching_options(PLAN),
            title=lambda wildcards: PLAN.config.title,
            image=PLAN.image("core"),
        shell:
            "python -m score.report.figures.teacher_tokens {params.taught} --scores {input.scores} --agents {input.agents} "
            f"--note {{params.title:q}} --out-dir {PLAN.root}/figures > {{log}} 2>&1"


if PLAN.ladder and not PLAN.micro:

    localrules:
        claims,

    rule claims:
        input:
            agents=f"{PLAN.root}/agents.json",
            contamination=PLAN.contamination(),
            scores=PLAN.scores(),
            figures=[f"{PLAN.root}/figures/figure3{letter}.csv" for letter in "ab"],
        output:
            f"{PLAN.root}/report/REPRODUCTION.md",
        log:
            f"{PLAN.root}/logs/report/claims.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("claims"),
            image=PLAN.image("core"),
        shell:
            "python -m score.report.reproduction --agents {input.agents} --scores {input.scores} --figures {input.figures} "
            "--contamination {input.contamination} --out {output} > {log} 2>&1"


if PLAN.ladder and PLAN.micro:

    localrules:
        horizon,
        gradient_variance,

    rule horizon:
        input:
            agents=f"{PLAN.root}/agents.json",
            scores=PLAN.horizon_scores(),
            tasks=expand(
                f"{PLAN.root}/data/{{name}}.jsonl", name=PLAN.config.benchmarks
            ),
        output:
            multiext(f"{PLAN.root}/figures/horizon", ".pdf", ".png", ".csv", ".md"),
        log:
            f"{PLAN.root}/logs/report/horizon.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("figures"),
            title=lambda wildcards: PLAN.config.title,
            image=PLAN.image("core"),
        shell:
            "python -m score.report.figures.horizon --scores {input.scores} --tasks {input.tasks} --agents {input.agents} "
            f"--note {{params.title:q}} --out-dir {PLAN.root}/figures > {{log}} 2>&1"

    rule gradient_variance:
        input:
            data=PLAN.variance_data(),
        output:
            multiext(
                f"{PLAN.root}/figures/gradient_variance", ".pdf", ".png", ".csv", ".md"
            ),
        log:
            f"{PLAN.root}/logs/report/gradient_variance.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("figures"),
            title=lambda wildcards: PLAN.config.title,
            image=PLAN.image("core"),
        shell:
            "python -m score.report.figures.gradient_variance --data {input.data} --note {params.title:q} "
            f"--out-dir {PLAN.root}/figures > {{log}} 2>&1"


if PLAN.taught:

    localrules:
        teacher_quality,

    rule teacher_quality:
        input:
            scores=PLAN.taught_scores(),
            corrections=PLAN.taught_corrections(),
        output:
            multiext(
                f"{PLAN.root}/figures/teacher_quality", ".pdf", ".png", ".csv", ".md"
            ),
        log:
            f"{PLAN.root}/logs/report/teacher_quality.log",
        container:
            "containers/core.sif"
        params:
            code=PLAN.code("teacher_quality"),
            title=lambda wildcards: PLAN.config.title,
            teachers=PLAN.taught_options(),
            image=PLAN.image("core"),
        shell:
            "python -m score.report.figures.teacher_quality {params.teachers} --scores {input.scores} "
            "--corrections {input.corrections} --note {params.title:q} "
            f"--out-dir {PLAN.root}/figures > {{log}} 2>&1"
