"""Self-pretraining: a backbone learns to predict the inputs of its own task, and training goes on from it.

Training may go on from a training of its task, too, as from one on easier pictures.

Shapes: B sequences (a pair is two of them), L length, D features, V vocabulary size.

References:
    Never Train from Scratch: Fair Comparison of Long-Sequence Models Requires Data-Driven Priors (Amos, Berant, Gupta),
    arXiv:2310.02980.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv.models import Trunk
from lra_tasks.config import RunConfig, load_with_config
from lra_tasks.data import Batch, Task, VideoTask
from lra_tasks.errors import RunError, UsageError
from lra_tasks.mixers import refuse_the_future
from lra_tasks.module import Stage, TrainingModule
from lra_tasks.recipes import OptimizerSettings, PretrainingSettings
from lra_tasks.recipes.pretraining import LEVELS
from lra_tasks.results import RunFolder, read_run

N_LEVELS = 256
PREDICTED = {"masked": "hidden inputs", "causal": "next inputs"}
"""What each objective predicts."""


class Predictor(nn.Module):
    r"""A trunk and a linear map of every position: what can be seen of a sequence -> what stands in it.

    Masked positions of tokens hold one more token, V; continuous inputs x become :math:`[x (1 - m), m]` with m = 1
    where they are hidden. The causal objective hides nothing.

    Args:
        n_outputs: numbers a position that the loss is taken of.
        d_input: channels of continuous inputs, None for tokens.
        n_tokens: V, None for continuous inputs.
        masked: whether positions are hidden.
        trunk: width, layers and further options of :class:`~longconv.models.Trunk`.

    >>> model = Predictor(9, n_tokens=9, masked=True, d_model=8, n_layers=1)
    >>> hidden = torch.rand(2, 20) < 0.5
    >>> model(torch.randint(9, (2, 20)), hidden, hidden).shape == (hidden.sum(), 9)
    True
    """

    def __init__(
        self, n_outputs: int, *, d_input: int | None = None, n_tokens: int | None = None, masked: bool, **trunk: Any
    ) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        inputs = {"d_input": d_input, "n_tokens": n_tokens}
        widened: dict[str, Any] = {name: size + masked for name, size in inputs.items() if size is not None}
        self.trunk = Trunk(**widened, **trunk)
        self.decoder = nn.Linear(self.trunk.backbone.d_model, n_outputs)

    def forward(self, x: Tensor, hidden: Tensor | None, asked: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Predictions (n, n_outputs) at the n positions that are asked for, in their order.

        Args:
            x: the inputs, (B, L, d_input) or (B, L).
            hidden: (B, L), True where the model must not see them; None with the causal objective.
            asked: (B, L), True where a prediction is wanted.
            lengths: (B,) valid lengths; None: all L.
        """
        if hidden is not None and self.n_tokens is not None:
            x = x.masked_fill(hidden, self.n_tokens)
        elif hidden is not None:
            x = torch.cat([x.masked_fill(hidden[..., None], 0.0), hidden[..., None].to(x.dtype)], dim=-1)
        return self.decoder(self.trunk(x, lengths)[asked])


def choose_hidden(shape: tuple[int, int], ratio: float, lengths: Tensor | None, generator: torch.Generator) -> Tensor:
    """A random share of the valid positions of every sequence, rounded up: (B, L), True where hidden.

    >>> lengths = torch.tensor([6, 3])
    >>> choose_hidden((2, 6), 0.5, lengths, torch.Generator().manual_seed(0)).sum(1)
    tensor([3, 2])
    """
    scores = torch.rand(shape, generator=generator)
    valid = torch.full((shape[0], 1), shape[1]) if lengths is None else lengths.cpu()[:, None]
    scores = scores.masked_fill(torch.arange(shape[1]) >= valid, torch.inf)
    return scores.argsort(dim=1).argsort(dim=1) < torch.ceil(ratio * valid)


class PretrainingModule(TrainingModule):
    """Training of a :class:`Predictor`, scored by its loss on what was hidden, or on the next inputs.

    Hidden positions depend on (seed, epoch, process, batch) alone; those of validation and test are the same every
    time.

    Args:
        model: the predictor.
        optimizer: settings of the optimiser and its schedule.
        pretraining: the objective.
        levels: the inputs that stand for the gray levels 0 and 255, where the loss is a cross-entropy of levels.
        seed: seed of the run.
    """

    model: Predictor

    def __init__(
        self,
        model: Predictor,
        optimizer: OptimizerSettings,
        pretraining: PretrainingSettings,
        *,
        levels: tuple[float, float] | None,
        seed: int,
    ) -> None:
        super().__init__(model, optimizer, seed=seed)
        self.pretraining, self.levels = pretraining, levels

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch; one that is not finite ends the run before it can reach the parameters."""
        self.seed_epoch(batch_idx)
        return self._step(batch, "train", [1, self.current_epoch, self.global_rank, batch_idx])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss."""
        self._step(batch, "val", [0, batch_idx])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test loss."""
        self._step(batch, "test", [0, batch_idx])

    def _step(self, batch: Batch, stage: Stage, place: list[int]) -> dict[str, Tensor]:
        x, lengths = batch["inputs"], batch.get("lengths")
        if lengths is not None and lengths.ndim == 2:  # pairs
            x, lengths = x.flatten(0, 1), lengths.flatten()
        words = np.random.SeedSequence([self.seed, *place]).generate_state(1)
        loss = self._loss(x, lengths, torch.Generator().manual_seed(int(words[0])))
        self.refuse_infinite(loss, stage)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True)
        if stage == "train":
            self.log("train/loss_step", loss, on_step=True, on_epoch=False)
        return {"loss": loss}

    def _loss(self, x: Tensor, lengths: Tensor | None, generator: torch.Generator) -> Tensor:
        """The mean error of the predictions of a batch; the sum of none is 0."""
        if self.pretraining.objective == "masked":
            ratio = self.pretraining.mask_ratio
            asked = choose_hidden((x.shape[0], x.shape[1]), ratio, lengths, generator).to(x.device)
            hidden, wanted = asked, x
        else:
            n_valid = torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths
            asked = torch.arange(x.shape[1], device=x.device) < n_valid[:, None] - 1
            hidden, wanted = None, x.roll(-1, dims=1)
        predicted, wanted = self.model(x, hidden, asked, lengths).float(), wanted[asked]
        if self.pretraining.loss == "l1":
            return (predicted - wanted).abs().sum() / max(1, wanted.numel())
        if self.levels is not None:
            low, high = self.levels
            wanted = ((wanted.float() - low) * ((N_LEVELS - 1) / (high - low))).round().long().flatten()
            predicted = predicted.unflatten(-1, (-1, N_LEVELS)).flatten(0, 1)
        return F.cross_entropy(predicted, wanted, reduction="sum") / max(1, wanted.numel())


def build_pretraining(task: Task, config: RunConfig, settings: PretrainingSettings) -> PretrainingModule:
    """The module that pretrains for a task.

    Raises:
        ValueError: an option of the model or the mixer, or the loss, does not fit the task.
    """
    if isinstance(task, VideoTask):
        raise ValueError(f"{config.task} predicts video, which is training of this kind by itself: pretrain a sequence")
    info, levels = task.info, LEVELS.get(config.task)
    continuous = info.d_input is not None
    if (settings.loss == "l1") > continuous or (settings.loss == "cross_entropy") > (not continuous or bool(levels)):
        kind = "continuous values without levels" if continuous else "tokens"
        raise ValueError(
            f"pretraining.loss is {settings.loss!r}, but the inputs of {config.task} are {kind}: expected "
            f"{'l1' if continuous else 'cross_entropy'!r}"
        )
    sizes = {"l1": info.d_input or 0, "cross_entropy": info.n_tokens or N_LEVELS * (info.d_input or 0)}
    trunk: dict[str, Any] = asdict(config.recipe.model)
    trunk.pop("pooling")
    model = Predictor(
        sizes[settings.loss],
        d_input=info.d_input,
        n_tokens=info.n_tokens,
        masked=settings.objective == "masked",
        mixer=config.mixer,
        mixer_options=dict(config.recipe.mixer_options),
        **trunk,
    )
    if settings.objective == "causal":
        refuse_the_future(model, "the inputs to predict would be seen", "--pretraining.objective masked")
    levels = levels if settings.loss == "cross_entropy" else None
    return PretrainingModule(model, config.recipe.optimizer, settings, levels=levels, seed=config.seed)


# --- Training that starts from another run ----------------------------------------------------------------------------

_SHARED = ("d_model", "n_layers", "norm", "norm_eps", "prenorm", "feed_forward", "expansion")
"""The settings of the model that decide on the backbone's parameters."""
_OF_HEAD = ("pooling", "depths", "patch", "codebook")
"""Those that decide on the rest of a model, which a trained run hands on too."""
_VOCABULARY = ("level", "min_freq")
"""The options of data that decide what a token means."""
_GENERATED = ("data_seed", "n_samples", "max_depth", "max_args", "min_length", "max_length")
_DIVIDED = ("split", "val_share", "n_train", "n_val", "n_test")
"""With those of the generator, the options that decide which samples are trained on: the others are to test with."""
_OF_TRAINING = ("dropout", "filter_dropout", "filter_lr")
"""The options of mixers that decide on no parameter."""


def start_from(path: Path, module: TrainingModule, config: RunConfig) -> None:
    """Give a model the weights of another run: all those of a trained one, of a pretrained one those of the trunk.

    Args:
        path: folder of a finished run, of which the best checkpoint counts, or a ``.ckpt`` of one.
        module: the module to train; its head stays as it is where the other run pretrained.
        config: its configuration.

    Raises:
        RunError: there is no finished run, or its checkpoint is damaged.
        UsageError: the run has another task, mixer, width or option that decides on parameters or on the samples to
            train on. The contours of Pathfinder may have had another length: then all pictures are others (generated
            ones with the same seed and number, or official ones, as this run's).
    """
    checkpoint, before = load_with_config(RunFolder(path).best if path.is_dir() else path)
    if path.is_dir():
        read_run(path)
    old, new = (_decisive(it, whole=before.recipe.pretraining is None) for it in (before, config))
    if before.mixer != config.mixer:  # which has options of its own
        old, new = ({"mixer": it.mixer, "task": it.task} for it in (before, config))
    differing = [
        f"{name} is {old.get(name)!r} there, {new.get(name)!r} here"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if differing:
        raise UsageError(f"--from {path} is of other settings: {'; '.join(differing)}")
    try:
        if before.recipe.pretraining is None:
            module.load_state_dict(checkpoint["state_dict"])
        else:
            _load_trunk(module.model.trunk, checkpoint["state_dict"])
    except (RuntimeError, KeyError) as error:
        raise RunError(f"{path} does not fit the model: {error}") from error


def _load_trunk(trunk: Any, pretrained: Mapping[str, Tensor]) -> None:
    """Load the trunk's weights of a pretrained module; what only pretraining had is dropped."""
    prefix = "model.trunk."
    state = {name.removeprefix(prefix): value for name, value in pretrained.items() if name.startswith(prefix)}
    weight, embedding = state["embedding.map.weight"], trunk.embedding
    state["embedding.map.weight"] = (
        weight[: embedding.n_tokens] if embedding.n_tokens else weight[:, : embedding.d_input]
    )
    trunk.load_state_dict(state)


def _decisive(config: RunConfig, *, whole: bool) -> dict[str, Any]:
    """What has to be equal for the weights of one run to mean the same in another, and for its test to be unseen.

    Args:
        config: the settings of either.
        whole: whether all the weights are handed on, or those of the trunk.
    """
    recipe = config.recipe
    model = (*_SHARED, *_OF_HEAD) if whole else _SHARED
    options = {name: value for name, value in recipe.mixer_options.items() if name not in _OF_TRAINING}
    return {
        "task": config.task,
        "mixer": config.mixer,
        **{f"model.{name}": getattr(recipe.model, name, None) for name in model},
        **{f"mixer_options.{name}": value for name, value in options.items()},
        **{f"data.{name}": recipe.data[name] for name in (*_VOCABULARY, *_GENERATED, *_DIVIDED) if name in recipe.data},
        "data.official_dir": None if recipe.data.get("official_dir") is None else "given",
    }
