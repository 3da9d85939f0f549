"""Run the notebooks of the profile `gpu` in parallel on one GPU, within a given time; called by benchmarks/gpu.sh.

First the training steps are timed alone, against the classic DCGAN example on the same card. Then all notebooks start
at once, except that each waits for those whose results it reads; each has its own process and its share of the cores,
so that a GPU left idle by one small network serves the others. When the time is up, whatever still runs is stopped.
Finished notebooks keep all results, the others their training histories, and a second call on the same machine resumes
from their checkpoints. For other studies: `--only "03_corregularization 04_emergency_whisper"`, and so on.
"""

import argparse
import contextlib
import glob
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil  # installed with accelerate
import torch
from joblib import cpu_count  # respects container quotas

from lib import paths
from lib.press import jobs, staleness

NOTEBOOKS = "01_laplacian_gan 02_categorical_similarity"
PART = 15 * 2**20  # bytes of a part, before compression
MOST = 8, 16 * 2**20  # largest number of parts, and largest size of each in bytes
STOPPING = 20  # seconds for stopping and packing


def steps(device: str, rounds: int, width: int = 64) -> list[dict]:
    """Measure the milliseconds of one training step, alone on the device: the classic DCGAN example and ours."""
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


def run(selected: list[jobs.Job], deadline: float, logs: Path) -> dict[str, float]:
    """Run all jobs, each after those that it reads; whatever runs at the deadline (of time.monotonic) is stopped.

    Returns, for each checkpoint of an epoch, the seconds since the start at which it was first seen.
    """
    threads = max(1, cpu_count() // len(selected))
    begin, waiting, running, ended = time.monotonic(), {job.name: job for job in selected}, {}, {}
    since, clock, old = {}, {}, epochs(selected[0].folder)
    try:
        while (waiting or running) and time.monotonic() < deadline:
            for name in [name for name, job in waiting.items() if not {*waiting, *running}.intersection(job.reads)]:
                job = waiting.pop(name)
                if failed := [other for other in job.reads if ended.get(other)]:
                    print(f"{name}: not run, as {', '.join(failed)} failed", flush=True)
                    ended[name] = 1
                    continue
                staleness.prepare(job)
                command = [sys.executable, "-m", "lib.press.workflow", "run", name, "--threads", str(threads)]
                log = (logs / f"{name.replace('/', '-')}.log").open("w")
                since[name] = datetime.now(UTC).isoformat(timespec="seconds")
                running[name] = subprocess.Popen(command, cwd=paths.ROOT, stdout=log, stderr=log)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                ended[name] = running.pop(name).returncode
                what = "FAILED" if ended[name] else "done"
                print(f"{name}: {what} after {time.monotonic() - begin:.0f} s", flush=True)
            new = epochs(selected[0].folder) - old - clock.keys()
            clock |= dict.fromkeys(sorted(new), round(time.monotonic() - begin, 1))
            time.sleep(0.5)
    finally:
        stop(running.values())
    for name in waiting:
        print(f"{name}: not reached", flush=True)
    for name in running:
        print(f"{name}: stopped at the time limit", flush=True)
        record_stopped(name, round(time.monotonic() - begin), since[name])
    return clock


def epochs(folder: str) -> set[str]:
    """Return the checkpoints of whole epochs. Uses `glob`, as Path.rglob fails if a folder vanishes meanwhile."""
    return set(glob.glob("**/epoch-[0-9]*", root_dir=paths.build() / "checkpoints" / folder, recursive=True))


def stop(processes: Iterable[subprocess.Popen]) -> None:
    """Kill the processes with everything they started, and wait until all are gone, since they write checkpoints.

    Neither process groups nor sessions identify these, as kernels and training processes start their own.
    """
    families = [one for process in processes for one in _halted(process.pid)]
    for one in families:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    limit = time.monotonic() + STOPPING / 2
    while any(map(_alive, families)) and time.monotonic() < limit:
        time.sleep(0.05)


def _halted(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants, each suspended before its children are listed, so it starts no more."""
    try:
        process = psutil.Process(pid)
        process.suspend()
        return [process, *(one for child in process.children() for one in _halted(child.pid))]
    except psutil.NoSuchProcess:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def record_stopped(job: str, seconds: int, since: str) -> None:
    """Write a record of what a run had saved when it was stopped; the record and `make verify` say that it was.

    since: when it started, in the format of a sidecar's `made`; older results in its folder are of an earlier run.
    """
    path = jobs.record(job)
    sidecars = [json.loads(file.read_text()) for file in sorted(path.parent.glob("*.json"))]
    saved = [one for one in sidecars if one.get("provenance", {}).get("notebook") == path.stem]
    if saved := [one for one in saved if one["provenance"]["made"] >= since]:
        latest = max(saved, key=lambda one: one["provenance"]["made"])["provenance"]
        record = {name: latest[name] for name in ("notebook", "inputs", "parameters", "data")}
        outputs = {one["id"]: {"kind": one["kind"], "files": one["provenance"]["files"]} for one in saved}
        record |= {"outputs": outputs, "stopped": f"at the time limit, after {seconds} s"}
        jobs.write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def pack(files: Iterable[Path], out: Path) -> None:
    """Pack `files` (below the output folder) into out/part-<n>.tar.gz, without those that vanish meanwhile."""
    for old in out.glob("part-*.tar.gz"):
        old.unlink()
    parts: list[list[Path]] = [[]]
    size = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            length = file.stat().st_size
            if size + length > PART and parts[-1]:
                parts.append([])
                size = 0
            size += length
            parts[-1].append(file)
    for number, members in enumerate(parts):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for file in members:
                with contextlib.suppress(FileNotFoundError):
                    archive.add(file, file.relative_to(paths.output_root()))
        (out / f"part-{number}.tar.gz").write_bytes(buffer.getvalue())
        if buffer.tell() > MOST[1]:
            print(f"part-{number}.tar.gz has {buffer.tell() / 2**20:.0f} MB, more than {MOST[1] >> 20}")
    if len(parts) > MOST[0]:
        print(f"{len(parts)} parts, more than {MOST[0]}: results are in the first, the notebooks' copies in the last")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sh benchmarks/gpu.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=540, help="time for everything, packing included")
    parser.add_argument("--data", type=Path, help="an archive with the image folder cifar10/{train,test}/<class>")
    parser.add_argument("--out", type=Path, default=paths.build() / "gpu")
    parser.add_argument("--profile", default="gpu")
    parser.add_argument("--seeds", default="", help="such as '0 1 2'; default: those of the profile")
    parser.add_argument("--only", help=f"names of notebooks; those that they read run, too (default: {NOTEBOOKS})")
    parser.add_argument("--rehearse", action="store_true", help="every stage of all at the size of the profile smoke")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.seconds - STOPPING
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.rehearse:
        parser.error("torch sees no GPU; --rehearse runs every stage without one")
    logs = paths.build() / "gpu"
    for folder in (logs, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    if options.data is not None:
        with tarfile.open(options.data) as archive:
            archive.extractall(paths.data_root())
    profile, usual = ("smoke", "") if options.rehearse else (options.profile, NOTEBOOKS)
    selected = jobs.select(profile, seeds=options.seeds, only=usual if options.only is None else options.only)
    about = {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU", "torch": torch.__version__}
    about["steps"] = steps(device, *(2, 4) if options.rehearse else (300, 64))
    (logs / "steps.json").write_text(json.dumps(about, indent=1) + "\n")
    clock = run(selected, deadline, logs)
    (logs / "clock.json").write_text(json.dumps(clock, indent=1) + "\n")
    folder = selected[0].folder
    files = [path for path in sorted((paths.figures() / folder).rglob("*")) if path.is_file()]
    files += [*logs.glob("*.json"), *logs.glob("*.log")]
    files += sorted((paths.build() / "checkpoints" / folder).rglob("epoch-*/history.json"))
    for place in ("inputs", "failed", "executed"):
        files += sorted((paths.build() / place / folder).rglob("*.*"))
    pack(files, options.out)
    done = [job.name for job in selected if jobs.executed(job.name).exists()]
    print(f"{len(done)} of {len(selected)} notebook runs are complete; results are in {options.out}")
    return 0 if len(done) == len(selected) else 1


if __name__ == "__main__":
    sys.exit(main())
