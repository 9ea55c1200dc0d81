"""PyTorch's matrix products and training steps on a GPU, measured as `npm run bench -- gpu` measures gradmix's: f32 (without TF32) and f16 (autocast). Prints one line of JSON.

    python3 bench/peers/gpu.py SIZES DIM LAYERS HEADS TIME BATCH VOCABULARY ROUNDS
"""

import json
import statistics
import sys
import time

import torch

from gpt import GPT, step_of

sizes = [int(size) for size in sys.argv[1].split(",")]
dim, layers, heads, T, B, vocabulary, rounds = map(int, sys.argv[2:9])
cuda = torch.cuda.is_available()
device = "cuda" if cuda else "cpu"
torch.manual_seed(0)


def seconds(call, count=1):
    """The median of rounds, after one that is not counted."""

    def once():
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            call()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    once()
    return statistics.median(once() for _ in range(rounds))


def products(size, dtype):
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    calls = {"NN": lambda: a @ b, "NT": lambda: a @ b.T, "TN": lambda: a.T @ b}
    count = 20 if cuda else 1
    return {name: 2 * size**3 / seconds(call, count) / 1e9 for name, call in calls.items()}


def step_seconds(half):
    model = GPT(dim, layers, heads, T, vocabulary).to(device)
    # bfloat16 has the range of f32, so that no loss has to be scaled; its products take as long as those of float16.
    return seconds(step_of(model, vocabulary, B, T, torch.bfloat16 if half else None))


print(
    json.dumps(
        {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "gflops": {
                f"{size} {name}": products(size, dtype)
                for size in sizes
                for name, dtype in [("f32", torch.float32), ("f16", torch.float16)]
            },
            "stepSeconds": {name: step_seconds(half) for name, half in [("f32", False), ("autocast", True)]},
        }
    )
)
