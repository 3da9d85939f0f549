import pytest
import torch

from lib.categorical.models import Network, SmallResNet, build_encoder


@pytest.mark.parametrize(("width", "stages", "size"), [(4, 3, 32), (6, 2, 17), (3, 1, 8), (4, 4, 64)])
def test_small_resnet_gives_its_features_for_any_size(width, stages, size):
    encoder = SmallResNet(width, stages)
    assert encoder(torch.zeros(2, 3, size, size)).shape == (2, encoder.features)
    assert encoder.features == width * 2 ** (stages - 1)


def test_each_stage_but_the_first_halves_the_image():
    encoder = SmallResNet(4, 3)
    maps = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda module, given, made: maps.append(tuple(made.shape[1:])))
    encoder(torch.zeros(1, 3, 32, 32))
    assert maps == [(4, 32, 32), (8, 16, 16), (16, 8, 8)]


def test_resnet18_has_the_stem_for_small_images_and_no_classifier():
    encoder = build_encoder("resnet18").eval()
    assert encoder.conv1.stride == (1, 1) and encoder.conv1.kernel_size == (3, 3)
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, encoder.features) == (1, 512)
    # The 11.2 M convolution parameters of He et al., with a 3 x 3 stem.
    assert sum(value.numel() for value in encoder.parameters()) == 11_168_832


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (12,)])
def test_the_head_returns_the_asked_shape(shape):
    network = Network(build_encoder("small", 4), shape)
    assert network(torch.randn(3, 3, 16, 16)).shape == (3, *shape)


def test_arms_share_their_encoder_s_first_weights():
    encoders = []
    for shape in ((5, 7), (12,)):
        torch.manual_seed(3)
        encoders.append(Network(build_encoder("small", 4), shape).encoder)
    assert all(torch.equal(a, b) for a, b in zip(*(e.state_dict().values() for e in encoders), strict=True))


def test_errors():
    with pytest.raises(ValueError, match="'resnet50' is unknown; choose 'small' or 'resnet18'"):
        build_encoder("resnet50")
