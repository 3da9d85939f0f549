"""The path from a source to the recording: the room, a television's loudspeaker, the microphone."""

from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from lib.emergency.synthesis.generators import RATE, Draw


@dataclass(frozen=True)
class Room:
    """A room. rt60: reverberation time in seconds, 0 outdoors. size, microphone: dimensions and position in metres."""

    rt60: float
    size: np.ndarray
    microphone: np.ndarray


def draw_room(draw: Draw) -> Room:
    size = np.array([draw.between(2.0, 7.0), draw.between(1.8, 5.0), draw.between(2.2, 3.2)])
    rt60 = 0.0 if draw.chance(0.15) else draw.around(0.2, 0.9)
    return Room(rt60, size, size * draw.between(0.1, 0.9, 3))


def heard(draw: Draw, dry: np.ndarray, room: Room) -> tuple[np.ndarray, int]:
    """Return (wet, delay): `dry`, played at a random place, as received by the microphone, and its delay in samples.

    The response is the direct sound, the six first-order reflections of a box (image sources) and a noise tail that
    decays by 60 dB in `rt60`; outdoors, it is the direct sound and the reflection from the ground.
    """
    source = room.size * draw.between(0.1, 0.9, 3)
    images = np.concatenate([[source], np.repeat(source[None], 6, 0)])
    for axis in range(3):
        images[1 + 2 * axis, axis] *= -1
        images[2 + 2 * axis, axis] = 2 * room.size[axis] - images[2 + 2 * axis, axis]
    if not room.rt60:
        images = images[[0, 5]]  # z = 0 is the ground
    distance = np.maximum(np.linalg.norm(images - room.microphone, axis=1), 0.3)
    delays = np.rint(distance / 343 * RATE).astype(np.int64)
    keep = draw.between(0.3, 0.85)  # share of the amplitude that a wall reflects
    response = np.zeros(max(int(room.rt60 * RATE), int(delays.max()) + 1))
    np.add.at(response, delays, distance[0] / distance * np.where(np.arange(len(images)) == 0, 1, keep))
    ratio = draw.between(-3, 12)
    if room.rt60:
        start = int(delays[0]) + 30
        m = len(response) - start
        tail = draw.noise(m) * np.exp(-6.9 * np.arange(m) / (room.rt60 * RATE)) * np.minimum(1, np.arange(m) / 200)
        tail = signal.lfilter([0.5, 0.4], [1], tail)  # air and walls absorb high frequencies
        response[start:] += tail * np.sqrt(10 ** (-ratio / 10) / (np.sum(tail**2) + 1e-20))
    size = fft.next_fast_len(len(dry) + len(response), real=True)
    wet = fft.irfft(fft.rfft(dry, size) * fft.rfft(response, size), size)[: len(dry) + len(response) - 1]
    wet[: delays[0]] = 0  # removes rounding errors of the FFT
    return wet, int(delays[0])


def television(wave: np.ndarray) -> np.ndarray:
    return signal.sosfilt(signal.butter(2, (300, 3400), "bandpass", fs=RATE, output="sos"), wave)


def microphone(draw: Draw, mixture: np.ndarray, quiet: bool) -> np.ndarray:
    """Return (n,) int16 with microphone band, resonance, gain and noise; in a few clips, clipping or mu-law coding."""
    low, high = draw.around(30, 250), draw.around(3500, 7800)
    wave = signal.sosfilt(signal.butter(1, low, "highpass", fs=RATE, output="sos"), mixture / 32768)
    wave = signal.sosfilt(signal.butter(3, high, fs=RATE, output="sos"), wave)
    numerator, denominator = signal.iirpeak(draw.around(400, 3400), draw.between(0.7, 3), fs=RATE)
    wave = wave + (10 ** (draw.between(-5, 6) / 20) - 1) * signal.lfilter(numerator, denominator, wave)
    peak = np.abs(wave).max() + 1e-12
    level = 10 ** (draw.between(-30, -0.5) / 20)
    drive = draw.between(3, 15) if draw.chance(0.08) and not quiet else 0.0
    gain = 10 ** (draw.between(-6, 0) / 20) if quiet else (0.999 if drive else level) * 10 ** (drive / 20) / peak
    wave = wave * gain + 10 ** (draw.between(-85, -60) / 20) * draw.noise(len(wave))
    wave = np.clip(wave, -0.999, 0.999)
    if draw.chance(0.1):
        code = np.rint(np.sign(wave) * np.log1p(255 * np.abs(wave)) / np.log(256) * 127) / 127
        wave = np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255
        wave = np.clip(wave, -0.999, 0.999)
    return np.rint(wave * 32767).astype(np.int16)
