from .run import train as train
