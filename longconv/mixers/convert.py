"""State dicts of the original S4 and S4D layers, turned into ours.

The layers are those of the public repository state-spaces/s4: its S4 block with a kernel of mode "dplr" or "diag", and
its minimal S4D. Symbols: C channels, H features, P = N/2 stored modes, T systems that the features share in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv._checks import check_choice, check_shape, check_tensor, check_values
from longconv.filters.dplr import dense, discretise, real_rows
from longconv.mixers.s4 import S4
from longconv.mixers.s4d import S4D

LOG_POSITIVE: dict[str, Callable[[Tensor], Tensor]] = {"exp": lambda x: x, "softplus": lambda x: F.softplus(x).log()}
"""How the original keeps a positive number -> the logarithm of that number."""
MINIMAL = {"kernel.log_dt": "inv_dt", "kernel.log_A_real": "A_real", "kernel.A_imag": "A_imag", "kernel.C": "C"}
"""Names of the minimal S4D -> those of the block's kernel."""
OUTPUT = {f"output_linear.{layer}{name}": name for layer in ("", "0.") for name in ("weight", "bias")}
KERNEL = ("inv_dt", "A_real", "A_imag", "B", "C", "P", "l_kernel")
BLOCK = {f"{start}{name}": name for start in ("", "layer.kernel.") for name in KERNEL}
"""Names of the S4 block's kernel, with and without the block -> those of the kernel."""
NEEDED = ("D", "inv_dt", "A_real", "A_imag", "B", "C")
REALS = (torch.float64, torch.float32)
WHOLE = (torch.int64, torch.int32)
FORMS: dict[str, tuple[str, tuple[int, ...]]] = {
    "D": ("(C, H) or (H,)", (1, 2)),
    "inv_dt": ("(H,), (H, 1) or (H, N/2)", (1, 2)),
    "A_real": ("(T, N/2)", (2,)),
    "A_imag": ("(T, N/2)", (2,)),
    "B": ("(1, T, N/2, 2)", (4,)),
    "C": ("(C, H, N/2, 2), or (H, N/2, 2) of the minimal S4D", (3, 4)),
    "P": ("(R, T, N/2, 2)", (4,)),
    "weight": ("(2 H, C H) or (H, C H), and perhaps a 1", (2, 3)),
    "bias": ("(2 H,) or (H,)", (1,)),
    "l_kernel": ("()", (0, 1)),
}
"""The shapes and ranks in which a state dict holds a tensor."""


def load_s4(
    state_dict: Mapping[str, Tensor],
    *,
    prefix: str = "",
    discretization: str | None = None,
    activation: str | None = "gelu",
    dt_transform: str = "exp",
    real_transform: str = "exp",
) -> S4 | S4D:
    """The mixer of an original S4 or S4D layer, built in the sizes of its state dict and with its numbers.

    The original S4 overwrites its parameter C, at the first forward pass, with C (I - A_bar^L) for the L that its
    buffer ``l_kernel`` then holds; 0 there means C itself. Both are turned into C. Systems that features share
    (``n_ssm``) are repeated, one a feature: the same function, with parameters of its own for each. An original that
    was built with an ``l_max`` below its input's length cuts its filter there. No state dict tells: ours goes on.

    Args:
        state_dict: parameters and buffers by the original's names; those of an S4 block ("layer.kernel.C", ...), or of
            the minimal S4D ("kernel.log_dt", ...).
        prefix: what stands before these names; entries without it are left out.
        discretization: of a diagonal kernel, "zoh" (None) or "bilinear" or "dss"; S4 is "bilinear" (None).
        activation: what the layer was built with.
        dt_transform: how dt is kept: "exp" or "softplus".
        real_transform: how -Re Lambda is kept: "exp" or "softplus".

    Returns:
        An :class:`S4` where the kernel has a low rank part P, else an :class:`S4D`, in the precision of C.

    Raises:
        ValueError: entries that are missing, that these layers do not have, of sizes that do not fit each other, or
            that hold NaN or infinite values; or an unknown option.
        TypeError: an entry that is no tensor, or of another dtype than float32 or float64.
    """
    named = _plain_names({name[len(prefix) :]: t for name, t in state_dict.items() if name.startswith(prefix)})
    low_rank = "P" in named
    if low_rank and discretization not in (None, "bilinear"):
        raise ValueError(f"discretization is {discretization!r}, expected None or 'bilinear' for a kernel with P")
    H, channels = named["D"].shape[-1], named["D"].shape[0]
    filters, _, modes, _ = named["C"].shape
    width = named["weight"].shape[0] if "weight" in named else 0
    options: dict[str, Any] = {
        "d_state": 2 * modes,
        "channels": channels,
        "bidirectional": filters == 2 * channels,
        "dt_tied": named["inv_dt"].ndim == 1 or named["inv_dt"].shape[-1] == 1,
        "activation": activation,
        "output": {2 * H: "glu", H: "linear"}.get(width),
    }
    mixer: S4 | S4D
    if low_rank:
        mixer = S4(H, rank=named["P"].shape[0], init="legs", **options)
    else:
        mixer = S4D(H, discretization=discretization or "zoh", **options)
    mixer.to(named["C"].dtype)
    parameters = _convert(named, dt_transform, real_transform)
    mixer.load_state_dict({**mixer.state_dict(), **{name: t.detach() for name, t in parameters.items()}})
    return mixer


def convert_s4(
    state_dict: Mapping[str, Tensor], *, dt_transform: str = "exp", real_transform: str = "exp"
) -> dict[str, Tensor]:
    """The tensors of an original layer's state dict under our names and in our form, with gradients to them.

    See :func:`load_s4`; the minimal S4D has no B of its own: it is 1.
    """
    return _convert(_plain_names(state_dict), dt_transform, real_transform)


def _convert(named: dict[str, Tensor], dt_transform: str, real_transform: str) -> dict[str, Tensor]:
    log_dt = LOG_POSITIVE[check_choice("dt_transform", dt_transform, tuple(LOG_POSITIVE))]
    log_decay = LOG_POSITIVE[check_choice("real_transform", real_transform, tuple(LOG_POSITIVE))]
    H = named["D"].shape[-1]
    inv_dt = named["inv_dt"]
    parameters = {
        "D": named["D"],
        "taps.log_dt": log_dt(inv_dt[:, 0] if inv_dt.ndim == 2 and inv_dt.shape[1] == 1 else inv_dt),
        "taps.log_decay": _a_feature(log_decay(named["A_real"]), 0, H),
        "taps.frequency": _a_feature(-named["A_imag"], 0, H),
        "taps.B": _a_feature(named["B"][0], 0, H),
        "taps.C": named["C"],
    }
    if "weight" in named:
        layer = "output.0" if named["weight"].shape[0] == 2 * H else "output"
        parameters |= {f"{layer}.{name}": named[name] for name in ("weight", "bias")}
    if "P" in named:
        parameters["taps.P"] = _a_feature(named["P"], 1, H)
        if int(named.get("l_kernel", torch.tensor(0))) > 0:
            parameters["taps.C"] = _whole_readout(parameters, int(named["l_kernel"]))
    return parameters


def _plain_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries, checked, by the last part of their name in an S4 block, and in that block's form."""
    minimal = "kernel.log_dt" in state_dict
    known = {"D": "D", "layer.D": "D", **OUTPUT, **(MINIMAL if minimal else BLOCK)}
    recorded = {known[name]: name for name in state_dict if name in known}
    unknown = [name for name in state_dict if name not in known]
    missing = [name for name in NEEDED if name not in recorded and not (minimal and name == "B")]
    if ("weight" in recorded) != ("bias" in recorded):
        missing.append("bias" if "weight" in recorded else "weight")
    if unknown or missing:
        raise ValueError(
            f"state_dict is not that of an original S4 or S4D layer: it lacks {missing}, and has unknown {unknown}"
        )
    for part, name in recorded.items():
        shape, ndim = FORMS[part]
        check_tensor(name, state_dict[name], shape, ndim=ndim, dtypes=WHOLE if part == "l_kernel" else REALS)
        check_values(name, state_dict[name])
    named = {part: state_dict[name] for part, name in recorded.items()}
    named["D"] = torch.atleast_2d(named["D"])
    if named["C"].ndim == 3:
        named["C"] = named["C"][None]
    if "weight" in named:
        named["weight"] = named["weight"].flatten(1)
    if minimal:
        named["A_imag"] = -named["A_imag"]
        ones = torch.ones_like(named["A_imag"])
        named["B"], recorded["B"] = torch.stack([ones, 0 * ones], -1)[None], "B"
    _check_sizes(named, recorded)
    return named


def _check_sizes(named: Mapping[str, Tensor], recorded: Mapping[str, str]) -> None:
    """Raise a ValueError, by its recorded name, for a tensor that does not fit D and C."""
    (channels, H), (filters, _, modes, _) = named["D"].shape, named["C"].shape
    systems = named["A_real"].shape[0]

    def check(part: str, expected: tuple[int | None, ...], symbols: str) -> None:
        if part in named:
            check_shape(recorded[part], named[part], expected, symbols)

    bidirectional = 1 + (filters == 2 * channels)
    check("C", (bidirectional * channels, H, modes, 2), "(C, H, N/2, 2) with the C, or twice it, and the H of D")
    if systems < 1 or H % systems:
        raise ValueError(f"{recorded['A_real']} has {systems} systems, expected a divisor of the H = {H} features of D")
    check("A_real", (systems, modes), "(T, N/2) with the N/2 of C")
    check("A_imag", (systems, modes), "(T, N/2) as the real parts")
    check("B", (1, systems, modes, 2), "(1, T, N/2, 2) with the T of the real parts")
    check("P", (None, systems, modes, 2), "(R, T, N/2, 2) with the T of the real parts")
    steps = named["inv_dt"].shape[1:]
    check("inv_dt", (H, *((modes,) if steps not in ((), (1,)) else steps)), "(H,), (H, 1) or (H, N/2)")
    if "weight" in named:
        width = H if named["weight"].shape[0] == H else 2 * H
        check("weight", (width, channels * H), "(2 H, C H) or (H, C H)")
        check("bias", (width,), "that of the weight's rows")
    if "l_kernel" in named:
        check("l_kernel", (1,) * named["l_kernel"].ndim, "()")
        if int(named["l_kernel"]) < 0:
            raise ValueError(f"{recorded['l_kernel']} is {int(named['l_kernel'])}, expected a length >= 0")


def _a_feature(tensor: Tensor, dim: int, H: int) -> Tensor:
    """T systems along ``dim`` repeated to one a feature: feature h has system h mod T."""
    repeats = [1] * tensor.ndim
    repeats[dim] = H // tensor.shape[dim]
    return tensor.repeat(repeats)


def _whole_readout(parameters: Mapping[str, Tensor], length: int) -> Tensor:
    """C from C (I - A_bar^length): a solve with the real matrix of every feature, in double precision."""
    Lambda = torch.complex(-parameters["taps.log_decay"].double().exp(), parameters["taps.frequency"].double())
    P, B, truncated = (torch.view_as_complex(parameters[f"taps.{name}"].contiguous()) for name in "PBC")
    A_bar, _ = dense(discretise(Lambda, P, B, parameters["taps.log_dt"].double().exp()))
    identity = torch.eye(A_bar.shape[-1], dtype=A_bar.dtype, device=A_bar.device)
    matrix = identity - torch.linalg.matrix_power(A_bar, length)
    rows = torch.linalg.solve(matrix, real_rows(truncated).transpose(0, 1), left=False).transpose(0, 1)
    pairs = rows.unflatten(-1, (-1, 2))
    return torch.stack([pairs[..., 0], -pairs[..., 1]], -1).to(parameters["taps.C"].dtype)
