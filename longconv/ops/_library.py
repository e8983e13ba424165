"""The torch operator library that every op of longconv is defined in."""

import torch

LIBRARY = torch.library.Library("longconv", "DEF")
"""Namespace ``torch.ops.longconv``; each op's module defines its schema, kernel, fake and autograd rule here."""
