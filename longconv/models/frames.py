"""Frames of pixels and latent frames: the ways there and back, and how a predicted frame is scored.

Symbols: F frames, C channels of a frame, H height, W width; D features of a latent frame, h x w its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from longconv._checks import FLOATS, check_choice, check_int, check_real, check_shape, check_tensor
from longconv.mixers.frames import FrameNorm, group_count

LOSSES = ("mse", "l1", "mse_l1", "bce")


class ToPatches(nn.PixelUnshuffle):
    """The pixels of patches as features (F, C, H, W) -> (F, C p^2, H / p, W / p), where F is 0 too."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch does, which hands back no frames as they are."""
        (count, channels, height, width), p = x.shape, self.downscale_factor
        return super().forward(x) if count else x.reshape(0, channels * p**2, height // p, width // p)


class FromPatches(nn.PixelShuffle):
    """The way back: (F, C p^2, h, w) -> (F, C, p h, p w), where F is 0 too."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch does, which hands back no frames as they are."""
        (count, channels, height, width), p = x.shape, self.upscale_factor
        return super().forward(x) if count else x.reshape(0, channels // p**2, p * height, p * width)


class FrameEncoder(nn.Sequential):
    """Frames (F, C, H, W) -> latent frames (F, D, H / (p 2^n), W / (p 2^n)): patches, then n halvings.

    Args:
        channels: C.
        depths: features after every halving, n of them.
        d_model: D.
        patch: p; the p x p pixels of a patch come in as features of one place.
    """

    def __init__(self, channels: int, depths: Sequence[int], d_model: int, patch: int = 1) -> None:
        parts: list[nn.Module] = [ToPatches(patch)] if patch > 1 else []
        features = channels * patch**2
        for depth in depths:
            conv = nn.Conv2d(features, depth, 4, stride=2, padding=1)
            parts += [conv, FrameNorm(group_count(depth, None), depth), nn.GELU("tanh")]
            features = depth
        super().__init__(*parts, nn.Conv2d(features, d_model, 3, padding=1))


class FrameDecoder(nn.Sequential):
    """The way back: latent frames (F, D, h, w) -> logits of frames (F, C, p 2^n h, p 2^n w).

    Args:
        channels: C.
        depths: features of the encoder's halvings.
        d_model: D.
        mean: gray level in (0, 1) that the frames start from.
        patch: p.
    """

    def __init__(self, channels: int, depths: Sequence[int], d_model: int, mean: float = 0.5, patch: int = 1) -> None:
        parts: list[nn.Module] = []
        pixels = channels * patch**2
        outward = [*reversed(depths), pixels][1:]
        for depth, after in zip(reversed(depths), outward, strict=True):
            parts += [nn.Conv2d(d_model, depth, 3, padding=1), FrameNorm(group_count(depth, None), depth)]
            parts += [nn.GELU("tanh"), nn.ConvTranspose2d(depth, after, 4, stride=2, padding=1)]
            d_model = after
        if not depths:
            parts.append(nn.Conv2d(d_model, pixels, 3, padding=1))
        last = parts[-1].bias
        assert isinstance(last, Tensor)
        nn.init.constant_(last, _logit(mean))
        super().__init__(*parts, *([FromPatches(patch)] if patch > 1 else []))


def check_shrinkage(patch: int, depths: Sequence[int]) -> int:
    """How many times smaller than frames an encoder's latent frames are; a ValueError where it is none."""
    if check_int("patch", patch) == 1 and not depths:
        raise ValueError("depths is empty, expected the features of one halving at least, or a patch above 1")
    return patch * 2 ** len([check_int("depths", depth) for depth in depths])


def check_frames(name: str, frames: Tensor, symbols: str, channels: int, shrinkage: int) -> None:
    """Raise an error unless ``frames`` are real, of the shape in symbols, and of a size that an encoder can shrink."""
    rank = symbols.count(",") + 1
    check_tensor(name, frames, symbols, ndim=rank, dtypes=FLOATS)
    check_shape(name, frames, [*[None] * (rank - 3), channels, None, None], symbols)
    height, width = frames.shape[-2:]
    if height % shrinkage or width % shrinkage or not height or not width:
        raise ValueError(
            f"{name} has frames of {height} x {width}, expected multiples of {shrinkage} (patch 2^len(depths))"
        )


def frame_error(logits: Tensor, wanted: Tensor, kind: str) -> Tensor:
    """The mean over all pixels of an error, one of ``LOSSES``, of frames given by their logits."""
    check_choice("kind", kind, LOSSES)
    logits, wanted = logits.float(), wanted.float()
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, wanted)
    error = logits.sigmoid() - wanted
    parts = {"mse": error.square().mean(), "l1": error.abs().mean()}
    return parts[kind] if kind in parts else 0.5 * (parts["mse"] + parts["l1"])


def _logit(mean: float) -> float:
    """The logit of a gray level in (0, 1)."""
    level = check_real("mean", mean, least=0.0, most=1.0, open_least=True)
    if level == 1.0:
        raise ValueError("mean is 1, expected a gray level in (0, 1)")
    return math.log(level / (1 - level))
