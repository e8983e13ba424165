"""ConvS5: a state space for video, one state a pixel, by a parallel scan over the frames.

Shapes: B batch, T frames, U features, H height, W width, P modes, k kernel size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _autocast, _sequence
from longconv._checks import (
    COMPLEX,
    FLOATS,
    check_bool,
    check_choice,
    check_device,
    check_lengths,
    check_real,
    check_shape,
    check_state,
    check_tensor,
    check_values,
    describe,
)
from longconv._sequence import StatePassing, zero_beyond
from longconv.filters.conv_s5 import ConvS5System, check_kernel
from longconv.mixers.base import ACTIVATIONS
from longconv.mixers.frames import Feedthrough, FrameGLU, ResNetBlock, group_count
from longconv.mixers.s5 import check_growth, initial_states, scan_states
from longconv.mixers.video import VideoMixer

OUTPUTS = ("standard", "resnet", "half_glu")


# --- the system -------------------------------------------------------------------------------------------------------


def conv_ssm(
    u: Tensor, A_bar: Tensor, B_bar: Tensor, C: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""A diagonal state space system between frames on whole videos, by a parallel scan over time.

        x[t] = A_bar x[t-1] + B_bar * u[t],    x[-1] = initial,    y[t] = 2 Re(C * x[t])

    where * is a cross-correlation over the frame with zeros around it, centred, as in ``torch.conv2d``:
    (B * u)[p, i, j] = sum_{q, m, n} B[p, q, m, n] u[q, i + m - k//2, j + n - k//2]. A state is complex and stands for
    itself and its conjugate. From frame to frame a state stays at its pixel, so that the scan is that of S5, over all
    pixels at once.

    The states are formed in u's precision (single for 16 bits), or that of ``initial`` where it is higher; powers of
    A_bar beyond the 16th in double precision, so pass a complex128 A_bar where its rounding matters.

    Args:
        u: (B, T, U, H, W) real; T = 0 gives no frames, and the initial state back.
        A_bar: (P,) complex.
        B_bar: (P, U, k, k) complex, k odd.
        C: (U, P, k, k) complex, with an odd k of its own.
        initial: the state before the first frame (B, P, H, W) complex, or None for 0.

    Returns:
        y (B, T, U, H, W) in u's dtype, and the final state (B, P, H, W) complex, that after the last frame.

    Raises:
        ValueError, TypeError: a wrong shape, dtype or device; a kernel of even size, or larger than the frame; values
            of the system that are NaN or infinite, or modes that overflow because |A_bar| > 1 (both looked at on the
            CPU outside ``torch.compile`` alone). NaN in a frame stays in its sample.

    References:
        Convolutional State Space Models for Long-Range Spatiotemporal Modeling (Smith, De Mello, Kautz, Linderman,
        Byeon), arXiv:2310.19694.

    >>> u, half = torch.ones(1, 3, 1, 2, 2), torch.full((1,), 0.5, dtype=torch.complex64)
    >>> y, final = conv_ssm(u, half, half.view(1, 1, 1, 1), half.view(1, 1, 1, 1))
    >>> y[0, :, 0, 0, 0], final[0, 0, 1, 1]
    (tensor([0.5000, 0.7500, 0.8750]), tensor(0.8750+0.j))
    """
    _check_system(u, A_bar, B_bar, C, initial)
    real = torch.promote_types(u.dtype, torch.float32)
    real = real if initial is None else torch.promote_types(real, initial.real.dtype)
    check_growth(A_bar, _sequence.total(u.shape[1]), real, "A_bar")
    with _autocast.off(u.device):
        y, final = _run(u.to(real), A_bar, _input_weight(B_bar).to(real), _output_weight(C).to(real), initial)
    return y.to(u.dtype), final


def _run(u: Tensor, A_bar: Tensor, inward: Tensor, outward: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    """:func:`conv_ssm` with the weights of its real convolutions, in the precision of u and of the weights."""
    batch, length, _, height, width = u.shape
    x = _to_states(u.flatten(0, 1), inward).unflatten(0, (batch, length))  # (B, T, H, W, P)
    x = x.flatten(2)
    start = initial_states(x, None if initial is None else initial.movedim(1, -1).flatten(1))
    states, final = scan_states(A_bar.repeat(height * width), x, start)
    y = _from_states(states.reshape(batch * length, height, width, len(A_bar)), outward)
    return y.unflatten(0, (batch, length)), final.reshape(batch, height, width, len(A_bar)).movedim(-1, 1)


def _input_weight(B_bar: Tensor) -> Tensor:
    """(P, U, k, k) complex -> (2P, U, k, k) real, a mode's real part before its imaginary one."""
    return torch.stack([B_bar.real, B_bar.imag], 1).flatten(0, 1)


def _output_weight(C: Tensor) -> Tensor:
    """(U, P, k, k) complex -> (U, 2P, k, k) real: 2 Re(C x) is the product of [Re x, Im x] with [2 Re C, -2 Im C]."""
    return torch.stack([2 * C.real, -2 * C.imag], 2).flatten(1, 2)


def _to_states(frames: Tensor, weight: Tensor) -> Tensor:
    """Frames (F, U, H, W) -> what enters the states, (F, H, W, P) complex.

    Frames with the features innermost come out of the convolution as they are wanted.
    """
    frames = frames.movedim(1, -1).contiguous().movedim(-1, 1)
    parts = F.conv2d(frames, weight, padding=weight.shape[-1] // 2).movedim(1, -1).contiguous()
    return torch.view_as_complex(parts.unflatten(-1, (weight.shape[0] // 2, 2)))


def _from_states(x: Tensor, weight: Tensor) -> Tensor:
    """States (F, H, W, P) complex -> frames (F, U, H, W)."""
    parts = torch.view_as_real(x).flatten(-2).movedim(-1, 1)
    return F.conv2d(parts, weight, padding=weight.shape[-1] // 2)


def _check_system(u: Tensor, A_bar: Tensor, B_bar: Tensor, C: Tensor, initial: Tensor | None) -> None:
    check_tensor("u", u, "(B, T, U, H, W)", ndim=5, dtypes=FLOATS)
    check_tensor("A_bar", A_bar, "(P,)", ndim=1, dtypes=COMPLEX)
    batch, _, U, height, width = u.shape
    P = A_bar.shape[0]
    check_tensor("B_bar", B_bar, "(P, U, k, k)", ndim=4, dtypes=COMPLEX)
    check_tensor("C", C, "(U, P, k, k)", ndim=4, dtypes=COMPLEX)
    check_shape("B_bar", B_bar, (P, U, B_bar.shape[3], None), "(P, U, k, k)")
    check_shape("C", C, (U, P, C.shape[3], None), "(U, P, k, k)")
    for name, kernel in (("B_bar", B_bar), ("C", C)):
        check_fits(name, kernel, u)
    if initial is not None:
        check_tensor("initial", initial, "(B, P, H, W)", ndim=4, dtypes=COMPLEX)
        check_shape("initial", initial, (batch, P, height, width), "(B, P, H, W)")
    for name, part in (("A_bar", A_bar), ("B_bar", B_bar), ("C", C), ("initial", initial)):
        if part is not None:
            check_device(name, part, "u", u)
    for name, part in (("A_bar", A_bar), ("B_bar", B_bar), ("C", C)):
        check_values(name, part)


def check_fits(name: str, kernel: Tensor, u: Tensor) -> None:
    """Raise a ValueError unless a kernel (..., k, k) is odd and fits into the frames of u (..., H, W)."""
    k, least = kernel.shape[-1], min(u.shape[-2:])
    if k % 2 == 0:
        raise ValueError(f"{name} is {describe(kernel)}, expected an odd k: a kernel is centred on its pixel")
    if k > least:
        raise ValueError(f"{name} is {describe(kernel)}, a kernel larger than the frames of u, {describe(u)}")


# --- the mixer --------------------------------------------------------------------------------------------------------


class ConvS5State(NamedTuple):
    """State of a :class:`ConvS5`; the system is set up once, in ``init_state``, and travels with it.

    Lambda_bar is kept in complex128, so that its rounding does not add up over long streams; the rest is in the state's
    own precision.
    """

    x: Tensor
    """(B, P, H, W) complex, after the last frame; (B, P, 0, 0) before the first, when it is 0 at any size."""
    Lambda_bar: Tensor
    """(P,)."""
    B_bar: Tensor
    """(2P, U, k, k) real, a mode's real part before its imaginary one."""
    C: Tensor
    """(U, 2P, k, k) real, those of [2 Re C, -2 Im C] likewise."""


class ConvS5(StatePassing, VideoMixer):
    """One diagonal state space a pixel, whose inputs and outputs are convolutions; then a network on every frame.

    x[t] = Lambda_bar x[t-1] + B_bar * u[t], y[t] = 2 Re(C * x[t]), with * over the frame: a recurrence of a state as
    large as a ConvLSTM's, but linear, so that all frames of a video are trained on at once; see :func:`conv_ssm`. It
    maps (B, T, C, H, W) to the same shape, for any T, H and W.

    Args:
        d_model: C, features of a frame.
        d_state: N, size of the real state of a pixel.
        blocks: number of HiPPO matrices that the state starts from.
        b_kernel: size of the kernel of the input, odd.
        c_kernel: size of the kernel of the output, odd.
        d_kernel: size of the kernels of the network behind them, odd.
        init: measure of the HiPPO matrices.
        discretization: how the system becomes discrete, "zoh" (published) or "bilinear".
        clip: keep Re Lambda <= -1e-4.
        dt_min: least step of a mode at the start; steps are log-uniform.
        dt_max: greatest step of a mode at the start.
        output: the network on every frame: "resnet" (published for video): act(y + h), with h two times norm,
            activation and convolution; "standard": act(norm(y + D * u)); "half_glu": h sigmoid(W h), h = act(norm(y));
            or None.
        squeeze_excite: weigh the features of "standard" and "resnet" by the frame's means.
        groups: groups of their norms; None: groups of 8 features (published) where that can be, else one.
        activation: its activation, one of :data:`~longconv.mixers.base.ACTIVATIONS`.
        dropout: probability that a whole feature of a frame is dropped in training.
        filter_lr: learning rate of the system's parameters; None takes the optimiser's.

    References:
        Convolutional State Space Models for Long-Range Spatiotemporal Modeling (Smith, De Mello, Kautz, Linderman,
        Byeon), arXiv:2310.19694.

    >>> mixer = ConvS5(4, d_state=8)
    >>> y, state = mixer.prefill(torch.randn(2, 10, 4, 8, 8))
    >>> y_t, state = mixer.step(torch.randn(2, 4, 8, 8), state)
    >>> y.shape, y_t.shape
    (torch.Size([2, 10, 4, 8, 8]), torch.Size([2, 4, 8, 8]))
    """

    shards = True

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 256,
        blocks: int = 1,
        b_kernel: int = 3,
        c_kernel: int = 3,
        d_kernel: int = 3,
        init: str = "legs",
        discretization: str = "zoh",
        clip: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        output: str | None = "resnet",
        squeeze_excite: bool = False,
        groups: int | None = None,
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(d_model)
        self.system = ConvS5System(
            d_model,
            d_state,
            blocks=blocks,
            b_kernel=b_kernel,
            c_kernel=c_kernel,
            init=init,
            discretization=discretization,
            clip=clip,
            dt_min=dt_min,
            dt_max=dt_max,
            filter_lr=filter_lr,
        )
        self.dropout = nn.Dropout2d(check_real("dropout", dropout, least=0, most=1))
        act = ACTIVATIONS[check_choice("activation", activation, tuple(ACTIVATIONS))]
        kernel, count = check_kernel("d_kernel", d_kernel), group_count(d_model, groups)
        excite = check_bool("squeeze_excite", squeeze_excite)
        self.output: nn.Module | None = None
        self.d_kernel = 1
        if output is not None and check_choice("output", output, OUTPUTS) == "half_glu":
            self.output = FrameGLU(d_model, act)
        elif output is not None:
            network = Feedthrough if output == "standard" else ResNetBlock
            self.output, self.d_kernel = network(d_model, kernel, count, act, excite), kernel
        if excite and output not in ("standard", "resnet"):
            raise ValueError(f"squeeze_excite is True with output = {output!r}, expected 'standard' or 'resnet'")

    def forward(self, u: Tensor, lengths: Tensor | None = None, *, rate: float = 1.0) -> Tensor:
        """Mix whole videos (B, T, C, H, W); ``rate`` multiplies every dt, for videos of fewer frames a second."""
        self._check_input(u, lengths)
        check_lengths(lengths, _sequence.total(u.shape[1]))
        with _autocast.off(u.device):
            system = self.system.discretised(rate)
        self._check_output(u)
        u = zero_beyond(u, lengths)
        y, _ = conv_ssm(u, *system)
        return zero_beyond(self._mix_features(y, u), lengths)

    def _mix_features(self, y: Tensor, u: Tensor) -> Tensor:
        """(..., C, H, W) of the system and of the input -> (..., C, H, W): what comes after the system in a frame."""
        if self.output is None:
            return self._drop(y)
        lead = y.shape[:-3]
        mixed: Tensor = self.output(y.flatten(0, -4), u.flatten(0, -4))
        return self._drop(mixed.view(*lead, *mixed.shape[1:]))

    def _check_output(self, u: Tensor) -> None:
        """Raise a ValueError unless the kernels of the network behind the system fit into the frames of u."""
        if self.d_kernel > min(u.shape[-2:]):
            raise ValueError(f"d_kernel is {self.d_kernel}, a kernel larger than the frames of u, {describe(u)}")

    def _drop(self, y: Tensor) -> Tensor:
        return self.dropout(y.flatten(0, -4)).view(y.shape) if self.training and self.dropout.p else y

    def _plain_parameters(self) -> Iterator[nn.Parameter]:
        return iter(()) if self.output is None else self.output.parameters()

    # --- streaming ----------------------------------------------------------------------------------------------------

    def streaming_refusal(self) -> str | None:
        """It always can."""
        return None

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        rate: float = 1.0,
    ) -> ConvS5State:
        """The state before the first frame, of any size; see :meth:`~longconv.mixers.Mixer.init_state`.

        ``rate`` multiplies every dt.
        """
        self._check_state_options(batch_size, dtype)
        return self._init_state(batch_size, device, dtype, rate)

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None, rate: float = 1.0
    ) -> ConvS5State:
        Lambda_bar, B_bar, C = (part.to(device) for part in self.system.discretised(rate))
        self.system.require_stable(Lambda_bar)
        double = (dtype or self.system.log_dt.dtype) == torch.float64
        real = torch.float64 if double else torch.float32
        x = Lambda_bar.new_zeros(batch_size, len(Lambda_bar), 0, 0, dtype=real.to_complex())
        return ConvS5State(x, Lambda_bar, _input_weight(B_bar).to(real), _output_weight(C).to(real))

    def _step(self, u_t: Tensor, state: ConvS5State) -> tuple[Tensor, ConvS5State]:
        x = self._check_state(u_t, state)
        with _autocast.off(u_t.device):
            entering = _to_states(u_t.to(state.B_bar.dtype), state.B_bar)
            if x is not None:
                entering = (state.Lambda_bar * x.movedim(1, -1) + entering).to(x.dtype)
            y = _from_states(entering, state.C)
        return self._mix_features(y.to(u_t.dtype), u_t), state._replace(x=entering.movedim(-1, 1))

    def _prefill(self, u: Tensor, state: ConvS5State) -> tuple[Tensor, ConvS5State]:
        x = self._check_state(u, state)
        check_growth(state.Lambda_bar, u.shape[1], state.B_bar.dtype)
        with _autocast.off(u.device):
            y, x = _run(u.to(state.B_bar.dtype), state.Lambda_bar, state.B_bar, state.C, x)
        return self._mix_features(y.to(u.dtype), u), state._replace(x=x)

    def _after(self, u: Tensor, state: ConvS5State) -> Tensor:
        x = self._check_state(u, state)
        with _autocast.off(u.device):
            return _run(u.to(state.B_bar.dtype), state.Lambda_bar, state.B_bar, state.C, x)[1]

    def _decay(self, state: ConvS5State, length: int) -> Callable[[Tensor], Tensor]:
        power = (state.Lambda_bar**length)[:, None, None]
        return lambda x: power * x

    def _check_state(self, u: Tensor, state: ConvS5State) -> Tensor | None:
        """The state x that meets frames u (..., C, H, W), None where it is 0, as no frame has come."""
        P, size = self.system.log_dt.shape[0], tuple(u.shape[-2:])
        fresh = isinstance(state, ConvS5State) and state.x.shape[2:] == (0, 0)
        outputs = (*self.system.C.shape[:1], 2 * P, *self.system.C.shape[2:4])
        shape = (u.shape[0], P, *((0, 0) if fresh else size))
        check_state(state, ConvS5State, u, shape, "(B, P, H, W)", COMPLEX, outputs)
        for name, kernel in (("state.B_bar", state.B_bar), ("state.C", state.C)):
            check_fits(name, kernel, u)
        self._check_output(u)
        return None if fresh else state.x
