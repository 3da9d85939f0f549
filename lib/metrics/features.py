"""From images to feature vectors: Inception-v3, the usual one, or a classifier trained here.

    extractor = load_extractor("auto", train, test)
    features = extractor(to_pixels(generated))  # (n, d) float32

Distances in features of different extractors do not compare: state the extractor's name.
"""

import contextlib
import hashlib
import http.client
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lib import paths
from lib.data import cache
from lib.data.augment import as_float, flip_and_shift
from lib.metrics import MetricError, check_pixels, check_range
from lib.sources import digest, source_hash
from lib.training import epoch_batches, predict

if TYPE_CHECKING:  # data enters a cache's key by its checksum, not by the code that loaded it
    from lib.data.images import Images

SMALLEST = 16  # pixels a side that the domain network takes
FEWEST = 16  # images to train it on


@dataclass(frozen=True)
class Extractor:
    """Features of images: pixels (n, 3, h, w) uint8 → (n, `dimensions`) float32 on the network's device.

    Attributes:
        name: for captions; says which weights these are.
        resize: what happens to the images' size.
        checksum: sha256 of the weights. Features compare only if it agrees.
        network: (n, 3, h, w) uint8 → (n, dimensions).
        chunk: images at once.
    """

    name: str
    dimensions: int
    resize: str
    checksum: str
    network: nn.Module = field(repr=False)
    chunk: int = 256

    @property
    def distance(self) -> str:
        """What the Fréchet distance in these features is called: FID in Inception's alone (Heusel et al. 2017)."""
        kind = self.name.split()[0]
        return "FID" if kind.lower().startswith("inception") else f"FD-{kind}"

    def __call__(self, pixels: Tensor) -> Tensor:
        check_pixels(pixels)
        device = next(self.network.parameters()).device
        return predict(self.network, (part.to(device) for part in pixels.split(self.chunk)))


def to_pixels(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8 0..255, same shape: the inverse of `as_float`, rounded to the nearest.

    Raises a MetricError on NaN and on values outside [-1.001, 1.001].
    """
    if not images.is_floating_point():
        raise MetricError(f"to_pixels reads floating point images in [-1, 1], not {images.dtype}")
    if not images.numel():
        raise MetricError(f"to_pixels needs at least one image, not the shape {tuple(images.shape)}")
    check_range(images, "to_pixels reads images")
    return images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def load_extractor(
    kind: Literal["auto", "inception", "domain"],
    train: "Images",
    test: "Images",
    *,
    device: torch.device | str = "auto",
    precision: str = "no",
) -> Extractor:
    """The extractor of that kind. "auto": inception if its weights are in the hub cache, else domain; no download."""
    if kind not in ("auto", "inception", "domain"):
        raise MetricError(f"there is no extractor {kind!r}; choose 'auto', 'inception' or 'domain'")
    if kind == "inception" or (kind == "auto" and inception_file().exists()):
        return inception(device)
    return domain(train, test, device=device, precision=precision)


def _device(device: torch.device | str) -> torch.device:
    # Not lib.training.start: a new Accelerator would change the precision of one that is in use.
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MetricError("device 'cuda' was asked for, but torch sees no GPU; use device='cpu' or 'auto'")
    return device


@contextlib.contextmanager
def _own_random_state(seed: int):
    """torch's random state, seeded, and afterwards as it was."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


# --- Inception-v3 -------------------------------------------------------------------------------


class _Pooled(nn.Module):
    """The one feature vector out of torch-fidelity's tuple."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)[0]


def inception_file() -> Path:
    """Where torch-fidelity's weights lie in the hub cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_inception_url()).name


def _inception_url() -> str:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3  # here: it imports for a second

    return URL_INCEPTION_V3


def inception(device: torch.device | str = "auto") -> Extractor:
    """Inception-v3 of the original FID (Heusel et al. 2017) in torch-fidelity's conversion: 2,048 features.

    Images are resized to 299 px on TensorFlow 1's grid. Weights missing from the hub cache are downloaded; unofficial
    ones work but show in the name.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    device, url, file = _device(device), _inception_url(), inception_file()
    prefix = file.stem.rsplit("-", 1)[1]  # of the sha256, as torch.hub names its files
    place = f"Put the file from {url} at {file}"
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=prefix)
        except (OSError, http.client.HTTPException, RuntimeError) as error:  # RuntimeError: not the hash it should have
            raise MetricError(
                f"the Inception-v3 weights could not be downloaded ({error}). {place}, or use the extractor 'domain'."
            ) from error
    try:
        # Read first without unpickling objects, as the class itself would do that.
        torch.load(file, map_location="cpu", weights_only=True)
        with _own_random_state(0):  # the class draws weights before it loads them
            network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(file))
    except Exception as error:  # every kind of damage raises something else
        raise MetricError(
            f"the Inception-v3 weights in {file} are damaged ({type(error).__name__}). {place}, whole, "
            "or delete it to have it downloaded again."
        ) from error
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    name = "inception-2015-12-05"
    if not checksum.startswith(prefix):
        name = f"inception with unofficial weights {checksum[:8]}"
    return Extractor(name, 2048, "to 299 px (TensorFlow 1 bilinear)", checksum, _Pooled(network).to(device), chunk=64)


# --- A classifier of the data set itself --------------------------------------------------------


def _convolution(before: int, after: int) -> nn.Sequential:
    layer = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


@dataclass(frozen=True)
class _Recipe:
    """How a domain extractor is trained: fixed, so that it is a function of the data alone."""

    epochs: int
    batch_size: int
    precision: str
    learning_rate: float = 4e-3  # peak of a one-cycle schedule, AdamW
    weight_decay: float = 0.05
    seed: int = 20150612


class _Domain(nn.Module):
    """A small CNN. Pixels (n, 3, h, w) uint8 → (n, 128) features: means over the last map, 2 to 7 px wide."""

    def __init__(self, size: int, classes: int):
        super().__init__()
        layers = [_convolution(3, 16), nn.MaxPool2d(2), _convolution(16, 32), nn.MaxPool2d(2)]
        layers += [_convolution(32, 64), _convolution(64, 64), nn.MaxPool2d(2), _convolution(64, 128)]
        for _ in range(size.bit_length() - 6):  # doublings beyond 32 px
            layers += [nn.MaxPool2d(2), _convolution(128, 128)]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(128, classes)

    @property
    def dimensions(self) -> int:
        return self.classifier.in_features

    def forward(self, pixels: Tensor) -> Tensor:
        # Averaged in float32, as features are compared in more digits than bfloat16 has.
        return self.layers(as_float(pixels).contiguous(memory_format=torch.channels_last)).float().mean(dim=(2, 3))

    def logits(self, pixels: Tensor) -> Tensor:
        return self.classifier(self(pixels))


def _recipe(count: int, epochs: int | None, precision: str) -> _Recipe:
    """6 passes over a large set, more and smaller batches over a small one: 20 and 32 for 2,000 images."""
    if epochs is None:
        epochs = min(60, 6 + 28_000 // count)
    return _Recipe(epochs, min(128, max(32, count // 64), count), "no" if precision == "no" else "bf16")


def domain(
    train: "Images",
    test: "Images",
    *,
    device: torch.device | str = "auto",
    precision: str = "no",
    folder: Path | None = None,
    epochs: int | None = None,
) -> Extractor:
    """The last layer but one, 128 features, of a classifier of `train`; with fewer than two classes, of a classifier of
    rotations by quarter turns (Gidaris et al. 2018). Its accuracy on `test` is part of its name.

    Trained once by a fixed recipe and seed, and kept in `folder` (default: build/extractors).

    Args:
        precision: of the training, "no" or "bf16" ("fp16" means "bf16"). Features are computed in float32.
        epochs: default by the size of `train`: 6 for 50,000 images, 20 for 2,000.
    """
    device = _device(device)
    rotations = len(train.classes) < 2
    _check_domain(train, test, rotations, precision)
    recipe = _recipe(len(train), epochs, precision)
    classes = 4 if rotations else len(train.classes)
    parts = {"train": train.checksum, "test": test.checksum, "code": source_hash(__name__), "recipe": repr(recipe)}
    parts["task"] = f"{classes} rotations" if rotations else f"{classes} classes"
    folder = folder or paths.build() / "extractors"
    path = folder / f"{digest(parts)[:32]}.safetensors"
    with _own_random_state(recipe.seed):
        network = _Domain(min(train.pixels.shape[-2:]), classes)
        with _lock(path):
            found = _read(path, network)
            if found is None:
                network.to(device)
                _train(network, train, rotations, recipe)
                found = _accuracy(network, test, rotations), _checksum(network.state_dict())
                _keep(path, network, *found)
    accuracy, checksum = found
    data = train.name.replace(" (", ", ").replace(")", "")
    task = "rotations" if rotations else f"{classes} classes"
    name = f"domain ({data}, {task}, test accuracy {100 * accuracy:.1f} %)"
    network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    return Extractor(name, network.dimensions, "none", checksum, network)


def _check_domain(train: "Images", test: "Images", rotations: bool, precision: str) -> None:
    for images in (train, test):
        check_pixels(images.pixels)
    height, width = train.pixels.shape[-2:]
    if precision not in ("no", "bf16", "fp16"):
        raise MetricError(f"precision {precision!r} is unknown; choose 'no', 'bf16' or 'fp16'")
    if min(height, width) < SMALLEST:
        raise MetricError(f"the domain extractor needs images of at least {SMALLEST} px, not {height} x {width}")
    if test.pixels.shape[1:] != train.pixels.shape[1:]:
        raise MetricError(
            f"the training images have {height} x {width} px, the test images {test.pixels.shape[-2]} x "
            f"{test.pixels.shape[-1]}; load both with the same size"
        )
    if len(train) < FEWEST:
        raise MetricError(f"the domain extractor needs at least {FEWEST} training images, not {len(train)}")
    if rotations and height != width:
        raise MetricError(
            f"images without classes are classified by rotation, but {height} x {width} px are not square; "
            "load them with a size"
        )


def _train(network: _Domain, images: "Images", rotations: bool, recipe: _Recipe) -> None:
    # A plain loop: `lib.training.fit` is made for resuming, and its Accelerator is shared with what the caller trains.
    device = next(network.parameters()).device
    images = images.to(device)
    steps = recipe.epochs * (len(images) // recipe.batch_size)
    shift = max(1, min(images.pixels.shape[-2:]) // 10)
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    # A fifth of the steps up, the others down to zero.
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.2 * steps + 1), (steps - step) / (0.8 * steps))
    )
    half = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    with torch.enable_grad():
        for epoch in range(1, recipe.epochs + 1):
            for index in epoch_batches(len(images), recipe.batch_size, seed=recipe.seed, epoch=epoch):
                index = index.to(device)
                pixels, labels = flip_and_shift(images.pixels[index], shift=shift), images.labels[index]
                if rotations:
                    pixels, labels = _rotated(pixels, torch.randint(4, (len(pixels),), device=device))
                optimizer.zero_grad(set_to_none=True)
                with half:
                    loss = F.cross_entropy(network.logits(pixels), labels)
                loss.backward()
                optimizer.step()
                rate.step()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise MetricError("the domain extractor's training diverged; train it in full precision (precision='no')")


def _rotated(pixels: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Each image rotated by its number of quarter turns; (pixels, turns), both grouped by it."""
    return torch.cat([pixels[turns == k].rot90(k, (2, 3)) for k in range(4)]), turns.sort().values


@torch.no_grad()
def _accuracy(network: _Domain, images: "Images", rotations: bool) -> float:
    """Share of right answers, over all four rotations of every image if it learnt those."""
    network.eval()
    device = next(network.parameters()).device
    right = answers = 0
    for pixels, labels in zip(images.pixels.split(500), images.labels.split(500), strict=True):
        pixels, labels = pixels.to(device), labels.to(device)
        if rotations:
            turns = torch.arange(4, device=device).repeat_interleave(len(pixels))
            pixels, labels = _rotated(pixels.repeat(4, 1, 1, 1), turns)
        right += (network.logits(pixels).argmax(dim=1) == labels).sum().item()
        answers += len(labels)
    return right / answers


# --- The cache of trained extractors ------------------------------------------------------------


@contextlib.contextmanager
def _lock(path: Path):
    """Held by the process that trains; a second one waits and then finds the file."""
    lock = FileLock(path.with_suffix(".lock"))
    with contextlib.suppress(OSError):  # a folder that cannot be written to: `_keep` says so
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _checksum(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of the weights."""
    total = hashlib.sha256()
    for name, value in sorted(state.items()):
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _read(path: Path, network: _Domain) -> tuple[float, str] | None:
    """Load the kept weights into `network`; (accuracy, checksum), or None where there are none or damaged ones."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            note = json.loads(file.metadata()["domain"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(state) != note["checksum"]:
            raise ValueError("checksum")
        network.load_state_dict(state)
        return note["accuracy"], note["checksum"]
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError):
        warnings.warn(f"The extractor kept in {path} is damaged: it is trained again.", stacklevel=3)
        return None


def _keep(path: Path, network: _Domain, accuracy: float, checksum: str) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    note = json.dumps({"accuracy": accuracy, "checksum": checksum})
    try:
        with cache.atomic(path) as temporary:
            temporary.write_bytes(save(state, {"domain": note}))
    except OSError as error:
        warnings.warn(f"The trained extractor could not be kept in {path} ({error}): it will be trained again next "
                      f"time. Free some space or set OUTPUT_ROOT to a folder that has it.", stacklevel=3)  # fmt: skip
