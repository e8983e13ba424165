"""Pathfinder: pictures of dashed contours as sequences of pixels."""
