"""make bench: every benchmark, then docs/results.md."""

from benchmarks import network, results, score, search

score.main()
search.main()
network.main()
results.main()
