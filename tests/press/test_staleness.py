"""Which notebooks of this repository an edit makes stale, by fingerprints before and after it in a copy."""

import functools
import json
import os
import shutil
from types import SimpleNamespace

import pytest

from lib import paths, sources
from lib.press import fingerprint, jobs, parameters, staleness

WITH_TRAINING = {f"0{number}" for number in range(1, 8)}
ALL = WITH_TRAINING | {"00"}
STATEMENT = "ONE = 1\n"


@pytest.mark.parametrize("lost", ["inputs", "reads", "outputs"])
def test_a_record_without_its_parts_is_a_reason_to_run_again(tmp_path, monkeypatch, lost):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    job = SimpleNamespace(name="quick/seed-0/03", parts={}, reads=())
    for path, content in ((jobs.made_from(job.name), {"inputs": {}, "reads": {}}), (jobs.executed(job.name), {}),
                          (jobs.record(job.name), {"outputs": {}})):  # fmt: skip
        jobs.write_atomically(path, json.dumps(content))
    assert staleness.reasons(job) == []
    path = jobs.record(job.name) if lost == "outputs" else jobs.made_from(job.name)
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != lost}))
    why = "its record is missing" if lost == "outputs" else "nothing is known about its last run"
    assert staleness.reasons(job) == [why]


def test_results_of_another_user_are_no_older_than_their_inputs(tmp_path, monkeypatch):
    """Only a file's owner may set its times freely; group members with write access can only set them to now."""
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    monkeypatch.setattr(staleness, "reasons", lambda job: [])
    made = jobs.executed("quick/03"), jobs.record("quick/03")
    for path in made:
        jobs.write_atomically(path, "{}")
        os.utime(path, (1, 1))
    utime = os.utime

    def owned(path, times=None, *, ns=None):
        if ns is not None:
            raise PermissionError(1, "Operation not permitted")
        utime(path, times)

    monkeypatch.setattr(os, "utime", owned)
    staleness.prepare(SimpleNamespace(name="quick/03", notebook="03", folder="quick", values={}, reads=(), parts={}))
    newest = jobs.inputs_file("quick/03").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns >= newest for path in made)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    for name in ("lib", "notebooks", "profiles"):
        shutil.copytree(paths.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (paths.LOCK, paths.CLAIMS):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name in ("NOTEBOOKS", "PROFILES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    for name in ("LOCK", "CLAIMS"):
        monkeypatch.setattr(paths, name, tmp_path / getattr(paths, name).name)
    return tmp_path


@pytest.fixture(autouse=True, scope="module")
def parsed_once():
    """Files that an edit leaves unchanged are not parsed again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "normalised", functools.cache(sources.normalised))
        yield


def fingerprints(profile):
    for cached in (sources.module_hash, parameters._load_profile, parameters._cells):
        cached.cache_clear()
    return {job.name: job.parts for job in jobs.select(profile, seeds="0")}


@pytest.fixture(scope="module")
def unchanged():
    return {profile: fingerprints(profile) for profile in ("quick", "trained")}


def cell_of(path, text):
    content = json.loads(path.read_text(encoding="utf-8"))
    (found,) = (cell for cell in content["cells"] if text in "".join(cell["source"]))
    return content, found


def edit(path, old, new):
    """Replace `old` in a file, or within the source of the one cell of a notebook that has it; append for ""."""
    if path.suffix != ".ipynb":
        text = path.read_text(encoding="utf-8")
        assert not old or text.count(old) == 1
        path.write_text(text.replace(old, new) if old else text + new, encoding="utf-8")
        return
    content, cell = cell_of(path, old)
    cell["source"] = "".join(cell["source"]).replace(old, new)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "old", "new", "profile", "stale"),
    [
        ("notebooks/04_emergency_whisper.ipynb", "**Question.**", "**A question.**", "quick", set()),
        ("notebooks/04_emergency_whisper.ipynb", "epochs = 12", "epochs = 13", "quick", {"04"}),
        ("notebooks/04_emergency_whisper.ipynb", "epochs = 12", "epochs = 13  # longer", "trained", set()),
        ("notebooks/04_emergency_whisper.ipynb", "step / 4", "step / 5", "quick", {"04"}),
        ("lib/emergency/whisper/defaults.py", "ratio_epochs = 2", "ratio_epochs = 3", "quick", {"04"}),
        ("lib/emergency/whisper/defaults.py", "ratio_epochs = 2", "ratio_epochs = 3", "trained", set()),
        ("lib/corregularization/losses.py", "", "# a comment\n", "quick", set()),
        ("lib/corregularization/losses.py", "", STATEMENT, "quick", {"03", "07", "00"}),
        ("lib/emergency/recogniser/alert.py", "", STATEMENT, "quick", {"06"}),
        ("lib/training.py", "", STATEMENT, "quick", WITH_TRAINING),
        ("lib/press/site.py", "", STATEMENT, "quick", set()),
        ("lib/press/parameters.py", "", STATEMENT, "quick", set()),  # whose values count by themselves
        ("lib/press/verify.py", "", STATEMENT, "quick", {"00"}),  # which lists the runs
        ("profiles/trained.yaml", "mixup: 0.2", "mixup: 0.3", "trained", {"05"}),
        ("profiles/trained.yaml", "seeds: [0]", "seeds: [0, 1]", "trained", set()),
        ("requirements.lock", "\ntorch==", "\ntorch== ", "quick", ALL),
        ("requirements.lock", "\ncaptum==", "\ncaptum== ", "quick", {"04", "05", "06"}),
        ("requirements.lock", "\nfaiss-cpu==", "\nfaiss-cpu== ", "quick", {"02"}),
        ("requirements.lock", "\njupyterlab==", "\njupyterlab== ", "quick", set()),
    ],
)
def test_an_edit_makes_stale_what_depends_on_it(unchanged, copy, path, old, new, profile, stale):
    edit(copy / path, old, new)
    before, after = unchanged[profile], fingerprints(profile)
    assert before.keys() == after.keys()
    assert {name.split("/")[-1][:2] for name in before if before[name] != after[name]} == stale


def test_no_training_depends_on_how_figures_are_drawn():
    sources_of = {".".join(path.relative_to(paths.ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
                  for path in (paths.ROOT / "lib").rglob("*.py")}  # fmt: skip
    trainings = [
        name for name, text in sources_of.items() if "code=__name__" in text or "source_hash(__name__)" in text
    ]
    assert {"lib.laplacian_gan.training", "lib.categorical.training", "lib.corregularization.training",
            "lib.emergency.cnn.network", "lib.emergency.whisper.training"} <= set(trainings)  # fmt: skip
    for name in trainings:
        assert not [other for other in sources.closure(name) if other.endswith((".figures", ".plots", ".pictures"))]
        assert not {"matplotlib", "seaborn"} & sources.imported_packages(name)


def test_the_trainings_of_profile_gpu_ask_a_cluster_for_one():
    asked = {job.notebook[:2]: (job.resources["gpus"], job.resources["memory_gb"]) for job in jobs.select("gpu")}
    assert asked == (dict.fromkeys(("01", "02", "03"), (1, 32)) | dict.fromkeys(("04", "05"), (1, 16))
                     | dict.fromkeys(("00", "06", "07"), (0, 4)))  # fmt: skip


def test_a_byte_of_data(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    image = tmp_path / "data" / "cifar10" / "train" / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    fingerprint._signature.cache_clear()
    before = fingerprints("public")
    image.write_bytes(b"xy")
    fingerprint._signature.cache_clear()
    after = fingerprints("public")
    stale = {name.split("/")[-1] for name in before if before[name] != after[name]}
    on_images = {"01_laplacian_gan", "02_categorical_similarity", "03_corregularization"}
    assert on_images <= stale and all(after[name]["notebook"] == before[name]["notebook"] for name in before)
    assert not [name for name in stale if name.startswith(("04", "05", "06"))]


@pytest.mark.parametrize("content", ["[]", "<<<<<<< HEAD\n{}"])
def test_what_an_earlier_run_left_damaged_is_a_reason_to_run(tmp_path, monkeypatch, content):
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    for path in (jobs.record("quick/01_study"), jobs.made_from("quick/01_study"), jobs.executed("quick/01_study")):
        jobs.write_atomically(path, content)
    assert staleness.damage("quick/01_study") == ["its record is missing"]
    assert staleness.reasons(SimpleNamespace(name="quick/01_study")) == ["nothing is known about its last run"]
