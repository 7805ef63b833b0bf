"""Photos → descriptors: the console command isc extract, from a checkout."""

from isc.cli.verbs import extract

if __name__ == "__main__":
    extract()
