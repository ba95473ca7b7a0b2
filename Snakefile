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


localrules:
    all,
    tables,
    table1,
    table2,
    table3,


rule all:
    default_target: True
    input:
        PLAN.tables(),
        f"{PLAN.root}/tables/headline.md",
        f"{PLAN.root}/config.resolved.yaml",


rule tables:
    input:
        PLAN.tables(),


rule table1:
    input:
        [path for path in PLAN.tables() if "table1" in path],


rule table2:
    input:
        [path for path in PLAN.tables() if "table2" in path],


rule table3:
    input:
        [path for path in PLAN.tables() if "table3" in path],
