"""CP-LRP through the Whisper encoder: conservation, rules, and the methods it is compared with."""

import pytest
import torch
from torch import nn

from lib.emergency.cnn import faithfulness
from lib.emergency.whisper import model as whisper
from lib.emergency.whisper.model import WhisperSize
from lib.emergency.whisper.relevance import METHODS, ClipClassifier, Held, explain, rollout, selected

TARGETS = torch.tensor([2, 1, 0])


@pytest.fixture(scope="module")
def model():
    size = WhisperSize(d_model=32, encoder_layers=2, decoder_layers=1, heads=4, tokens=260)
    made = whisper.build(["불이야"], ("silence", "fire", "dog"), size, stack=2, hidden=16, seed=1)
    torch.manual_seed(3)
    for name, weight in made.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight, std=0.3)
        elif "norm" in name:
            nn.init.normal_(weight, 1, 0.2)
    return made.eval()


@pytest.fixture
def mel():
    return torch.randn(3, 80, 60, generator=torch.Generator().manual_seed(0))


def without_biases(model):
    bare = whisper.build(["불이야"], model.classes, WhisperSize(32, 2, 1, 4, 260), stack=2, hidden=16, seed=1).eval()
    bare.load_state_dict(model.state_dict())
    for name, weight in bare.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
    return bare


class TestConservation:
    """The explained output is the sum of the relevance of spectrogram, positions and biases."""

    def test_the_logits_are_the_model_s(self, model, mel):
        with Held():
            held = model(mel)
        torch.testing.assert_close(held, model(mel), rtol=1e-4, atol=1e-4)

    @staticmethod
    def parts(model, mel):
        """Return the explained output and the contributions of positions and of biases to it, (B,) each."""
        encoder = model.whisper.model.encoder
        positions = encoder.embed_positions.weight.requires_grad_()
        with Held():
            logits = model(mel)
        biases = [weight for part in (encoder, model.head) for name, weight in part.named_parameters()
                  if name.endswith("bias") and "q_proj" not in name]  # fmt: skip
        output, by_position, by_bias = (logits * selected(logits.detach(), TARGETS)).sum((1, 2)), [], []
        for one in output:
            of_positions, *slopes = torch.autograd.grad(one, [positions, *biases], retain_graph=True)
            by_position.append((positions * of_positions).sum())
            by_bias.append(sum((bias * slope).sum() for bias, slope in zip(biases, slopes, strict=True)))
        return output.detach(), torch.stack(by_position).detach(), torch.stack(by_bias).detach()

    def test_without_biases_nothing_is_lost(self, model, mel):
        bare = without_biases(model)
        output, by_position, by_bias = self.parts(bare, mel)
        total = explain(bare, mel, TARGETS).sum((1, 2)) + by_position
        torch.testing.assert_close(total, output, rtol=1e-3, atol=1e-4)
        assert output.abs().min() > 0.01 and (by_bias == 0).all()

    def test_what_is_left_is_that_of_the_biases(self, model, mel):
        output, by_position, by_bias = self.parts(model, mel)
        left = output - explain(model, mel, TARGETS).sum((1, 2)) - by_position
        torch.testing.assert_close(left, by_bias, rtol=1e-3, atol=1e-3)

    def test_a_plain_gradient_does_not_conserve(self, model, mel):
        """Otherwise CP-LRP would not be needed."""
        bare = without_biases(model)
        plain = explain(bare, mel, TARGETS, "input x gradient").sum((1, 2))
        output, by_position, _ = self.parts(bare, mel)
        assert ((plain + by_position - output).abs() > 0.05 * output.abs()).any()


class TestRules:
    """Each against its textbook form."""

    def test_attention_is_a_matrix_that_does_not_depend_on_its_input(self, model):
        attention = model.whisper.model.encoder.layers[0].self_attn
        hidden = torch.randn(1, 6, 32, requires_grad=True)
        with Held() as held:
            mixed = attention(hidden)[0]
        (weights,) = held.attention
        torch.testing.assert_close(mixed, attention(hidden)[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, 6))
        value, out = attention.v_proj.weight, attention.out_proj.weight
        slope = torch.autograd.grad(mixed[0, 2, 5], hidden)[0][0]
        by_hand = sum(
            weights[0, head, 2][:, None] * (out[5, 8 * head : 8 * head + 8] @ value[8 * head : 8 * head + 8])[None]
            for head in range(4)
        )
        torch.testing.assert_close(slope, by_hand, rtol=1e-4, atol=1e-5)

    def test_layer_norm_centres_and_scales(self):
        norm = nn.LayerNorm(5)
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
        x = torch.randn(2, 5)
        with Held():
            held, slopes = norm(x), torch.autograd.functional.jacobian(norm, x[0])
        torch.testing.assert_close(held, norm(x))
        wanted = norm.weight[:, None] * (torch.eye(5) - 1 / 5) / (x[0].var(unbiased=False) + norm.eps).sqrt()
        torch.testing.assert_close(slopes, wanted)

    def test_gelu_passes_on_in_proportion(self):
        x = torch.tensor([-2.0, -0.1, 0.0, 1e-9, 3.0], requires_grad=True)
        with Held():
            y = torch.nn.functional.gelu(x)
        torch.testing.assert_close(y, torch.nn.functional.gelu(x))
        slopes = torch.autograd.grad(y.sum(), x)[0]
        torch.testing.assert_close(slopes * x, y, atol=1e-8, rtol=1e-6)
        assert slopes[2] == 0.5


class TestRollout:
    def test_uniform_attention(self, model, mel):
        """Each layer keeps half and spreads half: after two, 1/4 stays and 3/4 is spread evenly."""
        flat = without_biases(model)
        for layer in flat.whisper.model.encoder.layers:
            nn.init.zeros_(layer.self_attn.q_proj.weight)
        found = rollout(flat, mel, TARGETS)
        logits = flat(mel)
        at = selected(logits, TARGETS).sum(2).repeat_interleave(2, 1).repeat_interleave(2, 1) / 4
        torch.testing.assert_close(found, (at / 4 + 0.75 / 60).detach(), atol=1e-5, rtol=1e-4)

    def test_sums_to_one(self, model, mel):
        torch.testing.assert_close(rollout(model, mel, TARGETS).sum(1), torch.ones(3), atol=1e-4, rtol=1e-4)

    def test_has_no_bands(self, model, mel):
        found = explain(model, mel, TARGETS, "attention rollout")
        assert found.shape == mel.shape and (found == found[:, :1]).all()


class TestExplain:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_clip_does_not_depend_on_its_batch(self, model, mel, method):
        whole = explain(model, mel, TARGETS, method)
        torch.testing.assert_close(whole, explain(model, mel, TARGETS, method, batch_size=1), rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("method", METHODS)
    def test_leaves_the_model_as_it_was_and_runs_in_inference_mode(self, model, mel, method):
        before = model.digest()
        with torch.inference_mode():
            inside = explain(model, mel, TARGETS, method)
        torch.testing.assert_close(inside, explain(model, mel, TARGETS, method))
        assert model.digest() == before and all(weight.grad is None for weight in model.parameters())

    def test_other_weights_other_maps(self, model, mel):
        other = whisper.build(["불이야"], model.classes, WhisperSize(32, 2, 1, 4, 260), stack=2, hidden=16, seed=2)
        maps = [explain(one.eval(), mel, TARGETS).flatten() for one in (model, other)]
        assert torch.corrcoef(torch.stack(maps))[0, 1].abs() < 0.5

    def test_selected(self):
        moments = torch.tensor([[[0.0, 1], [1, 0], [0, 2]], [[1, 0], [1, 0], [1, 0]]])
        weights = selected(moments, torch.tensor([1, 1]))
        assert (moments * weights).sum((1, 2)).tolist() == [1.5, 0]

    def test_fits_the_measures_of_the_cnn(self, model, mel):
        found = explain(model, mel, TARGETS)[:, None]
        curve = faithfulness.flipping(ClipClassifier(model), mel[:, None], found, TARGETS, steps=4)
        assert curve.shape == (3, 5) and torch.isfinite(curve).all()
        with torch.no_grad():
            first = ClipClassifier(model)(mel[:, None]).softmax(1)[torch.arange(3), TARGETS]
        torch.testing.assert_close(curve[:, 0], first, rtol=1e-4, atol=1e-5)
