"""Cost: counted arithmetic against its formula."""

import torch

from lib.laplacian_gan import cost
from lib.laplacian_gan.arms import DCGAN, PYRAMID, objective_arms


def macs_of_dcgan(width):
    """Return the multiply-accumulates of one forward pass at 32 px: (generator, discriminator)."""
    c = {4: 4 * width, 8: 2 * width, 16: width}
    generator = 100 * c[4] * 16 + c[4] * c[8] * 16 * 16 + c[8] * c[16] * 16 * 64 + c[16] * 3 * 16 * 256
    discriminator = 3 * c[16] * 16 * 256 + c[16] * c[8] * 16 * 64 + c[8] * c[4] * 16 * 16 + c[4] * 16
    return generator, discriminator


def test_arithmetic_is_that_of_the_formula():
    table = cost.measured_cost([DCGAN], size=32, width=4, batch_size=2, rounds=1)
    generator, discriminator = macs_of_dcgan(4)
    # D's update: on real and generated images each, D forward and two gradients, but none for the image. G's update: G
    # forward and two gradients, but none for z; D forward and the gradients for its inputs.
    image = 4 * 3 * 16 * 256  # the gradient for the image, which D's own update does not need
    first = 100 * 16 * 16  # the gradient for z
    expected = 2 * (3 * discriminator - image) + 3 * generator - first + 2 * discriminator
    assert table.macs[0] == expected


def test_arms_cost_more_than_the_first_and_the_random_state_stays():
    before = torch.get_rng_state()
    arms = [DCGAN, PYRAMID, objective_arms()[2], objective_arms()[3]]
    first = cost.measured_cost(arms, size=32, width=4, batch_size=2, rounds=1)
    assert list(first.arm) == [arm.label for arm in arms]
    assert (first.macs[1:] > first.macs[0]).all() and (first.milliseconds > 0).all() and first.relative[0] == 1
    assert torch.equal(before, torch.get_rng_state())
    other = cost.measured_cost(arms[:1], size=32, width=8, batch_size=2, rounds=1)
    assert other.generator[0] > first.generator[0]
