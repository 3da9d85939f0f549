"""Procedural sounds of the built-in clips: families of generators per class, and hard negatives.

A family turns random numbers and a length into one event: `family(draw, n)` -> (n,) float64 at 16 kHz,
at any scale. Each class has three or four families for training and validation and a different one for the test,
which shares the physics (a crackle, a motor, an impact) but not the recipe. None of them is a recording or was
fitted to one: they resemble the real sound only in rough shape, in time and frequency.
"""

import numpy as np

from lib.emergency.synthesis.emergencies import EMERGENCIES
from lib.emergency.synthesis.generators import RATE, Draw, Families, Family, fade, mixed, seconds, sine, sweep

# --- Ordinary sounds (일반, 정상) ------------------------------------------------------------------


def dishes(draw: Draw, n: int) -> np.ndarray:
    plates = draw.strikes(n, draw.times(n, draw.around(1.5, 5)), draw.modes(900, 6000, 9, (0.05, 0.3)), 18)
    water = draw.band(n, 500, draw.around(3000, 7000), 0.5) * draw.slow(n, 2, 0.2, 1) * draw.gate(n)
    return mixed((1, plates), (draw.between(0.1, 1), water))


def living_room(draw: Draw, n: int) -> np.ndarray:
    talk = draw.voiced(n, Draw.murmur, (0.5, 1.6), (0.1, 0.6))
    clock = draw.strikes(n, draw.beats(n, 0.5, 0.01), draw.snap(2000, 6000, 0.012), 3)
    chair = draw.strikes(n, draw.times(n, 0.8), draw.modes(100, 1200, 8, (0.05, 0.2)), 10)
    parts = [(1, talk), (draw.between(0, 0.4), clock), (draw.between(0.2, 1), chair)]
    return mixed(*parts, (0.4, draw.walk(n, draw.between(0.45, 0.7))))


def cooking(draw: Draw, n: int) -> np.ndarray:
    frying = draw.band(n, draw.around(1500, 3000), 7500) * draw.slow(n, 4, 0.4, 1) * draw.gate(n)
    lids = draw.strikes(n, draw.times(n, draw.around(1, 3)), draw.modes(700, 5500, 10, (0.05, 0.3)), 14)
    talk = draw.voiced(n, Draw.murmur, (0.4, 1.4), (0.2, 0.8))
    return mixed((draw.between(0, 0.6), frying), (draw.between(0.3, 1), lids), (draw.between(0.4, 1), talk))


def kitchen_table(draw: Draw, n: int) -> np.ndarray:
    cutlery = draw.strikes(n, draw.times(n, draw.around(2, 6)), draw.modes(1200, 6500, 7, (0.04, 0.25)), 18)
    talk = draw.voiced(n, Draw.murmur, (0.4, 1.4), (0.1, 0.6))
    water = draw.band(n, 400, 5000, 0.7) * draw.gate(n)
    return mixed((draw.between(0.3, 1), cutlery), (draw.between(0.3, 1), talk), (draw.between(0, 0.6), water))


def traffic(draw: Draw, n: int) -> np.ndarray:
    road = draw.band(n, 50, draw.around(500, 2500), 1) * 0.4
    for _ in range(draw.integer(1, 3)):
        near = np.exp(-(((seconds(n) - draw.between(0, n / RATE)) / draw.between(0.3, 1.2)) ** 2))
        road += draw.band(n, 80, draw.around(800, 4000), 0.7) * near
        road += 0.5 * near * draw.motor(n, draw.around(35, 90), 0.8, 16) / 3
    return road


def birds_steps(draw: Draw, n: int) -> np.ndarray:
    def chirp(d, m):
        hertz = d.around(2200, 5500) * (1 + d.between(-0.3, 0.3) * sine(m, d.around(5, 30)))
        return sweep(hertz) * np.hanning(m)

    song = draw.voiced(n, chirp, (0.06, 0.25), (0.03, 0.7))
    steps = draw.walk(n, draw.between(0.45, 0.7))
    return mixed((1, song), (draw.between(0.2, 1), steps), (draw.between(0.1, 0.7), draw.band(n, 50, 1500, 1)))


def crossing(draw: Draw, n: int) -> np.ndarray:
    """People wait, cars go by, a signal ticks."""
    people = draw.crowd(n, 2, (0.4, 1.5), (0.1, 0.6))
    tick = draw.strikes(n, draw.beats(n, draw.between(0.25, 0.6), 0.01), draw.modes(900, 2500, 3, (0.05, 0.1)), 2)
    steps = draw.walk(n, draw.between(0.4, 0.65))
    parts = [(1, traffic(draw, n)), (draw.between(0.2, 0.8), people), (draw.between(0, 0.4), tick)]
    return mixed(*parts, (draw.between(0, 0.6), steps))


def street_market(draw: Draw, n: int) -> np.ndarray:
    crowd = draw.crowd(n, 4, (0.4, 1.5), (0.05, 0.5))
    horn = draw.harmonics(n, draw.around(300, 550), (1, 0.8, 0.7, 0.5, 0.3)) * draw.bursts(n, 0.6, (0.2, 0.6))
    return mixed((draw.between(0.3, 1), crowd), (draw.between(0.4, 1), traffic(draw, n)), (draw.between(0, 0.5), horn))


def washer_wash(draw: Draw, n: int) -> np.ndarray:
    hum = draw.motor(n, draw.around(45, 110), 0.9)
    return mixed((draw.between(0.4, 1), hum), (1, draw.slosh(n, draw.between(0.6, 1.6)))) * draw.gate(n)


def washer_spin(draw: Draw, n: int) -> np.ndarray:
    start = draw.around(40, 130)
    hertz = np.linspace(start, start * draw.around(0.7, 2.2), n)
    drum = draw.motor(n, hertz, draw.between(0.4, 0.9))
    shake = 1 + draw.between(0.1, 0.8) * np.sin(2 * np.pi * np.cumsum(hertz / RATE) / 5)
    level, air = draw.between(0.3, 1), draw.band(n, 100, draw.around(1000, 4000), 0.7)
    return mixed((1, drum * shake), (level, air * shake)) * draw.gate(n)


def washer_pump(draw: Draw, n: int) -> np.ndarray:
    """The water is pumped out: a hum, and a gurgle when air gets in."""
    hum = draw.motor(n, draw.choice((50, 60)) * draw.between(0.95, 2.1), draw.between(0.5, 1.1))
    gurgle = draw.band(n, 150, draw.around(900, 3500), 0.7) * draw.slow(n, draw.around(5, 14), 0, 1) ** 2
    slosh = draw.slosh(n, draw.between(0.5, 1.2))
    return mixed((1, hum), (draw.between(0.3, 1), gurgle), (0.4, slosh)) * draw.gate(n)


def dryer_drum(draw: Draw, n: int) -> np.ndarray:
    """Warm air, a belt, and a load that tumbles once per turn."""
    turn = draw.between(0.6, 1.4)
    load = draw.strikes(n, draw.beats(n, turn, 0.1), draw.snap(60, draw.around(500, 2000), 0.25), 5)
    zips = draw.strikes(n, draw.beats(n, turn, 0.4), draw.modes(1500, 6500, 6, (0.01, 0.08)), 14)
    air, belt = draw.band(n, 80, draw.around(900, 4500), 0.7), draw.motor(n, draw.around(45, 130), 0.8)
    parts = [(1, air), (draw.between(0.3, 1), belt), (draw.between(0.2, 1), load), (draw.between(0, 0.4), zips)]
    return mixed(*parts) * draw.gate(n)


def tumble_dryer(draw: Draw, n: int) -> np.ndarray:
    hum = draw.motor(n, draw.around(50, 110), 0.8)
    clothes = draw.strikes(n, draw.beats(n, draw.between(0.4, 1.1), 0.15), draw.thump(60, 180), 6)
    buttons = draw.strikes(n, draw.times(n, 2), draw.modes(1000, 4500, 6, (0.02, 0.1)), 10)
    air = draw.band(n, 100, draw.around(800, 3000), 0.8)
    parts = [(draw.between(0.5, 1), hum), (draw.between(0.3, 1), clothes), (0.8, air), (0.2, buttons)]
    return mixed(*parts) * draw.gate(n)


def canister_vacuum(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(180, 420) * draw.slow(n, 1.5, 0.96, 1.04)
    air = draw.band(n, draw.around(150, 500), draw.around(3500, 7500), 0.6) * draw.slow(n, 2, 0.6, 1)
    return mixed((draw.between(0.3, 1), draw.motor(n, hertz, draw.between(0.5, 1))), (1, air)) * draw.gate(n)


def handheld_vacuum(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(450, 1100) * draw.slow(n, 1.5, 0.97, 1.03)
    air = draw.band(n, draw.around(300, 900), draw.around(4000, 7800), 0.2)
    return mixed((1, draw.motor(n, hertz, draw.between(0.5, 1), 14)), (draw.between(0.5, 1), air)) * draw.gate(n)


def upright_vacuum(draw: Draw, n: int) -> np.ndarray:
    """A vacuum pushed back and forth: its pitch drops under load, and grit rattles up the tube."""
    load = 0.5 + 0.5 * np.sin(2 * np.pi * seconds(n) / draw.between(0.8, 2.5) + 6 * draw.unit())
    motor = draw.motor(n, draw.around(150, 600) * (1 - 0.08 * load), draw.between(0.4, 1.1))
    air = draw.band(n, draw.around(150, 600), draw.around(3500, 7800), draw.between(0.2, 0.8)) * (0.6 + 0.4 * load)
    grit = draw.strikes(n, draw.times(n, draw.around(5, 40)), draw.snap(1000, 7000, 0.01), 20) * load
    return mixed((draw.between(0.3, 1), motor), (1, air), (draw.between(0, 0.5), grit)) * draw.gate(n)


def robot_vacuum(draw: Draw, n: int) -> np.ndarray:
    fan = draw.motor(n, draw.around(280, 700) * draw.slow(n, 2, 0.96, 1.04), draw.between(0.5, 1), 16)
    brush = draw.strikes(n, draw.beats(n, draw.around(0.04, 0.1), 0.2), draw.snap(400, 4000, 0.03), 8)
    bumps = draw.strikes(n, draw.times(n, 0.5), draw.thump(80, 200), 6)
    air = draw.band(n, 200, draw.around(3500, 7500), 0.5)
    parts = [(draw.between(0.4, 1), fan), (1, air), (draw.between(0.1, 0.5), brush), (draw.between(0, 0.6), bumps)]
    return mixed(*parts) * draw.gate(n)


def hair_dryer(draw: Draw, n: int) -> np.ndarray:
    air = draw.band(n, draw.around(400, 1200), draw.around(4500, 7500), 0.3) * draw.slow(n, draw.around(1, 4), 0.4, 1)
    coil = draw.motor(n, draw.choice((100, 120)) * draw.between(0.95, 1.05), 0.6, 12)
    return mixed((1, air), (draw.between(0.1, 0.5), coil)) * draw.gate(n)


def microwave(draw: Draw, n: int) -> np.ndarray:
    beeps = sine(n, draw.between(1800, 2600)) * ((seconds(n) + draw.unit()) % 1.0 < 0.35)
    beeps *= seconds(n) > draw.between(0.2, 1) * n / RATE
    fan = draw.band(n, 80, draw.around(700, 2000), 1)
    return mixed((1, draw.hum(n, 60)), (draw.between(0.4, 1), fan), (draw.between(0, 0.8), beeps)) * draw.gate(n)


def fan(draw: Draw, n: int) -> np.ndarray:
    """A ceiling fan, cooker hood or air conditioner: air chopped by the blades over a low hum."""
    chop = 1 + draw.between(0.1, 0.7) * sine(n, draw.around(4, 30))
    air = draw.band(n, 80, draw.around(1200, 5000), draw.between(0.4, 1.2)) * chop
    return mixed((1, air), (draw.between(0.1, 0.6), draw.motor(n, draw.around(50, 120), 0.8, 12))) * draw.gate(n)


def mixer(draw: Draw, n: int) -> np.ndarray:
    blades = draw.motor(n, draw.around(130, 400) * draw.slow(n, 5, 0.8, 1.15), draw.between(0.3, 0.8), 20)
    bowl = draw.strikes(n, draw.times(n, draw.around(3, 9)), draw.modes(500, 3500, 8, (0.04, 0.2)), 12)
    air = draw.band(n, 200, draw.around(2000, 6000), 0.6)
    return mixed((1, blades), (draw.between(0.1, 0.5), bowl), (draw.between(0.2, 0.7), air)) * draw.gate(n)


def blender_hood(draw: Draw, n: int) -> np.ndarray:
    hood = draw.band(n, 80, draw.around(1500, 5000), 0.8)
    load = draw.slow(n, 4, 0.85, 1.1)
    blades = draw.motor(n, draw.around(110, 300) * load, draw.between(0.3, 0.8), 24)
    chunks = draw.strikes(n, draw.times(n, 8), draw.snap(300, 3500, 0.04), 12)
    share = draw.between(0, 1)
    return mixed((1, hood), (share, blades), (0.5 * share, chunks)) * draw.gate(n)


# Class number -> (families for training and validation, families for the test).
FAMILIES: dict[int, Families] = EMERGENCIES | {
    15: ((dishes, living_room, cooking), (kitchen_table,)),
    16: ((traffic, birds_steps, crossing), (street_market,)),
    17: ((washer_wash, washer_spin, washer_pump, dryer_drum), (tumble_dryer,)),
    18: ((canister_vacuum, handheld_vacuum, upright_vacuum), (robot_vacuum,)),
    19: ((hair_dryer, microwave, fan, mixer), (blender_hood,)),
}


# --- Hard negatives: sudden and loud, but harmless ------------------------------------------------


def dropped_pan(draw: Draw, n: int) -> np.ndarray:
    when = np.cumsum(draw.between(0.08, 0.3) * draw.between(0.6, 1, 7) * 0.8 ** np.arange(7)) * RATE
    when = np.concatenate([[0], when[when < n - 1]]).astype(np.int64)
    return draw.strikes(n, when, draw.modes(400, 5500, 18, (0.2, 1.0)), 8)


def door_slam(draw: Draw, n: int) -> np.ndarray:
    when = np.array([n // 20])
    wave = draw.strikes(n, when, draw.modes(60, 900, 10, (0.1, 0.4)), 0)
    return mixed((1, wave), (0.5, draw.strikes(n, when, draw.snap(300, 4000, 0.1), 0)))


def kettle_whistle(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.between(1600, 3200) * np.linspace(draw.between(0.7, 0.95), 1, n) * draw.slow(n, 8, 0.99, 1.01)
    wave = mixed((1, draw.harmonics(n, hertz, (1, 0.3))), (0.3, draw.band(n, 1500, 6000)))
    return wave * fade(n, 0.4 * n / RATE, 0.1)


def laughter(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(160, 420) * draw.slow(n, 3, 0.85, 1.25)
    pulse = sine(n, draw.between(3.5, 6)).clip(0) ** 0.7
    formants = (draw.between(600, 1000), draw.between(1300, 2000), 2800)
    return draw.throat(hertz, formants, 0.2) * pulse * fade(n, 0.05, 0.4)


def dropped_tray(draw: Draw, n: int) -> np.ndarray:
    when = (draw.around(0.02, 0.8, draw.integer(5, 12)) * RATE).astype(np.int64)
    return draw.strikes(n, np.minimum(when, n - 1), draw.modes(600, 6500, 16, (0.1, 0.6)), 12)


def cupboard(draw: Draw, n: int) -> np.ndarray:
    return draw.strikes(n, draw.beats(n, draw.between(0.5, 1.2), 0.4), draw.modes(100, 1600, 10, (0.05, 0.25)), 6)


def singing(draw: Draw, n: int) -> np.ndarray:
    """Somebody sings without words: held notes of a scale, with vibrato."""
    root, rough = draw.around(140, 420), draw.between(0.02, 0.1)
    formants = (draw.between(450, 900), draw.between(1000, 1800), 2800)

    def note(d, m):
        hertz = root * 2 ** (d.choice((0, 2, 4, 5, 7, 9)) / 12) * (1 + 0.015 * sine(m, d.between(4.5, 6.5)))
        return d.throat(hertz, formants, rough) * fade(m, 0.04, 0.08)

    return draw.voiced(n, note, (0.2, 0.8), (0.0, 0.1))


def doorbell(draw: Draw, n: int) -> np.ndarray:
    first, wave = draw.around(500, 900), np.zeros(n)
    for k, ratio in enumerate((1.0, 0.8)):
        place = int(k * draw.between(0.35, 0.6) * RATE)
        tail = seconds(max(n - place, 0))
        ring = np.sin(2 * np.pi * first * ratio * tail) + 0.3 * np.sin(6 * np.pi * first * ratio * tail)
        wave[place:] += np.exp(-4 * tail) * ring
    return wave


# (Training and validation, test). A television saying alarm words is made from speech in `soundscapes`.
DISTRACTORS: Families = (
    (dropped_pan, door_slam, kettle_whistle, laughter),
    (dropped_tray, cupboard, singing, doorbell),
)


# --- Backgrounds ----------------------------------------------------------------------------------


def room_tone(draw: Draw, n: int) -> np.ndarray:
    return draw.band(n, 20, draw.around(400, 6000), draw.between(0.5, 2))


def mains_room(draw: Draw, n: int) -> np.ndarray:
    return mixed((1, room_tone(draw, n)), (draw.between(0.05, 0.5), draw.hum(n, 60)))


def distant_street(draw: Draw, n: int) -> np.ndarray:
    return draw.band(n, 40, draw.around(300, 1500), 1) * draw.slow(n, 0.8, 0.4, 1)


def distant_talk(draw: Draw, n: int) -> np.ndarray:
    talk = draw.crowd(n, 2, (0.4, 1.5), (0.05, 0.5))
    return mixed((1, room_tone(draw, n)), (draw.between(0.2, 0.8), talk))


def open_air(draw: Draw, n: int) -> np.ndarray:
    return draw.band(n, 60, draw.around(2000, 7000), draw.between(0, 1.2)) * draw.slow(n, 1, 0.6, 1)


BACKGROUNDS: tuple[Family, ...] = (room_tone, mains_room, distant_street, distant_talk, open_air)
