"""Whole networks over any mixer: backbone, heads, generation, optimiser groups, saving and loading."""

from longconv.models.backbone import Backbone, BackboneOptions
from longconv.models.baselines import BASELINES, ConvLSTM, FrameAttention
from longconv.models.blocks import Block, Residual
from longconv.models.codes import CodePredictor
from longconv.models.drop import DropPath, TiedDropout
from longconv.models.feed_forward import FeedForward
from longconv.models.generation import generate
from longconv.models.heads import LanguageModel, SequenceClassifier, SequenceRegressor
from longconv.models.norms import BatchNorm
from longconv.models.optim import optimizer_groups
from longconv.models.pairs import PairClassifier
from longconv.models.pooling import pool
from longconv.models.quantizer import VectorQuantizer
from longconv.models.sequence_baselines import GRU, SEQUENCE_BASELINES, PlainConvolution, RotaryAttention
from longconv.models.tokenizer import FrameTokenizer
from longconv.models.trunk import Embedding, Trunk
from longconv.models.video import VideoPredictor
from longconv.models.video_layers import VIDEO_MIXERS

__all__ = [
    "BASELINES",
    "GRU",
    "SEQUENCE_BASELINES",
    "VIDEO_MIXERS",
    "Backbone",
    "BackboneOptions",
    "BatchNorm",
    "Block",
    "CodePredictor",
    "ConvLSTM",
    "DropPath",
    "Embedding",
    "FeedForward",
    "FrameAttention",
    "FrameTokenizer",
    "LanguageModel",
    "PairClassifier",
    "PlainConvolution",
    "Residual",
    "RotaryAttention",
    "SequenceClassifier",
    "SequenceRegressor",
    "TiedDropout",
    "Trunk",
    "VectorQuantizer",
    "VideoPredictor",
    "generate",
    "optimizer_groups",
    "pool",
]
