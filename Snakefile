# One rule for all notebooks. `make figures` calls this file; so does, on a cluster,
#
#     snakemake --executor slurm --jobs 8 --rerun-triggers mtime --config profile=paper seeds="0 1 2"
#
# A job is `<profile>/seed-<k>/<notebook>`, or `<profile>/<notebook>` over all seeds. Whether
# it is stale is decided by content in lib/workflow.py, which writes the inputs files below
# only when their content changes; times of sources never matter.
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from lib import workflow as notebooks

FIGURES, BUILD = str(notebooks.paths.figures()), str(notebooks.paths.build())


def setting(name, default=""):
    return str(config.get(name) or default)


JOBS = {
    job.name: job
    for job in notebooks.select(
        setting("profile", "quick"), setting("seeds"), setting("only"), setting("params")
    )
}
for job in JOBS.values():
    notebooks.prepare(job)


rule all:
    input:
        expand(f"{BUILD}/executed/{{job}}.ipynb", job=JOBS),


rule notebook:
    input:
        inputs=f"{BUILD}/inputs/{{job}}.json",
        reads=lambda wildcards: [f"{FIGURES}/{name}.json" for name in JOBS[wildcards.job].reads],
    output:
        executed=f"{BUILD}/executed/{{job}}.ipynb",
        record=f"{FIGURES}/{{job}}.json",
    wildcard_constraints:
        job="|".join(re.escape(name) for name in JOBS),
    threads: lambda wildcards: JOBS[wildcards.job].threads(workflow.cores, int(setting("jobs", 1)))
    resources:
        slots=1,
    params:
        python=sys.executable,
        root=workflow.basedir,
    shell:
        "cd {params.root:q} && {params.python:q} -m lib.workflow run {input.inputs:q} --threads {threads}"
