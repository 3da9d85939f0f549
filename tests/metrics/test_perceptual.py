"""LPIPS: agreement with the package, names by weights, refused input, and pairing."""

import warnings

import lpips
import pytest
import torch
import torch.nn.functional as F
from torchvision.models import squeezenet1_1

from lib.metrics import MetricError
from lib.metrics.features import to_pixels
from lib.metrics.imagenet import hub_file
from lib.metrics.perceptual import (
    TRUNKS,
    Perceptual,
    load_lpips,
    lpips_diversity,
    mean_lpips,
)

pytestmark = pytest.mark.filterwarnings("error")  # warnings of the package must not surface


@pytest.fixture
def hub(tmp_path):
    """The checkpoints folder of an empty hub cache."""
    before = torch.hub._hub_dir  # None: TORCH_HOME is heeded
    torch.hub.set_dir(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub._hub_dir = before


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> dict[str, Perceptual]:
    before = torch.hub._hub_dir  # None: TORCH_HOME is heeded
    torch.hub.set_dir(str(tmp_path_factory.mktemp("hub")))
    networks = {net: load_lpips(net) for net in TRUNKS}
    torch.hub._hub_dir = before
    return networks


@pytest.fixture(scope="module")
def squeeze(untrained) -> Perceptual:
    return untrained["squeeze"]


def pixels(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Return smooth random images, uint8."""
    noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(noise, size=(size, size), mode="bilinear")
    return smooth.mul(60).add(128).clamp(0, 255).to(torch.uint8)


def as_unit(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1


class MeanDifference(torch.nn.Module):
    """A simple distance in place of the network: |mean(a) - mean(b)| on [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a.mean((1, 2, 3)) - b.mean((1, 2, 3))).abs()


SIMPLE = Perceptual("mean difference", MeanDifference())


def grey(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


# --- Weights and names --------------------------------------------------------------------------


def test_weights_in_the_hub_cache_are_used_and_change_the_name(hub, untrained, capfd):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        torch.save(squeezenet1_1(weights=None).state_dict(), hub / "squeezenet1_1-b8a52dc0.pth")
    assert hub_file(TRUNKS["squeeze"].url).exists()
    found = load_lpips("squeeze")
    assert found.name == "LPIPS-squeeze"
    assert "untrained" in untrained["squeeze"].name and untrained["squeeze"].name.startswith("LPIPS-squeeze")
    a, b = pixels(5), pixels(5, seed=1)
    assert not torch.allclose(found.distance(a, b), untrained["squeeze"].distance(a, b), rtol=1e-2)
    assert capfd.readouterr() == ("", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = lpips.LPIPS(net="squeeze", verbose=False)
    with torch.no_grad():
        expected = direct(as_unit(a), as_unit(b)).flatten()
    torch.testing.assert_close(found.distance(a, b), expected, rtol=1e-5, atol=1e-7)


def test_a_truncated_file_is_one_clear_error(hub):
    file = hub / "squeezenet1_1-b8a52dc0.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), file)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(MetricError, match=f"{file.name}.* cannot be read .*[Dd]elete"):
        load_lpips("squeeze")


def test_one_pair_has_no_interval():
    with pytest.raises(MetricError, match="lpips_pairs=2 or more"):
        lpips_diversity(SIMPLE, grey(0, 9), pairs=1, seed=0)


def test_nothing_is_fetched_unasked(hub):
    assert load_lpips("squeeze").name != "LPIPS-squeeze"


def test_an_unknown_net_is_refused():
    with pytest.raises(MetricError, match="'resnet'.*alex, vgg, squeeze"):
        load_lpips("resnet")


def test_the_untrained_trunk_is_the_same_each_time_and_leaves_the_random_state_alone(hub, squeeze):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = load_lpips("squeeze")
    assert torch.equal(torch.get_rng_state(), before)
    a, b = pixels(3), pixels(3, seed=1)
    assert torch.equal(again.distance(a, b), squeeze.distance(a, b))


# --- The distance -------------------------------------------------------------------------------


@pytest.mark.parametrize("net", TRUNKS)
def test_distances_are_sane_even_with_an_untrained_trunk(untrained, net):
    """Zero from itself, symmetric, and growing with noise for every image."""
    perceptual, clean = untrained[net], pixels(3)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    noisy = (to_pixels((as_unit(clean) + sigma * noise).clamp(-1, 1)) for sigma in (0, 0.05, 0.2, 0.8))
    levels = [perceptual.distance(clean, images) for images in noisy]
    grown = torch.stack(levels).diff(dim=0)
    assert torch.equal(levels[0], torch.zeros(3))
    assert (grown > 0).all()
    torch.testing.assert_close(perceptual.distance(clean, clean.flip(0)), perceptual.distance(clean.flip(0), clean))


def test_distance_is_that_of_the_package_and_does_not_depend_on_the_batch(squeeze):
    a, b = pixels(103), pixels(103, seed=1)
    found = squeeze.distance(a, b)
    assert found.shape == (103,) and found.dtype == torch.float32 and not found.requires_grad
    with torch.no_grad():
        expected = torch.cat([squeeze.network(as_unit(a[i : i + 1]), as_unit(b[i : i + 1])) for i in (0, 57, 99, 102)])
    torch.testing.assert_close(found[[0, 57, 99, 102]], expected.flatten(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("net", "smallest"), [("vgg", 16), ("squeeze", 17), ("alex", 31)])
def test_the_smallest_side_is_the_networks_own(untrained, net, smallest):
    fits = pixels(1, smallest)
    small = fits.new_zeros(1, 3, smallest - 1, smallest + 9)
    assert untrained[net].distance(fits, fits.flip(-1)).isfinite().all()
    with pytest.raises(RuntimeError):
        untrained[net].network(as_unit(small), as_unit(small))
    with pytest.raises(MetricError, match=rf"takes images of {smallest} px or more, not of .* \(vgg from 16 px\)"):
        untrained[net].distance(small, small)


def test_other_input_is_refused_in_one_sentence(squeeze):
    good = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    for bad, words in (
        (good.float(), r"float32.*to_pixels brings images in \[-1, 1\]"),
        (good[:, :1], r"\(2, 1, 32, 32\)"),
        (good[0], r"\(3, 32, 32\)"),
        (good[:0], "at least one"),
        (good.long(), "int64"),
    ):
        with pytest.raises(MetricError, match=words) as caught:
            squeeze.distance(bad, bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(MetricError, match=r"one shape.*\(2, 3, 32, 32\).*\(1, 3, 32, 32\)"):
        squeeze.distance(good, good[:1])
    with pytest.raises(MetricError, match="float32"):
        squeeze.distance(good, good.float())


# --- Pairings -----------------------------------------------------------------------------------


def test_diversity_never_pairs_an_image_with_itself():
    """Two images form one pair: all distances are equal, and the interval has no width."""
    found = lpips_diversity(SIMPLE, grey(0, 51), pairs=50, seed=0)
    assert found["mean"] == pytest.approx(0.4, abs=1e-6)
    assert found["high"] - found["low"] == pytest.approx(0, abs=1e-6)


def test_diversity_is_the_mean_over_all_pairs_within_its_interval():
    images = grey(*range(0, 250, 5))
    levels = torch.arange(0, 250, 5).double() / 127.5
    every = (levels[:, None] - levels[None]).abs().sum() / (50 * 49)
    found = [lpips_diversity(SIMPLE, images, pairs=2000, seed=seed) for seed in range(20)]
    means = [result["mean"] for result in found]
    assert len(set(means)) == 20
    assert found[0] == lpips_diversity(SIMPLE, images, pairs=2000, seed=0)
    inside = [result["low"] < every < result["high"] for result in found]
    assert sum(inside) >= 17
    width = sum(result["high"] - result["low"] for result in found) / 20
    assert width < 0.3 * every


def test_the_interval_allows_for_images_that_pairs_share():
    """Estimates from new sets of 30 images vary as much as the intervals say, although pairs share images."""
    found = []
    for seed in range(150):
        levels = torch.randint(0, 256, (30,), generator=torch.Generator().manual_seed(seed)).tolist()
        found.append(lpips_diversity(SIMPLE, grey(*levels), pairs=600, seed=seed))
    spread = torch.tensor([result["mean"] for result in found]).std().item()
    said = sum(result["high"] - result["low"] for result in found) / len(found) / (2 * 1.96)
    assert said == pytest.approx(spread, rel=0.2)


def test_the_mean_compares_each_image_with_its_own():
    assert mean_lpips(SIMPLE, grey(0, 100, 200), grey(0, 151, 251)) == pytest.approx(0.8 / 3, abs=1e-6)
