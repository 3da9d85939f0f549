"""Muon on many matrices at once, against PyTorch's (up to rounding) and the Newton-Schulz formula."""

import pytest
import torch
from torch import nn

from lib.muon import Muon, orthogonalised

SHAPES = [(8, 8), (8, 8), (24, 8), (8, 24), (24, 8), (5, 7)]


def weights(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for shape in SHAPES]


def trained(optimizer, some, steps=20, without=()):
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for place, weight in enumerate(some):
            weight.grad = torch.randn(weight.shape, generator=draw).to(weight.dtype)
            if place in without:
                weight.grad = None
        optimizer.step()
    return some


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_as_pytorch_s(decay):
    """Up to rounding: PyTorch's uses bfloat16 (three digits), and the steps add up to several units."""
    how = {"lr": 0.1, "weight_decay": decay}
    ours, theirs = weights(), weights()
    trained(Muon(ours, **how), ours), trained(torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **how), theirs)
    for one, two, before in zip(ours, theirs, weights(), strict=True):
        assert (one - two).norm() < 0.03 * (two - before).norm()


def test_of_the_formula_one_matrix_at_a_time_in_double_precision():
    some = weights()
    trained(Muon(some, lr=0.1, weight_decay=0.1, momentum=0.9), some, steps=3)
    draw = torch.Generator().manual_seed(1)
    slow, means = [one.detach().double() for one in weights()], [torch.zeros(shape).double() for shape in SHAPES]
    a, b, c = 3.4445, -4.7750, 2.0315  # as published
    for _ in range(3):
        for k, shape in enumerate(SHAPES):
            gradient = torch.randn(shape, generator=draw).double()
            means[k] = 0.9 * means[k] + 0.1 * gradient
            x = 0.1 * gradient + 0.9 * means[k]
            x = x / x.norm()
            for _ in range(5):
                gram = x @ x.T
                x = a * x + (b * gram + c * gram @ gram) @ x
            slow[k] = slow[k] * (1 - 0.1 * 0.1) - 0.1 * 0.2 * max(shape) ** 0.5 * x
    for one, two in zip(some, slow, strict=True):
        torch.testing.assert_close(one.detach().double(), two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 40, 16), (3, 16, 40), (1, 1, 9)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    draw = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=draw), full_matrices=False)
    values = 0.3 + 0.7 * torch.rand(left.shape[0], left.shape[2], generator=draw)
    found = orthogonalised(left * values[:, None] @ right)
    inside = left.mT @ found @ right.mT
    taken = inside.diagonal(dim1=1, dim2=2)
    assert taken.min() > 0.6 and taken.max() < 1.3
    torch.testing.assert_close(inside, torch.diag_embed(taken), atol=1e-4, rtol=0)


def test_each_matrix_is_its_own():
    """Neither another matrix in the batch, however large, nor its own scale changes the result."""
    draw = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 6, 9, generator=draw)
    alone = orthogonalised(one[None])[0]
    both = orthogonalised(torch.stack([1e3 * two, 0.01 * one]))[1]
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-5)


def test_weights_without_gradients_stay():
    some, before = weights(), weights()
    trained(Muon(some, lr=0.1), some, without=(1, 5))
    for place, (one, two) in enumerate(zip(some, before, strict=True)):
        assert torch.equal(one, two) == (place in (1, 5))


def test_zeros_do_not_become_anything_else():
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weight, torch.ones(4, 4))


def test_goes_on_from_its_state():
    straight = weights()
    trained(Muon(straight, lr=0.1), straight, steps=6)
    some, draw = weights(), torch.Generator().manual_seed(1)
    optimizer = Muon(some, lr=0.1)
    for step in range(6):
        if step == 3:
            kept, optimizer = optimizer.state_dict(), Muon(some, lr=0.1)
            optimizer.load_state_dict(kept)
        for weight in some:
            weight.grad = torch.randn(weight.shape, generator=draw)
        optimizer.step()
    assert all(torch.equal(one, two) for one, two in zip(some, straight, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_the_matrix_of_its_filters(layout):
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(6, 4, 3, 3, generator=draw)
    matrix, convolution = nn.Parameter(start.flatten(1).clone()), nn.Parameter(start.clone(memory_format=layout))
    optimizers = [Muon([one], lr=0.1) for one in (matrix, convolution)]
    for _ in range(3):
        gradient = torch.randn(6, 4, 3, 3, generator=draw)
        matrix.grad, convolution.grad = gradient.flatten(1), gradient.to(memory_format=layout)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(convolution.detach().flatten(1), matrix.detach())


def test_a_rate_in_a_tensor_is_the_same_rate():
    number, tensor = weights(), weights()
    trained(Muon(number, lr=0.1), number)
    optimizer = Muon(tensor, lr=0.1)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    for one, two in zip(number, trained(optimizer, tensor), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
