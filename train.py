"""Photos → a trained model: the console command isc train, from a checkout."""

from isc.cli.verbs import train

if __name__ == "__main__":
    train()
