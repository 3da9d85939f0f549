"""The workflow as users run it: real `make`, Snakemake, papermill and kernels on toy notebooks."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from toy import ROOT, Repository, clean_environment, run_command

from lib.press import jobs, workflow
from lib.press.workflow import slow_precision

NOTHING = "Nothing to do"
[PACKAGING] = re.findall(r"^packaging==\S+", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
ALPHA, BETA, SUMMARY = "01_alpha (quick, seed 0)", "02_beta (quick, seed 0)", "03_summary (quick, all seeds)"
# The file appears only with its content.
SAY_AND_WAIT = "import os; open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'kernel.pid'); time.sleep(wait)"


def ran(output: str) -> list[str]:
    """The runs that `make figures` reports as finished, in its order."""
    return re.findall(r"^done +(.*) in \d+ s(?:, \d+\.\d GB of memory)?$", output, re.MULTILINE)


def planned(toy: Repository, *arguments: str) -> dict[str, list[str]]:
    """The reasons that `make plan` gives for each run to be done."""
    found: dict[str, list[str]] = {}
    for line in toy.make("plan", *arguments).splitlines():
        if run := re.fullmatch(r"  (\S+ \(.*\))", line):
            found[run[1]] = []
        elif reason := re.fullmatch(r"    - (.*)", line):
            found[list(found)[-1]].append(reason[1])
    return found


# -- a first run ---------------------------------------------------------------------------


def test_first_run_makes_everything_in_order(built_toy):
    toy, output = built_toy
    assert ran(output) == [ALPHA, BETA, SUMMARY]
    assert toy.read("figures/quick/tab_all.csv") == "2,0\n20,0"
    for place in ("figures/quick/seed-0/01_alpha.json", "build/executed/quick/seed-0/01_alpha.ipynb"):
        assert toy.exists(place)
    assert not list(toy.folder.glob("build/running/**/*.ipynb"))


def test_executed_copy_shows_all_parameters(built_toy):
    cells = json.loads(built_toy[0].read("build/executed/quick/seed-0/01_alpha.ipynb"))["cells"]
    injected = next(cell for cell in cells if "injected-parameters" in cell["metadata"]["tags"])
    assert "groups = [1, 2]" in "".join(injected["source"])


def test_committed_results_without_build_are_no_reason_to_skip(toy):
    """As in a fresh clone: figures are in git, build/ is not."""
    toy.make("clean", "PROFILE=quick")
    assert toy.exists("figures/quick/seed-0/01_alpha.json") and not toy.exists("build")
    assert set(planned(toy)) == {ALPHA, BETA, SUMMARY}


# -- what makes a run stale ----------------------------------------------------------------


def test_touching_and_explaining_rerun_nothing(toy):
    for path in toy.folder.rglob("*"):
        if ".snakemake" not in path.parts and path.is_file():
            path.touch()
    toy.replace("lib/alpha/model.py", "# a comment", "# another comment")
    toy.replace("lib/alpha/model.py", '"""The value."""', '"""The value, explained."""')
    toy.replace("lib/common.py", "UNIT = 1", "UNIT  =  1")
    assert NOTHING in toy.make("figures")


def test_prose_reruns_nothing(toy):
    path = toy.folder / "notebooks/02_beta.ipynb"
    content = json.loads(path.read_text())
    content["cells"].insert(2, {"cell_type": "markdown", "id": "why", "metadata": {}, "source": ["# Why"]})
    content["cells"][-1]["source"] = ["# the end\n", "run.finish()"]
    path.write_text(json.dumps(content))
    assert planned(toy) == {}
    assert NOTHING in toy.make("figures")


def test_editing_a_module_of_one_study_reruns_that_study_alone(toy):
    toy.replace("lib/alpha/model.py", "epochs * UNIT", "epochs * UNIT + 1")
    assert planned(toy) == {ALPHA: ["lib.alpha.model changed"], SUMMARY: [f"after {ALPHA}"]}
    assert ran(toy.make("figures")) == [ALPHA, SUMMARY]
    assert toy.read("figures/quick/tab_all.csv") == "3,0\n20,0"
    assert NOTHING in toy.make("figures")


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("lib/common.py", "UNIT = 1", "UNIT = 2", {ALPHA: "lib.common changed", BETA: "lib.common changed"}),
        ("lib/alpha/__init__.py", "", "x = 1\n", {ALPHA: "lib.alpha changed"}),
        (
            "requirements.lock",
            PACKAGING,
            PACKAGING + ".post1",
            {BETA: f"package packaging: {PACKAGING} → {PACKAGING}.post1"},
        ),
        ("notebooks/02_beta.ipynb", "run.finish()", "run.finish( );1", {BETA: "notebook changed"}),
        ("notebooks/01_alpha.ipynb", "epochs = 2", "epochs = 3", {ALPHA: "parameter epochs: 2 → 3"}),
        (
            "profiles/quick.yaml",
            "notebooks:",
            "notebooks:\n  02_beta: {parameters: {epochs: 7}}",
            {BETA: "parameter epochs: 2 → 7"},
        ),
        (
            "profiles/quick.yaml",
            "[01_alpha, 02_beta]",
            "[01_alpha]",
            {SUMMARY: f"no longer reads {BETA}"},
        ),
    ],
    ids=["shared module", "package init", "lock", "cell", "default", "profile", "reads"],
)
def test_plan_tells_what_changed(toy, path, old, new, expected):
    if old:
        toy.replace(path, old, new)
    else:
        toy.write(path, new)
    found = planned(toy)
    for run, reason in expected.items():
        assert reason in found[run]
    assert set(found) == {*expected, SUMMARY}


def test_planning_and_taking_back_an_edit_rerun_nothing(toy):
    toy.replace("lib/beta.py", "10 *", "20 *")
    assert set(planned(toy)) == {BETA, SUMMARY}
    toy.replace("lib/beta.py", "20 *", "10 *")
    assert NOTHING in toy.make("figures")


def test_a_deleted_figure_is_made_again(toy):
    (toy.folder / "figures/quick/seed-0/fig_beta.csv").unlink()
    toy.write("figures/quick/seed-0/fig_alpha.csv", "typed by hand")
    found = planned(toy)
    assert found[BETA] == ["fig_beta.csv is missing"] and found[ALPHA] == ["fig_alpha.csv was altered"]
    assert ran(toy.make("figures", "ONLY=02_beta")) == [BETA]
    assert toy.read("figures/quick/seed-0/fig_beta.csv") == "20,0" and set(planned(toy)) == {ALPHA, SUMMARY}


def test_equal_results_of_an_earlier_notebook_spare_the_later_one(toy):
    """If a changed parameter changes no result of 01_alpha, 03_summary, which reads it, is not run again."""
    toy.replace("notebooks/01_alpha.ipynb", "rate = 0.1", "rate = 0.2")
    assert ran(toy.make("figures", "ONLY=01_alpha")) == [ALPHA]
    assert NOTHING in toy.make("figures")


def test_snakemake_alone_sees_the_same(toy):
    """Called directly, Snakemake must not rerun what the plan finds up to date."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--rerun-triggers", "mtime"]
    options = {"cwd": toy.folder, "env": toy.environment, "capture_output": True, "text": True, "check": True}
    subprocess.run(["rm", "-rf", ".snakemake"], cwd=toy.folder, check=True)
    for path in toy.folder.glob("build/inputs/**/*.json"):
        path.touch()
    assert "Nothing to be done" in subprocess.run(command, **options).stdout


# -- failures ------------------------------------------------------------------------------


def test_a_failed_notebook_is_kept_apart_and_the_others_go_on(toy):
    toy.replace("lib/alpha/model.py", "return epochs * UNIT", "raise ArithmeticError('the loss is NaN')")
    toy.replace("lib/beta.py", "10 *", "30 *")
    output = toy.make("figures", status=1)
    assert ran(output) == [BETA]
    assert f"FAILED  {ALPHA}" in output
    assert "run.save('fig_alpha', f'{model.value(epochs)},{seed}')" in output  # the cell
    assert "ArithmeticError: the loss is NaN" in output and "lib/alpha/model.py" in output  # the traceback
    assert "build/failed/quick/seed-0/01_alpha.ipynb" in output and f"{SUMMARY}: not reached" in output
    assert "ArithmeticError" in toy.read("build/failed/quick/seed-0/01_alpha.ipynb")
    assert not toy.exists("build/executed/quick/seed-0/01_alpha.ipynb")
    assert not toy.exists("figures/quick/seed-0/01_alpha.json")
    assert planned(toy)[ALPHA] == ["failed last time"]
    # The new error is reported, not the older failure.
    whole = toy.read("Snakefile")
    toy.write("Snakefile", "raise ValueError('broken on purpose')\n" + whole)
    output = toy.make("figures", status=1)
    assert "failed, see" not in output and "broken on purpose" in output
    toy.write("Snakefile", whole)
    toy.replace("lib/alpha/model.py", "raise ArithmeticError('the loss is NaN')", "return epochs * UNIT")
    assert ran(toy.make("figures")) == [ALPHA, SUMMARY]
    assert not toy.exists("build/failed/quick/seed-0/01_alpha.ipynb")


def test_a_dead_kernel_and_a_missing_record_are_told(toy):
    toy.replace("lib/beta.py", "return 10", "import os, signal; os.kill(os.getpid(), signal.SIGKILL); return 10")
    toy.replace("notebooks/01_alpha.ipynb", "run.finish()", "pass")
    output = toy.make("figures", status=1)
    assert "DeadKernelError: Kernel died; usually for lack of memory" in output
    assert "build/failed/quick/seed-0/02_beta.ipynb" in output
    assert "without `run.finish()`" in output and "build/failed/quick/seed-0/01_alpha.ipynb" in output


def test_kill_9_leaves_nothing_that_looks_finished_and_the_next_run_goes_on(toy):
    toy.replace("lib/alpha/model.py", "epochs * UNIT", "epochs * UNIT * 2")
    toy.replace("notebooks/02_beta.ipynb", "time.sleep(wait)", SAY_AND_WAIT)
    process = toy.start("figures", "PARAMS=wait=600")
    try:
        toy.wait_for("kernel.pid", process)
        kernel = psutil.Process(int(toy.read("kernel.pid")))
        # A second run of the same job is refused.
        output = toy.make("figures", "ONLY=02_beta", "PARAMS=wait=600", status=1)
        assert "02_beta (quick-custom, seed 0) is already running in another process" in output
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    custom = "quick-custom/seed-0"
    assert toy.exists(f"build/executed/{custom}/01_alpha.ipynb")  # finished before
    assert not toy.exists(f"build/executed/{custom}/02_beta.ipynb")
    assert not toy.exists(f"figures/{custom}/02_beta.json")
    # The kernel is in a session of its own, so the signal misses it, and it must notice by itself.
    _, alive = psutil.wait_procs([kernel], timeout=30)
    assert not alive or kernel.status() == psutil.STATUS_ZOMBIE
    # Only the waiting time differs, so 01_alpha is not run again.
    output = toy.make("figures", "PARAMS=wait=0.5")
    assert ran(output) == ["02_beta (quick-custom, seed 0)", "03_summary (quick-custom, all seeds)"]


# -- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PARAMS=epoch=3"], "'epoch', which no notebook of this run has; did you mean 'epochs'?"),
        (["JOBS=0"], "JOBS takes a positive whole number"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_settings_fail_before_anything_starts(built_toy, arguments, message):
    output = built_toy[0].make("figures", *arguments, status=1)
    assert message in output and "Traceback" not in output and "start " not in output


def test_what_a_profile_skips_is_not_run_and_asking_for_it_tells_why(toy):
    toy.write("profiles/quick.yaml", "notebooks: {02_beta: {skip: it needs speech}, 03_summary: {reads: [01_alpha]}}")
    assert set(planned(toy, "PARAMS=rate=0.2")) == {
        name.replace("quick,", "quick-custom,") for name in (ALPHA, SUMMARY)
    }
    assert "Profile 'quick' has no 02_beta: it needs speech" in toy.make("figures", "ONLY=02_beta", status=1)


# Returns the number of threads that it was given, once two processes have arrived.
MEET = """

def meet():
    import os
    import time
    from pathlib import Path

    place = Path(os.environ["OUTPUT_ROOT"]) / "build" / "meeting"
    place.mkdir(exist_ok=True)
    (place / str(os.getpid())).touch()
    for _ in range(600):
        if len(list(place.iterdir())) == 2:
            return int(os.environ["OMP_NUM_THREADS"])
        time.sleep(0.1)
    raise TimeoutError("alone")
"""


def test_profiles_seeds_and_parallel_runs(toy):
    """Two seeds run at a time, each with its share of the cores, then one notebook over both."""
    toy.replace("lib/alpha/model.py", "return epochs", "return meet()")
    toy.write("lib/alpha/model.py", toy.read("lib/alpha/model.py") + MEET)
    output = toy.make("figures", "PROFILE=smoke", "ONLY=03_summary", "JOBS=2", "CORES=2")
    assert "start   01_alpha (smoke, seed 1), 1 thread\n" in output
    assert toy.read("figures/smoke/tab_all.csv") == "1,0\n1,1"
    assert NOTHING in toy.make("figures", "PROFILE=smoke", "ONLY=03_summary")


def test_seed_zero_alone_is_not_every_seed(toy):
    """Snakemake turns `seeds="0"` into a number, and zero is easily mistaken for no value."""
    words = ["--dry-run", "--cores", "1", "--config", "profile=smoke", "only=01_alpha", "seeds=0"]
    told = run_command(sys.executable, "-m", "snakemake", *words, cwd=toy.folder, env=toy.environment)
    assert re.search(r"^notebook +1$", told, re.MULTILINE)


def test_parameters_of_the_command_line_go_to_a_folder_of_their_own(toy):
    output = toy.make("figures", "PARAMS=epochs=5 groups=[3,4]", "ONLY=03_summary")
    assert ran(output)[-1] == "03_summary (quick-custom, all seeds)"
    assert toy.read("figures/quick-custom/tab_all.csv") == "5,0\n50,0"
    assert toy.read("figures/quick/tab_all.csv") == "2,0\n20,0"
    assert NOTHING in toy.make("figures")
    assert NOTHING in toy.make("figures", "PARAMS=epochs=2")  # the profile's own value


def test_values_arrive_as_they_were_given(toy):
    texts = [
        "folder:/home/me/새사진",
        "folder:/my birds: #1",
        'it\'s "so" \\n',
        "$HOME $$ %s {0} {x}",
        "[1]",
        "3",
        "é\té",
    ]
    names = [f"name{number}" for number in range(len(texts))]
    empty = "\\n".join(f"{name} = ''" for name in names)
    toy.replace("notebooks/01_alpha.ipynb", 'dataset = \\"shapes\\"', empty)
    toy.replace("notebooks/01_alpha.ipynb", "f'{model.value(epochs)},{seed}'", f"'|'.join([{', '.join(names)}])")
    given = " ".join(f"{name}={shlex.quote(text)}" for name, text in zip(names, texts, strict=True))
    toy.make("figures", "ONLY=01_alpha", f"PARAMS={given}")
    assert (toy.folder / "figures/quick-custom/seed-0/fig_alpha.csv").read_bytes().decode().split("|") == texts


def test_a_lab_may_call_snakemake_with_a_profile_of_its_own(toy):
    words = ["--profile", ROOT / "profiles/slurm", "--executor", "local", "--dry-run", "--cores", "8"]
    told = run_command(sys.executable, "-m", "snakemake", *words, "--config", "profile=smoke", "seeds=0 1", "cores=8",
                       cwd=toy.folder, env=toy.environment)  # fmt: skip
    assert re.search(r"^notebook +5$", told, re.MULTILINE) and "threads: 8" in told


@pytest.mark.parametrize(("command", "unasked"), [("paper", '"public"'), ("verify", '""'), ("site", '"$PROFILE"')])
def test_a_command_has_a_profile_of_its_own_where_none_is_asked_for(command, unasked):
    def would_run(*words: str, **more: str) -> str:
        return run_command("make", "-n", command, *words, cwd=ROOT, env=clean_environment() | more)

    assert f"--profile {unasked}" in would_run()
    assert '--profile "$PROFILE"' in would_run("PROFILE=trained")
    assert '--profile "$PROFILE"' in would_run(PROFILE="trained")


def test_a_clone_has_the_same_bytes_whatever_git_is_set_to(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("this folder is no git clone")
    clone = ["git", "clone", "--quiet", "--config", "core.autocrlf=true", ROOT, tmp_path / "clone"]
    subprocess.run(clone, check=True)
    committed = subprocess.run(["git", "show", "HEAD:Makefile"], cwd=ROOT, capture_output=True, check=True).stdout
    assert (tmp_path / "clone" / "Makefile").read_bytes() == committed and b"\r" not in committed


def test_a_failure_is_told_though_the_clock_was_set_back_and_an_earlier_one_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    old, new = (SimpleNamespace(name=f"quick/seed-0/{name}", title=name, values={}, reads=()) for name in ("01", "02"))
    for job in (old, new):
        jobs.failed(job.name).parent.mkdir(parents=True, exist_ok=True)
    jobs.failed(old.name).touch()
    (log := tmp_path / "log").write_text("Snakemake's words")

    def snakemake(options):
        jobs.failed(new.name).touch()
        os.utime(jobs.failed(new.name), (1, 1))  # in 1970
        return 1, log

    monkeypatch.setattr(workflow, "plan", lambda selected: {job.name: ["not run yet"] for job in selected})
    monkeypatch.setattr(workflow, "_snakemake", snakemake)
    assert workflow.make_figures([old, new], SimpleNamespace(executor="")) == 1
    told = capsys.readouterr().out
    assert "01: not reached" in told and "02: failed, see " in told and "Snakemake's words" not in told


def test_output_root_moves_everything_that_is_written(toy, tmp_path):
    toy.environment["OUTPUT_ROOT"] = str(tmp_path / "else {where}")  # papermill takes a path for a format
    toy.write("images/pictures/a.png", "")
    toy.replace("notebooks/01_alpha.ipynb", "shapes", "folder:pictures")
    toy.make("figures", "ONLY=01_alpha", "DATA_ROOT=images")  # relative to the repository, not to the output
    inputs = json.loads((tmp_path / "else {where}/build/inputs/quick/seed-0/01_alpha.json").read_text())
    assert inputs["parts"]["data folder:pictures"] != "absent"
    assert (tmp_path / "else {where}/figures/quick/seed-0/01_alpha.json").exists()
    assert not list(toy.folder.glob("build/running/**/*.ipynb"))


def test_outputs_are_stored_for_checked_cells_alone(toy):
    content = json.loads(toy.read("notebooks/01_alpha.ipynb"))
    content["cells"][2]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "left over"}]
    content["cells"][3]["metadata"]["tags"] = ["nbval-check-output", "keep_output"]
    content["cells"][3]["source"] = "run.finish()\nprint(epochs)"
    toy.write("notebooks/01_alpha.ipynb", json.dumps(content))
    toy.make("outputs", "ONLY=01_alpha", "SEEDS=0")
    cells = json.loads(toy.read("notebooks/01_alpha.ipynb"))["cells"]
    assert len(cells) == 4 and cells[2]["outputs"] == []
    assert cells[3]["outputs"][0]["text"] == ["1\n"] and cells[3]["execution_count"]
    assert NOTHING in toy.make("figures", "PROFILE=smoke", "ONLY=01_alpha", "SEEDS=0")


def test_clean_keeps_results(toy):
    for name in ("smoke", "quick-custom", "public"):
        toy.write(f"figures/{name}/a.json", "{}")
    toy.make("clean")
    left = {path.name for path in (toy.folder / "figures").iterdir()}
    assert left == {"quick", "public"} and not toy.exists("build")


# -- the environment -----------------------------------------------------------------------

FAKE_PYTHON = """#!/bin/sh
# Stands for Python, venv, pip and uv: notes every call; installing the lock fails while there is a file `broken`, by uv
# alone while there is `no-uv`.
echo "$*" >> "$CALLS"
case "$*" in
    *"-m venv"*) for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
    *"-m uv"*) test ! -e broken -a ! -e no-uv ;;
    *"install"*"-r "*) test ! -e broken ;;
    *"sys.version_info"*) test ! -e old ;;
    *--version*) echo "Python 3.8.1" ;;
esac
"""


@pytest.fixture
def bare(fresh_toy, tmp_path) -> Repository:
    """A repository without an active environment, with a stand-in for Python that installs nothing."""
    fake = tmp_path / "python"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    fresh_toy.environment |= {"BOOTSTRAP": str(fake), "CALLS": str(tmp_path / "calls")}
    del fresh_toy.environment["VIRTUAL_ENV"]
    return fresh_toy


def _pip_calls(bare: Repository) -> list[str]:
    calls = Path(bare.environment["CALLS"])
    found = [line for line in calls.read_text().splitlines() if "pip install" in line]
    calls.write_text("")
    return found


def test_environment_is_made_once_and_follows_the_lock(bare):
    bare.environment.pop("PYTHONDONTWRITEBYTECODE", None)
    bare.make("environment")
    uv, lock, own = _pip_calls(bare)
    assert uv.endswith(" uv") and lock.startswith("-m uv pip") and lock.endswith("requirements.lock")
    assert own.startswith("-m pip") and own.endswith("-e .")
    bare.make("environment")
    assert _pip_calls(bare) == []
    assert "--compile-bytecode" not in lock
    bare.replace("requirements.lock", "grimp==", "grimp== ")
    bare.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    bare.make("environment")
    calls = _pip_calls(bare)
    assert len(calls) == 3 and "--compile-bytecode" in calls[1]


def test_pip_installs_where_uv_cannot(bare):
    bare.write("no-uv", "")
    assert "uv could not install the packages" in bare.make("environment")
    calls = _pip_calls(bare)
    assert len(calls) == 4 and calls[2].startswith("-m pip") and calls[2].endswith("requirements.lock")
    assert (bare.folder / ".venv/requirements.lock").exists()


def test_an_interrupted_installation_is_not_taken_for_complete(bare):
    bare.write("broken", "")
    bare.make("environment", status=1)
    (bare.folder / "broken").unlink()
    _pip_calls(bare)
    bare.make("environment")
    assert len(_pip_calls(bare)) == 3


def test_an_old_python_is_told(bare):
    bare.write("old", "")
    assert "no Python from 3.11 to 3.14 found" in bare.make("environment", status=1)
    bare.environment["VIRTUAL_ENV"] = str(bare.folder / "active")
    bare.write("active/bin/python", FAKE_PYTHON)
    (bare.folder / "active/bin/python").chmod(0o755)
    assert "has Python 3.8.1; Python 3.11 to 3.14 is needed" in bare.make("environment", status=1)


def test_conda_is_used_unless_it_is_its_base(bare):
    bare.write("conda/bin/python", FAKE_PYTHON)
    (bare.folder / "conda/bin/python").chmod(0o755)
    bare.environment |= {"CONDA_PREFIX": str(bare.folder / "conda"), "CONDA_DEFAULT_ENV": "studies"}
    bare.make("environment")
    assert not bare.exists(".venv")
    bare.environment["CONDA_DEFAULT_ENV"] = "base"
    bare.make("environment")
    assert bare.exists(".venv")


def test_make_help_names_every_command():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    shown = set(re.findall(r"^  ([\w-]+)  ", subprocess.check_output(["make", "help"], cwd=ROOT, text=True), re.M))
    assert phony <= shown


@pytest.mark.parametrize(("flags", "warned"), [("fma avx2", True), ("avx512f avx512_bf16", False), (None, False)])
def test_bfloat16_without_hardware_is_warned_of(tmp_path, monkeypatch, flags, warned):
    monkeypatch.setattr("shutil.which", lambda name: None)
    processor = tmp_path / "cpuinfo"
    if flags:
        processor.write_text(f"flags : {flags}\n")
    selected = jobs.select("public", only="01_laplacian_gan", seeds="0")
    assert ("01_laplacian_gan (public, seed 0) would use it" in slow_precision(selected, processor)) == warned
    assert slow_precision(jobs.select("quick", only="01_laplacian_gan"), processor) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit is that of Linux")
def test_the_memory_of_a_run_is_told(tmp_path):
    ours = "from lib.press import execution; print(execution._peak())"
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray(700_000_000)']); "
    told = [run_command(sys.executable, "-c", code + ours, cwd=ROOT) for code in ("", child)]
    gigabytes = [float(re.fullmatch(r", (\d+\.\d) GB of memory\n", text)[1]) for text in told]
    assert gigabytes[0] == 0 and 0.7 <= gigabytes[1] <= 0.8


def test_an_error_that_says_what_to_do_is_told_without_its_traceback(tmp_path, monkeypatch, capsys):
    from lib.press import execution

    def fail(job, name, threads):
        error = RuntimeError("a traceback of fifty lines")
        error.ename, error.evalue = ename, "There is no data set 'cifar'."  # as papermill's error has them
        raise error

    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    monkeypatch.setattr(execution, "_run", fail)
    job = "quick/seed-0/03_study"
    jobs.inputs_file(job).parent.mkdir(parents=True)
    jobs.inputs_file(job).write_text("{}")
    for ename, told in (("DataError", "\nDataError: There is no data set 'cifar'.\n"), ("KeyError", "fifty lines")):
        assert execution.run(job, 2) == 1
        output = capsys.readouterr().out
        assert told in output and ("fifty lines" in output) == (ename == "KeyError")
