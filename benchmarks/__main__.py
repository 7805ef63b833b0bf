"""The benchmarks of `make bench`, which take minutes, and then docs/results.md.

Run by hand: extract, cluster, approximate, growth, normalize, judge, matching, candidates, verify, ablation, peers,
calibration, disc21.
"""

import subprocess
import sys

from benchmarks import network, report, results, score

score.main()
subprocess.run([sys.executable, "-m", "benchmarks.search"], check=True)  # a new process, without this one's threads
subprocess.run([sys.executable, "-m", "benchmarks.index"], check=True)
network.main()
report.main()
subprocess.run([sys.executable, "-m", "benchmarks.train"], check=True)  # its settings must precede the import of torch
results.main()
