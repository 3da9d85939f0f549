"""Procedural sounds of the built-in clips: families of generators per class, and hard negatives.

A family turns random numbers and a length into one event: `family(draw, n)` -> (n,) float64 at 16 kHz,
of any scale. Each class has three or four families for training and validation and another for the test, which
shares the physics (a crackle, a motor, an impact) but not the recipe. None of them is a recording, and
none was fitted to one: what they share with the real sound is its gross form in time and frequency.

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


def _seconds(n: int) -> np.ndarray:
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
    time = _seconds(n)
    hertz = np.sort(draw.around(low, high, count))
    last = draw.around(*decay, count) * (low / hertz) ** 0.3
    wave = (draw.between(0.2, 1, count)[:, None] * np.exp(-6.9 * time / last[:, None])
            * np.sin(2 * np.pi * hertz[:, None] * time + 2 * np.pi * draw.unit(count)[:, None])).sum(0)  # fmt: skip
    wave *= np.minimum(1, (np.arange(n) + 1) / 12)
    return wave / np.abs(wave).max()


def thump(draw: Draw, low: float, high: float) -> np.ndarray:
    """A dull blow: a falling low tone and a puff of noise; peak 1."""
    n = int(draw.between(0.12, 0.35) * RATE)
    time = _seconds(n)
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


def _scream(draw: Draw, n: int, low: float = 500, high: float = 1100) -> np.ndarray:
    time = np.linspace(0, 1, n)
    hertz = draw.around(low, high) * (0.75 + 0.5 * np.sin(np.pi * time ** draw.between(0.3, 1.2)))
    hertz *= 1 + 0.03 * np.sin(2 * np.pi * draw.between(4, 9) * _seconds(n))
    formants = (draw.between(900, 1400), draw.between(1800, 2800), draw.between(3000, 4200))
    return throat(draw, hertz, formants, draw.between(0.1, 0.5)) * fade(n, 0.05, 0.2 * n / RATE)


def _groan(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(90, 260) * np.linspace(1.15, draw.between(0.6, 0.95), n)
    formants = (draw.between(400, 800), draw.between(900, 1500), 2500)
    return throat(draw, hertz, formants, draw.between(0.2, 0.6)) * np.hanning(n) ** 0.5


def _voiced(draw: Draw, n: int, make: Callable, length: tuple[float, float], gap: tuple[float, float]) -> np.ndarray:
    """`make(draw, m)` again and again, with gaps between (seconds)."""
    wave, place = np.zeros(n), 0
    while place < n:
        size = min(int(draw.between(*length) * RATE), n - place)
        if size > 800:
            wave[place : place + size] = make(draw, size)
        place += size + int(draw.between(*gap) * RATE)
    return wave


def _rustle(draw: Draw, n: int) -> np.ndarray:
    return band(draw, n, draw.around(600, 2000), draw.around(3500, 7000)) * bursts(draw, n, 4, (0.08, 0.4))


def _steps(draw: Draw, n: int, period: float) -> np.ndarray:
    heel = mixed(
        (1, np.pad(thump(draw, 70, 160), (0, 6000))[:6000]),
        (0.6, np.pad(snap(draw, 900, 5000, 0.05), (0, 6000))[:6000]),
    )
    return strikes(draw, n, beats(draw, n, period, 0.15), heel, 6)


def _glass(draw: Draw, n: int) -> np.ndarray:
    """One pane breaks: a crack, then shards that ring and grow fewer."""
    when = int(draw.between(0, 0.2) * n)
    age = draw.around(0.02, 0.6, draw.integer(25, 70))
    shards = np.clip(when + (age * RATE).astype(np.int64), 0, n - 1)
    wave = strikes(draw, n, shards, modes(draw, 2200, 7400, 8, (0.05, 0.35)), 24)
    wave += strikes(draw, n, shards[::2], modes(draw, 1500, 6500, 6, (0.05, 0.25)), 24)
    return mixed((1, wave), (0.9, strikes(draw, n, np.array([when]), snap(draw, 1200, 7000, 0.12), 0)))


def _motor(draw: Draw, hertz: np.ndarray, tilt: float, count: int = 24) -> np.ndarray:
    weights = np.arange(1, count + 1) ** -tilt * draw.between(0.2, 1, count)
    return harmonics(draw, hertz, weights)


def _gate(draw: Draw, n: int) -> np.ndarray:
    """Machines run on, start, or stop: a gain curve (n,)."""
    kind = draw.integer(0, 3)
    if kind == 0:
        return np.ones(n)
    if kind == 1:
        return fade(n, draw.between(0.1, 0.9) * n / RATE, 0.02)
    if kind == 2:
        return fade(n, 0.02, draw.between(0.1, 0.9) * n / RATE)
    return slow(draw, n, draw.around(0.7, 3), draw.between(0.05, 0.5), 1)


# --- Safety (치안안전) ---------------------------------------------------------------------------


def scuffle_scream(draw: Draw, n: int) -> np.ndarray:
    cries = _voiced(draw, n, _scream, (0.3, 0.9), (0.2, 0.9))
    return mixed((draw.between(0.5, 1), cries), (draw.between(0.4, 1), _rustle(draw, n)))


def muffled_struggle(draw: Draw, n: int) -> np.ndarray:
    moans = signal.lfilter([0.15], [1, -0.85], _voiced(draw, n, _groan, (0.2, 0.7), (0.1, 0.5)))
    knocks = strikes(draw, n, times(draw, n, 2.5), thump(draw, 60, 140))
    return mixed((1, moans), (draw.between(0.4, 1), _rustle(draw, n)), (0.6, knocks))


def pulled_away(draw: Draw, n: int) -> np.ndarray:
    cries = _voiced(draw, n, lambda d, m: _scream(d, m, 350, 800), (0.2, 0.5), (0.1, 0.4))
    drag = band(draw, n, 300, draw.around(2000, 5000), 1) * bursts(draw, n, 2.5, (0.2, 0.7))
    return mixed((draw.between(0.5, 1), cries), (draw.between(0.5, 1), drag))


def held_back(draw: Draw, n: int) -> np.ndarray:
    cries = _voiced(draw, n, lambda d, m: _scream(d, m, 300, 900), (0.15, 0.6), (0.2, 0.7))
    muffled = signal.lfilter([0.2], [1, -0.8], _voiced(draw, n, _groan, (0.2, 0.5), (0.1, 0.4)))
    pull = band(draw, n, 400, draw.around(2500, 6000), 0.5) * bursts(draw, n, 3, (0.1, 0.5))
    return mixed((1, cries), (draw.between(0.2, 0.8), muffled), (draw.between(0.4, 1), pull))


def door_kick_glass(draw: Draw, n: int) -> np.ndarray:
    kicks = strikes(draw, n, beats(draw, n, draw.between(0.45, 0.9), 0.3), modes(draw, 70, 700, 8, (0.1, 0.4)), 4)
    return mixed((1, kicks), (draw.between(0.4, 1), _glass(draw, n)))


def shutter_break(draw: Draw, n: int) -> np.ndarray:
    rattle = strikes(draw, n, times(draw, n, draw.around(8, 25)), modes(draw, 300, 4500, 14, (0.08, 0.4)), 18)
    return mixed((1, rattle), (draw.between(0.3, 0.9), _glass(draw, n)))


def held_up(draw: Draw, n: int) -> np.ndarray:
    """Things are swept off a counter, a till springs open, someone barks orders."""
    things = strikes(draw, n, times(draw, n, draw.around(1, 3)), modes(draw, 200, 5000, 16, (0.06, 0.4)), 10)
    orders = _voiced(draw, n, lambda d, m: _scream(d, m, 140, 330), (0.15, 0.5), (0.15, 0.7))
    parts = [(draw.between(0.5, 1), things), (draw.between(0.2, 0.8), orders)]
    return mixed(*parts, (draw.between(0.2, 0.9), _glass(draw, n)), (0.5, _steps(draw, n, draw.around(0.25, 0.5))))


def window_smash_run(draw: Draw, n: int) -> np.ndarray:
    blows = strikes(draw, n, times(draw, n, 1.2), thump(draw, 80, 200), 4)
    return mixed(
        (1, _glass(draw, n)), (0.7, blows), (draw.between(0.3, 0.8), _steps(draw, n, draw.between(0.26, 0.38)))
    )


def rummage(draw: Draw, n: int) -> np.ndarray:
    coins = strikes(draw, n, times(draw, n, draw.around(4, 14)), modes(draw, 3000, 7200, 6, (0.04, 0.2)), 20)
    slide = band(draw, n, 200, draw.around(1200, 3500), 0.5) * bursts(draw, n, 1.3, (0.2, 0.6))
    return mixed((draw.between(0.3, 1), coins), (1, slide), (draw.between(0.2, 0.8), _rustle(draw, n)))


def lock_picking(draw: Draw, n: int) -> np.ndarray:
    clicks = strikes(draw, n, times(draw, n, draw.around(5, 16)), modes(draw, 1500, 6500, 7, (0.008, 0.05)), 16)
    scrape = band(draw, n, 2000, 6500) * bursts(draw, n, 2.5, (0.05, 0.25))
    return mixed((1, clicks), (draw.between(0.1, 0.5), scrape))


def coins_in_a_bag(draw: Draw, n: int) -> np.ndarray:
    """Handfuls of coins or trinkets are grabbed and poured, between clasps that snap."""
    many = times(draw, n, draw.around(15, 40))
    poured = strikes(draw, n, many, modes(draw, 2500, 7400, 7, (0.02, 0.15)), 22) * bursts(draw, n, 1.5, (0.3, 1.0))
    clasps = strikes(draw, n, times(draw, n, draw.around(1, 3)), snap(draw, 1500, 6500, 0.02), 10)
    return mixed((1, poured), (draw.between(0.2, 0.8), clasps), (draw.between(0.1, 0.6), _rustle(draw, n)))


def zip_and_keys(draw: Draw, n: int) -> np.ndarray:
    teeth = np.zeros(n)
    for start in times(draw, n, 1.2)[:5]:
        length = int(draw.between(0.2, 0.6) * RATE)
        gaps = RATE / np.linspace(draw.around(50, 120), draw.around(120, 280), 60)
        when = start + np.cumsum(gaps).astype(np.int64)
        teeth += strikes(draw, n, np.minimum(when[when < start + length], n - 1), snap(draw, 2500, 7000, 0.006), 6)
    keys = strikes(draw, n, times(draw, n, draw.around(6, 16)), modes(draw, 2500, 7000, 8, (0.03, 0.15)), 18)
    return mixed((draw.between(0.5, 1), teeth), (draw.between(0.3, 1), keys))


def punches(draw: Draw, n: int) -> np.ndarray:
    blows = strikes(draw, n, times(draw, n, draw.around(1.5, 4)), thump(draw, 60, 180), 6)
    return mixed((1, blows), (draw.between(0.3, 1), _voiced(draw, n, _groan, (0.15, 0.4), (0.2, 0.8))))


def thrown_things(draw: Draw, n: int) -> np.ndarray:
    crash = strikes(draw, n, times(draw, n, draw.around(1, 3)), modes(draw, 250, 6000, 20, (0.1, 0.5)), 8)
    shouts = _voiced(draw, n, lambda d, m: _scream(d, m, 200, 450), (0.2, 0.6), (0.3, 1.0))
    return mixed((1, crash), (draw.between(0.4, 1), shouts))


def brawl(draw: Draw, n: int) -> np.ndarray:
    blows = strikes(draw, n, times(draw, n, draw.around(2, 5)), snap(draw, 300, 3500, 0.09), 8)
    shouts = _voiced(draw, n, lambda d, m: _scream(d, m, 150, 380), (0.15, 0.5), (0.1, 0.6))
    furniture = strikes(draw, n, times(draw, n, 1), modes(draw, 90, 1500, 10, (0.08, 0.3)), 8)
    return mixed((1, blows), (draw.between(0.4, 1), shouts), (draw.between(0.2, 0.8), furniture))


def slaps(draw: Draw, n: int) -> np.ndarray:
    blows = strikes(draw, n, times(draw, n, draw.around(1.5, 4)), snap(draw, 500, 5500, 0.07), 6)
    dull = strikes(draw, n, times(draw, n, 1.5), thump(draw, 70, 200), 6)
    cries = _voiced(draw, n, draw.choice((_groan, lambda d, m: _scream(d, m, 220, 500))), (0.15, 0.5), (0.2, 0.8))
    return mixed((1, blows), (0.6, dull), (draw.between(0.3, 1), cries))


# --- Fire service (소방안전) ----------------------------------------------------------------------


def door_pounding(draw: Draw, n: int) -> np.ndarray:
    wood = modes(draw, 90, 1200, 10, (0.08, 0.3))
    return strikes(draw, n, beats(draw, n, draw.between(0.16, 0.4), 0.2), wood, 5)


def handle_rattle(draw: Draw, n: int) -> np.ndarray:
    shaking = beats(draw, n, draw.around(0.05, 0.12), 0.5)
    metal = strikes(draw, n, shaking, modes(draw, 700, 5000, 8, (0.02, 0.1)), 10) * slow(draw, n, 2.5, 0, 1)
    knocks = strikes(draw, n, beats(draw, n, draw.between(0.2, 0.45), 0.2), modes(draw, 100, 1000, 8, (0.06, 0.2)), 5)
    return mixed((1, metal), (draw.between(0.4, 1), knocks))


def iron_door(draw: Draw, n: int) -> np.ndarray:
    """Fists, then feet, on sheet metal that booms."""
    sheet, pace = modes(draw, 80, 3000, 18, (0.15, 0.7)), draw.between(0.15, 0.5)
    fists = strikes(draw, n, beats(draw, n, pace, 0.3), sheet, 6)
    feet = strikes(draw, n, times(draw, n, 1), thump(draw, 60, 160), 6)
    return mixed((1, fists), (draw.between(0, 0.8), feet), (draw.between(0, 0.3), _rustle(draw, n)))


def lift_panel(draw: Draw, n: int) -> np.ndarray:
    panel = modes(draw, 120, 2600, 16, (0.1, 0.5))
    wave = strikes(draw, n, beats(draw, n, draw.between(0.18, 0.45), 0.25), panel, 5)
    shaking = strikes(
        draw, n, beats(draw, n, draw.around(0.06, 0.12), 0.5), modes(draw, 900, 4500, 6, (0.02, 0.08)), 10
    )
    return mixed((1, wave), (draw.between(0.1, 0.7), shaking))


def _hum(draw: Draw, n: int, base: float) -> np.ndarray:
    return harmonics(draw, np.full(n, base), np.arange(1, 33) ** -draw.between(0.3, 1.0) * draw.between(0.1, 1, 32))


def arc_buzz(draw: Draw, n: int) -> np.ndarray:
    hum = _hum(draw, n, 60)
    arcs = band(draw, n, 1500, 7500) * (np.abs(np.sin(2 * np.pi * 60 * _seconds(n))) ** 6)
    arcs *= slow(draw, n, draw.around(5, 20), -0.6, 1).clip(0)
    return mixed((draw.between(0.2, 0.8), hum), (1, arcs))


def sparks(draw: Draw, n: int) -> np.ndarray:
    flashes = strikes(draw, n, times(draw, n, draw.around(8, 40)), snap(draw, 1500, 7800, 0.015), 24)
    sizzle = band(draw, n, 2500, 7800) * bursts(draw, n, 3, (0.05, 0.3))
    return mixed((1, flashes), (draw.between(0.3, 0.9), sizzle), (draw.between(0.1, 0.5), _hum(draw, n, 120)))


def burnt_fuse(draw: Draw, n: int) -> np.ndarray:
    """Bangs, after each of which something hums and fries until it dies away."""
    when = times(draw, n, draw.around(0.6, 2.5))
    last = np.zeros(n)
    for start in when:
        last[start:] = np.maximum(last[start:], np.exp(-np.arange(n - start) / (draw.around(0.1, 0.8) * RATE)))
    frying = band(draw, n, draw.around(800, 2500), 7600) * slow(draw, n, draw.around(20, 90), 0, 1) * last
    bangs = strikes(draw, n, when, snap(draw, 150, 7500, draw.around(0.03, 0.15)), 8)
    return mixed((1, bangs), (draw.between(0.4, 1), frying), (draw.between(0.1, 0.6), _hum(draw, n, 120) * last))


def short_circuit(draw: Draw, n: int) -> np.ndarray:
    rate = 120 * (1 + 0.02 * (slow(draw, n, 5) - 0.5))
    arcs = band(draw, n, 1000, 7800) * np.maximum(0, np.sin(2 * np.pi * np.cumsum(rate / RATE))) ** 4
    pops = strikes(draw, n, times(draw, n, draw.around(2, 8)), snap(draw, 300, 7800, 0.05), 14)
    return mixed((1, arcs * bursts(draw, n, 2.5, (0.1, 0.8))), (draw.between(0.4, 1), pops), (0.3, _hum(draw, n, 60)))


def hiss_leak(draw: Draw, n: int) -> np.ndarray:
    low = draw.around(1200, 3500)
    jet = band(draw, n, low, draw.around(5000, 7800)) * slow(draw, n, draw.around(0.8, 5), 0.6, 1)
    centre = draw.around(2000, 5500)
    return mixed((1, jet), (draw.between(0, 0.5), band(draw, n, centre * 0.96, centre * 1.04)))


def valve_sputter(draw: Draw, n: int) -> np.ndarray:
    jet = band(draw, n, draw.around(800, 2500), draw.around(4500, 7800))
    spit = 0.3 + bursts(draw, n, draw.around(5, 14), (0.04, 0.2))
    return jet * spit * fade(n, draw.around(0.02, 0.6), 0.1)


def cylinder_vents(draw: Draw, n: int) -> np.ndarray:
    """A jet whose pressure falls: it gets duller, and sings as it does."""
    pressure = np.linspace(1, draw.between(0.2, 0.9), n) * slow(draw, n, draw.around(1, 8), 0.7, 1)
    bright, dull = band(draw, n, 3000, 7800), band(draw, n, draw.around(500, 1500), 5000)
    hertz = draw.around(1200, 5000) * (0.5 + 0.5 * pressure)
    sings = np.sin(2 * np.pi * np.cumsum(hertz / RATE)) * slow(draw, n, 20, 0.3, 1)
    return mixed((1, bright * pressure**2 + dull * pressure * draw.between(0.3, 1)), (draw.between(0, 0.5), sings))


def pipe_jet(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(1500, 4500) * slow(draw, n, 2, 0.93, 1.07)
    tone = np.sin(2 * np.pi * np.cumsum(hertz / RATE)) * slow(draw, n, 12, 0.2, 1)
    jet = band(draw, n, draw.around(1000, 3000), 7600, -0.5) * slow(draw, n, 6, 0.4, 1)
    return mixed((1, jet), (draw.between(0, 0.4), tone))


def crackle_roar(draw: Draw, n: int) -> np.ndarray:
    roar = band(draw, n, 40, draw.around(250, 900), 1.5) * slow(draw, n, draw.around(2, 6), 0.4, 1)
    pops = strikes(draw, n, times(draw, n, draw.around(8, 35)), snap(draw, 900, 6500, draw.around(0.008, 0.03)), 26)
    return mixed((draw.between(0.4, 1), roar), (1, pops))


def crackle_alarm(draw: Draw, n: int) -> np.ndarray:
    pops = strikes(draw, n, times(draw, n, draw.around(12, 45)), snap(draw, 700, 7000, draw.around(0.006, 0.02)), 26)
    flutter = band(draw, n, 30, draw.around(300, 1200), 1) * slow(draw, n, 9, 0, 1)
    tone = np.sin(2 * np.pi * draw.between(2900, 3400) * _seconds(n))
    on = (_seconds(n) + draw.unit() * 2) % 1.0 < 0.5  # the pattern of a smoke alarm: half a second on, half off
    return mixed((1, pops), (draw.between(0.4, 1), flutter), (draw.choice((0, draw.between(0.1, 0.6))), tone * on))


def burning_room(draw: Draw, n: int) -> np.ndarray:
    """A draught roars, things burst in it now and then."""
    draught = band(draw, n, 60, draw.around(400, 2000), 1) * slow(draw, n, draw.around(3, 10), 0.3, 1)
    spark = snap(draw, 1000, 7500, draw.around(0.004, 0.02))
    crackle = strikes(draw, n, times(draw, n, draw.around(20, 70)), spark, 30)
    burst = strikes(draw, n, times(draw, n, draw.around(0.5, 3)), snap(draw, 200, 4000, draw.around(0.04, 0.15)), 10)
    return mixed((draw.between(0.4, 1), draught), (1, crackle), (draw.between(0, 0.8), burst))


def timber_fire(draw: Draw, n: int) -> np.ndarray:
    big = strikes(draw, n, times(draw, n, draw.around(3, 9)), snap(draw, 400, 5000, 0.05), 14)
    small = strikes(draw, n, times(draw, n, draw.around(15, 50)), modes(draw, 1200, 6000, 5, (0.006, 0.03)), 26)
    roar = band(draw, n, 50, draw.around(300, 1000), 1.2) * slow(draw, n, 5, 0.3, 1)
    return mixed((0.8, big), (1, small), (draw.between(0.3, 0.9), roar))


def _cough(draw: Draw, n: int) -> np.ndarray:
    wave = band(draw, n, draw.around(250, 500), draw.around(2500, 5000), 0.7) * np.exp(-np.arange(n) / (0.08 * RATE))
    return mixed((1, wave), (draw.between(0.2, 0.7), _groan(draw, n) * np.linspace(1, 0, n)))


def _breath(draw: Draw, n: int) -> np.ndarray:
    centre = draw.around(600, 1800)
    return band(draw, n, centre * 0.6, centre * 1.8) * np.hanning(n)


def cough_wheeze(draw: Draw, n: int) -> np.ndarray:
    coughs = _voiced(draw, n, _cough, (0.2, 0.4), (0.05, 0.9))
    hertz = draw.around(300, 900) * slow(draw, n, 2, 0.9, 1.1)
    wheeze = harmonics(draw, hertz, (1, 0.4, 0.2)) * slow(draw, n, 1.5, 0, 1)
    return mixed(
        (1, coughs), (draw.between(0.1, 0.4), wheeze), (0.3, _voiced(draw, n, _breath, (0.4, 0.9), (0.1, 0.4)))
    )


def sobbing(draw: Draw, n: int) -> np.ndarray:
    pulse = np.sin(2 * np.pi * draw.between(3, 6) * _seconds(n)).clip(0)
    hertz = draw.around(180, 500) * slow(draw, n, 3, 0.8, 1.2)
    cry = (
        throat(draw, hertz, (draw.between(500, 900), draw.between(1200, 1900), 2800), 0.4)
        * pulse
        * slow(draw, n, 1, 0.2, 1)
    )
    return mixed((1, cry), (draw.between(0.2, 0.6), _voiced(draw, n, _breath, (0.15, 0.4), (0.1, 0.5))))


def choking(draw: Draw, n: int) -> np.ndarray:
    """Fits of retching and short breaths between."""
    fits = _voiced(draw, n, lambda d, m: mixed((1, _cough(d, m)), (d.between(0.4, 1.2), _groan(d, m))),
                   (0.15, 0.6), (0.1, 0.8))  # fmt: skip
    moans = _voiced(draw, n, _groan, (0.4, 1.2), (0.3, 1.2))
    breaths = _voiced(draw, n, _breath, (0.1, 0.35), (0.05, 0.3))
    return mixed((draw.between(0.3, 1), fits), (draw.between(0.2, 1), moans), (draw.between(0.2, 1), breaths))


def gasping(draw: Draw, n: int) -> np.ndarray:
    air = _voiced(draw, n, _breath, (0.2, 0.6), (0.05, 0.3))
    moans = _voiced(draw, n, _groan, (0.3, 0.9), (0.2, 0.8))
    return mixed(
        (1, air),
        (draw.between(0.3, 1), moans),
        (draw.between(0, 0.6), _voiced(draw, n, _cough, (0.2, 0.4), (0.3, 1.5))),
    )


# --- Disasters (자연재해) -------------------------------------------------------------------------


def gusts(draw: Draw, n: int) -> np.ndarray:
    force = slow(draw, n, draw.around(0.6, 2), 0.1, 1) ** 1.5
    low, high = band(draw, n, 30, 400, 1), band(draw, n, 300, draw.around(1500, 4500), 1)
    return mixed((1, low * force), (draw.between(0.4, 1), high * force**2))


def howl(draw: Draw, n: int) -> np.ndarray:
    force = slow(draw, n, draw.around(0.7, 2), 0.15, 1)
    hertz = draw.around(250, 700) * (0.7 + 0.6 * force)
    wide = 25 * np.cumsum(draw.noise(n)) / np.sqrt(RATE)  # a tone with a random phase is a narrow band
    tone = np.sin(2 * np.pi * np.cumsum(hertz / RATE) + wide) * force**2
    return mixed((draw.between(0.3, 0.9), tone), (1, band(draw, n, 60, draw.around(900, 2500), 1.3) * force))


def flapping_sheet(draw: Draw, n: int) -> np.ndarray:
    """Gusts, and a tarpaulin or a sign that beats in them."""
    force = slow(draw, n, draw.around(0.7, 2.5), 0.1, 1)
    wind = band(draw, n, 30, draw.around(500, 3000), 1) * force
    beat = np.abs(np.sin(np.pi * np.cumsum(draw.around(4, 12) * (0.5 + force) / RATE))) ** 4
    sheet = band(draw, n, draw.around(100, 500), draw.around(1500, 5000), 0.7) * beat * force**2
    return mixed((1, wind), (draw.between(0.2, 0.9), sheet), (draw.between(0, 0.3), band(draw, n, 2000, 7000) * force))


def storm_window(draw: Draw, n: int) -> np.ndarray:
    force = slow(draw, n, draw.around(0.8, 2.5), 0.1, 1)
    wind = band(draw, n, 40, draw.around(600, 2500), 1) * force
    rattle = strikes(draw, n, beats(draw, n, draw.around(0.06, 0.15), 0.6), modes(draw, 300, 2500, 8, (0.02, 0.08)), 12)
    rain = band(draw, n, 1500, 7000) * slow(draw, n, 2, 0.5, 1)
    return mixed((1, wind), (draw.between(0.1, 0.6), rattle * force**2), (draw.between(0.05, 0.4), rain))


def rumble_dishes(draw: Draw, n: int) -> np.ndarray:
    shake = slow(draw, n, 3, 0.3, 1) * fade(n, draw.between(0.1, 0.8), 0.3)
    dishes = strikes(draw, n, times(draw, n, draw.around(10, 30)), modes(draw, 1500, 6500, 8, (0.03, 0.2)), 20)
    return mixed((1, band(draw, n, 20, draw.around(70, 200), 1) * shake), (draw.between(0.2, 0.8), dishes * shake))


def building_creak(draw: Draw, n: int) -> np.ndarray:
    rumble = band(draw, n, 20, draw.around(90, 260), 0.5) * (
        0.6 + 0.4 * np.sin(2 * np.pi * draw.between(2, 7) * _seconds(n))
    )
    slips = beats(draw, n, draw.around(0.012, 0.04), 0.7)
    creak = strikes(draw, n, slips, modes(draw, 250, 2200, 6, (0.02, 0.08)), 8) * bursts(draw, n, 1.5, (0.3, 0.9))
    return mixed((1, rumble), (draw.between(0.3, 0.9), creak))


def swaying_room(draw: Draw, n: int) -> np.ndarray:
    """The ground growls in waves; cupboards knock and what is in them clinks with each."""
    sway = (0.5 + 0.5 * np.sin(2 * np.pi * draw.around(1.5, 6) * _seconds(n) + 6 * draw.unit())) ** 2
    growl = band(draw, n, 20, draw.around(60, 180), draw.between(0.3, 1.5)) * (0.4 + 0.6 * sway)
    knocks = strikes(draw, n, times(draw, n, draw.around(6, 16)), modes(draw, 120, 1500, 9, (0.03, 0.15)), 16) * sway
    clinks = strikes(draw, n, times(draw, n, draw.around(6, 25)), modes(draw, 900, 6500, 9, (0.02, 0.2)), 18) * sway
    return mixed((1, growl), (draw.between(0.2, 0.9), knocks), (draw.between(0, 0.7), clinks))


def shaking_shelves(draw: Draw, n: int) -> np.ndarray:
    period = draw.between(0.13, 0.3)
    when = beats(draw, n, period, 0.3)
    jolts = strikes(draw, n, when, thump(draw, 35, 90), 5)
    things = strikes(
        draw, n, when + int(0.02 * RATE) * (when < n - RATE // 40), modes(draw, 500, 5500, 14, (0.03, 0.2)), 12
    )
    return mixed((1, jolts), (draw.between(0.3, 0.9), things), (0.7, band(draw, n, 25, 150, 1)))


# --- Accidents (사고 발생) ------------------------------------------------------------------------


def thump_groan(draw: Draw, n: int) -> np.ndarray:
    when = np.array([int(draw.between(0, 0.15) * n)])
    body = strikes(draw, n, when, thump(draw, 40, 110), 0)
    body += strikes(draw, n, np.minimum(when + int(draw.between(0.06, 0.25) * RATE), n - 1), thump(draw, 60, 160), 8)
    pain = _voiced(draw, n, _groan, (0.4, 1.0), (0.2, 0.8))
    pain[: min(when[0] + 4000, n)] = 0
    return mixed((1, body), (draw.between(0.2, 0.8), pain))


def stairs(draw: Draw, n: int) -> np.ndarray:
    gaps = draw.between(0.12, 0.28) * draw.between(0.7, 1.3, 30) * np.linspace(1.2, 0.8, 30)
    when = (np.cumsum(gaps) * RATE).astype(np.int64)
    when = when[when < min(n, int(draw.between(0.8, 2.2) * RATE))]
    when = when if len(when) else np.array([n // 8])
    wave = strikes(draw, n, when, thump(draw, 50, 150), 8)
    return mixed(
        (1, wave), (draw.between(0.3, 0.8), strikes(draw, n, when, modes(draw, 120, 1500, 8, (0.05, 0.2)), 10))
    )


def ladder_topples(draw: Draw, n: int) -> np.ndarray:
    """Metal or a chair goes over, a body lands with it, and things roll on."""
    when = int(draw.between(0, 0.2) * n)
    landed = strikes(draw, n, np.array([when]), thump(draw, 40, 130), 0)
    bounces = np.minimum(when + (np.cumsum(0.25 * draw.between(0.5, 1) ** np.arange(6)) * RATE).astype(np.int64), n - 1)
    frame = strikes(draw, n, np.concatenate([[when], bounces]), modes(draw, 250, 4500, 14, (0.05, 0.4)), 12)
    rolls = strikes(draw, n, np.minimum(bounces[:3] + RATE // 3, n - 1), modes(draw, 500, 3000, 6, (0.03, 0.15)), 10)
    pain = _voiced(draw, n, _groan, (0.3, 1.0), (0.2, 1.0))
    pain[: min(when + 5000, n)] = 0
    return mixed((1, landed), (draw.between(0.1, 0.9), frame), (0.3, rolls), (draw.between(0.2, 0.8), pain))


def slip_crash(draw: Draw, n: int) -> np.ndarray:
    start = int(draw.between(0.1, 0.3) * min(n, RATE))
    squeak = harmonics(draw, draw.around(700, 1800) * np.linspace(1, 1.4, n), (1, 0.5, 0.3)) * fade(n, 0.02, 0.02)
    squeak[start:] = 0
    fallen = strikes(draw, n, np.array([min(start, n - 1)]), thump(draw, 45, 120), 0)
    things = np.minimum(start + (draw.around(0.03, 0.7, draw.integer(3, 9)) * RATE).astype(np.int64), n - 1)
    clatter = strikes(draw, n, things, modes(draw, 300, 3500, 10, (0.05, 0.25)), 12)
    pain = _voiced(draw, n, _groan, (0.4, 1.0), (0.2, 0.8))
    pain[: min(start + 6000, n)] = 0
    return mixed(
        (1, fallen), (draw.between(0, 0.5), squeak), (draw.between(0.2, 0.7), clatter), (draw.between(0.2, 0.7), pain)
    )


def debris(draw: Draw, n: int) -> np.ndarray:
    roar = band(draw, n, 30, draw.around(300, 1000), 1.2) * fade(n, 0.15, 0.7 * n / RATE)
    stones = strikes(draw, n, times(draw, n, draw.around(15, 50)), modes(draw, 200, 2500, 14, (0.03, 0.15)), 26)
    return mixed((draw.between(0.6, 1), roar), (1, stones * fade(n, 0.05, 0.8 * n / RATE)))


def beam_crack(draw: Draw, n: int) -> np.ndarray:
    split = int(draw.between(0.15, 0.45) * n)
    cracks = strikes(draw, n, times(draw, n, draw.around(6, 20)), snap(draw, 400, 5000, 0.03), 14)
    cracks[split:] *= 0.3
    crash = band(draw, n, 30, draw.around(700, 2500), 1) + strikes(
        draw, n, times(draw, n, 18), thump(draw, 50, 200), 16
    )
    late = np.exp(-np.maximum(np.arange(n) - split, 0) / (draw.between(0.3, 1.2) * RATE)) * (np.arange(n) >= split)
    return mixed((0.6, cracks), (1, crash * late))


def wall_falls(draw: Draw, n: int) -> np.ndarray:
    """Bricks come down in a few slides, each with its blows and its dust."""
    slides = bursts(draw, n, draw.around(0.8, 2.5), (0.4, 1.6))
    bricks = strikes(draw, n, times(draw, n, draw.around(15, 45)), modes(draw, 250, 3000, 10, (0.02, 0.12)), 22)
    blows = strikes(draw, n, times(draw, n, draw.around(3, 9)), thump(draw, 40, 150), 12)
    dust = band(draw, n, 60, draw.around(600, 5000), 1)
    parts = [(draw.between(0.4, 1), bricks * slides), (draw.between(0.4, 1), blows * slides)]
    return mixed(*parts, (draw.between(0.2, 0.8), dust * slides))


def rockfall(draw: Draw, n: int) -> np.ndarray:
    when = times(draw, n, draw.around(8, 25))
    stones = strikes(draw, n, when, modes(draw, 150, 1800, 12, (0.04, 0.2)), 20)
    heavy = strikes(draw, n, when[::3], thump(draw, 40, 120), 10)
    dust = band(draw, n, 100, draw.around(1000, 4000), 1) * slow(draw, n, 3, 0.2, 1)
    return mixed((1, stones), (0.8, heavy), (draw.between(0.3, 0.8), dust)) * fade(n, 0.05, 0.4 * n / RATE)


# --- Calls for help (도움요청) --------------------------------------------------------------------


def pea_whistle(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.between(2300, 3600) * (1 + 0.04 * np.sin(2 * np.pi * draw.between(25, 50) * _seconds(n)))
    blow = (np.sin(2 * np.pi * draw.around(0.8, 2.5) * _seconds(n) + 6 * draw.unit()) > -0.3) * 1.0
    blow = signal.lfilter([0.01], [1, -0.99], blow)
    return mixed((1, harmonics(draw, hertz, (1, 0.2)) * blow), (0.15, band(draw, n, 2000, 6000) * blow))


def tapped_signal(draw: Draw, n: int) -> np.ndarray:
    """Three short, three long, three short knocks on metal."""
    unit = draw.between(0.13, 0.22)
    when = (np.cumsum([0, 1, 1, 2.5, 2, 2, 2.5, 1, 1, 3.5, 1, 1, 2.5, 2, 2]) * unit + 0.02) * RATE
    when = when[when < n].astype(np.int64)
    return strikes(draw, n, when, modes(draw, 500, 4000, 9, (0.15, 0.6)), 4)


def finger_whistle(draw: Draw, n: int) -> np.ndarray:
    """Whistled through the fingers: calls that glide, the next like the one before."""
    top, glide, rise = draw.around(1500, 3600), draw.between(0.5, 0.95), draw.chance(0.5)

    def call(d, m):
        sweep = np.linspace(glide, 1, m) if rise else np.linspace(1, glide, m)
        hertz = top * sweep * d.between(0.97, 1.03)
        return harmonics(d, hertz, (1, 0.15)) * fade(m, 0.02, 0.05)

    calls = _voiced(draw, n, call, (0.2, 0.8), (0.08, 0.5))
    return mixed((1, calls), (draw.between(0.05, 0.3), band(draw, n, 1500, 6500) * (np.abs(calls) > 0)))


def banged_pot(draw: Draw, n: int) -> np.ndarray:
    """A pan, a pipe or a rail struck without end, to be heard."""
    pot = modes(draw, draw.around(300, 900), 5500, 10, (0.1, 0.7))
    return strikes(draw, n, beats(draw, n, draw.around(0.15, 0.6), 0.1), pot, 4)


def whistle_blows(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.between(2000, 3800) * slow(draw, n, 4, 0.98, 1.02)
    blow = signal.lfilter([0.01], [1, -0.99], (_seconds(n) * draw.around(1.0, 3.0) % 1.0 < 0.6) * 1.0)
    whistle = mixed((1, harmonics(draw, hertz, (1, 0.3, 0.1)) * blow), (0.2, band(draw, n, 1800, 6500) * blow))
    knocks = strikes(draw, n, beats(draw, n, draw.between(0.2, 0.5), 0.05), modes(draw, 500, 4500, 8, (0.1, 0.5)), 4)
    return mixed(*draw.choice((((1, whistle), (0.4, knocks)), ((0.3, whistle), (1, knocks)))))


# --- Where nothing is wrong (일반, 정상) -------------------------------------------------------------


def dishes(draw: Draw, n: int) -> np.ndarray:
    plates = strikes(draw, n, times(draw, n, draw.around(1.5, 5)), modes(draw, 900, 6000, 9, (0.05, 0.3)), 18)
    water = band(draw, n, 500, draw.around(3000, 7000), 0.5) * slow(draw, n, 2, 0.2, 1) * _gate(draw, n)
    return mixed((1, plates), (draw.between(0.1, 1), water))


def living_room(draw: Draw, n: int) -> np.ndarray:
    talk = _voiced(draw, n, lambda d, m: _murmur(d, m), (0.5, 1.6), (0.1, 0.6))
    clock = strikes(draw, n, beats(draw, n, 0.5, 0.01), snap(draw, 2000, 6000, 0.012), 3)
    chair = strikes(draw, n, times(draw, n, 0.8), modes(draw, 100, 1200, 8, (0.05, 0.2)), 10)
    return mixed(
        (1, talk),
        (draw.between(0, 0.4), clock),
        (draw.between(0.2, 1), chair),
        (0.4, _steps(draw, n, draw.between(0.45, 0.7))),
    )


def cooking(draw: Draw, n: int) -> np.ndarray:
    frying = band(draw, n, draw.around(1500, 3000), 7500) * slow(draw, n, 4, 0.4, 1) * _gate(draw, n)
    lids = strikes(draw, n, times(draw, n, draw.around(1, 3)), modes(draw, 700, 5500, 10, (0.05, 0.3)), 14)
    talk = _voiced(draw, n, _murmur, (0.4, 1.4), (0.2, 0.8))
    return mixed((draw.between(0, 0.6), frying), (draw.between(0.3, 1), lids), (draw.between(0.4, 1), talk))


def kitchen_table(draw: Draw, n: int) -> np.ndarray:
    cutlery = strikes(draw, n, times(draw, n, draw.around(2, 6)), modes(draw, 1200, 6500, 7, (0.04, 0.25)), 18)
    talk = _voiced(draw, n, lambda d, m: _murmur(d, m), (0.4, 1.4), (0.1, 0.6))
    water = band(draw, n, 400, 5000, 0.7) * _gate(draw, n)
    return mixed((draw.between(0.3, 1), cutlery), (draw.between(0.3, 1), talk), (draw.between(0, 0.6), water))


def _murmur(draw: Draw, n: int) -> np.ndarray:
    """Talk too far away to understand."""
    hertz = draw.around(95, 240) * slow(draw, n, 4, 0.85, 1.15)
    wave = throat(draw, hertz, (draw.between(350, 750), draw.between(900, 2000), 2600), 0.15)
    return wave * slow(draw, n, 5, -0.3, 1).clip(0) * fade(n, 0.05, 0.1)


def traffic(draw: Draw, n: int) -> np.ndarray:
    road = band(draw, n, 50, draw.around(500, 2500), 1) * 0.4
    for _ in range(draw.integer(1, 3)):
        near = np.exp(-(((_seconds(n) - draw.between(0, n / RATE)) / draw.between(0.3, 1.2)) ** 2))
        road += band(draw, n, 80, draw.around(800, 4000), 0.7) * near
        road += 0.5 * near * _motor(draw, np.full(n, draw.around(35, 90)), 0.8, 16) / 3
    return road


def birds_steps(draw: Draw, n: int) -> np.ndarray:
    def chirp(d, m):
        sweep = d.around(2200, 5500) * (1 + d.between(-0.3, 0.3) * np.sin(2 * np.pi * d.around(5, 30) * _seconds(m)))
        return np.sin(2 * np.pi * np.cumsum(sweep / RATE)) * np.hanning(m)

    song = _voiced(draw, n, chirp, (0.06, 0.25), (0.03, 0.7))
    steps = _steps(draw, n, draw.between(0.45, 0.7))
    return mixed((1, song), (draw.between(0.2, 1), steps), (draw.between(0.1, 0.7), band(draw, n, 50, 1500, 1)))


def crossing(draw: Draw, n: int) -> np.ndarray:
    """People wait, cars go by, a signal ticks."""
    people = sum(_voiced(draw, n, _murmur, (0.4, 1.5), (0.1, 0.6)) for _ in range(2))
    tick = strikes(draw, n, beats(draw, n, draw.between(0.25, 0.6), 0.01), modes(draw, 900, 2500, 3, (0.05, 0.1)), 2)
    steps = _steps(draw, n, draw.between(0.4, 0.65))
    return mixed(
        (1, traffic(draw, n)),
        (draw.between(0.2, 0.8), people),
        (draw.between(0, 0.4), tick),
        (draw.between(0, 0.6), steps),
    )


def street_market(draw: Draw, n: int) -> np.ndarray:
    crowd = sum(_voiced(draw, n, _murmur, (0.4, 1.5), (0.05, 0.5)) for _ in range(4))
    horn = harmonics(draw, np.full(n, draw.around(300, 550)), (1, 0.8, 0.7, 0.5, 0.3)) * bursts(
        draw, n, 0.6, (0.2, 0.6)
    )
    return mixed((draw.between(0.3, 1), crowd), (draw.between(0.4, 1), traffic(draw, n)), (draw.between(0, 0.5), horn))


def _slosh(draw: Draw, n: int, period: float) -> np.ndarray:
    swing = (0.5 + 0.5 * np.sin(2 * np.pi * _seconds(n) / period + 6 * draw.unit())) ** 2
    return band(draw, n, 150, draw.around(1200, 4000), 1) * swing


def washer_wash(draw: Draw, n: int) -> np.ndarray:
    hum = _motor(draw, np.full(n, draw.around(45, 110)), 0.9)
    wave = mixed((draw.between(0.4, 1), hum), (1, _slosh(draw, n, draw.between(0.6, 1.6))))
    return wave * _gate(draw, n)


def washer_spin(draw: Draw, n: int) -> np.ndarray:
    start = draw.around(40, 130)
    hertz = np.linspace(start, start * draw.around(0.7, 2.2), n)
    drum = _motor(draw, hertz, draw.between(0.4, 0.9))
    shake = 1 + draw.between(0.1, 0.8) * np.sin(2 * np.pi * np.cumsum(hertz / RATE) / 5)
    return mixed(
        (1, drum * shake), (draw.between(0.3, 1), band(draw, n, 100, draw.around(1000, 4000), 0.7) * shake)
    ) * _gate(draw, n)


def washer_pump(draw: Draw, n: int) -> np.ndarray:
    """The water is pumped out: a hum, and a gurgle when air gets in."""
    hum = _motor(draw, np.full(n, draw.choice((50, 60)) * draw.between(0.95, 2.1)), draw.between(0.5, 1.1))
    gurgle = band(draw, n, 150, draw.around(900, 3500), 0.7) * slow(draw, n, draw.around(5, 14), 0, 1) ** 2
    slosh = _slosh(draw, n, draw.between(0.5, 1.2))
    return mixed((1, hum), (draw.between(0.3, 1), gurgle), (0.4, slosh)) * _gate(draw, n)


def dryer_drum(draw: Draw, n: int) -> np.ndarray:
    """Warm air, a belt, and a load that falls over once a turn."""
    turn = draw.between(0.6, 1.4)
    load = strikes(draw, n, beats(draw, n, turn, 0.1), snap(draw, 60, draw.around(500, 2000), 0.25), 5)
    zips = strikes(draw, n, beats(draw, n, turn, 0.4), modes(draw, 1500, 6500, 6, (0.01, 0.08)), 14)
    air, belt = band(draw, n, 80, draw.around(900, 4500), 0.7), _motor(draw, np.full(n, draw.around(45, 130)), 0.8)
    parts = [(1, air), (draw.between(0.3, 1), belt), (draw.between(0.2, 1), load), (draw.between(0, 0.4), zips)]
    return mixed(*parts) * _gate(draw, n)


def tumble_dryer(draw: Draw, n: int) -> np.ndarray:
    hum = _motor(draw, np.full(n, draw.around(50, 110)), 0.8)
    clothes = strikes(draw, n, beats(draw, n, draw.between(0.4, 1.1), 0.15), thump(draw, 60, 180), 6)
    buttons = strikes(draw, n, times(draw, n, 2), modes(draw, 1000, 4500, 6, (0.02, 0.1)), 10)
    air = band(draw, n, 100, draw.around(800, 3000), 0.8)
    return mixed((draw.between(0.5, 1), hum), (draw.between(0.3, 1), clothes), (0.8, air), (0.2, buttons)) * _gate(
        draw, n
    )


def canister_vacuum(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(180, 420) * slow(draw, n, 1.5, 0.96, 1.04)
    air = band(draw, n, draw.around(150, 500), draw.around(3500, 7500), 0.6) * slow(draw, n, 2, 0.6, 1)
    return mixed((draw.between(0.3, 1), _motor(draw, hertz, draw.between(0.5, 1))), (1, air)) * _gate(draw, n)


def handheld_vacuum(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(450, 1100) * slow(draw, n, 1.5, 0.97, 1.03)
    air = band(draw, n, draw.around(300, 900), draw.around(4000, 7800), 0.2)
    return mixed((1, _motor(draw, hertz, draw.between(0.5, 1), 14)), (draw.between(0.5, 1), air)) * _gate(draw, n)


def upright_vacuum(draw: Draw, n: int) -> np.ndarray:
    """Pushed to and fro: the tone sags with the load, and grit rattles up the tube."""
    load = 0.5 + 0.5 * np.sin(2 * np.pi * _seconds(n) / draw.between(0.8, 2.5) + 6 * draw.unit())
    motor = _motor(draw, draw.around(150, 600) * (1 - 0.08 * load), draw.between(0.4, 1.1))
    air = band(draw, n, draw.around(150, 600), draw.around(3500, 7800), draw.between(0.2, 0.8)) * (0.6 + 0.4 * load)
    grit = strikes(draw, n, times(draw, n, draw.around(5, 40)), snap(draw, 1000, 7000, 0.01), 20) * load
    return mixed((draw.between(0.3, 1), motor), (1, air), (draw.between(0, 0.5), grit)) * _gate(draw, n)


def robot_vacuum(draw: Draw, n: int) -> np.ndarray:
    fan = _motor(draw, draw.around(280, 700) * slow(draw, n, 2, 0.96, 1.04), draw.between(0.5, 1), 16)
    brush = strikes(draw, n, beats(draw, n, draw.around(0.04, 0.1), 0.2), snap(draw, 400, 4000, 0.03), 8)
    bumps = strikes(draw, n, times(draw, n, 0.5), thump(draw, 80, 200), 6)
    air = band(draw, n, 200, draw.around(3500, 7500), 0.5)
    return mixed(
        (draw.between(0.4, 1), fan), (1, air), (draw.between(0.1, 0.5), brush), (draw.between(0, 0.6), bumps)
    ) * _gate(draw, n)


def hair_dryer(draw: Draw, n: int) -> np.ndarray:
    air = band(draw, n, draw.around(400, 1200), draw.around(4500, 7500), 0.3) * slow(draw, n, draw.around(1, 4), 0.4, 1)
    coil = _motor(draw, np.full(n, draw.choice((100, 120)) * draw.between(0.95, 1.05)), 0.6, 12)
    return mixed((1, air), (draw.between(0.1, 0.5), coil)) * _gate(draw, n)


def microwave(draw: Draw, n: int) -> np.ndarray:
    beeps = np.sin(2 * np.pi * draw.between(1800, 2600) * _seconds(n)) * ((_seconds(n) + draw.unit()) % 1.0 < 0.35)
    beeps *= _seconds(n) > draw.between(0.2, 1) * n / RATE
    fan = band(draw, n, 80, draw.around(700, 2000), 1)
    return mixed((1, _hum(draw, n, 60)), (draw.between(0.4, 1), fan), (draw.between(0, 0.8), beeps)) * _gate(draw, n)


def fan(draw: Draw, n: int) -> np.ndarray:
    """Of a ceiling, a hood or an air conditioner: air that the blades chop, over a low hum."""
    chop = 1 + draw.between(0.1, 0.7) * np.sin(2 * np.pi * draw.around(4, 30) * _seconds(n))
    air = band(draw, n, 80, draw.around(1200, 5000), draw.between(0.4, 1.2)) * chop
    return mixed((1, air), (draw.between(0.1, 0.6), _motor(draw, np.full(n, draw.around(50, 120)), 0.8, 12))) * _gate(
        draw, n
    )


def mixer(draw: Draw, n: int) -> np.ndarray:
    blades = _motor(draw, draw.around(130, 400) * slow(draw, n, 5, 0.8, 1.15), draw.between(0.3, 0.8), 20)
    bowl = strikes(draw, n, times(draw, n, draw.around(3, 9)), modes(draw, 500, 3500, 8, (0.04, 0.2)), 12)
    air = band(draw, n, 200, draw.around(2000, 6000), 0.6)
    return mixed((1, blades), (draw.between(0.1, 0.5), bowl), (draw.between(0.2, 0.7), air)) * _gate(draw, n)


def blender_hood(draw: Draw, n: int) -> np.ndarray:
    hood = band(draw, n, 80, draw.around(1500, 5000), 0.8)
    load = slow(draw, n, 4, 0.85, 1.1)
    blades = _motor(draw, draw.around(110, 300) * load, draw.between(0.3, 0.8), 24)
    chunks = strikes(draw, n, times(draw, n, 8), snap(draw, 300, 3500, 0.04), 12)
    share = draw.between(0, 1)
    return mixed((1, hood), (share, blades), (0.5 * share, chunks)) * _gate(draw, n)


# Class number -> (families of training and validation, families of the test).
FAMILIES: dict[int, tuple[tuple[Family, ...], tuple[Family, ...]]] = {
    1: ((scuffle_scream, muffled_struggle, held_back), (pulled_away,)),
    2: ((door_kick_glass, shutter_break, held_up), (window_smash_run,)),
    3: ((rummage, lock_picking, coins_in_a_bag), (zip_and_keys,)),
    4: ((punches, thrown_things, brawl), (slaps,)),
    5: ((door_pounding, handle_rattle, iron_door), (lift_panel,)),
    6: ((arc_buzz, sparks, burnt_fuse), (short_circuit,)),
    7: ((hiss_leak, valve_sputter, cylinder_vents), (pipe_jet,)),
    8: ((crackle_roar, crackle_alarm, burning_room), (timber_fire,)),
    9: ((cough_wheeze, sobbing, choking), (gasping,)),
    10: ((gusts, howl, flapping_sheet), (storm_window,)),
    11: ((rumble_dishes, building_creak, swaying_room), (shaking_shelves,)),
    12: ((thump_groan, stairs, ladder_topples), (slip_crash,)),
    13: ((debris, beam_crack, wall_falls), (rockfall,)),
    14: ((pea_whistle, tapped_signal, finger_whistle, banged_pot), (whistle_blows,)),
    15: ((dishes, living_room, cooking), (kitchen_table,)),
    16: ((traffic, birds_steps, crossing), (street_market,)),
    17: ((washer_wash, washer_spin, washer_pump, dryer_drum), (tumble_dryer,)),
    18: ((canister_vacuum, handheld_vacuum, upright_vacuum), (robot_vacuum,)),
    19: ((hair_dryer, microwave, fan, mixer), (blender_hood,)),
}


# --- Hard negatives: sudden and loud, and nothing has happened ------------------------------------


def dropped_pan(draw: Draw, n: int) -> np.ndarray:
    when = np.cumsum(draw.between(0.08, 0.3) * draw.between(0.6, 1, 7) * 0.8 ** np.arange(7)) * RATE
    when = np.concatenate([[0], when[when < n - 1]]).astype(np.int64)
    return strikes(draw, n, when, modes(draw, 400, 5500, 18, (0.2, 1.0)), 8)


def door_slam(draw: Draw, n: int) -> np.ndarray:
    when = np.array([n // 20])
    wave = strikes(draw, n, when, modes(draw, 60, 900, 10, (0.1, 0.4)), 0)
    return mixed((1, wave), (0.5, strikes(draw, n, when, snap(draw, 300, 4000, 0.1), 0)))


def kettle_whistle(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.between(1600, 3200) * np.linspace(draw.between(0.7, 0.95), 1, n) * slow(draw, n, 8, 0.99, 1.01)
    return mixed((1, harmonics(draw, hertz, (1, 0.3))), (0.3, band(draw, n, 1500, 6000))) * fade(n, 0.4 * n / RATE, 0.1)


def laughter(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(160, 420) * slow(draw, n, 3, 0.85, 1.25)
    pulse = np.sin(2 * np.pi * draw.between(3.5, 6) * _seconds(n)).clip(0) ** 0.7
    return (
        throat(draw, hertz, (draw.between(600, 1000), draw.between(1300, 2000), 2800), 0.2) * pulse * fade(n, 0.05, 0.4)
    )


def dropped_tray(draw: Draw, n: int) -> np.ndarray:
    when = (draw.around(0.02, 0.8, draw.integer(5, 12)) * RATE).astype(np.int64)
    return strikes(draw, n, np.minimum(when, n - 1), modes(draw, 600, 6500, 16, (0.1, 0.6)), 12)


def cupboard(draw: Draw, n: int) -> np.ndarray:
    return strikes(draw, n, beats(draw, n, draw.between(0.5, 1.2), 0.4), modes(draw, 100, 1600, 10, (0.05, 0.25)), 6)


def sneeze(draw: Draw, n: int) -> np.ndarray:
    return _voiced(draw, n, _cough, (0.25, 0.5), (0.4, 1.2))


def doorbell(draw: Draw, n: int) -> np.ndarray:
    first, wave = draw.around(500, 900), np.zeros(n)
    for k, ratio in enumerate((1.0, 0.8)):
        place = int(k * draw.between(0.35, 0.6) * RATE)
        tail = _seconds(max(n - place, 0))
        wave[place:] += np.exp(-4 * tail) * (
            np.sin(2 * np.pi * first * ratio * tail) + 0.3 * np.sin(6 * np.pi * first * ratio * tail)
        )
    return wave


# (Training and validation, test). A television that says alarm words is made of speech, in `soundscapes`.
DISTRACTORS: tuple[tuple[Family, ...], tuple[Family, ...]] = (
    (dropped_pan, door_slam, kettle_whistle, laughter),
    (dropped_tray, cupboard, sneeze, doorbell),
)


# --- Backgrounds ----------------------------------------------------------------------------------


def room_tone(draw: Draw, n: int) -> np.ndarray:
    return band(draw, n, 20, draw.around(400, 6000), draw.between(0.5, 2))


def mains_room(draw: Draw, n: int) -> np.ndarray:
    return mixed((1, room_tone(draw, n)), (draw.between(0.05, 0.5), _hum(draw, n, 60)))


def distant_street(draw: Draw, n: int) -> np.ndarray:
    return band(draw, n, 40, draw.around(300, 1500), 1) * slow(draw, n, 0.8, 0.4, 1)


def distant_talk(draw: Draw, n: int) -> np.ndarray:
    talk = sum(_voiced(draw, n, _murmur, (0.4, 1.5), (0.05, 0.5)) for _ in range(2))
    return mixed((1, room_tone(draw, n)), (draw.between(0.2, 0.8), talk))


def open_air(draw: Draw, n: int) -> np.ndarray:
    return band(draw, n, 60, draw.around(2000, 7000), draw.between(0, 1.2)) * slow(draw, n, 1, 0.6, 1)


BACKGROUNDS: tuple[Family, ...] = (room_tone, mains_room, distant_street, distant_talk, open_air)


def families(number: int, split: str) -> tuple[Family, ...]:
    """The generators of class `number` (1..19) used in `split`; validation uses those of training."""
    return FAMILIES[number][split == "test"]


def distractors(split: str) -> tuple[Family, ...]:
    return DISTRACTORS[split == "test"]
