import numpy as np
import pytest
import torch
from scipy.stats import entropy

from lib.metrics import MetricError
from lib.metrics.disentanglement import dci, scores

COUNT = 1200


def factors(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randint(0, size, (COUNT,), generator=draw) for name, size in (("a", 4), ("b", 6), ("c", 2))}


def as_latents(known: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return one latent per factor, with mean 0 and deviation 1, and one of noise."""
    columns = [*known.values(), torch.randn(COUNT, generator=torch.Generator().manual_seed(9))]
    latents = torch.stack([column.double() for column in columns], dim=1)
    return (latents - latents.mean(0)) / latents.std(0)


def test_latents_that_are_the_factors_are_disentangled():
    found = scores(as_latents(factors()), factors())
    assert all(found[name] > 0.95 for name in ("mig", "disentanglement", "completeness"))
    assert found["informativeness"] == 1
    assert found["sap"] > 0.2  # a threshold cannot separate the middle values of a factor


def test_a_rotation_mixes_what_it_leaves_as_informative():
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double())[0]
    alone, mixed = (scores(latents, factors()) for latents in (as_latents(factors()), as_latents(factors()) @ turn))
    for name in ("mig", "disentanglement", "completeness", "sap"):
        assert mixed[name] < 0.6 * alone[name], name
    assert mixed["informativeness"] > 0.8


def test_noise_knows_nothing():
    noise = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(2))
    found = scores(noise, factors())
    assert all(found[name] < 0.06 for name in ("mig", "disentanglement", "completeness", "sap"))
    chance = np.mean([1 / 4, 1 / 6, 1 / 2])
    assert abs(found["informativeness"] - chance) < 0.06


def test_names_order_and_sign_do_not_count():
    latents, known = as_latents(factors()), factors()
    found = scores(latents, known)
    again = scores(-latents[:, [2, 0, 3, 1]], dict(reversed(known.items())))
    assert again["mig"] == pytest.approx(found["mig"], abs=0.02)  # bins are half-open
    for name in ("disentanglement", "completeness", "informativeness", "sap"):
        assert again[name] == pytest.approx(found[name], abs=0.03)


def test_the_gap_of_mutual_information_by_hand():
    a = torch.arange(8).repeat(100)
    latents = torch.stack([a, a // 4], dim=1)  # the second knows one of the three bits
    assert scores(latents, {"a": a})["mig"] == pytest.approx(1 - 1 / 3)
    idle = torch.zeros(800, dtype=a.dtype)  # the gap is to the second best, not to the worst
    assert scores(torch.stack([a, a // 4, idle], dim=1), {"a": a})["mig"] == pytest.approx(1 - 1 / 3)


def test_dci_by_hand():
    importance = np.array([[0.8, 0.0], [0.2, 0.5], [0.0, 0.5]])
    found = dci(importance)
    alone = [1, 1 - entropy([2, 5], base=2), 1]
    assert found["disentanglement"] == pytest.approx(np.dot(alone, [0.4, 0.35, 0.25]), abs=1e-9)
    told = [1 - entropy([4, 1, 0], base=3), 1 - entropy([1, 1], base=3)]
    assert found["completeness"] == pytest.approx(np.mean(told), abs=1e-9)


def test_fine_factors_are_cut_into_equally_frequent_levels():
    fine = torch.randint(0, 1000, (COUNT,), generator=torch.Generator().manual_seed(3))
    latents = torch.stack([fine.double(), torch.zeros(COUNT)], dim=1)
    found = scores(latents, {"fine": fine})
    assert found["mig"] > 0.85 and found["informativeness"] > 0.9


def test_a_factor_of_one_value_is_refused():
    with pytest.raises(MetricError, match="'a' has one value"):
        scores(torch.zeros(COUNT, 2), {"a": torch.zeros(COUNT, dtype=torch.long)})
