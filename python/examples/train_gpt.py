"""Trains a small GPT in PyTorch on several processes, while gradmix finds the mixture of its training data.

    python planted.py planted
    torchrun --nproc-per-node 2 train_gpt.py --data planted --out run --parallel fsdp2 --alignment two-loss

Every rank draws its rows with the same weights. Every `--update-every` steps all ranks measure how the domains' gradients align with the target's, and rank 0 sends this to
`gradmix mix` and broadcasts the k new weights. A checkpoint has the model, the optimizer and the mixer's state. The same command continues from the last checkpoint, also
after kill -9, and ends with the same weights as a run that was never stopped.

It runs on CPUs with the backend gloo, so that it can be tried anywhere. For GPUs, use init_process_group("nccl"), and move model and batches to the rank's device.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import gradmix_client as gradmix  # noqa: E402

#: The vocabulary: bytes, and the end of a document.
END = 256
VOCABULARY = 257


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, dim))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A model from token ids [B, T] to logits [B, T, V]."""

    def __init__(self, dim: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, dim), nn.Embedding(context, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def mean_loss(model: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """Returns the mean loss per token of windows [B, T + 1]."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def read_tokens(file: Path) -> Tensor:
    """Reads the texts of a .jsonl file as one stream of token ids."""
    ids: List[int] = []
    # Lines of the file end at line feeds only; splitlines() would also cut at separators of Unicode within a text.
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                ids += [*json.loads(line)["text"].encode("utf-8"), END]
    return torch.tensor(ids)


#: Purposes of random draws, so that draws for different purposes are independent.
TRAINING, MEASURING = 0, 1


def generator(seed: int, step: int, purpose: int) -> torch.Generator:
    """Returns a generator that depends only on seed, step, purpose and rank. So its state need not be saved, and a resumed run makes the same draws."""
    number = ((seed * 1_000_003 + step) * 2 + purpose) * 1_009 + dist.get_rank()
    return torch.Generator().manual_seed(number)


def windows_of(stream: Tensor, rows: int, context: int, draws: torch.Generator) -> Tensor:
    """Returns windows [rows, context + 1] from random positions of the stream."""
    starts = torch.randint(len(stream) - context, (rows, 1), generator=draws)
    return stream[starts + torch.arange(context + 1)]


def mixed_batch(streams: Sequence[Tensor], weights: Tensor, rows: int, context: int, draws: torch.Generator) -> Tensor:
    """Returns windows [rows, context + 1], each from a domain that is drawn with the weights."""
    of = torch.multinomial(weights, rows, replacement=True, generator=draws)
    return torch.cat([windows_of(stream, int((of == i).sum()), context, draws) for i, stream in enumerate(streams)])


def measure(
    args: argparse.Namespace, model: nn.Module, head: nn.Module, texts: Dict[str, Tensor], step: int
) -> gradmix.Measurement:
    """Measures how the domains' gradients align with the target's. All ranks get the same numbers."""
    draws = generator(args.seed, step, MEASURING)

    def batches(name: str) -> List[Tensor]:
        return [windows_of(texts[name], args.measure_rows, args.context, draws) for _ in range(args.measure_batches)]

    target = batches("target")
    domains = {name: batches(name) for name in texts if name != "target"}
    if args.alignment == "last-layer":
        return gradmix.last_layer_alignments(model, mean_loss, domains, target, head=head)
    direction = gradmix.target_gradient(model, mean_loss, target).tensors
    if args.alignment == "exact":
        return gradmix.exact_alignments(model, mean_loss, domains, direction)
    return gradmix.two_loss_alignments(model, mean_loss, domains, direction)


def parallel(kind: str, gpt: GPT) -> nn.Module:
    """Makes the model. The seed gives all ranks the same initial parameters."""
    if kind == "ddp":
        return DistributedDataParallel(gpt)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in gpt.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(gpt, mesh=mesh)


def save(out: Path, step: int, model: nn.Module, optimizer: Any, mixer: Optional[gradmix.Mixer]) -> None:
    """Writes a checkpoint to its own folder, and then atomically the name of this last complete checkpoint."""
    folder = out / f"step-{step}"
    parameters, moments = get_state_dict(model, optimizer)
    dcp.save({"model": parameters, "optimizer": moments}, checkpoint_id=folder)
    if mixer is not None:
        (folder / "mixer.json").write_text(json.dumps(mixer.state_dict()))
        beside = out / "latest.new"
        beside.write_text(str(step))
        os.replace(beside, out / "latest")
    dist.barrier()


def load(out: Path, model: nn.Module, optimizer: Any, mixer: Optional[gradmix.Mixer]) -> int:
    """Restores the last checkpoint, if there is one, and returns the number of steps that it had completed."""
    if not (out / "latest").exists():
        return 0
    step = int((out / "latest").read_text())
    folder = out / f"step-{step}"
    parameters, moments = get_state_dict(model, optimizer)
    dcp.load({"model": parameters, "optimizer": moments}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=parameters, optim_state_dict=moments)
    if mixer is not None:
        mixer.load_state_dict(json.loads((folder / "mixer.json").read_text()))
    return step


def start_mixer(args: argparse.Namespace, texts: Dict[str, Tensor]) -> gradmix.Mixer:
    domains = [name for name in texts if name != "target"]
    return gradmix.Mixer(
        domains,
        rule=json.loads(args.rule),
        histogram=None if args.histogram is None else json.loads(args.histogram.read_text()),
        sizes={name: len(texts[name]) for name in domains},
        tokens=args.steps * args.rows * args.context * dist.get_world_size(),
        command=shlex.split(args.mix),
    )


def train(args: argparse.Namespace) -> None:
    lead = dist.get_rank() == 0
    texts = {file.stem: read_tokens(file) for file in sorted(args.data.glob("*.jsonl"))}
    streams = {name: stream for name, stream in texts.items() if name != "target"}
    torch.manual_seed(args.seed)
    gpt = GPT(args.dim, args.layers, args.heads, args.context)
    model = parallel(args.parallel, gpt)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.1)
    args.out.mkdir(parents=True, exist_ok=True)

    mixer = start_mixer(args, texts) if lead else None
    try:
        start = load(args.out, model, optimizer, mixer)
        weights = torch.zeros(len(streams), dtype=torch.float64)

        def share_weights() -> None:
            if mixer is not None:
                found = mixer.weights
                weights.copy_(torch.tensor([found[name] for name in streams], dtype=torch.float64))
            dist.broadcast(weights, src=0)

        share_weights()
        for step in range(start + 1, args.steps + 1):
            batch = mixed_batch([*streams.values()], weights, args.rows, args.context, generator(args.seed, step, TRAINING))
            optimizer.zero_grad(set_to_none=True)
            mean_loss(model, batch).backward()
            optimizer.step()
            if step % args.update_every == 0:
                optimizer.zero_grad(set_to_none=True)
                found = measure(args, model, gpt.head, texts, step)
                if mixer is not None:
                    mixer.observe(step, **found.observed())
                    print(json.dumps({"step": step, "weights": mixer.weights}), flush=True)
                share_weights()
            if step % args.checkpoint_every == 0 or step == args.steps:
                save(args.out, step, model, optimizer, mixer)
        if mixer is not None:
            result = {"final": mixer.weights, "averaged": mixer.averaged}
            (args.out / "weights.json").write_text(json.dumps(result, indent=2))
    finally:
        if mixer is not None:
            mixer.close()


def arguments(words: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains a small GPT with a mixture found by gradmix.")
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME.jsonl and target.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and weights.json")
    parser.add_argument("--parallel", choices=["ddp", "fsdp2"], default="ddp")
    parser.add_argument("--alignment", choices=["two-loss", "exact", "last-layer"], default="two-loss")
    parser.add_argument("--rule", default='{"name": "dga"}', help="JSON, see docs/rules.md")
    parser.add_argument("--histogram", type=Path, help="shares of the target by domain, as gradmix histogram --out writes them")
    parser.add_argument("--mix", default="gradmix mix", help="command that starts gradmix mix")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=32, help="windows per rank and step")
    parser.add_argument("--update-every", type=int, default=10)
    parser.add_argument("--measure-rows", type=int, default=16, help="windows per measured batch")
    parser.add_argument("--measure-batches", type=int, default=2, help="measured batches per domain and rank")
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--context", type=int, default=8)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(words)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    # torchrun sets environment variables with this rank and the addresses of the others.
    dist.init_process_group("gloo")
    try:
        train(args)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
