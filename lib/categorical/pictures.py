"""Arrays for the figures that show images: pairs with their codes, clusters, maps, nearest neighbours."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.manifold import TSNE
from torch import Tensor

from lib.categorical.augment import Views
from lib.categorical.evaluation import Seen, encode
from lib.categorical.losses import agreement
from lib.categorical.training import Settings
from lib.data.images import Images
from lib.data.shapes import BACKGROUNDS, draw_shapes
from lib.metrics import clustering, codes
from lib.metrics.features import to_pixels


def pair_and_other(seen: Seen, test: Images, settings: Settings, *, seed: int) -> dict[str, np.ndarray]:
    """Return images and codes of x_i, another view x_i′ of it, and a dissimilar image x_j.

    x_i is the test image with the most confident code, x_j the one that agrees with x_i least; no labels are used.

    Returns:
        images (3, 3, S, S) uint8; soft (3, L, K); hard (3, L); agreement (3, 3), expected, between soft codes.
    """
    soft = seen.test.soft
    sure = soft.max(-1).values.mean(1)
    first = int(sure.argmax())
    other = int(agreement(soft[first : first + 1], soft)[0].argmin())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        views = Views(test.pixels.shape[-2:], settings.smallest_crop, settings.hue)
        view = views(test.pixels[first : first + 1])[0]
    images = torch.cat([test.pixels[first : first + 1], to_pixels(view.clamp(-1, 1)), test.pixels[other : other + 1]])
    found = encode(seen.trained, images)
    return {
        "images": images.numpy(),
        "soft": found.soft.numpy(),
        "hard": found.hard.numpy(),
        "agreement": agreement(found.soft, found.soft).numpy(),
    }


def cluster_sheet(
    found: Tensor, points: Tensor, images: Images, *, columns: int = 14, most: int = 12
) -> dict[str, np.ndarray]:
    """Return images of the largest clusters, evenly spaced in rank by distance from the cluster's mean.

    found: clusters (N,) of points (N, D) and images.

    Returns:
        images (clusters, columns, 3, S, S) uint8; sizes (clusters,), share of all images; purity (clusters,),
        share of the most frequent class; names (clusters,) of that class.
    """
    order = torch.bincount(found).argsort(descending=True, stable=True)[:most]
    sheets, sizes, purity, names = [], [], [], []
    for cluster in order.tolist():
        members = (found == cluster).nonzero()[:, 0]
        if not len(members):
            continue
        far = (points[members] - points[members].mean(0)).norm(dim=1).argsort(stable=True)
        places = torch.linspace(0, len(members) - 1, columns).round().long()
        sheets.append(images.pixels[members[far[places]]])
        counts = torch.bincount(images.labels[members], minlength=len(images.classes))
        sizes.append(len(members) / len(found))
        purity.append(counts.max().item() / len(members))
        names.append(images.classes[int(counts.argmax())])
    facts = {"sizes": sizes, "purity": purity, "names": names}
    return {"images": torch.stack(sheets).numpy()} | {name: np.array(values) for name, values in facts.items()}


def code_map(seen: Seen, found: Tensor, images: Images, *, seed: int, count: int = 600) -> dict[str, np.ndarray]:
    """Return a 2-D map of soft codes (t-SNE, van der Maaten & Hinton 2008) and the matrix of their agreements.

    Returns:
        map (n, 2); labels, clusters (n,); classes; matrix (n, n) of expected agreement, images sorted by cluster.
    """
    some = slice(min(count, len(found)))
    soft, clusters = seen.test.soft[some], found[some]
    side = min(30.0, (len(clusters) - 1) / 3)
    place = TSNE(2, perplexity=side, init="pca", random_state=seed).fit_transform(soft.flatten(1).numpy())
    order = clusters.argsort(stable=True)
    return {
        "map": place,
        "labels": images.labels[some].numpy(),
        "clusters": clusters.numpy(),
        "classes": np.array(images.classes),
        "matrix": agreement(soft[order], soft[order]).numpy().astype(np.float32),
    }


def retrieval(
    seen: Seen, train: Images, test: Images, asked: Sequence[int] | None = None, *, count: int = 9
) -> dict[str, np.ndarray]:
    """Return test images and the training images whose hard codes differ from theirs in the fewest positions.

    asked: indices of test images; by default six spread over the set.

    Returns:
        queries (q, 3, S, S), nearest (q, count, 3, S, S) uint8; agreement (q, count), share of equal positions;
        same (q, count), whether the classes are equal.
    """
    asked = torch.linspace(0, len(test) - 1, 6).long() if asked is None else torch.tensor(asked)
    index, share = clustering.nearest(seen.train.hard, seen.test.hard[asked], k=count)
    return {
        "queries": test.pixels[asked].numpy(),
        "nearest": train.pixels[index].numpy(),
        "agreement": share.numpy(),
        "same": (train.labels[index] == test.labels[asked][:, None]).numpy(),
    }


def factors(images: Images, dataset: str, *, seed: int) -> dict[str, Tensor]:
    """Return the known factors of every image, integers (N,): class, brightness, colour, and more for `shapes`.

    brightness: octile within the set; colour: whichever of red, yellow, green, cyan, blue and magenta is nearest to
    the mean colour. `shapes` uses the drawn colour instead, and adds other factors with which images were drawn.
    """
    mean = images.pixels.float().mean((2, 3)) / 255  # (N, 3)
    grey = mean.mean(1)
    hue = torch.atan2(3**0.5 * (mean[:, 1] - mean[:, 2]), 2 * mean[:, 0] - mean[:, 1] - mean[:, 2])
    found = {
        "class": images.labels,
        "brightness": _eighths(grey),
        "colour": (6 * hue / (2 * torch.pi)).round().long() % 6,
    }
    if dataset in ("shapes", "shapes-plain"):
        plain, size = dataset == "shapes-plain", images.pixels.shape[-1]
        drawn = draw_shapes(len(images), size=size, seed=seed, split=images.split, plain=plain)[2]
        found["colour"] = (torch.from_numpy(drawn["hue"]) / 60).round().long() % 6
        found["size"] = _eighths(torch.from_numpy(drawn["scale"]).float())
        if not plain:
            found["orientation"] = torch.from_numpy(drawn["orientation"]) // 45
            found["background"] = torch.from_numpy(drawn["background"]).clamp(max=len(BACKGROUNDS) - 1)
    return found


def _eighths(values: Tensor) -> Tensor:
    """Return the octile, 0 to 7, of each value (N,)."""
    return torch.bucketize(values, torch.quantile(values, torch.linspace(0, 1, 9)[1:-1]))


def meanings(seen: Seen, images: Images, dataset: str, *, seed: int) -> pd.DataFrame:
    """Return what each position encodes: position, factor, nmi (`codes.position_scores` on test images)."""
    return codes.position_scores(seen.test.hard, factors(images, dataset, seed=seed)).assign(seed=seed)
