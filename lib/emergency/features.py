"""Whisper's log-mel spectrogram (Radford et al. 2023, Robust Speech Recognition) for clips of any length.

    features = log_mel(samples)   # (B, N) at 16 kHz -> (B, 80, N // 160), about -1.5 to 1.5

The values equal those of transformers' WhisperFeatureExtractor. Two properties may surprise: everything more than
8 decades below the loudest cell of a clip is clamped, so one click changes the quiet frames of the whole clip;
and the signal is mirrored at its ends, so the last frames change if anything is appended, even silence.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid

RATE = 16_000  # Hz
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FRAMES_PER_SECOND = RATE // HOP
SMALLEST = 1e-10  # smallest power before the logarithm
DECADES = 8.0  # dynamic range below the loudest cell of a clip
PEAK = 0.7  # full scale 1: peak to which clips are scaled, since the distance to the microphone is not informative
SILENT = 10 ** (-70 / 20)  # full scale 1: a clip with a lower peak is silence
SILENCE = (-10.0 + 4.0) / 4.0  # value of every cell of digital silence


@dataclass(frozen=True)
class Mels:
    """Spectrograms of labelled clips, the input of the CNN.

    mel: (N, 1, mels, frames) float16. labels: (N,) int64, an index into `classes`. folds: (N,) int64, clips that
    belong together share one. name: that of the sounds. checksum: of the sounds and the code of the features.
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
        """Return the clips at a boolean mask; `name` distinguishes this part from others of the same sounds."""
        return replace(self, mel=self.mel[chosen], labels=self.labels[chosen], folds=self.folds[chosen],
                       checksum=f"{self.checksum}/{name}")  # fmt: skip


def log_mel(samples: Tensor, mels: int = 80) -> Tensor:
    """Return log-mel spectrograms of clips: (B, N) float32 at 16 kHz -> (B, mels, N // 160), 100 frames per second.

    Differentiable, computed on the samples' device and unaffected by autocast. Each clip is clamped separately, so
    its features do not depend on its batch. N must exceed half a `WINDOW`.
    """
    window, filters = _constants(mels, samples.device)
    at_once = 1 if samples.device.type == "cpu" else len(samples)  # one clip's spectrum fits into a CPU's cache
    with torch.autocast(samples.device.type, enabled=False):  # in float16, quiet cells would lose precision or vanish
        return torch.cat([_log_mel(part, window, filters) for part in samples.split(at_once)])


def _log_mel(samples: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    # (B, 201, frames + 1); the last frame is centred beyond the end, and Whisper omits it
    spectrum = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True)[..., :-1]
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    levels = (filters @ power).clamp_min(SMALLEST).log10()  # (B, mels, frames), decades
    floor = levels.amax(dim=(1, 2), keepdim=True) - DECADES
    return (torch.maximum(levels, floor) + 4.0) / 4.0


def scaled(samples: Tensor) -> Tensor:
    """Return clips (N, n), int16 or float32 in -1 to 1, as float32 scaled to peak at `PEAK`; silence is unchanged."""
    if not samples.is_floating_point():
        samples = samples.float() / 32768
    loudest = samples.abs().amax(1, keepdim=True)
    return torch.where(loudest < SILENT, samples, samples * (PEAK / loudest.clamp_min(SILENT)))


def rolled(values: Tensor, by: Tensor) -> Tensor:
    """Roll each row of `values`, (N, …, n), to the right by its own number of places, (N, …, 1)."""
    places = torch.arange(values.shape[-1], device=values.device)
    return values.gather(-1, ((places - by) % values.shape[-1]).expand(values.shape))


def masked(mel: Tensor, time: float, frequency: float) -> Tensor:
    """Apply SpecAugment (Park et al. 2019): in each clip, set a random span of bands and one of frames, each up to its
    share of all, to 0, the middle of the features' range. mel: (B, 1, mels, frames)."""
    mel = mask_along_axis_iid(mel, ceil(frequency * mel.shape[2]), 0.0, 2)
    return mask_along_axis_iid(mel, ceil(time * mel.shape[3]), 0.0, 3)


@lru_cache(maxsize=16)
def _constants(mels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the window (400,) and the triangular filters on Slaney's mel scale, each of unit area (mels, 201)."""
    from transformers.audio_utils import mel_filter_bank  # here, as it is slow to import

    filters = mel_filter_bank(WINDOW // 2 + 1, mels, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    with torch.inference_mode(False):  # tensors created in inference mode cannot be used with gradients
        return torch.hann_window(WINDOW, device=device), torch.from_numpy(filters.T.copy()).float().to(device)
