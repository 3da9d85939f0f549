"""`shapes`: ten procedural classes of small colour images, the built-in stand-in for CIFAR-10.

Every image shows one shape (disk, square, ... H) on a textured background with clutter. Position,
size, rotation, colours and texture are drawn independently of the class, and all shapes of one
scale have the same area: only the outline reveals the class, not colour or coverage.

The same seed gives the same bytes on every machine. All random numbers are raw PCG64 words, a
stream that NumPy never changes, and all further arithmetic is on integers (the one matrix product
is exact, see `_value_noise`). Image `i` depends on (seed, split, i) alone: 100 images are the first
100 of 1,000, and an image of 64 px shows the same scene as at 32 px in more detail.

Lengths are in units of 1/1024 of the image side, angles in degrees, colours in 0..255.
"""

import numpy as np
import torch

from lib.data.outlines import CELLS, CLASSES, COS, SIN, UNIT, templates

BACKGROUNDS = ("noise", "gradient", "stripes", "checks", "rings")
SPLITS = ("train", "test")
SIZES = range(8, 513)  # below, shapes are indistinguishable; above, 32-bit products overflow

_SIDE = 1024  # units in an image side
_SCALES = (150, 245)  # radius of the disk: smallest, largest
_SPECKS = 5  # small discs of clutter behind the shape
_CHUNK = 128 * 1024  # pixels rendered together, few enough to stay in the processor's cache


def draw_shapes(
    count: int,
    *,
    size: int = 32,
    seed: int = 0,
    split: str = "train",
    plain: bool = False,
    still: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]]:
    """Draw the first `count` images of the stream (seed, split).

    Each block of ten images, counted from the first, holds every class once.

    plain: the same shapes, but bright, enlarged, upright and centred, on dark flat backgrounds without
    clutter, shading and grain, for models that train for only a minute.
    still: if False, plain shapes keep the position, size and rotation of the stream.

    Returns:
        pixels: (count, 3, size, size) uint8.
        labels: (count,) int64, an index into `CLASSES`.
        factors: generative factors, int64 arrays (count,): "class" (the labels), "hue" and
            "orientation" in degrees, "x", "y" (centre) and "scale" (radius of the disk of equal
            area) in 1/1024 of the side, "background" (index into `BACKGROUNDS`).

    Raises:
        ValueError: the size is out of range.
    """
    if size not in SIZES:
        raise ValueError(f"size is {size}, expected {SIZES.start} to {SIZES.stop - 1} pixels.")
    rows = -(-count // len(CLASSES)) * len(CLASSES)  # whole rounds over the classes
    # Row i belongs to image i, whatever `rows` is.
    source = np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=(SPLITS.index(split),)))
    words = source.random_raw(rows * _WORDS).reshape(rows, _WORDS)
    order = np.argsort(words[:, 0].reshape(-1, len(CLASSES)), axis=1, kind="stable").reshape(-1)
    drawn = _draw(words[:count])
    if plain and still:
        drawn["orientation"][:] = 0
        drawn["x"][:] = drawn["y"][:] = _SIDE // 2
        drawn["scale"] = drawn["scale"] * 5 // 4
    if plain:
        drawn["ink"] = _colour(drawn["hue"], np.full(count, 160), np.full(count, 190))
        drawn["paper_a"] = drawn["paper_a"] // 4
    drawn["class"] = order[:count].astype(np.int64)

    pixels = np.empty((count, 3, size, size), np.uint8)
    step = max(_CHUNK // size**2, 1)
    for start in range(0, count, step):
        part = slice(start, start + step)
        pixels[part] = _render({name: value[part] for name, value in drawn.items()}, size, plain)
    factors = {name: drawn[name] for name in ("class", "hue", "orientation", "x", "y", "scale", "background")}
    return torch.from_numpy(pixels), torch.from_numpy(drawn["class"]), factors


# --- Random numbers -----------------------------------------------------------------------------

_WORDS = 64  # 64-bit words per image; unused ones leave room for new factors


def _draw(words: np.ndarray) -> dict[str, np.ndarray]:
    """Draw every factor of every image, int64 (N,) or (N, k), independently of the class."""
    column = iter(range(1, _WORDS))

    def integer(low, high, count=None):
        """Draw uniformly from low..high inclusive: (N,), where low and high may be (N,) too, or (N, count)."""
        index = next(column) if count is None else [next(column) for _ in range(count)]
        value = (words[:, index] >> np.uint64(33)).astype(np.int64)
        return low + (value * (high - low + 1) >> 31)

    drawn = {"orientation": integer(0, 359), "hue": integer(0, 359), "scale": integer(*_SCALES)}
    margin = drawn["scale"] * 5 // 4  # tips of the longest shapes may touch the border
    drawn["x"] = integer(margin, _SIDE - margin)
    drawn["y"] = integer(margin, _SIDE - margin)
    drawn["background"] = integer(0, len(BACKGROUNDS) - 1)

    # Shape and background differ in lightness by more than the texture varies, so the shape is visible.
    lightness = integer(45, 210)
    step = integer(48, 96) * (2 * integer(0, 1) - 1)
    step = np.where((lightness + step < 20) | (lightness + step > 235), -step, step)
    swing = integer(8, 30)
    drawn["ink"] = _colour(drawn["hue"], integer(40, 160), lightness + step)
    base = integer(0, 359)
    drawn["paper_a"] = _colour(base, integer(20, 140), lightness - swing)
    drawn["paper_b"] = _colour((base + integer(0, 120)) % 360, integer(20, 140), lightness + swing)
    drawn["ink_shade"] = integer(-24, 24)

    drawn["texture_angle"] = integer(0, 359)
    drawn["texture_period"] = integer(130, 420)
    drawn["texture_phase"] = integer(0, 4095)
    drawn["texture_centre"] = integer(-200, _SIDE + 200, 2)
    drawn["grain"] = integer(4, 24)  # amplitude of the pixel noise
    drawn["speck_x"] = integer(0, _SIDE, _SPECKS)
    drawn["speck_y"] = integer(0, _SIDE, _SPECKS)
    drawn["speck_radius"] = integer(25, 75, _SPECKS)
    speck_hue, speck_lightness = integer(0, 359, _SPECKS), integer(30, 225, _SPECKS)
    drawn["speck_colour"] = _colour(speck_hue, integer(40, 160, _SPECKS), speck_lightness)
    drawn["key"] = integer(0, 2**31 - 1)  # of the counter-based noise
    return drawn


def _hash(counter: np.ndarray) -> np.ndarray:
    """Mix uint32 to uint32 (the finaliser of MurmurHash3): noise without a stream."""
    value = counter ^ (counter >> np.uint32(16))
    value *= np.uint32(0x85EBCA6B)
    value ^= value >> np.uint32(13)
    value *= np.uint32(0xC2B2AE35)
    value ^= value >> np.uint32(16)
    return value


def _colour(hue: np.ndarray, saturation: np.ndarray, lightness: np.ndarray) -> np.ndarray:
    """Convert hue (degrees), saturation (0..256) and lightness (0..255) to RGB (..., 3) in 0..255."""
    position = hue[..., None] * 256 // 60 + np.array([0, 1024, 512])  # red, green, blue
    pure = np.clip(np.abs(position % 1536 - 768) - 256, 0, 255)
    luma = (pure * np.array([77, 150, 29])).sum(-1, keepdims=True) >> 8
    return np.clip(lightness[..., None] + ((pure - luma) * saturation[..., None] >> 8), 0, 255)


# --- Rendering ----------------------------------------------------------------------------------


def _along(angle: np.ndarray, x: np.ndarray, y: np.ndarray, size: int, one: np.ndarray | int) -> np.ndarray:
    """Return (N, size, size) int32 distances of pixel centres from (x, y) along `angle`.

    The length `one` (in 1/1024 of the side) becomes 64 * `UNIT`.
    """
    pixel = (2 * np.arange(size, dtype=np.int64) + 1) * (_SIDE // 2)  # in 1/(1024 size) of the side
    scale = np.broadcast_to(np.asarray(one, np.int64), x.shape) * size << 14
    unit = 64 * UNIT
    horizontal = (pixel - x[:, None] * size) * (COS[angle][:, None] * unit) // scale[:, None]
    vertical = (pixel - y[:, None] * size) * (SIN[angle][:, None] * unit) // scale[:, None]
    return horizontal.astype(np.int32)[:, None, :] + vertical.astype(np.int32)[:, :, None]


def _coverage(drawn: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Return how much of each pixel the shape covers, (N, size, size) int32 in 0..256."""
    where = (drawn["x"], drawn["y"], size, drawn["scale"])
    u = _along(drawn["orientation"], *where)
    v = _along((drawn["orientation"] + 90) % 360, *where)
    for axis in (u, v):
        axis >>= 6
        axis += CELLS // 2
        np.clip(axis, 0, CELLS - 1, out=axis)
    v *= CELLS
    v += u
    v += (drawn["class"] * CELLS**2).astype(np.int32)[:, None, None]
    distance = templates().reshape(-1).take(v).astype(np.int32)
    # A ramp one pixel wide, centred on the outline: 1024 in the table are `scale` units of the side.
    distance *= (drawn["scale"] * size).astype(np.int32)[:, None, None]
    distance >>= 12
    distance += 128
    return np.clip(distance, 0, 256, out=distance)


def _value_noise(key: np.ndarray, size: int, cells: int) -> np.ndarray:
    """Return bilinearly interpolated random values on a lattice of `cells` squares, (N, size, size) int32 in 0..255."""
    knots = np.arange((cells + 1) ** 2, dtype=np.uint32) + np.uint32(cells << 16)
    lattice = _hash(knots + (key.astype(np.uint32) * np.uint32(2654435761))[:, None]) >> np.uint32(24)
    lattice = lattice.reshape(-1, cells + 1, cells + 1).astype(np.float32)
    position = (2 * np.arange(size) + 1) * cells * 32 // size  # in 1/64 cell
    weights = np.zeros((size, cells + 1), np.float32)
    weights[np.arange(size), position // 64] = 64 - position % 64
    weights[np.arange(size), position // 64 + 1] = position % 64
    # Integers below 255 * 64 * 64 < 2**24: float32 holds every partial sum exactly, in any order.
    return (weights @ lattice @ weights.T).astype(np.int32) >> 12


def _wave(phase: np.ndarray, sharpness: int) -> np.ndarray:
    """Return a triangle wave of period 4096 with clipped tips, int32 in -128..128."""
    return np.clip((np.abs((phase & 4095) - 2048) - 1024) * sharpness >> 3, -128, 128)


def _background(drawn: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Return the mixing weight of the two background colours, (N, size, size) int32 in 0..256."""
    noise = _value_noise(drawn["key"], size, 4) + _value_noise(drawn["key"], size, 11) // 2 - 64
    mixture = noise.copy()
    centre, angle, period = drawn["texture_centre"], drawn["texture_angle"], drawn["texture_period"]
    for kind, name in enumerate(BACKGROUNDS[1:], start=1):
        rows = np.flatnonzero(drawn["background"] == kind)
        if not len(rows):
            continue
        x, y = centre[rows].T
        # The gradient spans the side once; the other patterns repeat with their period.
        one = 2 * _SIDE if name == "gradient" else period[rows]
        phase = drawn["texture_phase"][rows].astype(np.int32)[:, None, None]
        u = _along(angle[rows], x, y, size, one)
        if name == "gradient":
            pattern = _wave(u + phase, 1)
        elif name == "stripes":
            pattern = _wave(u + phase, 3)
        else:
            v = _along((angle[rows] + 90) % 360, x, y, size, one)
            if name == "checks":
                pattern = _wave(u + phase, 3) * _wave(v, 3) >> 7
            else:
                squared = u.astype(np.float64) ** 2 + v.astype(np.float64) ** 2  # exact: below 2**53
                pattern = _wave(np.sqrt(squared).astype(np.int32) + phase, 3)
        mixture[rows] = 128 + (pattern * 3 >> 2) + (noise[rows] - 128 >> 2)
    return np.clip(mixture, 0, 256, out=mixture)


def _mix(image: np.ndarray, colour: np.ndarray, coverage: np.ndarray) -> None:
    """Blend `colour` (N, 3) or (N, 3, S, S) over `image` (N, 3, S, S) in place; a coverage of 256 is opaque."""
    if colour.ndim == 2:
        colour = colour.astype(np.int32)[:, :, None, None]
    image += (colour - image) * coverage[:, None] >> 8


def _render(drawn: dict[str, np.ndarray], size: int, plain: bool) -> np.ndarray:
    """Render images (N, 3, size, size) uint8."""
    image = np.empty((len(drawn["x"]), 3, size, size), np.int32)
    image[:] = drawn["paper_a"][:, :, None, None]
    if plain:
        _mix(image, drawn["ink"], _coverage(drawn, size))
        return np.clip(image, 0, 255, out=image).astype(np.uint8)
    _mix(image, drawn["paper_b"], _background(drawn, size))

    pixel = (2 * np.arange(size) + 1) * (_SIDE // 2) // size
    for k in range(_SPECKS):
        x, y, radius = (drawn[f"speck_{name}"][:, k, None] for name in ("x", "y", "radius"))
        square_x, square_y = ((pixel - x) ** 2).astype(np.int32), ((pixel - y) ** 2).astype(np.int32)
        edge = (2 * radius * _SIDE // size).astype(np.int32)[:, :, None]  # a ramp of one pixel, in squared units
        depth = (radius**2).astype(np.int32)[:, :, None] - square_x[:, None, :] - square_y[:, :, None]
        np.clip(depth, -edge, edge, out=depth)
        _mix(image, drawn["speck_colour"][:, k], 128 + depth * 128 // edge)

    # The ink varies over the shape, like the surface of a real object.
    shade = (_value_noise(drawn["key"] ^ 0x5A5A, size, 3) - 128) * 2
    shade = shade * drawn["ink_shade"].astype(np.int32)[:, None, None] >> 8
    ink = drawn["ink"].astype(np.int32)[:, :, None, None] + shade[:, None]
    _mix(image, ink, _coverage(drawn, size))

    # Grain: the sum of two uniform bytes per channel value, so that small values are more likely.
    counter = np.arange(3 * size * size, dtype=np.uint32) + np.uint32(1 << 24)
    bits = _hash(counter + (drawn["key"].astype(np.uint32) * np.uint32(0x9E3779B1))[:, None])
    grain = ((bits & np.uint32(255)) + (bits >> np.uint32(24))).astype(np.int32).reshape(image.shape) - 255
    image += grain * drawn["grain"].astype(np.int32)[:, None, None, None] >> 8
    return np.clip(image, 0, 255, out=image).astype(np.uint8)
