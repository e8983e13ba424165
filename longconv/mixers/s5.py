"""S5: one state space for all features, by a parallel scan.

Shapes: B batch, L length, H features, P modes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _autocast, _sequence
from longconv._checks import (
    COMPLEX,
    FLOATS,
    check_choice,
    check_device,
    check_lengths,
    check_shape,
    check_state,
    check_tensor,
    check_values,
)
from longconv._sequence import StatePassing, zero_beyond
from longconv.filters import S5Filter
from longconv.mixers.base import OUTPUTS, FilterMixer
from longconv.ops import linear_scan
from longconv.ops._library import conjugate

CHUNK = 16
"""Steps that are taken with Lambda_bar in the working precision; longer powers are formed in double precision."""

HALF_GLUS = ("half_glu1", "half_glu2")


# --- the system -------------------------------------------------------------------------------------------------------


def ssm(
    u: Tensor,
    Lambda_bar: Tensor,
    B_bar: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    initial: Tensor | None = None,
    conj_sym: bool = True,
    bidirectional: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""A diagonal state space system of H inputs and outputs on whole sequences, by a parallel scan.

        x[t] = Lambda_bar x[t-1] + B_bar u[t],    x[-1] = initial,    y[t] = f Re(C x[t]) + D u[t]

    with f = 2 where a mode stands for a conjugate pair (``conj_sym``), else 1. Bidirectional, a second x runs from the
    last sample to the first, and both are joined: y[t] = f Re(C [x[t], x_back[t]]) + D u[t]; both hold the sample t.

    The states are formed in u's precision (single for 16 bits), or that of ``initial`` where it is higher; powers of
    Lambda_bar beyond the 16th in double precision, so pass a complex128 Lambda_bar where its rounding matters.

    Args:
        u: (B, L, H) real.
        Lambda_bar: (P,) complex.
        B_bar: (P, H) complex.
        C: (H, P) complex; bidirectional (H, 2P), the columns of the forward states first.
        D: (H,) real, or None for 0.
        initial: the state before the first sample (B, P) complex, or None for 0; bidirectional (B, 2P), the second half
            the state behind the last sample.
        conj_sym: whether a mode stands for a conjugate pair.
        bidirectional: whether outputs depend on the future too.

    Returns:
        y (B, L, H) in u's dtype, and the final state (B, P) complex, that after the last sample; bidirectional (B, 2P),
        the second half the state of the backward scan at that same last sample.

    Raises:
        ValueError, TypeError: a wrong shape, dtype or device; values that are NaN or infinite, or modes that overflow
            because |Lambda_bar| > 1 (both looked at on the CPU outside ``torch.compile`` alone).

    References:
        Simplified State Space Layers for Sequence Modeling (Smith, Warrington, Linderman, arXiv 2208.04933)

    >>> u, half = torch.ones(1, 3, 1), torch.full((1,), 0.5, dtype=torch.complex64)
    >>> y, final = ssm(u, half, half[:, None], half[:, None])
    >>> y[0, :, 0], final
    (tensor([0.5000, 0.7500, 0.8750]), tensor([[0.8750+0.j]]))
    """
    _check_system(u, Lambda_bar, B_bar, C, D, initial, bidirectional)
    real = torch.promote_types(u.dtype, torch.float32)
    real = real if initial is None else torch.promote_types(real, initial.real.dtype)
    check_growth(Lambda_bar, _sequence.total(u.shape[1]), real)
    with _autocast.off(u.device):
        wide = u.to(real)
        inputs = _complex(wide @ _interleaved(B_bar.mT, -1).to(real))
        x, final = _scan(Lambda_bar, inputs, initial, bidirectional)
        weights = conjugate(C).mT  # Re(C x) is the real product of [Re x, Im x] with [Re C, -Im C]
        y = (2 if conj_sym else 1) * (torch.view_as_real(x).flatten(-2) @ _interleaved(weights, 0).to(real))
        y = y if D is None else y + D.to(real) * wide
    return y.to(u.dtype), final


def _interleaved(matrix: Tensor, axis: int) -> Tensor:
    """A complex matrix as a real one with [real, imaginary, real, ...] along ``axis``."""
    return torch.stack([matrix.real, matrix.imag], -1).movedim(-1, axis % 2 + 1).flatten(axis % 2, axis % 2 + 1)


def _complex(x: Tensor) -> Tensor:
    """The inverse of interleaving along the last axis."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _check_system(
    u: Tensor,
    Lambda_bar: Tensor,
    B_bar: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial: Tensor | None,
    bidirectional: bool,
) -> None:
    check_tensor("u", u, "(B, L, H)", ndim=3, dtypes=FLOATS)
    check_tensor("Lambda_bar", Lambda_bar, "(P,)", ndim=1, dtypes=COMPLEX)
    (batch, _, H), P = u.shape, Lambda_bar.shape[0]
    both, P_all = ("2P", 2 * P) if bidirectional else ("P", P)
    check_tensor("B_bar", B_bar, "(P, H)", ndim=2, dtypes=COMPLEX)
    check_shape("B_bar", B_bar, (P, H), "(P, H)")
    check_tensor("C", C, f"(H, {both})", ndim=2, dtypes=COMPLEX)
    check_shape("C", C, (H, P_all), f"(H, {both})")
    if D is not None:
        check_tensor("D", D, "(H,)", ndim=1, dtypes=FLOATS)
        check_shape("D", D, (H,), "(H,)")
    if initial is not None:
        check_tensor("initial", initial, f"(B, {both})", ndim=2, dtypes=COMPLEX)
        check_shape("initial", initial, (batch, P_all), f"(B, {both})")
    for name, part in (("Lambda_bar", Lambda_bar), ("B_bar", B_bar), ("C", C), ("D", D), ("initial", initial)):
        if part is not None:
            check_device(name, part, "u", u)
    for name, part in (("B_bar", B_bar), ("C", C), ("Lambda_bar", Lambda_bar)):
        check_values(name, part)


def check_growth(Lambda_bar: Tensor, length: int, dtype: torch.dtype, name: str = "Lambda_bar") -> None:
    """Raise a ValueError that names a power |Lambda_bar|^L beyond the range of the states."""
    if not torch.compiler.is_compiling():
        powers = Lambda_bar.detach().abs().to(dtype) ** length
        cause = f"|{name}| > 1, the system is unstable: keep Re Lambda below 0 (clip=True of the mixer)"
        check_values(f"|{name}|^{length}", powers, because=cause)


def _scan(Lambda_bar: Tensor, inputs: Tensor, initial: Tensor | None, bidirectional: bool) -> tuple[Tensor, Tensor]:
    """The states (B, L, P) or (B, L, 2P), and those at the last sample (B, P) or (B, 2P)."""
    if bidirectional:
        first, second = (None, None) if initial is None else initial.chunk(2, dim=-1)
        x, last = scan_states(Lambda_bar, inputs, initial_states(inputs, first))
        start = initial_states(inputs, second)
        back, _ = scan_states(Lambda_bar, inputs.flip(1), start, reverse=True)
        back, total = back.flip(1), _sequence.total(back.shape[1])
        end = _sequence.take(back, total - 1) if total else start
        return torch.cat([x, back], -1), torch.cat([last, end], -1)
    return scan_states(Lambda_bar, inputs, initial_states(inputs, initial))


def scan_states(Lambda_bar: Tensor, inputs: Tensor, start: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """The states (B, L, P), and the last one (B, P); with ``reverse`` both are in the order of decreasing time."""

    def decay(length: int) -> Callable[[Tensor], Tensor]:
        power = Lambda_bar.to(torch.complex128) ** length
        return lambda x: power * x

    def states(start: Tensor) -> Tensor:
        return diagonal_states(Lambda_bar, inputs, start)

    return _sequence.scan(states, decay, start, inputs.shape[1], reverse=reverse)


def initial_states(inputs: Tensor, initial: Tensor | None) -> Tensor:
    """The state before the first input, in its dtype."""
    batch, _, P = inputs.shape
    return inputs.new_zeros(batch, P) if initial is None else initial.to(inputs.dtype)


def diagonal_states(Lambda_bar: Tensor, inputs: Tensor, initial: Tensor | None) -> Tensor:
    """The states (B, L, P): chunks are scanned from 0, and the scan of their ends adds what came before them.

    With t = q T + r it is x[q, r] = local[q, r] + Lambda_bar^(r+1) x[q-1, T-1]. A linear scan with a rounded Lambda_bar
    would be off by L roundings in a power; here it is by T.
    """
    _, length, _ = inputs.shape
    start, rounded = initial_states(inputs, initial), Lambda_bar.to(inputs.dtype)
    if length <= CHUNK:
        return linear_scan(rounded, inputs, start)
    count = -(-length // CHUNK)
    chunks = F.pad(inputs, (0, 0, 0, count * CHUNK - length)).unflatten(1, (count, CHUNK))
    local = linear_scan(rounded, chunks, dim=2)
    exact = Lambda_bar.to(torch.complex128)
    powers = linear_scan(exact, exact.new_zeros(CHUNK, exact.shape[0]), torch.ones_like(exact), dim=0)
    ends = linear_scan(powers[-1], local[:, :-1, -1].to(exact.dtype), start.to(exact.dtype))
    before = torch.cat([start[:, None], ends.to(inputs.dtype)], 1)
    x = torch.addcmul(local, powers.to(inputs.dtype), before[:, :, None])
    x = x.flatten(1, 2)
    return x if x.shape[1] == length else x[:, :length]


# --- the mixer --------------------------------------------------------------------------------------------------------


class S5State(NamedTuple):
    """State of an :class:`S5`; the system is set up once, in ``init_state``, and travels with it.

    The system is kept in complex128, so that its rounding does not add up over long streams; x is kept in the state's
    own precision.
    """

    x: Tensor
    """(B, P), after the last sample."""
    Lambda_bar: Tensor
    """(P,)."""
    B_bar: Tensor
    """(P, H)."""
    C: Tensor
    """(H, P)."""


class HalfGLU(nn.Module):
    """z * sigmoid(Linear(inner(z)))."""

    def __init__(self, width: int, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.gate = nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return z * torch.sigmoid(self.gate(self.inner(z)))


class S5(StatePassing, FilterMixer):
    """One diagonal state space with D inputs and D outputs, by a parallel scan; then GELU and a gate.

    x[t] = Lambda_bar x[t-1] + B_bar u[t], y[t] = 2 Re(C x[t]) + D u[t]: features are mixed by the system itself, with a
    state of N/2 complex numbers for all of them, where S4 and S4D have as many for each.

    ``filter(length)`` gives the taps from every input to every output, (D, D, length), outputs first.

    Args:
        d_model: D.
        d_state: N, size of the real state.
        blocks: number of HiPPO matrices that the state starts from; None: 8 (published) where that can be, else 1.
        bidirectional: whether an output depends on the future too; then it can't stream.
        init: measure of the HiPPO matrices.
        C_init: start of C, "trunc_standard_normal", "lecun_normal" or "complex_normal"; see
            :class:`~longconv.filters.S5Filter`.
        discretization: "zoh" or "bilinear".
        conj_sym: store one mode of each conjugate pair; else all N of them.
        clip: keep Re Lambda <= -1e-4.
        dt_min, dt_max: the step of a mode starts log-uniform in [dt_min, dt_max].
        activation: see :class:`~longconv.mixers.base.FilterMixer`; "gelu_tanh" is the published one.
        output: "half_glu1": g sigmoid(Linear g), with g the activation of y; "half_glu2": y sigmoid(Linear g); "glu":
            Linear(g) sigmoid(Linear g); "linear"; or None.
        dropout: see :class:`~longconv.mixers.base.FilterMixer`.
        filter_lr: learning rate of the system's parameters; None takes the optimiser's.

    References:
        Simplified State Space Layers for Sequence Modeling (Smith, Warrington, Linderman, arXiv 2208.04933)

    >>> mixer = S5(4, d_state=8)
    >>> y, state = mixer.prefill(torch.randn(2, 10, 4))
    >>> y_t, state = mixer.step(torch.randn(2, 4), state)
    >>> y.shape, y_t.shape
    (torch.Size([2, 10, 4]), torch.Size([2, 4]))
    """

    taps: S5Filter

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 256,
        blocks: int | None = None,
        bidirectional: bool = False,
        init: str = "legs",
        C_init: str = "trunc_standard_normal",
        discretization: str = "zoh",
        conj_sym: bool = True,
        clip: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        activation: str | None = "gelu_tanh",
        output: str | None = "half_glu1",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = S5Filter(
            d_model,
            d_state,
            blocks=blocks,
            init=init,
            C_init=C_init,
            discretization=discretization,
            conj_sym=conj_sym,
            bidirectional=bidirectional,
            clip=clip,
            dt_min=dt_min,
            dt_max=dt_max,
            filter_lr=filter_lr,
        )
        half = check_choice("output", output, (*OUTPUTS, *HALF_GLUS)) in HALF_GLUS if output is not None else False
        super().__init__(
            d_model,
            taps,
            bidirectional=bidirectional,
            activation=activation,
            output=None if half else output,
            dropout=dropout,
        )
        if half:
            self.output = HalfGLU(d_model, nn.Identity())
        if output == "half_glu2":
            self.output = HalfGLU(d_model, nn.Sequential(self.activation, self.dropout))
            self.activation, self.dropout = nn.Identity(), nn.Dropout(0)

    def forward(self, u: Tensor, lengths: Tensor | None = None, *, rate: float = 1.0) -> Tensor:
        """Mix a whole sequence; see :meth:`~longconv.mixers.base.ConvolutionMixer.forward`."""
        self._check_input(u, lengths)
        check_lengths(lengths, _sequence.total(u.shape[1]))
        with _autocast.off(u.device):
            system = self.taps.discretised(rate)
        u = zero_beyond(u, lengths)
        y, _ = ssm(u, *system, self.D[0], None, self.taps.conj_sym, self.bidirectional)
        return zero_beyond(self._mix_features(y), lengths)

    # --- streaming ----------------------------------------------------------------------------------------------------

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None, rate: float = 1.0
    ) -> S5State:
        Lambda_bar, B_bar, C = (part.to(device) for part in self.taps.discretised(rate))
        self.taps.require_stable(Lambda_bar)
        return S5State(self._zero_state(batch_size, Lambda_bar, dtype), Lambda_bar, B_bar, C)

    def _step(self, u_t: Tensor, state: S5State) -> tuple[Tensor, S5State]:
        self._check_state(u_t, state)
        x = state.Lambda_bar * state.x + u_t.to(state.B_bar.dtype) @ state.B_bar.mT
        y = self.taps.factor * (x @ state.C.mT).real + self.D[0] * u_t
        return self._mix_features(y.to(u_t.dtype)), state._replace(x=x.to(state.x.dtype))

    def _prefill(self, u: Tensor, state: S5State) -> tuple[Tensor, S5State]:
        self._check_state(u, state)
        x, Lambda_bar, B_bar, C = state
        y, x = ssm(u, Lambda_bar, B_bar, C, self.D[0], x, self.taps.conj_sym)
        return self._mix_features(y), state._replace(x=x.to(state.x.dtype))

    def _after(self, u: Tensor, state: S5State) -> Tensor:
        self._check_state(u, state)
        x, Lambda_bar, B_bar, C = state
        return ssm(u, Lambda_bar, B_bar, C, None, x, self.taps.conj_sym)[1]

    def _decay(self, state: S5State, length: int) -> Callable[[Tensor], Tensor]:
        power = state.Lambda_bar**length
        return lambda x: power * x

    def _check_state(self, u: Tensor, state: S5State) -> None:
        P = self.taps.log_dt.shape[0]
        check_state(state, S5State, u, (u.shape[0], P), "(B, P)", COMPLEX, (self.d_model, P))
