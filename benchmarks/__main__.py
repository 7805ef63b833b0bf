"""make bench: every benchmark, then docs/results.md."""

import subprocess
import sys

from benchmarks import network, results, score

score.main()
subprocess.run([sys.executable, "-m", "benchmarks.search"], check=True)  # without this one's threads
network.main()
subprocess.run([sys.executable, "-m", "benchmarks.train"], check=True)  # its settings go before torch's import
results.main()
