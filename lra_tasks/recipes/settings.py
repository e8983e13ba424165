"""A recipe: every setting of a run as typed data, so that each has a default, a place and a checked override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from longconv._checks import check_int, check_real
from longconv.models.optim import RATES


@dataclass(frozen=True)
class ModelSettings:
    """The sequence classifier, apart from its mixer.

    Args:
        d_model: width D of the residual stream.
        n_layers: number of residual blocks.
        norm: normalisation of a block: layer, batch or rms.
        norm_eps: what a norm adds to the variance; null for 1e-5, and 1e-6 of rms.
        prenorm: normalise the input of a block instead of its output.
        dropout: probability of dropping a feature.
        tie_dropout: drop whole features of a sample, with one mask for all positions.
        drop_path: probability of skipping a branch for a sample.
        drop_path_schedule: linear lets drop_path grow with the depth up to its value; constant has it everywhere.
        feed_forward: network at every position after each mixer, glu or mlp; null for none.
        expansion: hidden features of that network as a multiple of d_model.
        pooling: how the sequence becomes one vector: mean, max, sum, last or first of the valid positions; null where
            every position has a label.
    """

    d_model: int = 128
    n_layers: int = 6
    norm: Literal["layer", "batch", "rms"] = "batch"
    norm_eps: float | None = None
    prenorm: bool = False
    dropout: float = 0.0
    tie_dropout: bool = False
    drop_path: float = 0.0
    drop_path_schedule: Literal["linear", "constant"] = "linear"
    feed_forward: Literal["glu", "mlp"] | None = None
    expansion: float = 2.0
    pooling: Literal["mean", "max", "sum", "last", "first"] | None = "mean"


@dataclass(frozen=True)
class VideoSettings:
    """The video predictor, apart from its mixer.

    Args:
        d_model: features D of a latent frame.
        n_layers: number of residual layers.
        norm: normalisation of a layer over the features of a pixel, layer or rms.
        prenorm: normalise the input of a layer instead of its output.
        dropout: probability of dropping a feature of a pixel.
        depths: features after each halving of the frame by the encoder.
        patch: pixels a side of the patches that are the encoder's input; 1 for single pixels.
        codebook: number of words that latent pixels are made of; null leaves them continuous.
        mean: gray level that predictions start from, best the mean of the data.
        loss: error that training minimises, mse, l1, their mean mse_l1, or bce for gray levels as probabilities.
        rollout_from: share of the training, in [0, 1], that is teacher forced; after it predictions are the inputs that
            follow the task's context, one at first, then more by steady doubling up to all of a clip, which the second
            half of what remains has.
        forced_frames: frames, from the first on, of a clip in the teacher-forced share; null takes all.
    """

    d_model: int = 32
    n_layers: int = 3
    norm: Literal["layer", "rms"] = "layer"
    prenorm: bool = False
    dropout: float = 0.0
    depths: tuple[int, ...] = (16, 32)
    patch: int = 1
    codebook: int | None = None
    mean: float = 0.5
    loss: Literal["mse", "l1", "mse_l1", "bce"] = "bce"
    rollout_from: float = 1.0
    forced_frames: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        check_real("model.rollout_from", self.rollout_from, least=0.0, most=1.0)
        if self.forced_frames is not None:
            check_int("model.forced_frames", self.forced_frames, least=2)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warm-up, then a cosine to zero or a constant rate.

    Args:
        lr: highest learning rate.
        weight_decay: decoupled weight decay; SSM parameters and filters have none, but those in ``decayed``.
        filter_lr: learning rate of SSM parameters and filters; null takes the mixer's own filter_lr, else lr.
        dt_lr: learning rate of the step sizes of an SSM; null takes that of its other parameters.
        b_lr: the same of B, the matrix that leads into its state.
        c_lr: the same of C, the matrix that leads out of it.
        decayed: SSM parameters that weight_decay is for all the same, of log_dt, B and C.
        warmup: share of all steps, in [0, 1), in which the learning rate rises from zero.
        schedule: what follows, a cosine to zero or the highest learning rate to the end (constant).
    """

    lr: float = 0.01
    weight_decay: float = 0.05
    filter_lr: float | None = 0.001
    dt_lr: float | None = None
    b_lr: float | None = None
    c_lr: float | None = None
    decayed: tuple[Literal["log_dt", "B", "C"], ...] = ()
    warmup: float = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        object.__setattr__(self, "decayed", tuple(self.decayed))
        check_real("optimizer.lr", self.lr, least=0.0, open_least=True)
        check_real("optimizer.weight_decay", self.weight_decay, least=0.0)
        for name in ("filter_lr", *RATES.values()):
            if getattr(self, name) is not None:
                check_real(f"optimizer.{name}", getattr(self, name), least=0.0)
        if check_real("optimizer.warmup", self.warmup, least=0.0, most=1.0) == 1.0:
            raise ValueError("optimizer.warmup is 1, expected a share in [0, 1)")


@dataclass(frozen=True)
class TrainerSettings:
    """What is handed to Lightning's Trainer under the same names, and how a run ends and is compiled.

    Args:
        max_epochs: number of passes over the training set.
        precision: arithmetic, such as 32-true, bf16-mixed or 16-mixed.
        accelerator: cpu, gpu or auto.
        devices: number of devices, or auto.
        strategy: how devices share the work, such as auto, ddp (each holds the model) or fsdp2 (each a part of it).
        sequence_parallel: number of devices that share the sequences of a batch, each a part of their length; a divisor
            of devices, of which the others have other batches.
        gradient_clip_val: largest norm of the gradient; null does not clip.
        accumulate_grad_batches: number of batches a step of the optimiser.
        limit_train_batches: batches of an epoch (an integer) or their share (a float).
        limit_val_batches: batches of a validation, or their share.
        limit_test_batches: batches of the test, or their share.
        log_every_n_steps: how often the loss of a step goes to the TensorBoard log.
        deterministic: refuse operations of the device that are not reproducible.
        early_stopping: epochs without a better one after which the run ends; null runs all.
        compile: train with torch.compile; the test is not compiled.
    """

    max_epochs: int = 10
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | str = 1
    strategy: str = "auto"
    sequence_parallel: int = 1
    gradient_clip_val: float | None = None
    accumulate_grad_batches: int = 1
    limit_train_batches: int | float = 1.0
    limit_val_batches: int | float = 1.0
    limit_test_batches: int | float = 1.0
    log_every_n_steps: int = 20
    deterministic: bool = False
    early_stopping: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("max_epochs", "accumulate_grad_batches", "log_every_n_steps", "sequence_parallel"):
            check_int(f"trainer.{name}", getattr(self, name))
        if self.sequence_parallel > 1 and (not isinstance(self.devices, int) or self.devices % self.sequence_parallel):
            raise ValueError(
                f"trainer.sequence_parallel is {self.sequence_parallel} with trainer.devices {self.devices!r}, "
                "expected a divisor of the number of devices"
            )
        if self.early_stopping is not None:
            check_int("trainer.early_stopping", self.early_stopping)
        if self.gradient_clip_val is not None:
            check_real("trainer.gradient_clip_val", self.gradient_clip_val, least=0.0, open_least=True)
        for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
            limit = getattr(self, name)
            if isinstance(limit, float):
                check_real(f"trainer.{name}", limit, least=0.0, most=1.0, open_least=True)
            else:
                check_int(f"trainer.{name}", limit)


@dataclass(frozen=True)
class PretrainingSettings:
    """Self-pretraining: what is hidden of the inputs of a task, and how what is predicted in its place is scored.

    Args:
        objective: masked predicts the positions that are hidden, causal at every position the next.
        mask_ratio: share of the positions that masked hides, in (0, 1].
        loss: cross_entropy of tokens or of the 256 levels of a gray picture, or l1 of continuous values.
    """

    objective: Literal["masked", "causal"] = "masked"
    mask_ratio: float = 0.5
    loss: Literal["cross_entropy", "l1"] = "cross_entropy"

    def __post_init__(self) -> None:
        check_real("pretraining.mask_ratio", self.mask_ratio, least=0.0, most=1.0, open_least=True)


@dataclass(frozen=True)
class Recipe:
    """All settings of a run but its task, mixer, preset, seed and folders.

    Args:
        data: options of the task, ``batch_size`` among them.
        model: the classifier, or the video predictor.
        mixer_options: options of the mixer.
        optimizer: optimiser and schedule.
        trainer: what goes to Lightning's Trainer.
        pretraining: of a run that pretrains; None of one that trains.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    model: ModelSettings | VideoSettings = field(default_factory=ModelSettings)
    mixer_options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    pretraining: PretrainingSettings | None = None

    def override(self, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """The recipe with some fields of some sections changed.

        >>> Recipe().override({"model": {"d_model": 64}, "mixer_options": {"d_state": 4}}).model.d_model
        64
        """
        sections: dict[str, Any] = {}
        for name, fields in changes.items():
            section = getattr(self, name)
            sections[name] = {**section, **fields} if isinstance(section, Mapping) else replace(section, **fields)
        return replace(self, **sections)


Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Preset:
    """A base recipe and what each mixer changes in it.

    Args:
        base: the recipe of a mixer that is not named.
        mixers: what a mixer changes, by its name.
        only_named: whether only the mixers named have the preset (published settings).
        sources: where the settings of a mixer are published, by its name.
    """

    base: Recipe
    mixers: Mapping[str, Overrides] = field(default_factory=dict)
    only_named: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)

    def recipe(self, mixer: str) -> Recipe:
        """The recipe of a mixer; a KeyError where only named mixers have one and it is not among them."""
        if self.only_named and mixer not in self.mixers:
            raise KeyError(mixer)
        return self.base.override(self.mixers.get(mixer, {}))
