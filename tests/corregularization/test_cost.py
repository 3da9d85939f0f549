"""Costs: operations in closed form, order of timing, columns; never real durations."""

from functools import partial

import pandas as pd
import pytest
import torch
from torch import nn

from lib.corregularization import cost
from lib.corregularization.cost import (
    AUTOGRAD,
    REGULARISERS,
    STEP,
    WHOLE,
    gram_by_autograd,
    measure_cost,
)
from lib.corregularization.losses import gram_penalty, select_layers


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


LAYERS = [(8, 27), (16, 72)]  # n, d
BATCH = (torch.randn(2, 3, 6, 6), torch.tensor([0, 4]))


@pytest.fixture(scope="module")
def table():
    return measure_cost(network(), BATCH, rounds=2).set_index("method")


def test_one_row_per_method_the_step_first(table):
    expected = [STEP, WHOLE, AUTOGRAD, *(f"Gram, random g = {g}" for g in (2, 4, 8))]
    assert list(table.index) == [*expected, "Soft orthogonality", "SRIP", "MMA", "OCNN"]
    assert list(table.columns) == ["macs", "milliseconds", "share", "relative", "threads"]
    assert table.loc[STEP, "share"] == table.loc[WHOLE, "relative"] == 1
    assert (table[["milliseconds", "share", "relative"]] > 0).all(axis=None)


@pytest.mark.parametrize(
    ("method", "per_layer"),
    [
        (WHOLE, lambda n, d: 2 * n * n * d),  # U Uᵀ and one product for the gradient
        (AUTOGRAD, lambda n, d: 3 * n * n * d),  # one more, as each factor of U Uᵀ has its own
        ("Gram, random g = 2", lambda n, d: 2 * n * n * d // 2),
        ("Gram, random g = 4", lambda n, d: 2 * n * n * d // 4),
        ("Soft orthogonality", lambda n, d: 3 * n * n * d),
        ("SRIP", lambda n, d: (6 * 2 - 1) * n * d),  # v_0 gets no gradient
        ("MMA", lambda n, d: n * n * d),  # the gradient is that of the chosen pairs only
        ("OCNN", lambda n, d: 3 * 25 * n * n * d),  # 5 × 5 shifts
    ],
)
def test_operations_in_closed_form(table, method, per_layer):
    assert table.loc[method, "macs"] == sum(per_layer(n, d) for n, d in LAYERS)


def test_operations_of_a_step(table):
    pixels, images = 6 * 6, 2
    first, second, last = images * pixels * 8 * 27, images * pixels * 16 * 72, images * 16 * 5
    assert table.loc[STEP, "macs"] == 2 * first + 3 * second + 3 * last  # images get no gradient


def test_the_formula_differentiated_by_autograd_is_the_penalty():
    torch.manual_seed(0)
    weight = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    ours, plain = gram_penalty(weight), gram_by_autograd(weight)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, weight)[0] for loss in (ours, plain)))


def test_methods_take_turns(monkeypatch):
    order = []

    def spy(name, function, layers):
        order.append(name)
        return function(layers)

    named = {name: partial(spy, name, function) for name, function in REGULARISERS.items()}
    monkeypatch.setattr(cost, "REGULARISERS", named)
    measure_cost(network(), BATCH, rounds=3)
    assert order == list(named) * (1 + 1 + 3)  # warmed up, counted, timed


def test_the_random_state_stays_as_it_is():
    model = network()
    before = torch.get_rng_state()
    measure_cost(model, BATCH, rounds=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_regulariser_has_a_gradient_for_every_layer():
    model = network()
    layers = select_layers(model)
    for function in REGULARISERS.values():
        gradients = torch.autograd.grad(function(layers), [layer.weight for layer in layers.values()])
        assert all(g.isfinite().all() and g.any() for g in gradients)


def test_the_table_is_plain(table):
    assert pd.api.types.is_integer_dtype(table["macs"])
    assert table.drop(columns=["macs", "threads"]).dtypes.eq("float64").all()
