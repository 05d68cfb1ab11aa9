"""The one error a user of the playbook should ever have to read."""

from __future__ import annotations

__all__ = ["PlaybookError"]


class PlaybookError(Exception):
    """A sentence a stranger can act on: what, where, and what to do next."""
