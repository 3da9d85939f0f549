"""Outlines of the ten shapes as integer polygons, and tables of signed distances to them."""

import functools
import math

import numpy as np

CLASSES = ("disk", "square", "triangle", "cross", "ring", "star", "crescent", "arrow", "heart", "H")
UNIT = 64  # table cells in the radius of the disk
CELLS = 4 * UNIT  # side of a table, which reaches two disk radii in each direction

# Fixed point with 14 fractional bits. No value at a whole degree lies near a rounding tie, so the last
# bit of a machine's cosine does not matter.
COS = np.round(np.cos(np.arange(360) * math.pi / 180) * 16384).astype(np.int64)
SIN = np.roll(COS, 90)


def _arc(radius: int, start: int, stop: int, step: int, centre: int = 0) -> list[tuple[int, int]]:
    degrees = np.arange(start, stop, step) % 360
    xs, ys = centre * 16384 + radius * COS[degrees], radius * SIN[degrees]
    return list(zip((xs >> 4).tolist(), (ys >> 4).tolist(), strict=True))


def _outlines(name: str) -> list[list[tuple[int, int]]]:
    """Return the closed polygons of one shape, y downwards, at any scale; a second one runs backwards: a hole."""
    t = np.arange(0, 360, 8)
    match name:
        case "disk":
            return [_arc(100, 0, 360, 6)]
        case "ring":
            return [_arc(100, 0, 360, 6), _arc(58, 360, 0, -6)]
        case "crescent":
            return [_arc(100, 58, 303, 5) + _arc(85, 276, 83, -6, centre=45)]
        case "square":
            return [[(-1, -1), (1, -1), (1, 1), (-1, 1)]]
        case "triangle":
            return [_arc(100, 30, 390, 120)]
        case "cross":
            return [[(-3, -1), (-1, -1), (-1, -3), (1, -3), (1, -1), (3, -1)]
                    + [(3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1)]]  # fmt: skip
        case "star":
            tips, notches = _arc(100, 18, 378, 72), _arc(45, 54, 414, 72)
            return [[point for pair in zip(tips, notches, strict=True) for point in pair]]
        case "arrow":
            return [[(-100, -26), (5, -26), (5, -72), (100, 0), (5, 72), (5, 26), (-100, 26)]]
        case "heart":
            x = 16 * (SIN[t] * SIN[t] >> 14) * SIN[t] >> 14
            y = 13 * COS[t] - 5 * COS[2 * t % 360] - 2 * COS[3 * t % 360] - COS[4 * t % 360]
            return [list(zip((x >> 2).tolist(), (-y >> 2).tolist(), strict=True))]
        case "H":
            right = [(28, -22), (28, -100), (76, -100), (76, 100), (28, 100), (28, 22)]
            return [right + [(-x, -y) for x, y in right]]
    raise ValueError(name)


@functools.cache
def templates() -> np.ndarray:
    """Return signed distances to the outlines, (10, CELLS, CELLS) int16: positive inside, 1024 = disk radius.

    All shapes are scaled to the disk's area and centred on their centroid.
    """
    # Cell centres in units of 1/16 of a cell; polygons use the same units.
    axis = (2 * np.arange(CELLS) + 1 - CELLS) * 8
    px, py = axis[None, :], axis[:, None]
    radius = UNIT * 16
    tables = []
    for name in CLASSES:
        parts = [np.array(part, np.int64) for part in _outlines(name)]
        start = np.concatenate(parts)
        stop = np.concatenate([np.roll(part, -1, axis=0) for part in parts])
        cross = start[:, 0] * stop[:, 1] - start[:, 1] * stop[:, 0]
        area = abs(int(cross.sum()))  # twice the area
        centre = ((start + stop) * cross[:, None]).sum(0) * 64 // (3 * int(cross.sum()))  # in 1/64
        factor = math.isqrt((2 * 3217 * radius * radius << 30) // (area * 1024))  # pi = 3217 / 1024
        start, stop = ((points * 64 - centre) * factor >> 21 for points in (start, stop))

        nearest = np.full((CELLS, CELLS), 1 << 60, np.int64)  # squared distance
        inside = np.zeros((CELLS, CELLS), bool)
        for (ax, ay), (bx, by) in zip(start.tolist(), stop.tolist(), strict=True):
            dx, dy = bx - ax, by - ay
            length = max(dx * dx + dy * dy, 1)
            along = np.clip((px - ax) * dx + (py - ay) * dy, 0, length)
            off_x, off_y = (px - ax) - along * dx // length, (py - ay) - along * dy // length
            np.minimum(nearest, off_x * off_x + off_y * off_y, out=nearest)
            turn = dx * (py - ay) - dy * (px - ax)
            inside ^= ((ay <= py) != (by <= py)) & ((turn > 0) == (dy > 0))
        distance = np.sqrt(nearest).astype(np.int64)  # IEEE square roots are exact to the last bit
        tables.append(np.where(inside, distance, -distance).clip(-2047, 2047))
    return np.stack(tables).astype(np.int16)
