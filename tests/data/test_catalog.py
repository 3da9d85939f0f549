import os
import subprocess
import sys

import pytest

from lib import paths
from lib.data import catalog


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def own_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))


def test_data_root_is_that_of_the_environment_or_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "variable"))
    assert catalog.data_root() == (tmp_path / "variable").resolve()
    monkeypatch.delenv("DATA_ROOT")
    assert catalog.data_root() == paths.ROOT / "data"


def test_official_form_comes_before_folder(tmp_path):
    assert catalog.locate("cifar10") is None
    (tmp_path / "cifar10").mkdir()
    assert catalog.locate("cifar10") is None, "an empty folder is no data set"
    write(tmp_path / "cifar10/train/cat/0.png")
    assert catalog.locate("cifar10").kind == "folder"
    write(tmp_path / "cifar-10-python.tar.gz")
    assert catalog.locate("cifar10").kind == "archive"
    write(tmp_path / "cifar-10-batches-py/data_batch_1")
    assert catalog.locate("cifar10").kind == "official"


def test_celeba_is_official_with_the_list_of_its_parts(tmp_path):
    """Without the list, which keeps each person in one split, images are split like any folder."""
    write(tmp_path / "celeba/img_align_celeba/000001.jpg")
    assert catalog.locate("celeba").kind == "folder"
    write(tmp_path / "celeba" / catalog.CELEBA_LIST)
    assert catalog.locate("celeba").kind == "official"


@pytest.mark.parametrize("inside", ["", "esc50/"])
def test_esc50_unpacked_then_packed_then_folder(tmp_path, inside):
    assert catalog.locate("esc50") is None
    write(tmp_path / "esc50/dog/1-1-A.ogg")
    assert catalog.locate("esc50") == catalog.Source("folder", tmp_path.resolve() / "esc50")
    archive = write(tmp_path / f"{inside}ESC-50-master.zip")
    assert catalog.locate("esc50") == catalog.Source("archive", archive.resolve())
    unpacked = write(tmp_path / f"{inside}ESC-50-master/meta/esc50.csv").parent.parent
    assert catalog.locate("esc50") == catalog.Source("official", unpacked.resolve())


@pytest.mark.parametrize("name", ["shapes", "soundscapes"])
def test_built_in_sets(name):
    assert catalog.signature(name) == "built-in"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cifar10",
        "unknown",
        "folder:",
        "folder:nowhere",
        "../up",
        "a\0b",
        "folder:a\0b",
        "folder:~nobody/x",
    ],
)
def test_signature_of_what_is_not_there_is_absent(name):
    assert catalog.signature(name) == "absent"


def test_signature_follows_names_and_sizes_only(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "a"))
    first = write(tmp_path / "a/birds/cat/1.png", b"123")
    write(tmp_path / "a/birds/dog/2.png", b"1234")
    before = catalog.signature("folder:birds")
    assert len(before) == 64

    os.utime(first, (1, 1))
    write(tmp_path / "a/birds/.DS_Store", b"left behind")
    assert catalog.signature("folder:birds") == before
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "b"))
    assert catalog.signature("folder:birds") == before

    write(tmp_path / "b/birds/dog/2.png", b"12345")
    longer = catalog.signature("folder:birds")
    (tmp_path / "b/birds/dog/2.png").rename(tmp_path / "b/birds/dog/3.png")
    assert len({before, longer, catalog.signature("folder:birds")}) == 3


def test_signature_of_a_sound_folder_and_of_an_archive(tmp_path):
    write(tmp_path / "esc50/dog/1.ogg")
    write(tmp_path / "cifar-10-python.tar.gz", b"12")
    assert len(catalog.signature("esc50")) == 64
    assert len(catalog.signature("cifar10")) == 64


def test_scan_is_sorted_and_survives_a_circle_of_links(tmp_path):
    write(tmp_path / "b/2.png", b"12")
    write(tmp_path / "a.png", b"1")
    try:
        (tmp_path / "b/loop").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert [(file.name, file.size) for file in catalog.scan(tmp_path)] == [("a.png", 1), ("b/2.png", 2)]


def test_relative_folder_starts_at_the_data_root_then_at_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    assert catalog.folder_path("folder:birds") == tmp_path.resolve() / "birds"
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))
    assert catalog.folder_path("folder:birds") == paths.ROOT / "birds"
    assert catalog.folder_path(f"folder:{tmp_path}/birds") == tmp_path / "birds"


def test_import_is_free_of_torch():
    code = "import sys, lib.data.catalog; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".AppleDouble", "__MACOSX"],
)
def test_what_software_leaves_in_a_folder_is_not_data(tmp_path, name):
    for folder in ("bird", name, f"bird/{name}"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.jpg").touch()
    assert [file.name for file in catalog.scan(tmp_path)] == ["bird/1.jpg"]
    (tmp_path / "icon").mkdir()
    (tmp_path / "icon" / "1.jpg").touch()  # a class of the user's
    assert len(catalog.scan(tmp_path)) == 2
