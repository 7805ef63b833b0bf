"""Search at the size of the competition: the five nearest texts of pictures, on synthetic descriptors.

    python -m benchmarks.words_scale

92,000 pictures against as many texts, and 1,000 pictures against six million texts, 256 numbers each, by the exact
search that matches descriptors. Beside it, in the same run, the bound: the matrix products alone, in blocks of the same
kind. The last column is the time for all 92,000 pictures at the same rate.
"""

import time

import numpy as np

from benchmarks import save
from isc.config.choices import Engine
from isc.search.exact import nearest

DIM, K = 256, 5
SIZES = ((92_000, 92_000), (1_000, 6_000_000))
PICTURES = 92_000
ROWS = 20_000  # drawn, and multiplied, at once


def drawn(count: int, seed: int) -> np.ndarray:
    """Return vectors of unit length, float32 [count, DIM]."""
    rng = np.random.default_rng(seed)
    found = np.empty((count, DIM), np.float32)
    for first in range(0, count, ROWS):
        part = found[first : first + ROWS]
        rng.standard_normal(out=part, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def products(pictures: np.ndarray, texts: np.ndarray) -> float:
    """Return the seconds that the matrix products take alone."""
    began = time.perf_counter()
    for start in range(0, len(pictures), 1_000):
        for first in range(0, len(texts), ROWS):
            np.dot(pictures[start : start + 1_000], texts[first : first + ROWS].T)
    return time.perf_counter() - began


def main() -> None:
    table = []
    for pictures, texts in SIZES:
        ours, theirs = drawn(pictures, 1), drawn(texts, 2)
        began = time.perf_counter()
        found, _ = nearest(ours, theirs, k=K, engine=Engine.numpy)
        seconds = time.perf_counter() - began
        assert found.shape == (pictures, K)
        bound = products(ours, theirs)
        table.append({
            "pictures": f"{pictures:,}",
            "texts": f"{texts:,}",
            "search, s": f"{seconds:.1f}",
            "products alone, s": f"{bound:.1f}",
            "search ÷ products": f"{seconds / bound:.2f}",
            "all 92,000 pictures, min": f"{seconds * PICTURES / pictures / 60:.0f}",
        })  # fmt: skip
        print(table[-1], flush=True)
    save("words_scale", table)


if __name__ == "__main__":
    main()
