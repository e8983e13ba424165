"""Everything about paddles that does not depend on where they lie, computed once for a size and a margin.

A snake is a chain of paddles. Its first paddle points in one of 360 whole degrees, every later one in one of K
directions (the distinct pixels around a circle), so each direction's picture, mask and successor is a table row.
Directions are numbered 0..359 (first paddles) and 360..360+K-1 (later ones). Pixels are rows of (y, x).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from lra_tasks.data.pathfinder.settings import SETTINGS, Settings

N_SEEDS = 360


class Paddles:
    """Tables for one size and margin; R = paddle length + thickness + margin, stamps are (2R+1, 2R+1).

    Attributes:
        radius: R.
        lines: uint8 (360+K, 2R+1, 2R+1), the picture of a paddle around the pixel that it is placed by.
        masks: uint8 likewise, the room that it and its margin take (255: fully).
        room: (360+K, M, 2), the pixels of a mask that are not 0, around the one it is placed by (some repeated).
        room_taken: uint8 (360+K, M), the mask there.
        next_pivot: float (360+K, 2), from the pivot of one paddle to that of its successor; see ``move``.
        choices: (360+K, M), the directions 0..K-1 that a successor can take, filled up to the greatest number M.
        turns: float (360+K, M), their weights; 0 where filled up.
        reach: (K, 2), from a pivot to the far end of the paddle in each of the K directions.
        seed_head: float (360, 2), from a first paddle's origin to its head.
        seed_pivot: float (360, 2), from a first paddle's head to its pivot.
        seed_room: (360, M, 2), the pixels around a first paddle's origin that have to be free (some repeated).
        disc: (n, 2), the pixels within the margin.
        marker: uint8, the picture of a marker around its centre.
    """

    def __init__(self, settings: Settings, margin: int) -> None:
        length, scale = settings.paddle_length, settings.antialias
        self.radius = length + math.ceil(settings.thickness) + margin
        seeds = np.deg2rad(np.arange(-180, 180))
        self.reach = _circle(length + margin)
        ends = np.arctan2(self.reach[:, 0], self.reach[:, 1])
        directions = np.concatenate([seeds, ends])
        # A later paddle is placed by its far end and points back; a first one is placed by its origin.
        pointing = np.concatenate([seeds, np.where(ends < 0, ends + np.pi, ends - np.pi)])
        stamps = [_draw(settings, margin, self.radius, angle) for angle in pointing]
        self.lines = np.stack([line for line, _ in stamps])
        self.masks = np.stack([mask for _, mask in stamps])
        self.room = _stack([np.argwhere(mask) - self.radius for mask in self.masks])
        rows = np.arange(len(self.masks))[:, None]
        self.room_taken = self.masks[rows, self.room[..., 0] + self.radius, self.room[..., 1] + self.radius]
        self.next_pivot = _step(directions, length + 2 * margin)
        difference = np.abs(directions[:, None] - ends)
        difference = np.minimum(difference, 2 * np.pi - difference)
        self.choices, self.turns = _pack(np.cos(np.minimum(difference * settings.continuity, np.pi / 2)) ** 2)
        self.seed_head = _step(seeds, length)
        self.seed_pivot = _step(np.where(seeds < 0, seeds + np.pi, seeds - np.pi), length + margin)
        self.seed_room = _stack([_full(mask, length + margin) for mask in self.masks[:N_SEEDS]])
        self._origins = _origins(settings, self.seed_room)
        self.disc = np.argwhere(_disc(margin)) - margin
        self.marker = _shrink(
            _disc(settings.marker_radius * scale, math.ceil(settings.marker_radius + 3) * scale), scale
        )

    def seed_points(self, directions: np.ndarray, origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heads and pivots (n, 2) of first paddles from their origins."""
        heads = move(origins, self.seed_head[directions])
        return heads, move(heads, self.seed_pivot[directions])

    def draw_origins(self, directions: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Uniform places (n, 2) for the first snake's origin, and whether (n,) its direction has any."""
        counts = np.array([len(places) for places in self._origins])[directions]
        picks = random.integers(np.maximum(counts, 1))
        places = np.full((len(directions), 2), -1)
        for row in np.flatnonzero(counts):
            places[row] = self._origins[directions[row]][picks[row]]
        return places, counts > 0


@cache
def paddles(size: int, margin: int) -> Paddles:
    """The tables of a size of ``SETTINGS`` and one of its margins, computed once a process."""
    return Paddles(SETTINGS[size], margin)


def move(pixels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Pixels (n, 2) moved by float steps (n, 2) and rounded up.

    A step of 4 cos(-90 degrees) = 2.4e-16 counts as a pixel near the upper and left border and as nothing elsewhere.
    The published pictures are like that, so the sum is rounded and not the step.
    """
    return np.ceil(pixels + steps).astype(np.int64)


def _step(angles: np.ndarray, distance: float) -> np.ndarray:
    """Displacements (n, 2) by ``distance`` along each angle."""
    return distance * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _circle(radius: float) -> np.ndarray:
    """The distinct pixels (K, 2) on a circle that is walked in steps of one pixel."""
    angles = np.deg2rad(np.arange(0, 360, 360 / (2 * radius * np.pi)))
    return np.unique(np.floor(_step(angles, radius)).astype(np.int64), axis=0)


def _disc(radius: float, half: int | None = None) -> np.ndarray:
    """A filled disc as uint8 0/1 of side 2 * half + 1."""
    half = int(radius) if half is None else half
    y, x = np.ogrid[-half : half + 1, -half : half + 1]
    return (x**2 + y**2 <= radius**2).astype(np.uint8)


def _draw(settings: Settings, margin: int, radius: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask (2R+1, 2R+1) of a paddle that starts in the centre and points along ``angle``."""
    scale = settings.antialias
    centre = radius * scale
    head = move(np.array([centre, centre]), _step(np.array([angle]), settings.paddle_length * scale)[0])
    side = 2 * radius * scale + 1
    canvas = Image.new("L", (side, side), 0)
    width = round(settings.thickness * scale)
    ImageDraw.Draw(canvas).line([(centre, centre), (int(head[1]), int(head[0]))], fill=255, width=width)
    line = np.asarray(canvas)
    return _resize(line, 2 * radius + 1), _resize(_dilate(line, _disc(margin * scale)), 2 * radius + 1)


def _dilate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Greatest value under a symmetric kernel; pixels outside the image do not count."""
    half = len(kernel) // 2
    padded = np.pad(image, half)
    result = np.zeros_like(image)
    height, width = image.shape
    for y, x in np.argwhere(kernel):
        np.maximum(result, padded[y : y + height, x : x + width], out=result)
    return result


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def _shrink(disc: np.ndarray, scale: int) -> np.ndarray:
    """A marker drawn ``scale`` times larger, on the pixel grid of the picture, centre in the centre."""
    half = len(disc) // 2
    # A whole picture is scaled by exactly ``scale``: pixel (y, x) covers scale * y .. scale * y + scale - 1.
    grid = np.pad(disc[: 2 * half, : 2 * half] * np.uint8(255), ((0, scale), (0, scale)))
    return _resize(grid, len(grid) // scale)


def free_places(taken: np.ndarray, pad: int, room: np.ndarray) -> np.ndarray:
    """The pixels (m, 2) of a picture around which ``room`` is free; ``taken`` has ``pad`` more pixels on each side."""
    size = len(taken) - 2 * pad
    blocked = np.zeros((size, size), bool)
    for y, x in room:
        blocked |= taken[pad + y : pad + y + size, pad + x : pad + x + size]
    return np.argwhere(~blocked)


def _pack(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values (n, M) of the non-zero entries of each row, in order, filled up with zeros."""
    weights = np.where(weights > 1e-12, weights, 0)
    most = int((weights > 0).sum(axis=1).max())
    columns = np.argsort(weights == 0, axis=1, kind="stable")[:, :most]
    return columns, np.take_along_axis(weights, columns, axis=1)


def _stack(rooms: list[np.ndarray]) -> np.ndarray:
    """Offsets (n, M, 2), each row filled up by repeating its last."""
    most = max(map(len, rooms))
    return np.stack([np.pad(room, ((0, most - len(room)), (0, 0)), mode="edge") for room in rooms])


def _origins(settings: Settings, rooms: np.ndarray) -> list[np.ndarray]:
    """Places (m, 2) of the first snake's origin for each direction: its first paddle stays far from the border."""
    pad, far = int(np.abs(rooms).max()), 2 * settings.seed_distance
    taken = np.ones((settings.size, settings.size), bool)
    taken[far:-far, far:-far] = False
    taken = np.pad(taken, pad)
    return [free_places(taken, pad, room) for room in rooms]


def _full(mask: np.ndarray, reach: int) -> np.ndarray:
    """Offsets of the pixels that a mask covers fully, one pixel down and right as published, within ``reach``."""
    offsets = np.argwhere(mask == 255) - len(mask) // 2 + 1
    return offsets[(np.abs(offsets) <= reach).all(axis=1)]
