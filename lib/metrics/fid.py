"""Distances between two sets of images in feature space.

    row = compare(extractor(generated), extractor(test.pixels), seed=0)

The bias of FID depends on the model and the number of samples: compare only values of equal sample counts.
"""

import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from lib.data.augment import as_float
from lib.metrics import MetricError, check_pixels

MINIMUM = 100  # samples that `compare` needs in each set
SPECTRUM_CHUNK = 256  # images per batch, so that memory does not grow with their number
ROWS = 1024  # samples whose distances to all others are in memory at a time
KID_SUBSETS, KID_SIZE = 100, 1000
MANIFOLD_NEIGHBOUR, DENSITY_NEIGHBOUR = 3, 5  # the k-th neighbour as radius of the balls, as published


def check_features(*sets: Tensor) -> list[Tensor]:
    """Return the sets of features (n, d) as float64 on the CPU; raise a MetricError unless all are finite."""
    for features in sets:
        if bad := int((~features.isfinite()).any(dim=1).sum()):
            raise MetricError(
                f"the features of {bad} of {len(features)} images are not finite; look at these and at the extractor"
            )
    return [features.detach().cpu().double() for features in sets]


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to features x (n, d) and y (m, d), d > 1:
    |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½), at least 0 (Dowson & Landau 1982; by torch-fidelity).
    """
    statistics = [fid_features_to_statistics(features) for features in check_features(x, y)]
    return max(0.0, fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def compare(fake: Tensor, real: Tensor, *, seed: int) -> dict[str, float | int]:
    """Return all metrics of two sets of features (n, d), (m, d) from one extractor, each of at least 100 images.

    These are fid, kid with its 95 % interval (kid_low, kid_high), precision, recall, density and coverage (of equally
    many samples of both sets), n_fake and n_real. All images should have the same size.
    """
    fake, real = check_features(fake, real)
    size = min(len(fake), len(real))
    if size < MINIMUM:
        raise MetricError(f"this needs features of at least {MINIMUM} images of each set, not {size}")
    generator = torch.Generator().manual_seed(seed)
    some = [x if len(x) == size else x[torch.randperm(len(x), generator=generator)[:size]] for x in (fake, real)]
    found = {"fid": frechet_distance(fake, real)} | kid(fake, real, seed=seed) | neighbourhoods(*some)
    return found | {"n_fake": len(fake), "n_real": len(real)}


def kid(fake: Tensor, real: Tensor, *, seed: int) -> dict[str, float]:
    """Return KID: unbiased squared MMD with the kernel (x·y/d + 1)³ (Bińkowski et al. 2018; by torch-fidelity).

    fake, real: float64 features (n, d), (m, d), at least 4 each. KID is the mean over 100 random subsets of each set,
    of size min(1000, half of the smaller set). Returns kid and its 95 % interval, kid_low and kid_high; all may be
    negative near 0. The interval is for the full sets, by subsampling without replacement (Politis & Romano 1994); near
    0, where the variance decreases faster, it is too wide.
    """
    count = min(len(fake), len(real))
    size = min(KID_SIZE, count // 2)
    options = {"kid_subsets": KID_SUBSETS, "kid_subset_size": size, "rng_seed": seed, "verbose": False}
    mean, sd = kid_features_to_metric(fake, real, **options).values()
    reach = 1.96 * sd * (size / (count - size)) ** 0.5
    return {"kid": mean, "kid_low": mean - reach, "kid_high": mean + reach}


def neighbourhoods(fake: Tensor, real: Tensor) -> dict[str, float]:
    """Return precision, recall, density and coverage, from balls around the images that reach their k-th neighbours.

    precision: share of fakes in the ball of any real image; recall: share of real images in the ball of any fake
    (Kynkäänniemi et al. 2019, k = 3; by torch-fidelity). density: mean number of real balls that contain a fake,
    divided by k; may exceed 1; coverage: share of real balls that contain a fake (Naeem et al. 2020, k = 5).

    fake, real: float64 features (n, d), (m, d), at least 6 each; the metrics depend on n and m. A point on a ball's
    surface counts as inside (Naeem's code has <, not ≤).
    """
    centre = real.mean(dim=0)  # distances come from differences of squares: the smaller the squares, the more precise
    fake, real = fake - centre, real - centre
    options = {"prc_neighborhood": MANIFOLD_NEIGHBOUR, "prc_batch_size": ROWS, "save_cpu_ram": True, "verbose": False}
    found = prc_features_to_metric(fake, real, **options)
    # The library returns shares in float32: round them back to exact counts.
    precision, recall = (round(found[name] * len(x)) / len(x) for name, x in (("precision", fake), ("recall", real)))
    # A point's nearest neighbour is itself.
    radii = [torch.cdist(rows, real).kthvalue(DENSITY_NEIGHBOUR + 1).values for rows in real.split(ROWS)]
    radii, balls, nearest = torch.cat(radii), 0, torch.full((len(real),), torch.inf)
    for rows in fake.split(ROWS):
        distances = torch.cdist(rows, real)
        balls += (distances <= radii).sum().item()
        nearest = torch.minimum(nearest, distances.amin(dim=0))
    return {
        "precision": precision,
        "recall": recall,
        "density": balls / (DENSITY_NEIGHBOUR * len(fake)),
        "coverage": (nearest <= radii).double().mean().item(),
    }


# --- Radial power spectrum: upsampling leaves traces in the highest frequencies (Durall et al. 2020) ---


def power_spectrum(pixels: Tensor) -> Tensor:
    """Return |F|²/(H·W) of images scaled to [-1, 1], averaged over images and channels.

    pixels: (n, 3, H, W) uint8 → (H, W) float64 in the order of `torch.fft.fftfreq`, on the CPU. White noise of variance
    s² has the power s² at every frequency and image size.
    """
    check_pixels(pixels)
    height, width = pixels.shape[-2:]
    total = torch.zeros(height, width, dtype=torch.float64)
    for chunk in pixels.split(SPECTRUM_CHUNK):
        power = torch.fft.fft2(as_float(chunk), norm="ortho").abs().square()
        total += power.mean(dim=1).double().sum(dim=0).cpu()
    return total / len(pixels)


def radial_power(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the power spectrum averaged over rings of equal frequency.

    pixels: (n, 3, H, W) uint8. Returns (frequencies, power), both (min(H, W) // 2 + 1,) float64: 0 to at most 0.5
    cycles per pixel, and the mean of `power_spectrum` over each ring; the corners beyond 0.5 are ignored.
    """
    power = power_spectrum(pixels)
    height, width = power.shape
    size = min(height, width)
    vertical = torch.fft.fftfreq(height, dtype=torch.float64).view(-1, 1)
    horizontal = torch.fft.fftfreq(width, dtype=torch.float64)
    ring = (torch.hypot(vertical, horizontal) * size).round().long()
    inside = ring <= size // 2
    counts = torch.bincount(ring[inside])
    return torch.arange(size // 2 + 1).double() / size, torch.bincount(ring[inside], power[inside]) / counts
