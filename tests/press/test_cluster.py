"""`make figures EXECUTOR=slurm` on a real Slurm of one node, which the test starts and stops."""

import os
import re
import shutil
import socket
import subprocess
import time
from importlib.util import find_spec

import pytest
from toy import make_toy

from lib.press import parameters
from lib.press.parameters import ParameterError

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
NodeName={host} CPUs={cores} RealMemory=64000 State=UNKNOWN
PartitionName=long Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which `sbatch` reaches the cluster."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    if missing := [name for name in DAEMONS if not shutil.which(name, path=path)]:
        pytest.skip(f"Slurm is not installed: no {', '.join(missing)}")
    if os.getuid():
        pytest.skip("only root may start Slurm's daemons")
    if not find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "spool").mkdir()
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(folder=folder, host=host, ports=ports, cores=max(2, os.cpu_count()))
    )
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    # Within a job the plugin clears Slurm's variables, which this cluster needs, as its files are in an unusual place.
    (folder / "bin").mkdir()
    (folder / "bin/srun").write_text(f'#!/bin/sh\nSLURM_CONF="{folder}/slurm.conf" exec {shutil.which("srun")} "$@"\n')
    (folder / "bin/srun").chmod(0o755)
    environment = {"PATH": f"{folder}/bin{os.pathsep}{path}", "SLURM_CONF": str(folder / "slurm.conf")}
    munge = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log",
             "seed-file": "seed"}  # fmt: skip
    options = [f"--{option}={folder / name}" for option, name in munge.items()]
    try:
        # --force: the folders above belong to whoever runs the tests.
        for command in (["munged", "--force", *options], ["slurmctld"], ["slurmd"]):
            subprocess.run(command, env=os.environ | environment, check=True)
        for _ in range(100):
            if "idle" in (states := _said(environment, "sinfo")):
                break
            time.sleep(0.2)
        assert "idle" in states, states + (folder / "slurmctld.log").read_text()
        yield environment
    finally:
        for name in reversed(DAEMONS):
            if (folder / f"{name}.pid").exists():
                subprocess.run(["kill", (folder / f"{name}.pid").read_text().strip()])


def _said(environment, *command) -> str:
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True).stdout


def results(toy):
    folder = toy.folder / "figures/quick-custom"
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.csv")}


def test_a_run_on_a_cluster_survives_a_killed_job_and_ends_with_the_same_bytes(cluster, tmp_path):
    here, there = make_toy(tmp_path / "here"), make_toy(tmp_path / "there")
    here.make("figures", "PARAMS=wait=0.5")
    there.write("profiles/quick.yaml", there.read("profiles/quick.yaml").replace(
        "notebooks:", "notebooks:\n  02_beta: {resources: {memory_gb: 3, hours: 2}}"))  # fmt: skip
    there.environment |= cluster
    there.replace("notebooks/02_beta.ipynb", "time.sleep(wait)", "time.sleep(wait * 40)")  # long enough to be caught
    arguments = ("figures", "PARAMS=wait=0.5", "EXECUTOR=slurm", "CORES=2", "JOBS=2", "PARTITION=long")
    running = there.start(*arguments)
    there.wait_for("build/running/quick-custom/seed-0/02_beta.ipynb", running)
    jobs = {number: _said(cluster, "scontrol", "show", "job", number)
            for number in _said(cluster, "squeue", "-h", "-o", "%i").split()}  # fmt: skip
    (number,) = (number for number, about in jobs.items() if "02_beta" in about)
    assert re.search(r"NumCPUs=2\b", jobs[number]) and "Partition=long" in jobs[number]
    assert "TimeLimit=02:00:00" in jobs[number] and re.search(r"MinMemoryNode=(3000M|2.93G)", jobs[number])
    _said(cluster, "scancel", number)
    output, _ = running.communicate(timeout=200)
    assert running.returncode and "02_beta (quick-custom, seed 0)" in output
    assert not there.exists("build/executed/quick-custom/seed-0/02_beta.ipynb")
    there.replace("notebooks/02_beta.ipynb", "time.sleep(wait * 40)", "time.sleep(wait)")
    again = there.make(*arguments)
    assert "2 of 3 notebook runs to do" in again and "Done" in again
    assert results(there) == results(here) and len(results(here)) == 3


def test_an_executor_without_its_plugin_is_told(tmp_path):
    output = make_toy(tmp_path).make("figures", "EXECUTOR=abacus", status=2)
    assert "no executor 'abacus' here" in output and "pip install snakemake-executor-plugin-abacus" in output


@pytest.mark.parametrize("resources", [{"memory_gb": -1}, {"hours": 1.5}, {"gpus": "one"}, {"disk": 3}])
def test_resources_of_a_profile_are_checked(tmp_path, monkeypatch, resources):
    (tmp_path / "big.yaml").write_text(f"notebooks: {{03_corregularization: {{resources: {resources}}}}}")
    monkeypatch.setattr(parameters.paths, "PROFILES", tmp_path)
    with pytest.raises(ParameterError, match="resources"):
        parameters.load_profile("big")
