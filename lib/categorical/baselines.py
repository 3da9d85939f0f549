"""The published losses closest to the study's, each implemented from its paper's formula.

Symbols: p and q are soft codes (B, L, K) of two views of the same B images: at each of L positions,
a probability for each of K categories. ⟨p, q⟩ is the dot product over categories, (B, L); p̄ is the
mean over the batch, (L, K); H is entropy.

| function | method and source                              | input            | negatives | range         |
|----------|------------------------------------------------|------------------|-----------|---------------|
| nt_xent  | SimCLR, Chen et al., ICML 2020                 | embeddings       | batch     | [0, ∞)        |
| moco     | MoCo, He et al., CVPR 2020                     | embeddings       | queue     | [0, ∞)        |
| imsvd    | IMSVD, Niu et al., arXiv 2501.03469, 2025      | codes            | none      | bounded below |
| carp     | CARP, Silva & Ramírez Rivera, NeurIPS 2023     | codes            | none      | [0, ∞)        |
| scan     | SCAN, Van Gansbeke et al., ECCV 2020           | codes            | none      | [-λ ln K, ∞)  |

All return a scalar in nats; float64 stays float64, everything else is computed in float32 with autocast off.
Arguments of logarithms are clamped to at least `SMALLEST`, so that empty categories keep values and gradients
finite. Codes are not checked to be probabilities, which would cost a pass and a GPU synchronisation per step.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.categorical.losses import SMALLEST
from lib.precision import full_precision


@full_precision
def nt_xent(x: Tensor, y: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent (Chen et al. 2020, equation 1): -log softmax of the positive among the 2B - 1 other embeddings.

    With z the 2B normalised embeddings and j the positive of i: the mean over i of
    -⟨z_i, z_j⟩/τ + log Σ_{k ≠ i} exp(⟨z_i, z_k⟩/τ). Equal embeddings give ln(2B - 1). x and y (B, D) are
    non-zero embeddings of two views; B ≥ 2, as a single image has no negatives.
    """
    batch = len(x)
    z = F.normalize(torch.cat([x, y]), dim=1)  # (2B, D)
    logits = (z / temperature) @ z.T  # (2B, 2B); scaling z is cheaper than scaling the product
    logits.fill_diagonal_(-math.inf)  # no embedding is its own candidate
    partner = torch.arange(2 * batch, device=x.device).roll(batch)  # (2B,): i -> i ± B
    return F.cross_entropy(logits, partner)


@full_precision
def moco(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE with negatives from a queue (He et al. 2020, equation 1).

    The mean over images of -⟨x, k⟩/τ + log [exp(⟨x, k⟩/τ) + Σ_n exp(⟨x, n⟩/τ)], with query x, its key k and n in
    the queue, all normalised here. As in the paper, other images of the batch are not negatives. Equal embeddings
    give ln(1 + Q). query (B, D) comes from the encoder, key (B, D) from the momentum encoder for the same images, queue
    (Q, D) has one earlier key per row; the caller detaches key and queue. τ = 0.1 as in the authors' CIFAR-10 notebook.
    """
    query = F.normalize(query, dim=1) / temperature
    positive = (query * F.normalize(key, dim=1)).sum(1, keepdim=True)  # (B, 1)
    negative = query @ F.normalize(queue, dim=1).T  # (B, Q)
    first = torch.zeros(len(query), dtype=torch.long, device=query.device)
    return F.cross_entropy(torch.cat([positive, negative], dim=1), first)  # logits (B, 1 + Q)


@full_precision
def imsvd(p: Tensor, q: Tensor, weight: float = 1.0) -> Tensor:
    """IMSVD (Niu et al. 2025), by the formula of its published code:

        mean_{b,l} -log⟨p, q⟩ + weight · [Σ_l Σ_a f(J_{la,la}) / L + Σ_{l≠m} Σ_{a,c} f(J_{la,mc}) / (L(L-1))],

    with f(x) = x log x, joint frequencies J = PᵀQ / B (LK, LK) over the batch, and P and Q the codes as (B, LK).
    The second term spreads the agreeing pairs of one position over its categories (only the diagonal of
    each diagonal block of J enters, as in the code); the third pushes two different positions towards
    equal frequencies of all K² pairs, that is, towards independence. Constant one-hot codes, with
    zero entropy, give 0; one-hot, balanced and independent positions give -weight · 3 ln K.

    Simplified: `weight` replaces two of the code's three weights, which are all 1 in both of its scripts. The code
    clamps every probability to at least 1e-8, this function only arguments of logarithms. With L = 1 there is no third
    term. Gradients flow through both p and q.
    """
    batch, positions, categories = p.shape
    joint = p.flatten(1).T @ q.flatten(1) / batch  # (LK, LK)
    blocks = _negative_entropy(joint).view(positions, categories, positions, categories)
    own = torch.arange(positions, device=p.device)
    spread = _negative_entropy(joint.diagonal()).sum() / positions
    # The sum of the diagonal blocks is subtracted: selecting all others would copy nearly the whole matrix.
    shared = blocks.sum() - blocks[own, :, own].sum()
    independence = shared / max(1, positions * (positions - 1))
    return _disagreement(p, q) + weight * (spread + independence)


@full_precision
def carp(p: Tensor, q: Tensor, weight: float = 1.0) -> Tensor:
    """CARP (Silva & Ramírez Rivera 2023): mean_{b,l} -log⟨p, q⟩ + weight · mean_l KL(m_l ‖ uniform).

    m = (p̄ + q̄) / 2 is the mean over images and over student and teacher, as in the published code, and
    KL(m ‖ uniform) = ln K - H(m). Equal codes give 0 if they are one-hot and balanced, ln K if they are uniform,
    and (with weight 1) also ln K if they are constant and one-hot.

    Positions serve as blocks; the paper resamples its blocks at each step from one layer of prototypes. The
    paper's loss over two views, each given to the student in turn, is `carp(cat([p1, p2]), cat([q2, q1]))`;
    multi-crop is not used. p comes from the student, q for the other view from the teacher, the student's moving
    average; the caller detaches q. The published code uses weight 1.
    """
    mean = (p.mean(0) + q.mean(0)) / 2  # (L, K)
    divergence = math.log(p.shape[2]) + _negative_entropy(mean).sum(-1)  # (L,)
    return _disagreement(p, q) + weight * divergence.mean()


@full_precision
def scan(p: Tensor, q: Tensor, entropy_weight: float = 5.0) -> Tensor:
    """SCAN's clustering loss (Van Gansbeke et al. 2020, equation 2): mean_{b,l} -log⟨p, q⟩ - λ · mean_l H(p̄_l).

    Each position is a separate clustering, like each of the paper's heads. Equal codes give -λ ln K if they are
    one-hot and balanced, (1 - λ) ln K if they are uniform, and 0 if they are one-hot and constant.

    Simplified: the paper's q is a mined neighbour of the image in the feature space of an earlier pretext task; here
    it is the image's other view (in `frozen`, a neighbour). As in the authors' code, the entropy is that of the
    anchors p alone. λ is 5 in their configuration for CIFAR-10.
    """
    return _disagreement(p, q) + entropy_weight * _negative_entropy(p.mean(0)).sum(-1).mean()


def _disagreement(p: Tensor, q: Tensor) -> Tensor:
    """Return mean_{b,l} -log⟨p, q⟩, at least 0."""
    return -(p * q).sum(-1).clamp_min(SMALLEST).log().mean()  # over (B, L)


def _negative_entropy(x: Tensor) -> Tensor:
    """Return x log x elementwise: 0 at x = 0, with a finite gradient."""
    return x * x.clamp_min(SMALLEST).log()
