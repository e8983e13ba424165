"""Video prediction: encoder of frames, residual layers of video mixers, decoder, and rollouts.

Symbols: B batch, T frames, C channels of a frame, H height, W width; D features of a latent frame, h x w its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import check_choice, check_int, check_values
from longconv.models.frames import (
    LOSSES,
    FrameDecoder,
    FrameEncoder,
    check_frames,
    check_shrinkage,
    frame_error,
)
from longconv.models.quantizer import Quantized, VectorQuantizer
from longconv.models.video_layers import VideoModel, residual_layers

FRAME, VIDEO = "(B, C, H, W)", "(B, T, C, H, W)"


class VideoPredictor(VideoModel):
    r"""Predicts the next frame of a video from all before it.

    .. math::
        z_t = \mathrm{encode}(x_t), \qquad \hat x_{t+1} = \sigma(\mathrm{decode}(\mathrm{layers}(z_{0..t})_t))

    for frames in [0, 1]. A layer is a residual video mixer with a norm before or after it. With ``codebook`` latent
    pixels are words of a :class:`~longconv.models.VectorQuantizer` that learns with the rest, while predictions stay
    frames of pixels. The published models over words, which predict the codes of a frozen tokenizer, are
    :class:`~longconv.models.CodePredictor`.

    For frames that are given (teacher forcing) ``forward`` runs over all of them at once; ``prefill`` and ``step`` do
    the same in chunks and frame by frame, and ``rollout`` feeds predictions back.

    Args:
        channels: C.
        d_model: D.
        n_layers: number of residual layers.
        mixer: ``"conv_s5"``, or to compare with it ``"conv_lstm"`` or ``"frame_attention"``.
        mixer_options: options of the mixers.
        depths: features of the encoder's halvings; n of them make latent frames of H / 2^n x W / 2^n.
        patch: p; where it is not 1 the p x p pixels of a patch are the features of one place before the first halving:
            latent frames are smaller by p again, at the cost of one convolution; ``depths`` may then be empty.
        norm: ``"layer"`` or ``"rms"``, over the features of a pixel.
        prenorm: whether the norm comes before its mixer or (published) after the sum.
        dropout: probability of the dropout on each branch.
        codebook: number of words, learned jointly (not published); None: continuous latents.
        mean: gray level in (0, 1) that predictions start from, best the mean of the data.

    Raises:
        TypeError: an option of the wrong type, or one that the mixer hasn't (named, with the nearest).
        ValueError: a size or a name out of range.

    References:
        Convolutional State Space Models for Long-Range Spatiotemporal Modeling (Smith, De Mello, Kautz, Linderman,
        Byeon), arXiv:2310.19694.

    >>> model = VideoPredictor(1, d_model=8, n_layers=1, mixer_options={"d_state": 8})
    >>> video = torch.rand(2, 6, 1, 16, 16)
    >>> model(video).shape, model.rollout(video, 4).shape
    (torch.Size([2, 6, 1, 16, 16]), torch.Size([2, 4, 1, 16, 16]))
    """

    def __init__(
        self,
        channels: int,
        *,
        d_model: int = 256,
        n_layers: int = 8,
        mixer: str = "conv_s5",
        mixer_options: Mapping[str, Any] | None = None,
        depths: Sequence[int] = (16, 32),
        patch: int = 1,
        norm: str = "layer",
        prenorm: bool = False,
        dropout: float = 0.0,
        codebook: int | None = None,
        mean: float = 0.5,
    ) -> None:
        super().__init__()
        options = dict(mixer_options or {})
        self.config = {
            "channels": channels,
            "d_model": d_model,
            "n_layers": n_layers,
            "mixer": mixer,
            "mixer_options": options,
            "depths": list(depths),
            "patch": patch,
            "norm": norm,
            "prenorm": prenorm,
            "dropout": dropout,
            "codebook": codebook,
            "mean": mean,
        }
        self.channels, self.d_model = check_int("channels", channels), check_int("d_model", d_model)
        self.shrinkage = check_shrinkage(patch, depths)
        self.encoder = FrameEncoder(channels, depths, d_model, patch)
        self.quantizer = None if codebook is None else VectorQuantizer(codebook, d_model)
        self.layers = residual_layers(n_layers, d_model, mixer, options, norm=norm, prenorm=prenorm, dropout=dropout)
        self.decoder = FrameDecoder(channels, depths, d_model, mean, patch)

    # --- whole videos -------------------------------------------------------------------------------------------------

    def forward(self, frames: Tensor) -> Tensor:
        """The predictions after every frame.

        Args:
            frames: (B, T, C, H, W) in [0, 1], H and W multiples of p 2^n.

        Returns:
            (B, T, C, H, W) in (0, 1): at place t the prediction of frame t + 1.
        """
        return self.logits(frames).sigmoid()

    def logits(self, frames: Tensor) -> Tensor:
        """The same before the sigmoid."""
        return self._logits(frames)[0]

    def loss(self, frames: Tensor, kind: str = "mse", *, context: int | None = None) -> Tensor:
        """What training minimises: predictions from all frames but the last against all but the first.

        With ``context`` the model learns from its own predictions, as :meth:`rollout` has them: they are the inputs
        that follow so many given frames, and the gradient runs back through all of them. That is one pass over the
        frames, whatever the horizon, but frame by frame.

        Args:
            frames: (B, T, C, H, W) in [0, 1], T >= 2.
            kind: "mse", "l1", their mean "mse_l1" (published), or "bce", the cross-entropy of gray levels as
                probabilities, which like "mse" is least for the expected frame, and whose gradient doesn't vanish
                where a prediction is far off.
            context: how many frames are given, in [1, T); None gives all that are inputs (teacher forcing), as T - 1.

        Returns:
            The mean over all pixels, and with a codebook the quantiser's loss.

        Raises:
            ValueError: a wrong shape, fewer than two frames, a context that leaves none to predict, or values that are
                NaN or infinite (looked at on the CPU outside ``torch.compile`` alone).
        """
        _sequence.require_whole("a frame is compared with the next one, which another rank may have")
        check_choice("kind", kind, LOSSES)
        self._check(frames)
        check_values("frames", frames)
        length = frames.shape[1]
        if length < 2:
            raise ValueError(f"frames has shape {tuple(frames.shape)}, expected T >= 2 to have a next frame")
        if context is not None and check_int("context", context) >= length:
            raise ValueError(f"context is {context}, expected less than the {length} frames, to have one to predict")
        if context is None or context == length - 1:
            logits, quantised = self._logits(frames[:, :-1])
        else:
            logits, quantised = self._rolled_out(frames[:, :context], length - 1)
        value = frame_error(logits, frames[:, 1:], kind)
        return value if quantised is None else value + quantised

    @torch.compiler.disable(recursive=False)  # or the compiler would write out the loop, and anew for every length
    def _rolled_out(self, context: Tensor, length: int) -> tuple[Tensor, Tensor | None]:
        """``_logits`` of ``length`` frames: the context, then what it and they predict."""
        logits, quantised, state = self._continued("prefill", context, None)
        outputs, losses = [logits], [quantised] * context.shape[1]
        while len(losses) < length:
            logits, quantised, state = self._continued("step", outputs[-1][:, -1].sigmoid(), state)
            outputs.append(logits[:, None])
            losses.append(quantised)
        known = [loss for loss in losses if loss is not None]
        return torch.cat(outputs, 1), torch.stack(known).mean() if known else None

    def _continued(
        self, by: Literal["step", "prefill"], frames: Tensor, state: object
    ) -> tuple[Tensor, Tensor | None, tuple[Any, ...]]:
        """Logits and the quantiser's loss of frames as ``by`` takes them, with the state in and out."""
        x, quantised = self._encode(frames)
        x, state = self._advance(by, x, state)
        return self._decode(x), quantised, state

    def _logits(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, T, C, H, W) -> the same, and the quantiser's loss."""
        self._check(frames)
        x, quantised = self._encode(frames)
        return self._decode(self._mix(x)), quantised

    def _encode(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """(..., C, H, W) -> (..., h, w, D), and the quantiser's loss."""
        x = self.encoder(frames.flatten(0, -4)).movedim(1, -1)
        x = x.unflatten(0, frames.shape[:-3])
        if self.quantizer is None:
            return x, None
        quantised: Quantized = self.quantizer(x)
        return quantised.features, quantised.loss

    def _decode(self, x: Tensor) -> Tensor:
        """(..., h, w, D) -> logits (..., C, H, W)."""
        return self.decoder(x.flatten(0, -4).movedim(-1, 1)).unflatten(0, x.shape[:-3])

    # --- streaming ----------------------------------------------------------------------------------------------------

    def step(self, frame: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One frame (B, C, H, W) and the state before it -> the prediction of the next one, and the state after it."""
        check_frames("frame", frame, FRAME, self.channels, self.shrinkage)
        x, state = self._stream("step", self._encode(frame)[0], state)
        return self._decode(x).sigmoid(), state

    def prefill(self, frames: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """A chunk (B, T, C, H, W) and the state before it (None: the start) -> predictions, and the state after it."""
        self._check(frames)
        x, state = self._stream("prefill", self._encode(frames)[0], state)
        return self._decode(x).sigmoid(), state

    @torch.no_grad()
    def rollout(self, context: Tensor, n_frames: int) -> Tensor:
        """Continue videos: after the context every prediction is the next input, at the cost of one ``step`` a frame.

        Args:
            context: (B, T0, C, H, W) in [0, 1], T0 >= 1.
            n_frames: how many frames to predict.

        Returns:
            (B, n_frames, C, H, W): the frames after the context.

        Raises:
            ValueError: an empty context, or a wrong shape.
        """
        _sequence.require_whole("frames are predicted one by one")
        self._check(context, "context")
        if context.shape[1] == 0:
            raise ValueError(f"context has shape {tuple(context.shape)}, expected at least one frame")
        if check_int("n_frames", n_frames, least=0) == 0:
            return torch.empty_like(context[:, :0])
        predicted, state = self.prefill(context)
        frames = [predicted[:, -1]]
        while len(frames) < n_frames:
            frame, state = self.step(frames[-1], state)
            frames.append(frame)
        return torch.stack(frames, 1)

    def _check(self, frames: Tensor, name: str = "frames") -> None:
        check_frames(name, frames, VIDEO, self.channels, self.shrinkage)
