"""The Gram penalty against closed forms, loops with autograd and finite differences; layers, autocast, compile, DDP."""

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import paths
from lib.corregularization import losses as module
from lib.corregularization.losses import (
    as_matrix,
    gram_penalty,
    group_indices,
    mean_over_layers,
    response_penalty,
    select_layers,
    welch_bound,
)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_penalty(weight, parts, power=2, margin=0.0):
    """Return the penalty pair by pair; its gradient comes from autograd."""
    total, pairs = 0.0, 0
    for part in parts:
        for i, j in itertools.permutations(part, 2):
            cosine = (weight[i] * weight[j]).sum() / (weight[i].norm() * weight[j].norm())
            total = total + (cosine.abs() - margin).clamp_min(0) ** power
            pairs += 1
    return total / pairs


def value_and_gradient(function, weight):
    weight = weight.detach().clone().requires_grad_()
    value = function(weight)
    (gradient,) = torch.autograd.grad(value, weight)
    return value.detach(), gradient


def simplex(d):
    """Return d + 1 vectors in d dimensions with equal angles, (d + 1, d)."""
    centred = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    return centred @ torch.linalg.svd(centred).Vh[:d].T


# --- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2, 4])
def test_antiparallel_pair_costs_exactly_one(power):
    assert gram_penalty(torch.tensor([[0.0, 2.0], [0.0, -1.0]]), power=power).item() == 1
    direction = draw(1, 7)
    assert gram_penalty(torch.cat([direction, -3 * direction]), power=power).item() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("power", [1, 2, 4])
@pytest.mark.parametrize("groups", [1, 2])
def test_orthogonal_filters_cost_exactly_nothing(power, groups):
    weight = torch.diag(torch.tensor([1.0, -2.0, 0.5, 3.0, 7.0]))[:4]
    value, gradient = value_and_gradient(lambda w: gram_penalty(w, power=power, groups=groups), weight)
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("d", [1, 2, 5, 9])
def test_simplex_costs_exactly_one_over_d(d):
    assert gram_penalty(simplex(d), power=1).item() == pytest.approx(1 / d, rel=1e-12)
    assert gram_penalty(simplex(d)).item() == pytest.approx(d**-2, rel=1e-12)
    assert welch_bound(d + 1, d) == pytest.approx(1 / d)  # a simplex is an optimal packing


def test_two_copies_of_a_basis_are_at_the_welch_rms_with_maximum_one():
    basis = torch.linalg.qr(draw(6, 6)).Q
    weight = torch.cat([basis, basis])
    assert gram_penalty(weight).sqrt().item() == pytest.approx(welch_bound(12, 6), rel=1e-12)
    assert gram_penalty(weight, power=400).item() == pytest.approx(12 / (12 * 11))  # 12 ordered pairs at |cosine| 1


def test_hinge_at_the_welch_bound_lets_the_simplex_rest_and_not_a_duplicate():
    assert gram_penalty(simplex(4), margin="welch").item() == pytest.approx(0, abs=1e-25)
    duplicated = torch.cat([simplex(4), simplex(4)[:1]])
    assert gram_penalty(duplicated, margin="welch").item() > 0.01


def test_filters_within_the_margin_are_not_moved():
    value, gradient = value_and_gradient(lambda w: gram_penalty(w, margin=0.5, power=1), simplex(4))
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize(("n", "d", "bound"), [(2, 1, 1), (4, 2, math.sqrt(1 / 3)), (4, 4, 0), (3, 9, 0), (5, 4, 0.25)])
def test_welch_bound_in_known_cases(n, d, bound):
    assert welch_bound(n, d) == pytest.approx(bound)


def test_value_lies_between_zero_and_one_and_the_welch_bound_holds():
    for seed, (n, d) in enumerate([(2, 2), (9, 3), (5, 8), (20, 4)]):
        value = gram_penalty(draw(n, d, seed=seed)).item()
        assert welch_bound(n, d) ** 2 <= value <= 1


# --- groups ----------------------------------------------------------------------------------------


@given(groups=st.integers(1, 8), m=st.integers(2, 6), grouping=st.sampled_from(["random", "contiguous"]))
@settings(max_examples=60, deadline=None)
def test_every_filter_is_in_exactly_one_group(groups, m, grouping):
    index = group_indices(groups * m, groups, grouping)
    assert index.shape == (groups, m)
    assert index.dtype == torch.int64
    assert sorted(itertools.chain(*index.tolist())) == list(range(groups * m))


def test_contiguous_groups_are_runs():
    assert group_indices(6, 2, "contiguous").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_random_groups_are_new_at_each_call_and_repeat_with_the_seed():
    generator = stream(3)
    first, second = (group_indices(12, 3, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, group_indices(12, 3, generator=stream(3)))
    torch.manual_seed(5)
    of_global_state = group_indices(12, 3)
    torch.manual_seed(5)
    assert torch.equal(of_global_state, group_indices(12, 3))


@pytest.mark.parametrize(("n", "groups"), [(6, 2), (9, 3)])
def test_random_groups_let_every_pair_meet_equally_often(n, groups):
    draws, generator = 2000, stream()
    met = torch.zeros(n, n)
    for _ in range(draws):
        for part in group_indices(n, groups, generator=generator).tolist():
            for i, j in itertools.combinations(part, 2):
                met[min(i, j), max(i, j)] += 1
    share = met[tuple(torch.triu_indices(n, n, 1))] / draws
    expected = share.mean()
    assert (share - expected).abs().max() < 5 * (expected * (1 - expected) / draws).sqrt()


@pytest.mark.parametrize(("n", "groups", "power"), [(12, 3, 2), (10, 5, 2), (12, 4, 1)])
def test_random_regrouping_is_unbiased_in_value_and_gradient(n, groups, power):
    weight, generator = draw(n, 4), stream(1)
    options = {"power": power, "groups": groups, "generator": generator}
    whole, whole_gradient = value_and_gradient(lambda w: gram_penalty(w, power=power), weight)
    drawn = [value_and_gradient(lambda w: gram_penalty(w, **options), weight) for _ in range(2000)]
    values, gradients = (torch.stack(found) for found in zip(*drawn, strict=True))
    assert values.std() > 0
    assert (values.mean() - whole).abs() < 4 * values.std() / len(values) ** 0.5
    # 28 to 48 components at once: 5 standard errors each
    assert ((gradients.mean(0) - whole_gradient).abs() < 5 * gradients.std(0) / len(values) ** 0.5).all()


def test_fixed_groups_do_not_see_the_pairs_across():
    basis = torch.eye(4, dtype=torch.float64)
    duplicated = torch.cat([basis, basis])
    assert gram_penalty(duplicated, groups=2, grouping="contiguous").item() == 0
    meeting = duplicated[torch.arange(8).view(2, 4).T.flatten()]  # each beside its copy
    assert gram_penalty(meeting, groups=4, grouping="contiguous").item() == 1
    assert gram_penalty(duplicated).item() == pytest.approx(1 / 7)


@pytest.mark.parametrize("grouping", ["random", "contiguous"])
def test_one_group_is_the_whole_penalty(grouping):
    weight = draw(9, 4)
    value, gradient = value_and_gradient(lambda w: gram_penalty(w, groups=1, grouping=grouping), weight)
    whole, whole_gradient = value_and_gradient(lambda w: slow_penalty(w, [range(9)]), weight)
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(gradient, whole_gradient)


def test_the_whole_penalty_draws_no_random_numbers():
    before = torch.get_rng_state()
    gram_penalty(draw(5, 3))
    gram_penalty(draw(6, 3), groups=2, grouping="contiguous")
    assert torch.equal(before, torch.get_rng_state())


# --- gradient --------------------------------------------------------------------------------------

CASES = [
    (power, margin, groups, grouping)
    for power in (1, 2, 4, 2.5)
    for margin in (0.0, 0.2, "welch")
    for groups, grouping in ((1, "random"), (2, "random"), (3, "contiguous"), (6, "random"))
]


@pytest.mark.parametrize(("power", "margin", "groups", "grouping"), CASES)
@pytest.mark.parametrize(("n", "d"), [(12, 5), (12, 14)])
def test_value_and_gradient_equal_the_formula_in_loops(n, d, power, margin, groups, grouping):
    weight = draw(n, d) * torch.linspace(0.3, 3, n, dtype=torch.float64).unsqueeze(1)
    parts = group_indices(n, groups, grouping, generator=stream(7)).tolist()
    number = welch_bound(n, d) if margin == "welch" else margin
    options = {"power": power, "margin": margin, "groups": groups, "grouping": grouping}
    found = value_and_gradient(lambda w: gram_penalty(w, generator=stream(7), **options), weight)
    expected = value_and_gradient(lambda w: slow_penalty(w, parts, power, number), weight)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("power", [1, 2, 4])
@pytest.mark.parametrize("margin", [0.0, 0.2])
@pytest.mark.parametrize(("groups", "grouping"), [(1, "random"), (2, "random"), (3, "contiguous")])
def test_gradient_equals_finite_differences(power, margin, groups, grouping):
    weight = draw(6, 3).requires_grad_()
    options = {"power": power, "margin": margin, "groups": groups, "grouping": grouping}
    torch.autograd.gradcheck(lambda w: 10 * gram_penalty(w, generator=stream(2), **options), weight)


def test_gradient_equals_finite_differences_through_a_convolution_kernel():
    torch.autograd.gradcheck(gram_penalty, draw(5, 2, 2, 2).requires_grad_())


def test_gradient_of_the_squared_penalty_is_the_closed_form():
    weight = draw(7, 4)
    _, gradient = value_and_gradient(gram_penalty, weight)
    n, unit = len(weight), weight / weight.norm(dim=1, keepdim=True)
    for i in range(n):
        pull = sum((unit[i] @ unit[j]) * unit[j] for j in range(n) if j != i)
        tangential = pull - unit[i] * (unit[i] @ pull)
        torch.testing.assert_close(gradient[i], 4 / (n * (n - 1) * weight[i].norm()) * tangential)


@pytest.mark.parametrize("options", [{}, {"power": 1}, {"power": 4, "groups": 4}, {"margin": "welch"}])
def test_gradient_is_tangential(options):
    weight = draw(8, 5)
    _, gradient = value_and_gradient(lambda w: gram_penalty(w, **options), weight)
    assert gradient.abs().max() > 1e-3
    assert (gradient * weight).sum(1).abs().max() < 1e-12


def test_gradient_in_float32_is_that_of_float64():
    weight = draw(64, 27)
    _, precise = value_and_gradient(gram_penalty, weight)
    _, single = value_and_gradient(gram_penalty, weight.float())
    assert single.dtype == torch.float32
    assert (single - precise).norm() < 1e-5 * precise.norm()


def test_gradient_scales_with_the_loss_weight():
    weight = draw(6, 3)
    _, once = value_and_gradient(gram_penalty, weight)
    _, thrice = value_and_gradient(lambda w: 3 * gram_penalty(w), weight)
    torch.testing.assert_close(thrice, 3 * once)


def test_second_derivatives_are_refused_and_not_wrong():
    weight = draw(4, 3).requires_grad_()
    for loss in (gram_penalty(weight), gram_penalty(weight) ** 2):
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        with pytest.raises(RuntimeError):  # with one of three messages of torch
            torch.autograd.grad(gradient.square().sum(), weight)


# --- invariances -----------------------------------------------------------------------------------


@given(
    scales=st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=6),
    flips=st.lists(st.booleans(), min_size=6, max_size=6),
    power=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_length_and_sign_of_a_filter_do_not_count(scales, flips, power, seed):
    weight = draw(6, 4, seed=seed)
    factor = torch.tensor(scales, dtype=torch.float64) * (1 - 2 * torch.tensor(flips, dtype=torch.float64))
    value, gradient = value_and_gradient(lambda w: gram_penalty(w, power=power), weight)
    scaled, scaled_gradient = value_and_gradient(lambda w: gram_penalty(w, power=power), factor.unsqueeze(1) * weight)
    torch.testing.assert_close(scaled, value, rtol=1e-9, atol=0)
    torch.testing.assert_close(scaled_gradient * factor.unsqueeze(1), gradient, rtol=1e-7, atol=1e-10)


@given(order=st.permutations(range(7)), power=st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_the_order_of_filters_does_not_count(order, power):
    weight = draw(7, 3)
    value, gradient = value_and_gradient(lambda w: gram_penalty(w, power=power), weight)
    other, other_gradient = value_and_gradient(lambda w: gram_penalty(w, power=power), weight[list(order)])
    torch.testing.assert_close(other, value)
    torch.testing.assert_close(other_gradient, gradient[list(order)])


def test_a_rotation_of_the_weight_space_does_not_count():
    weight, rotation = draw(7, 4), torch.linalg.qr(draw(4, 4, seed=1)).Q
    torch.testing.assert_close(gram_penalty(weight @ rotation), gram_penalty(weight))


# --- layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 5),
        nn.Conv1d(2, 5, 3),
        nn.Conv2d(2, 5, 3),
        nn.Conv3d(2, 5, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_all_kinds_agree_with_the_matrix_of_their_filters(layer):
    layer = layer.double()
    matrix = torch.stack([layer.weight[i].flatten() for i in range(5)])
    expected = slow_penalty(matrix, [range(5)])
    (expected_gradient,) = torch.autograd.grad(expected, layer.weight)
    assert torch.equal(as_matrix(layer.weight), matrix)
    for value in (gram_penalty(layer.weight), mean_over_layers({"layer": layer})):
        (gradient,) = torch.autograd.grad(value, layer.weight)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)


def test_channels_last_kernels_give_the_same():
    kernel = draw(5, 4, 3, 3)
    found = value_and_gradient(gram_penalty, kernel.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, value_and_gradient(gram_penalty, kernel))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.block = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ConvTranspose2d(6, 5, 2))
        self.single = nn.Conv2d(5, 1, 1)
        self.classifier = nn.Linear(5, 7)


def test_all_convolutions_are_chosen_but_depthwise_and_transposed_ones_and_those_with_one_filter():
    assert list(select_layers(Net())) == ["stem", "block.0"]


def test_a_network_counts_each_layer_alike():
    net = Net().double()
    layers = select_layers(net)
    values = [gram_penalty(as_matrix(layer.weight)) for layer in layers.values()]
    torch.testing.assert_close(mean_over_layers(layers), sum(values) / 2)
    fourth = mean_over_layers(layers, lambda matrix, power: matrix.sum() * 0 + power, power=4)
    assert fourth.item() == 4


# --- responses --------------------------------------------------------------------------------------


def test_response_penalty_takes_samples_from_everywhere_and_ignores_means_and_scales(monkeypatch):
    responses = draw(4, 3, 5, 5)
    whole = response_penalty(responses, rows=None)
    moved = responses * torch.tensor([2.0, 0.1, 7.0]).view(3, 1, 1) + torch.tensor([5.0, -3.0, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(response_penalty(moved, rows=None), whole)
    torch.testing.assert_close(response_penalty(responses, rows=100), whole)  # there are 100
    taken = []
    monkeypatch.setattr(module, "gram_penalty", lambda matrix, **_: taken.append(matrix) or matrix.sum())
    places = torch.arange(128 * 32 * 32.0).view(128, 1, 32, 32).expand(-1, 2, -1, -1)  # each response is its own index
    response_penalty(places.double(), rows=4096)
    found = (taken[0][0] - taken[0][0].min()).round().long()  # undoes the centring: index 0 is always taken
    assert len(found.unique()) == 4096
    image, row, column = found // 1024, found // 32 % 32, found % 32
    for axis, length in ((image, 128), (row, 32), (column, 32)):
        counts = torch.bincount(axis, minlength=length)
        assert counts.min() > 0.8 * 4096 / length and counts.max() < 1.2 * 4096 / length


# --- precision, degenerate filters, compiler, processes --------------------------------------------


def test_under_autocast_the_penalty_stays_in_float32():
    weight = draw(16, 9).float()
    expected, expected_gradient = value_and_gradient(gram_penalty, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (weight @ weight.T).dtype == torch.bfloat16
        leaf = weight.clone().requires_grad_()
        value = gram_penalty(leaf)
        of_responses = response_penalty(weight)
    assert value.dtype == of_responses.dtype == torch.float32
    assert value == expected
    assert torch.equal(torch.autograd.grad(value, leaf)[0], expected_gradient)
    assert of_responses == response_penalty(weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_give_a_float32_value_and_a_gradient_of_their_own_type(dtype):
    weight = draw(16, 9).to(dtype)
    value, gradient = value_and_gradient(gram_penalty, weight)
    assert value.dtype == torch.float32
    assert value == gram_penalty(weight.float())
    assert gradient.dtype == dtype


@pytest.mark.parametrize("options", [{}, {"power": 1}, {"groups": 2}, {"power": 4, "groups": 3}, {"margin": 0.1}])
@pytest.mark.parametrize("length", [0.0, 1e-14])
def test_a_filter_without_direction_is_orthogonal_to_all_and_gets_no_gradient(options, length):
    weight = draw(6, 4)
    weight[2] *= length
    value, gradient = value_and_gradient(lambda w: gram_penalty(w, generator=stream(), **options), weight)
    assert 0 < value < 1
    assert torch.isfinite(gradient).all()
    assert not gradient[2].any()
    assert gradient.any()


def test_filters_that_are_all_zero_cost_nothing():
    value, gradient = value_and_gradient(gram_penalty, torch.zeros(4, 3))
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own imports
@pytest.mark.parametrize("groups", [1, 4])
def test_the_compiled_penalty_equals_the_eager_one(groups):
    def loss(weight):
        return 2 * gram_penalty(weight, groups=groups, grouping="contiguous")

    weight = draw(8, 5).float()
    torch.compiler.reset()
    # All steps of torch.compile except code generation, which takes half a minute: one forward and
    # backward graph, decomposed and partitioned.
    compiled = torch.compile(loss, backend="aot_eager_decomp_partition", fullgraph=True)
    torch.testing.assert_close(value_and_gradient(compiled, weight), value_and_gradient(loss, weight))


DDP = """
import sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from lib.corregularization.losses import mean_over_layers, select_layers

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).double()
layers = select_layers(model)
images, labels = torch.load(f"{folder}/batch.pt")
network = DistributedDataParallel(model)
half = slice(4 * rank, 4 * rank + 4)
loss = nn.functional.cross_entropy(network(images[half]), labels[half]) + 10 * mean_over_layers(layers)
loss.backward()
torch.save([p.grad for p in model.parameters()], f"{folder}/gradient{rank}.pt")
distributed.destroy_process_group()
"""


def test_on_two_processes_the_penalty_counts_once(tmp_path):
    images, labels = draw(8, 3, 4, 4), torch.arange(8) % 2
    torch.save((images, labels), tmp_path / "batch.pt")
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", DDP, str(rank), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=120)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).double()
    penalty = mean_over_layers(select_layers(model))
    (nn.functional.cross_entropy(model(images), labels) + 10 * penalty).backward()
    for rank in range(2):
        for found, parameter in zip(torch.load(tmp_path / f"gradient{rank}.pt"), model.parameters(), strict=True):
            torch.testing.assert_close(found, parameter.grad)


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 3), {"groups": 4}, "4 filters do not form 4 equal groups"),
        ((4, 3), {"groups": 9}, "4 filters do not form 9 equal"),
        ((4, 3), {"groups": 0}, "4 filters do not form 0 equal"),
        ((4, 3), {"groups": -1, "grouping": "contiguous"}, "4 filters do not form -1 equal"),
        ((7, 3), {"groups": 2}, "7 filters do not form 2 equal groups"),
        ((4, 3), {"groups": 2, "grouping": "similar"}, "'similar' is unknown; choose 'random' or 'contiguous'"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_a_sentence(shape, options, message):
    with pytest.raises(ValueError, match=message):
        gram_penalty(torch.ones(shape), **options)


def test_the_gradient_is_the_same_when_backward_runs_inside_autocast():
    weight = torch.randn(16, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (inside,) = torch.autograd.grad(gram_penalty(weight), weight)
    (outside,) = torch.autograd.grad(gram_penalty(weight), weight)
    assert torch.equal(inside, outside)


def test_layers_that_do_not_form_so_many_groups_take_fewer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 20, 1), nn.Conv2d(20, 3, 1))
    layers = select_layers(model)
    penalties = [gram_penalty(as_matrix(layer.weight), groups=groups, grouping="contiguous")
                 for layer, groups in zip(layers.values(), (8, 5, 1), strict=True)]  # fmt: skip
    found = mean_over_layers(layers, groups=8, grouping="contiguous")
    torch.testing.assert_close(found, torch.stack(penalties).mean())
