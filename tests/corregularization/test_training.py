"""Arms and their training: what arms share, bit-exact resumption, label noise, and effects of the penalty."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib import paths
from lib.corregularization import training
from lib.corregularization.arms import Arm, gram, grouping_arms, penalty_of, regulariser_arms
from lib.corregularization.losses import ResponsePenalty, as_matrix, gram_penalty, mean_over_layers, select_layers
from lib.corregularization.models import build_model
from lib.corregularization.training import Settings, score, train_arm, train_arms, with_label_noise
from lib.data.images import Images

SETTINGS = Settings(epochs=3, batch_size=8, device="cpu")
PLAIN = Arm("plain")
RANDOM = gram("random", 1.0, groups=3)
DECOV = Arm("DeCov", "decov", 0.1)


def narrow(name, classes):
    return build_model(name, classes, width=0.25)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Build networks with a quarter of the filters."""
    monkeypatch.setattr(training, "build_model", narrow)


def images(count=27, seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 200, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(count), labels % 3] += 50  # each class has its colour
    names = tuple("abcdefghij"[:classes])
    return Images(pixels, labels, names, "noise", f"checksum {seed} of {count}", "train")


TRAIN, TEST = images(), images(12, seed=1)


def run(arm, settings=SETTINGS, *, seed=0, checkpoint=None, train=TRAIN):
    return train_arm(arm, train, TEST, settings, seed=seed, checkpoint=checkpoint)


def assert_same(found, expected):
    """Assert bit-exact equality."""
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)
    pd.testing.assert_frame_equal(found.layers, expected.layers, check_exact=True)
    state, wanted = found.model.state_dict(), expected.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())
    assert list(found.snapshots) == list(expected.snapshots)
    assert all(torch.equal(found.snapshots[epoch], value) for epoch, value in expected.snapshots.items())


class Interruption(Exception):
    pass


def interrupt(monkeypatch, after):
    """Make the augmentation, called once per step, fail after `after` calls; return the list of calls."""
    calls, augment = [], training.flip_and_shift

    def failing(pixels):
        calls.append(len(pixels))
        if len(calls) > after:
            raise Interruption
        return augment(pixels)

    monkeypatch.setattr(training, "flip_and_shift", failing)
    return calls


# --- what arms share -------------------------------------------------------------------------------


def test_a_penalty_of_no_strength_trains_like_none_bit_for_bit():
    plain, gram_arm = run(PLAIN), run(gram("Gram", 0.0))
    columns = ["epoch", "task", "test_loss", "test_accuracy"]
    pd.testing.assert_frame_equal(plain.history[columns], gram_arm.history[columns], check_exact=True)
    assert (gram_arm.history.penalty.dropna() == 0).all()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(gram_arm.model.state_dict()[name], value)


def test_all_arms_start_from_the_same_filters_and_see_the_same_crops_of_the_same_batches(monkeypatch):
    seen, augment = [], training.flip_and_shift
    monkeypatch.setattr(training, "flip_and_shift", lambda pixels: seen.append(augment(pixels)) or seen[-1])
    fixed = gram("fixed", 1.0, groups=4, grouping="contiguous")
    arms = [PLAIN, gram("Gram", 1.0), fixed, RANDOM, DECOV, Arm("SRIP", "srip", 0.1), Arm("wd", "weight_decay", 0.1)]
    batches, starts = [], []
    for arm in arms:
        seen.clear()
        starts.append(run(arm, replace(SETTINGS, epochs=1)).snapshots[0])
        batches.append(torch.stack(seen))
    assert batches[0].shape == (3, 8, 3, 8, 8)  # 27 images make 3 batches of 8
    assert all(torch.equal(start, starts[0]) for start in starts)
    assert all(torch.equal(batch, batches[0]) for batch in batches)


def test_another_seed_means_other_filters_and_other_batches(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "flip_and_shift", lambda pixels: seen.append(pixels.clone()) or pixels)
    first, second = (run(PLAIN, replace(SETTINGS, epochs=1), seed=seed).snapshots[0] for seed in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(torch.stack(seen[:3]), torch.stack(seen[3:]))


def test_orthogonal_initialisation_starts_orthogonal():
    found = run(Arm("orthogonal", orthogonal_init=True), replace(SETTINGS, epochs=1))
    start = found.layers[found.layers.epoch == 0]
    assert (start.rms < 1e-5).all()
    assert (run(PLAIN, replace(SETTINGS, epochs=1)).layers.query("epoch == 0").rms > 0.05).all()


def test_training_is_a_function_of_the_seed_and_augmentation_can_be_left_out(monkeypatch):
    assert_same(run(RANDOM), run(RANDOM))
    calls = interrupt(monkeypatch, after=0)  # it would fail if it were called
    run(PLAIN, replace(SETTINGS, augment=False))
    assert not calls


# --- what comes out --------------------------------------------------------------------------------


def test_history_layers_and_snapshots_cover_every_epoch_from_the_untrained_model_on():
    found = run(gram("Gram", 2.0))
    assert list(found.history.epoch) == [0, 1, 2, 3]
    assert found.history.loc[0, ["task", "penalty"]].isna().all()
    assert np.isfinite(found.history.loc[1:].to_numpy(float)).all()
    assert list(found.snapshots) == [0, 1, 2, 3]
    assert found.snapshots[0].shape == (8, 3, 3, 3)
    layers = select_layers(found.model)
    assert torch.equal(found.snapshots[3], next(iter(layers.values())).weight)
    assert not torch.equal(found.snapshots[3], found.snapshots[2])
    assert list(found.layers.layer) == ["conv1", "conv2", "conv3", "conv4"] * 4
    last = found.layers.query("epoch == 3")
    for rms, layer in zip(last.rms, layers.values(), strict=True):
        assert rms == pytest.approx(gram_penalty(as_matrix(layer.weight)).sqrt().item(), rel=1e-4)


def test_scores_that_are_left_out_change_no_other_number(tmp_path):
    often, once = run(RANDOM), run(RANDOM, replace(SETTINGS, score_every=0), checkpoint=tmp_path / "arm")
    scores = ["test_loss", "test_accuracy"]
    assert often.history[scores].notna().all(axis=None)
    assert once.history[scores].notna().all(axis=1).tolist() == [False, False, False, True]
    expected = often.history.assign(**{name: often.history[name].where(often.history.epoch == 3) for name in scores})
    assert_same(replace(once, history=once.history[expected.columns]), replace(often, history=expected))
    assert_same(run(RANDOM, replace(SETTINGS, score_every=0), checkpoint=tmp_path / "arm"), once)  # from its checkpoint


def test_weight_decay_shrinks_filters_alone():
    """All other parameters have no decay."""
    seen = []

    class Recorded(torch.optim.AdamW):
        def __init__(self, groups, *arguments, **options):
            super().__init__(groups, *arguments, **options)
            seen.append({id(value): group["weight_decay"] for group in self.param_groups for value in group["params"]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Recorded)
        found = run(Arm("decay", "weight_decay", 0.5), replace(SETTINGS, epochs=1))
        run(PLAIN, replace(SETTINGS, epochs=1))
    filters = {id(layer.weight) for layer in select_layers(found.model).values()}
    decay, none = seen
    assert decay == {id(value): 0.5 * (id(value) in filters) for value in found.model.parameters()}
    assert set(none.values()) == {0.0}


def test_the_reported_test_scores_are_those_of_the_model_that_is_handed_back():
    found = run(PLAIN)
    assert not found.model.training
    assert found.history[["test_loss", "test_accuracy"]].iloc[-1].tolist() == pytest.approx(score(found.model, TEST))


def test_the_reported_penalty_is_its_strength_times_its_mean_value_over_the_steps(monkeypatch):
    values, penalty_of_arm = [], training.penalty_of

    def recorded(*arguments):
        penalty = penalty_of_arm(*arguments)
        return lambda: values.append(penalty()) or values[-1]

    monkeypatch.setattr(training, "penalty_of", recorded)
    found = run(gram("Gram", 7.0), replace(SETTINGS, epochs=1))
    assert len(values) == 3
    assert found.history.penalty[1] == pytest.approx(7 * sum(values).item() / 3, rel=1e-5)


def test_score_is_cross_entropy_and_accuracy_whatever_the_batch():
    class Constant(nn.Module):
        def forward(self, batch):
            assert batch.abs().max() <= 1
            return torch.tensor([2.0, 0.0, 0.0]).expand(len(batch), 3)

    loss, accuracy = score(Constant(), TEST, batch_size=5)
    log_sum = np.log(np.exp(2) + 2)
    assert loss == pytest.approx(log_sum - 2 / 3)
    assert accuracy == pytest.approx(1 / 3)


def test_the_penalty_lowers_the_similarity_of_filters_and_training_still_learns():
    settings = replace(SETTINGS, epochs=12, learning_rate=1e-2)
    found = train_arms([PLAIN, gram("Gram", 10.0), gram("random", 10.0, groups=2)], TRAIN, TEST, settings, seed=0)
    rms = {label: result.layers.query("epoch == 12").rms.mean() for label, result in found.items()}
    assert rms["Gram"] < 0.6 * rms["plain"]
    assert rms["random"] < 0.6 * rms["plain"]
    for result in found.values():
        assert result.history.task.iloc[-1] < result.history.task.iloc[1]


@pytest.mark.parametrize("arm", [*regulariser_arms(1.0), *grouping_arms(1.0, [2, 4])], ids=lambda arm: arm.label)
def test_every_arm_of_the_study_trains_and_leaves_no_hooks(arm):
    found = run(arm, replace(SETTINGS, epochs=1), train=images(16))
    assert np.isfinite(found.history.task[1])
    if arm.penalty not in ("none", "weight_decay"):
        assert np.isfinite(found.history.penalty[1])
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in found.model.modules())


# --- arms ------------------------------------------------------------------------------------------


def test_arms_have_different_labels_and_known_penalties():
    labels = [arm.label for arm in [*regulariser_arms(1.0), *grouping_arms(1.0, [2, 4, 8])]]
    assert len(set(labels)) == len(labels)
    with pytest.raises(KeyError, match="grams"):
        penalty_of(Arm("typo", "grams"), {})


def test_an_arm_becomes_its_penalty_on_the_layers():
    model = narrow("vanilla", 3)
    layers = select_layers(model)
    assert penalty_of(PLAIN, layers) is None
    fourth = penalty_of(gram("p = 4", 1.0, power=4), layers)
    assert fourth().item() == pytest.approx(mean_over_layers(layers, power=4).item())
    assert isinstance(penalty_of(Arm("answers", "responses"), layers), ResponsePenalty)


def test_fixed_and_random_groups_are_compared_at_the_same_strength():
    arms = {arm.label: arm for arm in grouping_arms(3.0, [2, 8])}
    assert list(arms) == ["plain", "Gram", "fixed g = 2", "fixed g = 8", "random g = 2", "random g = 8"]
    assert {arm.strength for label, arm in arms.items() if label != "plain"} == {3.0}
    assert arms["fixed g = 8"].options == {"groups": 8, "grouping": "contiguous"}
    assert arms["random g = 8"].options == {"groups": 8}


def test_arms_with_the_same_label_are_refused():
    with pytest.raises(ValueError, match=r"labels that differ .*: \['plain', 'plain'\]"):
        train_arms([PLAIN, Arm("plain", "weight_decay", 0.1)], TRAIN, TEST, SETTINGS, seed=0)


def test_arms_of_one_experiment_keep_their_checkpoints_apart(tmp_path, monkeypatch):
    arms = [PLAIN, gram("Gram, p = 4", 1.0, power=4), gram("random g = 2", 1.0, groups=2)]
    first = train_arms(arms, TRAIN, TEST, SETTINGS, seed=0, checkpoints=tmp_path)
    assert list(first) == [arm.label for arm in arms]
    calls = interrupt(monkeypatch, after=0)
    second = train_arms(arms, TRAIN, TEST, SETTINGS, seed=0, checkpoints=tmp_path)  # all from their checkpoints
    assert not calls
    for label in first:
        assert_same(second[label], first[label])


# --- resuming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", [PLAIN, RANDOM, DECOV], ids=lambda arm: arm.label)
def test_a_run_that_failed_in_its_second_epoch_goes_on_bit_for_bit(arm, tmp_path, monkeypatch):
    whole = run(arm)
    with monkeypatch.context() as patch:
        calls = interrupt(patch, after=4)  # 3 steps per epoch: fails in the second step of the second epoch
        with pytest.raises(Interruption):
            run(arm, checkpoint=tmp_path / "arm")
        assert len(calls) == 5
    torch.manual_seed(99)  # another process, another random state
    with monkeypatch.context() as patch:
        calls = interrupt(patch, after=100)
        assert_same(run(arm, checkpoint=tmp_path / "arm"), whole)
        assert len(calls) == 6  # epochs 2 and 3


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from lib.corregularization import training
from lib.corregularization.arms import Arm, gram
from lib.corregularization.models import build_model
from lib.data.images import Images

torch.set_num_threads(1)
training.build_model = lambda name, classes: build_model(name, classes, width=0.25)
train, test, arms, settings, folder, after = torch.load(sys.argv[1], weights_only=False)
augment, calls = training.flip_and_shift, []

def deadly(pixels):
    calls.append(1)
    if len(calls) > after:
        os.kill(os.getpid(), signal.SIGKILL)
    return augment(pixels)

training.flip_and_shift = deadly
training.train_arms(arms, train, test, settings, seed=0, checkpoints=Path(folder))
"""


def test_a_run_that_was_killed_goes_on_bit_for_bit_and_keeps_finished_arms(tmp_path, monkeypatch):
    arms = [DECOV, RANDOM]
    whole = train_arms(arms, TRAIN, TEST, SETTINGS, seed=0)
    torch.save((TRAIN, TEST, arms, SETTINGS, str(tmp_path / "arms"), 9 + 4), tmp_path / "task.pt")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "task.pt")],
        env=os.environ | {"PYTHONPATH": str(paths.ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    calls = interrupt(monkeypatch, after=100)
    resumed = train_arms(arms, TRAIN, TEST, SETTINGS, seed=0, checkpoints=tmp_path / "arms")
    assert len(calls) == 6  # none for the finished arm, epochs 2 and 3 of the other
    for label in whole:
        assert_same(resumed[label], whole[label])


def steps_taken(monkeypatch, *arguments, **options):
    with monkeypatch.context() as patch:
        calls = interrupt(patch, after=1000)
        return run(*arguments, **options), len(calls)


def test_a_finished_run_trains_nothing_again_also_under_another_label(tmp_path, monkeypatch):
    first = run(RANDOM, checkpoint=tmp_path / "arm")
    again, steps = steps_taken(monkeypatch, replace(RANDOM, label="renamed"), checkpoint=tmp_path / "arm")
    assert steps == 0
    assert_same(again, first)


@pytest.mark.parametrize(
    "change",
    [
        {"arm": replace(RANDOM, strength=2.0)},
        {"arm": replace(RANDOM, options={"groups": 2})},
        {"arm": replace(RANDOM, strength=0.123)},
        {"settings": replace(SETTINGS, learning_rate=1e-3)},
        {"seed": 1},
        {"train": images(27, seed=2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_setting_starts_anew(change, tmp_path, monkeypatch):
    changed = {"arm": RANDOM, "settings": SETTINGS} | change
    whole = run(**changed)
    with monkeypatch.context() as patch:
        interrupt(patch, after=4)
        with pytest.raises(Interruption):
            run(RANDOM, checkpoint=tmp_path / "arm")
    found, steps = steps_taken(monkeypatch, checkpoint=tmp_path / "arm", **changed)
    assert steps == 9
    assert_same(found, whole)


# --- label noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.6, 1])
def test_label_noise_changes_exactly_the_share_and_always_to_another_class(share):
    clean = images(200, classes=5)
    noisy = with_label_noise(clean, share, seed=0)
    assert (noisy.labels != clean.labels).sum() == round(share * 200)
    assert noisy.labels.min() >= 0
    assert noisy.labels.max() < 5
    assert torch.equal(noisy.pixels, clean.pixels)
    assert torch.equal(clean.labels, images(200, classes=5).labels)  # the original is left alone


def test_wrong_labels_are_drawn_evenly_from_the_other_classes():
    clean = images(4000, classes=5)
    noisy = with_label_noise(clean, 1, seed=0)
    shifts = torch.bincount((noisy.labels - clean.labels) % 5, minlength=5)
    assert shifts[0] == 0
    assert (shifts[1:] - 1000).abs().max() < 4 * (1000 * 0.75) ** 0.5


def test_label_noise_repeats_with_its_seed_and_is_told_from_clean_labels():
    clean = images(100)
    first, again, other = (with_label_noise(clean, 0.3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)
    assert len({clean.checksum, first.checksum, other.checksum, with_label_noise(clean, 0.4, seed=0).checksum}) == 4
    with pytest.raises(ValueError, match=r"share in \[0, 1\], not 1.2"):
        with_label_noise(clean, 1.2, seed=0)


@pytest.mark.parametrize("steps", range(1, 9))
def test_any_number_of_steps_has_a_schedule(steps):
    """OneCycleLR divides by zero if a quarter of the steps is one step."""
    found = run(PLAIN, replace(SETTINGS, epochs=1, batch_size=27 // steps), train=images(27 // steps * steps))
    assert np.isfinite(found.history.task.iloc[-1])


# -- on a GPU, where the step is captured --------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(
    "arm", [PLAIN, gram("random", 10.0, groups=2), *regulariser_arms(10.0)], ids=lambda arm: arm.label
)
def test_a_captured_training_is_the_training(arm, monkeypatch):
    settings = replace(SETTINGS, device="cuda", epochs=3)
    found = train_arm(arm, TRAIN, TEST, settings, seed=0).history
    monkeypatch.setattr("lib.training.Captured.WARM_UP", 10**9)
    expected = train_arm(arm, TRAIN, TEST, settings, seed=0).history
    pd.testing.assert_frame_equal(found, expected, rtol=1e-2)
