import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.categorical import losses
from lib.categorical.losses import SIMILARITIES, agreement, categorical_info_nce, discretise, harden, position_entropy


def codes(count, positions=6, categories=5, *, seed=0, sharpness=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, positions, categories, generator=generator, dtype=dtype)
    return (sharpness * logits).softmax(-1)


# -- agreement -----------------------------------------------------------------------------


def test_agreement_is_the_probability_that_drawn_codes_agree():
    p, q = codes(3), codes(4, seed=1)
    draws = 100_000
    generator = torch.Generator().manual_seed(2)
    drawn_p = torch.stack([torch.multinomial(row, draws, True, generator=generator) for row in p.flatten(0, 1)])
    drawn_q = torch.stack([torch.multinomial(row, draws, True, generator=generator) for row in q.flatten(0, 1)])
    drawn_p, drawn_q = drawn_p.view(3, 6, draws), drawn_q.view(4, 6, draws)
    simulated = (drawn_p[:, None] == drawn_q[None]).double().mean((2, 3))
    assert torch.allclose(agreement(p, q), simulated, atol=1e-2)


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_agreement_of_one_hot_codes_is_one_minus_hamming(positions, categories, seed):
    p, q = (harden(codes(4, positions, categories, seed=seed + n)) for n in (0, 100))
    hamming = (p.argmax(-1)[:, None] != q.argmax(-1)[None]).sum(-1)
    assert torch.allclose(agreement(p, q), 1 - hamming.double() / positions, atol=1e-6)


def test_agreement_of_uniform_codes_is_chance():
    uniform = torch.full((2, 6, 5), 1 / 5)
    assert torch.allclose(agreement(uniform, codes(3, dtype=torch.float32)), torch.full((2, 3), 1 / 5))


def test_similarities_by_explicit_loops():
    p, q = codes(3), codes(4, seed=1)
    frequency = torch.cat([p, q]).mean(0)
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            dots = [(x[k] * y[k]).sum() for k in range(6)]
            expected = {
                "agreement": sum(dots) / 6,
                "log_agreement": sum(dot.log() for dot in dots) / 6,
                "chance": sum((x[k] * y[k] / frequency[k]).sum() for k in range(6)) / (6 * 5),
                "cosine": torch.cosine_similarity(x.flatten(), y.flatten(), dim=0),
                "bhattacharyya": sum((x[k] * y[k]).sqrt().sum() for k in range(6)) / 6,
            }
            for name in SIMILARITIES:
                found = SIMILARITIES[name](p, q)[i, j]
                assert found == pytest.approx(expected[name].item(), rel=1e-6), name


def test_chance_weighting_changes_nothing_where_all_categories_are_equally_frequent():
    one_hot = torch.eye(5).repeat(2, 1)[:, None].expand(10, 6, 5)
    assert torch.allclose(losses.chance_weighted(one_hot, one_hot), agreement(one_hot, one_hot), atol=1e-6)


def test_only_some_similarities_reward_sureness():
    sure, unsure = harden(codes(1)), torch.full((1, 6, 5), 1 / 5, dtype=torch.float64)
    assert agreement(sure, sure) == pytest.approx(1) and agreement(unsure, unsure) == pytest.approx(1 / 5)
    for name in ("cosine", "bhattacharyya"):
        assert SIMILARITIES[name](unsure, unsure).item() == pytest.approx(1)


# -- the loss ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("queued", [False, True])
def test_gradients_against_finite_differences(name, queued, monkeypatch):
    logits = [torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    queue = codes(6, 3, seed=2) if queued else None

    def loss(a, b):
        return categorical_info_nce(a.softmax(-1), b.softmax(-1), queue, temperature=0.3, similarity=name)

    first = logits[0].requires_grad_()
    # With a queue, no gradient flows through the keys; chance weighting treats frequencies as constants.
    if name == "chance":
        (found,) = torch.autograd.grad(loss(first, logits[1]), first)
        known = [part.softmax(-1).detach() for part in logits] + ([queue] if queued else [])
        frequency = torch.cat(known).mean(0)
        monkeypatch.setitem(SIMILARITIES, "chance", lambda p, q: agreement(p, q / (5 * frequency)))
        torch.testing.assert_close(found, torch.autograd.grad(loss(first, logits[1]), first)[0])
    elif queued:
        assert torch.autograd.gradcheck(lambda a: loss(a, logits[1]), (first,))
        assert torch.autograd.grad(loss(first, b := logits[1].requires_grad_()), b, allow_unused=True)[0] is None
    else:
        assert torch.autograd.gradcheck(loss, (first, logits[1].requires_grad_()))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_in_batch_loss_by_explicit_loops(name):
    p, q = codes(3), codes(3, seed=1)
    every = torch.cat([p, q])
    table = SIMILARITIES[name](every, every) / 0.2
    total = 0.0
    for i in range(6):
        candidates = [j for j in range(6) if j != i]
        total -= table[i, (i + 3) % 6] - torch.stack([table[i, j] for j in candidates]).logsumexp(0)
    found = categorical_info_nce(p, q, temperature=0.2, similarity=name)
    assert found.item() == pytest.approx(total.item() / 6, rel=1e-6)


def test_queue_loss_by_explicit_loops():
    p, q, queue = codes(3), codes(3, seed=1), codes(5, seed=2)
    table = agreement(p, torch.cat([q, queue])) / 0.2
    expected = -sum(table[i, i] - table[i].logsumexp(0) for i in range(3)) / 3
    assert categorical_info_nce(p, q, queue, temperature=0.2).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize(("count", "queued"), [(2, 0), (5, 0), (5, 7), (1, 3), (4, 0)])
def test_constant_codes_give_the_logarithm_of_the_candidates(name, count, queued):
    constant = codes(1).expand(count, -1, -1)
    queue = codes(1).expand(queued, -1, -1) if queued else None
    candidates = count + queued if queued else 2 * count - 1
    found = categorical_info_nce(constant, constant, queue, similarity=name)
    assert found.item() == pytest.approx(math.log(candidates), abs=1e-6)


def test_an_empty_queue_leaves_the_batch_as_negatives():
    p, q = codes(4), codes(4, seed=1)
    found = categorical_info_nce(p, q, codes(1)[:0], temperature=0.2)
    expected = torch.nn.functional.cross_entropy(agreement(p, q) / 0.2, torch.arange(4))
    assert found.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", SIMILARITIES)
def test_order_of_positions_and_of_categories_does_not_matter(name):
    p, q, queue = codes(4), codes(4, seed=1), codes(5, seed=2)
    generator = torch.Generator().manual_seed(3)
    places = torch.randperm(6, generator=generator)
    relabel = torch.stack([torch.randperm(5, generator=generator) for _ in range(6)])

    def permuted(part):
        return part.gather(2, relabel.expand(len(part), -1, -1))[:, places]

    for rest in ((p, q, None), (p, q, queue)):
        changed = [None if part is None else permuted(part) for part in rest]
        before = categorical_info_nce(*rest, similarity=name)
        assert categorical_info_nce(*changed, similarity=name).item() == pytest.approx(before.item(), rel=1e-9)


def test_a_dead_position_changes_nothing_and_gets_no_gradient():
    """The reason for the entropy term: InfoNCE ignores a position that always has the same category."""
    p, q = codes(4, 2), codes(4, 2, seed=1)
    dead = torch.zeros(4, 1, 5, dtype=torch.float64)
    dead[:, :, 2] = 1
    logits = (20 * dead).requires_grad_()
    extended = [torch.cat([part, logits.softmax(-1)], dim=1) for part in (p, q)]
    # Three positions, one of them dead, at temperature t equal two at temperature 3t/2.
    plain = categorical_info_nce(p, q, temperature=0.3)
    loss = categorical_info_nce(*extended, temperature=0.2)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    loss.backward()
    assert logits.grad.abs().max() < 1e-7


def test_equal_pairs_of_different_codes_reach_a_loss_near_zero():
    p = torch.eye(5)[:, None].expand(5, 6, 5)
    assert categorical_info_nce(p, p, temperature=0.05).item() < 1e-6


def test_half_precision_is_computed_in_full():
    p, q = codes(8, dtype=torch.float32), codes(8, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = categorical_info_nce(p, q)
    assert found.dtype == torch.float32 and found == categorical_info_nce(p, q)


@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (1, 1)])
def test_one_position_or_one_category_is_defined(shape):
    p = codes(4, *shape)
    found = categorical_info_nce(p, codes(4, *shape, seed=1))
    assert math.isfinite(found.item())
    if shape[1] == 1:
        assert found.item() == pytest.approx(math.log(7))


# -- entropy and codes ---------------------------------------------------------------------


def test_position_entropy_of_known_codes():
    uniform = torch.eye(5)[:, None].expand(5, 6, 5)
    assert position_entropy(uniform).item() == pytest.approx(math.log(5), rel=1e-6)
    assert position_entropy(uniform[:1]).item() == pytest.approx(0, abs=1e-5)
    half = torch.cat([uniform[:, :3], uniform[:1].expand(5, -1, -1)[:, :3]], dim=1)  # half of the positions are dead
    assert position_entropy(half).item() == pytest.approx(math.log(5) / 2, rel=1e-5)


def test_codes_from_logits():
    logits = torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    soft = discretise(logits, "soft", 0.5)
    assert torch.allclose(soft, (logits / 0.5).softmax(-1))
    weights = torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((soft * weights).sum(), logits)
    hard = discretise(logits, "straight_through", 0.5)
    assert torch.allclose(hard, harden(soft)) and torch.equal(hard.argmax(-1), logits.argmax(-1))
    assert torch.allclose(torch.autograd.grad((hard * weights).sum(), logits)[0], gradient)


def test_gumbel_codes_are_drawn_with_the_probabilities_of_the_softmax():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(40_000, 1, 3)
    drawn = discretise(logits, "gumbel", 0.7)
    assert torch.allclose(drawn.sum(-1), torch.ones(40_000, 1))
    assert torch.allclose(drawn.mean((0, 1)), logits[0, 0].softmax(-1), atol=0.01)


@pytest.mark.parametrize("temperature", [0.3, 0.1, 0.03])
def test_soft_codes_and_their_products_are_no_denormal_numbers(temperature):
    """A softmax of such logits underflows. Where it does not come close to that, soft codes equal it exactly."""
    logits = 3 * torch.randn(200, 8, 16, generator=torch.Generator().manual_seed(0))
    exact, soft = (logits / temperature).softmax(-1), discretise(logits, "soft", temperature)
    tiny = torch.finfo(torch.float32).tiny
    assert temperature > 0.1 or ((exact > 0) & (exact < tiny)).any()
    assert (soft**2).min() > tiny
    torch.testing.assert_close(soft, exact, atol=1e-17, rtol=1e-6)
    untouched = ((logits.amax(-1) - logits.amin(-1)) / temperature < 39)[..., None].expand_as(soft)
    assert torch.equal(soft[untouched], exact[untouched])
    torch.testing.assert_close(agreement(soft, soft), agreement(exact, exact), atol=1e-7, rtol=0)


def test_the_gradient_of_a_soft_code_is_that_of_a_softmax():
    logits = (3 * torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0)).double()).requires_grad_(True)
    weights = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(1)).double()
    found = [
        torch.autograd.grad((code * weights).sum(), logits)[0]
        for code in (losses.soft_code(logits, 0.1), (logits / 0.1).softmax(-1))
    ]
    torch.testing.assert_close(*found, atol=1e-14, rtol=0)


def test_unknown_codes_are_an_error():
    with pytest.raises(ValueError, match="not 'hard'"):
        discretise(torch.zeros(1, 2, 3), "hard")
