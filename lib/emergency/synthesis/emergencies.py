"""Procedural sounds of the fourteen emergencies: families of generators for each class."""

from functools import partial

import numpy as np

from lib.emergency.synthesis.generators import RATE, Draw, Families, fade, mixed, seconds, sine, smooth, sweep, within

# --- Safety (치안안전) ---------------------------------------------------------------------------


def scuffle_scream(draw: Draw, n: int) -> np.ndarray:
    cries = draw.voiced(n, Draw.scream, (0.3, 0.9), (0.2, 0.9))
    return mixed((draw.between(0.5, 1), cries), (draw.between(0.4, 1), draw.rustle(n)))


def muffled_struggle(draw: Draw, n: int) -> np.ndarray:
    moans = smooth(0.15, draw.voiced(n, Draw.groan, (0.2, 0.7), (0.1, 0.5)))
    knocks = draw.strikes(n, draw.times(n, 2.5), draw.thump(60, 140))
    return mixed((1, moans), (draw.between(0.4, 1), draw.rustle(n)), (0.6, knocks))


def pulled_away(draw: Draw, n: int) -> np.ndarray:
    cries = draw.voiced(n, Draw.scream, (0.2, 0.5), (0.1, 0.4), 350, 800)
    drag = draw.band(n, 300, draw.around(2000, 5000), 1) * draw.bursts(n, 2.5, (0.2, 0.7))
    return mixed((draw.between(0.5, 1), cries), (draw.between(0.5, 1), drag))


def held_back(draw: Draw, n: int) -> np.ndarray:
    cries = draw.voiced(n, Draw.scream, (0.15, 0.6), (0.2, 0.7), 300, 900)
    muffled = smooth(0.2, draw.voiced(n, Draw.groan, (0.2, 0.5), (0.1, 0.4)))
    pull = draw.band(n, 400, draw.around(2500, 6000), 0.5) * draw.bursts(n, 3, (0.1, 0.5))
    return mixed((1, cries), (draw.between(0.2, 0.8), muffled), (draw.between(0.4, 1), pull))


def door_kick_glass(draw: Draw, n: int) -> np.ndarray:
    kicks = draw.strikes(n, draw.beats(n, draw.between(0.45, 0.9), 0.3), draw.modes(70, 700, 8, (0.1, 0.4)), 4)
    return mixed((1, kicks), (draw.between(0.4, 1), draw.glass(n)))


def shutter_break(draw: Draw, n: int) -> np.ndarray:
    rattle = draw.strikes(n, draw.times(n, draw.around(8, 25)), draw.modes(300, 4500, 14, (0.08, 0.4)), 18)
    return mixed((1, rattle), (draw.between(0.3, 0.9), draw.glass(n)))


def held_up(draw: Draw, n: int) -> np.ndarray:
    """Objects swept off a counter, shouted orders, breaking glass and footsteps."""
    things = draw.strikes(n, draw.times(n, draw.around(1, 3)), draw.modes(200, 5000, 16, (0.06, 0.4)), 10)
    orders = draw.voiced(n, Draw.scream, (0.15, 0.5), (0.15, 0.7), 140, 330)
    parts = [(draw.between(0.5, 1), things), (draw.between(0.2, 0.8), orders)]
    return mixed(*parts, (draw.between(0.2, 0.9), draw.glass(n)), (0.5, draw.walk(n, draw.around(0.25, 0.5))))


def window_smash_run(draw: Draw, n: int) -> np.ndarray:
    blows = draw.strikes(n, draw.times(n, 1.2), draw.thump(80, 200), 4)
    return mixed((1, draw.glass(n)), (0.7, blows), (draw.between(0.3, 0.8), draw.walk(n, draw.between(0.26, 0.38))))


def rummage(draw: Draw, n: int) -> np.ndarray:
    coins = draw.strikes(n, draw.times(n, draw.around(4, 14)), draw.modes(3000, 7200, 6, (0.04, 0.2)), 20)
    slide = draw.band(n, 200, draw.around(1200, 3500), 0.5) * draw.bursts(n, 1.3, (0.2, 0.6))
    return mixed((draw.between(0.3, 1), coins), (1, slide), (draw.between(0.2, 0.8), draw.rustle(n)))


def lock_picking(draw: Draw, n: int) -> np.ndarray:
    clicks = draw.strikes(n, draw.times(n, draw.around(5, 16)), draw.modes(1500, 6500, 7, (0.008, 0.05)), 16)
    scrape = draw.band(n, 2000, 6500) * draw.bursts(n, 2.5, (0.05, 0.25))
    return mixed((1, clicks), (draw.between(0.1, 0.5), scrape))


def coins_in_a_bag(draw: Draw, n: int) -> np.ndarray:
    """Coins or trinkets grabbed and poured by the handful, with snapping clasps."""
    many = draw.times(n, draw.around(15, 40))
    poured = draw.strikes(n, many, draw.modes(2500, 7400, 7, (0.02, 0.15)), 22) * draw.bursts(n, 1.5, (0.3, 1.0))
    clasps = draw.strikes(n, draw.times(n, draw.around(1, 3)), draw.snap(1500, 6500, 0.02), 10)
    return mixed((1, poured), (draw.between(0.2, 0.8), clasps), (draw.between(0.1, 0.6), draw.rustle(n)))


def zip_and_keys(draw: Draw, n: int) -> np.ndarray:
    teeth = np.zeros(n)
    for start in draw.times(n, 1.2)[:5]:
        length = int(draw.between(0.2, 0.6) * RATE)
        gaps = RATE / np.linspace(draw.around(50, 120), draw.around(120, 280), 60)
        when = start + np.cumsum(gaps).astype(np.int64)
        teeth += draw.strikes(n, np.minimum(when[when < start + length], n - 1), draw.snap(2500, 7000, 0.006), 6)
    keys = draw.strikes(n, draw.times(n, draw.around(6, 16)), draw.modes(2500, 7000, 8, (0.03, 0.15)), 18)
    return mixed((draw.between(0.5, 1), teeth), (draw.between(0.3, 1), keys))


def punches(draw: Draw, n: int) -> np.ndarray:
    blows = draw.strikes(n, draw.times(n, draw.around(1.5, 4)), draw.thump(60, 180), 6)
    return mixed((1, blows), (draw.between(0.3, 1), draw.voiced(n, Draw.groan, (0.15, 0.4), (0.2, 0.8))))


def thrown_things(draw: Draw, n: int) -> np.ndarray:
    crash = draw.strikes(n, draw.times(n, draw.around(1, 3)), draw.modes(250, 6000, 20, (0.1, 0.5)), 8)
    shouts = draw.voiced(n, Draw.scream, (0.2, 0.6), (0.3, 1.0), 200, 450)
    return mixed((1, crash), (draw.between(0.4, 1), shouts))


def brawl(draw: Draw, n: int) -> np.ndarray:
    blows = draw.strikes(n, draw.times(n, draw.around(2, 5)), draw.snap(300, 3500, 0.09), 8)
    shouts = draw.voiced(n, Draw.scream, (0.15, 0.5), (0.1, 0.6), 150, 380)
    furniture = draw.strikes(n, draw.times(n, 1), draw.modes(90, 1500, 10, (0.08, 0.3)), 8)
    return mixed((1, blows), (draw.between(0.4, 1), shouts), (draw.between(0.2, 0.8), furniture))


def slaps(draw: Draw, n: int) -> np.ndarray:
    blows = draw.strikes(n, draw.times(n, draw.around(1.5, 4)), draw.snap(500, 5500, 0.07), 6)
    dull = draw.strikes(n, draw.times(n, 1.5), draw.thump(70, 200), 6)
    cries = draw.voiced(n, draw.choice((Draw.groan, partial(Draw.scream, low=220, high=500))), (0.15, 0.5), (0.2, 0.8))
    return mixed((1, blows), (0.6, dull), (draw.between(0.3, 1), cries))


# --- Fire service (소방안전) ----------------------------------------------------------------------


def door_pounding(draw: Draw, n: int) -> np.ndarray:
    wood = draw.modes(90, 1200, 10, (0.08, 0.3))
    return draw.strikes(n, draw.beats(n, draw.between(0.16, 0.4), 0.2), wood, 5)


def handle_rattle(draw: Draw, n: int) -> np.ndarray:
    shaking = draw.beats(n, draw.around(0.05, 0.12), 0.5)
    metal = draw.strikes(n, shaking, draw.modes(700, 5000, 8, (0.02, 0.1)), 10) * draw.slow(n, 2.5, 0, 1)
    knocks = draw.strikes(n, draw.beats(n, draw.between(0.2, 0.45), 0.2), draw.modes(100, 1000, 8, (0.06, 0.2)), 5)
    return mixed((1, metal), (draw.between(0.4, 1), knocks))


def iron_door(draw: Draw, n: int) -> np.ndarray:
    """Fists and feet pounding on booming sheet metal."""
    sheet, pace = draw.modes(80, 3000, 18, (0.15, 0.7)), draw.between(0.15, 0.5)
    fists = draw.strikes(n, draw.beats(n, pace, 0.3), sheet, 6)
    feet = draw.strikes(n, draw.times(n, 1), draw.thump(60, 160), 6)
    return mixed((1, fists), (draw.between(0, 0.8), feet), (draw.between(0, 0.3), draw.rustle(n)))


def lift_panel(draw: Draw, n: int) -> np.ndarray:
    panel = draw.modes(120, 2600, 16, (0.1, 0.5))
    wave = draw.strikes(n, draw.beats(n, draw.between(0.18, 0.45), 0.25), panel, 5)
    bolt = draw.beats(n, draw.around(0.06, 0.12), 0.5)
    shaking = draw.strikes(n, bolt, draw.modes(900, 4500, 6, (0.02, 0.08)), 10)
    return mixed((1, wave), (draw.between(0.1, 0.7), shaking))


def arc_buzz(draw: Draw, n: int) -> np.ndarray:
    hum = draw.hum(n, 60)
    arcs = draw.band(n, 1500, 7500) * (np.abs(sine(n, 60)) ** 6)
    arcs *= draw.slow(n, draw.around(5, 20), -0.6, 1).clip(0)
    return mixed((draw.between(0.2, 0.8), hum), (1, arcs))


def sparks(draw: Draw, n: int) -> np.ndarray:
    flashes = draw.strikes(n, draw.times(n, draw.around(8, 40)), draw.snap(1500, 7800, 0.015), 24)
    sizzle = draw.band(n, 2500, 7800) * draw.bursts(n, 3, (0.05, 0.3))
    return mixed((1, flashes), (draw.between(0.3, 0.9), sizzle), (draw.between(0.1, 0.5), draw.hum(n, 120)))


def burnt_fuse(draw: Draw, n: int) -> np.ndarray:
    """Bangs, each followed by humming and frying that die away."""
    when = draw.times(n, draw.around(0.6, 2.5))
    last = np.zeros(n)
    for start in when:
        last[start:] = np.maximum(last[start:], np.exp(-np.arange(n - start) / (draw.around(0.1, 0.8) * RATE)))
    frying = draw.band(n, draw.around(800, 2500), 7600) * draw.slow(n, draw.around(20, 90), 0, 1) * last
    bangs = draw.strikes(n, when, draw.snap(150, 7500, draw.around(0.03, 0.15)), 8)
    return mixed((1, bangs), (draw.between(0.4, 1), frying), (draw.between(0.1, 0.6), draw.hum(n, 120) * last))


def short_circuit(draw: Draw, n: int) -> np.ndarray:
    rate = 120 * (1 + 0.02 * (draw.slow(n, 5) - 0.5))
    arcs = draw.band(n, 1000, 7800) * np.maximum(0, sweep(rate)) ** 4
    pops = draw.strikes(n, draw.times(n, draw.around(2, 8)), draw.snap(300, 7800, 0.05), 14)
    return mixed((1, arcs * draw.bursts(n, 2.5, (0.1, 0.8))), (draw.between(0.4, 1), pops), (0.3, draw.hum(n, 60)))


def hiss_leak(draw: Draw, n: int) -> np.ndarray:
    jet = draw.band(n, draw.around(1200, 3500), draw.around(5000, 7800)) * draw.slow(n, draw.around(0.8, 5), 0.6, 1)
    centre = draw.around(2000, 5500)
    return mixed((1, jet), (draw.between(0, 0.5), draw.band(n, centre * 0.96, centre * 1.04)))


def valve_sputter(draw: Draw, n: int) -> np.ndarray:
    jet = draw.band(n, draw.around(800, 2500), draw.around(4500, 7800))
    spit = 0.3 + draw.bursts(n, draw.around(5, 14), (0.04, 0.2))
    return jet * spit * fade(n, draw.around(0.02, 0.6), 0.1)


def cylinder_vents(draw: Draw, n: int) -> np.ndarray:
    """A gas jet of falling pressure: its noise becomes duller and its whistle lower."""
    pressure = np.linspace(1, draw.between(0.2, 0.9), n) * draw.slow(n, draw.around(1, 8), 0.7, 1)
    bright, dull = draw.band(n, 3000, 7800), draw.band(n, draw.around(500, 1500), 5000)
    sings = sweep(draw.around(1200, 5000) * (0.5 + 0.5 * pressure)) * draw.slow(n, 20, 0.3, 1)
    return mixed((1, bright * pressure**2 + dull * pressure * draw.between(0.3, 1)), (draw.between(0, 0.5), sings))


def pipe_jet(draw: Draw, n: int) -> np.ndarray:
    tone = sweep(draw.around(1500, 4500) * draw.slow(n, 2, 0.93, 1.07)) * draw.slow(n, 12, 0.2, 1)
    jet = draw.band(n, draw.around(1000, 3000), 7600, -0.5) * draw.slow(n, 6, 0.4, 1)
    return mixed((1, jet), (draw.between(0, 0.4), tone))


def crackle_roar(draw: Draw, n: int) -> np.ndarray:
    roar = draw.band(n, 40, draw.around(250, 900), 1.5) * draw.slow(n, draw.around(2, 6), 0.4, 1)
    pops = draw.strikes(n, draw.times(n, draw.around(8, 35)), draw.snap(900, 6500, draw.around(0.008, 0.03)), 26)
    return mixed((draw.between(0.4, 1), roar), (1, pops))


def crackle_alarm(draw: Draw, n: int) -> np.ndarray:
    pops = draw.strikes(n, draw.times(n, draw.around(12, 45)), draw.snap(700, 7000, draw.around(0.006, 0.02)), 26)
    flutter = draw.band(n, 30, draw.around(300, 1200), 1) * draw.slow(n, 9, 0, 1)
    tone = sine(n, draw.between(2900, 3400))
    on = (seconds(n) + draw.unit() * 2) % 1.0 < 0.5  # the pattern of a smoke alarm: half a second on, half off
    return mixed((1, pops), (draw.between(0.4, 1), flutter), (draw.choice((0, draw.between(0.1, 0.6))), tone * on))


def burning_room(draw: Draw, n: int) -> np.ndarray:
    """A roaring draught with crackling and occasional bursts."""
    draught = draw.band(n, 60, draw.around(400, 2000), 1) * draw.slow(n, draw.around(3, 10), 0.3, 1)
    spark = draw.snap(1000, 7500, draw.around(0.004, 0.02))
    crackle = draw.strikes(n, draw.times(n, draw.around(20, 70)), spark, 30)
    burst = draw.strikes(n, draw.times(n, draw.around(0.5, 3)), draw.snap(200, 4000, draw.around(0.04, 0.15)), 10)
    return mixed((draw.between(0.4, 1), draught), (1, crackle), (draw.between(0, 0.8), burst))


def timber_fire(draw: Draw, n: int) -> np.ndarray:
    big = draw.strikes(n, draw.times(n, draw.around(3, 9)), draw.snap(400, 5000, 0.05), 14)
    small = draw.strikes(n, draw.times(n, draw.around(15, 50)), draw.modes(1200, 6000, 5, (0.006, 0.03)), 26)
    roar = draw.band(n, 50, draw.around(300, 1000), 1.2) * draw.slow(n, 5, 0.3, 1)
    return mixed((0.8, big), (1, small), (draw.between(0.3, 0.9), roar))


def cough_wheeze(draw: Draw, n: int) -> np.ndarray:
    coughs = draw.voiced(n, Draw.cough, (0.2, 0.4), (0.05, 0.9))
    wheeze = draw.harmonics(n, draw.around(300, 900) * draw.slow(n, 2, 0.9, 1.1), (1, 0.4, 0.2))
    wheeze *= draw.slow(n, 1.5, 0, 1)
    parts = [(1, coughs), (draw.between(0.1, 0.4), wheeze)]
    return mixed(*parts, (0.3, draw.voiced(n, Draw.breath, (0.4, 0.9), (0.1, 0.4))))


def sobbing(draw: Draw, n: int) -> np.ndarray:
    pulse = sine(n, draw.between(3, 6)).clip(0)
    hertz = draw.around(180, 500) * draw.slow(n, 3, 0.8, 1.2)
    cry = draw.throat(hertz, (draw.between(500, 900), draw.between(1200, 1900), 2800), 0.4) * pulse
    cry *= draw.slow(n, 1, 0.2, 1)
    return mixed((1, cry), (draw.between(0.2, 0.6), draw.voiced(n, Draw.breath, (0.15, 0.4), (0.1, 0.5))))


def choking(draw: Draw, n: int) -> np.ndarray:
    """Fits of retching with moans and short breaths."""

    def retch(d, m):
        return mixed((1, d.cough(m)), (d.between(0.4, 1.2), d.groan(m)))

    fits = draw.voiced(n, retch, (0.15, 0.6), (0.1, 0.8))
    moans = draw.voiced(n, Draw.groan, (0.4, 1.2), (0.3, 1.2))
    breaths = draw.voiced(n, Draw.breath, (0.1, 0.35), (0.05, 0.3))
    return mixed((draw.between(0.3, 1), fits), (draw.between(0.2, 1), moans), (draw.between(0.2, 1), breaths))


def gasping(draw: Draw, n: int) -> np.ndarray:
    air = draw.voiced(n, Draw.breath, (0.2, 0.6), (0.05, 0.3))
    moans = draw.voiced(n, Draw.groan, (0.3, 0.9), (0.2, 0.8))
    parts = [(1, air), (draw.between(0.3, 1), moans)]
    return mixed(*parts, (draw.between(0, 0.6), draw.voiced(n, Draw.cough, (0.2, 0.4), (0.3, 1.5))))


# --- Disasters (자연재해) -------------------------------------------------------------------------


def gusts(draw: Draw, n: int) -> np.ndarray:
    force = draw.slow(n, draw.around(0.6, 2), 0.1, 1) ** 1.5
    low, high = draw.band(n, 30, 400, 1), draw.band(n, 300, draw.around(1500, 4500), 1)
    return mixed((1, low * force), (draw.between(0.4, 1), high * force**2))


def howl(draw: Draw, n: int) -> np.ndarray:
    force = draw.slow(n, draw.around(0.7, 2), 0.15, 1)
    hertz = draw.around(250, 700) * (0.7 + 0.6 * force)
    wide = 25 * np.cumsum(draw.noise(n)) / np.sqrt(RATE)  # random-walk phase: narrow-band noise
    tone = np.sin(2 * np.pi * np.cumsum(hertz / RATE) + wide) * force**2
    return mixed((draw.between(0.3, 0.9), tone), (1, draw.band(n, 60, draw.around(900, 2500), 1.3) * force))


def flapping_sheet(draw: Draw, n: int) -> np.ndarray:
    """Gusts of wind, and a tarpaulin or sign that flaps in them."""
    force = draw.slow(n, draw.around(0.7, 2.5), 0.1, 1)
    wind = draw.band(n, 30, draw.around(500, 3000), 1) * force
    beat = np.abs(np.sin(np.pi * np.cumsum(draw.around(4, 12) * (0.5 + force) / RATE))) ** 4
    sheet = draw.band(n, draw.around(100, 500), draw.around(1500, 5000), 0.7) * beat * force**2
    return mixed((1, wind), (draw.between(0.2, 0.9), sheet), (draw.between(0, 0.3), draw.band(n, 2000, 7000) * force))


def storm_window(draw: Draw, n: int) -> np.ndarray:
    force = draw.slow(n, draw.around(0.8, 2.5), 0.1, 1)
    wind = draw.band(n, 40, draw.around(600, 2500), 1) * force
    rattle = draw.strikes(n, draw.beats(n, draw.around(0.06, 0.15), 0.6), draw.modes(300, 2500, 8, (0.02, 0.08)), 12)
    rain = draw.band(n, 1500, 7000) * draw.slow(n, 2, 0.5, 1)
    return mixed((1, wind), (draw.between(0.1, 0.6), rattle * force**2), (draw.between(0.05, 0.4), rain))


def rumble_dishes(draw: Draw, n: int) -> np.ndarray:
    shake = draw.slow(n, 3, 0.3, 1) * fade(n, draw.between(0.1, 0.8), 0.3)
    dishes = draw.strikes(n, draw.times(n, draw.around(10, 30)), draw.modes(1500, 6500, 8, (0.03, 0.2)), 20)
    return mixed((1, draw.band(n, 20, draw.around(70, 200), 1) * shake), (draw.between(0.2, 0.8), dishes * shake))


def building_creak(draw: Draw, n: int) -> np.ndarray:
    rumble = draw.band(n, 20, draw.around(90, 260), 0.5) * (0.6 + 0.4 * sine(n, draw.between(2, 7)))
    slips = draw.beats(n, draw.around(0.012, 0.04), 0.7)
    creak = draw.strikes(n, slips, draw.modes(250, 2200, 6, (0.02, 0.08)), 8) * draw.bursts(n, 1.5, (0.3, 0.9))
    return mixed((1, rumble), (draw.between(0.3, 0.9), creak))


def swaying_room(draw: Draw, n: int) -> np.ndarray:
    """The ground rumbles in waves; cupboards knock and their contents clink with each wave."""
    sway = (0.5 + 0.5 * np.sin(2 * np.pi * draw.around(1.5, 6) * seconds(n) + 6 * draw.unit())) ** 2
    growl = draw.band(n, 20, draw.around(60, 180), draw.between(0.3, 1.5)) * (0.4 + 0.6 * sway)
    knocks = draw.strikes(n, draw.times(n, draw.around(6, 16)), draw.modes(120, 1500, 9, (0.03, 0.15)), 16) * sway
    clinks = draw.strikes(n, draw.times(n, draw.around(6, 25)), draw.modes(900, 6500, 9, (0.02, 0.2)), 18) * sway
    return mixed((1, growl), (draw.between(0.2, 0.9), knocks), (draw.between(0, 0.7), clinks))


def shaking_shelves(draw: Draw, n: int) -> np.ndarray:
    when = draw.beats(n, draw.between(0.13, 0.3), 0.3)
    jolts = draw.strikes(n, when, draw.thump(35, 90), 5)
    after = when + int(0.02 * RATE) * (when < n - RATE // 40)
    things = draw.strikes(n, after, draw.modes(500, 5500, 14, (0.03, 0.2)), 12)
    return mixed((1, jolts), (draw.between(0.3, 0.9), things), (0.7, draw.band(n, 25, 150, 1)))


# --- Accidents (사고 발생) ------------------------------------------------------------------------


def thump_groan(draw: Draw, n: int) -> np.ndarray:
    when = np.array([int(draw.between(0, 0.15) * n)])
    body = draw.strikes(n, when, draw.thump(40, 110), 0)
    body += draw.strikes(n, np.minimum(when + int(draw.between(0.06, 0.25) * RATE), n - 1), draw.thump(60, 160), 8)
    pain = draw.voiced(n, Draw.groan, (0.4, 1.0), (0.2, 0.8))
    pain[: min(when[0] + 4000, n)] = 0
    return mixed((1, body), (draw.between(0.2, 0.8), pain))


def stairs(draw: Draw, n: int) -> np.ndarray:
    gaps = draw.between(0.12, 0.28) * draw.between(0.7, 1.3, 30) * np.linspace(1.2, 0.8, 30)
    when = within(np.cumsum(gaps) * RATE, min(n, int(draw.between(0.8, 2.2) * RATE)))
    wave = draw.strikes(n, when, draw.thump(50, 150), 8)
    return mixed((1, wave), (draw.between(0.3, 0.8), draw.strikes(n, when, draw.modes(120, 1500, 8, (0.05, 0.2)), 10)))


def ladder_topples(draw: Draw, n: int) -> np.ndarray:
    """A ladder or chair falls over, a body lands with it, and objects keep rolling."""
    when = int(draw.between(0, 0.2) * n)
    landed = draw.strikes(n, np.array([when]), draw.thump(40, 130), 0)
    bounces = np.minimum(when + (np.cumsum(0.25 * draw.between(0.5, 1) ** np.arange(6)) * RATE).astype(np.int64), n - 1)
    frame = draw.strikes(n, np.concatenate([[when], bounces]), draw.modes(250, 4500, 14, (0.05, 0.4)), 12)
    rolls = draw.strikes(n, np.minimum(bounces[:3] + RATE // 3, n - 1), draw.modes(500, 3000, 6, (0.03, 0.15)), 10)
    pain = draw.voiced(n, Draw.groan, (0.3, 1.0), (0.2, 1.0))
    pain[: min(when + 5000, n)] = 0
    return mixed((1, landed), (draw.between(0.1, 0.9), frame), (0.3, rolls), (draw.between(0.2, 0.8), pain))


def slip_crash(draw: Draw, n: int) -> np.ndarray:
    start = int(draw.between(0.1, 0.3) * min(n, RATE))
    squeak = draw.harmonics(n, draw.around(700, 1800) * np.linspace(1, 1.4, n), (1, 0.5, 0.3)) * fade(n, 0.02, 0.02)
    squeak[start:] = 0
    fallen = draw.strikes(n, np.array([min(start, n - 1)]), draw.thump(45, 120), 0)
    things = np.minimum(start + (draw.around(0.03, 0.7, draw.integer(3, 9)) * RATE).astype(np.int64), n - 1)
    clatter = draw.strikes(n, things, draw.modes(300, 3500, 10, (0.05, 0.25)), 12)
    pain = draw.voiced(n, Draw.groan, (0.4, 1.0), (0.2, 0.8))
    pain[: min(start + 6000, n)] = 0
    parts = [(1, fallen), (draw.between(0, 0.5), squeak), (draw.between(0.2, 0.7), clatter)]
    return mixed(*parts, (draw.between(0.2, 0.7), pain))


def debris(draw: Draw, n: int) -> np.ndarray:
    roar = draw.band(n, 30, draw.around(300, 1000), 1.2) * fade(n, 0.15, 0.7 * n / RATE)
    stones = draw.strikes(n, draw.times(n, draw.around(15, 50)), draw.modes(200, 2500, 14, (0.03, 0.15)), 26)
    return mixed((draw.between(0.6, 1), roar), (1, stones * fade(n, 0.05, 0.8 * n / RATE)))


def beam_crack(draw: Draw, n: int) -> np.ndarray:
    split = int(draw.between(0.15, 0.45) * n)
    cracks = draw.strikes(n, draw.times(n, draw.around(6, 20)), draw.snap(400, 5000, 0.03), 14)
    cracks[split:] *= 0.3
    crash = draw.band(n, 30, draw.around(700, 2500), 1) + draw.strikes(n, draw.times(n, 18), draw.thump(50, 200), 16)
    late = np.exp(-np.maximum(np.arange(n) - split, 0) / (draw.between(0.3, 1.2) * RATE)) * (np.arange(n) >= split)
    return mixed((0.6, cracks), (1, crash * late))


def wall_falls(draw: Draw, n: int) -> np.ndarray:
    """Bricks come down in a few slides, each with impacts and dust."""
    slides = draw.bursts(n, draw.around(0.8, 2.5), (0.4, 1.6))
    bricks = draw.strikes(n, draw.times(n, draw.around(15, 45)), draw.modes(250, 3000, 10, (0.02, 0.12)), 22)
    blows = draw.strikes(n, draw.times(n, draw.around(3, 9)), draw.thump(40, 150), 12)
    dust = draw.band(n, 60, draw.around(600, 5000), 1)
    parts = [(draw.between(0.4, 1), bricks * slides), (draw.between(0.4, 1), blows * slides)]
    return mixed(*parts, (draw.between(0.2, 0.8), dust * slides))


def rockfall(draw: Draw, n: int) -> np.ndarray:
    when = draw.times(n, draw.around(8, 25))
    stones = draw.strikes(n, when, draw.modes(150, 1800, 12, (0.04, 0.2)), 20)
    heavy = draw.strikes(n, when[::3], draw.thump(40, 120), 10)
    dust = draw.band(n, 100, draw.around(1000, 4000), 1) * draw.slow(n, 3, 0.2, 1)
    return mixed((1, stones), (0.8, heavy), (draw.between(0.3, 0.8), dust)) * fade(n, 0.05, 0.4 * n / RATE)


# --- Calls for help (도움요청) --------------------------------------------------------------------


def pea_whistle(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.between(2300, 3600) * (1 + 0.04 * sine(n, draw.between(25, 50)))
    blow = smooth(0.01, np.sin(2 * np.pi * draw.around(0.8, 2.5) * seconds(n) + 6 * draw.unit()) > -0.3)
    return mixed((1, draw.harmonics(n, hertz, (1, 0.2)) * blow), (0.15, draw.band(n, 2000, 6000) * blow))


def tapped_signal(draw: Draw, n: int) -> np.ndarray:
    """Three short, three long, three short knocks on metal."""
    unit = draw.between(0.13, 0.22)
    when = (np.cumsum([0, 1, 1, 2.5, 2, 2, 2.5, 1, 1, 3.5, 1, 1, 2.5, 2, 2]) * unit + 0.02) * RATE
    when = when[when < n].astype(np.int64)
    return draw.strikes(n, when, draw.modes(500, 4000, 9, (0.15, 0.6)), 4)


def finger_whistle(draw: Draw, n: int) -> np.ndarray:
    """Whistling through the fingers: gliding calls that resemble one another."""
    top, glide, rise = draw.around(1500, 3600), draw.between(0.5, 0.95), draw.chance(0.5)

    def call(d, m):
        curve = np.linspace(glide, 1, m) if rise else np.linspace(1, glide, m)
        return d.harmonics(m, top * curve * d.between(0.97, 1.03), (1, 0.15)) * fade(m, 0.02, 0.05)

    calls = draw.voiced(n, call, (0.2, 0.8), (0.08, 0.5))
    return mixed((1, calls), (draw.between(0.05, 0.3), draw.band(n, 1500, 6500) * (np.abs(calls) > 0)))


def banged_pot(draw: Draw, n: int) -> np.ndarray:
    """A pan, pipe or rail struck continuously to attract attention."""
    pot = draw.modes(draw.around(300, 900), 5500, 10, (0.1, 0.7))
    return draw.strikes(n, draw.beats(n, draw.around(0.15, 0.6), 0.1), pot, 4)


def whistle_blows(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.between(2000, 3800) * draw.slow(n, 4, 0.98, 1.02)
    blow = smooth(0.01, seconds(n) * draw.around(1.0, 3.0) % 1.0 < 0.6)
    whistle = mixed((1, draw.harmonics(n, hertz, (1, 0.3, 0.1)) * blow), (0.2, draw.band(n, 1800, 6500) * blow))
    knocks = draw.strikes(n, draw.beats(n, draw.between(0.2, 0.5), 0.05), draw.modes(500, 4500, 8, (0.1, 0.5)), 4)
    return mixed(*draw.choice((((1, whistle), (0.4, knocks)), ((0.3, whistle), (1, knocks)))))


EMERGENCIES: dict[int, Families] = {
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
}
