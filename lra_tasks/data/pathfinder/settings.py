"""The published settings of every Pathfinder size, as data: a new size is a row. 512 is 256 scaled by two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How the pictures of one size are drawn; lengths are in pixels.

    Attributes:
        size: side S of the picture; the sequence has S * S pixels.
        margins: free space around a paddle; one of them is drawn for each picture.
        seed_distance: distance between the origins of the two target snakes.
        marker_radius: radius of the two discs.
        thickness: width of a paddle.
        continuity: how straight snakes run; a turn by dtheta weighs cos(min(continuity * dtheta, pi/2))^2.
        n_distractors: number of distractor snakes.
        target_contrast: brightness of the target snakes' paddles, relative to a marker's.
        distractor_contrast: the same for the distractors.
        paddle_length: length of a paddle.
        padding: width of the border that paddles keep out of.
        contour_length: paddles of a target snake.
        distractor_length: paddles of a distractor snake.
        antialias: paddles and markers are drawn this many times larger and scaled down.
    """

    size: int
    margins: tuple[int, ...]
    seed_distance: int
    marker_radius: float
    thickness: float
    continuity: float
    n_distractors: int
    target_contrast: float
    distractor_contrast: float
    paddle_length: int = 5
    padding: int = 1
    contour_length: int = 14
    distractor_length: int = 14 // 3
    antialias: int = 2


SETTINGS = {
    row.size: row
    for row in (
        # The published snake contrast is 2 and its paddle contrast .75: only target snakes get the product.
        Settings(32, (1,), 7, 1.5, 0.5, 1.0, 20 // 4, 2 * 0.75, 2.0, paddle_length=2),
        Settings(64, (1,), 12, 2.5, 1.0, 1.8, 22 // 4, 0.8, 0.8),
        Settings(128, (2, 3), 20, 3.0, 1.5, 1.8, 35 // 4, 0.9, 0.9),
        Settings(256, (3,), 27, 5.0, 2.0, 1.8, 30 // 4, 1.0, 1.0, padding=22),
        # Not published: every length of 256, twice.
        Settings(512, (6,), 54, 10.0, 4.0, 1.8, 30 // 4, 1.0, 1.0, paddle_length=10, padding=44),
    )
}
"""Settings by size. Quotients are whole numbers: the published code ran where ``/`` divides integers so."""
