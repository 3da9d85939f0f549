"""The published losses against slow loops and lightly's NT-Xent; known values, invariances and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from lib.categorical.baselines import carp, imsvd, moco, nt_xent, scan

CODE_LOSSES = [imsvd, carp, scan]


def embeddings(count, dimensions=5, *, seed=0, dtype=torch.float64):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def codes(count, positions=3, categories=4, *, seed=0, sharpness=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, positions, categories, generator=generator, dtype=dtype)
    return (sharpness * logits).softmax(-1)


def independent(positions, categories):
    """Return every one-hot code once, (K^L, L, K): its positions are balanced and independent."""
    every = torch.cartesian_prod(*[torch.arange(categories)] * positions).view(-1, positions)
    return F.one_hot(every, categories).double()


def constant(count, positions, categories):
    """Return equal one-hot codes."""
    return F.one_hot(torch.zeros(count, positions, dtype=torch.long), categories).double()


def uniform(count, positions, categories):
    return torch.full((count, positions, categories), 1 / categories, dtype=torch.float64)


def close(found, expected):
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


# -- embeddings ------------------------------------------------------------------------------


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize("batch", [2, 3, 6])
def test_nt_xent_is_equation_1(batch):
    x, y = embeddings(batch), embeddings(batch, seed=1)
    both = [*x.tolist(), *y.tolist()]
    total = 0.0
    for i in range(2 * batch):
        scores = [math.exp(cosine(both[i], both[k]) / 0.3) for k in range(2 * batch)]
        total -= math.log(scores[(i + batch) % (2 * batch)] / (sum(scores) - scores[i]))
    close(nt_xent(x, y, 0.3), total / (2 * batch))


@pytest.mark.parametrize("batch", range(2, 10))
@pytest.mark.parametrize("dimensions", [1, 3, 32])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_nt_xent_equals_lightly(batch, dimensions, temperature):
    theirs = pytest.importorskip("lightly.loss").NTXentLoss(temperature=temperature)
    ours = [embeddings(batch, dimensions, seed=seed).float().requires_grad_(True) for seed in (batch, batch + 99)]
    reference = [x.detach().clone().requires_grad_(True) for x in ours]
    found, expected = nt_xent(*ours, temperature), theirs(*reference)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # The absolute tolerance is for D = 1, where gradients cancel almost or entirely.
    torch.testing.assert_close(
        torch.autograd.grad(found, ours), torch.autograd.grad(expected, reference), rtol=1e-3, atol=1e-5
    )


def test_moco_is_equation_1():
    query, key, queue = embeddings(3), embeddings(3, seed=1), embeddings(7, seed=2)
    total = 0.0
    for x, k in zip(query.tolist(), key.tolist(), strict=True):
        positive = math.exp(cosine(x, k) / 0.2)
        total -= math.log(positive / (positive + sum(math.exp(cosine(x, n) / 0.2) for n in queue.tolist())))
    close(moco(query, key, queue, 0.2), total / 3)


@pytest.mark.parametrize("batch", [2, 5])
def test_equal_embeddings_give_the_log_of_the_number_of_candidates(batch):
    same = torch.ones(batch, 4)
    close(nt_xent(same, 3 * same), math.log(2 * batch - 1))
    close(moco(same, same, 2 * torch.ones(6, 4)), math.log(1 + 6))


def test_known_values_of_orthogonal_embeddings():
    """Positives equal, all others orthogonal: -1/τ + log(e^(1/τ) + number of negatives)."""
    eye = torch.eye(6, dtype=torch.float64)
    close(nt_xent(eye[:3], eye[:3], 0.5), math.log1p(4 * math.exp(-2)))
    close(moco(eye[:2], eye[:2], eye[2:], 0.1), math.log1p(4 * math.exp(-10)))


def test_embeddings_count_by_their_direction():
    x, y, queue = embeddings(4), embeddings(4, seed=1), embeddings(5, seed=2)
    rotation = torch.linalg.qr(embeddings(5, seed=3)).Q
    long = torch.tensor([0.01, 1, 5, 100], dtype=torch.float64)[:, None]
    expected = nt_xent(x, y)
    for other in (
        nt_xent(y, x),
        nt_xent(long * x, y),
        nt_xent(x @ rotation, y @ rotation),
        nt_xent(x.flip(0), y.flip(0)),
    ):
        torch.testing.assert_close(other, expected)
    expected = moco(x, y, queue)
    for other in (
        moco(x, long * y, 7 * queue),
        moco(*(z @ rotation for z in (x, y, queue))),
        moco(x, y, queue.flip(0)),
    ):
        torch.testing.assert_close(other, expected)


def test_a_low_temperature_stays_finite():
    x, y = (embeddings(4, seed=seed).float().requires_grad_(True) for seed in (0, 1))
    for value in (nt_xent(x, y, 1e-4), moco(x, y, embeddings(9).float(), 1e-4)):
        assert torch.isfinite(value)
        assert all(torch.isfinite(part).all() for part in torch.autograd.grad(value, (x, y)))


# -- codes -----------------------------------------------------------------------------------


def disagreement(p, q):
    """Return mean_{b,l} -log⟨p, q⟩ of nested lists."""
    terms = [
        -math.log(sum(x * y for x, y in zip(p[b][position], q[b][position], strict=True)))
        for b in range(len(p))
        for position in range(len(p[0]))
    ]
    return sum(terms) / len(terms)


def entropy(frequencies):
    return -sum(x * math.log(x) for x in frequencies)


def mean_code(p, position):
    return [sum(code[position][k] for code in p) / len(p) for k in range(len(p[0][0]))]


@pytest.mark.parametrize("positions", [1, 2, 4])
def test_imsvd_is_its_formula(positions):
    first, second = codes(5, positions), codes(5, positions, seed=1)
    p, q, categories = first.tolist(), second.tolist(), range(4)
    spread = independence = 0.0
    for one in range(positions):
        for other in range(positions):
            joint = [[sum(p[b][one][a] * q[b][other][c] for b in range(5)) / 5 for c in categories] for a in categories]
            if one == other:
                spread -= entropy([joint[a][a] for a in categories]) / positions
            else:
                independence -= entropy(sum(joint, [])) / (positions * (positions - 1))
    close(imsvd(first, second), disagreement(p, q) + spread + independence)
    close(imsvd(first, second, weight=0.3), disagreement(p, q) + 0.3 * (spread + independence))


def test_carp_is_its_formula():
    first, second = codes(5), codes(5, seed=1)
    p, q = first.tolist(), second.tolist()
    divergences = [math.log(4) - entropy(mean_code(p + q, position)) for position in range(3)]
    close(carp(first, second), disagreement(p, q) + sum(divergences) / 3)
    close(carp(first, second, weight=0.3), disagreement(p, q) + 0.3 * sum(divergences) / 3)


def test_scan_is_equation_2():
    first, second = codes(5), codes(5, seed=1)
    p, q = first.tolist(), second.tolist()
    spread = sum(entropy(mean_code(p, position)) for position in range(3)) / 3
    close(scan(first, second), disagreement(p, q) - 5 * spread)
    close(scan(first, second, entropy_weight=0.3), disagreement(p, q) - 0.3 * spread)


@pytest.mark.parametrize("categories", [2, 4])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_codes_of_known_values(categories, weight):
    log = math.log(categories)
    ideal = independent(2, categories)
    close(imsvd(ideal, ideal, weight), -3 * weight * log)
    close(carp(ideal, ideal, weight), 0)
    close(scan(ideal, ideal, weight), -weight * log)
    flat = uniform(3, 2, categories)
    close(imsvd(flat, flat, weight), log - weight * (2 * log / categories + 2 * log))
    close(carp(flat, flat, weight), log)
    close(scan(flat, flat, weight), (1 - weight) * log)
    collapsed = constant(3, 2, categories)
    close(imsvd(collapsed, collapsed, weight), 0)
    close(carp(collapsed, collapsed, weight), weight * log)
    close(scan(collapsed, collapsed, weight), 0)
    close(imsvd(ideal[:, :1], ideal[:, :1], weight), -weight * log)  # a single position


def test_only_imsvd_sees_that_positions_are_copies():
    ideal = independent(2, 4)
    copied = ideal[:, :1].expand(-1, 2, -1)
    close(imsvd(copied, copied), -2 * math.log(4))  # independent positions would give -3 ln K
    for loss in (carp, scan):
        torch.testing.assert_close(loss(copied, copied), loss(ideal, ideal))


@pytest.mark.parametrize("loss", CODE_LOSSES)
def test_names_of_categories_and_order_of_positions_and_images_do_not_matter(loss):
    p, q = codes(6), codes(6, seed=1)
    expected = loss(p, q)
    names = [torch.randperm(4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]  # by position
    renamed = (torch.stack([x[:, n, order] for n, order in enumerate(names)], dim=1) for x in (p, q))
    torch.testing.assert_close(loss(*renamed), expected)
    torch.testing.assert_close(loss(p[:, [2, 0, 1]], q[:, [2, 0, 1]]), expected)
    torch.testing.assert_close(loss(p.flip(0), q.flip(0)), expected)


def test_which_losses_are_symmetric_in_the_views():
    p, q = codes(6), codes(6, seed=1)
    torch.testing.assert_close(imsvd(p, q), imsvd(q, p))
    torch.testing.assert_close(carp(p, q), carp(q, p))
    assert scan(p, q) != scan(q, p)  # only the entropy of the anchors enters


@pytest.mark.parametrize("loss", CODE_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_categories_and_full_disagreement_stay_finite(loss, dtype):
    p = codes(6, dtype=dtype)
    p[..., 0] = 0
    p = p / p.sum(-1, keepdim=True)
    never, always = constant(6, 3, 4).to(dtype), constant(6, 3, 4).to(dtype).flip(-1)
    for first, second in [(p, p), (p, never), (never, always), (never, never)]:
        first, second = (x.clone().requires_grad_(True) for x in (first, second))
        value = loss(first, second)
        assert torch.isfinite(value)
        assert all(torch.isfinite(part).all() for part in torch.autograd.grad(value, (first, second)))


# -- all -------------------------------------------------------------------------------------

CASES = [
    (nt_xent, (embeddings(4), embeddings(4, seed=1))),
    (moco, (embeddings(3), embeddings(3, seed=1), embeddings(5, seed=2))),
    *((loss, (codes(5), codes(5, seed=1))) for loss in CODE_LOSSES),
]


@pytest.mark.parametrize(("loss", "tensors"), CASES)
def test_gradients_against_finite_differences(loss, tensors):
    tensors = [x.clone().requires_grad_(True) for x in tensors]
    assert loss(*tensors).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, tensors)


@pytest.mark.parametrize(("loss", "tensors"), CASES)
def test_float32_whatever_autocast_says(loss, tensors):
    single = [x.float() for x in tensors]
    expected = loss(*single)
    assert expected.dtype == torch.float32
    torch.testing.assert_close(expected, loss(*tensors).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(*single), expected)
    halves = [x.bfloat16() for x in single]
    assert torch.equal(loss(*halves), loss(*(x.float() for x in halves)))


@pytest.mark.parametrize(("loss", "tensors"), CASES)
def test_losses_leave_their_input_alone(loss, tensors):
    before = [x.clone() for x in tensors]
    loss(*tensors)
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))


def test_moco_takes_a_batch_of_one():
    close(moco(torch.ones(1, 4), torch.ones(1, 4), torch.ones(3, 4)), math.log(4))
