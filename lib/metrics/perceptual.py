"""LPIPS, the learned perceptual distance (Zhang et al. 2018, version 0.1), through the `lpips` package.

    perceptual = load_lpips("vgg")
    perceptual.distance(a, b)  # (n,)

The linear weights come with the package; the trunk's ImageNet weights do not. Without them the trunk is
untrained, and the name says so: the distance then ranks pairs much like a pixel distance, and its values are
not comparable with published ones or across networks.
"""

import contextlib
import io
import warnings
from dataclasses import dataclass, field

import lpips
import torch
from torch import Tensor, nn
from torchvision import models

from lib.data.augment import as_float
from lib.metrics import MetricError, check_pixels, pick_device
from lib.metrics.imagenet import hub_file

TRUNKS = {  # torchvision's weights of each trunk
    "alex": models.AlexNet_Weights.IMAGENET1K_V1,
    "vgg": models.VGG16_Weights.IMAGENET1K_V1,
    "squeeze": models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels: pooling reduces smaller images to nothing
CHUNK = 100  # images per batch at 32 px, fewer if larger: vgg needs about 7 MB per pair at 64 px


@dataclass(frozen=True)
class Perceptual:
    """A perceptual distance: name (for captions), network and its smallest images in pixels."""

    name: str
    network: nn.Module = field(repr=False)
    smallest: int = 1

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return LPIPS between a[i] and b[i]: images (n, 3, h, w) uint8 -> (n,) float32 on the CPU.

        Raises a MetricError for other types and shapes, and for images smaller than `smallest`.
        """
        if a.shape != b.shape:
            raise MetricError(f"LPIPS compares images of one shape, not {tuple(a.shape)} with {tuple(b.shape)}")
        if min(a.shape[-2:]) < self.smallest:
            raise MetricError(f"{self.name} takes images of {self.smallest} px or more, not of {tuple(a.shape[-2:])} "
                              f"(vgg from {SMALLEST['vgg']} px)")  # fmt: skip
        check_pixels(a), check_pixels(b)
        device = next(self.network.parameters()).device
        count = max(1, CHUNK * 32 * 32 // (a.shape[-2] * a.shape[-1]))
        chunks = zip(a.to(device).split(count), b.to(device).split(count), strict=True)
        return torch.cat([self.network(as_float(x), as_float(y)).flatten().cpu() for x, y in chunks])


def load_lpips(net: str = "vgg", *, device: str = "cpu") -> Perceptual:
    """Load LPIPS with the trunk "alex", "vgg" or "squeeze".

    The trunk's weights are read from the hub cache; if they are missing, it is initialised from a fixed seed. At 32 px
    report vgg: alex and squeeze cost 2 % and 8 % as much, but there reflect mostly padding. Raises a MetricError
    that says what to do about a damaged file.
    """
    if net not in TRUNKS:
        raise MetricError(f"there is no LPIPS network {net!r}; choose from {', '.join(TRUNKS)}")
    file = hub_file(TRUNKS[net].url)
    trained = file.exists()
    # The package prints messages and calls torchvision with deprecated arguments.
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with silent[0], silent[1], warnings.catch_warnings(action="ignore"), torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            network = lpips.LPIPS(net=net, pnet_rand=not trained, verbose=False)
        except Exception as error:  # whatever torch and pickle raise for a truncated file
            raise MetricError(
                f"the weights of LPIPS's trunk, {file}, cannot be read ({type(error).__name__}: {error}). Delete that "
                f"file and put a whole one in its place, from {TRUNKS[net].url}"
            ) from error
    name = f"LPIPS-{net}" if trained else f"LPIPS-{net} with untrained trunk"
    return Perceptual(name, network.eval().requires_grad_(False).to(pick_device(device)), SMALLEST[net])


def lpips_diversity(perceptual: Perceptual, images: Tensor, *, pairs: int, seed: int) -> dict[str, float]:
    """Return the mean LPIPS over `pairs` random pairs of different images (n, 3, h, w); higher is more diverse.

    Returns mean and its 95 % interval, low and high: normal, with a variance that accounts for pairs that share images
    (Aronow, Samii & Assenova 2015). Report the same for real images alongside.
    """
    if pairs < 2:
        raise MetricError(f"{pairs} pair(s) of images have no interval of LPIPS; take lpips_pairs=2 or more")
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(images), (pairs,), generator=generator)
    step = torch.randint(1, len(images), (pairs,), generator=generator)  # never the same image
    second = (first + step) % len(images)
    distances = perceptual.distance(images[first], images[second]).double()
    mean = distances.mean().item()
    error = distances - mean
    alone, sums = error.square().sum(), error.new_zeros(len(images))
    for index in (first, second):
        sums.index_add_(0, index, error)
    variance = torch.maximum(alone, sums.square().sum() - alone)
    half = 1.96 * variance.sqrt().item() / (pairs * (pairs - 1)) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def mean_lpips(perceptual: Perceptual, a: Tensor, b: Tensor) -> float:
    """Return the mean LPIPS between a[i] and b[i]. A low value between samples and their sources indicates copying; one
    near 0 between two samples of the same condition indicates that the noise is ignored."""
    return perceptual.distance(a, b).double().mean().item()
