"""Training: conditions, equal parameters, resuming bit for bit, averaging, and parity with the classic step."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from classic import classic_step
from torch import nn
from toy_training import in_processes, train_gans

from lib.data.augment import as_float
from lib.data.images import Images
from lib.laplacian_gan import pyramid, training
from lib.laplacian_gan.arms import (
    DCGAN,
    LEVELS,
    PYRAMID,
    Arm,
    control_arms,
    level_arms,
    mixture_arms,
    noise_arms,
    objective_arms,
)
from lib.laplacian_gan.losses import zero_centred_penalty
from lib.laplacian_gan.models import Discriminator, Generator
from lib.laplacian_gan.training import (
    Settings,
    all_bands,
    calibrate,
    conditions,
    gaussian,
    latents,
    scales_of,
    train_arm,
    train_arms,
)
from lib.training import MovingAverage, TrainingError, prepare, start

SETTINGS = Settings(epochs=2, batch_size=8, width=4, device="cpu")
# Without those that differ from others in an optimiser setting alone.
ARMS = [*control_arms(), *(arm for arm in objective_arms()[1:] if not arm.label.startswith("beta1"))]


def images(count=24, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    pixels = nn.functional.interpolate(coarse, size, mode="bilinear")
    pixels = (255 * (0.8 * pixels + 0.2 * torch.rand(pixels.shape, generator=generator))).to(torch.uint8)
    return Images(pixels, torch.arange(count) % 2, ("a", "b"), "noise", f"checksum {seed} {count} {size}", "train")


TRAIN = images()
FLOATS = as_float(TRAIN.pixels)
SCALES = scales_of(TRAIN)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# -- what an arm is conditioned on ---------------------------------------------------------------------


def test_bands_have_unit_variance_and_rebuild_the_image():
    bands = all_bands(FLOATS, SCALES)
    assert list(bands) == [4, 8, 16, 32]
    for band in bands.values():
        assert band.std(dim=(0, 2, 3)).square().mean().sqrt().item() == pytest.approx(1, abs=0.02)
    scaled = [band * scale for band, scale in zip(bands.values(), SCALES, strict=True)]
    torch.testing.assert_close(pyramid.collapse(scaled[::-1]), FLOATS, atol=1e-6, rtol=0)


def test_bands_of_constant_images_stay_zero():
    grey = replace(TRAIN, pixels=torch.full_like(TRAIN.pixels, 127))
    bands = list(all_bands(torch.zeros(2, 3, 32, 32), scales_of(grey)).values())
    assert all(torch.equal(band, torch.zeros_like(band)) for band in bands)


def test_own_bands_are_those_of_the_image():
    bands = conditions(FLOATS, replace(PYRAMID, levels=(8, 32)), SCALES)
    expected = all_bands(FLOATS, SCALES)
    assert list(bands) == [8, 32] and all(torch.equal(bands[r], expected[r]) for r in bands)


def test_zeros_and_noise_say_nothing_of_the_image():
    zeros = conditions(FLOATS, replace(PYRAMID, condition="zeros"), SCALES)
    assert all(not band.any() for band in zeros.values())
    torch.manual_seed(0)
    first = conditions(FLOATS, replace(PYRAMID, condition="noise"), SCALES)
    torch.manual_seed(0)
    again = conditions(torch.zeros_like(FLOATS), replace(PYRAMID, condition="noise"), SCALES)
    assert all(torch.equal(first[r], again[r]) for r in first)
    assert first[32].std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("images", "groups"), [(1, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (4, [0, 1, 2, 3])])
def test_bands_of_several_images_come_from_as_many(images, groups):
    """In training, from preceding images of the batch; in sampling, from preceding sources, also across chunks."""
    arm, own = replace(PYRAMID, images=images), all_bands(FLOATS, SCALES)
    bands, places = conditions(FLOATS, arm, SCALES), torch.arange(len(FLOATS))
    for level, group in zip(LEVELS, groups, strict=True):
        assert torch.equal(bands[level], own[level][(places - group) % len(FLOATS)])
    seen = []

    class Recorder(torch.nn.Linear):
        def forward(self, z, bands):
            seen.append(bands)
            return torch.zeros(len(z), 3, 32, 32)

    made = training.Trained(arm, Recorder(1, 1), SCALES, pd.DataFrame(), {})
    made.sample_from(latents(300, 1, 0), TRAIN.pixels[torch.arange(300) % len(TRAIN)])
    found = {level: torch.cat([part[level] for part in seen]) for level in LEVELS}
    for level, group in zip(LEVELS, groups, strict=True):
        torch.testing.assert_close(found[level], own[level][(torch.arange(300) - group) % 300 % len(TRAIN)])


def test_noise_of_the_levels():
    torch.manual_seed(0)
    arm = replace(PYRAMID, level_noise=0.5)
    bands, own = conditions(FLOATS, arm, SCALES), all_bands(FLOATS, SCALES)
    difference = bands[32] - own[32]
    assert difference.std().item() == pytest.approx(0.5, rel=0.02)


def test_gaussian_pyramid_of_the_chain():
    found = gaussian(FLOATS)
    assert sorted(found) == [4, 8, 16, 32]
    torch.testing.assert_close(found[32], FLOATS, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[16].mean((2, 3)), FLOATS.mean((2, 3)), atol=0.05, rtol=0)


# -- arms ------------------------------------------------------------------------------------


def test_labels_are_unique_within_an_experiment():
    for arms in (control_arms() + noise_arms([0.5, 1.0]) + level_arms(), objective_arms()):
        assert len({arm.label for arm in arms}) == len(arms)


@pytest.mark.parametrize(("what", "message"), [
    ({"loss": "wasserstein-gp", "penalty": 10.0}, "do not go with norm='batch'"),
    ({"levels": (4, 8), "sees_levels": True, "augmentation": "diffaugment"}, "do not match augmented images"),
])  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(what, message):
    with pytest.raises(ValueError, match=message):
        training.Arm("mine", **what)


def test_no_arm_repeats_dcgan_without_the_sources_weight_decay():
    once = replace(SETTINGS, epochs=1)
    decayed, free = (train_arm(arm, TRAIN, once, seed=0) for arm in (DCGAN, replace(DCGAN, weight_decay=0.0)))
    assert same(decayed.generator, free.generator)  # a factor of 1 - 4e-9 per step rounds to 1
    assert {arm.weight_decay for arm in objective_arms()} == {DCGAN.weight_decay}


def test_null_controls_have_the_pyramid_gans_parameters():
    trained = train_arms(control_arms()[1:4] + mixture_arms(), TRAIN, replace(SETTINGS, epochs=1), seed=0)
    assert len({tuple(result.parameters.items()) for result in trained.values()}) == 1


def test_two_levels_have_no_leave_one_out():
    assert [arm.levels for arm in level_arms((4, 32))] == [(4,), (32,)]
    assert (8, 16, 32) in [arm.levels for arm in level_arms()]


# -- training --------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.label)
def test_every_arm_trains_and_samples(arm):
    torch.manual_seed(5)
    result = train_arm(arm, TRAIN, replace(SETTINGS, epochs=1), seed=0)
    assert np.isfinite(result.history.g_loss.iloc[-1]) and result.history.images.iloc[-1] == 24
    before = torch.get_rng_state()
    pixels = result.sample(5, TRAIN.pixels[:5], seed=1)
    assert pixels.dtype == torch.uint8 and pixels.shape == (5, 3, 32, 32)
    assert torch.equal(pixels, result.sample(5, TRAIN.pixels[:5], seed=1))
    assert torch.equal(before, torch.get_rng_state())
    assert not result.generator.training


@pytest.mark.parametrize("size", [64, 128])
def test_larger_images(size):
    train = images(8, size=size)
    result = train_arm(PYRAMID, train, replace(SETTINGS, epochs=1, width=2), seed=0)
    assert result.sample(2, train.pixels[:2], seed=0).shape == (2, 3, size, size)


def test_the_same_seed_gives_the_same_z_and_another_seed_another():
    assert torch.equal(latents(4, 100, 3), latents(4, 100, 3)) and not torch.equal(
        latents(4, 100, 3), latents(4, 100, 4)
    )


def test_the_pyramid_decides_and_zeros_do_not():
    settings = replace(SETTINGS, epochs=1)
    bands = train_arm(PYRAMID, TRAIN, settings, seed=0)
    z = latents(1, 100, 0).expand(2, -1)
    two = bands.sample_from(z, TRAIN.pixels[:2])
    assert not torch.equal(two[0], two[1])
    null = train_arm(control_arms()[2], TRAIN, settings, seed=0).sample_from(z)
    assert torch.equal(null[0], null[1])


def test_noise_on_bands_is_none_of_the_numbers_of_z():
    seen = []

    class Recorder(torch.nn.Linear):
        size, latent = 32, 48  # as many numbers as in a band of 4 px

        def forward(self, z, bands):
            seen.append((z, bands[4]))
            return torch.zeros(len(z), 3, 32, 32)

    arm = Arm("noise", levels=(4,), condition="noise")
    training.Trained(arm, Recorder(1, 1), SCALES, pd.DataFrame(), {}).sample(100, seed=5)
    z, band = seen[0]
    assert not np.isin(band.flatten().numpy(), z.flatten().numpy()).any()


def test_weight_decay_of_the_source_does_nothing():
    """In float32, 1 - 2e-4 · 2e-5 rounds to 1."""
    settings = replace(SETTINGS, epochs=1)
    with_decay = train_arm(DCGAN, TRAIN, settings, seed=0)
    without = train_arm(replace(DCGAN, weight_decay=0.0), TRAIN, settings, seed=0)
    assert same(with_decay.generator, without.generator)
    strong = train_arm(replace(DCGAN, weight_decay=10.0), TRAIN, settings, seed=0)
    assert not same(with_decay.generator, strong.generator)


def test_a_decoder_learns_to_copy():
    settings = replace(SETTINGS, epochs=40, ema=0.9)
    arm = Arm("decoder", kind="decoder", levels=LEVELS, learning_rate=2e-3, beta1=0.5)
    loss = train_arm(arm, TRAIN, settings, seed=0).history.g_loss.dropna()
    assert loss.iloc[-1] < 0.5 * loss.iloc[0]


def test_averaging_starts_fast_and_then_follows_its_decay():
    layer = nn.Linear(1, 1, bias=False)
    expected = layer.weight.item()
    mean = MovingAverage(layer, 0.9, ramp=True)
    for step, value in enumerate([1.0, 2.0, -1.0, 4.0]):
        nn.init.constant_(layer.weight, value)
        mean.update_parameters(layer)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert mean.module.weight.item() == pytest.approx(expected)


def test_calibration_gives_batch_norms_their_own_statistics():
    torch.manual_seed(0)
    generator = Generator(32, width=4)
    norm = generator.first[1]
    norm.running_mean += 100
    before = torch.get_rng_state()
    calibrate(generator, DCGAN, SCALES, TRAIN, 8)
    assert torch.equal(before, torch.get_rng_state()) and not generator.training
    z = torch.randn(4000, 100)
    features = generator.first[0](z[:, :, None, None]).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, features, atol=0.02, rtol=0)


def test_scores_are_taken_where_asked_and_disturb_nothing():
    seen = []

    def score(trained):
        seen.append(len(seen))
        torch.rand(100)
        return {"fid": 1.0 + len(seen)}

    settings = replace(SETTINGS, epochs=4, score_every=2)
    scored = train_arm(DCGAN, TRAIN, settings, seed=0, score=score)
    assert scored.history.fid.notna().tolist() == [True, False, True, False, True] and len(seen) == 3
    assert same(scored.generator, train_arm(DCGAN, TRAIN, settings, seed=0).generator)


def interrupt(monkeypatch, after):
    calls = []
    original = training.adversarial_step

    def failing(*arguments):
        step = original(*arguments)

        def counted(*inputs):
            if len(calls) == after:
                raise KeyboardInterrupt
            calls.append(None)
            return step(*inputs)

        return counted

    monkeypatch.setitem(training.STEPS, "gan", failing)
    return calls


RELATIVISTIC = replace(objective_arms()[3], penalty_every=4)


@pytest.mark.parametrize(
    "arm", [DCGAN, replace(PYRAMID, images=4), RELATIVISTIC], ids=["DCGAN", "four images", "lazy penalty"]
)
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(arm, tmp_path, monkeypatch):
    settings = replace(SETTINGS, epochs=3)  # of 3 steps each
    expected = train_arm(arm, TRAIN, settings, seed=0)
    with monkeypatch.context() as patch:
        interrupt(patch, after=5)
        with pytest.raises(KeyboardInterrupt):
            train_arm(arm, TRAIN, settings, seed=0, checkpoint=tmp_path / "arm")
    with monkeypatch.context() as patch:
        calls = interrupt(patch, after=100)
        found = train_arm(arm, TRAIN, settings, seed=0, checkpoint=tmp_path / "arm")
        assert len(calls) == 6
    assert same(found.generator, expected.generator)
    assert found.history.equals(expected.history)


def test_another_setting_or_data_starts_anew(tmp_path, monkeypatch):
    folder = tmp_path / "arm"
    train_arm(DCGAN, TRAIN, SETTINGS, seed=0, checkpoint=folder)
    calls = interrupt(monkeypatch, after=100)
    train_arm(replace(DCGAN, label="renamed"), TRAIN, SETTINGS, seed=0, checkpoint=folder)
    assert not calls
    train_arm(replace(DCGAN, beta1=0.5), TRAIN, SETTINGS, seed=0, checkpoint=folder)
    assert len(calls) == 6
    train_arm(DCGAN, images(seed=1), SETTINGS, seed=0, checkpoint=folder)
    assert len(calls) == 12


def test_arms_with_the_same_folder_are_refused():
    with pytest.raises(ValueError, match="labels that differ"):
        train_arms([DCGAN, replace(DCGAN, label="dcgan!")], TRAIN, SETTINGS, seed=0)


def test_too_few_images_for_a_batch():
    with pytest.raises(TrainingError, match="do not fill one batch of 64"):
        train_arm(DCGAN, TRAIN, replace(SETTINGS, batch_size=64), seed=0)


# -- parity with the classic step ------------------------------------------------------------


def test_losses_equal_those_of_the_classic_step():
    """In float32 from the same weights, images and z, 20 steps of the DCGAN example equal ours to 1e-4."""
    torch.manual_seed(0)
    theirs = Generator(32, width=8), Discriminator(32, width=8)
    ours = Generator(32, width=8), Discriminator(32, width=8)
    for a, b in zip(ours, theirs, strict=True):
        a.load_state_dict(b.state_dict())
    arm = replace(DCGAN, beta1=0.5, weight_decay=0.0)
    classic = classic_step(
        *theirs, [torch.optim.AdamW(p.parameters(), 2e-4, (0.5, 0.999), weight_decay=0) for p in theirs]
    )
    accelerator = start("cpu")
    prepared = prepare(accelerator, *ours, *(training.optimizer_of(part, arm) for part in ours))
    step = training.adversarial_step(accelerator, arm, prepared, torch.ones(4))
    for number in range(20):
        real = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(number)) * 2 - 1
        torch.manual_seed(number)
        z = torch.randn(16, 100)
        d_loss, g_loss, d_x, d_g_z1, _ = classic(real, z)
        torch.manual_seed(number)
        terms = step(real, True, True)
        found = [terms[name].item() for name in ("d_loss", "g_loss", "d_real", "d_fake")]
        np.testing.assert_allclose(found, [d_loss, g_loss, d_x, d_g_z1], atol=1e-4)


def test_the_discriminator_sees_real_and_generated_images_augmented_alike(monkeypatch):
    """Otherwise it learns to recognise the augmentation (Zhao et al. 2020, section 3.2)."""
    accelerator, players, seen = start("cpu"), training.networks(DCGAN, 32, 8), []
    augment = lambda images: seen.append(images) or images  # noqa: E731
    monkeypatch.setitem(training.AUGMENTATIONS, "none", augment)
    prepared = prepare(accelerator, *players, *(training.optimizer_of(part, DCGAN) for part in players))
    real = torch.rand(8, 3, 32, 32) * 2 - 1
    training.adversarial_step(accelerator, DCGAN, prepared, torch.ones(4))(real, False, True)
    shown, fake, again = seen
    assert shown is real and not fake.requires_grad and again.requires_grad and torch.equal(fake, again)


def test_processes_draw_the_latents_of_one_batch():
    """Otherwise two processes with the same random state would train on the same z, half as many as one process."""

    def drawn(index: int, processes: int, count: int) -> torch.Tensor:
        torch.manual_seed(5)
        there = SimpleNamespace(process_index=index, num_processes=processes)
        return training.own_latents(there, count, 10, torch.device("cpu"))

    whole = drawn(0, 1, 6)
    assert torch.equal(torch.cat([drawn(index, 3, 2) for index in range(3)]), whole)


def test_two_processes_train_as_one_with_all_images(tmp_path):
    same = ("DCGAN", "pyramid GAN", "L2 decoder", "relativistic, R1 + R2")  # the others draw noise of their own
    known = {arm.label: arm for arm in [*control_arms(), *objective_arms()]}
    arms = [known[label] for label in same]
    arms.append(replace(arms[-1], label="two critic steps", critic_steps=2))
    (alone,) = in_processes(1, partial(train_gans, normed=False), tmp_path, arms)
    for found in in_processes(2, partial(train_gans, normed=False), tmp_path, arms):
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_with_batch_norm_two_processes_have_the_same_weights(tmp_path):
    first, second = in_processes(2, partial(train_gans, normed=True), tmp_path, [DCGAN, PYRAMID])
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_lapgan_in_several_processes_is_told():
    chain = next(arm for arm in control_arms() if arm.kind == "lapgan")
    with pytest.raises(TrainingError, match="one process"):
        training.make_step(SimpleNamespace(num_processes=2), chain, 32, 8, 0.9, torch.ones(4), lambda batch: batch)


# -- on a GPU, where the step is captured --------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.label)
def test_a_captured_training_is_the_training(arm, monkeypatch):
    settings = replace(SETTINGS, device="cuda", epochs=3)
    found = train_arm(arm, TRAIN, settings, seed=0).history
    monkeypatch.setattr("lib.training.Captured.WARM_UP", 10**9)
    expected = train_arm(arm, TRAIN, settings, seed=0).history
    pd.testing.assert_frame_equal(found, expected, rtol=1e-2)


def test_a_lazy_penalty_comes_every_fourth_step_with_four_times_its_weight(monkeypatch):
    arm, judge = objective_arms()[3], Discriminator(32, width=4, norm="none")
    nn.utils.vector_to_parameters(30 * nn.utils.parameters_to_vector(judge.parameters()), judge.parameters())
    parts = [zero_centred_penalty(judge, images) for images in (FLOATS[:8], FLOATS[8:16])]
    found = training._penalty(judge, arm, FLOATS[:8], FLOATS[8:16], None)
    torch.testing.assert_close(found, 4 * arm.penalty * sum(parts), atol=0, rtol=1e-4)
    computed, penalty = [], training._penalty
    monkeypatch.setattr(training, "_penalty", lambda *given: computed.append(1) or penalty(*given))
    train_arm(arm, TRAIN, SETTINGS, seed=0)
    assert len(computed) == 2  # at steps 0 and 4 of 6


def test_the_generator_is_updated_at_every_nth_step_and_the_discriminator_at_all():
    arm = replace(objective_arms()[-1], critic_steps=3)
    accelerator = start("cpu")
    mean, _, step = training.make_step(accelerator, arm, 32, 4, 0.9, torch.ones(4), lambda index: FLOATS[index])
    generator, discriminator = accelerator._models

    def weights(network):
        return torch.cat([weight.detach().flatten() for weight in network.parameters()])

    moved = []
    for number in range(6):
        before = [weights(one) for one in (generator, mean, discriminator)]
        terms = step((number, torch.arange(8)))
        after = [weights(one) for one in (generator, mean, discriminator)]
        moved.append([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
        assert list(terms) == ["d_loss", "g_loss", "d_real", "d_fake"]
        assert not any(value.requires_grad for value in terms.values())
    assert moved == [[number % 3 == 2, number % 3 == 2, True] for number in range(6)]
