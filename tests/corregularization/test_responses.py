"""Penalties on responses and in the geometry of the inputs, against NumPy and patches cut out one by one."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.corregularization import baselines
from lib.corregularization.losses import PenaltyError, as_matrix, gram_penalty, response_penalty, select_layers
from lib.corregularization.responses import ResponsePenalty, WhitenedPenalty


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2))


def correlations(responses):
    """Off-diagonal correlations of channels, by NumPy. responses: (B, C, *positions)."""
    flat = responses.detach().double().transpose(0, 1).flatten(1).numpy()
    table = np.corrcoef(flat)
    return table[~np.eye(len(table), dtype=bool)]


def patches(images, layer):
    """All input patches of a convolution in its own order of weights, cut out one by one, (count, d)."""
    (p, q), (s, t) = layer.padding, layer.stride
    tall, wide = (d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    padded = np.pad(images.numpy().astype(np.float64), [(0, 0), (0, 0), (p, p), (q, q)])
    rows = []
    for image in padded:
        for top in range(0, padded.shape[2] - tall + 1, s):
            for left in range(0, padded.shape[3] - wide + 1, t):
                window = image[:, top : top + tall, left : left + wide]
                rows.append(window[:, :: layer.dilation[0], :: layer.dilation[1]].ravel())
    return np.array(rows)


# --- responses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2, 4])
@pytest.mark.parametrize("shape", [(40, 5), (6, 4, 9), (3, 5, 4, 4)])
def test_response_penalty_is_the_mean_power_of_correlations(shape, power):
    responses = draw(*shape) + draw(shape[0], 1, *shape[2:], seed=1)  # a common part correlates the channels
    expected = np.mean(np.abs(correlations(responses)) ** power)
    assert response_penalty(responses, power=power).item() == pytest.approx(expected, rel=1e-5)


def test_a_network_is_judged_by_the_mean_over_its_layers_last_responses():
    model = network()
    layers = select_layers(model)
    penalty = ResponsePenalty(layers)
    model(draw(4, 3, 8, 8, seed=3))  # forgotten with the next pass
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


def test_without_a_forward_pass_there_is_nothing_to_penalise():
    with pytest.raises(PenaltyError, match="run the model before"):
        ResponsePenalty(select_layers(network()))()


@pytest.mark.parametrize("kind", [ResponsePenalty, WhitenedPenalty])
def test_closing_leaves_the_model_without_hooks(kind):
    model = network()
    penalty = kind(select_layers(model))
    assert any(layer._forward_hooks or layer._forward_pre_hooks for layer in model)
    penalty.close()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model)
    model(draw(2, 3, 8, 8))
    with pytest.raises(PenaltyError):
        penalty()


@pytest.mark.parametrize("kind", [ResponsePenalty, WhitenedPenalty])
def test_watching_does_not_change_what_the_model_answers(kind):
    images = draw(4, 3, 8, 8)
    plain = network()(images)
    model = network()
    kind(select_layers(model))
    assert torch.equal(model(images), plain)


# --- whitened --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Conv2d(2, 4, (2, 3), stride=2, padding=(0, 1)),
        nn.Conv2d(2, 4, 2, dilation=2),
    ],
    ids=str,
)
def test_the_metric_is_the_covariance_of_the_patches_that_the_layer_sees(layer):
    images = draw(6, layer.in_channels, 7, 7).cumsum(3)  # neighbours correlate
    penalty = WhitenedPenalty({"conv": layer}, patches=10_000, ridge=0.05)
    layer(images)
    rows = patches(images, layer)
    covariance = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(penalty.covariance["conv"].numpy(), covariance, rtol=1e-3, atol=1e-4)
    metric = covariance / covariance.diagonal().mean() + 0.05 * np.eye(len(covariance))
    gram = as_matrix(layer.weight).detach().double().numpy()
    gram = gram @ metric @ gram.T
    cosines = gram / np.sqrt(np.outer(gram.diagonal(), gram.diagonal()))
    expected = (cosines[~np.eye(len(gram), dtype=bool)] ** 2).mean()
    assert penalty().item() == pytest.approx(expected, rel=1e-3)


def test_in_its_metric_the_whitened_penalty_is_the_correlation_of_responses():
    layer = nn.Conv2d(2, 5, 3)
    images = draw(8, 2, 9, 9).cumsum(2).cumsum(3)
    penalty = WhitenedPenalty({"conv": layer}, patches=10_000, ridge=1e-6)
    answers = layer(images)
    assert penalty().item() == pytest.approx(np.mean(correlations(answers) ** 2), rel=1e-3)
    assert abs(penalty().item() - gram_penalty(layer.weight).item()) > 0.05  # which weights alone do not tell


def test_on_white_inputs_it_is_close_to_the_plain_penalty():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 3)
    penalty = WhitenedPenalty({"conv": layer}, patches=100_000)
    layer(3 * draw(100, 3, 16, 16))
    assert penalty().item() == pytest.approx(gram_penalty(layer.weight).item(), rel=0.05)


def test_the_gradient_of_the_whitened_penalty_reaches_the_weights():
    model = network()
    penalty = WhitenedPenalty(select_layers(model), groups=2)
    model(draw(4, 3, 8, 8))
    penalty().backward()
    for layer in penalty_layers(model):
        assert torch.isfinite(layer.weight.grad).all()
        assert layer.weight.grad.abs().max() > 0


def test_the_covariance_follows_the_batches_with_the_momentum():
    layer = nn.Conv2d(2, 4, 2)
    first, second = draw(3, 2, 5, 5), 2 * draw(3, 2, 5, 5, seed=1)
    penalty = WhitenedPenalty({"conv": layer}, momentum=0.25, patches=10_000)
    layer(first)
    layer(second)
    old, new = (np.cov(patches(images, layer).T, bias=True) for images in (first, second))
    np.testing.assert_allclose(penalty.covariance["conv"].numpy(), 0.75 * old + 0.25 * new, rtol=1e-3, atol=1e-4)


def test_evaluation_does_not_enter_the_covariance():
    model = network()
    penalty = WhitenedPenalty(select_layers(model))
    model(draw(3, 3, 8, 8))
    before = {name: value.clone() for name, value in penalty.covariance.items()}
    model.eval()
    model(10 * draw(3, 3, 8, 8, seed=1))
    assert all(torch.equal(before[name], value) for name, value in penalty.covariance.items())


def test_flat_inputs_leave_a_finite_penalty_and_gradient():
    model = network()
    penalty = WhitenedPenalty({"0": model[0]})
    model[0].padding = (0, 0)
    model[0](torch.ones(4, 3, 8, 8))
    value = penalty()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(model[0].weight.grad).all()


def test_under_autocast_the_covariance_stays_in_float32():
    model = network()
    penalty = WhitenedPenalty(select_layers(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(draw(4, 3, 8, 8))
        value = penalty()
    assert value.dtype == torch.float32
    assert all(covariance.dtype == torch.float32 for covariance in penalty.covariance.values())


def test_state_travels_to_a_new_object_which_goes_on_alike(tmp_path):
    model, again = network(), network()
    first, second = WhitenedPenalty(select_layers(model)), WhitenedPenalty(select_layers(again))
    model(draw(3, 3, 8, 8))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert second().item() == first().item()
    for penalty, net in ((first, model), (second, again)):
        net[1].reset_running_stats()
        net(draw(3, 3, 8, 8, seed=1))
        assert set(penalty.covariance) == {"0", "3"}
    assert second().item() == first().item()


def test_whitening_is_for_two_dimensional_convolutions_and_needs_to_see_inputs():
    with pytest.raises(PenaltyError, match=r"2-D convolutions .* these are none: \['line'\]"):
        WhitenedPenalty({"conv": nn.Conv2d(1, 2, 3), "line": nn.Conv1d(1, 2, 3)})
    with pytest.raises(PenaltyError, match="run the model in training mode first"):
        WhitenedPenalty(select_layers(network()))()


def test_an_in_place_relu_behind_the_layer_changes_nothing():
    layer = nn.Conv2d(3, 6, 3)
    model = nn.Sequential(layer, nn.ReLU(inplace=True))
    penalty = ResponsePenalty({"conv": layer})
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model(images)
    value = penalty().item()
    penalty.close()
    assert value == pytest.approx(response_penalty(layer(images)).item())
