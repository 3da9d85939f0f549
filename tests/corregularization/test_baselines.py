"""Each baseline against a slow implementation of its paper's formula, closed forms and finite differences."""

import itertools
import math

import pytest
import torch
from torch import nn

from lib.corregularization.baselines import (
    decov,
    inner_products,
    lengths,
    mma,
    ocnn,
    ocnn_over_layers,
    orthogonal_init,
    soft_orthogonality,
    srip,
)
from lib.corregularization.losses import as_matrix, gram_penalty, mean_over_layers, select_layers

# n < d, n = d, n > d for linear layers and convolutions of 1, 2, 3 dimensions
SHAPES = [
    (3, 7),
    (5, 5),
    (7, 3),
    (4, 2, 3),
    (6, 2, 3),
    (8, 2, 3),
    (5, 2, 3, 3),
    (8, 2, 2, 2),
    (12, 1, 3, 3),
    (4, 1, 2, 2, 2),
    (8, 1, 2, 2, 2),
    (9, 1, 2, 2, 2),
]
KERNELS = [shape for shape in SHAPES if len(shape) > 2]
WEIGHT_LOSSES = {
    "so": soft_orthogonality,
    "lengths": lengths,
    "inner products": inner_products,
    "srip": lambda weight: srip(weight, generator=torch.Generator().manual_seed(3)),  # the same v_0 in every call
    "mma": mma,
    "ocnn": ocnn,
}
ANGLE_LOSSES = [name for name in WEIGHT_LOSSES if name.startswith("m")]


def draw(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 2


def rows(weight):
    """Return the filters as lists of numbers."""
    return [w.flatten().tolist() for w in weight]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def directions(weight):
    return [[x / math.sqrt(dot(w, w)) for x in w] for w in rows(weight)]


def simplex(d):
    """Return d + 1 unit vectors in d dimensions with equal angles, (d + 1, d)."""
    centred = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    basis = torch.linalg.svd(centred).Vh[:d]  # the hyperplane in which they lie
    return torch.nn.functional.normalize(centred @ basis.T, dim=1)


def orthonormal(shape, seed=0):
    """Return a matrix with orthonormal rows if n <= d, else with orthonormal columns."""
    flat = draw((shape[0], math.prod(shape[1:])), seed)
    u, _, vh = torch.linalg.svd(flat, full_matrices=False)
    return (u @ vh).view(shape)


# --- against the formulas -------------------------------------------------------------------------


def gram_distance(vectors):
    return sum((dot(a, b) - (i == j)) ** 2 for (i, a), (j, b) in itertools.product(enumerate(vectors), repeat=2))


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_orthogonality_is_the_paper_sum_over_n_squared(shape):
    weight = draw(shape)
    n, d = as_matrix(weight).shape
    filters = rows(weight)
    of_filters = gram_distance(filters)
    of_columns = gram_distance(list(zip(*filters, strict=True)))
    assert of_filters - of_columns == pytest.approx(n - d)  # so "double" SO adds nothing
    value = soft_orthogonality(weight).item() * n**2
    assert value == pytest.approx(of_filters if n <= d else of_columns)


@pytest.mark.parametrize("shape", SHAPES)
def test_srip_is_the_power_iteration_of_the_paper(shape):
    weight = draw(shape)
    matrix = as_matrix(weight)
    n, d = matrix.shape
    gram = matrix @ matrix.T if n <= d else matrix.T @ matrix
    residual = gram - torch.eye(min(n, d), dtype=torch.float64)
    drawn = torch.randn(min(n, d), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first = residual @ drawn
    second = residual @ first
    value = srip(weight, generator=torch.Generator().manual_seed(3)).item()
    assert value == pytest.approx((second.norm() / first.norm()).item())


def test_descent_on_srip_makes_filters_orthonormal():
    """With a fixed v_0 it only rotated them away from that vector: the norm stayed at 6.9 of 8.2."""
    torch.manual_seed(0)
    weight = torch.randn(32, 27, requires_grad=True)
    optimizer = torch.optim.Adam([weight], 0.01)

    def norm() -> float:
        return (torch.linalg.svdvals(weight).square() - 1).abs().max().item()

    before = norm()
    for _ in range(400):
        optimizer.zero_grad()
        srip(weight).backward()
        optimizer.step()
    assert norm() < 0.2 * before


@pytest.mark.parametrize("shape", SHAPES)
def test_srip_never_exceeds_the_spectral_norm(shape):
    weight = draw(shape)
    matrix = as_matrix(weight)
    exact = (torch.linalg.svdvals(matrix) ** 2 - 1).abs().max()
    smaller = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    residual = smaller @ smaller.T - torch.eye(len(smaller), dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.matrix_norm(residual, ord=2), exact)
    assert srip(weight) <= exact * (1 + 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_mma_is_the_mean_smallest_angle(shape):
    weight = draw(shape)
    units = directions(weight)
    smallest = []
    for i, u in enumerate(units):
        cosines = [dot(u, v) for j, v in enumerate(units) if j != i]
        smallest.append(min(math.acos(c) for c in cosines))
    assert mma(weight).item() == pytest.approx(-sum(smallest) / len(smallest))


@pytest.mark.parametrize("shape", KERNELS)
def test_ocnn_is_the_sum_over_shifts(shape):
    weight = draw(shape)
    n, channels, *size = shape
    total = 0.0
    for i, j in itertools.product(range(n), repeat=2):
        for shift in itertools.product(*(range(1 - k, k) for k in size)):
            overlap = 0.0
            for c, *at in itertools.product(range(channels), *map(range, size)):
                there = [a + s for a, s in zip(at, shift, strict=True)]
                if all(0 <= t < k for t, k in zip(there, size, strict=True)):
                    overlap += float(weight[(i, c, *at)] * weight[(j, c, *there)])
            total += (overlap - (i == j and not any(shift))) ** 2
    assert ocnn(weight).item() * n**2 == pytest.approx(total)


@pytest.mark.parametrize(
    ("shape", "stride", "image"),
    [
        ((3, 2, 3), 1, (5,)),
        ((3, 2, 3), 2, (6,)),
        ((4, 1, 5), 3, (9,)),
        ((3, 2, 2, 2), 1, (3, 4)),
        ((2, 1, 3, 3), 2, (6, 6)),
        ((2, 2, 3, 2), (2, 1), (6, 3)),
        ((2, 1, 2, 2, 2), 1, (3, 3, 3)),
    ],
)
def test_ocnn_is_the_distance_of_the_operator_from_orthogonal_rows(shape, stride, image):
    """‖K Kᵀ - I‖², with K the layer's matrix on a circular image, where all rows are interior."""
    weight = draw(shape)
    n, channels, *size = shape
    steps = (stride,) * len(image) if isinstance(stride, int) else stride
    positions = list(itertools.product(*(range(0, e, s) for e, s in zip(image, steps, strict=True))))
    operator = torch.zeros(n, len(positions), channels, *image, dtype=torch.float64)
    for i, (p, position) in itertools.product(range(n), enumerate(positions)):
        for at in itertools.product(*map(range, size)):
            pixel = tuple((a + o) % e for a, o, e in zip(at, position, image, strict=True))
            operator[(i, p, slice(None), *pixel)] += weight[(i, slice(None), *at)]
    matrix = operator.flatten(2).flatten(0, 1)  # (n · positions, C · pixels)
    distance = (matrix @ matrix.T - torch.eye(len(matrix), dtype=torch.float64)).square().sum()
    assert ocnn(weight, stride=stride).item() * n**2 * len(positions) == pytest.approx(distance.item())


def test_soft_orthogonality_is_its_lengths_and_its_inner_products():
    weight = draw((6, 9))
    parts = 6 * lengths(weight) + 6 * 5 * inner_products(weight)
    assert 36 * soft_orthogonality(weight).item() == pytest.approx(parts.item(), rel=1e-12)


def test_inner_products_are_the_cosines_times_the_lengths():
    weight = draw((5, 7))
    pairs = [dot(a, b) ** 2 for i, a in enumerate(rows(weight)) for j, b in enumerate(rows(weight)) if i != j]
    assert inner_products(weight).item() == pytest.approx(sum(pairs) / 20, rel=1e-12)
    assert inner_products(weight / 2).item() == pytest.approx(inner_products(weight).item() / 16)
    assert inner_products(torch.nn.functional.normalize(weight)).item() == pytest.approx(gram_penalty(weight).item())


def test_lengths_pull_along_the_filter_and_angles_across_it():
    weight = draw((5, 7)).requires_grad_()
    [along] = torch.autograd.grad(lengths(weight), weight)
    [across] = torch.autograd.grad(gram_penalty(weight), weight)
    turned = along - (along * weight).sum(1, keepdim=True) / weight.square().sum(1, keepdim=True) * weight
    assert turned.abs().max() < 1e-15 and (across * weight).sum(1).abs().max() < 1e-15 < along.abs().min()


def test_ocnn_without_shifts_is_soft_orthogonality():
    assert ocnn(draw((4, 8, 1, 1))).item() == pytest.approx(soft_orthogonality(draw((4, 8))).item())


def test_ocnn_sees_the_shifted_copy_that_the_gram_matrix_misses():
    """Two one-pixel filters, a pixel apart: orthonormal as vectors, but the same feature in a convolution."""
    weight = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 1] = weight[1, 0, 1, 2] = 1
    assert soft_orthogonality(weight) == 0
    assert ocnn(weight).item() == pytest.approx(2 / 4)  # (0, 1) and (1, 0) at one shift each, n² = 4


def test_ocnn_is_zero_for_an_orthogonal_convolution():
    weight = orthonormal((4, 4)).view(4, 4, 1)
    sparse = torch.cat([torch.zeros_like(weight), weight, torch.zeros_like(weight)], dim=2)  # one tap
    assert ocnn(sparse).item() == pytest.approx(0, abs=1e-24)
    patches = orthonormal((4, 1, 2, 2))  # at stride 2 they do not overlap
    assert ocnn(patches, stride=2).item() == pytest.approx(0, abs=1e-24)


@pytest.mark.parametrize("shape", [(6, 4), (5, 3, 4), (4, 3, 2, 3), (3, 2, 2, 2, 2)])
def test_decov_is_the_paper_loss_per_half_pair(shape):
    activations = draw(shape)
    count = shape[1]
    samples = []
    for image in activations.view(*shape[:2], -1):  # (c, positions)
        samples.extend(zip(*image.tolist(), strict=True))
    means = [sum(h[i] for h in samples) / len(samples) for i in range(count)]
    paper = 0.0
    for i, j in itertools.permutations(range(count), 2):
        covariance = sum((h[i] - means[i]) * (h[j] - means[j]) for h in samples) / len(samples)
        paper += covariance**2 / 2
    assert decov(activations).item() * count * (count - 1) / 2 == pytest.approx(paper)


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_orthonormal_filters_and_tight_frames_cost_nothing(shape):
    weight = orthonormal(shape).requires_grad_()
    assert soft_orthogonality(weight).item() == pytest.approx(0, abs=1e-24)
    assert srip(weight).item() == pytest.approx(0, abs=1e-12)
    exact = torch.eye(3, 5).requires_grad_()
    loss = soft_orthogonality(exact) + srip(exact)
    loss.backward()
    assert loss == 0 and not exact.grad.any()


@pytest.mark.parametrize("d", [2, 3, 6])
def test_the_simplex_has_equal_angles(d):
    weight = simplex(d)
    assert mma(weight).item() == pytest.approx(-math.acos(-1 / d))


def test_mma_accepts_antiparallel_filters():
    weight = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert mma(weight).item() == pytest.approx(-math.pi)


def test_mma_is_exact_for_almost_equal_filters():
    angle = 1e-5  # arccos in float32 returns 0 here
    weight = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], requires_grad=True)
    loss = mma(weight)
    assert loss.item() == pytest.approx(-angle, rel=1e-5)
    loss.backward()
    assert weight.grad.norm(dim=1).tolist() == pytest.approx([1, 1])  # |∂θ/∂w| = 1/‖w‖ for each filter of the pair


# --- properties of all ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHT_LOSSES)
@pytest.mark.parametrize("shape", [(3, 2, 3), (4, 1, 2, 2), (6, 2, 2)])
def test_gradients_by_finite_differences(name, shape):
    assert torch.autograd.gradcheck(WEIGHT_LOSSES[name], draw(shape, seed=3).requires_grad_())


def test_gradient_of_decov():
    activations = draw((3, 3, 2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(decov, activations)


@pytest.mark.parametrize("name", ANGLE_LOSSES)
def test_angle_losses_ignore_length_and_turn_only(name):
    weight = draw((5, 2, 3, 3)).requires_grad_()
    scale = torch.tensor([0.01, 0.5, 1, 3, 100.0], dtype=torch.float64).view(-1, 1, 1, 1)
    loss = WEIGHT_LOSSES[name](weight)
    assert loss.item() == pytest.approx(WEIGHT_LOSSES[name](weight * scale).item())
    loss.backward()
    inner = (weight * weight.grad).flatten(1).sum(dim=1)
    assert inner.abs().max() < 1e-12


@pytest.mark.parametrize("name", WEIGHT_LOSSES)
def test_zero_filters_have_no_nan_and_no_pull(name):
    for zeros in ([1], [0, 2], [0, 1, 2, 3]):
        weight = draw((4, 2, 3, 3))
        weight[zeros] = 0
        weight.requires_grad_()
        loss = WEIGHT_LOSSES[name](weight)
        loss.backward()
        assert loss.isfinite() and weight.grad.isfinite().all()
        if name != "srip":  # an estimate short of the norm is not stationary there
            assert not weight.grad[zeros].any()


@pytest.mark.parametrize("name", WEIGHT_LOSSES)
def test_equal_filters_have_finite_gradients(name):
    weight = draw((4, 2, 3, 3))
    weight[1] = weight[0]
    weight.requires_grad_()
    WEIGHT_LOSSES[name](weight).backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("name", WEIGHT_LOSSES)
def test_precision(name):
    loss = WEIGHT_LOSSES[name]
    weight = draw((6, 2, 3, 3)).bfloat16()  # so that every precision holds the same numbers
    assert loss(weight.double()).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = loss(weight.float())
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, loss(weight.float()))
    assert torch.equal(loss(weight), loss(weight.float()))
    assert under_autocast.item() == pytest.approx(loss(weight.double()).item(), rel=1e-4)


def test_decov_in_float32_under_autocast():
    activations = draw((8, 4, 3, 3)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decov(activations), decov(activations.float()))


@pytest.mark.parametrize("name", [name for name in WEIGHT_LOSSES if name != "ocnn"])
def test_convolution_and_linear_agree(name):
    weight = draw((5, 2, 3, 3))
    loss = WEIGHT_LOSSES[name]
    assert loss(weight) == loss(as_matrix(weight))


# --- layers and models ----------------------------------------------------------------------------


def test_baselines_apply_to_layers():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2), nn.Conv2d(6, 4, 1))
    layers = select_layers(model)
    for loss in (soft_orthogonality, mma):
        expected = sum(loss(layer.weight) for layer in layers.values()) / 3
        torch.testing.assert_close(mean_over_layers(layers, loss), expected)
    expected = sum(ocnn(layer.weight, stride=layer.stride) for layer in layers.values()) / 3
    torch.testing.assert_close(ocnn_over_layers(layers), expected)


def test_orthogonal_init():
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3),  # n < d
        nn.Conv2d(1, 64, 3),  # n > d
        nn.Linear(9, 9),
        nn.BatchNorm2d(4),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    orthogonal_init(model)
    for number, layer in enumerate(model[:2]):
        norm = before[f"{number}.weight"].norm().double()
        assert norm**2 / len(layer.weight) == pytest.approx(1 / 3, rel=0.25)  # per filter, as initialised by default
        matrix = as_matrix(layer.weight).double()
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(gram, norm**2 / len(gram) * torch.eye(len(gram)).double(), atol=1e-5, rtol=0)
    for name, value in model.state_dict().items():
        if name not in ("0.weight", "1.weight"):  # the linear layer is unchanged
            assert torch.equal(value, before[name])
    first = model[0].weight.clone()
    torch.manual_seed(0)
    orthogonal_init(model)
    torch.testing.assert_close(first, model[0].weight)
