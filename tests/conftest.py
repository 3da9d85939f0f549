"""Fixtures for all tests."""

import io
import os
import shutil
import sys
import warnings
from pathlib import Path

# Set before torch is imported anywhere. The tests' tensors are tiny, and on a shared machine threads that
# busy-wait for each other take minutes.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from toy import Repository, make_toy

FOLDER = Path(__file__).parent

# Test files that take seven seconds or more on two cores, longest first. `make check` skips them.
SLOW = [
    "test_notebooks",
    "press/test_workflow",
    "test_gpu",
    "test_kills",
    "test_contributing",
    "emergency/synthesis/test_soundscapes",
    "test_binder",
    "press/test_disk",
    "laplacian_gan/test_evaluation",
    "press/test_run",
    "emergency/recogniser/test_recogniser",
    "test_forking",
    "press/test_site",
    "corregularization/test_losses",
    "emergency/whisper/test_experiments",
    "corregularization/test_figures",
    "categorical/test_training",
    "press/test_verify",
    "emergency/whisper/test_training",
    "test_benchmarks",
    "test_training",
    "corregularization/test_training",
    "categorical/test_evaluation",
    "metrics/test_features",
    "emergency/recogniser/test_voting",
    "emergency/whisper/test_model",
    "emergency/cnn/test_network",
    "press/test_paper",
    "corregularization/test_packing",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow files first, so that none is left for the end."""
    files = [FOLDER / f"{name}.py" for name in SLOW]
    items.sort(key=lambda item: files.index(item.path) if item.path in files else len(files))
    for item in items:
        if item.path in files:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def one_thread():
    """Reset torch to one thread after a test that gave it more."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def drawn():
    """A function that draws a figure, with warnings as errors, and returns the PNG's bytes."""
    from matplotlib import pyplot as plt

    from lib import plots

    def draw(figure):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plots.arrange(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=40)
        plt.close(figure)
        return buffer.getvalue()

    plots.use_style()
    yield draw
    plt.close("all")


@pytest.fixture(scope="session")
def built_toy(tmp_path_factory) -> tuple[Repository, str]:
    """A toy repository after its first `make figures`, and what that printed. Shared by tests: do not change it."""
    repository = make_toy(tmp_path_factory.mktemp("toy") / "논문 a {b} {c")  # no character is special
    return repository, repository.make("figures")


@pytest.fixture
def toy(built_toy, tmp_path) -> Repository:
    """A copy of the built toy repository for one test; everything in it is up to date."""
    shutil.copytree(built_toy[0].folder, tmp_path / "a repository")
    return Repository(tmp_path / "a repository")


@pytest.fixture
def fresh_toy(tmp_path) -> Repository:
    """A toy repository in which nothing has been run."""
    return make_toy(tmp_path / "a repository")


@pytest.fixture(scope="module")  # its event loop would interfere with tests of other modules
def browser():
    """Headless Chromium; without it, the test is skipped with a message that says how to install it."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with api.sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no browser: install Chromium (Debian: apt-get install chromium; or `playwright install "
                        "chromium`), or set CHROMIUM to the path of one")  # fmt: skip
        quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()
