"""The networks: sizes and parameters of the usual recipe, where the pyramid joins, and invalid arguments."""

import pytest
import torch
from torch import nn

from lib.laplacian_gan.models import Chain, Discriminator, Generator, parameter_count, resolutions, shapes
from lib.laplacian_gan.pyramid import up

LEVELS = (4, 8, 16, 32)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bands(levels, count=3, seed=1):
    return {r: noise(count, 3, r, r, seed=seed + r) for r in levels}


# Those of the PyTorch DCGAN example at 64 px, and of the same recipe with one block less and one more.
@pytest.mark.parametrize(
    "size, generator, discriminator", [(32, 1_068_928, 663_296), (64, 3_576_704, 2_765_568), (128, 12_786_560, None)]
)
def test_the_usual_parameter_counts(size, generator, discriminator):
    assert parameter_count(Generator(size)) == generator
    assert discriminator is None or parameter_count(Discriminator(size)) == discriminator


def test_levels_below_the_image_cost_three_channels_each():
    plain, pyramid = Generator(64), Generator(64, levels=LEVELS)
    assert (
        parameter_count(pyramid) - parameter_count(plain) == sum(3 * 64 * 32 // (2 * r) * 16 for r in LEVELS[:3]) + 144
    )


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("levels", [(), (4,), LEVELS])
def test_shapes_and_ranges(size, levels):
    generator = Generator(size, width=4, levels=levels)
    images = generator(noise(3, generator.latent), bands(levels))
    assert images.shape == (3, 3, size, size) and images.abs().max() <= 1
    discriminator = Discriminator(size, width=4, levels=levels)
    assert discriminator(images, bands(levels)).shape == (3,)


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_reaches_the_image_and_the_verdict(level):
    generator, discriminator = Generator(32, width=4, levels=LEVELS), Discriminator(32, width=4, levels=LEVELS)
    given = bands(LEVELS)
    given[level].requires_grad_(True)
    images = generator(noise(3, generator.latent), given)
    (by_image,) = torch.autograd.grad(images.square().sum(), given[level], retain_graph=True)
    assert by_image.abs().sum() > 0
    (by_verdict,) = torch.autograd.grad(discriminator(images.detach(), given).square().sum(), given[level])
    assert by_verdict.abs().sum() > 0


def test_a_plain_generator_ignores_bands():
    generator = Generator(32, width=4).eval()
    z = noise(2, generator.latent)
    assert torch.equal(generator(z), generator(z, bands(LEVELS, 2)))


def test_initialisation_is_that_of_dcgan():
    torch.manual_seed(0)
    for model in (Generator(32), Discriminator(32)):
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15)
                assert layer.weight.mean().item() == pytest.approx(0, abs=0.004)
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.weight.mean().item() == pytest.approx(1, abs=0.02) and not layer.bias.any()


def test_spectral_norm_bounds_every_layer():
    torch.manual_seed(0)
    discriminator = Discriminator(32, width=4, norm="spectral").train()
    for _ in range(60):  # as many power iterations
        discriminator(noise(2, 3, 32, 32))
    layers = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 4 and not any(isinstance(layer, nn.BatchNorm2d) for layer in discriminator.modules())
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_without_batch_norm_a_logit_depends_on_its_own_image_alone():
    images = noise(4, 3, 32, 32)
    alone, mixed = Discriminator(32, width=4, norm="none"), Discriminator(32, width=4)
    torch.testing.assert_close(alone(images)[:2], alone(images[:2]))
    assert not torch.allclose(mixed(images)[:2], mixed(images[:2]))


def test_the_chain_samples_from_noise_alone():
    chain = Chain(32, width=4)
    assert chain.latent == 100 + 16**2 + 32**2 and not chain.levels
    images = chain(noise(3, chain.latent))
    assert images.shape == (3, 3, 32, 32) and images.abs().max() <= 1
    assert not torch.equal(images[0], images[1])


def test_shapes_are_read_from_the_running_model():
    generator = Generator(64, width=8, levels=(4, 32))
    found = shapes(generator)
    assert list(zip(found.channels, found.side, strict=True)) == [(100, 1), (67, 4), (32, 8), (16, 16), (11, 32)]
    after = list(zip(found.channels_after, found.side_after, strict=True))
    assert after == [(64, 4), (32, 8), (16, 16), (8, 32), (3, 64)]
    assert shapes(Generator(32, width=8, levels=(32,))).layer.iloc[-1] == "mix"


@pytest.mark.parametrize("size, expected", [(8, (4, 8)), (32, (4, 8, 16, 32)), (128, (4, 8, 16, 32, 64, 128))])
def test_resolutions(size, expected):
    assert resolutions(size) == expected


@pytest.mark.parametrize("size", [4, 31, 48, 100])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"not of {size}"):
        Generator(size)


def test_other_levels_are_refused():
    with pytest.raises(ValueError, match=r"pyramid levels \(4, 8, 16, 32\), not \[5, 64\]"):
        Generator(32, levels=(4, 5, 64))


def test_a_chain_adds_each_band_to_the_upsampled_image():
    chain = Chain(16, width=4).eval()
    z = noise(3, chain.latent)
    first = chain.first(z[:, :100])
    coarse = up(first, (16, 16))
    finer = coarse + chain.steps["16"](z[:, 100:], coarse)
    torch.testing.assert_close(chain(z), finer.clamp(-1, 1))
    fake, shown = chain.each_step(z, {8: first})[16]
    torch.testing.assert_close(fake, finer)
    torch.testing.assert_close(shown[16], coarse)
