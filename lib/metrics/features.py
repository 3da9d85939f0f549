"""Feature extractors for images: Inception-v3 (the standard one), VGG16, or a classifier trained on the data set.

    extractor = load_extractor("auto", train, test)
    features = extractor(to_pixels(generated))  # (n, d) float32

Distances in the features of different extractors are not comparable: state the extractor's name.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torchvision.ops import Conv2dNormActivation

from lib import paths
from lib.data.augment import as_float, flip_and_shift
from lib.metrics import MetricError, check_pixels, pick_device
from lib.metrics.imagenet import as_input, hub_file, load_trained
from lib.sources import digest, source_hash
from lib.training import epoch_batches, predict

if TYPE_CHECKING:  # data enters a cache's key by its checksum, not by the code that loaded it
    from lib.data.images import Images

TOLERANCE = 1e-3  # beyond [-1, 1], for rounding in a tanh or a reconstructed pyramid
# The domain network's training is fixed, so that the network is a function of the data alone.
LEARNING_RATE, WEIGHT_DECAY, SEED = 4e-3, 0.05, 20150612  # AdamW; the rate is the peak of warm-up and linear decay


@dataclass(frozen=True)
class Extractor:
    """Feature extractor: pixels (n, 3, h, w) uint8 → (n, d) float32 on the network's device.

    Attributes:
        name: for captions; identifies the weights.
        checksum: sha256 of the weights. Features are comparable only if it is the same.
        network: (n, 3, h, w) uint8 → (n, d).
        chunk: images per forward pass.
    """

    name: str
    checksum: str
    network: nn.Module = field(repr=False)
    chunk: int = 256

    @property
    def distance(self) -> str:
        """Name of the Fréchet distance in these features: FID for the official Inception alone (Heusel et al. 2017)."""
        kind = self.name.split()[0]
        return "FID" if kind.lower().startswith("inception") else f"FD-{kind}"

    def __call__(self, pixels: Tensor) -> Tensor:
        check_pixels(pixels)
        device = next(self.network.parameters()).device
        return predict(self.network, (part.to(device) for part in pixels.split(self.chunk)))


def to_pixels(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to uint8 0..255 of the same shape: the inverse of `as_float`, rounded to nearest.

    Raises a MetricError on NaN and on values outside [-1.001, 1.001].
    """
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()
    if not (low >= -1 - TOLERANCE and high <= 1 + TOLERANCE):  # comparisons with NaN are False
        raise MetricError(f"to_pixels reads images in [-1, 1], these hold {low:.4g} to {high:.4g}; scale or clamp them")
    return images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def load_extractor(
    kind: Literal["auto", "inception", "vgg16", "domain"],
    train: "Images",
    test: "Images",
    *,
    device: str = "auto",
    precision: str = "no",
) -> Extractor:
    """Return the extractor `kind`. "auto": inception if its weights are in the hub cache, else domain; no download."""
    if kind not in ("auto", "inception", "vgg16", "domain"):
        raise MetricError(f"there is no extractor {kind!r}; choose 'auto', 'inception', 'vgg16' or 'domain'")
    if kind == "vgg16":
        return vgg16(device)
    if kind == "inception" or (kind == "auto" and hub_file(URL_INCEPTION_V3).exists()):
        return inception(device)
    return domain(train, test, device=device, precision=precision)


# --- Inception-v3 -------------------------------------------------------------------------------


class _Inception(FeatureExtractorInceptionV3):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels)[0]  # the only element of a tuple


def inception(device: str = "auto") -> Extractor:
    """Return the Inception-v3 of the original FID (Heusel et al. 2017) as converted by torch-fidelity: 2,048 features.

    Images are resized to 299 px on TensorFlow 1's grid. Weights missing from the hub cache are downloaded. Unofficial
    ones are accepted, but the extractor's name says so, and their distance is not called FID.
    """
    file = hub_file(URL_INCEPTION_V3)
    try:
        if file.exists():  # checked here, as the class would unpickle any object
            torch.load(file, map_location="cpu", weights_only=True)
        with torch.random.fork_rng():  # the class initialises its weights at random first
            network = _Inception("inception-v3-compat", ["2048"])
    except Exception as error:  # offline, or whatever a damaged file raises
        raise MetricError(
            f"the Inception-v3 weights could not be downloaded or read ({type(error).__name__}: {error}). Put the file "
            f"from {URL_INCEPTION_V3} at {file}, whole (delete a damaged one), or use the extractor 'domain'."
        ) from error
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    official = checksum.startswith(file.stem.rsplit("-", 1)[1])  # its name ends in the first digits of the sha256
    name = "inception-2015-12-05" if official else f"unofficial-inception-{checksum[:8]}"  # no FID, see `distance`
    return Extractor(name, checksum, network.to(pick_device(device)), chunk=64)


# --- VGG16 --------------------------------------------------------------------------------------


class _Vgg16(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = load_trained("VGG16")[:-1]  # without the last pooling

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(as_input(pixels).contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))


def vgg16(device: str = "auto") -> Extractor:
    """Return VGG16 trained on ImageNet (Simonyan & Zisserman 2015): 512 features, averaged over the last feature map.

    Images are not resized, as that would take several times as long: at 32 px the map has 2 x 2 positions, and the
    minimum is 16 px. Raises a DataError that says what to do if the weights are not in torch's hub cache.
    """
    network = _Vgg16().to(memory_format=torch.channels_last)
    checksum = hashlib.sha256(b"".join(value.contiguous().numpy() for value in network.state_dict().values()))
    name = "VGG16 (ImageNet, mean of the last convolution, images as they are)"
    return Extractor(name, checksum.hexdigest(), network.eval().to(pick_device(device)))


# --- A classifier of the data set itself --------------------------------------------------------


class _Domain(nn.Module):
    """A small CNN: pixels (n, 3, h, w) uint8 → (n, 128), the mean of the last feature map, which is 2 to 7 px wide."""

    def __init__(self, size: int, classes: int):
        super().__init__()
        block = Conv2dNormActivation  # 3 x 3, batch norm, ReLU
        layers = [block(3, 16), nn.MaxPool2d(2), block(16, 32), nn.MaxPool2d(2)]
        layers += [block(32, 64), block(64, 64), nn.MaxPool2d(2), block(64, 128)]
        for _ in range(size.bit_length() - 6):  # doublings beyond 32 px
            layers += [nn.MaxPool2d(2), block(128, 128)]
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(128, classes)
        self.register_buffer("accuracy", torch.zeros((), dtype=torch.float64))  # of the classifier; saved with it

    def forward(self, pixels: Tensor) -> Tensor:
        # Averaged in float32, as features are compared with more precision than bfloat16 has.
        return self.layers(as_float(pixels).contiguous(memory_format=torch.channels_last)).float().mean(dim=(2, 3))

    def logits(self, pixels: Tensor) -> Tensor:
        return self.classifier(self(pixels))


def domain(
    train: "Images",
    test: "Images",
    *,
    device: str = "auto",
    precision: str = "no",
    folder: Path | None = None,
    epochs: int | None = None,
) -> Extractor:
    """Return the penultimate layer, 128 features, of a classifier trained on `train`; with fewer than two classes, it
    classifies rotations by quarter turns (Gidaris et al. 2018). Its accuracy on `test` is part of the name.

    It is trained once with a fixed recipe and seed, and saved in `folder` (default: build/extractors).

    Args:
        precision: of the training, "no" or "bf16". Features are computed in float32.
        epochs: default by the size of `train`: 6 for 50,000 images, 20 for 2,000.
    """
    rotations = len(train.classes) < 2
    if min(train.pixels.shape[-2:]) < 16:
        raise MetricError("the domain extractor needs images of at least 16 px, and these are smaller")
    classes, half = 4 if rotations else len(train.classes), precision != "no"
    epochs = epochs or min(60, 6 + 28_000 // len(train))
    task = "rotations" if rotations else f"{classes} classes"
    parts = {"train": train.checksum, "test": test.checksum, "task": task, "recipe": f"{epochs} {half}"}
    folder = folder or paths.build() / "extractors"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest(parts | {'code': source_hash(__name__)})[:32]}.safetensors"
    # A second process waits until the first has trained the network.
    with FileLock(path.with_suffix(".lock")), torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = _Domain(min(train.pixels.shape[-2:]), classes).to(pick_device(device))
        if path.exists():
            network.load_state_dict(load_file(path))
        else:
            _train(network, train, rotations, epochs, half)
            network.accuracy.fill_(_accuracy(network, test, rotations))
            with paths.atomic(path) as temporary:
                save_file({name: value.contiguous() for name, value in network.state_dict().items()}, temporary)
    data = train.name.replace(" (", ", ").replace(")", "")
    name = f"domain ({data}, {task}, test accuracy {100 * network.accuracy:.1f} %)"
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Extractor(name, hashlib.sha256(path.read_bytes()).hexdigest(), network)


def _train(network: _Domain, images: "Images", rotations: bool, epochs: int, half: bool) -> None:
    # Not `lib.training.fit`, which is for resuming and would share its Accelerator with the caller's training.
    device = next(network.parameters()).device
    images = images.to(device)
    # Smaller batches (and more epochs, see `domain`) for small data sets.
    batch_size = min(128, max(32, len(images) // 64), len(images))
    steps = epochs * (len(images) // batch_size)
    shift = max(1, min(images.pixels.shape[-2:]) // 10)
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    # Linear warm-up over a fifth of the steps, then linear decay to zero.
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.2 * steps + 1), (steps - step) / (0.8 * steps))
    )
    with torch.enable_grad():
        for epoch in range(1, epochs + 1):
            for index in epoch_batches(len(images), batch_size, seed=SEED, epoch=epoch, device=device):
                pixels, labels = flip_and_shift(images.pixels[index], shift=shift), images.labels[index]
                if rotations:
                    pixels, labels = _rotated(pixels, torch.randint(4, (len(pixels),), device=device))
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    loss = F.cross_entropy(network.logits(pixels), labels)
                loss.backward()
                optimizer.step()
                rate.step()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise MetricError("the domain extractor's training diverged; train it in full precision (precision='no')")


def _rotated(pixels: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each image by its number of quarter turns; return (pixels, turns), both sorted by turns."""
    return torch.cat([pixels[turns == k].rot90(k, (2, 3)) for k in range(4)]), turns.sort().values


@torch.no_grad()
def _accuracy(network: _Domain, images: "Images", rotations: bool) -> float:
    """Return the accuracy in [0, 1]; with `rotations`, over all four rotations of every image."""
    pixels, labels = images.pixels, images.labels
    if rotations:
        turns = torch.arange(4).repeat_interleave(len(pixels))
        pixels, labels = _rotated(pixels.repeat(4, 1, 1, 1), turns)
    device = next(network.parameters()).device
    features = predict(network, (part.to(device) for part in pixels.split(500)))
    return (network.classifier(features).argmax(dim=1).cpu() == labels).double().mean().item()
