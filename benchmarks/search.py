"""The best pairs over all queries, beside bare faiss.knn with k = 10 on the same vectors."""

import faiss
import numpy as np

from benchmarks import save, seconds
from isc.descriptors import Descriptors
from isc.search import best_pairs

SHAPES = ((500, 20_000), (2_000, 100_000))
DIM = 256


def unit(rng: np.random.Generator, rows: int, prefix: str) -> Descriptors:
    vectors = rng.standard_normal((rows, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Descriptors(np.array([f"{prefix}{i}" for i in range(rows)], dtype=object), vectors)


def main() -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for num_queries, num_references in SHAPES:
        queries, references = unit(rng, num_queries, "q"), unit(rng, num_references, "r")
        faiss.knn(queries.vectors, references.vectors, 10)  # warm
        bare = seconds(lambda q=queries, r=references: faiss.knn(q.vectors, r.vectors, 10), repeats=3)
        ours = seconds(lambda q=queries, r=references: best_pairs(q, r, num_pairs=10 * len(q)), repeats=3)
        rows.append(
            {
                "what": f"best {10 * num_queries:,} of {num_queries:,} × {num_references:,} × {DIM}, exact",
                "seconds": round(ours, 3),
                "beside": "faiss.knn, k = 10",
                "ratio": round(ours / bare, 2),
            }
        )
    save("search", rows)


if __name__ == "__main__":
    main()
