"""PyTorch's training step of the same GPT as `npm run bench -- step`: gradient of the mean loss, clipped to the norm 1, and AdamW (fused). For each number that it reads
it runs as many steps and prints a line of JSON with their seconds.

    python3 bench/peers/step.py DIM LAYERS HEADS TIME BATCH VOCABULARY THREADS
"""

import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

dim, layers, heads, T, B, vocabulary, threads = map(int, sys.argv[1:8])
torch.set_num_threads(threads)
torch.manual_seed(0)


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

    def forward(self, ids):
        x = self.embedding(ids) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


model = GPT()
optimizer = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
inputs, targets = (torch.randint(0, vocabulary, (B, T)) for _ in range(2))


def step():
    began = time.perf_counter()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs).view(-1, vocabulary), targets.view(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    loss.item()
    return time.perf_counter() - began


print(json.dumps({"version": torch.__version__}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": [step() for _ in range(int(line))]}), flush=True)
