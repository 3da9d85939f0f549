"""Extractors: the real Inception code with random weights, and the domain classifier with its cache."""

import shutil
import threading
import urllib.error
import warnings
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch_fidelity
from filelock import FileLock
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as inception_module

from lib.data.augment import as_float
from lib.data.images import Images, load_images
from lib.metrics import MetricError, features, fid
from lib.metrics.features import domain, inception, load_extractor, to_pixels
from lib.metrics.imagenet import hub_file


def noise(count, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


# --- Pixels -------------------------------------------------------------------------------------


def test_to_pixels_inverts_as_float_and_rounds():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_pixels(as_float(levels)), levels)
    assert to_pixels(torch.tensor([0.4, 0.6]) / 127.5 - 1).tolist() == [0, 1]
    assert to_pixels(torch.tensor([-1.0005, 1.0005])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.tensor([0.0, float("nan")]), "nan"),
        (torch.tensor([0.0, 1.01]), r"\[-1, 1\], these hold 0 to 1.01"),
        (torch.tensor([-float("inf"), 0.0]), "-inf"),
    ],
)
def test_to_pixels_refuses_what_is_no_image(images, message):
    with pytest.raises(MetricError, match=message):
        to_pixels(images)


# --- Inception ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights in the official format."""
    official = inception_module.FeatureExtractorInceptionV3
    with (
        mock.patch.object(official, "load_state_dict"),
        mock.patch.object(inception_module, "load_state_dict_from_url"),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(0)
        network = official("random", ["2048"])
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache without network access; the path at which the weights belong."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "urlopen", mock.Mock(side_effect=urllib.error.URLError("no network")))
    file = hub_file(inception_module.URL_INCEPTION_V3)
    assert file == tmp_path / "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth"
    file.parent.mkdir(parents=True)
    return file


class Stored(torch.utils.data.Dataset):
    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index]


def test_inception_end_to_end_with_the_weights_in_the_hub_cache(weights, hub):
    hub.symlink_to(weights)
    state = torch.get_rng_state()
    extractor = load_extractor("auto", None, None, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert extractor.name == f"unofficial-inception-{extractor.checksum[:8]}"  # not the name in `claims.yaml`
    assert extractor.distance == f"FD-{extractor.name}"
    fake, real = noise(6), noise(6, seed=1) // 2
    described = [extractor(pixels) for pixels in (fake, real)]
    assert described[0].shape == (6, 2048) and described[0].std() > 0
    assert fid.frechet_distance(*described) > 0
    options = {"kid_subsets": 100, "kid_subset_size": 3, "rng_seed": 1}
    theirs = torch_fidelity.calculate_metrics(
        input1=Stored(fake),
        input2=Stored(real),
        kid=True,
        feature_extractor_weights_path=str(hub),
        cuda=False,
        cache=False,
        verbose=False,
        **options,
    )["kernel_inception_distance_mean"]
    ours = fid.kid(*(one.double() for one in described), seed=1)
    assert ours["kid"] == pytest.approx(theirs, rel=1e-4)


def test_the_name_says_if_the_weights_are_the_official_ones(weights, hub, monkeypatch):
    hub.symlink_to(weights)
    monkeypatch.setattr(features.hashlib, "sha256", lambda _: mock.Mock(hexdigest=lambda: "6726825d" + 56 * "0"))
    official = inception("cpu")
    assert (official.name, official.distance) == ("inception-2015-12-05", "FID")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another network"])
def test_a_damaged_weight_file_is_named_with_its_cure(weights, hub, damage):
    if damage == "another network":
        torch.save({"weight": torch.zeros(2)}, hub)
    else:
        whole = weights.read_bytes()
        hub.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"<html>not found"}[damage])
    with pytest.raises(MetricError) as error:
        inception("cpu")
    for part in (str(hub), inception_module.URL_INCEPTION_V3, "delete a damaged one"):
        assert part in str(error.value)


def test_without_weights_and_network_the_message_says_what_to_put_where(hub):
    with pytest.raises(MetricError) as error:
        inception("cpu")
    for part in (str(hub), inception_module.URL_INCEPTION_V3, "no network", "'domain'"):
        assert part in str(error.value)
    assert not any(hub.parent.iterdir())


# --- Domain -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets():
    options = {"size": 16, "seed": 0}
    return load_images("shapes", "train", count=64, **options), load_images("shapes", "test", count=20, **options)


@pytest.fixture(scope="module")
def kept(sets, tmp_path_factory):
    """An extractor and the folder in which it is stored."""
    folder = tmp_path_factory.mktemp("extractors")
    return domain(*sets, device="cpu", folder=folder, epochs=1), folder


def no_training(*_):
    raise AssertionError("trained again")


def test_domain_features(kept, sets):
    extractor, _ = kept
    assert extractor.name.startswith("domain (shapes, synthetic, 10 classes, test accuracy ")
    found = extractor(sets[1].pixels)
    assert found.shape == (20, 128) and found.dtype == torch.float32 and not found.requires_grad
    few = replace(extractor, chunk=7)(sets[1].pixels)
    torch.testing.assert_close(few, found)


@pytest.mark.parametrize("size", [16, 33, 64])
def test_images_of_any_size_end_in_a_small_map(size):
    network = features._Domain(size, 10).eval()
    with torch.no_grad():
        maps = network.layers(as_float(noise(1, size)))
    assert maps.shape[1] == network.classifier.in_features and 2 <= maps.shape[-1] <= 7


def test_a_second_call_takes_the_kept_one(kept, sets, monkeypatch):
    extractor, folder = kept
    monkeypatch.setattr(features, "_train", no_training)
    again = domain(*sets, device="cpu", folder=folder, epochs=1)
    assert (again.name, again.checksum) == (extractor.name, extractor.checksum)
    assert torch.equal(again(sets[1].pixels), extractor(sets[1].pixels))
    with pytest.raises(AssertionError):  # another recipe, another extractor
        domain(*sets, device="cpu", folder=folder, epochs=2)


def test_a_second_process_waits_for_the_one_that_trains(kept, sets, tmp_path, monkeypatch):
    extractor, folder = kept
    (source,) = folder.glob("*.safetensors")
    monkeypatch.setattr(features, "_train", no_training)
    found = []
    with FileLock(tmp_path / f"{source.stem}.lock"):
        waiting = threading.Thread(
            target=lambda: found.append(domain(*sets, device="cpu", folder=tmp_path, epochs=1)), daemon=True
        )
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and not found
        shutil.copy(source, tmp_path)
    waiting.join(30)
    assert found[0].checksum == extractor.checksum


def test_training_leaves_the_random_state_alone_and_does_not_depend_on_it(kept, sets, tmp_path):
    torch.manual_seed(123)
    state = torch.get_rng_state()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        again = domain(*sets, device="cpu", folder=tmp_path, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.checksum == kept[0].checksum


def stripes(count, seed, classes=("lying", "standing")):
    """Return noise with a bright half: the lower one in class 0, the right one in class 1."""
    pixels, labels = noise(count, seed=seed) // 2, torch.arange(count) % 2
    pixels[labels == 0, :, 8:] += 100
    pixels[labels == 1, :, :, 8:] += 100
    if len(classes) < 2:
        labels = torch.zeros_like(labels)
    return Images(pixels, labels, classes, "stripes", f"{seed} {count} {len(classes)}", "train")


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_it_learns(tmp_path, precision):
    options = {"device": "cpu", "folder": tmp_path, "precision": precision, "epochs": 5}
    assert domain(stripes(200, 1), stripes(40, 2), **options).name.endswith("2 classes, test accuracy 100.0 %)")


def test_images_without_classes_are_told_by_rotation(tmp_path):
    faces = stripes(128, 1, ("face",)), stripes(40, 2, ("face",))
    for images in faces:  # the lower half is always the bright one
        images.pixels[:] = noise(len(images), seed=len(images)) // 2
        images.pixels[:, :, 8:] += 100
    extractor = domain(*faces, device="cpu", folder=tmp_path, epochs=8)
    assert extractor.name == "domain (stripes, rotations, test accuracy 100.0 %)"


def test_rotated_images_carry_their_number_of_quarter_turns():
    pixels, turns = noise(6), torch.tensor([3, 0, 1, 1, 2, 0])
    rotated, labels = features._rotated(pixels, turns)
    assert labels.tolist() == [0, 0, 1, 1, 2, 3]
    back = torch.stack([image.rot90(-k, (1, 2)) for image, k in zip(rotated, labels.tolist(), strict=True)])
    assert torch.equal(back, pixels[[1, 5, 2, 3, 4, 0]])


def test_auto_never_downloads(hub, sets, monkeypatch):
    monkeypatch.setattr(features, "domain", lambda *_, **options: options["precision"])
    assert load_extractor("auto", *sets, device="cpu", precision="bf16") == "bf16"
    assert load_extractor("domain", *sets, precision="no") == "no"
    assert not torch.hub.urlopen.called
    with pytest.raises(MetricError, match="'vgg'; choose"):
        load_extractor("vgg", *sets)
