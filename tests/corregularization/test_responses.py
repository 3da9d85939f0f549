"""Penalties on responses, against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.corregularization import baselines
from lib.corregularization.losses import ResponsePenalty, response_penalty, select_layers


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2))


def correlations(responses):
    """Return the off-diagonal correlations of channels, by NumPy. responses: (B, C, *positions)."""
    flat = responses.detach().double().transpose(0, 1).flatten(1).numpy()
    table = np.corrcoef(flat)
    return table[~np.eye(len(table), dtype=bool)]


@pytest.mark.parametrize("power", [1, 2, 4])
@pytest.mark.parametrize("shape", [(40, 5), (6, 4, 9), (3, 5, 4, 4)])
def test_response_penalty_is_the_mean_power_of_correlations(shape, power):
    responses = draw(*shape) + draw(shape[0], 1, *shape[2:], seed=1)  # a shared part correlates the channels
    expected = np.mean(np.abs(correlations(responses)) ** power)
    assert response_penalty(responses, power=power).item() == pytest.approx(expected, rel=1e-5)


def test_a_network_is_judged_by_the_mean_over_its_layers_last_responses():
    model = network()
    layers = select_layers(model)
    penalty = ResponsePenalty(layers)
    model(draw(4, 3, 8, 8, seed=3))  # replaced by the next forward pass
    images = draw(5, 3, 8, 8)
    model(images)
    value = penalty().item()
    first = layers["0"](images)
    second = layers["3"](torch.relu(model[1](first)))
    expected = np.mean([np.mean(correlations(answers) ** 2) for answers in (first, second)])
    assert value == pytest.approx(expected, rel=1e-4)


def test_the_gradient_of_the_response_penalty_reaches_every_layer_and_descent_lowers_it():
    model, images = network(), draw(4, 3, 8, 8)
    penalty = ResponsePenalty(select_layers(model))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    values = []
    for _ in range(15):
        model(images)
        loss = penalty()
        optimizer.zero_grad()
        loss.backward()
        assert all(layer.weight.grad.abs().max() > 0 for layer in penalty_layers(model))
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def penalty_layers(model):
    return [layer for layer in model if isinstance(layer, nn.Conv2d)]


def test_any_function_of_responses_and_its_options_can_be_used():
    model, images = network(), draw(4, 3, 8, 8)
    layers = {"first": model[0]}
    decov, grouped = ResponsePenalty(layers, baselines.decov), ResponsePenalty(layers, power=1, rows=None)
    model(images)
    answers = model[0](images)
    assert decov().item() == pytest.approx(baselines.decov(answers).item(), rel=1e-4)
    assert grouped().item() == pytest.approx(np.abs(correlations(answers)).mean(), rel=1e-4)


def test_closing_leaves_the_model_without_hooks():
    model = network()
    penalty = ResponsePenalty(select_layers(model))
    assert any(layer._forward_hooks for layer in model)
    penalty.close()
    assert not any(layer._forward_hooks for layer in model)
    model(draw(2, 3, 8, 8))


def test_watching_does_not_change_what_the_model_answers():
    images = draw(4, 3, 8, 8)
    plain = network()(images)
    model = network()
    ResponsePenalty(select_layers(model))
    assert torch.equal(model(images), plain)


def test_an_in_place_relu_behind_the_layer_changes_nothing():
    layer = nn.Conv2d(3, 6, 3)
    model = nn.Sequential(layer, nn.ReLU(inplace=True))
    penalty = ResponsePenalty({"conv": layer})
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model(images)
    value = penalty().item()
    penalty.close()
    assert value == pytest.approx(response_penalty(layer(images)).item())
