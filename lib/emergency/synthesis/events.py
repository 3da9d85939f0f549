"""Procedural sounds of the built-in clips: families of generators per class, and hard negatives.

A family turns random numbers and a length into one event: `family(draw, n)` -> (n,) float64 at 16 kHz,
of any scale. Each class has three or four families for training and validation and another for the test, which
shares the physics (a crackle, a motor, an impact) but not the recipe. None of them is a recording, and
none was fitted to one: what they share with the real sound is its gross form in time and frequency.
"""

import numpy as np

from lib.emergency.synthesis import emergencies
from lib.emergency.synthesis.emergencies import hum_at
from lib.emergency.synthesis.generators import (
    RATE,
    Draw,
    Family,
    band,
    beats,
    bursts,
    cough,
    fade,
    gate,
    harmonics,
    mixed,
    modes,
    motor_at,
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

# --- Where nothing is wrong (일반, 정상) -------------------------------------------------------------


def dishes(draw: Draw, n: int) -> np.ndarray:
    plates = strikes(draw, n, times(draw, n, draw.around(1.5, 5)), modes(draw, 900, 6000, 9, (0.05, 0.3)), 18)
    water = band(draw, n, 500, draw.around(3000, 7000), 0.5) * slow(draw, n, 2, 0.2, 1) * gate(draw, n)
    return mixed((1, plates), (draw.between(0.1, 1), water))


def living_room(draw: Draw, n: int) -> np.ndarray:
    talk = voiced(draw, n, lambda d, m: _murmur(d, m), (0.5, 1.6), (0.1, 0.6))
    clock = strikes(draw, n, beats(draw, n, 0.5, 0.01), snap(draw, 2000, 6000, 0.012), 3)
    chair = strikes(draw, n, times(draw, n, 0.8), modes(draw, 100, 1200, 8, (0.05, 0.2)), 10)
    return mixed(
        (1, talk),
        (draw.between(0, 0.4), clock),
        (draw.between(0.2, 1), chair),
        (0.4, walk(draw, n, draw.between(0.45, 0.7))),
    )


def cooking(draw: Draw, n: int) -> np.ndarray:
    frying = band(draw, n, draw.around(1500, 3000), 7500) * slow(draw, n, 4, 0.4, 1) * gate(draw, n)
    lids = strikes(draw, n, times(draw, n, draw.around(1, 3)), modes(draw, 700, 5500, 10, (0.05, 0.3)), 14)
    talk = voiced(draw, n, _murmur, (0.4, 1.4), (0.2, 0.8))
    return mixed((draw.between(0, 0.6), frying), (draw.between(0.3, 1), lids), (draw.between(0.4, 1), talk))


def kitchen_table(draw: Draw, n: int) -> np.ndarray:
    cutlery = strikes(draw, n, times(draw, n, draw.around(2, 6)), modes(draw, 1200, 6500, 7, (0.04, 0.25)), 18)
    talk = voiced(draw, n, lambda d, m: _murmur(d, m), (0.4, 1.4), (0.1, 0.6))
    water = band(draw, n, 400, 5000, 0.7) * gate(draw, n)
    return mixed((draw.between(0.3, 1), cutlery), (draw.between(0.3, 1), talk), (draw.between(0, 0.6), water))


def _murmur(draw: Draw, n: int) -> np.ndarray:
    """Talk too far away to understand."""
    hertz = draw.around(95, 240) * slow(draw, n, 4, 0.85, 1.15)
    wave = throat(draw, hertz, (draw.between(350, 750), draw.between(900, 2000), 2600), 0.15)
    return wave * slow(draw, n, 5, -0.3, 1).clip(0) * fade(n, 0.05, 0.1)


def traffic(draw: Draw, n: int) -> np.ndarray:
    road = band(draw, n, 50, draw.around(500, 2500), 1) * 0.4
    for _ in range(draw.integer(1, 3)):
        near = np.exp(-(((seconds(n) - draw.between(0, n / RATE)) / draw.between(0.3, 1.2)) ** 2))
        road += band(draw, n, 80, draw.around(800, 4000), 0.7) * near
        road += 0.5 * near * motor_at(draw, np.full(n, draw.around(35, 90)), 0.8, 16) / 3
    return road


def birds_steps(draw: Draw, n: int) -> np.ndarray:
    def chirp(d, m):
        sweep = d.around(2200, 5500) * (1 + d.between(-0.3, 0.3) * np.sin(2 * np.pi * d.around(5, 30) * seconds(m)))
        return np.sin(2 * np.pi * np.cumsum(sweep / RATE)) * np.hanning(m)

    song = voiced(draw, n, chirp, (0.06, 0.25), (0.03, 0.7))
    steps = walk(draw, n, draw.between(0.45, 0.7))
    return mixed((1, song), (draw.between(0.2, 1), steps), (draw.between(0.1, 0.7), band(draw, n, 50, 1500, 1)))


def crossing(draw: Draw, n: int) -> np.ndarray:
    """People wait, cars go by, a signal ticks."""
    people = sum(voiced(draw, n, _murmur, (0.4, 1.5), (0.1, 0.6)) for _ in range(2))
    tick = strikes(draw, n, beats(draw, n, draw.between(0.25, 0.6), 0.01), modes(draw, 900, 2500, 3, (0.05, 0.1)), 2)
    steps = walk(draw, n, draw.between(0.4, 0.65))
    return mixed(
        (1, traffic(draw, n)),
        (draw.between(0.2, 0.8), people),
        (draw.between(0, 0.4), tick),
        (draw.between(0, 0.6), steps),
    )


def street_market(draw: Draw, n: int) -> np.ndarray:
    crowd = sum(voiced(draw, n, _murmur, (0.4, 1.5), (0.05, 0.5)) for _ in range(4))
    horn = harmonics(draw, np.full(n, draw.around(300, 550)), (1, 0.8, 0.7, 0.5, 0.3)) * bursts(
        draw, n, 0.6, (0.2, 0.6)
    )
    return mixed((draw.between(0.3, 1), crowd), (draw.between(0.4, 1), traffic(draw, n)), (draw.between(0, 0.5), horn))


def _slosh(draw: Draw, n: int, period: float) -> np.ndarray:
    swing = (0.5 + 0.5 * np.sin(2 * np.pi * seconds(n) / period + 6 * draw.unit())) ** 2
    return band(draw, n, 150, draw.around(1200, 4000), 1) * swing


def washer_wash(draw: Draw, n: int) -> np.ndarray:
    hum = motor_at(draw, np.full(n, draw.around(45, 110)), 0.9)
    wave = mixed((draw.between(0.4, 1), hum), (1, _slosh(draw, n, draw.between(0.6, 1.6))))
    return wave * gate(draw, n)


def washer_spin(draw: Draw, n: int) -> np.ndarray:
    start = draw.around(40, 130)
    hertz = np.linspace(start, start * draw.around(0.7, 2.2), n)
    drum = motor_at(draw, hertz, draw.between(0.4, 0.9))
    shake = 1 + draw.between(0.1, 0.8) * np.sin(2 * np.pi * np.cumsum(hertz / RATE) / 5)
    return mixed(
        (1, drum * shake), (draw.between(0.3, 1), band(draw, n, 100, draw.around(1000, 4000), 0.7) * shake)
    ) * gate(draw, n)


def washer_pump(draw: Draw, n: int) -> np.ndarray:
    """The water is pumped out: a hum, and a gurgle when air gets in."""
    hum = motor_at(draw, np.full(n, draw.choice((50, 60)) * draw.between(0.95, 2.1)), draw.between(0.5, 1.1))
    gurgle = band(draw, n, 150, draw.around(900, 3500), 0.7) * slow(draw, n, draw.around(5, 14), 0, 1) ** 2
    slosh = _slosh(draw, n, draw.between(0.5, 1.2))
    return mixed((1, hum), (draw.between(0.3, 1), gurgle), (0.4, slosh)) * gate(draw, n)


def dryer_drum(draw: Draw, n: int) -> np.ndarray:
    """Warm air, a belt, and a load that falls over once a turn."""
    turn = draw.between(0.6, 1.4)
    load = strikes(draw, n, beats(draw, n, turn, 0.1), snap(draw, 60, draw.around(500, 2000), 0.25), 5)
    zips = strikes(draw, n, beats(draw, n, turn, 0.4), modes(draw, 1500, 6500, 6, (0.01, 0.08)), 14)
    air, belt = band(draw, n, 80, draw.around(900, 4500), 0.7), motor_at(draw, np.full(n, draw.around(45, 130)), 0.8)
    parts = [(1, air), (draw.between(0.3, 1), belt), (draw.between(0.2, 1), load), (draw.between(0, 0.4), zips)]
    return mixed(*parts) * gate(draw, n)


def tumble_dryer(draw: Draw, n: int) -> np.ndarray:
    hum = motor_at(draw, np.full(n, draw.around(50, 110)), 0.8)
    clothes = strikes(draw, n, beats(draw, n, draw.between(0.4, 1.1), 0.15), thump(draw, 60, 180), 6)
    buttons = strikes(draw, n, times(draw, n, 2), modes(draw, 1000, 4500, 6, (0.02, 0.1)), 10)
    air = band(draw, n, 100, draw.around(800, 3000), 0.8)
    return mixed((draw.between(0.5, 1), hum), (draw.between(0.3, 1), clothes), (0.8, air), (0.2, buttons)) * gate(
        draw, n
    )


def canister_vacuum(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(180, 420) * slow(draw, n, 1.5, 0.96, 1.04)
    air = band(draw, n, draw.around(150, 500), draw.around(3500, 7500), 0.6) * slow(draw, n, 2, 0.6, 1)
    return mixed((draw.between(0.3, 1), motor_at(draw, hertz, draw.between(0.5, 1))), (1, air)) * gate(draw, n)


def handheld_vacuum(draw: Draw, n: int) -> np.ndarray:
    hertz = draw.around(450, 1100) * slow(draw, n, 1.5, 0.97, 1.03)
    air = band(draw, n, draw.around(300, 900), draw.around(4000, 7800), 0.2)
    return mixed((1, motor_at(draw, hertz, draw.between(0.5, 1), 14)), (draw.between(0.5, 1), air)) * gate(draw, n)


def upright_vacuum(draw: Draw, n: int) -> np.ndarray:
    """Pushed to and fro: the tone sags with the load, and grit rattles up the tube."""
    load = 0.5 + 0.5 * np.sin(2 * np.pi * seconds(n) / draw.between(0.8, 2.5) + 6 * draw.unit())
    motor = motor_at(draw, draw.around(150, 600) * (1 - 0.08 * load), draw.between(0.4, 1.1))
    air = band(draw, n, draw.around(150, 600), draw.around(3500, 7800), draw.between(0.2, 0.8)) * (0.6 + 0.4 * load)
    grit = strikes(draw, n, times(draw, n, draw.around(5, 40)), snap(draw, 1000, 7000, 0.01), 20) * load
    return mixed((draw.between(0.3, 1), motor), (1, air), (draw.between(0, 0.5), grit)) * gate(draw, n)


def robot_vacuum(draw: Draw, n: int) -> np.ndarray:
    fan = motor_at(draw, draw.around(280, 700) * slow(draw, n, 2, 0.96, 1.04), draw.between(0.5, 1), 16)
    brush = strikes(draw, n, beats(draw, n, draw.around(0.04, 0.1), 0.2), snap(draw, 400, 4000, 0.03), 8)
    bumps = strikes(draw, n, times(draw, n, 0.5), thump(draw, 80, 200), 6)
    air = band(draw, n, 200, draw.around(3500, 7500), 0.5)
    return mixed(
        (draw.between(0.4, 1), fan), (1, air), (draw.between(0.1, 0.5), brush), (draw.between(0, 0.6), bumps)
    ) * gate(draw, n)


def hair_dryer(draw: Draw, n: int) -> np.ndarray:
    air = band(draw, n, draw.around(400, 1200), draw.around(4500, 7500), 0.3) * slow(draw, n, draw.around(1, 4), 0.4, 1)
    coil = motor_at(draw, np.full(n, draw.choice((100, 120)) * draw.between(0.95, 1.05)), 0.6, 12)
    return mixed((1, air), (draw.between(0.1, 0.5), coil)) * gate(draw, n)


def microwave(draw: Draw, n: int) -> np.ndarray:
    beeps = np.sin(2 * np.pi * draw.between(1800, 2600) * seconds(n)) * ((seconds(n) + draw.unit()) % 1.0 < 0.35)
    beeps *= seconds(n) > draw.between(0.2, 1) * n / RATE
    fan = band(draw, n, 80, draw.around(700, 2000), 1)
    return mixed((1, hum_at(draw, n, 60)), (draw.between(0.4, 1), fan), (draw.between(0, 0.8), beeps)) * gate(draw, n)


def fan(draw: Draw, n: int) -> np.ndarray:
    """Of a ceiling, a hood or an air conditioner: air that the blades chop, over a low hum."""
    chop = 1 + draw.between(0.1, 0.7) * np.sin(2 * np.pi * draw.around(4, 30) * seconds(n))
    air = band(draw, n, 80, draw.around(1200, 5000), draw.between(0.4, 1.2)) * chop
    return mixed((1, air), (draw.between(0.1, 0.6), motor_at(draw, np.full(n, draw.around(50, 120)), 0.8, 12))) * gate(
        draw, n
    )


def mixer(draw: Draw, n: int) -> np.ndarray:
    blades = motor_at(draw, draw.around(130, 400) * slow(draw, n, 5, 0.8, 1.15), draw.between(0.3, 0.8), 20)
    bowl = strikes(draw, n, times(draw, n, draw.around(3, 9)), modes(draw, 500, 3500, 8, (0.04, 0.2)), 12)
    air = band(draw, n, 200, draw.around(2000, 6000), 0.6)
    return mixed((1, blades), (draw.between(0.1, 0.5), bowl), (draw.between(0.2, 0.7), air)) * gate(draw, n)


def blender_hood(draw: Draw, n: int) -> np.ndarray:
    hood = band(draw, n, 80, draw.around(1500, 5000), 0.8)
    load = slow(draw, n, 4, 0.85, 1.1)
    blades = motor_at(draw, draw.around(110, 300) * load, draw.between(0.3, 0.8), 24)
    chunks = strikes(draw, n, times(draw, n, 8), snap(draw, 300, 3500, 0.04), 12)
    share = draw.between(0, 1)
    return mixed((1, hood), (share, blades), (0.5 * share, chunks)) * gate(draw, n)


# Class number -> (families of training and validation, families of the test).
FAMILIES: dict[int, tuple[tuple[Family, ...], tuple[Family, ...]]] = {
    1: ((emergencies.scuffle_scream, emergencies.muffled_struggle, emergencies.held_back), (emergencies.pulled_away,)),
    2: ((emergencies.door_kick_glass, emergencies.shutter_break, emergencies.held_up), (emergencies.window_smash_run,)),
    3: ((emergencies.rummage, emergencies.lock_picking, emergencies.coins_in_a_bag), (emergencies.zip_and_keys,)),
    4: ((emergencies.punches, emergencies.thrown_things, emergencies.brawl), (emergencies.slaps,)),
    5: ((emergencies.door_pounding, emergencies.handle_rattle, emergencies.iron_door), (emergencies.lift_panel,)),
    6: ((emergencies.arc_buzz, emergencies.sparks, emergencies.burnt_fuse), (emergencies.short_circuit,)),
    7: ((emergencies.hiss_leak, emergencies.valve_sputter, emergencies.cylinder_vents), (emergencies.pipe_jet,)),
    8: ((emergencies.crackle_roar, emergencies.crackle_alarm, emergencies.burning_room), (emergencies.timber_fire,)),
    9: ((emergencies.cough_wheeze, emergencies.sobbing, emergencies.choking), (emergencies.gasping,)),
    10: ((emergencies.gusts, emergencies.howl, emergencies.flapping_sheet), (emergencies.storm_window,)),
    11: (
        (emergencies.rumble_dishes, emergencies.building_creak, emergencies.swaying_room),
        (emergencies.shaking_shelves,),
    ),
    12: ((emergencies.thump_groan, emergencies.stairs, emergencies.ladder_topples), (emergencies.slip_crash,)),
    13: ((emergencies.debris, emergencies.beam_crack, emergencies.wall_falls), (emergencies.rockfall,)),
    14: (
        (emergencies.pea_whistle, emergencies.tapped_signal, emergencies.finger_whistle, emergencies.banged_pot),
        (emergencies.whistle_blows,),
    ),
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
    pulse = np.sin(2 * np.pi * draw.between(3.5, 6) * seconds(n)).clip(0) ** 0.7
    return (
        throat(draw, hertz, (draw.between(600, 1000), draw.between(1300, 2000), 2800), 0.2) * pulse * fade(n, 0.05, 0.4)
    )


def dropped_tray(draw: Draw, n: int) -> np.ndarray:
    when = (draw.around(0.02, 0.8, draw.integer(5, 12)) * RATE).astype(np.int64)
    return strikes(draw, n, np.minimum(when, n - 1), modes(draw, 600, 6500, 16, (0.1, 0.6)), 12)


def cupboard(draw: Draw, n: int) -> np.ndarray:
    return strikes(draw, n, beats(draw, n, draw.between(0.5, 1.2), 0.4), modes(draw, 100, 1600, 10, (0.05, 0.25)), 6)


def sneeze(draw: Draw, n: int) -> np.ndarray:
    return voiced(draw, n, cough, (0.25, 0.5), (0.4, 1.2))


def doorbell(draw: Draw, n: int) -> np.ndarray:
    first, wave = draw.around(500, 900), np.zeros(n)
    for k, ratio in enumerate((1.0, 0.8)):
        place = int(k * draw.between(0.35, 0.6) * RATE)
        tail = seconds(max(n - place, 0))
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
    return mixed((1, room_tone(draw, n)), (draw.between(0.05, 0.5), hum_at(draw, n, 60)))


def distant_street(draw: Draw, n: int) -> np.ndarray:
    return band(draw, n, 40, draw.around(300, 1500), 1) * slow(draw, n, 0.8, 0.4, 1)


def distant_talk(draw: Draw, n: int) -> np.ndarray:
    talk = sum(voiced(draw, n, _murmur, (0.4, 1.5), (0.05, 0.5)) for _ in range(2))
    return mixed((1, room_tone(draw, n)), (draw.between(0.2, 0.8), talk))


def open_air(draw: Draw, n: int) -> np.ndarray:
    return band(draw, n, 60, draw.around(2000, 7000), draw.between(0, 1.2)) * slow(draw, n, 1, 0.6, 1)


BACKGROUNDS: tuple[Family, ...] = (room_tone, mains_room, distant_street, distant_talk, open_air)


def families(number: int, split: str) -> tuple[Family, ...]:
    """The generators of class `number` (1..19) used in `split`; validation uses those of training."""
    return FAMILIES[number][split == "test"]


def distractors(split: str) -> tuple[Family, ...]:
    return DISTRACTORS[split == "test"]
