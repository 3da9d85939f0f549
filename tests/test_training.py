"""The training loop: batches, history, bit-exact resumption after any interruption, and clear errors."""

import errno
import io
import math
import shutil
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import tqdm.notebook
from accelerate import Accelerator
from accelerate.state import PartialState
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from toy_training import (
    BATCHES,
    PATIENCE,
    PROCESSES,
    in_processes,
    train,
    train_and_be_killed,
    train_and_wait,
    train_linear,
)
from toy_training import train_with_small_files as train_on_full_disk

from lib import training
from lib.training import (
    Captured,
    MovingAverage,
    TrainingError,
    epoch_batches,
    fit,
    gradient_step,
    predict,
    prepare,
    start,
)


@pytest.fixture(scope="module")
def uninterrupted():
    return train(None)


def assert_same(found, expected):
    """Assert bit-exact equality of history, weights, optimizer, schedule, random states and custom state."""
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)
    assert found.weights.keys() == expected.weights.keys()
    for name, value in expected.weights.items():
        assert torch.equal(found.weights[name], value), name
    for index, state in expected.optimizer.items():
        for name, value in state.items():
            assert torch.equal(found.optimizer[index][name], value), (index, name)
    assert (found.rate, found.draws, found.steps) == (expected.rate, expected.draws, expected.steps)


class Stop(Exception):
    pass


def stop_at(epoch, step):
    def on_step(*now):
        if now == (epoch, step):
            raise Stop

    return on_step


def no_step(epoch, step):
    raise AssertionError(f"epoch {epoch} was trained again")


def saved(checkpoint: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- batches -------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(22, 4), (20, 4), (5, 5), (7, 1)])
def test_an_epoch_is_a_partition_without_the_rest(count, size):
    batches = epoch_batches(count, size, seed=3, epoch=2)
    indices = torch.cat(batches).tolist()
    assert [len(batch) for batch in batches] == [size] * (count // size)
    assert len(set(indices)) == len(indices) == count // size * size
    assert set(indices) <= set(range(count))


def test_every_image_has_its_turn_though_the_rest_is_dropped():
    seen = {index for epoch in range(40) for index in torch.cat(epoch_batches(11, 4, seed=0, epoch=epoch)).tolist()}
    assert seen == set(range(11))


def test_batches_are_a_function_of_seed_and_epoch_alone():
    def order(seed, epoch):
        return tuple(torch.cat(epoch_batches(64, 8, seed=seed, epoch=epoch)).tolist())

    first = order(0, 1)
    torch.rand(5)  # the global random state is no part of it,
    state = torch.get_rng_state()
    assert order(0, 1) == first
    assert torch.equal(torch.get_rng_state(), state)  # and is left alone
    assert len({order(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_have_disjoint_and_equal_shares(processes):
    whole = [batch.tolist() for batch in epoch_batches(50, 4, seed=0, epoch=1)]
    shares = [
        [b.tolist() for b in epoch_batches(50, 4, seed=0, epoch=1, process=process, processes=processes)]
        for process in range(processes)
    ]
    assert {len(share) for share in shares} == {len(whole) // processes}
    together = [batch for step in zip(*shares, strict=True) for batch in step]
    assert together == whole[: len(together)]


@pytest.mark.parametrize(("count", "size", "processes"), [(3, 4, 1), (7, 4, 2), (4, 0, 1)])
def test_too_few_samples_are_an_error(count, size, processes):
    with pytest.raises(TrainingError, match=f"{count} samples do not fill one batch of {size}.*smaller batch_size"):
        epoch_batches(count, size, seed=0, epoch=1, processes=processes)


# -- history -------------------------------------------------------------------------------


def fit_values(values: dict[str, list[list[float]]], **options) -> pd.DataFrame:
    """Call `fit` with a step that returns values[term][e][i] in step i of epoch e."""
    epochs = len(next(iter(values.values())))
    steps = {e: [{t: torch.tensor(v[e][i]) for t, v in values.items()} for i in range(len(v0))]
             for v0 in [next(iter(values.values()))[0]] for e in range(epochs)}  # fmt: skip
    return fit(start("cpu"), lambda terms: terms, lambda epoch: steps[epoch - 1], epochs=epochs, **options)


def test_history_is_the_mean_of_every_term_over_all_steps():
    steps = 43  # not a multiple of the steps that are summed together
    values = {"task": [[float(i) for i in range(steps)], [2.0] * steps], "penalty": [[0.25] * steps, [0.5] * steps]}
    history = fit_values(values)
    assert history.to_dict("list") == {"epoch": [1, 2], "task": [(steps - 1) / 2, 2.0], "penalty": [0.25, 0.5]}


def test_history_begins_with_the_untrained_model():
    history = fit_values({"task": [[1.0, 3.0], [4.0, 6.0]]}, evaluate=lambda epoch: {"accuracy": epoch / 10})
    assert history.epoch.tolist() == [0, 1, 2]
    assert history.accuracy.tolist() == [0.0, 0.1, 0.2]
    assert math.isnan(history.task[0]) and history.task[1:].tolist() == [2.0, 5.0]


def test_the_untrained_model_is_evaluated_before_any_step(uninterrupted):
    order = []
    fit(
        start("cpu"),
        lambda batch: order.append(batch) or {"task": torch.tensor(1.0)},
        lambda epoch: [f"step of {epoch}"],
        epochs=2,
        evaluate=lambda epoch: order.append(f"evaluate {epoch}") or {},
    )
    assert order == ["evaluate 0", "step of 1", "evaluate 1", "step of 2", "evaluate 2"]


def test_an_epoch_without_batches_is_an_error():
    with pytest.raises(TrainingError, match="epoch 1 has no batches"):
        fit(start("cpu"), lambda batch: {}, lambda epoch: [], epochs=1)


def test_a_step_minimises_the_sum_of_its_terms_and_moves_the_schedule():
    accelerator = start("cpu")
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    network, optimizer, scheduler = prepare(accelerator, model, optimizer, scheduler)

    def losses(network, x):
        return {"task": network(x).sum(), "penalty": 3 * model.weight.square().sum()}

    step = gradient_step(accelerator, network, optimizer, scheduler, losses)
    terms = step(torch.tensor([[2.0]]))
    assert {name: value.item() for name, value in terms.items()} == {"task": 2.0, "penalty": 3.0}
    assert model.weight.item() == 1.0 - 0.5 * (2 + 6)  # d/dw (2 w + 3 w²) at 1
    step(torch.tensor([[0.0]]))
    assert model.weight.item() == pytest.approx(-3.0 + 0.05 * 18)


# -- NaN and infinity ----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [1, 20, 21, 50])
def test_a_term_that_is_not_finite_is_named_with_its_epoch(bad, at):
    steps = 50
    penalty = [[1.0] * steps, [bad if step >= at else 1.0 for step in range(1, steps + 1)]]
    with pytest.raises(TrainingError) as caught:
        fit_values({"task": [[0.5] * steps] * 2, "penalty": penalty, "other": [[2.0] * steps] * 2}, name="Gram")
    message = str(caught.value)
    assert message.startswith("Gram: not finite in epoch 2: 'penalty'.") and "learning rate" in message


def test_weights_of_all_networks_are_looked_at(tmp_path):
    """The two networks of a GAN share many parameter names."""
    accelerator = start("cpu")
    players = prepare(accelerator, torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with torch.no_grad():
        players[0].weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="not finite in epoch 1: 'weight'"):
        fit(
            accelerator,
            lambda _: {"loss": torch.tensor(1.0)},
            lambda _: [0],
            epochs=1,
            checkpoint=tmp_path / "a",
            key={},
        )
    assert not list((tmp_path / "a").glob("epoch-*"))


def test_an_epoch_ends_early_where_a_term_stays_not_finite():
    """The epoch may be hours long."""
    seen = []

    def step(batch):
        seen.append(batch)
        return {"loss": torch.tensor(math.nan)}

    with pytest.raises(TrainingError, match="not finite in epoch 1: 'loss'"):
        training.fit(start("cpu"), step, lambda epoch: range(1000), epochs=1)
    assert len(seen) == training.STEPS_BETWEEN_CHECKS


def test_all_terms_that_are_not_finite_are_named():
    with pytest.raises(TrainingError, match="not finite in epoch 1: 'task', 'penalty'"):
        fit_values({"task": [[math.nan]], "penalty": [[math.inf]]})


def test_after_nan_the_corrected_run_goes_on_from_the_epoch_before(tmp_path, uninterrupted):
    checkpoint = tmp_path / "toy"
    with pytest.raises(TrainingError, match="not finite in epoch 3: 'penalty'"):
        train(checkpoint, spoil=lambda epoch, step: math.nan if (epoch, step) == (3, 2) else 0.0)
    assert saved(checkpoint) == ["epoch-0002", "key.json"]
    trained = []
    assert_same(train(checkpoint, on_step=lambda *now: trained.append(now)), uninterrupted)
    assert {epoch for epoch, _ in trained} == {3}


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path):
    accelerator = start("cpu")
    model = nn.Linear(1, 1, bias=False)
    network, optimizer = prepare(accelerator, model, torch.optim.SGD(model.parameters(), 0.1))
    bad = {"epoch": 2}

    def losses(network, epoch):  # the root is finite at 0, its slope is not
        return {"task": (network(torch.ones(1, 1)) * (0.0 if epoch == bad["epoch"] else 1.0)).abs().sqrt().sum()}

    step = gradient_step(accelerator, network, optimizer, None, losses)
    with pytest.raises(TrainingError, match="epoch 2"):
        fit(accelerator, step, lambda epoch: [epoch], epochs=3, checkpoint=tmp_path / "toy")
    assert saved(tmp_path / "toy") == ["epoch-0001", "key.json"]


# -- resume --------------------------------------------------------------------------------


def test_a_checkpoint_changes_nothing(tmp_path, uninterrupted):
    assert_same(train(tmp_path / "a" / "toy"), uninterrupted)
    assert saved(tmp_path / "a" / "toy") == ["epoch-0003", "key.json"]


@pytest.mark.parametrize(("epoch", "step"), [(1, 2), (2, 1), (2, 4), (3, BATCHES)])
def test_resume_after_an_exception_equals_an_uninterrupted_run(tmp_path, uninterrupted, epoch, step):
    with pytest.raises(Stop):
        train(tmp_path / "toy", on_step=stop_at(epoch, step))
    trained = []
    assert_same(train(tmp_path / "toy", on_step=lambda *now: trained.append(now)), uninterrupted)
    assert trained[0] == (epoch, 1)


def test_resume_after_several_interruptions(tmp_path, uninterrupted):
    for epoch in (1, 2, 3):
        with pytest.raises(Stop):
            train(tmp_path / "toy", on_step=stop_at(epoch, 3))
    assert_same(train(tmp_path / "toy"), uninterrupted)


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("epoch", ["epoch-0001", "key.json"]),
        ("a file half written", ["epoch-0001", "key.json", "partial"]),
        ("before the rename", ["epoch-0001", "key.json", "partial"]),
        ("before the old one is removed", ["epoch-0001", "epoch-0002", "key.json"]),
    ],
)
def test_resume_after_sigkill_equals_an_uninterrupted_run(tmp_path, uninterrupted, where, left):
    process = PROCESSES.Process(target=train_and_be_killed, args=(tmp_path / "toy", where))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -9
    assert saved(tmp_path / "toy") == left
    assert_same(train(tmp_path / "toy"), uninterrupted)
    assert saved(tmp_path / "toy") == ["epoch-0003", "key.json"]


def test_a_finished_training_is_only_loaded(tmp_path, uninterrupted):
    train(tmp_path / "toy")
    assert_same(train(tmp_path / "toy", on_step=no_step), uninterrupted)


def test_more_epochs_go_on_from_the_saved_ones(tmp_path, uninterrupted):
    train(tmp_path / "toy", 2)
    trained = []
    assert_same(train(tmp_path / "toy", 3, on_step=lambda *now: trained.append(now)), uninterrupted)
    assert {epoch for epoch, _ in trained} == {3}


def test_fewer_epochs_than_saved_do_not_throw_the_others_away(tmp_path):
    train(tmp_path / "toy", 3)
    with pytest.raises(TrainingError, match="holds 3 epochs, more than the 2 that are asked for"):
        train(tmp_path / "toy", 2)
    assert saved(tmp_path / "toy") == ["epoch-0003", "key.json"]


def test_another_key_starts_anew(tmp_path):
    train(tmp_path / "toy", 1, rate=1, data="abc")
    trained = []
    train(tmp_path / "toy", 1, on_step=lambda *now: trained.append(now), data="abc", rate=1)  # in any order
    assert not trained
    train(tmp_path / "toy", 1, on_step=lambda *now: trained.append(now), rate=1, data="abd")
    assert len(trained) == BATCHES


def test_a_checkpoint_of_another_pytorch_is_not_taken_for_this_ones(tmp_path, monkeypatch):
    """As results record the version that made them."""
    train(tmp_path / "toy", 1)
    trained = []
    monkeypatch.setattr(torch, "__version__", "0.0")
    train(tmp_path / "toy", 1, on_step=lambda *now: trained.append(now))
    assert len(trained) == BATCHES


def test_auto_is_the_cpu_on_a_mac(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert start("auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_another_key_leaves_nothing_of_the_old_training(tmp_path, uninterrupted):
    train(tmp_path / "toy", 3, rate=2)
    with pytest.raises(Stop):
        train(tmp_path / "toy", on_step=stop_at(1, 1))
    assert saved(tmp_path / "toy") == ["key.json"]
    assert_same(train(tmp_path / "toy"), uninterrupted)


@pytest.mark.parametrize("damage", ["cut", "gone", "noise"])
@pytest.mark.parametrize(
    "file",
    [
        *("model.safetensors", "optimizer.bin", "scheduler.bin", "custom_checkpoint_0.pkl", "history.json"),
        "random_states_0.pkl",
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_the_folder(tmp_path, file, damage):
    checkpoint = tmp_path / "toy"
    train(checkpoint, 1)
    path = checkpoint / "epoch-0001" / file
    if damage == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes({"cut": content[:20], "noise": b"\xff" * 200}[damage])
    before = contents(checkpoint)
    with pytest.raises(TrainingError) as caught:
        train(checkpoint, 2)
    assert f"Delete the folder {checkpoint} and run again" in str(caught.value)
    assert contents(checkpoint) == before


def test_a_copy_beside_a_checkpoint_is_none(tmp_path, uninterrupted):
    train(tmp_path / "toy", 1)
    shutil.copytree(tmp_path / "toy" / "epoch-0001", tmp_path / "toy" / "epoch-0001 copy")
    assert_same(train(tmp_path / "toy"), uninterrupted)


def test_a_checkpoint_of_another_network_is_an_error(tmp_path):
    train(tmp_path / "toy", 1)
    accelerator = start("cpu")
    model = prepare(accelerator, nn.Linear(2, 2))[0]
    with pytest.raises(TrainingError, match="cannot be read"):
        fit(accelerator, lambda batch: {}, lambda epoch: [], epochs=2, checkpoint=tmp_path / "toy")
    assert model.weight.shape == (2, 2)


# -- two at a time, full disks -------------------------------------------------------------


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, uninterrupted):
    started = PROCESSES.Event()
    process = PROCESSES.Process(target=train_and_wait, args=(tmp_path / "toy", started))
    process.start()
    try:
        assert started.wait(PATIENCE)
        before = contents(tmp_path / "toy")
        with pytest.raises(TrainingError, match="toy is being trained by another process.*Wait for it, or stop it"):
            train(tmp_path / "toy", on_step=no_step)
        assert contents(tmp_path / "toy") == before
    finally:
        process.kill()
        process.join(PATIENCE)
    assert_same(train(tmp_path / "toy"), uninterrupted)


def test_an_error_releases_the_lock(tmp_path):
    for _ in range(2):
        with pytest.raises(Stop):
            train(tmp_path / "toy", on_step=stop_at(1, 1))


# Size limits of files in bytes: the weights (3 kB) are written first, then the optimizer (10 kB).
@pytest.mark.parametrize("largest", [pytest.param(100, id="weights"), pytest.param(6000, id="optimizer")])
def test_a_full_disk_keeps_the_older_checkpoint(tmp_path, uninterrupted, largest):
    answer = PROCESSES.SimpleQueue()
    process = PROCESSES.Process(target=train_on_full_disk, args=(tmp_path / "toy", largest, answer))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    kind, message = answer.get()
    assert "epoch-0001" in saved(tmp_path / "toy")
    assert_same(train(tmp_path / "toy"), uninterrupted)  # whatever the error was called
    assert kind in ("OSError", "SafetensorError", "RuntimeError"), (kind, message)


def refuse(*_ignored, **_ignored_too):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Accelerator, "save_state"),
        (Path, "write_text"),
        (Path, "rename"),
    ],
)
def test_a_full_disk_for_any_part_keeps_the_older_checkpoint(tmp_path, monkeypatch, uninterrupted, owner, method):
    def fill(epoch, step):
        if epoch == 2:
            monkeypatch.setattr(owner, method, refuse)

    caught = None
    try:
        train(tmp_path / "toy", on_step=fill)
    except Exception as error:
        caught = error
    monkeypatch.undo()
    assert "epoch-0001" in saved(tmp_path / "toy")
    assert_same(train(tmp_path / "toy"), uninterrupted)
    assert isinstance(caught, OSError), repr(caught)


# -- device and precision ------------------------------------------------------------------


def test_an_unknown_device_is_an_error():
    with pytest.raises(TrainingError, match="device 'gpu' is unknown; choose 'auto', 'cpu' or 'cuda'"):
        start("gpu")


def test_a_missing_gpu_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="torch sees no GPU; use device='cpu' or 'auto'"):
        start("cuda")


@pytest.mark.parametrize("precision", ["bf17", "fp16"])
def test_an_unknown_precision_is_an_error(precision):
    with pytest.raises(TrainingError, match=f"precision {precision!r} is unknown; choose 'no' or 'bf16'"):
        start("cpu", precision)


def test_each_start_is_fresh():
    """As a notebook trains many models in turn."""
    assert [start("cpu", precision).mixed_precision for precision in ("bf16", "no", "bf16")] == ["bf16", "no", "bf16"]


def test_auto_after_cpu_looks_for_a_gpu_again():
    start("cpu")
    start("auto")
    assert not PartialState()._cpu


def test_bf16_trains_on_the_cpu_with_weights_in_float32(uninterrupted):
    seen = set()
    accelerator = start("cpu", "bf16")
    model = nn.Linear(3, 2)
    network, optimizer = prepare(accelerator, model, torch.optim.SGD(model.parameters(), 0.1))

    def losses(network, x):
        with torch.no_grad():
            seen.add(torch.nn.functional.linear(x, model.weight).dtype)
        return {"task": network(x).square().mean()}

    step = gradient_step(accelerator, network, optimizer, None, losses)
    fit(accelerator, step, lambda epoch: [torch.randn(4, 3)], epochs=1)
    assert seen == {torch.bfloat16} and model.weight.dtype == torch.float32
    history = train(None, 2, precision="bf16").history
    assert history.task[1:].map(math.isfinite).all()
    assert history.task[1] == pytest.approx(uninterrupted.history.task[1], rel=0.1)


@pytest.mark.parametrize("wanted", [True, False])
def test_image_networks_are_channels_last_unless_told_otherwise(wanted):
    conv = nn.Conv2d(3, 4, 3)
    prepare(start("cpu"), conv, channels_last=wanted)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last) == wanted


# -- several processes ---------------------------------------------------------------------


def test_channels_last_changes_no_loss():
    def trained(channels_last):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(),
            nn.Linear(8 * 5 * 5, 4),
        )  # fmt: skip
        accelerator = start("cpu")
        model, optimizer = prepare(
            accelerator, network, torch.optim.AdamW(network.parameters(), 0.01), channels_last=channels_last
        )
        images = torch.randn(12, 16, 3, 12, 12, generator=torch.Generator().manual_seed(1))
        wanted = torch.arange(16) % 4

        def losses(model, batch):
            return {"loss": nn.functional.cross_entropy(model(batch), wanted)}

        step = gradient_step(accelerator, model, optimizer, None, losses)
        return [step(batch)["loss"].item() for batch in images]

    np.testing.assert_allclose(trained(True), trained(False), atol=1e-4)


def alone(folder: Path, epochs: int):
    train_linear(1, 0, 0, folder, None, epochs)
    return torch.load(folder / "1-0.pt")


def assert_equal_to_one_process(ranks, single):
    (weights, losses), (twin, other_losses) = ranks
    assert all(torch.equal(weights[name], twin[name]) for name in weights)
    for name, value in single[0].items():
        torch.testing.assert_close(weights[name], value)
    means = [(a + b) / 2 for a, b in zip(losses, other_losses, strict=True)]
    assert means == pytest.approx(single[1], rel=1e-5)


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    assert_equal_to_one_process(in_processes(2, train_linear, tmp_path, None, 3), alone(tmp_path, 3))


def test_two_processes_share_a_checkpoint_and_resume(tmp_path):
    in_processes(2, train_linear, tmp_path, tmp_path / "toy", 1)
    resumed = in_processes(2, train_linear, tmp_path, tmp_path / "toy", 3)
    weights, single = resumed[0][0], alone(tmp_path, 3)[0]
    for name, value in single.items():
        torch.testing.assert_close(weights[name], value)
    assert torch.equal(resumed[1][0]["weight"], weights["weight"])


# -- progress ------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def __init__(self, real: bool = True):
        super().__init__()
        self.isatty = lambda: real


def printed_on(screen: Terminal) -> str:
    with redirect_stderr(screen):  # not in a fixture: pytest sets its own stderr in each phase of a test
        fit_values({"task": [[1.0], [2.5]]}, name="Gram")
    return screen.getvalue()


@pytest.fixture
def bars(monkeypatch):
    """The widgets that the progress bar of a notebook displays."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    shown = []
    monkeypatch.setattr(training, "tqdm", tqdm.notebook.tqdm)
    monkeypatch.setattr(tqdm.notebook, "display", shown.append)
    return shown


def test_on_a_terminal_a_bar_shows_the_name_and_the_last_values(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    shown = printed_on(Terminal())
    assert "Gram" in shown and "/2" in shown and "task=2.5" in shown


def test_a_file_gets_no_bar(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert printed_on(Terminal(real=False)) == ""


def test_in_a_notebook_a_bar_is_displayed(bars):
    fit_values({"task": [[1.0], [2.5]]})
    assert len(bars) == 1


def test_tqdm_disable_silences_the_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert printed_on(Terminal()) == ""


def test_tqdm_disable_silences_the_bar_in_a_notebook(bars, monkeypatch):
    """The variable is inherited by papermill's kernel."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    fit_values({"task": [[1.0], [2.5]]})
    assert bars == []


# -- predict -------------------------------------------------------------------------------


@pytest.mark.parametrize("training_before", [True, False])
def test_predict_evaluates_without_gradients_and_restores_the_mode(training_before):
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train(training_before)
    inputs = torch.randn(8, 3)
    found = predict(model, inputs.split(3))
    assert torch.equal(found, torch.cat([model[0](part) for part in inputs.split(3)]))
    assert found.dtype == torch.float32 and not found.requires_grad
    assert model.training == model[1].training == training_before


def test_predict_returns_float32_of_half_precision():
    assert predict(nn.Linear(2, 2).bfloat16(), [torch.ones(1, 2).bfloat16()]).dtype == torch.float32


def test_predict_restores_the_mode_of_every_layer():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
    predict(model, [torch.randn(4, 2)])
    assert model.training and not model[1].training


# -- moving averages and captured steps ----------------------------------------------------


@pytest.mark.parametrize("ramp", [False, True])
def test_a_moving_average_is_torchs_to_rounding(ramp):
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    mean = MovingAverage(layer, 0.9, ramp=ramp)
    expected = [weight.detach().clone() for weight in layer.parameters()]
    for step in range(12):
        nn.init.normal_(layer[0].weight)
        layer[1].running_mean.fill_(step)
        mean.update_parameters(layer)
        decay = min(0.9, (1 + step) / (10 + step)) if ramp else 0.9
        get_ema_multi_avg_fn(decay)(expected, list(layer.parameters()), None)
    torch.testing.assert_close(list(mean.module.parameters()), expected)
    assert mean.module[1].running_mean.eq(11).all()


def captured_run(device: str, *, captured: bool) -> tuple[list[float], list[torch.Tensor]]:
    """Train a small network for ten steps with noise and a schedule; return losses and weights."""
    accelerator = start(device)
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(layer.parameters(), 0.01, fused=True, capturable=device == "cuda")
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=10, cycle_momentum=False)
    layer, optimizer, schedule = prepare(accelerator, layer, optimizer, schedule)

    def losses(network, batch):
        return {"loss": (network(batch + 0.1 * torch.randn_like(batch)) - batch.sum(1, keepdim=True)).square().mean()}

    step = gradient_step(accelerator, layer, optimizer, schedule, losses, capture=captured)
    batches = torch.randn(10, 32, 8, generator=torch.Generator().manual_seed(1)).to(accelerator.device)
    torch.manual_seed(2)
    found = [step(batch)["loss"].item() for batch in batches]
    return found, [weight.detach().cpu().clone() for weight in layer.parameters()]


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"))],
)
def test_a_captured_step_is_the_step(device):
    expected, found = (captured_run(device, captured=captured) for captured in (False, True))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1])


def test_a_recorded_step_is_replayed_on_the_batch_that_it_holds(monkeypatch):
    """With a stand-in for the CUDA graph, as there may be no GPU: it reruns the step, into the recorded tensors."""
    ran, recorded, rate = [], [], 0.25

    class Graph:
        def replay(self):
            for name, value in captured.step(captured.batch).items():
                captured.terms[name].copy_(value)

    def step(batch):
        ran.append(batch)
        return {"sum": batch.sum()}

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext(recorded.append(graph)))
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], rate)
    warm_up = Captured.WARM_UP
    captured = Captured(start("cpu"), step, [optimizer], ready=lambda: len(ran) > warm_up)
    monkeypatch.setattr(captured, "usable", True)
    monkeypatch.setattr(captured, "_aside", captured.step)
    batches = list(torch.arange(12.0 * (warm_up + 4)).view(-1, 3, 4))
    assert [captured(batch)["sum"].item() for batch in batches] == [batch.sum().item() for batch in batches]
    # The warm-up and one more call until it is ready; then one recording, and replays on the same batch tensor.
    aside, held = ran[: warm_up + 1], ran[warm_up + 1 :]
    assert all(found is batch for found, batch in zip(aside, batches, strict=False)) and len(recorded) == 1
    assert len(held) == 1 + 3 and all(batch is captured.batch for batch in held)
    assert torch.equal(captured.batch, batches[-1]) and not any(batch is captured.batch for batch in batches)
    (group,) = optimizer.param_groups
    assert isinstance(group["lr"], torch.Tensor) and group["lr"].item() == rate  # so a schedule affects the graph


@dataclass
class Data:
    checksum: str

    def __len__(self):
        return 8


@dataclass
class OneArm:
    label: str = "a line"


@dataclass
class OneSetting:
    epochs: int = 2
    batch_size: int = 4


@pytest.mark.parametrize(("seed", "checksum", "fact", "goes_on"),
                         [(0, "a", 1, True), (1, "a", 1, False), (0, "b", 1, False), (0, "a", 2, False)])  # fmt: skip
def test_a_checkpoint_is_of_one_seed_data_set_and_fact(tmp_path, seed, checksum, fact, goes_on):
    def trained(seed, checksum, fact):
        accelerator, network, steps = start("cpu"), nn.Linear(1, 1), []
        network, optimizer = prepare(accelerator, network, torch.optim.SGD(network.parameters(), 0.1))

        def losses(network, batch):
            steps.append(len(batch))
            return {"loss": network(batch[:, None].float()).square().mean()}

        step = training.gradient_step(accelerator, network, optimizer, None, losses)
        training.fit_arm(accelerator, step, OneArm(), Data(checksum), OneSetting(), seed=seed, code="lib.timing",
                         evaluate=lambda epoch: {}, checkpoint=tmp_path / "line", fact=fact)  # fmt: skip
        return steps

    assert len(trained(0, "a", 1)) == 4
    assert len(trained(seed, checksum, fact)) == (0 if goes_on else 4)
