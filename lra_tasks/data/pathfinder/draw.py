"""Drawing the scenes that ``snakes`` grew, and one reproducible chunk of labelled pictures."""

from __future__ import annotations

import numpy as np

from lra_tasks.data.pathfinder.paddles import paddles
from lra_tasks.data.pathfinder.settings import CONTOUR_LENGTH, SETTINGS
from lra_tasks.data.pathfinder.snakes import Scenes, grow_scenes


def draw_chunk(
    size: int, n: int, seed: int, chunk: int, contour_length: int = CONTOUR_LENGTH
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, size, size) and labels uint8 (n,) that depend on the arguments alone.

    >>> images, labels = draw_chunk(32, 4, seed=0, chunk=1)
    >>> images.shape, images.max(), bool((draw_chunk(32, 4, seed=0, chunk=1)[0] == images).all())
    ((4, 32, 32), np.uint8(255), True)
    """
    random = np.random.default_rng([seed, size, chunk])
    scenes, margins = grow_scenes(size, n, random, contour_length)
    return draw(size, scenes, margins), scenes.labels.astype(np.uint8)


def draw(size: int, scenes: Scenes, margins: np.ndarray) -> np.ndarray:
    """Draw every scene: uint8 (n, size, size), each stretched to the full range 0..255.

    The brightness of a pixel is the greatest of the target snakes', the distractors' and the markers'.
    """
    settings = SETTINGS[size]
    images = np.empty((len(margins), size, size), np.uint8)
    for margin in np.unique(margins):
        chosen = np.flatnonzero(margins == margin)
        tables = paddles(size, int(margin))
        targets = _stamp(size, tables.lines, scenes.targets[chosen].reshape(len(chosen), -1, 3))
        distractors = _stamp(size, tables.lines, scenes.distractors[chosen].reshape(len(chosen), -1, 3))
        discs = scenes.markers[chosen]
        markers = _stamp(size, tables.marker[None], np.concatenate([np.zeros_like(discs[..., :1]), discs], axis=-1))
        bright = np.maximum(targets * settings.target_contrast, distractors * settings.distractor_contrast)
        bright = np.maximum(bright, markers)
        least, most = bright.min(axis=(1, 2), keepdims=True), bright.max(axis=(1, 2), keepdims=True)
        images[chosen] = np.floor((bright - least) * (255 / (most - least)) + 0.5)
    return images


def _stamp(size: int, stamps: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """The greatest of the stamps (m, 2r+1, 2r+1) placed at rows (index, y, x) of (n, p, 3); index -1 is left out."""
    radius = stamps.shape[-1] // 2
    width = size + 2 * radius
    canvas = np.zeros((len(placed), width * width), np.uint8)
    span = np.arange(2 * radius + 1)
    window = (span[:, None] * width + span).ravel()
    flat = stamps.reshape(len(stamps), -1)
    for step in range(placed.shape[1]):
        rows = np.flatnonzero(placed[:, step, 0] >= 0)
        index, y, x = placed[rows, step].T
        where = (y * width + x)[:, None] + window
        canvas[rows[:, None], where] = np.maximum(canvas[rows[:, None], where], flat[index])
    return canvas.reshape(-1, width, width)[:, radius : radius + size, radius : radius + size]
