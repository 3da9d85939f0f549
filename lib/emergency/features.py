"""Whisper's log-mel spectrogram (Radford et al. 2023, Robust Speech Recognition) for clips of any length.

    features = log_mel(samples)   # (B, N) at 16 kHz -> (B, 80, N // 160), about -1.5 to 1.5

The same numbers as transformers' WhisperFeatureExtractor. Two things in them surprise. Everything more than
8 decades below the loudest cell of a clip is clamped, so one click changes the quiet frames of the whole clip.
And the signal is mirrored at its ends: the last frames change when something follows, even silence.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

RATE = 16_000  # Hz
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FRAMES_PER_SECOND = RATE // HOP
SMALLEST = 1e-10  # power under the logarithm
DECADES = 8.0  # kept below the loudest cell of a clip
PEAK = 0.7  # full scale 1: what clips are scaled to, as how far away a microphone stands tells nothing
SILENT = 10 ** (-70 / 20)  # full scale 1: a clip whose loudest sample is below is silence
SILENCE = (-10.0 + 4.0) / 4.0  # every cell of digital silence


@dataclass(frozen=True)
class Mels:
    """Spectrograms of labelled clips, as the CNN takes them.

    mel: (N, 1, mels, frames) float16. labels: (N,) int64, an index into `classes`. folds: (N,) int64, clips that
    belong together share one. name: of the sounds behind them. checksum: of them and of the code of the features.
    """

    mel: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    folds: Tensor
    name: str
    checksum: str

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, chosen: Tensor, name: str) -> "Mels":
        """The clips at a boolean mask; `name` tells this part from others of the same sounds."""
        return replace(self, mel=self.mel[chosen], labels=self.labels[chosen], folds=self.folds[chosen],
                       checksum=f"{self.checksum}/{name}")  # fmt: skip


def log_mel(samples: Tensor, mels: int = 80) -> Tensor:
    """Log-mel spectrograms of clips: (B, N) float32 at 16 kHz -> (B, mels, N // 160), 100 frames a second.

    On the samples' device and differentiable, whatever autocast says. Each clip is clamped on its own, so its
    features do not depend on its batch.

    Raises:
        TypeError: samples are not float32.
        ValueError: they are not (B, N), hold no clip or less than one frame, or mels is not positive.
    """
    if samples.dtype != torch.float32:
        raise TypeError(f"samples are {samples.dtype}, expected float32 in -1 to 1")
    if samples.ndim != 2 or not len(samples):
        raise ValueError(f"samples are {tuple(samples.shape)}, expected (clips, samples) with a clip at least")
    if samples.shape[1] < HOP:
        raise ValueError(f"clips have {samples.shape[1]} samples, and one frame takes {HOP}")
    window, filters = _constants(mels, samples.device)
    at_once = 1 if samples.device.type == "cpu" else len(samples)  # one clip's spectrum fits into a CPU's cache
    with torch.autocast(samples.device.type, enabled=False):  # half floats do not hold 8 decades
        return torch.cat([_log_mel(part, window, filters) for part in _mirrored(samples).split(at_once)])


def _log_mel(mirrored: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    frames = mirrored.unfold(1, WINDOW, HOP)[:, :-1]  # (B, frames, 400)
    spectrum = torch.fft.rfft(frames * window)
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)  # (B, frames, 201)
    levels = (filters @ power.mT).clamp_min(SMALLEST).log10()  # (B, mels, frames), decades
    floor = levels.amax(dim=(1, 2), keepdim=True) - DECADES
    return (torch.maximum(levels, floor) + 4.0) / 4.0


def scaled(samples: Tensor) -> Tensor:
    """Clips (N, n), int16 or float32 in -1 to 1 -> float32 with their loudest sample at `PEAK`; silence stays."""
    if not samples.is_floating_point():
        samples = samples.float() / 32768
    loudest = samples.abs().amax(1, keepdim=True)
    return torch.where(loudest < SILENT, samples, samples * (PEAK / loudest.clamp_min(SILENT)))


def mel_filters(mels: int = 80) -> Tensor:
    """Triangles on Slaney's mel scale, each of unit area: (201, mels) float32, frequencies 0 to 8 kHz in rows.

    Slaney 1998, Auditory Toolbox: linear up to 1 kHz (15 mel), then 27 steps to a factor of 6.4.
    """
    if mels < 1:
        raise ValueError(f"{mels} mel bands, expected 1 or more")
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)  # (201,) Hz
    highest = 15 + 27 * torch.tensor(RATE / 2 / 1000, dtype=torch.float64).log() / _log(6.4)
    mel = torch.linspace(0, 1, mels + 2, dtype=torch.float64) * highest  # (mels + 2,)
    edges = torch.where(mel < 15, mel * 200 / 3, 1000 * ((mel - 15) * _log(6.4) / 27).exp())  # Hz
    widths = edges.diff()
    slopes = edges - frequencies[:, None]  # (201, mels + 2)
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    triangles = torch.minimum(rising, falling).clamp_min(0)  # (201, mels)
    return (triangles * 2 / (edges[2:] - edges[:-2])).float()


def _log(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64).log()


@lru_cache(maxsize=16)
def _constants(mels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # tensors made in inference mode could never be used with gradients
        return torch.hann_window(WINDOW, device=device), mel_filters(mels).T.contiguous().to(device)


def _mirrored(samples: Tensor) -> Tensor:
    """(B, N) -> (B, N + 400): mirrored at both ends, more than once if the clip is shorter than half a window."""
    length, half = samples.shape[1], WINDOW // 2
    if length > half:
        return torch.cat([samples[:, 1 : half + 1].flip(1), samples, samples[:, -half - 1 : -1].flip(1)], 1)
    period = 2 * (length - 1)
    places = torch.arange(-half, length + half, device=samples.device) % period
    return samples[:, torch.minimum(places, period - places)]
