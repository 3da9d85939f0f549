"""Layers whose weights are laid out for oneDNN: what they were, but for rounding, whatever happens to their weights."""

import copy

import pytest
import torch
from torch import nn

from lib.emergency.classes import NAMES
from lib.emergency.recogniser import packed as module
from lib.emergency.recogniser.int8 import quantised
from lib.emergency.recogniser.packed import PackedConvolution, PackedLinear, packed, windows
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper.model import WhisperSize
from lib.emergency.whisper.relevance import METHODS, explain


@pytest.fixture
def model():
    torch.manual_seed(0)
    return whisper.build(["불이야", "밥 먹자"], NAMES, WhisperSize(64, 2, 1, 4, 300), hidden=32).eval()


@pytest.fixture
def fast(model):
    return packed(copy.deepcopy(model))


@pytest.fixture
def products(monkeypatch):
    """How often weights were multiplied in blocks, and how often blocks were made."""
    counted = {"products": 0, "made": 0}
    product, reorder = module.Blocks.product, torch.ops.mkldnn._reorder_linear_weight

    def count(name, what):
        def counting(*arguments):
            counted[name] += 1
            return what(*arguments)

        return counting

    assert module._known()  # before it is counted
    monkeypatch.setattr(module.Blocks, "product", count("products", product))
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", count("made", reorder))
    return counted


needs_onednn = pytest.mark.skipif(not module._known(), reason="this PyTorch has no oneDNN, or one with other operators")


class TestNumbers:
    @pytest.mark.parametrize("clips", [1, 3])
    @pytest.mark.parametrize("frames", [64, 399, 400])
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_as_before(self, model, fast, clips, frames, mode):
        mel = torch.randn(clips, 80, frames)
        with mode():
            torch.testing.assert_close(fast(mel), model(mel), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(fast.encode(mel), model.encode(mel), atol=1e-5, rtol=1e-4)
            assert fast.transcribe(fast.encode(mel)) == model.transcribe(model.encode(mel))

    @pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 3, 2), (4, 2, 0)])
    def test_windows_are_those_of_a_convolution(self, kernel, stride, padding):
        conv, x = nn.Conv1d(6, 4, kernel, stride, padding, dtype=torch.float64), torch.randn(2, 6, 41).double()
        found = windows(x, kernel, stride, padding) @ conv.weight.flatten(1).T + conv.bias
        torch.testing.assert_close(found.mT, conv(x))

    def test_the_same_weights_and_gradients(self, model, fast):
        assert fast.digest() == model.digest() and list(fast.state_dict()) == list(model.state_dict())
        mel = torch.randn(2, 80, 200)
        for one in (model, fast):
            one.zero_grad()
            one(mel).square().sum().backward()
        for one, two in zip(model.parameters(), fast.parameters(), strict=True):
            assert (one.grad is None) == (two.grad is None) and (one.grad is None or torch.equal(one.grad, two.grad))

    @pytest.mark.parametrize("method", METHODS)
    def test_explained_alike(self, model, fast, method):
        mel, targets = torch.randn(2, 80, 100), torch.tensor([3, 8])
        torch.testing.assert_close(explain(fast, mel, targets, method), explain(model, mel, targets, method),
                                   atol=1e-5, rtol=1e-3)  # fmt: skip

    def test_in_8_bits_it_is_what_it_would_have_been(self, model, fast):
        mel = torch.randn(1, 80, 200)
        with torch.no_grad():
            assert torch.equal(quantised(fast)(mel), quantised(model)(mel))


class TestBlocks:
    @needs_onednn
    def test_are_made_once_and_serve_all_of_encoder_and_head(self, fast, products):
        mel = torch.randn(1, 80, 200)
        with torch.no_grad():
            for _ in range(3):
                fast(mel)
        layers = 2 + 2 * 6 + 2  # convolutions; four of attention and two behind it per layer; the head
        assert products == {"products": 3 * layers, "made": layers}

    @pytest.mark.parametrize("change", ["in place", "new", "same memory", "data", "loaded"])
    @pytest.mark.parametrize("kind", [PackedLinear, PackedConvolution])
    def test_are_made_anew_when_the_weight_changes(self, kind, change):
        """Whoever trains on, or loads other weights, is not answered by those of before."""
        layer = PackedLinear(8, 4) if kind is PackedLinear else PackedConvolution(8, 4, 3, 1, 1)
        plain = (nn.Linear if kind is PackedLinear else nn.Conv1d).forward
        x = torch.randn(2, 8, 8)
        with torch.no_grad():
            before = layer(x)
            if change == "in place":
                layer.weight[0] += 1
            elif change == "new":
                layer.weight = nn.Parameter(layer.weight + 1)
            elif change == "same memory":
                layer.weight = nn.Parameter(layer.weight.detach())
                layer.weight.mul_(2)
            elif change == "data":
                layer.weight.data = layer.weight.data + 1
            else:
                layer.load_state_dict({name: one + 1 for name, one in layer.state_dict().items()}, assign=True)
            found = layer(x)
            assert not torch.allclose(found, before)
            torch.testing.assert_close(found, plain(layer, x))

    def test_of_weights_that_were_made_in_inference_mode(self):
        with torch.inference_mode():
            layer = PackedLinear(8, 4)
            x = torch.randn(3, 8)
            for _ in range(2):
                torch.testing.assert_close(layer(x), nn.Linear.forward(layer, x))
                layer.weight.mul_(2)  # of which nothing tells

    @needs_onednn
    def test_not_for_gradients_nor_other_numbers(self, fast, products):
        fast(torch.randn(1, 80, 200))
        with torch.no_grad():
            fast.double()(torch.randn(1, 80, 200, dtype=torch.float64))
        assert products == {"products": 0, "made": 0}

    @pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
    def test_a_pytorch_without_the_operators_does_as_before(self, model, fast, monkeypatch, error):
        def missing(*_):
            raise error

        monkeypatch.setattr(module.Blocks, "product", missing)
        module._known.cache_clear()
        try:
            assert not module._known()
            mel = torch.randn(1, 80, 200)
            with torch.no_grad():
                assert torch.equal(fast(mel), model(mel))
        finally:
            module._known.cache_clear()

    def test_asking_draws_no_random_numbers(self):
        """A run would come out otherwise, whenever it happens to ask first."""
        module._known.cache_clear()
        before = torch.get_rng_state()
        module._known()
        assert torch.equal(torch.get_rng_state(), before)
