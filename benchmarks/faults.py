"""Plant one defect at a time in a copy of `lib`, and check that the tests of that module fail.

    python benchmarks/faults.py                all defects, one after the other
    python benchmarks/faults.py pyramid vote   those whose module or text contains one of these words

Exits with 1 if fewer than 95 % are caught. The tests of a module are those of the same name, as a developer runs them
while working; if a defect shows only elsewhere, its entry names other tests. They must first pass without a defect, as
tests that fail in any case catch nothing.
"""

# ruff: noqa: E501

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAST = 0.95

# Module, text that occurs in it once, its replacement, and the tests, if not the module's own.
FAULTS = [
    # Study 1
    ("laplacian_gan/pyramid", "bands.append(band - shift)", "bands.append(band)"),
    ("laplacian_gan/pyramid", "even, odd = (before + after) / 8", "even, odd = (before + here) / 8"),
    ("laplacian_gan/losses", "F.softplus(-on_fake.float()).mean()\n\n\ndef hinge", "F.softplus(on_fake.float()).mean()\n\n\ndef hinge"),
    ("laplacian_gan/losses", ".norm(dim=1) - 1).square()", ".norm(dim=1)).square()"),
    ("laplacian_gan/augment", "contrast + 0.5", "contrast"),
    ("laplacian_gan/copying", "<= nearest(generated, candidates)[0]", "< nearest(generated, candidates)[0]"),
    ("laplacian_gan/training", "judge(augment(fake.detach()), shown)", "judge(fake.detach(), shown)"),
    ("laplacian_gan/training", "norm.reset_running_stats()", "pass"),
    ("laplacian_gan/training", ".roll(place * arm.images // len(arm.levels), 0)", ".roll(place * arm.images // len(arm.levels), 1)"),
    ("laplacian_gan/training", "z[accelerator.process_index * count :][:count]", "z[:count]"),
    # Study 2
    ("categorical/losses", "logits = logits.fill_diagonal_(-math.inf)", "logits = logits"),
    ("categorical/losses", "keys = torch.cat([q.detach(), queue.to(q.dtype)])", "keys = torch.cat([q, queue.to(q.dtype)])"),
    ("categorical/losses", "p.flatten(1) @ q.flatten(1).T / p.shape[1]", "p.flatten(1) @ q.flatten(1).T / p.shape[2]"),
    ("categorical/losses", "-(mean * mean.log()).sum(-1).mean()", "(mean * mean.log()).sum(-1).mean()"),
    ("categorical/baselines", "/ max(1, positions * (positions - 1))", "/ max(1, positions * positions)"),
    ("categorical/baselines", "(p.mean(0) + q.mean(0)) / 2", "p.mean(0)"),
    ("categorical/models", "% self.size", "% (self.size - 1)", "tests/categorical/test_momentum.py"),
    ("categorical/training", "torch.cat([second, first])", "torch.cat([first, second])"),
    ("categorical/training", "0.5 * (1 + torch.cos(", "0.5 * (1 - torch.cos("),
    ("categorical/search", "(own < k).mean()", "(own <= k).mean()"),
    ("categorical/search", "relevant[there], -ranks[there]", "relevant[there], ranks[there]"),
    # Study 3
    ("corregularization/losses", "copy_(-(slope * gram).sum(-1))", "zero_()"),
    ("corregularization/losses", "pairs = len(matrix) * (members.shape[1] - 1)", "pairs = len(matrix) * (len(matrix) - 1)"),
    ("corregularization/losses", "math.sqrt(max(n - d, 0) / (d * (n - 1)))", "math.sqrt(max(n - d, 0) / (d * n))"),
    ("corregularization/losses", "flat - flat.mean(dim=1, keepdim=True)", "flat"),
    ("corregularization/losses", "layer.groups == 1 and ", ""),
    ("corregularization/training", "arm.strength * penalty()", "penalty()"),
    ("corregularization/training", "torch.randint(1, classes,", "torch.randint(0, classes,"),
    ("corregularization/baselines", "gram = matrix @ matrix.T if n <= d else matrix.T @ matrix", "gram = matrix @ matrix.T"),
    ("corregularization/baselines", "(overlap - delta).square()", "overlap.square()"),
    # Study 4
    ("emergency/features", "norm=\"slaney\", mel_scale=\"slaney\"", "norm=None, mel_scale=\"slaney\""),
    ("emergency/features", "return_complex=True)[..., :-1]", "return_complex=True)[..., 1:]"),
    ("emergency/features", "levels.amax(dim=(1, 2), keepdim=True)", "levels.amax()"),
    ("emergency/cnn/relevance", "[SequentialMergeBatchNorm()]", "[]"),
    ("emergency/cnn/relevance", "copy.deepcopy(model).eval().requires_grad_(False)", "copy.deepcopy(model).requires_grad_(False)"),
    ("emergency/whisper/relevance", "(0.5 * weights.mean(1) + 0.5 * itself)", "weights.mean(1)"),
    ("emergency/whisper/text", "others = np.roll(order, 1)", "others = order"),
    ("emergency/whisper/text", "if not normalise(one)]", "]"),
    ("emergency/whisper/training", "wanted[wordless] = UNKNOWN", "pass"),
    ("emergency/whisper/training", "rolled(mel, -2 * cut[:, None, None])", "rolled(mel, -cut[:, None, None])"),
    ("emergency/whisper/training", "settings.layer_decay**above", "settings.layer_decay"),
    ("emergency/whisper/training", "count_include_pad=False", "count_include_pad=True"),
    ("emergency/whisper/frozen", "targets[index].to(", "targets[index.flip(0)].to("),
    ("emergency/recogniser/listener", "end = len(sound) - (heard - due)", "end = len(sound)"),
    ("emergency/recogniser/listener", "enough[: -math.ceil(HOP / self.seconds)] = False", "enough[:-1] = False"),
    ("emergency/recogniser/alert", "self._emergency if (folder / \"confirmed\").exists() else {}", "self._emergency"),
    ("emergency/data/aihub_splits", "units[letters_of(row.line) or source]", "units[row.line or source]", "tests/emergency/data/test_aihub.py"),
    ("emergency/synthesis/rooms", "distance[0] / distance * np.where", "np.where", "tests/emergency/synthesis/test_soundscapes.py"),
    ("emergency/recogniser/voting", "real = np.isin(names, list(emergencies))", "real = ~np.isin(names, list(emergencies))"),
    # Shared modules
    ("metrics/fid", "kthvalue(DENSITY_NEIGHBOUR + 1)", "kthvalue(DENSITY_NEIGHBOUR)"),
    ("metrics/fid", "\"rng_seed\": seed", "\"rng_seed\": 0"),
    ("metrics/clustering", "table[linear_sum_assignment(table, maximize=True)]", "table[linear_sum_assignment(table)]"),
    ("metrics/clustering", "keys = (similarity * 2**30).long() * len(train) - torch.arange(len(train))", "keys = (similarity * 2**30).long() * len(train) + torch.arange(len(train))"),
    ("metrics/moments", "event.onset - before.offset < gap - 1e-9", "event.onset - before.offset < gap + 1e-9"),
    ("metrics/moments", "best.mean(0) - best.std(0)", "best.mean(0)"),
    ("metrics/moments", "np.sort(windows, axis=2)[:, :, n - k]", "np.sort(windows, axis=2)[:, :, k - 1]"),
    ("metrics/classification", ".sum(1) > 0.5", ".amax(1) > 0.5"),
    ("metrics/disentanglement", "best[:, -1] - best[:, -2]", "best[:, -1] - best[:, 0]"),
    ("metrics/comparison", "(ordered * factors).cummax()", "(ordered * factors)"),
    ("metrics/comparison", "clips = 1.0 - (several", "clips = 1.0 - (~several"),
    ("metrics/comparison", "np.sqrt(2 * (rest**2).sum() / freedom)", "np.sqrt((rest**2).sum() / freedom)"),
    ("data/common", "np.argsort(labels[shuffled], kind=\"stable\")", "np.argsort(labels[shuffled])[::-1]", "tests/data/test_images.py"),
    ("data/folders", "return parts[split]", "return parts[\"train\"]", "tests/data/test_images.py"),
    ("data/cache", "if kept and checksum(kept[\"values\"], labels) == str(kept[\"digest\"]):", "if kept:", "tests/data/test_images.py"),
    ("training", "[process::processes]", "[:: processes]"),
    ("training", "\"seed\": seed, \"train\": train.checksum}", "\"train\": train.checksum}"),
    ("training", "weight = torch.maximum(weight, 9 / (10 + self.n_averaged))", "weight = torch.maximum(weight, 1 / (10 + self.n_averaged))"),
    ("training", "saved = _complete(folder) if same else []", "saved = _complete(folder)"),
    ("training", "mixed = int(np.random.SeedSequence([seed, epoch])", "mixed = int(np.random.SeedSequence([seed, 0])"),
    ("sources", "waiting += [\".\".join(module.split(\".\")[:n]) for n in range(1, module.count(\".\") + 1)]", "pass", "tests/press/test_fingerprint.py"),
    ("press/fingerprint", "parts |= {f\"package {name}\": pins for name, pins in locked(packages).items()}", "pass"),
    ("press/staleness", "elif expected and sha256(path) != expected:", "elif False:", "tests/press/test_workflow.py"),
    ("press/parameters", "validate_python(value, strict=True)", "validate_python(value)"),
]  # fmt: skip


def tests_of(module: str) -> str:
    *folders, name = module.split("/")
    return "/".join(["tests", *folders, f"test_{name}.py"])


def caught(copy: Path, module: str, old: str, new: str, tests: str) -> bool:
    """Return whether the tests fail with the defect in the copy, which is restored afterwards."""
    path = copy / "lib" / f"{module}.py"
    whole = path.read_text(encoding="utf-8")
    if whole.count(old) != 1:
        sys.exit(f"lib/{module}.py holds {old!r} {whole.count(old)} times, expected once: correct the list")
    path.write_text(whole.replace(old, new), encoding="utf-8")
    try:
        return not passes(copy, tests)
    finally:
        path.write_text(whole, encoding="utf-8")


def passes(copy: Path, tests: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
    result = subprocess.run(command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True)
    if result.returncode not in (0, 1):
        sys.exit(f"{tests} did not run:\n{result.stdout.decode()[-3000:]}")
    return result.returncode == 0


def main(words: list[str]) -> int:
    chosen = [fault for fault in FAULTS if not words or any(word in " ".join(fault) for word in words)]
    escaped, sound = [], set()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "figures", "__pycache__"))
        for module, old, new, *given in chosen:
            begin, (tests,) = time.monotonic(), given or [tests_of(module)]
            if tests not in sound and not passes(copy, tests):
                sys.exit(f"{tests} fails without a defect, and so would catch any")
            sound.add(tests)
            found = caught(copy, module, old, new, tests)
            escaped += [] if found else [(module, old, new)]
            print(
                f"{'caught ' if found else 'ESCAPED'} {time.monotonic() - begin:5.0f} s  {module}: {old!r} → {new!r}",
                flush=True,
            )
    share = 1 - len(escaped) / len(chosen)
    print(f"{len(chosen) - len(escaped)} of {len(chosen)} caught ({100 * share:.0f} %)")
    return share < LEAST


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
