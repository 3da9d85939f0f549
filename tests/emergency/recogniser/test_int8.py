"""The encoder in 8 bits: each part near what it stands for, and the rest untouched."""

import pytest
import torch
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperAttention

from lib.emergency.classes import NAMES
from lib.emergency.recogniser.int8 import Int8Attention, Int8Convolution, Int8Linear, quantised
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper.model import WhisperSize


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return whisper.build(["불이야", "밥 먹자"], NAMES, WhisperSize(64, 2, 1, 4, 300), hidden=32).eval()


def near(found, wanted, share=0.02):
    assert found.shape == wanted.shape and (found - wanted).norm() < share * wanted.norm()


class TestParts:
    @pytest.mark.parametrize("bias", [True, False])
    def test_linear(self, bias):
        """Within what rounding of 7 and 8 bits allows, from the textbook."""
        torch.manual_seed(1)
        layer, x = nn.Linear(48, 20, bias=bias), torch.randn(3, 7, 48)
        with torch.no_grad():
            found, wanted = Int8Linear(layer.weight, layer.bias)(x), layer(x)
            step = (x.max() - x.min()) / 127
            weights = layer.weight.abs()
            scale = weights.amax(1) / 127
            most = step / 2 * weights.sum(1) + scale / 2 * (x.abs().sum(2, keepdim=True) + 48 * step)
        assert ((found - wanted).abs() <= most + 1e-5).all()
        near(found, wanted)

    def test_weights_are_rounded_to_the_nearest(self):
        layer = nn.Linear(30, 5)
        found = Int8Linear(layer.weight, layer.bias)
        again = found.weight.float() * found.scales[:, None]
        assert ((again - layer.weight).abs() <= found.scales[:, None] / 2 + 1e-7).all()
        assert found.weight.dtype == torch.int8 and found.weight.abs().amax(1).eq(127).all()

    def test_a_weight_of_zeros(self):
        assert torch.equal(Int8Linear(torch.zeros(4, 8), torch.ones(4))(torch.randn(2, 8)), torch.ones(2, 4))

    @pytest.mark.parametrize("frames", [200, 201])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_convolution(self, stride, frames):
        torch.manual_seed(2)
        conv, x = nn.Conv1d(8, 16, 3, stride, 1), torch.randn(2, 8, frames)
        with torch.no_grad():
            near(Int8Convolution(conv)(x), conv(x))

    def test_attention(self):
        torch.manual_seed(3)
        config = WhisperConfig(d_model=32, encoder_attention_heads=4)
        attention, x = WhisperAttention(32, 4, config=config).eval(), torch.randn(2, 50, 32)
        attention.config._attn_implementation = "eager"
        with torch.no_grad():
            near(Int8Attention(attention)(hidden_states=x)[0], attention(hidden_states=x)[0], 0.05)


class TestWhole:
    def test_says_nearly_the_same(self, model):
        mel = torch.randn(3, 80, 400)
        with torch.no_grad():
            near(quantised(model)(mel), model(mel), 0.1)

    def test_the_decoder_is_shared_and_the_model_left_alone(self, model):
        before = model.digest()
        quick = quantised(model)
        assert quick.whisper.model.decoder is model.whisper.model.decoder and model.digest() == before
        assert isinstance(model.head[0], nn.Linear) and quick.digest() != before

    def test_no_weight_is_copied_as_it_was(self, model, monkeypatch):
        large, copied = {id(one) for one in model.parameters() if one.ndim > 1}, []
        copy = torch.nn.Parameter.__deepcopy__
        monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__",
                            lambda one, memo: copied.append(id(one)) or copy(one, memo))  # fmt: skip
        quantised(model)
        positions = id(model.whisper.model.encoder.embed_positions.weight)
        assert copied and large & set(copied) == {positions}

    def test_what_others_quantise_with_is_left_as_it_was(self, model):
        before = torch.backends.quantized.engine
        quantised(model)
        assert torch.backends.quantized.engine == before

    def test_the_same_weights_give_the_same(self, model):
        one, two = quantised(model), quantised(model)
        mel = torch.randn(1, 80, 200)
        with torch.no_grad():
            assert one.digest() == two.digest() and torch.equal(one(mel), two(mel))
        with torch.no_grad():
            model.head[2].bias[3] += 1
            other = quantised(model)
            model.head[2].bias[3] -= 1
        assert other.digest() != one.digest()

    def test_words_and_shorter_windows(self, model):
        quick = quantised(model)
        hidden = quick.encode(torch.randn(2, 80, 100))
        assert hidden.shape == (2, 50, 64) and len(quick.transcribe(hidden)) == 2

    def test_a_window_that_is_too_long(self, model):
        with pytest.raises(ValueError, match="longer than the encoder's"):
            quantised(model).encode(torch.randn(1, 80, 3002))
