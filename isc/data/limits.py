"""Limits of the challenge's files."""

from __future__ import annotations

MAX_PREDICTIONS = 500_000  # rows of a matching-track submission in the challenge
