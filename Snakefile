# One rule for all notebooks. `make figures` runs this file, on a cluster as well (EXECUTOR=slurm); so does
#
#     snakemake --profile profiles/slurm --config profile=paper seeds="0 1 2" cores=8
#
# with any Snakemake executor that shares this file system.
# A job is `<profile>/seed-<k>/<notebook>`, or `<profile>/<notebook>` over all seeds. Whether it is
# stale is decided by content in lib/press/staleness.py, which writes the input files below only when
# their content changes; modification times of sources never matter.
import json
import os
import re
import sys

sys.path.insert(0, workflow.basedir)
from lib import paths
from lib.press import jobs, staleness

# Paths below are relative to the output folder, so special characters in its own path do no harm.
os.environ["OUTPUT_ROOT"] = str(paths.output_root())
os.environ["DATA_ROOT"] = str(paths.data_root())


workdir: paths.output_root()


# The selection of `make figures`; if Snakemake is called directly, its --config.
SELECTION = {**config, **json.loads(os.environ.get("SELECTION", "{}"))}


def setting(name, default=""):
    value = SELECTION.get(name, "")  # Snakemake parses seeds="0" as the number 0, which is not the same as no seeds
    return default if value in ("", None) else str(value)


JOBS = {
    job.name: job
    for job in jobs.select(
        setting("profile", "quick"), setting("seeds"), setting("only"), setting("params")
    )
}
if workflow.is_main_process:  # not on the nodes of a cluster, where other jobs of this run are done or running
    for job in JOBS.values():
        staleness.prepare(job)


def threads(wildcards):
    """On a cluster all cores of a notebook, otherwise its share of the cores of this machine."""
    return int(setting("cores")) if setting("cores") else max(1, workflow.cores // int(setting("jobs", 1)))


def resource(name, times):
    return lambda wildcards: times * JOBS[wildcards.job].resources[name]


rule all:
    input:
        expand("build/executed/{job}.ipynb", job=JOBS),


rule notebook:
    input:
        inputs="build/inputs/{job}.json",
        reads=lambda wildcards: [f"figures/{name}.json" for name in JOBS[wildcards.job].reads],
    output:
        executed="build/executed/{job}.ipynb",
        record="figures/{job}.json",
    wildcard_constraints:
        job="|".join(re.escape(name) for name in JOBS),
    threads: threads
    resources:
        slots=1,
        mem_mb=resource("memory_gb", 1000),
        runtime=resource("hours", 60),  # minutes
        gpu=resource("gpus", 1),
    params:
        # Functions, as Snakemake looks for wildcards in the braces of a string.
        python=lambda wildcards: sys.executable,
        root=lambda wildcards: workflow.basedir,
    shell:
        "cd {params.root:q} && {params.python:q} -m lib.press.workflow run {wildcards.job:q} --threads {threads}"
