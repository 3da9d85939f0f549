import numpy as np
import pytest
import torch
from torch import nn

from lib.emergency.cnn import faithfulness
from lib.emergency.cnn.faithfulness import flipping, interval, localisation, randomised, redrawn, shares, with_cue
from lib.emergency.cnn.network import Variant, build_cnn


class Sum(nn.Module):
    """Two logits: the sum over the cells in `mask` times `scale`, and 0."""

    def __init__(self, mask, scale=1.0):
        super().__init__()
        self.mask, self.scale = nn.Parameter(mask.float()), scale

    def forward(self, x):
        found = self.scale * (x * self.mask).sum((1, 2, 3))
        return torch.stack([found, torch.zeros_like(found)], 1)


@pytest.fixture
def marked():
    """A network that uses a single tile, clips that are 1 there and 0 elsewhere, their relevance, and targets."""
    mask = torch.zeros(1, 1, 20, 80)
    mask[..., 10:20, 40:60] = 1
    mel = mask.repeat(5, 1, 1, 1)
    return Sum(mask, 0.05), mel, mel.clone(), torch.zeros(5, dtype=torch.long)


def test_flipping_the_only_tile_that_counts(marked):
    model, mel, relevance, targets = marked
    most = flipping(model, mel, relevance, targets, order="most", steps=8)
    least = flipping(model, mel, relevance, targets, order="least", steps=8)
    sure, unsure = torch.tensor(0.05 * 200).sigmoid(), torch.tensor(0.5)
    assert most.shape == (5, 9)
    assert torch.allclose(most[:, 0], sure) and torch.allclose(most[:, 1:], unsure), "gone with the first tile"
    assert torch.allclose(least[:, :-1], sure) and torch.allclose(least[:, -1], unsure), "gone with the last"


def test_a_wrong_order_keeps_the_probability_and_a_random_one_is_in_between(marked):
    model, mel, relevance, targets = marked
    right, wrong = (flipping(model, mel, sign * relevance, targets, steps=8).mean() for sign in (1, -1))
    torch.manual_seed(0)
    drawn = torch.stack([flipping(model, mel, torch.rand(mel.shape), targets, steps=8).mean() for _ in range(40)])
    assert right < drawn.mean() < wrong and abs(drawn.mean() - (right + wrong) / 2) < 0.1


def test_the_first_column_is_the_untouched_clip_and_the_last_the_same_for_all_orders():
    torch.manual_seed(0)
    model = build_cnn(Variant("", (4, 8)), 3, 20).eval()
    mel, relevance, targets = torch.randn(6, 1, 20, 70), torch.randn(6, 1, 20, 70), torch.arange(6) % 3
    found = [flipping(model, mel, relevance, targets, order=order, steps=5) for order in ("most", "least")]
    with torch.no_grad():
        before = model(mel).softmax(1).gather(1, targets[:, None])[:, 0]
    for curve in found:
        assert torch.allclose(curve[:, 0], before, atol=1e-6) and torch.allclose(curve[:, -1], found[0][:, -1])


def test_batches_and_the_scale_of_relevance_change_nothing(marked):
    model, mel, relevance, targets = marked
    relevance = relevance + torch.rand(relevance.shape, generator=torch.Generator().manual_seed(0))
    first = flipping(model, mel, relevance, targets)
    assert torch.allclose(first, flipping(model, mel, 7 * relevance, targets, batch_size=2))


def test_ties_are_broken_the_same_way_in_every_batch_and_order(marked):
    model, mel, _, targets = marked
    nothing = torch.zeros_like(mel)
    curves = [flipping(model, mel, nothing, targets, order=order, steps=8) for order in ("most", "least")]
    assert torch.equal(*curves) and (curves[0] == curves[0][:1]).all()


def test_flipping_leaves_the_network_as_it_was():
    torch.manual_seed(0)
    model = build_cnn(Variant("", (4, 8), dropout=0.5), 3, 20).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mel, targets = torch.randn(4, 1, 20, 40), torch.zeros(4, dtype=torch.long)
    first, second = (flipping(model, mel, mel, targets, steps=2) for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad and all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_drawn_anew_is_explained_differently():
    torch.manual_seed(0)
    model = build_cnn(Variant("", (8, 16)), 4, 32).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mel = torch.randn(6, 1, 32, 60)
    state = torch.get_rng_state()
    table = randomised(model, mel, torch.arange(6) % 4)
    assert table.layers.tolist() == [0, 1, 2, 3]
    assert table.correlation[0] == 1 and table.correlation.iloc[-1] < 0.8
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_null_network_has_none_of_the_weights_and_those_of_its_seed():
    model = build_cnn(Variant("", (4, 8)), 3, 20).eval()
    state = torch.get_rng_state()
    one, again, other = (redrawn(model, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    named = [dict(some.named_parameters()) for some in (model, one, again, other)]
    for name in (name for name, weight in named[0].items() if weight.ndim > 1):
        mine, first, second, third = (some[name] for some in named)
        assert torch.equal(first, second) and not torch.equal(first, mine) and not torch.equal(first, third), name


def test_an_explanation_that_ignores_the_network_is_found_out(monkeypatch):
    """Only its sign depends on the network: it is that of the logit, which has either sign in random networks."""

    def pattern(model, mel, targets, method):
        with torch.no_grad():
            logits = model(mel).gather(1, targets[:, None])
        return mel.abs() * logits.sign()[..., None, None]

    monkeypatch.setattr(faithfulness, "explain", pattern)
    torch.manual_seed(0)
    model = build_cnn(Variant("", (8, 16)), 4, 32).eval()
    table = randomised(model, torch.randn(8, 1, 32, 60), torch.arange(8) % 4)
    assert table.correlation.to_numpy() == pytest.approx(1)


def test_no_relevance_at_all_has_no_correlation(monkeypatch):
    drawn = torch.rand(2, 1, 32, 60)
    answers = iter([drawn, torch.zeros_like(drawn), drawn, drawn])
    monkeypatch.setattr(faithfulness, "explain", lambda *_: next(answers))
    table = randomised(build_cnn(Variant("", (8, 16)), 4, 32), drawn, torch.zeros(2, dtype=torch.long))
    assert np.isnan(table.correlation[1]) and table.correlation[2] == pytest.approx(1)


def one_stem_per_half():
    """Energy in which stem 0 has the left half of the cells, stem 1 the right, and stem 2 is faint everywhere."""
    energy = np.zeros((2, 3, 4, 6), np.float32)
    energy[:, 0, :, :3], energy[:, 1, :, 3:], energy[:, 2] = 3.0, 1.0, 0.1
    return energy


def test_shares_in_closed_form():
    relevance = torch.zeros(2, 1, 8, 48)
    relevance[0, ..., :24] = 1.0  # all on stem 0
    relevance[1, ..., :36] = 2.0  # two thirds on stem 0
    relevance[1, ..., 40:] = -9.0  # negative relevance is ignored
    found = shares(relevance, one_stem_per_half())
    assert found["relevance"] == pytest.approx(np.array([[1, 0, 0], [2 / 3, 1 / 3, 0]]))
    assert found["energy"] == pytest.approx(np.array([[3.1 / 4.2, 1.1 / 4.2, 0]] * 2))
    assert found["area"] == pytest.approx(np.array([[0.5, 0.5, 0]] * 2))
    left, right = 8.0, 8.0 + np.log10(1.1 / 3.1)  # decades above a floor 80 dB below the loudest
    assert found["log-energy"] == pytest.approx(np.array([[left, right, 0]] * 2) / (left + right))


def test_shares_do_not_depend_on_the_scale_and_sum_to_one_at_most():
    relevance = torch.randn(2, 1, 80, 48, generator=torch.Generator().manual_seed(0))
    energy = np.random.default_rng(0).random((2, 3, 40, 6)).astype(np.float32)
    first, second = shares(relevance, energy), shares(5 * relevance, 3 * energy)
    for name in first:
        assert first[name] == pytest.approx(second[name]) and (first[name].sum(1) <= 1 + 1e-9).all()


def test_shares_of_nothing_are_nothing():
    assert not shares(torch.zeros(2, 1, 8, 48), one_stem_per_half())["relevance"].any()


@pytest.mark.parametrize("mels", [8, 12, 20])
def test_bands_of_relevance_lie_where_those_of_the_energy_do(mels):
    """Relevance in one half of the mel axis is on the stem there, whatever its number of bands."""
    energy = np.zeros((1, 2, 8, 6), np.float32)
    energy[:, 0, :4], energy[:, 1, 4:] = 3.0, 1.0
    relevance = torch.zeros(1, 1, mels, 48)
    relevance[:, :, : mels // 2] = 1
    assert shares(relevance, energy)["relevance"] == pytest.approx(np.array([[1, 0]]))
    assert shares(torch.ones_like(relevance), energy)["relevance"] == pytest.approx(np.array([[0.5, 0.5]]))


def test_the_last_cell_may_be_cut_off():
    relevance = torch.ones(2, 1, 8, 45)
    assert shares(relevance, one_stem_per_half())["relevance"][:, 0] == pytest.approx(24 / 45)


def test_a_cue_is_audible_where_the_mask_says_and_nowhere_else():
    mel = torch.randn(6, 1, 80, 200, generator=torch.Generator().manual_seed(0)).half()
    changed, mask = with_cue(mel, seed=3)
    assert mask.sum((1, 2, 3)).tolist() == [150] * 6 and changed.dtype == mel.dtype
    assert torch.equal(changed[~mask], mel[~mask]) and (changed[mask] >= mel[mask]).all()
    assert (changed.amax((1, 2, 3)) == mel.amax((1, 2, 3))).all(), "it is faint"
    assert mask.any(2).float().argmax(-1).unique().numel() > 3, "its place differs by clip"
    assert torch.equal(with_cue(mel, seed=3)[0], changed)
    assert not mask[:, :, :64].any(), "in the upper fifth of the bands"
    level = (mel.float().mean((2, 3)) + mel.float().amax((2, 3))).flatten() / 2
    lowest = changed.float().masked_fill(~mask, torch.inf).amin((1, 2, 3))
    torch.testing.assert_close(lowest, level, atol=2e-3, rtol=0)


def test_in_a_short_clip_the_cue_takes_half():
    assert with_cue(torch.zeros(1, 1, 80, 40), seed=0)[1].any(2).sum() == 20


def test_localisation_is_the_area_under_the_curve():
    _, mask = with_cue(torch.zeros(3, 1, 80, 100), seed=0)
    assert localisation(mask.float(), mask).tolist() == [1, 1, 1]
    assert localisation(-mask.float(), mask).tolist() == [0, 0, 0]
    assert localisation(torch.ones(mask.shape), mask).tolist() == [0.5] * 3
    drawn = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    assert localisation(drawn, mask) == pytest.approx(0.5, abs=0.15)


def test_the_interval_holds_the_mean_and_narrows():
    rng = np.random.default_rng(0)
    few, many = (interval(rng.normal(2, 1, count)) for count in (20, 2000))
    for mean, low, high in (few, many):
        assert low < mean < high
    assert many[2] - many[1] == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.15)
    assert few[2] - few[1] > 3 * (many[2] - many[1])
    assert interval(np.array([1.0]))[0] == 1 and np.isnan(interval(np.array([1.0]))[1:]).all()
