"""Video prediction over the codes of a frozen tokenizer.

Symbols: B batch, T frames, C channels of a frame, H height, W width; h x w the size of a map of codes, S words; D
features of a latent frame.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _autocast, _sequence
from longconv._checks import FLOATS, check_int, check_real, check_tensor, describe
from longconv.mixers.frames import FrameNorm, group_count
from longconv.models.frames import FrameEncoder
from longconv.models.generation import draw
from longconv.models.padding import INTEGERS
from longconv.models.tokenizer import FrameTokenizer
from longconv.models.video_layers import VideoModel, residual_layers


class CodePredictor(VideoModel):
    r"""Predicts the codes of the next frame from those of all before it, as the published ConvS5 does in 3D worlds.

    .. math::
        s_t = \mathrm{tokenizer}(x_t), \qquad
        p(s_{t+1} \mid s_{0..t}) = \mathrm{softmax}(\mathrm{head}(\mathrm{layers}(\mathrm{embed}(e_{s_{0..t}}))_t))

    with the words e of a tokenizer that was trained before and stays as it is. The codes of a frame are independent of
    each other, given all frames before it. Frames can be given as such, or as their codes: those of a data set need to
    be made but once.

    Between words and layers stands one convolution and behind them a head of two, where the published models have
    residual networks; actions of an agent do not enter.

    Args:
        tokenizer: a trained :class:`~longconv.models.FrameTokenizer`, of which a copy is frozen; or its ``config``.
        d_model: D.
        n_layers: number of residual layers.
        mixer: ``"conv_s5"``, or to compare with it ``"conv_lstm"`` or ``"frame_attention"``.
        mixer_options: options of the mixers.
        norm: ``"layer"`` or ``"rms"``, over the features of a pixel.
        prenorm: whether the norm comes before its mixer or (published) after the sum.
        dropout: probability of the dropout on each branch.

    Raises:
        TypeError: an option of the wrong type, or one that the mixer hasn't (named, with the nearest).
        ValueError: a size or a name out of range.

    References:
        Convolutional State Space Models for Long-Range Spatiotemporal Modeling (Smith, De Mello, Kautz, Linderman,
        Byeon), arXiv:2310.19694.
        Temporally Consistent Transformers for Video Generation (Yan, Hafner, James, Abbeel), arXiv:2210.02396.

    >>> tokenizer = FrameTokenizer(1, n_codes=16, d_model=8, depths=(8,))
    >>> model = CodePredictor(tokenizer, d_model=8, n_layers=1, mixer_options={"d_state": 8})
    >>> video = torch.rand(2, 6, 1, 16, 16)
    >>> model(video).shape, model.rollout(video, 4).shape
    (torch.Size([2, 6, 8, 8, 16]), torch.Size([2, 4, 1, 16, 16]))
    """

    def __init__(
        self,
        tokenizer: FrameTokenizer | Mapping[str, Any],
        *,
        d_model: int = 512,
        n_layers: int = 8,
        mixer: str = "conv_s5",
        mixer_options: Mapping[str, Any] | None = None,
        norm: str = "layer",
        prenorm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(tokenizer, FrameTokenizer | Mapping):
            raise TypeError(f"tokenizer is {describe(tokenizer)}, expected a FrameTokenizer, or its config")
        own = FrameTokenizer(**tokenizer) if isinstance(tokenizer, Mapping) else copy.deepcopy(tokenizer)
        options, d_model = dict(mixer_options or {}), check_int("d_model", d_model)
        self.config = {
            "tokenizer": own.config,
            "d_model": d_model,
            "n_layers": n_layers,
            "mixer": mixer,
            "mixer_options": options,
            "norm": norm,
            "prenorm": prenorm,
            "dropout": dropout,
        }
        self.tokenizer = own.requires_grad_(False)
        self.embedding = FrameEncoder(own.d_model, (), d_model)
        self.layers = residual_layers(n_layers, d_model, mixer, options, norm=norm, prenorm=prenorm, dropout=dropout)
        self.head = nn.Sequential(
            nn.Conv2d(d_model, d_model, 3, padding=1),
            FrameNorm(group_count(d_model, None), d_model),
            nn.GELU("tanh"),
            nn.Conv2d(d_model, own.n_codes, 1),
        )

    # --- whole videos -------------------------------------------------------------------------------------------------

    def forward(self, video: Tensor) -> Tensor:
        """The predictions after every frame.

        Args:
            video: (B, T, C, H, W) in [0, 1], or its codes (B, T, h, w).

        Returns:
            Logits (B, T, h, w, S): at place t those of the codes of frame t + 1.
        """
        return self._logits(self._mix(self._embed(self._codes("video", video))))

    def loss(self, video: Tensor, *, smoothing: float = 0.01) -> Tensor:
        r"""What training minimises: the cross-entropy of the codes of all frames but the first, predicted from before.

        .. math:: -\sum_s \left((1 - \epsilon) [s = s_{t+1}] + \epsilon / S\right) \log p(s \mid s_{0..t})

        Args:
            video: (B, T, C, H, W) in [0, 1], or its codes (B, T, h, w), T >= 2.
            smoothing: epsilon, the published one unless told.

        Returns:
            The mean over all places of all frames (published: the sum over the places of a frame).

        Raises:
            ValueError: a wrong shape, fewer than two frames, or values out of range.
        """
        _sequence.require_whole("a frame is compared with the next one, which another rank may have")
        check_real("smoothing", smoothing, least=0.0, most=1.0)
        codes = self._codes("video", video)
        if codes.shape[1] < 2:
            raise ValueError(f"video has shape {tuple(video.shape)}, expected T >= 2 to have a next frame")
        logits = self(codes[:, :-1])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)
        return F.cross_entropy(logits, codes[:, 1:].flatten().long(), label_smoothing=smoothing)

    # --- streaming ----------------------------------------------------------------------------------------------------

    def step(self, frame: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One frame (B, C, H, W), or its codes (B, h, w), and the state before -> logits (B, h, w, S), state after."""
        x, state = self._stream("step", self._embed(self._codes("frame", frame, 1)), state)
        return self._logits(x), state

    def prefill(self, video: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """A chunk as forward takes it, and the state before (None: the start) -> logits (B, T, h, w, S), and state."""
        x, state = self._stream("prefill", self._embed(self._codes("video", video)), state)
        return self._logits(x), state

    @torch.no_grad()
    def rollout(
        self,
        context: Tensor,
        n_frames: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue videos frame by frame over codes, which become pixels at the end; see :meth:`rollout_codes`.

        Returns:
            (B, n_frames, C, H, W) in (0, 1): the frames after the context.
        """
        codes = self.rollout_codes(context, n_frames, temperature=temperature, generator=generator)
        return self.tokenizer.decode(codes)

    @torch.no_grad()
    def rollout_codes(
        self,
        context: Tensor,
        n_frames: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue videos: the codes drawn for a frame are the next input, at the cost of one ``step`` a frame.

        Args:
            context: (B, T0, C, H, W) in [0, 1], or its codes (B, T0, h, w), T0 >= 1.
            n_frames: how many frames to predict.
            temperature: what divides the logits before a code is drawn (published: 1); 0 takes the likeliest codes.
            generator: the source of randomness, on the model's device; None: torch's global one.

        Returns:
            (B, n_frames, h, w), int64.

        Raises:
            ValueError: an empty context, or a wrong shape.
        """
        _sequence.require_whole("frames are drawn one by one")
        check_real("temperature", temperature, least=0.0)
        codes = self._codes("context", context)
        if codes.shape[1] == 0:
            raise ValueError(f"context has shape {tuple(context.shape)}, expected at least one frame")
        if check_int("n_frames", n_frames, least=0) == 0:
            return torch.empty_like(codes[:, :0])
        logits, state = self.prefill(codes)
        logits, drawn = logits[:, -1], []
        while True:
            drawn.append(draw(logits.flatten(0, -2), temperature, generator=generator).view(logits.shape[:-1]))
            if len(drawn) == n_frames:
                return torch.stack(drawn, 1)
            logits, state = self.step(drawn[-1], state)

    def _codes(self, name: str, video: Tensor, lead: int = 2) -> Tensor:
        """The codes (..., h, w) of frames (..., C, H, W), with as many axes before; codes are returned as they are."""
        given = isinstance(video, Tensor) and not video.is_floating_point()
        axes = "(B, T, "[: 3 * lead + 1]
        symbols = f"{axes}C, H, W), or codes {axes}h, w)"
        check_tensor(name, video, symbols, ndim=lead + (2 if given else 3), dtypes=INTEGERS if given else FLOATS)
        if given:
            return video
        with _autocast.off(video.device):  # the codes that they have outside of it
            return self.tokenizer.encode(video)

    def _embed(self, codes: Tensor) -> Tensor:
        """(..., h, w) -> (..., h, w, D)."""
        words = self.tokenizer.words(codes)
        x: Tensor = self.embedding(words.flatten(0, -4).movedim(-1, 1)).movedim(1, -1)
        return x.unflatten(0, codes.shape[:-2])

    def _logits(self, x: Tensor) -> Tensor:
        """(..., h, w, D) -> (..., h, w, S)."""
        logits: Tensor = self.head(x.flatten(0, -4).movedim(-1, 1)).movedim(1, -1)
        return logits.unflatten(0, x.shape[:-3])
