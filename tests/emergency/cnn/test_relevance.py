import copy
import threading

import pytest
import torch
from torch import nn
from torch.func import jacrev

from lib.emergency.cnn.network import build_cnn, variants
from lib.emergency.cnn.relevance import explain, relevance


def small_net(bias=True, norm=True, seed=0, inputs=1):
    """Two blocks with batch statistics that are not 0 and 1."""
    torch.manual_seed(seed)
    layers, before = [], inputs
    for channels in (4, 6):
        layers.append(nn.Conv2d(before, channels, 3, padding=1, bias=bias))
        if norm:
            layer = nn.BatchNorm2d(channels)
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            layers.append(layer)
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        before = channels
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(12, 3, bias=bias))
    return net.double().eval()


def signed(count=2, seed=1, shape=(1, 8, 12)):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)).double()


# -- Against the rules as they are written in the textbook ---------------------------------------


def backwards(matrix, bias, a, relevance_of_outputs, rule):
    """Apply the formula of a rule to a linear map z = W a + b, W (outputs, inputs)."""
    contributions, rest = matrix * a, bias
    if rule == "z_plus":
        contributions, rest = contributions.clamp(min=0), rest.clamp(min=0)
    z = contributions.sum(1) + rest
    z = z + 1e-6 * torch.where(z < 0, -1.0, 1.0)
    return (contributions / z[:, None] * relevance_of_outputs[:, None]).sum(0)


def oracle(net, x, target):
    """Relevance of one input (1, C, H, W), layer by layer from Jacobian matrices. Slow."""
    layers, inputs, a = list(net), [], x
    for layer in layers:
        inputs.append(a)
        a = layer(a)
    found = torch.zeros_like(a[0])
    found[target] = a[0, target]
    convolutions = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    skip = set()
    for place in reversed(range(len(layers))):
        layer, entering = layers[place], inputs[place]
        if isinstance(layer, nn.BatchNorm2d):  # one linear map with the convolution before it
            skip.add(place - 1)
            layer, entering, place = nn.Sequential(layers[place - 1], layer), inputs[place - 1], place - 1
        elif place in skip:
            continue
        if isinstance(layer, (nn.ReLU, nn.Flatten)):
            found = found.reshape(entering[0].shape)
            continue
        flat = entering.flatten()

        def run(vector, layer=layer, entering=entering):
            return layer(vector.view_as(entering)).flatten()

        matrix = jacrev(run)(flat)
        bias = run(flat) - matrix @ flat
        rule = "z_plus" if place in convolutions else "epsilon"
        found = backwards(matrix, bias, flat, found.flatten(), rule).view_as(entering[0])
    return found


@pytest.mark.parametrize("norm", [True, False])
def test_every_rule_is_that_of_the_textbook(norm):
    net, x, targets = small_net(norm=norm), signed(3), torch.tensor([0, 2, 1])
    found = relevance(net, x, targets)
    for place, target in enumerate(targets.tolist()):
        expected = oracle(net, x[place : place + 1], target)
        # The oracle adds its epsilon at poolings too.
        assert torch.allclose(found[place], expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def unusual(kind):
    """Return a network with signed activations between convolutions, or with unusual convolutions."""
    torch.manual_seed(0)
    layers = {
        "no ReLU between": [nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.AvgPool2d(2)],
        "ReLU after pooling": [nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.ReLU()],
        "groups": [nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2, stride=2), nn.ReLU()],
        "signed groups": [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU()],
        "same": [nn.Conv2d(2, 4, (2, 3), padding="same"), nn.ReLU(), nn.Conv2d(4, 6, 4, padding="same"), nn.ReLU()],
        "valid": [
            nn.Conv2d(2, 4, 3, padding="valid", dilation=2),
            nn.ReLU(),
            nn.Conv2d(4, 4, 2, bias=False),
            nn.ReLU(),
        ],
        "average first": [nn.AvgPool2d(2), nn.Conv2d(2, 4, 3), nn.ReLU()],
    }[kind]
    body = nn.Sequential(*layers, nn.Flatten()).double()
    return nn.Sequential(*body, nn.Linear(body(signed(1, shape=(2, 8, 12))).shape[1], 3).double()).eval()


KINDS = ["no ReLU between", "ReLU after pooling", "groups", "signed groups", "same", "valid", "average first"]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_in_unusual_networks(kind):
    net, x = unusual(kind), signed(1, shape=(2, 8, 12))
    found, expected = relevance(net, x, 2), oracle(net, x, 2)
    assert torch.allclose(found[0], expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize(("mode", "pad"), [("reflect", nn.ReflectionPad2d), ("circular", nn.CircularPad2d),
                                           ("replicate", nn.ReplicationPad2d), ("zeros", nn.ZeroPad2d)])  # fmt: skip
def test_padding_is_a_layer_before_the_convolution(mode, pad):
    torch.manual_seed(0)
    with_padding, without = (nn.Conv2d(1, 4, 3, padding=(2, 1), padding_mode=mode), nn.Conv2d(1, 4, 3))
    without.load_state_dict(with_padding.state_dict())
    rest = [nn.ReLU(), nn.Flatten(), nn.Linear(480, 3)]
    net, x = nn.Sequential(with_padding, *rest).double(), signed(1)
    margins = pad((1, 1, 2, 2))
    padded = margins(x).detach()
    found = relevance(net, x, 1)
    inside = relevance(nn.Sequential(without, *rest).double(), padded, 1)
    if mode == "zeros":  # padding cells are not inputs
        assert torch.allclose(found, inside[..., 2:-2, 1:-1])
        return
    x.requires_grad_()
    (expected,) = torch.autograd.grad((margins(x) * inside).sum(), x)  # adds each copy's relevance to its original
    assert torch.allclose(found, expected)


# -- Properties ----------------------------------------------------------------------------------


def test_nothing_is_lost_without_biases():
    net, x = small_net(bias=False, norm=False), signed(8)
    logits, targets = net(x), torch.arange(8) % 3
    found = relevance(net, x, targets).sum((1, 2, 3))
    expected = logits.gather(1, targets[:, None])[:, 0]
    assert ((found - expected).abs() <= 1e-3 * expected.abs() + 1e-5).all()


def test_z_plus_gives_a_positive_logit_to_positive_relevance_alone():
    """Without negative weights in the classifier, nothing counts against a class."""
    net = small_net(bias=False, norm=False)
    with torch.no_grad():
        net[-1].weight.abs_()
    assert (relevance(net, signed(4), 1) >= 0).all()


@pytest.mark.parametrize("variant", variants(4), ids=lambda variant: variant.label)
def test_every_variant_can_be_explained_and_is_left_as_it_was(variant):
    torch.manual_seed(0)
    net = build_cnn(variant, 5).train()
    net[1].running_mean.normal_()
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(2, 1, 80, 120)
    first, second = (relevance(net, x, torch.tensor([1, 4])) for _ in range(2))
    assert torch.equal(first, second) and first.shape == x.shape and first.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training and all(weight.grad is None for weight in net.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())
    assert x.grad is None and not x.requires_grad


def test_a_batch_is_explained_as_its_members_are():
    net, x, targets = small_net(), signed(5), torch.tensor([0, 1, 2, 1, 0])
    whole = relevance(net, x, targets)
    for place in range(5):
        alone = relevance(net, x[place : place + 1], targets[place].item())
        assert torch.allclose(whole[place : place + 1], alone)


def test_threads_do_not_disturb_each_other():
    net, x = small_net(), signed(4)
    expected = {target: relevance(net, x, target) for target in range(3)}
    wrong = []

    def work(target):
        for _ in range(10):
            if not torch.equal(relevance(net, x, target), expected[target]):
                wrong.append(target)

    threads = [threading.Thread(target=work, args=(target,)) for target in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(mode):
    with mode():
        off = relevance(small_net(), signed(), torch.tensor([0, 2]))
    assert torch.equal(off, relevance(small_net(), signed(), torch.tensor([0, 2])))


def test_autocast_changes_nothing():
    net, x = small_net().float(), signed().float()
    with torch.autocast("cpu", torch.bfloat16):
        found = relevance(net, x, 0)
    assert torch.equal(found, relevance(net, x, 0))


def test_an_error_on_the_way_leaves_the_network_as_it_was():
    net = small_net().train()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # raised by the last layer
        relevance(net[:-1].append(nn.Linear(11, 3).double()), signed(), 0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training and not any(module._forward_hooks or module._backward_hooks for module in net.modules())


# -- Explaining in batches -----------------------------------------------------------------------


def test_batches_and_half_precision_change_nothing():
    net, mel = small_net().float(), signed(7).half()
    targets = torch.arange(7) % 3
    for method in ("LRP", "input x gradient"):
        found = explain(net, mel, targets, method, batch_size=3)
        assert found.dtype == torch.float32
        assert torch.allclose(found, explain(net, mel, targets, method, batch_size=7), atol=1e-6)
    assert torch.allclose(explain(net, mel, targets), relevance(net, mel.float(), targets), atol=1e-6)


def test_explaining_leaves_the_mode_and_the_inputs_alone():
    net, mel = small_net().float().train(), signed(2).float()
    net[1].eval()
    modes = [part.training for part in net.modules()]
    expected = explain(copy.deepcopy(net).eval(), mel, torch.tensor([0, 1]), "input x gradient")
    assert torch.equal(explain(net, mel, torch.tensor([0, 1]), "input x gradient"), expected)
    assert [part.training for part in net.modules()] == modes and not mel.requires_grad


# -- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.GELU(), nn.Sigmoid(), nn.LayerNorm(12), nn.Conv1d(1, 1, 1), nn.BatchNorm2d(1)])
def test_a_layer_without_a_rule_is_named(layer):
    with pytest.raises(TypeError, match=type(layer).__name__):
        relevance(nn.Sequential(layer, nn.Flatten(), nn.Linear(96, 3)).double(), signed(), 0)


def test_what_only_looks_like_a_known_layer_is_refused():
    class Odd(nn.ReLU):
        def forward(self, x):
            return x.abs()

    with pytest.raises(TypeError, match="Odd"):
        relevance(nn.Sequential(Odd(), nn.Flatten(), nn.Linear(96, 3)).double(), signed(), 0)
