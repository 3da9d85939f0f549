"""Kill `make figures` by `kill -9` at random moments, restart it, and check the files it leaves.

    python benchmarks/kills.py                        50 kills over all notebooks of the smoke profile: some hours
    python benchmarks/kills.py --kills 10 --only "03_corregularization 00_overview"

An undisturbed run comes first: the times of the kills are drawn within its duration, and its results must be
reproduced. After each kill of the whole process group, every file must be complete and every CSV as in that run,
finished work must stay finished, no training may fall back, and all processes must end within seconds. After every
other kill, the next run starts at once, while old processes may still be ending, and files are not checked. A run that
ends before its kill is compared as a whole and started anew. Exits with 1 on a fault.
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ["milliseconds", "relative", "share"]  # columns that hold times
PATIENCE = 30  # seconds within which all processes must end
MARK = "START_OF_KILLS"  # set in the environment of all processes of one start, whatever their session


class Fault(Exception):
    """A guarantee that did not survive a kill; the message says which and where."""


class Victim:
    """`make figures …` in the repository `root`, with its output in `folder`."""

    def __init__(self, root: Path, folder: Path, arguments: list[str], environment: dict[str, str]):
        self.root, self.folder, self.command = root, folder, ["make", "figures", *arguments]
        self.environment = environment | {"OUTPUT_ROOT": str(folder), "TMPDIR": str(folder.parent)}

    def start(self) -> None:
        self.begin = time.time()
        self.mark = str(self.begin)
        self.folder.mkdir(exist_ok=True)
        with Path(self.folder, "make.log").open("w") as log:
            self.process = subprocess.Popen(self.command, cwd=self.root, env=self.environment | {MARK: self.mark},
                                            stdout=log, stderr=log, start_new_session=True)  # fmt: skip

    def ends_within(self, seconds: float | None) -> bool:
        """Return whether it ends within `seconds`; raise Fault if it fails."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if status:
            raise Fault(f"it failed by itself ({status}): {Path(self.folder, 'make.log').read_text()[-3000:]}")
        return True

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def kill(self) -> tuple[float, float]:
        """Kill it; return the seconds since its start, and those lost: since it last wrote a complete file."""
        self.stop()
        now = time.time()
        times = [path.stat().st_mtime for path in whole_files(self.folder) if path.suffix != ".log"]
        return now - self.begin, now - max([self.begin, *times])


def until_gone(mark: str) -> float:
    """Wait until no process of the start with this mark is left, and return the seconds that took."""
    begin = time.time()
    while left := [process for process in psutil.process_iter() if _mark(process) == mark]:
        if time.time() - begin > PATIENCE:
            raise Fault(f"processes are left after {PATIENCE} s: {[process.as_dict(['cmdline']) for process in left]}")
        time.sleep(0.1)
    return time.time() - begin


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # it has ended, or belongs to another user
        return None


def whole_files(folder: Path) -> Iterator[Path]:
    """Yield the files that must be complete: neither hidden nor named partial, nor copies of running notebooks."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(p.startswith(".") or p.endswith("partial") or p == "running" for p in parts):
            yield path


def examine(folder: Path) -> None:
    """Raise Fault if a file cannot be read to its end, or does not match its record."""
    for path in whole_files(folder):
        hashes: dict[str, str | None] = {}
        try:
            if path.suffix in (".json", ".ipynb"):
                content = json.loads(path.read_text(encoding="utf-8"))
                if path.is_relative_to(folder / "figures") and "outputs" in content:
                    for name, output in content["outputs"].items():
                        hashes |= {f"{name}.json": None, **output["files"]}
            elif path.suffix == ".png":
                Image.open(path).load()
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix in (".npz", ".bin", ".pkl") and (bad := zipfile.ZipFile(path).testzip()):
                raise ValueError(bad)
        except Exception as error:  # each file type raises its own
            raise Fault(f"{path} is not whole: {type(error).__name__}: {error}") from error
        for name, expected in hashes.items():
            other = path.parent / name
            if not other.exists() or (expected and hashlib.sha256(other.read_bytes()).hexdigest() != expected):
                raise Fault(f"{other} does not match {path.name}")


def compare(folder: Path, undisturbed: Path, complete: bool = False) -> None:
    """Raise Fault if a CSV file, times aside, is not that of the undisturbed run, or a `complete` run lacks one."""
    mine, others = ({path.relative_to(root): path for path in root.glob("figures/**/*.csv")}
                    for root in (folder, undisturbed))  # fmt: skip
    if odd := mine.keys() ^ others.keys() if complete else mine.keys() - others.keys():
        raise Fault(f"these are not in both: {', '.join(map(str, odd))}")
    for name, path in mine.items():
        if _without_times(path) != _without_times(others[name]):
            raise Fault(f"{path} differs from that of the undisturbed run")


def _without_times(path: Path) -> bytes:
    content = path.read_bytes()
    frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    return frame.drop(columns=MEASURED, errors="ignore").to_csv().encode() if set(MEASURED) & set(frame) else content


def progress(folder: Path) -> dict[str, int]:
    """Return the last epoch of each training run, and 1 for each finished notebook."""
    found = {str(path.relative_to(folder)): 1 for path in folder.glob("build/executed/**/*.ipynb")}
    for path in folder.glob("build/checkpoints/**/epoch-*"):
        training = str(path.parent.relative_to(folder))
        found[training] = max(found.get(training, 0), int(path.name.removeprefix("epoch-")))
    return found


def kill_repeatedly(victim: Victim, kills: int, seed: int) -> None:
    """Kill it `kills` times, then let it finish. Raises Fault."""
    chance, undisturbed = random.Random(seed), victim.folder.with_name("undisturbed")
    reached: dict[str, int] = {}
    finished, losses = 0, []

    def end() -> None:
        nonlocal finished
        until_gone(victim.mark)
        examine(victim.folder)
        compare(victim.folder, undisturbed, complete=True)
        shutil.rmtree(victim.folder)
        finished += 1
        reached.clear()

    victim.start()
    victim.ends_within(None)
    whole = time.time() - victim.begin
    shutil.copytree(victim.folder / "figures", undisturbed / "figures")
    end()
    print(f"undisturbed: {whole:.0f} s", flush=True)
    moments = [(number + chance.random()) / kills for number in range(kills)]  # shares of its duration
    chance.shuffle(moments)
    victim.start()
    anew = True
    for number, moment in enumerate(moments, start=1):
        while victim.ends_within(max(0, victim.begin + moment * whole - time.time())):
            if anew:  # faster than the first run, perhaps as the machine is less busy
                whole = 0.95 * (time.time() - victim.begin)
            end()
            victim.start()
            anew = True
        anew = False
        since, lost = victim.kill()
        losses.append(lost)
        mark, line = victim.mark, f"kill {number}, {since:.0f} s after a start: {lost:.1f} s lost"
        if number % 2:
            victim.start()
        gone = until_gone(mark)
        if number % 2 == 0:
            now = progress(victim.folder)
            if back := [name for name in reached if now.get(name, 0) < reached[name]]:
                raise Fault(f"{', '.join(back)} went back from {reached} to {now}")
            reached |= now
            examine(victim.folder)
            compare(victim.folder, undisturbed)
            notebooks = sum("executed" in name for name in now)
            line += f", {notebooks} notebooks and {sum(now.values()) - notebooks} epochs are kept"
            victim.start()
        print(f"{line}; all ended within {gone:.1f} s", flush=True)
    victim.ends_within(None)
    end()
    print(f"No fault in {kills} kills and {finished} finished runs. A kill lost {statistics.median(losses):.1f} s in "
          f"the median and {max(losses):.1f} s at most.")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of notebooks; default: all")
    options = parser.parse_args(arguments)
    folder, settings = Path(tempfile.mkdtemp(prefix="kills-")), ["PROFILE=smoke", f"ONLY={options.only}"]
    victim = Victim(ROOT, folder / "output", settings, os.environ | {"VIRTUAL_ENV": sys.prefix})
    try:
        kill_repeatedly(victim, options.kills, options.seed)
    except Fault as fault:
        print(f"FAULT: {fault}\nAll files are kept in {folder}")
        return 1
    finally:
        victim.stop()
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
