"""One thread, so that the same seed gives the same numbers on every machine, and the table of small models."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # small_models, distributed_step
torch.set_num_threads(1)
