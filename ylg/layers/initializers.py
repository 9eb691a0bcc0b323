"""Moved to `kanets.attention.base`."""

from kanets.attention.base import fresh

__all__ = ["fresh"]
