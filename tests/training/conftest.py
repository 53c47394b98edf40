"""One thread, so that the same seed gives the same numbers on every machine, and the tiny run."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))  # tiny_run
torch.set_num_threads(1)
