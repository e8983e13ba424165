"""Pictures of predicted videos: a GIF that moves, and a contact sheet.

Shapes: T frames, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lra_tasks.files import write_atomic

Rollout = tuple[Tensor, Tensor]
"""A true video (T, C, H, W) in [0, 1], and its prediction after the context, (T - context, C, H, W)."""

GAP, MILLISECONDS = 2, 100
FRAME_MARK = 96
"""Gray level between frames; brighter from the first predicted frame on."""
COLUMNS = 20


def save_gif(rollouts: Sequence[Rollout], context: int, path: Path) -> None:
    """Write a GIF: a column a video, the true one above and what was given or predicted below."""
    pairs = [_pair(rollout, context) for rollout in rollouts]
    length = min(len(true) for true, _ in pairs)
    pictures = [
        _grid([[true[t] for true, _ in pairs], [shown[t] for _, shown in pairs]], FRAME_MARK + 96 * (t >= context))
        for t in range(length)
    ]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "GIF", save_all=True, append_images=pictures[1:], duration=MILLISECONDS, loop=0, optimize=False
    )
    write_atomic(path, lambda file: file.write(buffer.getvalue()))


def save_contact_sheet(rollouts: Sequence[Rollout], context: int, path: Path) -> None:
    """Write a PNG: two rows a video, the true frames above the predicted ones, from the context's last frame on.

    Of long videos it shows 20 frames, evenly spaced.
    """
    rows = []
    for rollout in rollouts:
        true, shown = _pair(rollout, context)
        places = np.unique(np.linspace(context - 1, len(shown) - 1, COLUMNS).round().astype(int))
        rows += [[true[t] for t in places], [shown[t] for t in places]]
    buffer = io.BytesIO()
    _grid(rows, FRAME_MARK).save(buffer, "PNG")
    write_atomic(path, lambda file: file.write(buffer.getvalue()))


def _pair(rollout: Rollout, context: int) -> tuple[np.ndarray, np.ndarray]:
    """The true video, and the context followed by the prediction, uint8 (T, H, W, 3)."""
    true, predicted = rollout
    videos = true[: context + len(predicted)], np.concatenate([true[:context].numpy(), predicted.numpy()])
    gray = [np.rint(np.asarray(video).clip(0, 1) * 255).astype(np.uint8) for video in videos]
    first, second = (np.broadcast_to(np.moveaxis(v, 1, -1), (len(v), *v.shape[2:], 3)) for v in gray)
    return first, second


def _grid(rows: Sequence[Sequence[np.ndarray]], mark: int) -> Image.Image:
    """Frames (H, W, 3) side by side and row by row, with a line around each."""
    height, width, _ = rows[0][0].shape
    columns = max(map(len, rows))
    sheet = np.full((GAP + len(rows) * (height + GAP), GAP + columns * (width + GAP), 3), mark, np.uint8)
    for i, row in enumerate(rows):
        for j, frame in enumerate(row):
            top, left = GAP + i * (height + GAP), GAP + j * (width + GAP)
            sheet[top : top + height, left : left + width] = frame
    return Image.fromarray(sheet)
