"""Descriptors → predictions, scores and a report: the console command isc match, from a checkout."""

from isc.cli.verbs import match

if __name__ == "__main__":
    match()
