"""The notebooks of the profile `gpu` side by side on one GPU, within a given time: called by benchmarks/gpu.sh.

First the training steps are timed alone, against the classic DCGAN example on the same card. Then the notebooks start
together, each in its own process with its share of the cores, and after those whose results it reads; a GPU that one
small network leaves idle serves the others. At the end of the time what still runs is stopped. What finished is
complete; of the rest the histories of its trainings are kept, and a second call on the same machine goes on from its
checkpoints. The other studies: `--only "03_corregularization 04_emergency_whisper"`, and so on.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from lib import paths
from lib.press import jobs, staleness
from lib.press.workflow import available_cores

NOTEBOOKS = "01_laplacian_gan 02_categorical_similarity"
PART = 15 * 2**20  # bytes of a part
STOPPING = 20  # seconds for stopping and packing


def steps(device: str, rounds: int, width: int = 64) -> list[dict]:
    """Milliseconds of one training step, alone on the device: the classic DCGAN example and ours."""
    from classic import classic_step

    from lib.laplacian_gan.arms import DCGAN, PYRAMID
    from lib.laplacian_gan.cost import our_step
    from lib.laplacian_gan.models import Discriminator, Generator

    real = torch.rand(64, 3, 32, 32, device=device) * 2 - 1
    latent = torch.randn(64, 100, device=device)
    parts = [part.to(device) for part in (Generator(32, width=width), Discriminator(32, width=width))]
    classic = classic_step(*parts, [torch.optim.AdamW(part.parameters(), 2e-4) for part in parts])
    timed = {"classic DCGAN example, float32": lambda: classic(real, latent)}
    for arm in (DCGAN, PYRAMID):
        for precision in ("no", "bf16"):
            ours = our_step(32, width, precision, arm, device)
            name = f"ours, {arm.label}, {'float32' if precision == 'no' else precision}"
            timed[name] = lambda ours=ours: ours(real)
    rows = []
    for name, step in timed.items():
        for _ in range(10):
            step()
        _wait(device)
        begin = time.perf_counter()
        for _ in range(rounds):
            step()
        _wait(device)
        milliseconds = 1000 * (time.perf_counter() - begin) / rounds
        rows.append(
            {
                "step": name,
                "width": width,
                "batch": 64,
                "milliseconds": milliseconds,
                "images_per_second": 64e3 / milliseconds,
            }
        )
        print(f"{name}: {milliseconds:.2f} ms", flush=True)
    return rows


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def run(selected: list[jobs.Job], deadline: float, out: Path) -> None:
    """All jobs, each once those that it reads are done; what runs at the deadline (of time.monotonic) is stopped."""
    threads = max(1, available_cores() // len(selected))
    begin, waiting, running, ended = time.monotonic(), {job.name: job for job in selected}, {}, {}
    while (waiting or running) and time.monotonic() < deadline:
        for name in [name for name, job in waiting.items() if not {*waiting, *running}.intersection(job.reads)]:
            job = waiting.pop(name)
            if failed := [other for other in job.reads if ended.get(other)]:
                print(f"{name}: not run, as {', '.join(failed)} failed", flush=True)
                ended[name] = 1
                continue
            staleness.prepare(job)
            command = [sys.executable, "-m", "lib.press.workflow", "run", name, "--threads", str(threads)]
            log = (out / f"{name.replace('/', '-')}.log").open("w")
            # A session of its own: a notebook's kernel and the processes of its trainings are stopped with it.
            running[name] = subprocess.Popen(command, cwd=paths.ROOT, stdout=log, stderr=log, start_new_session=True)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            ended[name] = running.pop(name).returncode
            print(f"{name}: {'FAILED' if ended[name] else 'done'} after {time.monotonic() - begin:.0f} s", flush=True)
        time.sleep(0.5)
    for name in waiting:
        print(f"{name}: not reached", flush=True)
    for name, process in running.items():
        print(f"{name}: stopped by the clock", flush=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        record_stopped(name, round(time.monotonic() - begin))


def record_stopped(job: str, seconds: int) -> None:
    """A record of what a run had saved when it was stopped; it says so, and `make verify` does."""
    path = jobs.record(job)
    sidecars = [json.loads(file.read_text()) for file in sorted(path.parent.glob("*.json"))]
    saved = [one for one in sidecars if one.get("provenance", {}).get("notebook") == path.stem]
    if saved:
        latest = max(saved, key=lambda one: one["provenance"]["made"])["provenance"]
        record = {name: latest[name] for name in ("notebook", "inputs", "parameters", "data")}
        outputs = {one["id"]: {"kind": one["kind"], "files": one["provenance"]["files"]} for one in saved}
        record |= {"outputs": outputs, "stopped": f"by the clock, after {seconds} s"}
        jobs.write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def pack(files: Iterable[Path], out: Path) -> None:
    """`files`, which lie below the output folder, into out/part-<n>.tar.gz of at most PART bytes each."""
    parts: list[list[Path]] = [[]]
    size = 0
    for file in sorted(files):
        if size + file.stat().st_size > PART and parts[-1]:
            parts.append([])
            size = 0
        size += file.stat().st_size
        parts[-1].append(file)
    for number, members in enumerate(parts):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for file in members:
                archive.add(file, file.relative_to(paths.output_root()))
        (out / f"part-{number}.tar.gz").write_bytes(buffer.getvalue())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sh benchmarks/gpu.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=540, help="time for everything, packing included")
    parser.add_argument("--data", type=Path, help="an archive with the image folder cifar10/{train,test}/<class>")
    parser.add_argument("--out", type=Path, default=paths.build() / "gpu")
    parser.add_argument("--profile", default="gpu")
    parser.add_argument("--only", default=NOTEBOOKS, help="names of notebooks, those of the longest runs last")
    parser.add_argument("--rehearse", action="store_true", help="every stage at the size of the profile smoke")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.seconds - STOPPING
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.rehearse:
        parser.error("torch sees no GPU; --rehearse runs every stage without one")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data is not None:
        with tarfile.open(options.data) as archive:
            archive.extractall(paths.data_root())
    profile = "smoke" if options.rehearse else options.profile
    selected = jobs.select(profile, only=options.only)
    about = {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU", "torch": torch.__version__}
    about["steps"] = steps(device, *(2, 4) if options.rehearse else (300, 64))
    (options.out / "steps.json").write_text(json.dumps(about, indent=1) + "\n")
    run(selected, deadline, options.out)
    folder = selected[0].folder
    files = [path for path in (paths.figures() / folder).rglob("*") if path.is_file()]
    files += [path for path in (paths.build() / "checkpoints" / folder).rglob("history.json")]
    files += [
        path for place in ("executed", "failed", "inputs") for path in (paths.build() / place / folder).rglob("*.*")
    ]
    pack(files, options.out)
    done = [job.name for job in selected if jobs.executed(job.name).exists()]
    print(f"{len(done)} of {len(selected)} notebook runs are complete; results are in {options.out}")
    return 0 if len(done) == len(selected) else 1


if __name__ == "__main__":
    sys.exit(main())
