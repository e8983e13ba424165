"""Filters: parameters -> taps, as plain functions and as the modules that own the parameters."""

from longconv.filters import hippo
from longconv.filters.adaptive import AdaptiveFilter, AdaptiveOptions
from longconv.filters.base import Filter
from longconv.filters.conv_s5 import ConvS5System
from longconv.filters.dense import DenseFilter, dense_filter
from longconv.filters.diagonal import DiagonalFilter, diagonal_filter, diagonal_init
from longconv.filters.distilled import DistilledFilter
from longconv.filters.dplr import DPLRFilter, dplr_filter
from longconv.filters.dss import DSSFilter, dss_filter
from longconv.filters.free import FreeFilter, smooth, smooth_frequency, squash
from longconv.filters.implicit import ImplicitFilter, ImplicitOptions
from longconv.filters.multiscale import MultiscaleFilter, multiscale_filter
from longconv.filters.s5 import S5Filter

__all__ = [
    "AdaptiveFilter",
    "AdaptiveOptions",
    "ConvS5System",
    "DPLRFilter",
    "DSSFilter",
    "DenseFilter",
    "DiagonalFilter",
    "DistilledFilter",
    "Filter",
    "FreeFilter",
    "ImplicitFilter",
    "ImplicitOptions",
    "MultiscaleFilter",
    "S5Filter",
    "dense_filter",
    "diagonal_filter",
    "diagonal_init",
    "dplr_filter",
    "dss_filter",
    "hippo",
    "multiscale_filter",
    "smooth",
    "smooth_frequency",
    "squash",
]
