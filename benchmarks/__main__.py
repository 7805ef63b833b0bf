"""make bench: every benchmark, then docs/results.md."""

import subprocess
import sys

from benchmarks import network, results, score, search

score.main()
search.main()
network.main()
subprocess.run([sys.executable, "-m", "benchmarks.train"], check=True)  # its settings go before torch's import
results.main()
