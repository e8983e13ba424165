"""Norms over features: LayerNorm and RMSNorm a position, BatchNorm a feature over the valid positions of a batch.

Symbols: B batch, L length, D features.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from longconv import _sequence
from longconv._checks import check_choice, check_int, check_real
from longconv.models.padding import zero_padding

NORMS = ("layer", "batch", "rms")
"""The names that ``norm=`` accepts."""


def create_norm(name: str, d_model: int, eps: float | None = None) -> nn.Module:
    """The norm ``"layer"``, ``"batch"`` or ``"rms"`` over the last axis of (..., D).

    What it adds to the variance is ``eps``; None: torch's 1e-5, and 1e-6 for ``"rms"``.

    >>> create_norm("rms", 4)(torch.full((1, 2, 4), 3.0))[0, 0].round()
    tensor([1., 1., 1., 1.], grad_fn=<RoundBackward0>)
    """
    check_choice("norm", name, NORMS)
    check_int("d_model", d_model)
    if eps is None:
        eps = 1e-6 if name == "rms" else 1e-5
    check_real("norm_eps", eps, least=0, open_least=True)
    kind = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "batch": BatchNorm}[name]
    return kind(d_model, eps=eps)


def apply_norm(norm: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
    """``norm(x)``; only BatchNorm has use for the mask ``valid`` (B, L, 1) of the positions that count."""
    return norm(x, valid) if isinstance(norm, BatchNorm) else norm(x)


class BatchNorm(nn.Module):
    r"""BatchNorm with the features in the last axis, whose statistics take the valid positions alone.

    .. math:: y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    While training, mean and variance of a feature run over all positions (b, t) with ``valid[b, t]``, so that padding
    neither enters them nor the running statistics; in evaluation the running statistics serve. Values at padded
    positions come out finite where they went in finite; the caller sets them to zero.

    Of fewer than two valid positions there is no variance: the running statistics stay as they are, and a lone position
    comes out as beta. (Without ``valid`` such a batch is an error of torch. Here it isn't, because to know the count
    would take a synchronisation and a graph break, and a batch of padding alone has nothing to go wrong.)

    Args:
        d_model: the number of features D.
        eps: epsilon.

    References:
        Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift,
        S. Ioffe and C. Szegedy, arXiv:1502.03167.

    >>> norm = BatchNorm(1)
    >>> x, valid = torch.tensor([[1.0, 3.0, 99.0]])[..., None], torch.tensor([[True, True, False]])[..., None]
    >>> norm(x, valid)[0, :2, 0].round(), norm.norm.running_mean
    (tensor([-1.,  1.], grad_fn=<RoundBackward0>), tensor([0.2000]))
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model, eps=eps)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: (..., D); (B, L, D) where ``valid`` is given.
            valid: (B, L, 1), True at the positions that count; None: all of them.

        Raises:
            NotImplementedError: ``valid``, or a shard of a sequence, while training with the inner norm converted to
                ``SyncBatchNorm``, whose statistics can't leave positions out.
        """
        sharded = _sequence.shard() is not None
        if not self.norm.training or (valid is None and not sharded):
            return self.norm(x.flatten(0, -2)).view_as(x)
        if isinstance(self.norm, nn.SyncBatchNorm):
            if sharded:
                raise NotImplementedError(
                    "SyncBatchNorm can't act on shards of a sequence: leave the norm as it was, whose statistics are "
                    "those of the whole there"
                )
            raise NotImplementedError("SyncBatchNorm can't leave padded positions out: use norm='layer' or 'rms'")
        if not sharded:
            return self._train_masked(x, cast(Tensor, valid))
        return self._train_shard(x, x.new_ones(*x.shape[:-1], 1, dtype=torch.bool) if valid is None else valid)

    def _train_shard(self, x: Tensor, valid: Tensor) -> Tensor:
        """The formula as it stands, with sums over the whole of sequences of which this process has a shard."""
        norm, dtype = self.norm, torch.promote_types(self.norm.weight.dtype, torch.float32)
        wide = zero_padding(x.to(dtype), valid).flatten(0, -2)
        valid = valid.flatten(0, -2)
        total = _sequence.add(valid.sum())
        count = total.to(wide.dtype).clamp(min=1.0)
        mean = _sequence.add(wide.sum(0)) / count
        centred = zero_padding(wide - mean, valid)
        variance = _sequence.add(centred.square().sum(0)) / count
        self._track(total, mean, variance * (count / (count - 1.0).clamp(min=1.0)))
        y = centred * (variance + norm.eps).rsqrt() * norm.weight.to(dtype) + norm.bias.to(dtype)
        return y.view_as(x).to(x.dtype)

    def _train_masked(self, x: Tensor, valid: Tensor) -> Tensor:
        """One call of torch's own, which counts all N positions, of values that have the n valid ones' statistics.

        With c = x - mu, zero at padding, the N values sqrt(N / n) c have mean 0 and variance sigma^2; the factor is
        taken out of gamma again. That is 3 times as fast as the formula operation by operation. Sums and counts are of
        float32 at the least.
        """
        norm, rows = self.norm, max(valid.numel(), 1)
        dtype = torch.promote_types(norm.weight.dtype, torch.float32)
        share = valid.to(dtype)
        total = valid.sum()
        count = total.to(dtype).clamp(min=1.0)
        wide = zero_padding(x.to(dtype), valid)
        mean = wide.sum((0, 1)) / count
        factor = (rows / count).sqrt()
        centred = torch.addcmul(wide, share, mean, value=-1.0) * factor
        gamma, beta = norm.weight.to(dtype), norm.bias.to(dtype)
        found = torch.zeros_like(gamma), torch.ones_like(gamma)  # statistics of the N values
        y = torch.batch_norm(centred.flatten(0, 1), gamma / factor, beta, *found, True, 1.0, norm.eps, False)
        self._track(total, mean, found[1] * ((rows - 1) / rows * count / (count - 1.0).clamp(min=1.0)))
        return y.view_as(wide).to(x.dtype)

    @torch.no_grad()
    def _track(self, total: Tensor, mean: Tensor, unbiased: Tensor) -> None:
        """Take the mean and the variance of so many positions into the running ones, if they are two at the least."""
        norm, dtype, counts = self.norm, mean.dtype, total >= 2
        tracked = cast(Tensor, norm.num_batches_tracked).add_(counts)
        momentum = 1 / tracked.to(dtype).clamp(min=1) if norm.momentum is None else norm.momentum
        weight = momentum * counts.to(dtype)
        for running, value in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            kept = cast(Tensor, running)  # whatever the value of a batch that doesn't count, NaN too
            kept.copy_(torch.where(counts, kept.to(dtype).lerp(value, weight), kept))
