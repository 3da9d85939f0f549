"""What changes a fingerprint and what does not."""

import json
import sys
from textwrap import dedent

import grimp
import pytest
from toy import notebook

from lib import paths, sources
from lib.press import fingerprint, parameters


def inputs(name, profile, overrides=None, seed=None):
    values = parameters.resolve(name, profile, overrides)
    return fingerprint.parts_of(name, values if seed is None else values | {"seed": seed})


MODULES = {
    "lib/__init__.py": "",
    "lib/study/__init__.py": "",
    "lib/study/losses.py": '''
        """The losses."""
        import lib.shared


        class Loss:
            """One."""

            weight = 1  # of the loss

            def value(self):
                return self.weight


        def late():
            from lib.deep import nested
    ''',
    "lib/shared.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib.types\nX = 1\n",
    "lib/types.py": "",
    "lib/deep/__init__.py": "import lib.helper",
    "lib/deep/nested.py": "",
    "lib/helper.py": "import os\nfrom PIL import Image",
    "lib/other.py": "",
}
PINS = """\
# a comment
jupyterlab==4   # via study (pyproject.toml)
numpy==2        # via pillow, scipy, study (pyproject.toml)
pillow==11 ; python_version < '3.12'  # via study (pyproject.toml)
pillow==12 ; python_version >= '3.12'  # via study (pyproject.toml)
sympy==1        # via torch
torch==2        # via study (pyproject.toml)
"""
CELLS = [
    "seed = 0\nprofile = 'quick'\nepochs = 2",
    "import numpy as np\nfrom lib.study import losses",
    "print(losses.Loss())",
]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small `lib` and a notebook in place of the real ones."""
    for name, source in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(source).lstrip())
    (tmp_path / "03_study.ipynb").write_text(notebook(CELLS))
    (tmp_path / "quick.yaml").touch()
    (tmp_path / "lock").write_text(PINS)
    for name, path in {"ROOT": "", "NOTEBOOKS": "", "PROFILES": "", "LOCK": "lock", "CLAIMS": "claims"}.items():
        monkeypatch.setattr(paths, name, tmp_path / path)
    # The real lib is imported already, and grimp finds a package where Python does.
    monkeypatch.setattr(sources, "import_graph", lambda: _graph_of(tmp_path))
    monkeypatch.setattr(sources, "module_hash", sources.module_hash.__wrapped__)
    monkeypatch.setattr(parameters, "_load_profile", parameters._load_profile.__wrapped__)
    return tmp_path


def _graph_of(folder):
    own = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "lib"}
    sys.path.insert(0, str(folder))
    try:
        return grimp.build_graph(
            "lib", cache_dir=None, exclude_type_checking_imports=True, include_external_packages=True
        )
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "lib"]:
            del sys.modules[name]
        sys.modules.update(own)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_closure_holds_all_that_is_executed(repository):
    assert sources.closure("lib.study.losses") == [
        "lib",
        "lib.deep",  # the package of a module that is imported inside a function
        "lib.deep.nested",
        "lib.helper",  # imported by that package
        "lib.shared",
        "lib.study",
        "lib.study.losses",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""The losses."""', '"""The losses of the study."""'),
        ('    """One."""\n\n', ""),
        ("# of the loss", "# of this loss"),
        ("weight = 1 ", "weight   =   1 "),
        ("return self.weight", "return (self.weight)"),
    ],
    ids=["docstring", "without docstring", "comment", "spaces", "brackets"],
)
def test_explaining_changes_nothing(repository, old, new):
    before = sources.source_hash("lib.study.losses")
    edit(repository / "lib/study/losses.py", old, new)
    assert sources.source_hash("lib.study.losses") == before


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("lib/study/losses.py", "weight = 1", "weight = 2"),
        ("lib/study/losses.py", "return self.weight", 'return "a string"'),
        ("lib/shared.py", "X = 1", "X = 1.0"),
        ("lib/deep/__init__.py", "import lib.helper", "import lib.helper\nx = 1"),
    ],
)
def test_code_counts_at_any_depth(repository, path, old, new):
    before = sources.source_hash("lib.study.losses")
    edit(repository / path, old, new)
    assert sources.source_hash("lib.study.losses") != before


def test_other_modules_do_not_count(repository):
    before = sources.source_hash("lib.study.losses")
    (repository / "lib/other.py").write_text("x = 1")
    (repository / "lib/types.py").write_text("x = 1")  # for the type checker alone
    assert sources.source_hash("lib.study.losses") == before


def test_unknown_modules_are_errors(repository):
    with pytest.raises(ImportError, match="lib.nowhere"):
        sources.source_hash("lib.nowhere")


@pytest.mark.parametrize(
    "line",
    [
        "import lib.study.losses",
        "import lib.study.losses as losses",
        "from lib.study import losses",
        "from lib.study.losses import Loss",
        "%matplotlib inline\nfrom lib.study import losses",
        "if True:\n    from lib.study import losses",
    ],
)
def test_all_forms_of_import_are_seen(repository, line):
    (repository / "03_study.ipynb").write_text(notebook([CELLS[0], line]))
    assert "lib.study.losses" in fingerprint.imports("03_study")


def test_a_notebook_is_what_its_cells_say(repository):
    path = repository / "03_study.ipynb"
    before = fingerprint.notebook_hash("03_study")
    content = json.loads(path.read_text())
    content["cells"][2] |= {"execution_count": 3, "outputs": [{"output_type": "stream", "text": "3"}]}
    content["cells"][2]["metadata"]["tags"] = ["keep_output"]
    content["cells"][2]["source"] = ["# what it is\n", "print( losses.Loss() )"]
    content["metadata"]["language_info"] = {"version": "3.14"}
    path.write_text(json.dumps(content))
    assert fingerprint.notebook_hash("03_study") == before
    content["cells"][2]["source"] = ["print(losses.Loss)"]
    path.write_text(json.dumps(content))
    assert fingerprint.notebook_hash("03_study") != before


def test_a_default_counts_unless_it_is_overridden(repository):
    plain, overridden = inputs("03_study", "quick"), inputs("03_study", "quick", {"epochs": 5})
    edit(repository / "03_study.ipynb", "epochs = 2", "epochs = 3  # of the training")
    parameters._cells.cache_clear()
    changed = {name for name, value in inputs("03_study", "quick").items() if plain[name] != value}
    assert changed == {"parameter epochs"}
    assert inputs("03_study", "quick", {"epochs": 5}) == overridden


def test_inputs_name_every_part(repository):
    parts = inputs("03_study", "quick", {"epochs": 5}, seed=3)
    assert parts["parameter epochs"] == "5" and parts["parameter seed"] == "3"
    assert {"notebook", "package numpy", "Python version", "module lib.helper", "parameter profile"} <= set(parts)
    assert "module lib.other" not in parts and not [part for part in parts if part.startswith("data")]
    assert all(isinstance(value, str) for value in parts.values())


def test_the_data_counts_by_its_names_and_sizes(repository, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    dataset = f"folder:{images}"
    values = {"dataset": dataset}
    seen = []
    for size in (0, 1, 1, 2):
        if size:
            (images / "a.png").write_bytes(b"x" * size)
        fingerprint._signature.cache_clear()
        seen.append(fingerprint.data_parts(values)[f"data {dataset}"])
    assert seen[1] == seen[2] and len(set(seen)) == 3
    assert fingerprint.data_parts({"dataset": "shapes"}) == {"data shapes": "built-in"}


def test_all_data_that_are_named_count_where_they_are(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    fingerprint._signature.cache_clear()
    for folder in ("esc50/dog", "aihub-controls/indoor", "whisper-base", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.wav").write_bytes(b"1234")

    def parts(**values) -> dict[str, bool]:
        """For each data set that counts, whether it is present."""
        return {name: len(state) == 64 for name, state in fingerprint.data_parts(values).items()}

    assert parts(dataset="soundscapes-recorded", transfer="soundscapes") == {"data soundscapes-recorded": True}
    assert parts(dataset="soundscapes", transfer="soundscapes-recorded", checkpoint="whisper-base") == {
        "data soundscapes": False, "data soundscapes-recorded": True, "data folder:whisper-base": True}  # fmt: skip
    assert parts(dataset="aihub-strict") == {"data aihub-strict": False, "data aihub-controls": True}
    assert parts(dataset="soundscapes", recorded_count=9) == {"data soundscapes": False, "data esc50": True}
    assert parts(dataset="soundscapes", recorded_count=0, checkpoint="openai/whisper-small") == {
        "data soundscapes": False}  # fmt: skip
    assert parts(dataset="shapes", more_datasets=["folder:mine", "folder:gone"]) == {
        "data shapes": False, "data folder:mine": True}  # fmt: skip
    fingerprint._signature.cache_clear()


def test_the_claims_of_the_source_are_part_of_what_reads_them(repository):
    (repository / "claims").write_text("claims: []")
    before = inputs("03_study", "quick")
    assert "the source's claims" not in before
    (repository / "lib" / "press").mkdir()
    for name in ("__init__", "claims"):
        (repository / "lib" / "press" / f"{name}.py").touch()
    edit(repository / "03_study.ipynb", "import numpy as np", "import numpy as np\\nfrom lib.press import claims")
    reads = inputs("03_study", "quick")
    (repository / "claims").write_text("claims: [1]")
    changed = inputs("03_study", "quick")
    assert {name for name in changed if changed[name] != reads[name]} == {"the source's claims"}


def test_packages_count_where_they_are_imported_at_any_depth(repository):
    def packages():
        return {name: pins for name, pins in inputs("03_study", "quick").items() if name.startswith("package ")}

    pillow = "pillow==11 ; python_version < '3.12' or pillow==12 ; python_version >= '3.12'"
    assert packages() == {"package numpy": "numpy==2", "package pillow": pillow}
    edit(repository / "03_study.ipynb", "import numpy as np", "import torch.nn, tqdm")
    assert packages() == {  # numpy because pillow needs it (here), sympy because torch does
        "package numpy": "numpy==2",
        "package pillow": pillow,
        "package sympy": "sympy==1",
        "package torch": "torch==2",
    }


def test_the_lock_names_every_package_that_lib_imports():
    every = sources.imported_packages(*(name for name in sources.import_graph().modules if name.startswith("lib")))
    known = fingerprint.locked(map(fingerprint.package_of, every))
    own = {name for name in every if name not in sys.stdlib_module_names}
    assert own and {fingerprint.package_of(name) for name in own} <= set(known)
