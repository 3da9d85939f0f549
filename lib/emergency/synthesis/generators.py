"""Vocabulary of the procedural sounds: random numbers, and the pieces that events are put together from.

A generator turns random numbers and a length into sound: `generator(draw, n)` -> (n,) float64 at 16 kHz.
All random numbers are raw PCG64 words, a stream that NumPy never changes.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft, signal

RATE = 16_000
Family = Callable[["Draw", int], np.ndarray]


class Draw:
    """Random numbers of one clip. SeedSequence(`seed`, spawn_key=`key`) starts the stream."""

    def __init__(self, seed: int, key: Sequence[int]):
        self._source = np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=tuple(key)))

    def unit(self, n: int | None = None):
        """Uniform in 0 <= x < 1: a float, or (n,)."""
        words = self._source.random_raw(1 if n is None else n)
        values = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return float(values[0]) if n is None else values

    def between(self, low, high, n: int | None = None):
        return low + (high - low) * self.unit(n)

    def around(self, low, high, n: int | None = None):
        """Between `low` and `high`, uniform on a logarithmic scale: for frequencies, rates and times."""
        return low * (high / low) ** self.unit(n)

    def integer(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def choice(self, options: Sequence):
        return options[self.integer(0, len(options) - 1)]

    def noise(self, n: int) -> np.ndarray:
        """(n,) white, mean 0, standard deviation 1: the sum of four 16-bit numbers, nearly normal."""
        words = self._source.random_raw(n)
        half = np.uint64(0x0000FFFF0000FFFF)
        pairs = (words & half) + (words >> np.uint64(16) & half)
        total = (pairs & np.uint64(0xFFFFFFFF)) + (pairs >> np.uint64(32))
        return (total.astype(np.float64) - 131070) * (1 / 37837.2)


# --- Building blocks ----------------------------------------------------------------------------


def seconds(n: int) -> np.ndarray:
    return np.arange(n) / RATE


def band(draw: Draw, n: int, low: float, high: float, slope: float = 0.0) -> np.ndarray:
    """(n,) noise between `low` and `high` Hz with soft edges, power falling as f ** -slope; deviation 1."""
    size = fft.next_fast_len(n, real=True)
    spectrum = fft.rfft(draw.noise(size))
    hertz = np.maximum(fft.rfftfreq(size, 1 / RATE), 5)
    spectrum *= hertz ** (-slope / 2) / np.sqrt(1 + (low / hertz) ** 6) / np.sqrt(1 + (hertz / high) ** 6)
    wave = fft.irfft(spectrum, size)[:n]
    return wave / (wave.std() + 1e-12)


def slow(draw: Draw, n: int, hertz: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """(n,) random curve between `low` and `high` with about `hertz` new values a second."""
    knots = int(n / RATE * hertz) + 4
    where = (np.arange(n) / RATE * hertz) + draw.unit()
    left = where.astype(np.int64)
    part = where - left
    part = part * part * (3 - 2 * part)  # no corners
    values = draw.between(low, high, knots)
    return values[left] * (1 - part) + values[left + 1] * part


def fade(n: int, rise: float, fall: float) -> np.ndarray:
    """(n,) from 0 up in `rise` seconds and down to 0 in `fall`."""
    index = np.arange(n)
    up = np.minimum(1, (index + 1) / max(rise * RATE, 1))
    return np.minimum(up, np.minimum(1, (n - index) / max(fall * RATE, 1)))


def harmonics(draw: Draw, hertz: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Sum of multiples of the curve `hertz` (n,), weighted; those above 7.5 kHz are left out."""
    phase = 2 * np.pi * np.cumsum(hertz / RATE)
    angles = 2 * np.pi * draw.unit(len(weights))
    count = min(len(weights), int(7500 / np.max(hertz)))
    # A polynomial in exp(i phase) (Horner's rule): one sine and cosine for all multiples.
    turn = np.empty(len(phase), complex)
    turn.real, turn.imag = np.cos(phase), np.sin(phase)
    wave = np.zeros(len(phase), complex)
    for weight, angle in zip(weights[:count][::-1], angles[:count][::-1], strict=True):
        wave += weight * np.exp(1j * angle)
        wave *= turn
    return wave.imag


def times(draw: Draw, n: int, rate: float) -> np.ndarray:
    """Sample indices of random (Poisson) instants, `rate` a second; at least one."""
    gaps = -np.log1p(-draw.unit(int(n / RATE * rate * 1.6) + 12)) / rate
    found = (np.cumsum(gaps) * RATE).astype(np.int64)
    found = found[found < n]
    return found if len(found) else np.array([n // 8])


def beats(draw: Draw, n: int, period: float, jitter: float) -> np.ndarray:
    """Sample indices of about regular instants, `period` seconds apart; at least one."""
    count = int(n / RATE / period) + 1
    found = (np.arange(count) + draw.between(0, jitter, count) + 0.05) * period * RATE
    found = found.astype(np.int64)
    found = found[found < n]
    return found if len(found) else np.array([n // 8])


def strikes(draw: Draw, n: int, when: np.ndarray, hit: np.ndarray, spread: float = 10.0) -> np.ndarray:
    """(n,) the sound `hit` at every index of `when`, at levels that differ by up to `spread` dB."""
    train = np.zeros(n)
    np.add.at(train, when, 10 ** (-draw.between(0, spread, len(when)) / 20))
    return signal.oaconvolve(train, hit)[:n] if len(when) > 12 else _few(train, when, hit, n)


def _few(train: np.ndarray, when: np.ndarray, hit: np.ndarray, n: int) -> np.ndarray:
    wave = np.zeros(n + len(hit))
    for index in np.unique(when):
        wave[index : index + len(hit)] += train[index] * hit
    return wave[:n]


def modes(draw: Draw, low: float, high: float, count: int, decay: tuple[float, float]) -> np.ndarray:
    """A struck object: `count` damped partials between `low` and `high` Hz, `decay` seconds to -60 dB; peak 1."""
    n = int(min(decay[1], 1.5) * RATE)
    time = seconds(n)
    hertz = np.sort(draw.around(low, high, count))
    last = draw.around(*decay, count) * (low / hertz) ** 0.3
    wave = (draw.between(0.2, 1, count)[:, None] * np.exp(-6.9 * time / last[:, None])
            * np.sin(2 * np.pi * hertz[:, None] * time + 2 * np.pi * draw.unit(count)[:, None])).sum(0)  # fmt: skip
    wave *= np.minimum(1, (np.arange(n) + 1) / 12)
    return wave / np.abs(wave).max()


def thump(draw: Draw, low: float, high: float) -> np.ndarray:
    """A dull blow: a falling low tone and a puff of noise; peak 1."""
    n = int(draw.between(0.12, 0.35) * RATE)
    time = seconds(n)
    start = draw.around(low, high)
    body = np.sin(2 * np.pi * np.cumsum(start * (0.6 + 0.8 * np.exp(-time * 30)) / RATE)) * np.exp(-time * 18)
    puff = band(draw, n, 80, draw.around(500, 2500), 1) * np.exp(-time * draw.around(25, 90))
    wave = body + draw.between(0.2, 0.7) * puff
    return wave / np.abs(wave).max()


def snap(draw: Draw, low: float, high: float, last: float) -> np.ndarray:
    """A short burst of noise between `low` and `high` Hz that decays in `last` seconds; peak 1."""
    n = max(int(1.2 * last * RATE), 24)
    wave = band(draw, n, low, high) * np.exp(-6.9 * np.arange(n) / (last * RATE))
    return wave / np.abs(wave).max()


def throat(draw: Draw, hertz: np.ndarray, formants: Sequence[float], rough: float = 0.1) -> np.ndarray:
    """A voice without words: a glottal wave of pitch `hertz` (n,) through resonances; deviation 1."""
    n = len(hertz)
    jitter = 1 + rough * (slow(draw, n, 70) - 0.5)
    phase = np.cumsum(hertz * jitter / RATE) % 1.0
    wave = (1 - phase) ** 2 - 1 / 3 + rough * 0.3 * draw.noise(n)
    out = np.zeros(n)
    for k, formant in enumerate(formants):
        radius = np.exp(-np.pi * (80 + 0.06 * formant) / RATE)
        pole = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2]
        out += signal.lfilter([1 - radius], pole, wave) / (1 + 0.5 * k)
    return out / (out.std() + 1e-12)


def mixed(*parts: tuple[float, np.ndarray]) -> np.ndarray:
    """The weighted sum of waves, each scaled to a peak of 1 first."""
    return sum(weight * wave / (np.abs(wave).max() + 1e-12) for weight, wave in parts)


def bursts(draw: Draw, n: int, rate: float, length: tuple[float, float]) -> np.ndarray:
    """(n,) in 0..1: random pushes of `length` seconds, about `rate` a second."""
    gate = np.zeros(n)
    for start in times(draw, n, rate)[:40]:
        size = int(draw.between(*length) * RATE)
        part = gate[start : start + size]
        np.maximum(part, draw.between(0.3, 1) * np.hanning(size + 2)[1 : len(part) + 1], out=part)
    return gate


# --- Pieces that several families share ---------------------------------------------------------


def scream(draw: Draw, n: int, low: float = 500, high: float = 1100) -> np.ndarray:
    time = np.linspace(0, 1, n)
    hertz = draw.around(low, high) * (0.75 + 0.5 * np.sin(np.pi * time ** draw.between(0.3, 1.2)))
    hertz *= 1 + 0.03 * np.sin(2 * np.pi * draw.between(4, 9) * seconds(n))
    formants = (draw.between(900, 1400), draw.between(1800, 2800), draw.between(3000, 4200))
    return throat(draw, hertz, formants, draw.between(0.1, 0.5)) * fade(n, 0.05, 0.2 * n / RATE)


def groan(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(90, 260) * np.linspace(1.15, draw.between(0.6, 0.95), n)
    formants = (draw.between(400, 800), draw.between(900, 1500), 2500)
    return throat(draw, hertz, formants, draw.between(0.2, 0.6)) * np.hanning(n) ** 0.5


def voiced(draw: Draw, n: int, make: Callable, length: tuple[float, float], gap: tuple[float, float]) -> np.ndarray:
    """`make(draw, m)` again and again, with gaps between (seconds)."""
    wave, place = np.zeros(n), 0
    while place < n:
        size = min(int(draw.between(*length) * RATE), n - place)
        if size > 800:
            wave[place : place + size] = make(draw, size)
        place += size + int(draw.between(*gap) * RATE)
    return wave


def rustle(draw: Draw, n: int) -> np.ndarray:
    return band(draw, n, draw.around(600, 2000), draw.around(3500, 7000)) * bursts(draw, n, 4, (0.08, 0.4))


def walk(draw: Draw, n: int, period: float) -> np.ndarray:
    heel = mixed(
        (1, np.pad(thump(draw, 70, 160), (0, 6000))[:6000]),
        (0.6, np.pad(snap(draw, 900, 5000, 0.05), (0, 6000))[:6000]),
    )
    return strikes(draw, n, beats(draw, n, period, 0.15), heel, 6)


def glass(draw: Draw, n: int) -> np.ndarray:
    """One pane breaks: a crack, then shards that ring and grow fewer."""
    when = int(draw.between(0, 0.2) * n)
    age = draw.around(0.02, 0.6, draw.integer(25, 70))
    shards = np.clip(when + (age * RATE).astype(np.int64), 0, n - 1)
    wave = strikes(draw, n, shards, modes(draw, 2200, 7400, 8, (0.05, 0.35)), 24)
    wave += strikes(draw, n, shards[::2], modes(draw, 1500, 6500, 6, (0.05, 0.25)), 24)
    return mixed((1, wave), (0.9, strikes(draw, n, np.array([when]), snap(draw, 1200, 7000, 0.12), 0)))


def motor_at(draw: Draw, hertz: np.ndarray, tilt: float, count: int = 24) -> np.ndarray:
    weights = np.arange(1, count + 1) ** -tilt * draw.between(0.2, 1, count)
    return harmonics(draw, hertz, weights)


def gate(draw: Draw, n: int) -> np.ndarray:
    """Machines run on, start, or stop: a gain curve (n,)."""
    kind = draw.integer(0, 3)
    if kind == 0:
        return np.ones(n)
    if kind == 1:
        return fade(n, draw.between(0.1, 0.9) * n / RATE, 0.02)
    if kind == 2:
        return fade(n, 0.02, draw.between(0.1, 0.9) * n / RATE)
    return slow(draw, n, draw.around(0.7, 3), draw.between(0.05, 0.5), 1)


def cough(draw: Draw, n: int) -> np.ndarray:
    wave = band(draw, n, draw.around(250, 500), draw.around(2500, 5000), 0.7) * np.exp(-np.arange(n) / (0.08 * RATE))
    return mixed((1, wave), (draw.between(0.2, 0.7), groan(draw, n) * np.linspace(1, 0, n)))


def breath(draw: Draw, n: int) -> np.ndarray:
    centre = draw.around(600, 1800)
    return band(draw, n, centre * 0.6, centre * 1.8) * np.hanning(n)
