from .benchmark import BenchmarkConfig as BenchmarkConfig
from .extract import ExtractConfig as ExtractConfig
from .match import MatchConfig as MatchConfig
from .train import TrainConfig as TrainConfig
