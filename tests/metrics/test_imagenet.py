"""Networks trained on ImageNet: weights from a cache that the tests write, and VGG16's features."""

import pytest
import torch
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from lib.data.catalog import DataError
from lib.data.images import load_images
from lib.metrics import features, imagenet


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints" / models.AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]


def test_weights_come_from_the_cache(cache):
    torch.manual_seed(1)
    whole = models.alexnet()
    torch.save({key: value for key, value in whole.state_dict().items() if key.startswith("features.")}, cache)
    found = imagenet.load_trained("AlexNet")
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(found(image), whole.features.eval()(image))
    assert not any(weight.requires_grad for weight in found.parameters())


def test_weights_that_are_not_there_or_not_whole(cache):
    with pytest.raises(DataError, match=r"not in .*alexnet.*\. Put https://.* or set TORCH_HOME"):
        imagenet.load_trained("AlexNet")
    cache.write_bytes(b"no weights")
    with pytest.raises(DataError, match="holds no weights of AlexNet"):
        imagenet.load_trained("AlexNet")
    with pytest.raises(DataError, match="choose from AlexNet, VGG16"):
        imagenet.load_trained("ResNet")


def test_vgg16_features_are_those_of_torchvision(cache, monkeypatch):
    torch.manual_seed(2)
    whole = models.vgg16().eval()
    weights = {name: value for name, value in whole.state_dict().items() if name.startswith("features.")}
    torch.save(weights, cache.with_name(models.VGG16_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]))
    images = load_images("shapes", "train", count=20)
    extractor = features.load_extractor("vgg16", images, images, device="cpu")
    found = extractor(images.pixels)
    usual = models.VGG16_Weights.IMAGENET1K_V1.transforms(crop_size=32, resize_size=32)(images.pixels)
    with torch.no_grad():
        last = create_feature_extractor(whole, {"features.29": "last"})(usual)["last"]  # (20, 512, 2, 2)
    torch.testing.assert_close(found, last.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert extractor.distance == "FD-VGG16" and features.vgg16("cpu").checksum == extractor.checksum


def test_vgg16_without_weights(cache):
    images = load_images("shapes", "train", count=20)
    with pytest.raises(DataError, match="weights of VGG16 are not in .*Put https://"):
        features.load_extractor("vgg16", images, images)
