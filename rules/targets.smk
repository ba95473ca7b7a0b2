# The targets that are asked for by name; each builds itself and what it needs, no more.


localrules:
    table1,
    table2,
    table3,
    tables,
    figures,
    theory,
    baselines,
    ablations,
    unknown,


rule tables:
    input:
        PLAN.tables(),


rule figures:
    input:
        PLAN.figures(),


rule theory:
    input:
        rules.horizon.output,
        rules.gradient_variance.output,


rule baselines:
    input:
        multiext(f"{PLAN.root}/tables/baselines", ".csv", ".md", ".tex"),


rule ablations:
    input:
        PLAN.ablation_rows(PLAN.ablations),
        [path for path in PLAN.tables() if "table3" in path],


for n in (1, 2, 3):

    rule:
        name:
            f"table{n}"
        input:
            [path for path in PLAN.tables() if f"table{n}" in path],


for word in PLAN.ablations:

    rule:
        name:
            f"ablation_{word}"
        input:
            PLAN.ablation_rows([word]),


# A target that no rule has gets here. SystemExit, since Snakemake wraps any other exception in a traceback.
rule unknown:
    input:
        lambda wildcards: sys.exit(
            f"error: {PLAN.unknown_target(wildcards.target, [r.name for r in workflow.rules])}"
        ),
    output:
        touch("{target,[A-Za-z0-9_]+}"),
