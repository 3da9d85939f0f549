"""Training: repeatability, independence of labels, resuming bit for bit, queues, and errors."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from toy_training import in_processes, train_codes

from lib.categorical import losses, training
from lib.categorical.arms import Arm, ablation_arms, main_arms, published_arms, size_arms
from lib.categorical.training import Settings, make_step, objective, rate_factor, train_arm, train_arms
from lib.data.images import Images
from lib.data.shapes import CLASSES, draw_shapes
from lib.training import TrainingError, start

SETTINGS = Settings(epochs=2, batch_size=10, learning_rate=0.1, width=4, device="cpu")
ARM = Arm("categorical", positions=4, categories=3)
EVERY = [*main_arms(4, 3, 15), *published_arms(4, 3), *ablation_arms(ARM)[1:]]


def images(count=30, seed=0):
    pixels, labels, _ = draw_shapes(count, size=16, seed=seed, plain=True)
    return Images(pixels, labels, CLASSES, "shapes", f"{count} {seed}", "train")


TRAIN = images()


def weights(result):
    return torch.cat([value.double().flatten() for value in result.network.state_dict().values()])


def test_two_processes_have_the_losses_of_one_with_all_images(tmp_path):
    arms = [*main_arms(4, 3, 20), *published_arms(4, 3)]
    (alone,) = in_processes(1, train_codes, tmp_path, arms)
    for found in in_processes(2, train_codes, tmp_path, arms):
        torch.testing.assert_close(found, alone)


# -- every arm -----------------------------------------------------------------------------


@pytest.mark.parametrize("arm", EVERY, ids=lambda arm: arm.label)
def test_every_arm_learns_the_same_twice_and_moves(arm):
    first, second = (train_arm(arm, TRAIN, SETTINGS, seed=1) for _ in range(2))
    assert torch.equal(weights(first), weights(second))
    assert list(first.history.images) == [0, 30, 60]
    assert first.history.loss.iloc[1:].map(math.isfinite).all()
    torch.manual_seed(1)
    untrained = training.Network(training.build_encoder("small", 4), arm.shape)
    assert not torch.equal(weights(first), weights(training.Trained(arm, untrained, pd.DataFrame())))
    assert not any(module.training for module in first.network.modules())


def learned(**settings):
    """Return by how much the loss falls over 120 steps, in nats."""
    arm = replace(ARM, positions=8, categories=6)
    history = train_arm(
        arm, images(100), replace(SETTINGS, epochs=24, batch_size=20, smallest_crop=0.6, **settings), seed=0
    ).history
    return history.loss.iloc[1:3].mean() - history.loss.iloc[-4:].mean()


@pytest.mark.parametrize("how", [{}, {"precision": "bf16"}, {"optimizer": "muon", "learning_rate": 0.03}], ids=str)
def test_training_lowers_the_loss(how):
    assert learned(**how) > 0.1


def test_every_weight_has_one_optimizer():
    """Muon takes weights with rows and columns and SGD the others; under "sgd", SGD takes all."""
    network = training.Network(training.build_encoder("small", 4), ARM.shape)
    for name, kinds in (("sgd", ["SGD"]), ("muon", ["SGD", "Muon"])):
        found = training.optimizers(network, replace(SETTINGS, optimizer=name), on_gpu=False)
        assert [type(one).__name__ for one in found] == kinds
        groups = [weight for one in found for group in one.param_groups for weight in group["params"]]
        assert {id(weight) for weight in groups} == {id(weight) for weight in network.parameters()}
        assert len(groups) == len(list(network.parameters()))
    assert {weight.ndim for weight in found[0].param_groups[0]["params"]} == {1}
    assert {weight.ndim for weight in found[1].param_groups[0]["params"]} == {2, 4}
    with pytest.raises(ValueError, match="optimizer 'adam' is unknown; choose 'sgd' or 'muon'"):
        training.optimizers(network, replace(SETTINGS, optimizer="adam"), on_gpu=False)


@pytest.mark.parametrize("arm", [ARM, EVERY[1], EVERY[2]], ids=lambda arm: arm.label)
def test_no_label_reaches_training(arm):
    """On data without labels, where reading any would fail, the network is the same to the last bit."""

    class Blind:
        def __init__(self, seen):
            self.pixels, self.checksum = seen.pixels, seen.checksum

        def __len__(self):
            return len(self.pixels)

    assert torch.equal(
        weights(train_arm(arm, TRAIN, SETTINGS, seed=0)), weights(train_arm(arm, Blind(TRAIN), SETTINGS, seed=0))
    )


def test_arms_see_the_same_views_in_the_same_order(monkeypatch):
    seen = {}
    original = training.Views.forward

    def spy(self, pixels):
        found = original(self, pixels)
        seen.setdefault(current, []).append(found[0])
        return found

    monkeypatch.setattr(training.Views, "forward", spy)
    for current in ("categorical", "MoCo"):
        train_arm(next(arm for arm in EVERY if arm.label == current), TRAIN, SETTINGS, seed=0)
    assert len(seen["MoCo"]) == 6
    assert all(torch.equal(a, b) for a, b in zip(seen["categorical"], seen["MoCo"], strict=True))


# -- resuming ------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("arm", [ARM, EVERY[1], EVERY[3], EVERY[5]], ids=lambda arm: arm.label)
def test_a_training_that_was_cut_goes_on_bit_for_bit(arm, optimizer, tmp_path, monkeypatch):
    """Including its queue, momentum encoder, optimizers and schedules."""
    settings = replace(SETTINGS, epochs=4, optimizer=optimizer)
    whole = train_arm(arm, TRAIN, settings, seed=0, checkpoint=tmp_path / "whole")
    original, calls = training.objective, []

    def cut(*parts):
        calls.append(1)
        if len(calls) == 8:  # in the third epoch
            raise Stop
        return original(*parts)

    monkeypatch.setattr(training, "objective", cut)
    with pytest.raises(Stop):
        train_arm(arm, TRAIN, settings, seed=0, checkpoint=tmp_path / "cut")
    calls.append(100)
    resumed = train_arm(arm, TRAIN, settings, seed=0, checkpoint=tmp_path / "cut")
    assert len(calls) == 8 + 1 + 6  # the third and the fourth epoch, nothing else
    assert torch.equal(weights(whole), weights(resumed))
    pd.testing.assert_frame_equal(whole.history, resumed.history)


def test_other_settings_start_anew(tmp_path):
    train_arm(ARM, TRAIN, SETTINGS, seed=0, checkpoint=tmp_path / "arm")
    other = train_arm(replace(ARM, entropy=0.0), TRAIN, SETTINGS, seed=0, checkpoint=tmp_path / "arm")
    assert "entropy" not in other.history


# -- the pieces ----------------------------------------------------------------------------


def test_carp_s_keys_are_of_the_other_view(monkeypatch):
    """At the first step, both networks and their batch statistics are equal, so the keys are the outputs for the other
    view, image by image."""
    original, seen = training.objective, []

    def spy(arm, outputs, keys, queue):
        seen.append((outputs.detach().clone(), keys.clone()))
        return original(arm, outputs, keys, queue)

    monkeypatch.setattr(training, "objective", spy)
    (carp,) = (arm for arm in published_arms(4, 3) if arm.loss == "carp")
    train_arm(carp, TRAIN, replace(SETTINGS, epochs=1), seed=0)
    outputs, keys = seen[0]
    first, second = outputs.chunk(2)
    torch.testing.assert_close(keys, torch.cat([second, first]), rtol=1e-4, atol=1e-5)
    assert (first - second).abs().max() > 1e-2


def test_the_queue_holds_the_keys_of_the_last_batches(monkeypatch):
    queues = []
    original = training.objective

    def spy(arm, outputs, keys, queue):
        queues.append(queue.clone())
        return original(arm, outputs, keys, queue)

    monkeypatch.setattr(training, "objective", spy)
    train_arm(EVERY[1], TRAIN, SETTINGS, seed=0)  # 15 slots, batches of 10
    assert [len(queue) for queue in queues] == [0, 10, 15, 15, 15, 15]
    assert torch.allclose(queues[-1].sum(-1), torch.ones(15, 4), atol=1e-5)  # codes: each position sums to one


def test_a_queue_smaller_than_the_batch_works():
    result = train_arm(replace(EVERY[1], queue=3), TRAIN, SETTINGS, seed=0)
    assert math.isfinite(result.history.loss.iloc[-1])


def test_keys_get_no_gradient_but_queries_do():
    generator = torch.Generator().manual_seed(0)
    outputs, keys = (torch.randn(6, 4, 3, generator=generator, requires_grad=True) for _ in range(2))
    terms, pushed = objective(EVERY[1], outputs, keys, torch.rand(5, 4, 3).softmax(-1))
    sum(terms.values()).backward()
    assert outputs.grad.abs().sum() > 0 and keys.grad is None
    assert torch.allclose(pushed, losses.discretise(keys, temperature=0.3))


@pytest.mark.parametrize("arm", EVERY, ids=lambda arm: arm.label)
def test_losses_are_computed_in_float32_whatever_autocast_says(arm):
    generator = torch.Generator().manual_seed(0)
    outputs, keys = (torch.randn(6, *arm.shape, generator=generator).bfloat16() for _ in range(2))
    queue = torch.rand(5, *arm.shape, generator=generator).softmax(-1) if arm.queue else None
    torch.manual_seed(0)  # for sampled codes
    expected, _ = objective(arm, outputs.float(), keys.float(), queue)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, pushed = objective(arm, outputs, keys, queue)
    assert pushed.dtype == torch.float32
    for name, value in expected.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], value)


def test_the_schedule_rises_then_falls_to_zero():
    values = [rate_factor(step, 100) for step in range(100)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a >= b for a, b in zip(values[4:], values[5:], strict=False)) and values[-1] < 0.001
    assert [rate_factor(0, steps) for steps in (1, 2, 3)] == [1, 1, 1]


def test_the_step_can_be_taken_alone():
    _, step = make_step(start("cpu"), ARM, TRAIN.pixels, SETTINGS, steps=10)
    assert set(step(torch.arange(10))) == {"loss", "entropy"}


# -- bad input -----------------------------------------------------------------------------


def test_fewer_images_than_a_batch_is_an_error():
    with pytest.raises(TrainingError, match="30 samples do not fill one batch of 31"):
        train_arm(ARM, TRAIN, replace(SETTINGS, batch_size=31), seed=0)


def test_a_batch_of_one_is_an_error_with_or_without_a_queue():
    for arm in (ARM, EVERY[1]):
        with pytest.raises(ValueError, match="batch_size must be 2 or more"):
            train_arm(arm, TRAIN, replace(SETTINGS, batch_size=1), seed=0)


def test_a_key_encoder_that_never_moves_is_refused():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), not 1.0"):
        replace(ARM, momentum=1.0)


def test_nan_in_the_encoder_names_the_epoch(monkeypatch):
    original, calls = training.objective, []

    def spoiled(arm, outputs, keys, queue):
        calls.append(1)
        return original(arm, outputs * (math.nan if len(calls) == 5 else 1), keys, queue)

    monkeypatch.setattr(training, "objective", spoiled)
    with pytest.raises(TrainingError, match="categorical: not finite in epoch 2: 'loss'"):
        train_arm(ARM, TRAIN, SETTINGS, seed=0)


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (1, 1)])
def test_one_position_or_one_category_is_defined(shape):
    arm = replace(ARM, positions=shape[0], categories=shape[1])
    history = train_arm(arm, TRAIN, SETTINGS, seed=0).history
    assert history.loss.iloc[1:].map(math.isfinite).all()
    if shape[1] == 1:  # all codes are equal
        assert history.loss.iloc[-1] == pytest.approx(math.log(19), rel=1e-5)


def test_moco_takes_a_queue():
    with pytest.raises(ValueError, match="negatives from a queue: set"):
        Arm("x", "moco")


def test_labels_name_folders():
    with pytest.raises(ValueError, match="differ in letters or digits"):
        train_arms([ARM, replace(ARM, label="Categorical!")], TRAIN, SETTINGS, seed=0)
    assert len({arm.label for arm in size_arms(ARM, [1, 4], [2, 3])}) == 4


# -- on a GPU, where the step is captured --------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("arm", EVERY, ids=lambda arm: arm.label)
def test_a_captured_training_is_the_training(arm, optimizer, monkeypatch):
    # A low learning rate, so that rounding errors grow little.
    settings = replace(SETTINGS, device="cuda", epochs=4, learning_rate=1e-3, optimizer=optimizer)
    found = train_arm(arm, TRAIN, settings, seed=0).history
    monkeypatch.setattr("lib.training.Captured.WARM_UP", 10**9)
    expected = train_arm(arm, TRAIN, settings, seed=0).history
    pd.testing.assert_frame_equal(found, expected, rtol=1e-2)
