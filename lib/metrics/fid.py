"""Distances between two sets of images in feature space, from one pass over each set.

    real = describe(test.pixels, extractor)
    fake = describe(chunks_of_generated_pixels(), extractor)
    row = compare(fake, real, seed=0)

FID is biased, by an amount that depends on the model and the number of samples: compare only values of equal counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lib.metrics import MetricError, check_pixels, check_tensor
from lib.metrics.features import Extractor
from lib.metrics.spectrum import radial_power

MINIMUM = 100  # samples of each set that `compare` needs
TILE = 1024  # samples a side of the blocks in which pairs are compared: 8 MB for each table of distances
CHUNK = 1024  # images or features at once
FID_SIZES = 15  # of the subsets that FID∞ is extrapolated from


# --- Moments ------------------------------------------------------------------------------------


class Moments:
    """Count, mean and covariance (N - 1) of features that come in chunks, float64 (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._products = torch.zeros(0)

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        moments = cls()
        moments.add(features)
        return moments

    def add(self, features: Tensor) -> None:
        """Take in features (n, d), n of 0 or more. Raises a MetricError on NaN or infinity."""
        for chunk in check_features(features).split(CHUNK):
            self._add(chunk.detach().double())

    def _add(self, chunk: Tensor) -> None:
        if not self.count:
            self._mean = chunk.new_zeros(chunk.shape[1])
            self._products = chunk.new_zeros(chunk.shape[1], chunk.shape[1])
        count = self.count + len(chunk)
        if count == self.count:
            return
        mean = chunk.mean(dim=0)
        centred, gap = chunk - mean, mean - self._mean
        self._products += _products(centred)
        self._products.addr_(gap, gap, alpha=self.count * len(chunk) / count)
        self._mean += gap * (len(chunk) / count)
        self.count = count

    @property
    def mean(self) -> Tensor:
        """(d,) float64 on the CPU."""
        return self._mean.cpu()

    @property
    def covariance(self) -> Tensor:
        """(d, d) float64 on the CPU. Raises a MetricError below two samples."""
        if self.count < 2:
            raise MetricError(f"a covariance needs at least 2 samples, not {self.count}")
        return self._products.cpu() / (self.count - 1)


def _products(centred: Tensor) -> Tensor:
    """XᵀX of (n, d)."""
    if centred.device.type != "cpu":
        return centred.T @ centred
    rows = centred.numpy()
    return torch.from_numpy(rows.T @ rows)  # NumPy sees one matrix twice and computes half of the product


def check_features(features: Tensor) -> Tensor:
    """The features themselves, if they are finite and of shape (n, d); else a MetricError."""
    check_tensor(features, "features")
    if features.ndim != 2:
        raise MetricError(f"features have shape (n, d), not {tuple(features.shape)}")
    if not torch.isfinite(features).all():
        bad = (~torch.isfinite(features).all(dim=1)).sum().item()
        raise MetricError(
            f"the features of {bad} of {len(features)} images are not finite; look at these images and at the extractor"
        )
    return features


# --- Fréchet distance ---------------------------------------------------------------------------


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) (Dowson & Landau 1982).

    tr (S1 S2)^½ is computed as that of the symmetric S1^½ S2 S1^½, which is always real. Never negative.
    """
    for given in (a, b):
        if not isinstance(given, Moments):
            raise MetricError("a Fréchet distance is of Moments; frechet_distance_of_samples takes features")
    _same_width(len(a.mean), len(b.mean))
    root = _root(b.covariance)
    roots = _root_sum(root @ a.covariance @ root.T)
    return _assemble(a.mean - b.mean, a.covariance.trace() + b.covariance.trace(), roots)


def frechet_distance_of_samples(x: Tensor, y: Tensor) -> float:
    """The same of features x (n, d) and y (m, d), quicker and more exact where n or m is below d.

    With centred X = (x - mean) / sqrt(n - 1) the covariance is XᵀX, and tr (S1 S2)^½ the sum of the singular
    values of the n × m matrix X Yᵀ.
    """
    x, y = check_features(x).double(), check_features(y).double()
    _same_width(x.shape[1], y.shape[1])
    if min(len(x), len(y)) < 2:
        raise MetricError(f"a Fréchet distance needs at least 2 samples of each set, not {len(x)} and {len(y)}")
    if min(len(x), len(y)) >= x.shape[1]:
        return frechet_distance(Moments.of(x), Moments.of(y))
    scaled_x, scaled_y = _scaled(x), _scaled(y)
    trace = scaled_x.square().sum() + scaled_y.square().sum()
    roots = torch.linalg.svdvals(scaled_x @ scaled_y.T).sum()
    return _assemble(x.mean(dim=0) - y.mean(dim=0), trace, roots)


def _same_width(one: int, other: int) -> None:
    if one != other:
        raise MetricError(f"features of {one} and of {other} dimensions do not compare; use one extractor for both")


def _assemble(gap: Tensor, trace: Tensor, roots: Tensor) -> float:
    return max(0.0, (gap.square().sum() + trace - 2 * roots).item())


def _scaled(features: Tensor) -> Tensor:
    return (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5


def _root(covariance: Tensor) -> Tensor:
    """R (rank, d) with RᵀR = covariance.

    Directions whose variance is rounding alone are left out, as the root would magnify it. Without any, Cholesky's
    factor is such an R, much faster than an eigendecomposition.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    smallest = len(covariance) * torch.finfo(covariance.dtype).eps * covariance.diagonal().max()
    if not failed and factor.diagonal().min() ** 2 > smallest:
        return factor.T
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return values[kept].sqrt()[:, None] * vectors.T[kept]


def _root_sum(symmetric: Tensor) -> Tensor:
    """Sum of the square roots of the eigenvalues, negative ones taken as 0."""
    if not len(symmetric):
        return symmetric.new_zeros(())
    return torch.linalg.eigvalsh((symmetric + symmetric.T) / 2).clamp_min(0).sqrt().sum()


# --- One pass over a set of images --------------------------------------------------------------


@dataclass(frozen=True)
class FeatureSet:
    """What comparing needs to know of a set of images.

    Attributes:
        extractor: its name.
        checksum: of its weights.
        moments: of the features of all images.
        features: (kept, d) float32 on the CPU, those of up to `keep` images.
        size: height and width of the images.
        frequencies, power: radial power spectrum, mean over all images (see `spectrum.radial_power`).
    """

    extractor: str
    checksum: str
    moments: Moments = field(repr=False)
    features: Tensor = field(repr=False)
    size: tuple[int, int]
    frequencies: Tensor = field(repr=False)
    power: Tensor = field(repr=False)

    @property
    def count(self) -> int:
        """Images seen."""
        return self.moments.count


def describe(
    images: Tensor | Iterable[Tensor], extractor: Extractor, *, keep: int = 10_000, seed: int = 0
) -> FeatureSet:
    """One pass over images: uint8 pixels (n, 3, h, w), or chunks of such, of which one at a time is held.

    Of more than `keep` images the features of a random subset (`seed`), the same for any chunks, are kept.
    """
    moments, kept, keys = Moments(), torch.zeros(0, extractor.dimensions), np.zeros(0)
    random = np.random.default_rng(seed)
    size = frequencies = total = None
    for chunk in _chunks(images):
        features = extractor(chunk)
        moments.add(features)
        keys = np.append(keys, random.random(len(chunk)))
        kept = torch.cat([kept, features.float().cpu()])
        if len(kept) > keep:
            chosen = np.sort(np.argpartition(keys, keep)[:keep])
            kept, keys = kept[chosen], keys[chosen]
        frequencies, power = radial_power(chunk)
        if size not in (None, tuple(chunk.shape[2:])):
            raise MetricError("the images have different sizes; bring all chunks to the same")
        size = tuple(chunk.shape[2:])
        total = power * len(chunk) if total is None else total + power * len(chunk)
    if total is None:
        raise MetricError("there are no images to describe; the iterable of chunks is empty")
    return FeatureSet(extractor.name, extractor.checksum, moments, kept, size, frequencies, total / moments.count)


def _chunks(images: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    for chunk in [images] if isinstance(images, Tensor) else images:
        check_pixels(chunk)
        yield from chunk.split(CHUNK)


def fid(fake: FeatureSet, real: FeatureSet) -> float:
    """Fréchet distance of all images of both sets (Heusel et al. 2017)."""
    _check_pair(fake, real, 2)
    whole = len(fake.features) == fake.count and len(real.features) == real.count
    if whole and min(fake.count, real.count) < fake.features.shape[1]:
        return frechet_distance_of_samples(fake.features, real.features)
    return frechet_distance(fake.moments, real.moments)


def compare(fake: FeatureSet, real: FeatureSet, *, seed: int) -> dict[str, float | int | str]:
    """All measures of two sets of at least 100 images.

    Returns fid, n_fake and n_real of all images, the extractor's name, and of the kept ones kid with its 95 % interval
    (kid_low, kid_high), fid_infinity, and precision, recall, density and coverage, equally many of both sets.
    """
    _check_pair(fake, real, MINIMUM)
    x, y = fake.features, real.features
    distance, size = kid(x, y, seed=seed), min(len(x), len(y))
    return {
        "fid": fid(fake, real), "kid": distance.mean, "kid_low": distance.low, "kid_high": distance.high,
        "fid_infinity": fid_infinity(x, real.moments, seed=seed),
        **neighbourhoods(_some(x, size, seed), _some(y, size, seed)),
        "n_fake": fake.count, "n_real": real.count, "extractor": fake.extractor,
    }  # fmt: skip


def _check_pair(fake: FeatureSet, real: FeatureSet, needed: int) -> None:
    if (fake.extractor, fake.checksum) != (real.extractor, real.checksum):
        raise MetricError(
            f"features of different extractors do not compare: {fake.extractor!r} ({fake.checksum[:8]}) and "
            f"{real.extractor!r} ({real.checksum[:8]}); describe both sets with the same one"
        )
    if fake.size != real.size:
        (h, w), (height, width) = fake.size, real.size
        raise MetricError(
            f"generated images of {w} x {h} pixels do not compare with real ones of {width} x {height}: a resized set "
            "lacks or has too much of the finest detail; bring both to one size by the same code"
        )
    for what, given in (("generated", fake), ("real", real)):
        if (count := min(given.count, len(given.features))) < needed:
            raise MetricError(f"the comparison needs at least {needed} {what} images, not {count}")


def _some(features: Tensor, size: int, seed: int) -> Tensor:
    """A random choice of `size` features; all of them as they are if there are no more."""
    if len(features) == size:
        return features
    return features[np.sort(np.random.default_rng(seed).choice(len(features), size, replace=False))]


# --- FID∞ ---------------------------------------------------------------------------------------


def fid_infinity(fake: Tensor, real: Moments, *, seed: int, sizes: int = FID_SIZES) -> float:
    """FID for infinitely many fakes (Chong & Forsyth 2020): the fit a + b/N over subsets of N, at 1/N = 0.

    fake: features (n, d). `sizes` random subsets are drawn, their sizes evenly spaced from n/10, or from
    min(2d, n/2) if larger (below, FID is not linear in 1/N), to n. May be slightly negative. Raises a MetricError
    below 100 fakes.
    """
    count = len(check_features(fake))
    if count < MINIMUM:
        raise MetricError(f"FID∞ needs at least {MINIMUM} generated images, not {count}")
    low = max(count // 10, min(2 * fake.shape[1], count // 2))
    # Projected once: the covariance of the projected features is R S Rᵀ, all that a subset needs.
    root = _root(real.covariance)
    trace = real.covariance.trace()
    features = fake.double()
    projected = features @ root.T
    random = np.random.default_rng(seed)
    counts = np.linspace(low, count, sizes).round().astype(int)
    values = []
    for size in counts:
        chosen = torch.from_numpy(random.choice(count, size, replace=False))
        part, scaled = features[chosen], _scaled(projected[chosen])
        gram = scaled @ scaled.T if size < scaled.shape[1] else scaled.T @ scaled
        gap = part.mean(dim=0) - real.mean
        total = part.var(dim=0).sum() + trace
        values.append((gap.square().sum() + total - 2 * _root_sum(gram)).item())
    return float(np.polynomial.Polynomial.fit(1 / counts, values, 1)(0.0))


# --- KID ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kid:
    """mean and sd over subsets; low and high: 95 % interval of the mean. Near 0, all may be negative."""

    mean: float
    sd: float
    low: float
    high: float


def kid(fake: Tensor, real: Tensor, *, seed: int, subsets: int = 100, size: int | None = None) -> Kid:
    """Kernel distance: unbiased squared MMD with the kernel (x·y/d + 1)³ (Bińkowski et al. 2018).

    fake, real: features (n, d), (m, d). Mean over `subsets` random subsets of `size` of each set, by default
    min(1000, half of the smaller set); torch-fidelity draws the same. The interval is that of all images, by
    subsampling without replacement (Politis & Romano 1994); near 0, where the variance falls faster, it is too wide.
    """
    count = min(len(check_features(fake)), len(check_features(real)))
    _same_width(fake.shape[1], real.shape[1])
    size = min(1000, count // 2) if size is None else size
    if not 2 <= size < count:
        raise MetricError(f"KID on subsets of {size} needs more than {max(size, 3)} images of each set, not {count}")
    random = np.random.RandomState(seed)
    in_fake, in_real = np.zeros((subsets, len(fake))), np.zeros((subsets, len(real)))
    for row_fake, row_real in zip(in_fake, in_real, strict=True):
        row_fake[random.choice(len(fake), size, replace=False)] = 1
        row_real[random.choice(len(real), size, replace=False)] = 1
    in_fake, in_real = torch.from_numpy(in_fake), torch.from_numpy(in_real)
    within = _kernel_sums(fake, fake, in_fake, in_fake) + _kernel_sums(real, real, in_real, in_real)
    across = _kernel_sums(fake, real, in_fake, in_real)
    values = within / (size * (size - 1)) - 2 * across / size**2
    mean, sd = values.mean().item(), values.std(correction=0).item()
    reach = 1.96 * sd * (size / (count - size)) ** 0.5
    return Kid(mean, sd, mean - reach, mean + reach)


def _kernel_sums(x: Tensor, y: Tensor, in_x: Tensor, in_y: Tensor) -> Tensor:
    """Sum of the kernel over all pairs of each subset, (subsets,); without those of an image and itself if x is y.

    Ones in `in_x` and `in_y`, (subsets, n), mark the members.
    """
    sums = torch.zeros(len(in_x), dtype=torch.float64)
    for rows in torch.arange(len(x)).split(TILE):
        for columns in torch.arange(len(y)).split(TILE):
            kernel = (x[rows].double() @ y[columns].double().T).div_(x.shape[1]).add_(1).pow_(3)
            if x is y and rows[0] == columns[0]:
                kernel.fill_diagonal_(0)
            sums += ((in_x[:, rows] @ kernel) * in_y[:, columns]).sum(dim=1)
    return sums


# --- Precision, recall, density, coverage -------------------------------------------------------


def neighbourhoods(fake: Tensor, real: Tensor, *, k_manifold: int = 3, k_density: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage from balls around each image, up to its k-th neighbour.

    precision: share of fakes in the ball of any real image; recall: of real images in that of any fake (Kynkäänniemi et
    al. 2019, k = 3). density: mean number of real balls around a fake, over k, may exceed 1; coverage: share of real
    balls that hold a fake (Naeem et al. 2020, k = 5).

    fake, real: features (n, d), (m, d); the measures depend on n and m. A point on a ball's surface is inside (Naeem's
    code has <, not ≤). Raises a MetricError where a set has no k-th neighbour.
    """
    needed = max(k_manifold, k_density) + 1
    if min(len(check_features(fake)), len(check_features(real))) < needed:
        raise MetricError(f"neighbourhoods need at least {needed} images of each set, not {len(fake)} and {len(real)}")
    centre = real.double().mean(dim=0)  # distances are differences of squares, so the smaller these the better
    fake, real = fake.double() - centre, real.double() - centre
    fake_radius = _radii(fake, (k_manifold,))[0]
    real_radius, density_radius = _radii(real, (k_manifold, k_density))
    nearest = torch.full((len(real),), torch.inf, dtype=torch.float64)
    precise, recalled = torch.zeros(len(fake), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    balls = 0
    for rows in torch.arange(len(fake)).split(TILE):
        for columns in torch.arange(len(real)).split(TILE):
            squares = _squares(fake[rows], real[columns])
            precise[rows] |= (squares <= real_radius[columns]).any(dim=1)
            recalled[columns] |= (squares <= fake_radius[rows, None]).any(dim=0)
            balls += (squares <= density_radius[columns]).sum().item()
            nearest[columns] = torch.minimum(nearest[columns], squares.amin(dim=0))
    return {
        "precision": precise.double().mean().item(),
        "recall": recalled.double().mean().item(),
        "density": balls / (k_density * len(fake)),
        "coverage": (nearest <= density_radius).double().mean().item(),
    }


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (n, m) of float64 features; 0 where rounding could not tell them from it."""
    scale = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squares = torch.addmm(scale, x, y.T, alpha=-2)
    return squares.where(squares > 1e-12 * scale, 0)


def _radii(features: Tensor, neighbours: tuple[int, ...]) -> list[Tensor]:
    """Squared distance of each point to its k-th neighbour, itself not counted, (n,) for each k."""
    count = max(neighbours) + 1  # the nearest is the point itself
    radii = []
    for rows in features.split(TILE):
        best = features.new_zeros(len(rows), 0)
        for columns in features.split(TILE):
            tile = _squares(rows, columns)
            best = torch.cat([best, tile.topk(min(count, tile.shape[1]), largest=False).values], dim=1)
            best = best.topk(min(count, best.shape[1]), largest=False).values
        radii.append(best)
    nearest = torch.cat(radii).sort(dim=1).values
    return [nearest[:, k] for k in neighbours]
