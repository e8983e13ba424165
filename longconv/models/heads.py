"""Whole models: a sequence classifier, a sequence regressor and a language model.

Symbols: B batch, L length, D features, V vocabulary size.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from longconv.models.backbone import BackboneOptions, backbone_defaults
from longconv.models.hub import HubModel
from longconv.models.padding import valid_positions, zero_padding
from longconv.models.pooled import PooledModel
from longconv.models.trunk import Trunk


class _SequenceModel(PooledModel):
    """One vector of numbers a sequence."""

    def forward(self, x: Tensor, lengths: Tensor | None = None, *, rate: float = 1.0) -> Tensor:
        """A batch of sequences.

        Args:
            x: (B, L, d_input) floating, or (B, L) integer tokens; anything may stand at t >= lengths.
            lengths: (B,) valid lengths in [1, L]; None: all L.
            rate: what multiplies every dt of the mixers: a model trained on one sampling rate serves data with half as
                many samples a unit of time by ``rate=2``.

        Returns:
            (B, n): logits of the classes, or the regressor's outputs.

        Raises:
            ValueError: a wrong shape, a token or a length out of range, or an empty sequence.
            TypeError: a wrong dtype.
        """
        return self.head(self.pooled(x, lengths, rate=rate))


class SequenceClassifier(_SequenceModel):
    r"""Sequences to class logits: embedding, :class:`~longconv.models.Backbone`, pooling, linear map.

    .. math::
        \mathrm{logits}_b = W\, \mathrm{pool}_{t < \mathrm{lengths}_b}\, \mathrm{backbone}(\mathrm{embed}(x))_{bt} + c

    Args:
        n_classes: the number of classes.
        d_input: the number of input features, for continuous inputs (B, L, d_input).
        n_tokens: the vocabulary size, for tokens (B, L). Exactly one of the two is given.
        d_model: the number of features D.
        n_layers: the number of layers.
        pooling: ``"mean"``, ``"max"``, ``"sum"``, ``"last"`` or ``"first"`` of the valid positions.
        backbone: further options of :class:`~longconv.models.Backbone`, such as ``mixer`` and ``norm``.

    Raises:
        TypeError: an unknown option (named, with the nearest) or one of the wrong type.
        ValueError: an option out of range.

    >>> model = SequenceClassifier(10, d_input=1, d_model=8, n_layers=2, mixer="s4d")
    >>> model(torch.randn(3, 50, 1), lengths=torch.tensor([50, 7, 1])).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        n_classes: int,
        *,
        d_input: int | None = None,
        n_tokens: int | None = None,
        d_model: int = 128,
        n_layers: int = 4,
        pooling: str = "mean",
        **backbone: Unpack[BackboneOptions],
    ) -> None:
        inputs: dict[str, Any] = {"d_input": d_input, "n_tokens": n_tokens, "d_model": d_model, "n_layers": n_layers}
        super().__init__("n_classes", n_classes, pooling=pooling, **inputs, **backbone)


class SequenceRegressor(_SequenceModel):
    """Sequences to real numbers; as :class:`SequenceClassifier`, with ``n_outputs`` numbers in place of logits.

    Args:
        n_outputs: the numbers a sample.
        d_input: the number of input features, for continuous inputs (B, L, d_input).
        n_tokens: the vocabulary size, for tokens (B, L). Exactly one of the two is given.
        d_model: the number of features D.
        n_layers: the number of layers.
        pooling: ``"mean"``, ``"max"``, ``"sum"``, ``"last"`` or ``"first"`` of the valid positions.
        backbone: further options of :class:`~longconv.models.Backbone`.

    Raises:
        TypeError: an unknown option (named, with the nearest) or one of the wrong type.
        ValueError: an option out of range.

    >>> SequenceRegressor(2, d_input=3, d_model=8, n_layers=1, pooling="last")(torch.randn(4, 9, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        n_outputs: int,
        *,
        d_input: int | None = None,
        n_tokens: int | None = None,
        d_model: int = 128,
        n_layers: int = 4,
        pooling: str = "mean",
        **backbone: Unpack[BackboneOptions],
    ) -> None:
        inputs: dict[str, Any] = {"d_input": d_input, "n_tokens": n_tokens, "d_model": d_model, "n_layers": n_layers}
        super().__init__("n_outputs", n_outputs, pooling=pooling, **inputs, **backbone)


class LanguageModel(HubModel):
    r"""Tokens to the logits of the next token: (B, L) -> (B, L, V), causal where its mixer is.

    .. math:: \mathrm{logits}_{bt} = W\, \mathrm{backbone}(\mathrm{embed}(x))_{bt} + c

    It streams as its backbone does: looped ``step`` = ``prefill`` in chunks = ``forward``.

    Args:
        n_tokens: the vocabulary size V.
        d_model: the number of features D.
        n_layers: the number of layers.
        tie_embeddings: whether W is the embedding table; the table then starts with variance 1 / D in place of 1.
        backbone: further options of :class:`~longconv.models.Backbone`.

    Raises:
        TypeError: an unknown option (named, with the nearest) or one of the wrong type.
        ValueError: an option out of range.

    >>> model = LanguageModel(11, d_model=8, n_layers=2).eval()
    >>> tokens = torch.tensor([[3, 1, 4, 1, 5]])
    >>> logits, state = model.prefill(tokens[:, :4])
    >>> last, state = model.step(tokens[:, 4], state)
    >>> torch.allclose(model(tokens), torch.cat([logits, last[:, None]], dim=1), atol=1e-4)
    True
    """

    def __init__(
        self,
        n_tokens: int,
        *,
        d_model: int = 128,
        n_layers: int = 4,
        tie_embeddings: bool = False,
        **backbone: Unpack[BackboneOptions],
    ) -> None:
        super().__init__()
        trunk: dict[str, Any] = {"n_tokens": n_tokens, "d_model": d_model, "n_layers": n_layers, **backbone}
        self.trunk = Trunk(**trunk)
        self.head = nn.Linear(d_model, n_tokens)
        if tie_embeddings:
            nn.init.normal_(self.trunk.embedding.map.weight, std=d_model**-0.5)
            self.head.weight = self.trunk.embedding.map.weight
        self.config = {"tie_embeddings": tie_embeddings, **backbone_defaults(), **trunk}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits at every position.

        Args:
            x: (B, L) integer tokens; anything may stand at t >= lengths.
            lengths: (B,) valid lengths in [0, L]; None: all L.

        Returns:
            (B, L, V), zero at t >= lengths.
        """
        y = self.head(self.trunk(x, lengths))
        return y if lengths is None else zero_padding(y, valid_positions(lengths, y.shape[1]))

    def streaming_refusal(self) -> str | None:
        """None if the model can stream now, else the reason why not."""
        return self.trunk.streaming_refusal()

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Any, ...]:
        """The state before the first token."""
        return self.trunk.init_state(batch_size, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One token (B,) -> logits (B, V), with the state in and out."""
        y, state = self.trunk.step(x_t, state)
        return self.head(y), state

    def prefill(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """A chunk of tokens (B, L) -> logits (B, L, V), with the state in (None: the start) and out."""
        y, state = self.trunk.prefill(x, state)
        return self.head(y), state
