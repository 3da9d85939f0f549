"""Building blocks of the procedural sounds: random numbers, and the components that events are built from.

A family turns random numbers and a length into sound: `family(draw, n)` -> (n,) float64 at 16 kHz.
All random numbers come from raw PCG64 words, a stream that is the same in all versions of NumPy.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft, signal

RATE = 16_000
Family = Callable[["Draw", int], np.ndarray]
Families = tuple[tuple[Family, ...], tuple[Family, ...]]  # (for training and validation, for the test)


class Draw:
    """Random number stream of one clip, seeded by SeedSequence(`seed`, spawn_key=`key`)."""

    def __init__(self, seed: int, key: Sequence[int]):
        self._source = np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=tuple(key)))

    def unit(self, n: int | None = None):
        """Return uniform random numbers in [0, 1): a float, or (n,)."""
        words = self._source.random_raw(1 if n is None else n)
        values = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return float(values[0]) if n is None else values

    def between(self, low, high, n: int | None = None):
        return low + (high - low) * self.unit(n)

    def around(self, low, high, n: int | None = None):
        """Return log-uniform random numbers between `low` and `high`, for frequencies, rates and times."""
        return low * (high / low) ** self.unit(n)

    def integer(self, low: int, high: int) -> int:
        """Return a uniform random integer from `low` to `high`, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def choice(self, options: Sequence):
        return options[self.integer(0, len(options) - 1)]

    def noise(self, n: int) -> np.ndarray:
        """Return (n,) white noise of mean 0 and standard deviation 1: sums of four 16-bit numbers, nearly normal."""
        words = self._source.random_raw(n)
        half = np.uint64(0x0000FFFF0000FFFF)
        pairs = (words & half) + (words >> np.uint64(16) & half)
        total = (pairs & np.uint64(0xFFFFFFFF)) + (pairs >> np.uint64(32))
        return (total.astype(np.float64) - 131070) * (1 / 37837.2)

    # Components of `n` samples: noise, curves, tones.

    def band(self, n: int, low: float, high: float, slope: float = 0.0) -> np.ndarray:
        """Return (n,) noise between `low` and `high` Hz: soft edges, power falling as f ** -slope, unit variance."""
        size = fft.next_fast_len(n, real=True)
        spectrum = fft.rfft(self.noise(size))
        hertz = np.maximum(fft.rfftfreq(size, 1 / RATE), 5)
        spectrum *= hertz ** (-slope / 2) / np.sqrt(1 + (low / hertz) ** 6) / np.sqrt(1 + (hertz / high) ** 6)
        wave = fft.irfft(spectrum, size)[:n]
        return wave / (wave.std() + 1e-12)

    def slow(self, n: int, hertz: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Return an (n,) random curve between `low` and `high` with about `hertz` new values per second."""
        knots = int(n / RATE * hertz) + 4
        where = (np.arange(n) / RATE * hertz) + self.unit()
        left = where.astype(np.int64)
        part = where - left
        part = part * part * (3 - 2 * part)  # smoothstep: no corners
        values = self.between(low, high, knots)
        return values[left] * (1 - part) + values[left + 1] * part

    def harmonics(self, n: int, hertz: float | np.ndarray, weights: Sequence[float]) -> np.ndarray:
        """Return the weighted sum of harmonics of the frequency or curve `hertz` (n,), omitting those above 7.5 kHz."""
        phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, n) / RATE)
        angles = 2 * np.pi * self.unit(len(weights))
        count = min(len(weights), int(7500 / np.max(hertz)))
        # A polynomial in exp(i phase), by Horner's rule: one sine and cosine serve all harmonics.
        turn = np.empty(len(phase), complex)
        turn.real, turn.imag = np.cos(phase), np.sin(phase)
        wave = np.zeros(len(phase), complex)
        for weight, angle in zip(weights[:count][::-1], angles[:count][::-1], strict=True):
            wave += weight * np.exp(1j * angle)
            wave *= turn
        return wave.imag

    def motor(self, n: int, hertz: float | np.ndarray, tilt: float, count: int = 24) -> np.ndarray:
        return self.harmonics(n, hertz, np.arange(1, count + 1) ** -tilt * self.between(0.2, 1, count))

    def hum(self, n: int, hertz: float) -> np.ndarray:
        """Return mains hum of frequency `hertz`."""
        return self.harmonics(n, hertz, np.arange(1, 33) ** -self.between(0.3, 1.0) * self.between(0.1, 1, 32))

    def bursts(self, n: int, rate: float, length: tuple[float, float]) -> np.ndarray:
        """Return an (n,) envelope in 0..1: random bursts of `length` seconds, about `rate` per second."""
        curve = np.zeros(n)
        for start in self.times(n, rate)[:40]:
            size = int(self.between(*length) * RATE)
            part = curve[start : start + size]
            np.maximum(part, self.between(0.3, 1) * np.hanning(size + 2)[1 : len(part) + 1], out=part)
        return curve

    def gate(self, n: int) -> np.ndarray:
        """Return the gain curve (n,) of a machine that runs steadily, starts, stops or fluctuates."""
        kind = self.integer(0, 3)
        if kind == 0:
            return np.ones(n)
        if kind == 1:
            return fade(n, self.between(0.1, 0.9) * n / RATE, 0.02)
        if kind == 2:
            return fade(n, 0.02, self.between(0.1, 0.9) * n / RATE)
        return self.slow(n, self.around(0.7, 3), self.between(0.05, 0.5), 1)

    # Impacts: `strikes` repeats a hit, which has its own length, at `times` or `beats`.

    def times(self, n: int, rate: float) -> np.ndarray:
        """Return sample indices of random (Poisson) instants, `rate` per second; at least one."""
        gaps = -np.log1p(-self.unit(int(n / RATE * rate * 1.6) + 12)) / rate
        return within(np.cumsum(gaps) * RATE, n)

    def beats(self, n: int, period: float, jitter: float) -> np.ndarray:
        """Return sample indices of roughly regular instants, `period` seconds apart; at least one."""
        count = int(n / RATE / period) + 1
        return within((np.arange(count) + self.between(0, jitter, count) + 0.05) * period * RATE, n)

    def strikes(self, n: int, when: np.ndarray, hit: np.ndarray, spread: float = 10.0) -> np.ndarray:
        """Return (n,) with the sound `hit` at every index of `when`, attenuated by a random 0 to `spread` dB."""
        train = np.zeros(n)
        np.add.at(train, when, 10 ** (-self.between(0, spread, len(when)) / 20))
        if len(when) > 12:
            return signal.oaconvolve(train, hit)[:n]
        wave = np.zeros(n + len(hit))
        for index in np.unique(when):
            wave[index : index + len(hit)] += train[index] * hit
        return wave[:n]

    def modes(self, low: float, high: float, count: int, decay: tuple[float, float]) -> np.ndarray:
        """Return the sound of a blow: `count` damped partials from `low` to `high` Hz, `decay` s to -60 dB; peak 1."""
        n = int(min(decay[1], 1.5) * RATE)
        time = seconds(n)
        hertz = np.sort(self.around(low, high, count))
        last = self.around(*decay, count) * (low / hertz) ** 0.3
        wave = (self.between(0.2, 1, count)[:, None] * np.exp(-6.9 * time / last[:, None])
                * np.sin(2 * np.pi * hertz[:, None] * time + 2 * np.pi * self.unit(count)[:, None])).sum(0)  # fmt: skip
        wave *= np.minimum(1, (np.arange(n) + 1) / 12)
        return wave / np.abs(wave).max()

    def thump(self, low: float, high: float) -> np.ndarray:
        """Return a dull thud: a low tone of falling pitch and a puff of noise; peak 1."""
        n = int(self.between(0.12, 0.35) * RATE)
        time = seconds(n)
        start = self.around(low, high)
        body = np.sin(2 * np.pi * np.cumsum(start * (0.6 + 0.8 * np.exp(-time * 30)) / RATE)) * np.exp(-time * 18)
        puff = self.band(n, 80, self.around(500, 2500), 1) * np.exp(-time * self.around(25, 90))
        wave = body + self.between(0.2, 0.7) * puff
        return wave / np.abs(wave).max()

    def snap(self, low: float, high: float, last: float) -> np.ndarray:
        """Return a short noise burst between `low` and `high` Hz that decays by 60 dB in `last` seconds; peak 1."""
        n = max(int(1.2 * last * RATE), 24)
        wave = self.band(n, low, high) * np.exp(-6.9 * np.arange(n) / (last * RATE))
        return wave / np.abs(wave).max()

    # Voices.

    def throat(self, hertz: np.ndarray, formants: Sequence[float], rough: float = 0.1) -> np.ndarray:
        """Return a wordless voice: a glottal wave of pitch `hertz` (n,) through resonances; unit variance."""
        n = len(hertz)
        jitter = 1 + rough * (self.slow(n, 70) - 0.5)
        phase = np.cumsum(hertz * jitter / RATE) % 1.0
        wave = (1 - phase) ** 2 - 1 / 3 + rough * 0.3 * self.noise(n)
        out = np.zeros(n)
        for k, formant in enumerate(formants):
            out += resonance(wave, formant, 80 + 0.06 * formant) / (1 + 0.5 * k)
        return out / (out.std() + 1e-12)

    def scream(self, n: int, low: float = 500, high: float = 1100) -> np.ndarray:
        time = np.linspace(0, 1, n)
        hertz = self.around(low, high) * (0.75 + 0.5 * np.sin(np.pi * time ** self.between(0.3, 1.2)))
        hertz *= 1 + 0.03 * sine(n, self.between(4, 9))
        formants = (self.between(900, 1400), self.between(1800, 2800), self.between(3000, 4200))
        return self.throat(hertz, formants, self.between(0.1, 0.5)) * fade(n, 0.05, 0.2 * n / RATE)

    def groan(self, n: int) -> np.ndarray:
        hertz = self.around(90, 260) * np.linspace(1.15, self.between(0.6, 0.95), n)
        formants = (self.between(400, 800), self.between(900, 1500), 2500)
        return self.throat(hertz, formants, self.between(0.2, 0.6)) * np.hanning(n) ** 0.5

    def cough(self, n: int) -> np.ndarray:
        wave = self.band(n, self.around(250, 500), self.around(2500, 5000), 0.7) * np.exp(-np.arange(n) / (0.08 * RATE))
        return mixed((1, wave), (self.between(0.2, 0.7), self.groan(n) * np.linspace(1, 0, n)))

    def breath(self, n: int) -> np.ndarray:
        centre = self.around(600, 1800)
        return self.band(n, centre * 0.6, centre * 1.8) * np.hanning(n)

    def murmur(self, n: int) -> np.ndarray:
        """Return speech too distant to be understood."""
        hertz = self.around(95, 240) * self.slow(n, 4, 0.85, 1.15)
        wave = self.throat(hertz, (self.between(350, 750), self.between(900, 2000), 2600), 0.15)
        return wave * self.slow(n, 5, -0.3, 1).clip(0) * fade(n, 0.05, 0.1)

    def voiced(
        self, n: int, make: Callable, length: tuple[float, float], gap: tuple[float, float], *settings: float
    ) -> np.ndarray:
        """Return outputs of `make(draw, m, *settings)`, each of `length` seconds, with gaps of `gap` seconds."""
        wave, place = np.zeros(n), 0
        while place < n:
            size = min(int(self.between(*length) * RATE), n - place)
            if size > 800:
                wave[place : place + size] = make(self, size, *settings)
            place += size + int(self.between(*gap) * RATE)
        return wave

    def crowd(self, n: int, count: int, length: tuple[float, float], gap: tuple[float, float]) -> np.ndarray:
        return sum(self.voiced(n, Draw.murmur, length, gap) for _ in range(count))

    # Sounds shared by several families.

    def rustle(self, n: int) -> np.ndarray:
        return self.band(n, self.around(600, 2000), self.around(3500, 7000)) * self.bursts(n, 4, (0.08, 0.4))

    def walk(self, n: int, period: float) -> np.ndarray:
        heel, sole = (np.pad(hit, (0, 6000))[:6000] for hit in (self.thump(70, 160), self.snap(900, 5000, 0.05)))
        return self.strikes(n, self.beats(n, period, 0.15), mixed((1, heel), (0.6, sole)), 6)

    def glass(self, n: int) -> np.ndarray:
        """Return the sound of a breaking pane: a crack, then ringing shards that become fewer."""
        when = int(self.between(0, 0.2) * n)
        age = self.around(0.02, 0.6, self.integer(25, 70))
        shards = np.clip(when + (age * RATE).astype(np.int64), 0, n - 1)
        wave = self.strikes(n, shards, self.modes(2200, 7400, 8, (0.05, 0.35)), 24)
        wave += self.strikes(n, shards[::2], self.modes(1500, 6500, 6, (0.05, 0.25)), 24)
        return mixed((1, wave), (0.9, self.strikes(n, np.array([when]), self.snap(1200, 7000, 0.12), 0)))

    def slosh(self, n: int, period: float) -> np.ndarray:
        swing = (0.5 + 0.5 * np.sin(2 * np.pi * seconds(n) / period + 6 * self.unit())) ** 2
        return self.band(n, 150, self.around(1200, 4000), 1) * swing


def seconds(n: int) -> np.ndarray:
    return np.arange(n) / RATE


def fade(n: int, rise: float, fall: float) -> np.ndarray:
    """Return an (n,) gain that rises from 0 in the first `rise` seconds and falls to 0 in the last `fall`."""
    index = np.arange(n)
    up = np.minimum(1, (index + 1) / max(rise * RATE, 1))
    return np.minimum(up, np.minimum(1, (n - index) / max(fall * RATE, 1)))


def within(when: np.ndarray, n: int) -> np.ndarray:
    found = when.astype(np.int64)
    found = found[found < n]
    return found if len(found) else np.array([n // 8])


def mixed(*parts: tuple[float, np.ndarray]) -> np.ndarray:
    """Return the weighted sum of waves, each first scaled to a peak of 1."""
    return sum(weight * wave / (np.abs(wave).max() + 1e-12) for weight, wave in parts)


def sine(n: int, hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * seconds(n))


def sweep(hertz: np.ndarray) -> np.ndarray:
    """Return a sine whose frequency follows the curve `hertz`."""
    return np.sin(2 * np.pi * np.cumsum(hertz / RATE))


def smooth(share: float, wave: np.ndarray) -> np.ndarray:
    """Apply a one-pole low-pass: y[t] = share * x[t] + (1 - share) * y[t - 1]."""
    return signal.lfilter([share], [1, share - 1], wave.astype(float))


def resonance(wave: np.ndarray, hertz: float, width: float) -> np.ndarray:
    radius = np.exp(-np.pi * width / RATE)
    return signal.lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * hertz / RATE), radius**2], wave)
