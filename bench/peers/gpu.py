"""PyTorch's matrix products and training steps on a GPU, as `npm run bench -- gpu` measures gradmix's: f32 (without TF32) and f16 (autocast). Prints one line of JSON.

    python3 bench/peers/gpu.py SIZES DIM LAYERS HEADS TIME BATCH VOCABULARY ROUNDS
"""

import json
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

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


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, T, dim))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, dim), nn.Embedding(T, dim)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.positions(torch.arange(T, device=device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def step_seconds(half):
    model = GPT().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    inputs, targets = (torch.randint(vocabulary, (B, T), device=device) for _ in range(2))

    def step():
        optimizer.zero_grad()
        # bfloat16 has the range of f32, so that no loss has to be scaled; its products take as long as those of float16.
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(inputs).view(-1, vocabulary), targets.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return seconds(step)


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
