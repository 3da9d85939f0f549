"""GAN losses as pure functions on logits.

    loss = LOSSES["non-saturating"]
    loss.discriminator(on_real, on_fake)   # scalar, to be minimised by the discriminator
    loss.generator(on_real, on_fake)       # scalar, to be minimised by the generator

Logits of real and of generated images are (n,) or (n, 1); everything is computed in float32,
even under autocast. Values are in nats where the loss is a log-likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Critic = Callable[[Tensor], Tensor]  # images (n, 3, h, w) -> logits (n,)


@dataclass(frozen=True)
class Loss:
    """One GAN loss.

    Attributes:
        discriminator: (on_real, on_fake) -> scalar.
        generator: (on_real, on_fake) -> scalar; most ignore `on_real`.
        gradient_penalty: (discriminator, real, fake) -> scalar, added to the discriminator's loss; None: no penalty.
        needs_real: whether the generator's loss uses the logits of real images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    gradient_penalty: Callable[[Critic, Tensor, Tensor], Tensor] | None = None
    needs_real: bool = False


def non_saturating_discriminator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))), D = sigmoid (Goodfellow et al. 2014, equation 1); log 4 where D = 1/2."""
    return F.softplus(-on_real.float()).mean() + F.softplus(on_fake.float()).mean()


def non_saturating_generator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """-E log D(G(z)) (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-on_fake.float()).mean()


def hinge_discriminator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) (Lim & Ye 2017; Miyato et al. 2018, equation 16)."""
    return F.relu(1 - on_real.float()).mean() + F.relu(1 + on_fake.float()).mean()


def wasserstein_discriminator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) (Arjovsky et al. 2017); needs a discriminator that is nearly 1-Lipschitz."""
    return on_fake.float().mean() - on_real.float().mean()


def critic_generator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """-E D(G(z)), the generator's loss for hinge and Wasserstein."""
    return -on_fake.float().mean()


def relativistic_discriminator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """E softplus(D(G(z)) - D(x)) over pairs (Jolicoeur-Martineau 2019; RpGAN of Huang et al. 2024, equation 2)."""
    return F.softplus(_paired(on_fake, on_real)).mean()


def relativistic_generator(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """E softplus(D(x) - D(G(z))) over pairs."""
    return F.softplus(_paired(on_real, on_fake)).mean()


def _paired(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b for logits (n,) or (n, 1), flattened, since (n,) and (n, 1) would broadcast to all n² pairs."""
    return a.float().flatten() - b.float().flatten()


def gradient_penalty(discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """E (||grad D(x')|| - 1)^2 at random points x' between pairs of real and fake (Gulrajani et al. 2017, equation 3).

    Each logit is differentiated with respect to its own image, so D must not use batch norm.
    The paper's factor 10 is not included. Call this outside autocast.
    """
    weight = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = torch.lerp(real.float(), fake.float(), weight).detach()
    return (_gradients(discriminator, between).norm(dim=1) - 1).square().mean()


def zero_centred_penalty(discriminator: Critic, images: Tensor) -> Tensor:
    """E ||grad D(x)||^2 / 2 at the given images: R1 on real ones, R2 on generated ones (Mescheder et al. 2018).

    The paper's factor gamma is not included; as for `gradient_penalty`, D must not use batch norm.
    """
    return _gradients(discriminator, images.detach().float()).square().sum(dim=1).mean() / 2


def _gradients(discriminator: Critic, images: Tensor) -> Tensor:
    """Return the gradient (n, c·h·w) of each image's logit, itself differentiable."""
    images = images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(images).float().sum(), images, create_graph=True)
    return gradient.flatten(1)


def r1_r2(discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """R1 on real images plus R2 on generated ones."""
    return zero_centred_penalty(discriminator, real) + zero_centred_penalty(discriminator, fake)


LOSSES = {
    "non-saturating": Loss(non_saturating_discriminator, non_saturating_generator),
    "hinge": Loss(hinge_discriminator, critic_generator),
    "wasserstein-gp": Loss(wasserstein_discriminator, critic_generator, gradient_penalty),
    "relativistic": Loss(relativistic_discriminator, relativistic_generator, r1_r2, needs_real=True),
}
