"""make bench: every benchmark, then docs/results.md."""

from benchmarks import results, score, search

score.main()
search.main()
results.main()
