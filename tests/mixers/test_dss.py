"""What only DSS has: growing modes, also in streams, and long streams in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longconv.mixers import DSS
from tests.tolerances import assert_close


def stream(mixer: DSS, u: Tensor, chunk: int) -> Tensor:
    state, outputs = mixer.init_state(u.shape[0]), []
    with torch.no_grad():
        for part in u.split(chunk, dim=1):
            y, state = mixer.prefill(part, state) if chunk > 1 else mixer.step(part[:, 0], state)
            outputs.append(y if chunk > 1 else y[:, None])
    return torch.cat(outputs, 1)


@pytest.mark.parametrize("variant", ["softmax", "exp", "clip"])
def test_float32_over_16384_steps(variant: str) -> None:
    torch.manual_seed(0)
    mixer, u = DSS(2, variant=variant), torch.randn(1, 16384, 2)
    y = stream(mixer, u, 1)
    assert_close(y, mixer.double()(u.double()), 5e-6)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_growing_modes_stream(dtype: torch.dtype, bound: float, chunk: int) -> None:
    """A mode that grows by exp(200) over l_max samples, and on beyond: states far outside the range of float32."""
    torch.manual_seed(0)
    mixer = DSS(2, d_state=6, l_max=100, dt_min=1.0, dt_max=1.0, activation=None, output=None).to(dtype)
    with torch.no_grad():
        mixer.taps.get_parameter("Lambda")[:, 0] = torch.tensor([2.0, 0.02, -0.3])
    u = torch.randn(2, 110, 2, dtype=dtype)
    assert_close(stream(mixer, u, chunk), mixer.double()(u.double()), bound)


def test_l_max_sizes_the_normaliser_alone() -> None:
    mixer, other = DSS(2, d_state=8, l_max=10), DSS(2, d_state=8, l_max=20)
    other.load_state_dict(mixer.state_dict())
    assert mixer(torch.randn(1, 50, 2)).isfinite().all()
    assert not torch.allclose(mixer.filter(10), other.filter(10))


def test_a_mode_that_grows_beyond_double_precision_has_taps_and_no_stream() -> None:
    mixer = DSS(2, d_state=4, l_max=1000, dt_min=1.0, dt_max=1.0)
    with torch.no_grad():
        mixer.taps.get_parameter("Lambda")[:, 0] = 2.0
    assert mixer(torch.randn(1, 1000, 2)).isfinite().all()
    with pytest.raises(ValueError, match=r"exp\(Re a l_max\).*too fast to be streamed"):
        mixer.init_state(1)
