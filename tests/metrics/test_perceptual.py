"""LPIPS: the package's own value, the names of trained and untrained trunks, pairings, and what is refused."""

import socket

import lpips
import pytest
import torch
import torchvision

from lib.data.augment import as_float
from lib.metrics import MetricError
from lib.metrics.perceptual import (
    load_lpips,
    lpips_diversity,
    lpips_same_pyramid,
    lpips_to_source,
    trunk_file,
)


@pytest.fixture(autouse=True)
def empty_hub(tmp_path):
    kept = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield
    torch.hub.set_dir(kept)


def images(count, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def save_trunk(net, seed=1):
    """Random weights in the very form and place in which the hub keeps the trunk's."""
    torch.manual_seed(seed)
    build = {"alex": torchvision.models.alexnet, "squeeze": torchvision.models.squeezenet1_1}[net]
    file = trunk_file(net)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(build(weights=None).state_dict(), file)
    return file


ALEX = load_lpips("alex")


@pytest.mark.parametrize("net, smallest", [("alex", 31), ("squeeze", 17), ("vgg", 16)])
def test_without_weights_the_name_says_so_and_the_smallest_side_is_right(net, smallest):
    before = torch.get_rng_state()
    perceptual = load_lpips(net)
    assert torch.equal(before, torch.get_rng_state())
    assert perceptual.name == f"LPIPS-{net} with untrained trunk" and perceptual.smallest == smallest
    a, b = images(2, size=smallest), images(2, seed=1, size=smallest)
    assert (perceptual.distance(a, b) > 0).all()
    with pytest.raises(MetricError, match=f"at least {smallest} pixels a side"):
        perceptual.distance(a[..., 1:], b[..., 1:])


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_weights_in_the_hub_are_used_and_named(net):
    save_trunk(net)
    perceptual = load_lpips(net)
    assert perceptual.name == f"LPIPS-{net}"
    a, b = images(3), images(3, seed=1)
    reference = lpips.LPIPS(net=net, verbose=False)  # reads the same file
    with torch.no_grad():
        expected = reference(as_float(a), as_float(b)).flatten()
    torch.testing.assert_close(perceptual.distance(a, b), expected)
    assert not torch.allclose(load_lpips(net).distance(a, b), ALEX.distance(a, b))


def test_a_truncated_file_and_no_network_say_what_to_do(monkeypatch):
    file = save_trunk("alex")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(MetricError, match=f"{file.name}, cannot be read.*Delete that file"):
        load_lpips("alex")
    file.unlink()

    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(MetricError, match="could not be downloaded.*put a whole one"):
        load_lpips("alex", download=True)
    assert "untrained" in load_lpips("alex").name


def test_it_is_a_distance_that_grows_with_noise():
    a = images(8)
    floats = as_float(a)
    noise = torch.randn(floats.shape, generator=torch.Generator().manual_seed(2))
    found = [ALEX.distance(floats, (floats + s * noise).clamp(-1, 1)).mean().item() for s in (0, 0.05, 0.2, 0.8)]
    assert found[0] == 0 and found == sorted(found)
    torch.testing.assert_close(ALEX.distance(a, images(8, 1)), ALEX.distance(images(8, 1), a))


def test_pixels_and_floats_are_the_same_images():
    a, b = images(4), images(4, seed=1)
    torch.testing.assert_close(ALEX.distance(a, b), ALEX.distance(as_float(a), as_float(b)))


def test_chunks_do_not_matter():
    a, b = images(130), images(130, seed=1)
    torch.testing.assert_close(ALEX.distance(a, b)[100:], ALEX.distance(a[100:], b[100:]))


# -- pairings --------------------------------------------------------------------------------


def test_diversity_pairs_are_of_different_images(monkeypatch):
    seen = []
    monkeypatch.setattr(
        type(ALEX), "distance", lambda self, a, b: seen.append((a[:, 0, 0, 0], b[:, 0, 0, 0])) or torch.rand(len(a))
    )
    numbered = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 32, 32)
    lpips_diversity(ALEX, numbered, pairs=400, seed=0)
    first, second = seen[0]
    assert (first != second).all()
    assert len({(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)}) == 20  # every pair there is


def test_diversity_of_copies_is_zero_and_its_interval_holds_the_mean():
    same = images(1).expand(6, -1, -1, -1)
    assert lpips_diversity(ALEX, same, pairs=20, seed=0)["mean"] == 0
    found = lpips_diversity(ALEX, images(6), pairs=50, seed=0)
    assert found["low"] < found["mean"] < found["high"] and found["pairs"] == 50
    assert found == lpips_diversity(ALEX, images(6), pairs=50, seed=0)
    assert found != lpips_diversity(ALEX, images(6), pairs=50, seed=1)


def test_to_source_and_same_pyramid():
    a, b = images(4), images(4, seed=1)
    assert lpips_to_source(ALEX, a, b)["mean"] == pytest.approx(ALEX.distance(a, b).mean().item())
    draws = torch.stack([a, b, a], dim=1)
    assert lpips_same_pyramid(ALEX, draws)["mean"] == pytest.approx(ALEX.distance(a, b).mean().item(), rel=1e-5)
    assert lpips_same_pyramid(ALEX, torch.stack([a, a], dim=1))["mean"] == 0


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.rand(2, 3, 32, 32) * 255, "floats in .-1, 1., these hold"),
        (torch.full((2, 3, 32, 32), torch.nan), "these hold NaN"),
        (torch.zeros(2, 1, 32, 32), "colour images"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.long), "not torch.int64"),
        (torch.zeros(0, 3, 32, 32), "at least one"),
    ],
)
def test_wrong_images_are_refused(images, message):
    with pytest.raises(MetricError, match=message):
        ALEX.distance(images, images)


def test_other_misuse_is_refused():
    with pytest.raises(MetricError, match="one shape"):
        ALEX.distance(images(2), images(3))
    with pytest.raises(MetricError, match="choose from alex, vgg, squeeze"):
        load_lpips("resnet")
    with pytest.raises(MetricError, match="at least 2 images and 2 pairs"):
        lpips_diversity(ALEX, images(1), pairs=5, seed=0)
    with pytest.raises(MetricError, match="at least 2, 3, h, w"):
        lpips_same_pyramid(ALEX, images(4))
