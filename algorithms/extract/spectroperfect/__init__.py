"""Two-dimensional extraction, "spectroperfectionism" (Bolton & Schlegel 2010, PASP 122, 248)."""

from algorithms.extract.spectroperfect.frame import extract_frame

__all__ = ["extract_frame"]
