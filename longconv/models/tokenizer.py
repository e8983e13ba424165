"""Frames as maps of codes and back.

Symbols: C channels of a frame, H height, W width; h x w the size of a map of codes, S words of D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import check_int, check_tensor, check_values, has_values
from longconv.models.frames import FrameDecoder, FrameEncoder, check_frames, check_shrinkage, frame_error
from longconv.models.hub import HubModel
from longconv.models.padding import INTEGERS
from longconv.models.quantizer import VectorQuantizer

FRAMES = ("(F, C, H, W)", "(B, T, C, H, W)")


class FrameTokenizer(HubModel):
    r"""Frames as maps of codes and back: the first stage of a video model over words, trained alone, then frozen.

    .. math::
        s_t = \mathrm{quantise}(\mathrm{encode}(x_t)), \qquad \hat x_t = \sigma(\mathrm{decode}(e_{s_t}))

    for frames in [0, 1], single ones or videos. What the published models use is a VQ-GAN, whose training adds a
    perceptual and an adversarial error to that of the pixels; this one has the pixels' alone.

    Args:
        channels: C.
        n_codes: S.
        d_model: D.
        depths: features of the encoder's halvings; n of them make maps of H / 2^n x W / 2^n.
        patch: p, by which maps are smaller again; see :class:`~longconv.models.VideoPredictor`.
        commitment: weight of what draws features to their words.
        mean: gray level in (0, 1) that frames start from, best the mean of the data.

    Raises:
        TypeError, ValueError: an option of the wrong type, or a size out of range.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals, Kavukcuoglu), arXiv:1711.00937.
        Taming Transformers for High-Resolution Image Synthesis (Esser, Rombach, Ommer), arXiv:2012.09841.

    >>> tokenizer = FrameTokenizer(1, n_codes=16, d_model=8, depths=(8,))
    >>> codes = tokenizer.encode(torch.rand(2, 6, 1, 16, 16))
    >>> codes.shape, tokenizer.decode(codes).shape
    (torch.Size([2, 6, 8, 8]), torch.Size([2, 6, 1, 16, 16]))
    """

    def __init__(
        self,
        channels: int,
        *,
        n_codes: int = 1024,
        d_model: int = 256,
        depths: Sequence[int] = (64, 128),
        patch: int = 1,
        commitment: float = 0.25,
        mean: float = 0.5,
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels,
            "n_codes": n_codes,
            "d_model": d_model,
            "depths": list(depths),
            "patch": patch,
            "commitment": commitment,
            "mean": mean,
        }
        self.channels, self.n_codes = check_int("channels", channels), check_int("n_codes", n_codes)
        self.d_model, self.shrinkage = check_int("d_model", d_model), check_shrinkage(patch, depths)
        self.encoder = FrameEncoder(channels, depths, d_model, patch)
        self.quantizer = VectorQuantizer(n_codes, d_model, commitment)
        self.decoder = FrameDecoder(channels, depths, d_model, mean, patch)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (..., C, H, W), and what is left of them in their codes, in (0, 1)."""
        return self.decode(self.encode(frames))

    def loss(self, frames: Tensor, kind: str = "mse") -> Tensor:
        """What its training minimises: the error of the frames that come back, and the quantiser's loss.

        Args:
            frames: (F, C, H, W) or (B, T, C, H, W) in [0, 1], finite.
            kind: "mse", "l1", "mse_l1" or "bce"; see :meth:`longconv.models.VideoPredictor.loss`.
        """
        if isinstance(frames, Tensor) and frames.ndim == 5:
            _sequence.require_whole("the error is a mean over the frames here")
        quantised = self.quantizer(self._features(frames))
        return frame_error(self._logits(quantised.features), frames, kind) + quantised.loss

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (..., C, H, W) in [0, 1], one or two axes before them -> their codes (..., h, w), int64."""
        codes: Tensor = self.quantizer(self._features(frames)).codes
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (..., h, w) -> frames (..., C, H, W) in (0, 1)."""
        return self._logits(self.words(codes)).sigmoid()

    def words(self, codes: Tensor, name: str = "codes") -> Tensor:
        """The words (..., h, w, D) of codes (..., h, w), one or two axes before them.

        Raises:
            TypeError: codes that aren't integers.
            ValueError: another rank, or a code out of range (looked at on the CPU outside ``torch.compile`` alone).
        """
        check_tensor(name, codes, "(F, h, w) or (B, T, h, w)", ndim=(3, 4), dtypes=INTEGERS)
        if has_values(codes) and codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.n_codes:
            raise ValueError(
                f"{name} go from {int(codes.min())} to {int(codes.max())}, expected 0 <= codes < {self.n_codes}"
            )
        return self.quantizer.words[codes]

    def _features(self, frames: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., h, w, D)."""
        symbols = FRAMES[isinstance(frames, Tensor) and frames.ndim == 5]
        check_frames("frames", frames, symbols, self.channels, self.shrinkage)
        check_values("frames", frames)
        features: Tensor = self.encoder(frames.flatten(0, -4)).movedim(1, -1)
        return features.unflatten(0, frames.shape[:-3])

    def _logits(self, words: Tensor) -> Tensor:
        """(..., h, w, D) -> logits (..., C, H, W)."""
        return self.decoder(words.flatten(0, -4).movedim(-1, 1)).unflatten(0, words.shape[:-3])
