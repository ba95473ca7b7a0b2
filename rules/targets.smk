# The targets that are asked for by name; each builds itself and what it needs, no more. Those that this config has nothing
# for are not defined, and `unknown` says what is missing.


localrules:
    tables,
    figures,
    ablations,
    unknown,


rule tables:
    input:
        PLAN.tables(),


rule figures:
    input:
        PLAN.figures(),


rule ablations:
    input:
        PLAN.ablation_rows(PLAN.ablations),
        PLAN.tables(n for n in PLAN.table_numbers if n == 3),


for n in PLAN.table_numbers:

    rule:
        name:
            f"table{n}"
        input:
            PLAN.tables([n]),


for word in PLAN.ablations:

    rule:
        name:
            f"ablation_{word}"
        input:
            PLAN.ablation_rows([word]),


if PLAN.baseline_scores():

    localrules:
        baselines,

    rule baselines:
        input:
            multiext(f"{PLAN.root}/tables/baselines", ".csv", ".md", ".tex"),


if PLAN.ladder and not PLAN.micro:

    localrules:
        reproduction,

    rule reproduction:
        input:
            rules.claims.output,


if PLAN.ladder and PLAN.micro:

    localrules:
        theory,

    rule theory:
        input:
            rules.horizon.output,
            rules.gradient_variance.output,


# A target that no rule has gets here. SystemExit, since Snakemake wraps any other exception in a traceback.
rule unknown:
    input:
        lambda wildcards: sys.exit(
            f"error: {targets.unknown(PLAN.config, wildcards.target, [r.name for r in workflow.rules if not r.has_wildcards()])}"
        ),
    output:
        touch("{target,[A-Za-z0-9_-]+}"),
