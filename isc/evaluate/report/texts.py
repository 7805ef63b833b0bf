"""Numbers as a reader sees them."""

from __future__ import annotations


def probability_text(value: float) -> str:
    """Return a probability with the digits that mean something: two, and `> 0.99` or `< 0.01` beyond."""
    if value >= 1:
        return "1"
    if value > 0.99:
        return "> 0.99"
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def bytes_text(count: int) -> str:
    """Return the size of a file: `20 kB`, `1.24 MB`."""
    return f"{count / 1e6:.2f} MB" if count >= 1_000_000 else f"{max(1, round(count / 1e3))} kB"
