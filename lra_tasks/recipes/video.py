"""Presets of video: small models for a 2-core machine, and the published settings of ConvS5.

References:
    Convolutional State Space Models for Long-Range Spatiotemporal Modeling (Smith, De Mello, Kautz, Linderman, Byeon),
    arXiv:2310.19694.

The paper's gradient steps are given as epochs of as many videos.
"""

from __future__ import annotations

from lra_tasks.recipes.settings import OptimizerSettings, Overrides, Preset, Recipe, TrainerSettings, VideoSettings

# The mixers that ConvS5 is compared with have encoders and decoders of the same depth, and as many parameters; a step
# of attention takes three times as long. Small HiPPO matrices have hardly a mode that turns by more than pi a frame.
QUICK_MIXERS: dict[str, Overrides] = {
    "conv_s5": {"mixer_options": {"d_state": 64, "blocks": 16, "dt_min": 0.05, "dt_max": 1.0}},
    "conv_lstm": {"model": {"d_model": 46}},
    "frame_attention": {"model": {"d_model": 104}, "trainer": {"max_epochs": 4}},
}

QUICK_VIDEO = Preset(
    base=Recipe(
        data={"batch_size": 4, "frames": 20, "context": 10},
        model=VideoSettings(d_model=64, prenorm=True, depths=(64,), patch=4, rollout_from=0.3, forced_frames=20),
        optimizer=OptimizerSettings(lr=0.004, weight_decay=1e-4, filter_lr=0.004, warmup=0.04),
        trainer=TrainerSettings(max_epochs=5, gradient_clip_val=1.0),
    ),
    mixers=QUICK_MIXERS,
)

# Ten frames given and rollouts of 40. Patches of 8 x 8 pixels and a stream that no norm interrupts cost half the time
# of two halvings to as many steps, and learn motion in fewer. Every epoch draws other videos. Motion is learned from
# short clips; rollouts as long as those that are scored then keep it from drifting off.
QUICK_MOVING_MNIST = Preset(
    QUICK_VIDEO.base.override(
        {
            "data": {"frames": 50, "n_train": 9600, "n_val": 20},
            "model": {"depths": (), "patch": 8, "mean": 0.05},
            "trainer": {"max_epochs": 10, "limit_train_batches": 210},
        }
    ),
    # The same time for all: a step of a ConvLSTM is shorter by a tenth, one of attention several times as long.
    {
        **QUICK_MIXERS,
        "conv_lstm": {**QUICK_MIXERS["conv_lstm"], "trainer": {"limit_train_batches": 230}},
        "frame_attention": {**QUICK_MIXERS["frame_attention"], "trainer": {"max_epochs": 2}},
    },
)

_FILES = "github.com/NVlabs/ConvSSM, configs/Moving-MNIST/300_train_len"
_NAMES = {"conv_s5": "convS5", "conv_lstm": "convLSTM"}
_PUBLISHED_S5 = {"d_state": 256, "blocks": 1, "clip": True, "output": "resnet"}

# 300,000 steps of 8 videos of 300 frames. Those of 600 are for smaller models: data.frames 600, model.d_model 128,
# mixer_options.d_state 128, optimizer.lr and optimizer.filter_lr 5e-4.
PAPER_MOVING_MNIST = Preset(
    base=Recipe(
        data={"batch_size": 8, "frames": 300, "context": 100, "horizons": [10, 40, 400, 800, 1200], "n_train": 8000},
        model=VideoSettings(d_model=256, n_layers=8, depths=(64, 128), mean=0.05, loss="mse_l1"),
        optimizer=OptimizerSettings(lr=1e-3, weight_decay=1e-5, filter_lr=1e-3, warmup=1 / 60),
        trainer=TrainerSettings(max_epochs=300),
    ),
    mixers={"conv_s5": {"mixer_options": _PUBLISHED_S5}, "conv_lstm": {"optimizer": {"lr": 5e-4}}},
    only_named=True,
    sources={mixer: f"{_FILES}/mnist_{name}_novq.yaml (arXiv:2310.19694)" for mixer, name in _NAMES.items()},
)
