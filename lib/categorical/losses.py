"""Categorical similarity: the agreement of two codes, and the contrastive loss built on it.

A soft code is a tensor (B, L, K): at each of L positions, a probability for each of K categories. The
similarity of two images is the probability that categories drawn from their codes agree at a position,

    s(p, q) = 1/L Σ_l Σ_k p_lk q_lk,

a number in [0, 1] that equals 1 - Hamming/L for one-hot codes. It replaces the cosine in
InfoNCE (van den Oord et al. 2018), with negatives from the batch (Chen et al. 2020) or from a queue
(He et al. 2020). The other similarities are alternatives to agreement, taken from the literature.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.precision import full_precision

SMALLEST = 1e-8  # lower bound of arguments of logarithms and roots, as in SCAN and IMSVD


def agreement(p: Tensor, q: Tensor) -> Tensor:
    """Return the expected agreement of every code of p (N, L, K) with every code of q (M, L, K): (N, M) in [0, 1].

    Computed as one matrix product over the concatenated positions.
    """
    return p.flatten(1) @ q.flatten(1).T / p.shape[1]


def log_agreement(p: Tensor, q: Tensor) -> Tensor:
    """Return the mean over positions of log Σ_k p_lk q_lk, (N, M), at most 0: large only if *all* positions agree.

    Used by SCAN, CARP and IMSVD. It is costly, with a logarithm per position and pair.
    """
    total = p.new_zeros(len(p), len(q))
    for position in range(p.shape[1]):
        total = total + (p[:, position] @ q[:, position].T).clamp_min(SMALLEST).log()
    return total / p.shape[1]


def chance_weighted(p: Tensor, q: Tensor) -> Tensor:
    """Return the agreement with each category's term divided by K times its frequency in p and q: (N, M), at least 0.

    Agreement in a rare category counts more (TEMI, Adaloglou et al. 2023, with beta 1; Goodall 1966).
    If all categories are equally frequent, this equals `agreement`.
    """
    frequency = torch.cat([p, q]).detach().mean(0).clamp_min(SMALLEST)  # (L, K)
    return agreement(p, q / (p.shape[2] * frequency))


def cosine(p: Tensor, q: Tensor) -> Tensor:
    """Return the cosine of concatenated positions, (N, M) in [0, 1], which ignores confidence (SEM, Lavoie 2023)."""
    return F.normalize(p.flatten(1), dim=1) @ F.normalize(q.flatten(1), dim=1).T


def bhattacharyya(p: Tensor, q: Tensor) -> Tensor:
    """Return the mean over positions of Σ_k √(p_lk q_lk), (N, M) in [0, 1]: 1 for equal codes, confident or not."""
    return agreement(p.clamp_min(SMALLEST).sqrt(), q.clamp_min(SMALLEST).sqrt())


SIMILARITIES = {
    "agreement": agreement,
    "log_agreement": log_agreement,
    "chance": chance_weighted,
    "cosine": cosine,
    "bhattacharyya": bhattacharyya,
}


@full_precision  # half precision is too coarse for similarities divided by the temperature
def categorical_info_nce(
    p: Tensor,
    q: Tensor,
    queue: Tensor | None = None,
    *,
    temperature: float = 0.1,
    similarity: str = "agreement",
) -> Tensor:
    """InfoNCE on categorical similarity, in nats: row i of p and of q are two views of one image.

    p, q: soft codes (B, L, K). Without a queue, both views serve as anchors: each of the 2B codes has
    one positive and 2B - 2 negatives (NT-Xent). With a queue (Q, L, K) of earlier codes, possibly empty, p are the
    queries and q the keys: B - 1 + Q negatives, and no gradient flows through q. Equal codes give the logarithm
    of the number of candidates: ln(2B - 1), or ln(B + Q).

    Random pairs of codes already agree in about 1/K of the positions, so the logits span (1 - 1/K)/temperature;
    this should exceed ln(negatives) by a few nats, as at a temperature of 0.1 with up to about a thousand negatives.
    """
    if queue is None:
        codes = torch.cat([p, q])  # (2B, L, K)
        if similarity == "agreement":
            logits = _SelfProduct.apply(codes.flatten(1) * (temperature * p.shape[1]) ** -0.5)
        else:
            logits = _scaled(codes, codes, temperature, similarity)
        logits = logits.fill_diagonal_(-math.inf)  # no code is its own candidate
        partner = torch.arange(len(codes), device=p.device).roll(len(p))
        return F.cross_entropy(logits, partner)
    keys = torch.cat([q.detach(), queue.to(q.dtype)])  # (B + Q, L, K)
    logits = _scaled(p, keys, temperature, similarity)
    return F.cross_entropy(logits, torch.arange(len(p), device=p.device))


class _SelfProduct(torch.autograd.Function):
    """X Xᵀ of X (N, D). As both factors are one tensor, the gradient (G + Gᵀ) X takes one product instead of two."""

    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x @ x.T

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return (gradient + gradient.T) @ x


def _scaled(p: Tensor, q: Tensor, temperature: float, name: str) -> Tensor:
    if name != "agreement":
        return SIMILARITIES[name](p, q) / temperature
    # Scale the smaller factor instead of the matrix of all pairs.
    return p.flatten(1).mul(1 / (temperature * p.shape[1])) @ q.flatten(1).T


@full_precision
def position_entropy(p: Tensor) -> Tensor:
    """Return the entropy of the mean code of a batch (B, L, K), averaged over positions: 0 to ln K nats.

    It is to be maximised: InfoNCE does not penalise a position that always has the same category, as such a position
    only adds a constant to every logit.
    """
    mean = p.mean(0).clamp_min(SMALLEST)  # (L, K)
    return -(mean * mean.log()).sum(-1).mean()


@full_precision
def discretise(logits: Tensor, kind: str = "soft", temperature: float = 1.0) -> Tensor:
    """Return codes (..., K) from logits (..., K).

    kind: "soft", a softmax at this temperature; "straight_through", its one-hot argmax with the gradient of the
    softmax (Bengio et al. 2013); "gumbel", a one-hot sample with the gradient of the relaxed sample (Jang et al.
    2017), drawn from torch's global random state.
    """
    if kind == "gumbel":
        return F.gumbel_softmax(logits, tau=temperature, hard=True)
    soft = soft_code(logits, temperature)
    if kind == "soft":
        return soft
    if kind == "straight_through":
        return harden(soft) + soft - soft.detach()
    raise ValueError(f"codes are 'soft', 'straight_through' or 'gumbel', not {kind!r}")


def soft_code(logits: Tensor, temperature: float) -> Tensor:
    """Return the softmax of logits (..., K) at a temperature, with no probability below e^-40 times the largest one.

    Smaller probabilities change no similarity in float32, but they and their products may be denormal numbers, with
    which CPUs multiply matrices a hundred times more slowly.
    """
    scaled = logits / temperature
    return scaled.maximum(scaled.detach().amax(-1, keepdim=True) - 40).softmax(-1)


def harden(p: Tensor) -> Tensor:
    """Return one-hot codes of the most likely categories, with the shape and dtype of p (..., K)."""
    return F.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
