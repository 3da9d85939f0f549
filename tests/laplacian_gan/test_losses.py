"""GAN losses: agreement with torch's own losses, known values, gradients, and penalties in closed form."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.laplacian_gan.losses import LOSSES, gradient_penalty, zero_centred_penalty


def logits(seed, count=7):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


REAL, FAKE = logits(0), logits(1)


def test_non_saturating_is_cross_entropy_on_probabilities():
    loss = LOSSES["non-saturating"]
    real, fake = torch.sigmoid(REAL), torch.sigmoid(FAKE)
    expected = F.binary_cross_entropy(real, torch.ones(7)) + F.binary_cross_entropy(fake, torch.zeros(7))
    torch.testing.assert_close(loss.discriminator(REAL, FAKE), expected)
    torch.testing.assert_close(loss.generator(REAL, FAKE), F.binary_cross_entropy(fake, torch.ones(7)))


def test_an_undecided_discriminator_pays_log_4():
    none = torch.zeros(5)
    assert LOSSES["non-saturating"].discriminator(none, none).item() == pytest.approx(math.log(4))
    assert LOSSES["relativistic"].discriminator(none, none).item() == pytest.approx(math.log(2))
    assert LOSSES["hinge"].discriminator(none, none).item() == 2
    assert LOSSES["wasserstein-gp"].discriminator(none, none).item() == 0


def test_hinge_is_satisfied_beyond_the_margin():
    loss = LOSSES["hinge"]
    assert loss.discriminator(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -9.0])) == 0
    assert loss.discriminator(torch.tensor([0.5]), torch.tensor([-0.5])) == 1


@pytest.mark.parametrize("name", ["relativistic", "wasserstein-gp"])
def test_these_depend_on_differences_alone(name):
    loss = LOSSES[name]
    torch.testing.assert_close(loss.discriminator(REAL + 5, FAKE + 5), loss.discriminator(REAL, FAKE))
    if loss.needs_real:
        torch.testing.assert_close(loss.generator(REAL + 5, FAKE + 5), loss.generator(REAL, FAKE))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_against_finite_differences_and_their_signs(name):
    loss = LOSSES[name]
    real, fake = (x.double().requires_grad_(True) for x in (REAL, FAKE))
    on_real, on_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    (up,) = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (on_real <= 0).all() and (on_fake >= 0).all() and (up <= 0).all()
    step = 1e-2
    for i in range(len(fake)):
        moved = fake.detach().clone()
        moved[i] += step
        back = fake.detach().clone()
        back[i] -= step
        slope = (loss.generator(real, moved) - loss.generator(real, back)) / (2 * step)
        assert slope.item() == pytest.approx(up[i].item(), abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_from_halves_and_either_shape(name):
    loss = LOSSES[name]
    for part in (loss.discriminator, loss.generator):
        assert part(REAL.bfloat16(), FAKE.bfloat16()).dtype == torch.float32
        torch.testing.assert_close(part(REAL[:, None], FAKE[:, None]), part(REAL, FAKE))


def test_logits_of_both_shapes_are_pairs():
    loss = LOSSES["relativistic"]
    torch.testing.assert_close(loss.discriminator(REAL[:, None], FAKE), loss.discriminator(REAL, FAKE))


def test_large_logits_stay_finite():
    for loss in LOSSES.values():
        for sign in (1e4, -1e4):
            value = loss.discriminator(REAL - sign, FAKE + sign) + loss.generator(REAL, FAKE - sign)
            assert torch.isfinite(value)


# -- gradient penalties ----------------------------------------------------------------------

X = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(3))
Y = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(4))
WEIGHT = torch.randn(75, generator=torch.Generator().manual_seed(5))


def test_penalties_of_a_linear_judge():
    def discriminator(images):
        return images.flatten(1) @ WEIGHT

    norm = WEIGHT.norm()
    torch.testing.assert_close(gradient_penalty(discriminator, X, Y), (norm - 1) ** 2)
    torch.testing.assert_close(zero_centred_penalty(discriminator, X), norm**2 / 2)


def test_penalties_of_a_quadratic_judge():
    def discriminator(images):
        return images.square().sum((1, 2, 3)) / 2  # its gradient is the image

    torch.testing.assert_close(zero_centred_penalty(discriminator, X), X.square().sum((1, 2, 3)).mean() / 2)
    same = X[:1].expand(4, -1, -1, -1)  # between equal images there is only one point
    torch.testing.assert_close(gradient_penalty(discriminator, same, same), (X[0].norm() - 1) ** 2)


def test_penalties_train_the_judge():
    """Their gradients with respect to weights, gradients of gradients, against finite differences."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(75, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    discriminator = lambda images: layers(images.double()).flatten()  # noqa: E731
    weight = layers[1].weight
    value = zero_centred_penalty(discriminator, X)
    (gradient,) = torch.autograd.grad(value, weight)
    step = 1e-2
    with torch.no_grad():
        weight[2, 5] += step
    above = zero_centred_penalty(discriminator, X).item()
    with torch.no_grad():
        weight[2, 5] -= 2 * step
    below = zero_centred_penalty(discriminator, X).item()
    assert (above - below) / (2 * step) == pytest.approx(gradient[2, 5].item(), rel=2e-2)


def test_relativistic_compares_pair_by_pair():
    loss = LOSSES["relativistic"]
    pairs = list(zip(REAL.tolist(), FAKE.tolist(), strict=True))
    discriminator = sum(math.log1p(math.exp(fake - real)) for real, fake in pairs) / len(pairs)
    generator = sum(math.log1p(math.exp(real - fake)) for real, fake in pairs) / len(pairs)
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-6)
    assert loss.generator(REAL, FAKE).item() == pytest.approx(generator, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_games_say_what_they_need(name):
    loss = LOSSES[name]
    assert bool(loss.gradient_penalty) == (name in ("wasserstein-gp", "relativistic"))
    real = REAL.clone().requires_grad_(True)
    value = loss.generator(real, FAKE)
    assert value.requires_grad == loss.needs_real  # FAKE itself requires no gradient


def test_gradient_penalty_looks_at_one_point_between_each_pair():
    seen = []

    def discriminator(images):
        seen.append(images.detach())
        return images.sum((1, 2, 3))

    torch.manual_seed(0)
    real, fake = torch.zeros(500, 1, 2, 2), torch.ones(500, 1, 2, 2)
    gradient_penalty(discriminator, real, fake)
    place = seen[0].flatten(1)
    assert torch.equal(place, place[:, :1].expand(-1, 4))  # the same for all pixels of an image
    assert place.min() >= 0 and place.max() <= 1
    assert place[:, 0].mean().item() == pytest.approx(0.5, abs=0.05)
    assert place[:, 0].std().item() == pytest.approx(12**-0.5, abs=0.03)


def test_penalties_send_nothing_to_the_generator():
    made = Y.clone().requires_grad_(True)
    weight = WEIGHT.clone().requires_grad_(True)

    def discriminator(images):
        return torch.tanh(images.flatten(1) @ weight)

    (gradient_penalty(discriminator, X, made * 1) + zero_centred_penalty(discriminator, made * 1)).backward()
    assert made.grad is None and weight.grad.any()
