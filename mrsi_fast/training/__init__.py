"""Training: simulated batches in, a model folder out."""

from mrsi_fast.training.config import TrainConfig
from mrsi_fast.training.loop import Interrupted, train

__all__ = ["Interrupted", "TrainConfig", "train"]
