"""PyTorch's training step of the same GPT as `npm run bench -- step`: gradient of the mean loss, clipped to the norm 1, and AdamW (fused). For each number that it reads
it runs as many steps and prints a line of JSON with their seconds.

    python3 bench/peers/step.py DIM LAYERS HEADS TIME BATCH VOCABULARY THREADS
"""

import json
import sys
import time

import torch

from gpt import GPT, step_of

dim, layers, heads, T, B, vocabulary, threads = map(int, sys.argv[1:8])
torch.set_num_threads(threads)
torch.manual_seed(0)

step = step_of(GPT(dim, layers, heads, T, vocabulary), vocabulary, B, T)


def seconds():
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


print(json.dumps({"version": torch.__version__}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": [seconds() for _ in range(int(line))]}), flush=True)
