"""Procedural sounds of the fourteen emergencies: families of generators for each class."""

import numpy as np
from scipy import signal

from lib.emergency.synthesis.generators import (
    RATE,
    Draw,
    band,
    beats,
    breath,
    bursts,
    cough,
    fade,
    glass,
    groan,
    harmonics,
    mixed,
    modes,
    rustle,
    scream,
    seconds,
    slow,
    snap,
    strikes,
    throat,
    thump,
    times,
    voiced,
    walk,
)

# --- Safety (치안안전) ---------------------------------------------------------------------------


def scuffle_scream(draw: Draw, n: int) -> np.ndarray:
    cries = voiced(draw, n, scream, (0.3, 0.9), (0.2, 0.9))
    return mixed((draw.between(0.5, 1), cries), (draw.between(0.4, 1), rustle(draw, n)))


def muffled_struggle(draw: Draw, n: int) -> np.ndarray:
    moans = signal.lfilter([0.15], [1, -0.85], voiced(draw, n, groan, (0.2, 0.7), (0.1, 0.5)))
    knocks = strikes(draw, n, times(draw, n, 2.5), thump(draw, 60, 140))
    return mixed((1, moans), (draw.between(0.4, 1), rustle(draw, n)), (0.6, knocks))


def pulled_away(draw: Draw, n: int) -> np.ndarray:
    cries = voiced(draw, n, lambda d, m: scream(d, m, 350, 800), (0.2, 0.5), (0.1, 0.4))
    drag = band(draw, n, 300, draw.around(2000, 5000), 1) * bursts(draw, n, 2.5, (0.2, 0.7))
    return mixed((draw.between(0.5, 1), cries), (draw.between(0.5, 1), drag))


def held_back(draw: Draw, n: int) -> np.ndarray:
    cries = voiced(draw, n, lambda d, m: scream(d, m, 300, 900), (0.15, 0.6), (0.2, 0.7))
    muffled = signal.lfilter([0.2], [1, -0.8], voiced(draw, n, groan, (0.2, 0.5), (0.1, 0.4)))
    pull = band(draw, n, 400, draw.around(2500, 6000), 0.5) * bursts(draw, n, 3, (0.1, 0.5))
    return mixed((1, cries), (draw.between(0.2, 0.8), muffled), (draw.between(0.4, 1), pull))


def door_kick_glass(draw: Draw, n: int) -> np.ndarray:
    kicks = strikes(draw, n, beats(draw, n, draw.between(0.45, 0.9), 0.3), modes(draw, 70, 700, 8, (0.1, 0.4)), 4)
    return mixed((1, kicks), (draw.between(0.4, 1), glass(draw, n)))


def shutter_break(draw: Draw, n: int) -> np.ndarray:
    rattle = strikes(draw, n, times(draw, n, draw.around(8, 25)), modes(draw, 300, 4500, 14, (0.08, 0.4)), 18)
    return mixed((1, rattle), (draw.between(0.3, 0.9), glass(draw, n)))


def held_up(draw: Draw, n: int) -> np.ndarray:
    """Things are swept off a counter, a till springs open, someone barks orders."""
    things = strikes(draw, n, times(draw, n, draw.around(1, 3)), modes(draw, 200, 5000, 16, (0.06, 0.4)), 10)
    orders = voiced(draw, n, lambda d, m: scream(d, m, 140, 330), (0.15, 0.5), (0.15, 0.7))
    parts = [(draw.between(0.5, 1), things), (draw.between(0.2, 0.8), orders)]
    return mixed(*parts, (draw.between(0.2, 0.9), glass(draw, n)), (0.5, walk(draw, n, draw.around(0.25, 0.5))))


def window_smash_run(draw: Draw, n: int) -> np.ndarray:
    blows = strikes(draw, n, times(draw, n, 1.2), thump(draw, 80, 200), 4)
    return mixed((1, glass(draw, n)), (0.7, blows), (draw.between(0.3, 0.8), walk(draw, n, draw.between(0.26, 0.38))))


def rummage(draw: Draw, n: int) -> np.ndarray:
    coins = strikes(draw, n, times(draw, n, draw.around(4, 14)), modes(draw, 3000, 7200, 6, (0.04, 0.2)), 20)
    slide = band(draw, n, 200, draw.around(1200, 3500), 0.5) * bursts(draw, n, 1.3, (0.2, 0.6))
    return mixed((draw.between(0.3, 1), coins), (1, slide), (draw.between(0.2, 0.8), rustle(draw, n)))


def lock_picking(draw: Draw, n: int) -> np.ndarray:
    clicks = strikes(draw, n, times(draw, n, draw.around(5, 16)), modes(draw, 1500, 6500, 7, (0.008, 0.05)), 16)
    scrape = band(draw, n, 2000, 6500) * bursts(draw, n, 2.5, (0.05, 0.25))
    return mixed((1, clicks), (draw.between(0.1, 0.5), scrape))


def coins_in_a_bag(draw: Draw, n: int) -> np.ndarray:
    """Handfuls of coins or trinkets are grabbed and poured, between clasps that snap."""
    many = times(draw, n, draw.around(15, 40))
    poured = strikes(draw, n, many, modes(draw, 2500, 7400, 7, (0.02, 0.15)), 22) * bursts(draw, n, 1.5, (0.3, 1.0))
    clasps = strikes(draw, n, times(draw, n, draw.around(1, 3)), snap(draw, 1500, 6500, 0.02), 10)
    return mixed((1, poured), (draw.between(0.2, 0.8), clasps), (draw.between(0.1, 0.6), rustle(draw, n)))


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
    return mixed((1, blows), (draw.between(0.3, 1), voiced(draw, n, groan, (0.15, 0.4), (0.2, 0.8))))


def thrown_things(draw: Draw, n: int) -> np.ndarray:
    crash = strikes(draw, n, times(draw, n, draw.around(1, 3)), modes(draw, 250, 6000, 20, (0.1, 0.5)), 8)
    shouts = voiced(draw, n, lambda d, m: scream(d, m, 200, 450), (0.2, 0.6), (0.3, 1.0))
    return mixed((1, crash), (draw.between(0.4, 1), shouts))


def brawl(draw: Draw, n: int) -> np.ndarray:
    blows = strikes(draw, n, times(draw, n, draw.around(2, 5)), snap(draw, 300, 3500, 0.09), 8)
    shouts = voiced(draw, n, lambda d, m: scream(d, m, 150, 380), (0.15, 0.5), (0.1, 0.6))
    furniture = strikes(draw, n, times(draw, n, 1), modes(draw, 90, 1500, 10, (0.08, 0.3)), 8)
    return mixed((1, blows), (draw.between(0.4, 1), shouts), (draw.between(0.2, 0.8), furniture))


def slaps(draw: Draw, n: int) -> np.ndarray:
    blows = strikes(draw, n, times(draw, n, draw.around(1.5, 4)), snap(draw, 500, 5500, 0.07), 6)
    dull = strikes(draw, n, times(draw, n, 1.5), thump(draw, 70, 200), 6)
    cries = voiced(draw, n, draw.choice((groan, lambda d, m: scream(d, m, 220, 500))), (0.15, 0.5), (0.2, 0.8))
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
    return mixed((1, fists), (draw.between(0, 0.8), feet), (draw.between(0, 0.3), rustle(draw, n)))


def lift_panel(draw: Draw, n: int) -> np.ndarray:
    panel = modes(draw, 120, 2600, 16, (0.1, 0.5))
    wave = strikes(draw, n, beats(draw, n, draw.between(0.18, 0.45), 0.25), panel, 5)
    shaking = strikes(
        draw, n, beats(draw, n, draw.around(0.06, 0.12), 0.5), modes(draw, 900, 4500, 6, (0.02, 0.08)), 10
    )
    return mixed((1, wave), (draw.between(0.1, 0.7), shaking))


def hum_at(draw: Draw, n: int, base: float) -> np.ndarray:
    return harmonics(draw, np.full(n, base), np.arange(1, 33) ** -draw.between(0.3, 1.0) * draw.between(0.1, 1, 32))


def arc_buzz(draw: Draw, n: int) -> np.ndarray:
    hum = hum_at(draw, n, 60)
    arcs = band(draw, n, 1500, 7500) * (np.abs(np.sin(2 * np.pi * 60 * seconds(n))) ** 6)
    arcs *= slow(draw, n, draw.around(5, 20), -0.6, 1).clip(0)
    return mixed((draw.between(0.2, 0.8), hum), (1, arcs))


def sparks(draw: Draw, n: int) -> np.ndarray:
    flashes = strikes(draw, n, times(draw, n, draw.around(8, 40)), snap(draw, 1500, 7800, 0.015), 24)
    sizzle = band(draw, n, 2500, 7800) * bursts(draw, n, 3, (0.05, 0.3))
    return mixed((1, flashes), (draw.between(0.3, 0.9), sizzle), (draw.between(0.1, 0.5), hum_at(draw, n, 120)))


def burnt_fuse(draw: Draw, n: int) -> np.ndarray:
    """Bangs, after each of which something hums and fries until it dies away."""
    when = times(draw, n, draw.around(0.6, 2.5))
    last = np.zeros(n)
    for start in when:
        last[start:] = np.maximum(last[start:], np.exp(-np.arange(n - start) / (draw.around(0.1, 0.8) * RATE)))
    frying = band(draw, n, draw.around(800, 2500), 7600) * slow(draw, n, draw.around(20, 90), 0, 1) * last
    bangs = strikes(draw, n, when, snap(draw, 150, 7500, draw.around(0.03, 0.15)), 8)
    return mixed((1, bangs), (draw.between(0.4, 1), frying), (draw.between(0.1, 0.6), hum_at(draw, n, 120) * last))


def short_circuit(draw: Draw, n: int) -> np.ndarray:
    rate = 120 * (1 + 0.02 * (slow(draw, n, 5) - 0.5))
    arcs = band(draw, n, 1000, 7800) * np.maximum(0, np.sin(2 * np.pi * np.cumsum(rate / RATE))) ** 4
    pops = strikes(draw, n, times(draw, n, draw.around(2, 8)), snap(draw, 300, 7800, 0.05), 14)
    return mixed((1, arcs * bursts(draw, n, 2.5, (0.1, 0.8))), (draw.between(0.4, 1), pops), (0.3, hum_at(draw, n, 60)))


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
    tone = np.sin(2 * np.pi * draw.between(2900, 3400) * seconds(n))
    on = (seconds(n) + draw.unit() * 2) % 1.0 < 0.5  # the pattern of a smoke alarm: half a second on, half off
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


def cough_wheeze(draw: Draw, n: int) -> np.ndarray:
    coughs = voiced(draw, n, cough, (0.2, 0.4), (0.05, 0.9))
    hertz = draw.around(300, 900) * slow(draw, n, 2, 0.9, 1.1)
    wheeze = harmonics(draw, hertz, (1, 0.4, 0.2)) * slow(draw, n, 1.5, 0, 1)
    return mixed((1, coughs), (draw.between(0.1, 0.4), wheeze), (0.3, voiced(draw, n, breath, (0.4, 0.9), (0.1, 0.4))))


def sobbing(draw: Draw, n: int) -> np.ndarray:
    pulse = np.sin(2 * np.pi * draw.between(3, 6) * seconds(n)).clip(0)
    hertz = draw.around(180, 500) * slow(draw, n, 3, 0.8, 1.2)
    cry = (
        throat(draw, hertz, (draw.between(500, 900), draw.between(1200, 1900), 2800), 0.4)
        * pulse
        * slow(draw, n, 1, 0.2, 1)
    )
    return mixed((1, cry), (draw.between(0.2, 0.6), voiced(draw, n, breath, (0.15, 0.4), (0.1, 0.5))))


def choking(draw: Draw, n: int) -> np.ndarray:
    """Fits of retching and short breaths between."""
    fits = voiced(draw, n, lambda d, m: mixed((1, cough(d, m)), (d.between(0.4, 1.2), groan(d, m))),
                   (0.15, 0.6), (0.1, 0.8))  # fmt: skip
    moans = voiced(draw, n, groan, (0.4, 1.2), (0.3, 1.2))
    breaths = voiced(draw, n, breath, (0.1, 0.35), (0.05, 0.3))
    return mixed((draw.between(0.3, 1), fits), (draw.between(0.2, 1), moans), (draw.between(0.2, 1), breaths))


def gasping(draw: Draw, n: int) -> np.ndarray:
    air = voiced(draw, n, breath, (0.2, 0.6), (0.05, 0.3))
    moans = voiced(draw, n, groan, (0.3, 0.9), (0.2, 0.8))
    return mixed(
        (1, air),
        (draw.between(0.3, 1), moans),
        (draw.between(0, 0.6), voiced(draw, n, cough, (0.2, 0.4), (0.3, 1.5))),
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
        0.6 + 0.4 * np.sin(2 * np.pi * draw.between(2, 7) * seconds(n))
    )
    slips = beats(draw, n, draw.around(0.012, 0.04), 0.7)
    creak = strikes(draw, n, slips, modes(draw, 250, 2200, 6, (0.02, 0.08)), 8) * bursts(draw, n, 1.5, (0.3, 0.9))
    return mixed((1, rumble), (draw.between(0.3, 0.9), creak))


def swaying_room(draw: Draw, n: int) -> np.ndarray:
    """The ground growls in waves; cupboards knock and what is in them clinks with each."""
    sway = (0.5 + 0.5 * np.sin(2 * np.pi * draw.around(1.5, 6) * seconds(n) + 6 * draw.unit())) ** 2
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
    pain = voiced(draw, n, groan, (0.4, 1.0), (0.2, 0.8))
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
    pain = voiced(draw, n, groan, (0.3, 1.0), (0.2, 1.0))
    pain[: min(when + 5000, n)] = 0
    return mixed((1, landed), (draw.between(0.1, 0.9), frame), (0.3, rolls), (draw.between(0.2, 0.8), pain))


def slip_crash(draw: Draw, n: int) -> np.ndarray:
    start = int(draw.between(0.1, 0.3) * min(n, RATE))
    squeak = harmonics(draw, draw.around(700, 1800) * np.linspace(1, 1.4, n), (1, 0.5, 0.3)) * fade(n, 0.02, 0.02)
    squeak[start:] = 0
    fallen = strikes(draw, n, np.array([min(start, n - 1)]), thump(draw, 45, 120), 0)
    things = np.minimum(start + (draw.around(0.03, 0.7, draw.integer(3, 9)) * RATE).astype(np.int64), n - 1)
    clatter = strikes(draw, n, things, modes(draw, 300, 3500, 10, (0.05, 0.25)), 12)
    pain = voiced(draw, n, groan, (0.4, 1.0), (0.2, 0.8))
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
    hertz = draw.between(2300, 3600) * (1 + 0.04 * np.sin(2 * np.pi * draw.between(25, 50) * seconds(n)))
    blow = (np.sin(2 * np.pi * draw.around(0.8, 2.5) * seconds(n) + 6 * draw.unit()) > -0.3) * 1.0
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

    calls = voiced(draw, n, call, (0.2, 0.8), (0.08, 0.5))
    return mixed((1, calls), (draw.between(0.05, 0.3), band(draw, n, 1500, 6500) * (np.abs(calls) > 0)))


def banged_pot(draw: Draw, n: int) -> np.ndarray:
    """A pan, a pipe or a rail struck without end, to be heard."""
    pot = modes(draw, draw.around(300, 900), 5500, 10, (0.1, 0.7))
    return strikes(draw, n, beats(draw, n, draw.around(0.15, 0.6), 0.1), pot, 4)


def whistle_blows(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.between(2000, 3800) * slow(draw, n, 4, 0.98, 1.02)
    blow = signal.lfilter([0.01], [1, -0.99], (seconds(n) * draw.around(1.0, 3.0) % 1.0 < 0.6) * 1.0)
    whistle = mixed((1, harmonics(draw, hertz, (1, 0.3, 0.1)) * blow), (0.2, band(draw, n, 1800, 6500) * blow))
    knocks = strikes(draw, n, beats(draw, n, draw.between(0.2, 0.5), 0.05), modes(draw, 500, 4500, 8, (0.1, 0.5)), 4)
    return mixed(*draw.choice((((1, whistle), (0.4, knocks)), ((0.3, whistle), (1, knocks)))))
