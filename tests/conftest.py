"""Fixtures for all tests."""

import os
import shutil

# Before torch is imported anywhere. The tests' tensors are tiny, and threads that wait for each other in a
# spin take minutes where the machine is shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from toy import Repository, make_toy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest first, so that nobody waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(scope="session")
def built_toy(tmp_path_factory) -> tuple[Repository, str]:
    """A toy repository after its first `make figures`, and what that printed. Not to be changed."""
    repository = make_toy(tmp_path_factory.mktemp("toy") / "built")
    return repository, repository.make("figures")


@pytest.fixture
def toy(built_toy, tmp_path) -> Repository:
    """A built toy repository of one's own, in which everything is up to date."""
    shutil.copytree(built_toy[0].folder, tmp_path / "a repository")
    return Repository(tmp_path / "a repository")


@pytest.fixture
def fresh_toy(tmp_path) -> Repository:
    """A toy repository in which nothing has been run."""
    return make_toy(tmp_path / "a repository")
