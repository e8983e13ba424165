"""Video prediction: encoder of frames, residual layers of video mixers, decoder, and rollouts.

Symbols: B batch, T frames, C channels of a frame, H height, W width; D features of a latent frame, h x w its size.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv._checks import (
    FLOATS,
    check_bool,
    check_choice,
    check_int,
    check_options,
    check_real,
    check_shape,
    check_tensor,
)
from longconv.mixers import MIXERS, VideoMixer, list_mixers
from longconv.mixers.frames import EPS, FrameNorm, group_count
from longconv.models.baselines import BASELINES
from longconv.models.blocks import Block, Residual
from longconv.models.drop import active_drop
from longconv.models.hub import HubModel
from longconv.models.quantizer import Quantized, VectorQuantizer

VIDEO_MIXERS: dict[str, type[VideoMixer]] = {
    **{name: cast(type[VideoMixer], MIXERS[name]) for name in list_mixers(video=True)},
    **BASELINES,
}
"""The mixers of video by name: the library's, and those to compare with."""

LOSSES = ("mse", "l1", "mse_l1", "bce")


class PixelMixer(nn.Module):
    """A video mixer over frames with their features in the last axis, as norms want them.

    Args:
        mixer: (B, T, D, h, w) -> (B, T, D, h, w).
    """

    def __init__(self, mixer: VideoMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, T, h, w, D) -> (B, T, h, w, D)."""
        return self.mixer(x.movedim(-1, 2), lengths).movedim(2, -1)

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One frame (B, h, w, D), with the state in and out."""
        y, state = self.mixer.step(x_t.movedim(-1, 1), state)
        return y.movedim(1, -1), state

    def prefill(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """A chunk (B, T, h, w, D), with the state in (None: the start) and out."""
        y, state = self.mixer.prefill(x.movedim(-1, 2), state)
        return y.movedim(2, -1), state


class FrameEncoder(nn.Sequential):
    """Frames (F, C, H, W) -> latent frames (F, D, H / (p 2^n), W / (p 2^n)): patches, then n halvings.

    Args:
        channels: C.
        depths: features after every halving, n of them.
        d_model: D.
        patch: p; the p x p pixels of a patch come in as features of one place.
    """

    def __init__(self, channels: int, depths: Sequence[int], d_model: int, patch: int = 1) -> None:
        parts: list[nn.Module] = [nn.PixelUnshuffle(patch)] if patch > 1 else []
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
        bias: what the logits start from.
        patch: p.
    """

    def __init__(self, channels: int, depths: Sequence[int], d_model: int, bias: float = 0.0, patch: int = 1) -> None:
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
        nn.init.constant_(last, bias)
        super().__init__(*parts, *([nn.PixelShuffle(patch)] if patch > 1 else []))


class VideoPredictor(HubModel):
    r"""Predicts the next frame of a video from all before it.

    .. math::
        z_t = \mathrm{encode}(x_t), \qquad \hat x_{t+1} = \sigma(\mathrm{decode}(\mathrm{layers}(z_{0..t})_t))

    for frames in [0, 1]. A layer is a residual video mixer with a norm before or after it. With ``codebook`` latent
    pixels are words of a :class:`~longconv.models.VectorQuantizer`.

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
        codebook: number of words; None: continuous latents.
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
        if check_int("patch", patch) == 1 and not depths:
            raise ValueError("depths is empty, expected the features of one halving at least, or a patch above 1")
        self.shrinkage = patch * 2 ** len([check_int("depths", depth) for depth in depths])
        kind = VIDEO_MIXERS[check_choice("mixer", mixer, list(VIDEO_MIXERS))]
        check_options(f"mixer {mixer!r}", options, list(_parameters(kind)))
        check_choice("norm", norm, ("layer", "rms"))
        self.encoder = FrameEncoder(channels, depths, d_model, patch)
        self.quantizer = None if codebook is None else VectorQuantizer(codebook, d_model)
        self.layers = nn.ModuleList(
            Block(
                cast(Any, PixelMixer(kind(d_model, **options))),
                Residual(
                    d_model,
                    norm=norm,
                    prenorm=check_bool("prenorm", prenorm),
                    dropout=dropout,
                    tie_dropout=False,
                    drop_path=0.0,
                    norm_eps=EPS,
                ),
            )
            for _ in range(check_int("n_layers", n_layers))
        )
        self.decoder = FrameDecoder(channels, depths, d_model, _logit(mean), patch)

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

    def loss(self, frames: Tensor, kind: str = "mse", *, feedback: int = 0) -> Tensor:
        """What training minimises: predictions from all frames but the last against all but the first.

        With ``feedback`` the model learns from its own predictions, as a rollout has them, too: from a random place on,
        another one in every sample, inputs are predictions of the pass before, ``feedback`` passes without gradients.
        So they are those of a rollout as far as that many frames, each pass over all frames at once.

        Args:
            frames: (B, T, C, H, W) in [0, 1], T >= 2.
            kind: "mse", "l1", their mean "mse_l1" (published), or "bce", the cross-entropy of gray levels as
                probabilities, which like "mse" is least for the expected frame, and whose gradient doesn't vanish
                where a prediction is far off.
            feedback: the number of such passes; 0 is teacher forcing.

        Returns:
            The mean over all pixels, and with a codebook the quantiser's loss.

        References:
            Parallel Scheduled Sampling (Duckworth, Neelakantan, Goodrich, Kaiser, Bengio), arXiv:1906.04331.
        """
        check_choice("kind", kind, LOSSES)
        self._check(frames)
        if frames.shape[1] < 2:
            raise ValueError(f"frames has shape {tuple(frames.shape)}, expected T >= 2 to have a next frame")
        given = self._fed_back(frames[:, :-1], check_int("feedback", feedback, least=0))
        (logits, quantised), wanted = self._logits(given), frames[:, 1:]
        if kind == "bce":
            value = F.binary_cross_entropy_with_logits(logits.float(), wanted.float())
        else:
            error = logits.float().sigmoid() - wanted.float()
            parts = {"mse": error.square().mean(), "l1": error.abs().mean()}
            value = parts[kind] if kind in parts else 0.5 * (parts["mse"] + parts["l1"])
        return value if quantised is None else value + quantised.loss

    @torch.no_grad()
    def _fed_back(self, frames: Tensor, times: int) -> Tensor:
        """The frames, from a random place on in every sample those predicted in as many passes."""
        if not times:
            return frames
        batch, length = frames.shape[:2]
        start = torch.randint(1, max(length, 2), (batch, 1), device=frames.device)
        later = (torch.arange(length, device=frames.device) >= start)[..., None, None, None]
        given = frames
        for _ in range(times):
            given = torch.where(later, torch.cat([frames[:, :1], self(given)[:, :-1]], 1), frames)
        return given

    def _logits(self, frames: Tensor) -> tuple[Tensor, Quantized | None]:
        self._check(frames)
        x, quantised = self._encode(frames)
        for layer in self.layers:
            x = layer(x)
        return self._decode(x), quantised

    def _encode(self, frames: Tensor) -> tuple[Tensor, Quantized | None]:
        """(..., C, H, W) -> (..., h, w, D)."""
        x = self.encoder(frames.flatten(0, -4)).movedim(1, -1)
        x = x.unflatten(0, frames.shape[:-3])
        if self.quantizer is None:
            return x, None
        quantised = self.quantizer(x)
        return quantised.features, quantised

    def _decode(self, x: Tensor) -> Tensor:
        """(..., h, w, D) -> logits (..., C, H, W)."""
        return self.decoder(x.flatten(0, -4).movedim(-1, 1)).unflatten(0, x.shape[:-3])

    # --- streaming ----------------------------------------------------------------------------------------------------

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Any, ...]:
        """The state before the first frame: one mixer's state a layer."""
        return tuple(mixer.init_state(batch_size, device=device, dtype=dtype) for mixer in self._mixers())

    def step(self, frame: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One frame (B, C, H, W) and the state before it -> the prediction of the next one, and the state after it."""
        check_tensor("frame", frame, "(B, C, H, W)", ndim=4, dtypes=FLOATS)
        self._check_size("frame", frame)
        self._check_streaming()
        x, states = self._encode(frame)[0], []
        for layer, before in zip(self.layers, state, strict=True):
            x, after = cast(Block, layer).step(x, before)
            states.append(after)
        return self._decode(x).sigmoid(), tuple(states)

    def prefill(self, frames: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """A chunk (B, T, C, H, W) and the state before it (None: the start) -> predictions, and the state after it."""
        self._check(frames)
        self._check_streaming()
        x, states = self._encode(frames)[0], []
        for layer, before in zip(self.layers, state or [None] * len(self.layers), strict=True):
            x, after = cast(Block, layer).prefill(x, before)
            states.append(after)
        return self._decode(x).sigmoid(), tuple(states)

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

    def _mixers(self) -> list[VideoMixer]:
        return [module for module in self.modules() if isinstance(module, VideoMixer)]

    def _check_streaming(self) -> None:
        if any(active_drop(module) for module in self.modules()):
            raise NotImplementedError(
                "this model can't stream: dropout in training mode draws other masks for each chunk; call .eval() first"
            )

    def _check(self, frames: Tensor, name: str = "frames") -> None:
        check_tensor(name, frames, "(B, T, C, H, W)", ndim=5, dtypes=FLOATS)
        self._check_size(name, frames)

    def _check_size(self, name: str, frames: Tensor) -> None:
        expected = [None] * (frames.ndim - 3) + [self.channels, None, None]
        symbols = "(B, T, C, H, W)" if frames.ndim == 5 else "(B, C, H, W)"
        check_shape(name, frames, expected, symbols)
        least, (height, width) = self.shrinkage, frames.shape[-2:]
        if height % least or width % least or not height or not width:
            raise ValueError(
                f"{name} has frames of {height} x {width}, expected multiples of {least} (patch 2^len(depths))"
            )


def _logit(mean: float) -> float:
    """The logit of a gray level in (0, 1)."""
    level = check_real("mean", mean, least=0.0, most=1.0, open_least=True)
    if level == 1.0:
        raise ValueError("mean is 1, expected a gray level in (0, 1)")
    return math.log(level / (1 - level))


def _parameters(kind: type[VideoMixer]) -> list[str]:
    """The options of a mixer's class."""
    return list(inspect.signature(kind).parameters)[1:]
