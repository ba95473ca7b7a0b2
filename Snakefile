# SCoRe (arXiv 2509.14257), the whole experiment. Stages are one file each in rules/; what a run produces is `rule all`.
from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/rollout.smk"
include: "rules/correct.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/targets.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        PLAN.tables(),
        PLAN.figures(),
        PLAN.headline(),
        PLAN.ledger(),
        rules.page.output,
        f"{PLAN.root}/config.resolved.yaml",
