# The checked config, the words that wildcards may take, and the stage that writes the config down.
import sys

sys.path.insert(0, f"{workflow.basedir}/src")

from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.types import DeploymentMethod

from score import asked, launch, targets
from score.cluster import apptainer, ready
from score.errors import InfrastructureError, ScoreError
from score.scheduling import mend
from score.workflow import Plan, pattern

# SystemExit, since Snakemake shows any other exception with the file and line that raised it.
try:
    PLAN = Plan(
        config,
        main=workflow.is_main_process,
        images=DeploymentMethod.APPTAINER
        in workflow.deployment_settings.deployment_method,
    )
    launch.share(PLAN, workflow.deployment_settings.apptainer_args)
except ScoreError as error:
    sys.exit(f"error: {error}")

mend(JobScheduler)


# Snakemake asks for Apptainer before a dry run too; a plan needs none, and launch.start stops a run that does.
if PLAN.images and apptainer.find() is None:
    workflow.deployment_settings.deployment_method -= {DeploymentMethod.APPTAINER}


onstart:
    try:
        launch.start(
            PLAN,
            workflow.executor_plugin.name,
            arrays=getattr(workflow.executor_settings, "array_jobs", None),
            coming=[
                ready.Job(
                    job.rule.name, job.wildcards_dict, tuple(map(str, job.output))
                )
                for job in workflow.dag.needrun_jobs()
            ],
        )
    except (ScoreError, InfrastructureError) as error:
        sys.exit(f"error: {error}")


onsuccess:
    launch.tidy(PLAN)


# Shards of a stage, as many as `shards` of the config says or --set-scatter evaluate=8. What is finished keeps the number
# that it was made with (PLAN.parts), so another one re-runs nothing: Snakemake's trigger `input` would run it all again.
scattergather:
    rollout=PLAN.config.shards.rollout,
    correct=PLAN.config.shards.correct,
    evaluate=PLAN.config.shards.evaluate,


wildcard_constraints:
    experiment=pattern([PLAN.config.experiment]),
    agent=pattern(PLAN.agents()),
    seed=pattern(map(str, PLAN.config.seeds)),
    benchmark=pattern(map(str, PLAN.all_benchmarks())),
    part="cold_start|mentored|main|deep|hard",
    n="[123]",


localrules:
    config,
    agents,


rule config:
    output:
        "results/{experiment}/config.resolved.yaml",
    log:
        "results/{experiment}/logs/config.log",
    container:
        "containers/core.sif"
    params:
        config=lambda wildcards: PLAN.resolved(),  # a function, since braces in a string are wildcards
        image=PLAN.image("core"),
    shell:
        "printf '%s\n' {params.config:q} > {output} 2> {log}"


# By itself, so that only another name, label or table of an agent makes the tables anew.
rule agents:
    output:
        "results/{experiment}/agents.json",
    log:
        "results/{experiment}/logs/agents.log",
    container:
        "containers/core.sif"
    params:
        agents=lambda wildcards: PLAN.agents_json(),
        image=PLAN.image("core"),
    shell:
        "printf '%s\n' {params.agents:q} > {output} 2> {log}"
