"""The same night and the same command as in the end-to-end tests."""

from ..end_to_end.conftest import night, service

__all__ = ["night", "service"]
