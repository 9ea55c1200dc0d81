"""Golden numbers for the GPT, made with PyTorch.

`python make_golden.py` writes llama.json and gpt2.json beside this file: logits, losses, gradients, the Gram matrix of
the examples' gradients, and three steps of each optimizer, all in float64, of two small models whose weights come from a formula.

`python make_golden.py FOLDER 1,2,3 4,5,6` prints the logits, as JSON, of the model in a Hugging Face folder for the
given rows of tokens.

The models are restatements of the forward passes of `LlamaForCausalLM` and `GPT2LMHeadModel` (huggingface/transformers)
on the tensors of their `model.safetensors`, by name. Run in float64, transformers 5.18 gives the same logits to 1e-14
(GPT-2) and 3e-6 (Llama, whose norms and rotary angles are always float32 there). Needs torch (1.13 or later) and numpy.
"""

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


# The models: config.json and a dict of tensors by their Hugging Face names -> logits.


def causal(scores):
    time = scores.shape[-1]
    future = torch.ones(time, time, dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)


def llama(config, tensors, tokens):
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config["hidden_size"] // heads
    batch, time = tokens.shape

    def norm(x, name):
        variance = x.pow(2).mean(-1, keepdim=True)
        return tensors[name] * (x * torch.rsqrt(variance + config["rms_norm_eps"]))

    def project(x, name):
        return x @ tensors[name].T

    def split(x, count):
        return x.view(batch, time, count, width).transpose(1, 2)

    dtype = tensors["model.norm.weight"].dtype
    frequencies = config["rope_theta"] ** -(torch.arange(0, width, 2, dtype=dtype) / width)
    angles = torch.outer(torch.arange(time, dtype=dtype), frequencies)
    angles = torch.cat((angles, angles), dim=-1)

    def rotate(x):
        first, second = x[..., : width // 2], x[..., width // 2 :]
        return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()

    x = tensors["model.embed_tokens.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        inner = norm(x, at + "input_layernorm.weight")
        q = rotate(split(project(inner, at + "self_attn.q_proj.weight"), heads))
        k = rotate(split(project(inner, at + "self_attn.k_proj.weight"), kv_heads))
        v = split(project(inner, at + "self_attn.v_proj.weight"), kv_heads)
        k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
        mixed = causal(q @ k.transpose(2, 3) / math.sqrt(width)) @ v
        mixed = mixed.transpose(1, 2).reshape(batch, time, heads * width)
        x = x + project(mixed, at + "self_attn.o_proj.weight")
        inner = norm(x, at + "post_attention_layernorm.weight")
        gate = F.silu(project(inner, at + "mlp.gate_proj.weight"))
        x = x + project(gate * project(inner, at + "mlp.up_proj.weight"), at + "mlp.down_proj.weight")
    return project(norm(x, "model.norm.weight"), "lm_head.weight")


def gpt2(config, tensors, tokens):
    heads, dim = config["n_head"], config["n_embd"]
    batch, time = tokens.shape

    def norm(x, name):
        return F.layer_norm(
            x, (dim,), tensors[name + ".weight"], tensors[name + ".bias"], config["layer_norm_epsilon"]
        )

    def conv1d(x, name):
        return x @ tensors[name + ".weight"] + tensors[name + ".bias"]

    def gelu_new(x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))

    x = tensors["transformer.wte.weight"][tokens] + tensors["transformer.wpe.weight"][:time]
    for i in range(config["n_layer"]):
        at = f"transformer.h.{i}."
        qkv = conv1d(norm(x, at + "ln_1"), at + "attn.c_attn").split(dim, dim=2)
        q, k, v = (t.view(batch, time, heads, dim // heads).transpose(1, 2) for t in qkv)
        mixed = causal(q @ k.transpose(2, 3) / math.sqrt(dim // heads)) @ v
        x = x + conv1d(mixed.transpose(1, 2).reshape(batch, time, dim), at + "attn.c_proj")
        x = x + conv1d(gelu_new(conv1d(norm(x, at + "ln_2"), at + "mlp.c_fc")), at + "mlp.c_proj")
    return norm(x, "transformer.ln_f") @ tensors["lm_head.weight"].T


MODELS = {"llama": llama, "gpt2": gpt2}


# Folders.


def read_safetensors(path):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32", entry
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        array = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.astype(np.float64))
    return tensors


def print_logits(folder, rows):
    config = json.loads((Path(folder) / "config.json").read_text())
    tensors = read_safetensors(Path(folder) / "model.safetensors")
    tokens = torch.tensor([[int(token) for token in row.split(",")] for row in rows])
    print(json.dumps(MODELS[config["model_type"]](config, tensors, tokens).flatten().tolist()))


# Golden cases. Weights: tensor number t (by sorted names), element j, integers mod 2**32:
#   x = j * 0x9E3779B1 + t * 0x85EBCA6B + 1;  x ^= x >> 16;  x *= 0x21F0AAAD;  x ^= x >> 15;  x *= 0x735A2D97;  x ^= x >> 15
#   weight = float32(shift + scale * (x / 2**31 - 1))


def formula(t, shape, scale, shift):
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(math.prod(shape), dtype=np.uint64)
    x = (x * np.uint64(0x9E3779B1) + np.uint64(t * 0x85EBCA6B + 1)) & mask
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x21F0AAAD)) & mask
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(0x735A2D97)) & mask
    x ^= x >> np.uint64(15)
    values = shift + scale * (x.astype(np.float64) / 2**31 - 1)
    return torch.from_numpy(values.astype(np.float32).astype(np.float64).reshape(shape))


VOCAB, DIM, LAYERS, HEADS, CONTEXT = 13, 16, 2, 4, 8

CONFIGS = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": DIM,
        "intermediate_size": 20,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    },
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": VOCAB,
        "n_embd": DIM,
        "n_inner": 24,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_positions": CONTEXT,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": False,
    },
}


def shapes(config):
    """Hugging Face names and shapes."""
    out = {"lm_head.weight": [VOCAB, DIM]}
    if config["model_type"] == "llama":
        inner, kv = config["intermediate_size"], config["num_key_value_heads"] * DIM // HEADS
        out |= {"model.embed_tokens.weight": [VOCAB, DIM], "model.norm.weight": [DIM]}
        for i in range(LAYERS):
            at = f"model.layers.{i}."
            out |= {
                at + "input_layernorm.weight": [DIM],
                at + "self_attn.q_proj.weight": [DIM, DIM],
                at + "self_attn.k_proj.weight": [kv, DIM],
                at + "self_attn.v_proj.weight": [kv, DIM],
                at + "self_attn.o_proj.weight": [DIM, DIM],
                at + "post_attention_layernorm.weight": [DIM],
                at + "mlp.gate_proj.weight": [inner, DIM],
                at + "mlp.up_proj.weight": [inner, DIM],
                at + "mlp.down_proj.weight": [DIM, inner],
            }
    else:
        inner = config["n_inner"]
        out |= {"transformer.wte.weight": [VOCAB, DIM], "transformer.wpe.weight": [CONTEXT, DIM]}
        out |= {"transformer.ln_f.weight": [DIM], "transformer.ln_f.bias": [DIM]}
        for i in range(LAYERS):
            at = f"transformer.h.{i}."
            for name in ("ln_1", "ln_2"):
                out |= {at + name + ".weight": [DIM], at + name + ".bias": [DIM]}
            for name, (rows, cols) in {
                "attn.c_attn": (DIM, 3 * DIM),
                "attn.c_proj": (DIM, DIM),
                "mlp.c_fc": (DIM, inner),
                "mlp.c_proj": (inner, DIM),
            }.items():
                out |= {at + name + ".weight": [rows, cols], at + name + ".bias": [cols]}
    return out


TOKENS = [[1, 4, 4, 9, 12, 0, 7], [2, 2, 3, 11, 5, 8, 1], [6, 10, 0, 4, 1, 1, 12]]
# Ragged: -1 does not count.
TARGETS = [[4, 4, 9, 12, 0, 7, 3], [2, 3, 11, 5, -1, -1, -1], [-1, 0, 4, 1, 1, 12, -1]]
# A large eps: the gradient of a key's bias is 0, and in f32 Adam would blow up what rounding makes of it.
ADAM = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-4}
# The rate, the options of our optimizer, and PyTorch's own.
OPTIMIZERS = {
    "adamw": (0.01, ADAM | {"weightDecay": 0.1, "clip": 1}, torch.optim.AdamW),
    "adam": (0.01, ADAM | {"weightDecay": 0.1, "clip": 1}, torch.optim.Adam),
    "sgd": (0.1, {"momentum": 0.9, "weightDecay": 0.1, "clip": 1}, torch.optim.SGD),
    "nesterov": (0.1, {"momentum": 0.9, "nesterov": True, "weightDecay": 0.1, "clip": 1}, torch.optim.SGD),
}
STEPS = 3


def train(name, tensors, losses, summary):
    """A few steps from `tensors`, which are changed."""
    lr, options, make = OPTIMIZERS[name]
    decay = options["weightDecay"]
    groups = [
        {"params": [p for p in tensors.values() if p.dim() == 2], "weight_decay": decay},
        {"params": [p for p in tensors.values() if p.dim() == 1], "weight_decay": 0},
    ]
    own = {key: options[key] for key in ("eps", "momentum", "nesterov") if key in options}
    if "beta1" in options:
        own["betas"] = (options["beta1"], options["beta2"])
    optimizer = make(groups, lr=lr, **own)
    steps = []
    counted = (torch.tensor(TARGETS) >= 0).sum()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = losses()[1].sum() / counted
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(tensors.values(), options["clip"])
        optimizer.step()
        steps.append({"loss": loss.item(), "gradientNorm": norm.item()})
    return {"lr": lr, "options": options, "steps": steps, "parameters": summary(tensors)}


def golden(kind):
    config = CONFIGS[kind]
    tensors = {}
    listed = {}
    for t, (name, shape) in enumerate(sorted(shapes(config).items())):
        gain = len(shape) == 1 and name.endswith(".weight")
        scale, shift = (0.3, 1) if gain else (0.4, 0)
        listed[name] = {"shape": shape, "scale": scale, "shift": shift}
        tensors[name] = formula(t, shape, scale, shift).requires_grad_()
    names = list(tensors)
    tokens, targets = torch.tensor(TOKENS), torch.tensor(TARGETS)

    def losses():
        logits = MODELS[kind](config, tensors, tokens)
        each = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-1, reduction="none")
        return logits, each.sum(1)

    def summary(values):
        """The sum, the norm and three elements of each tensor."""
        out = {}
        for name, value in values.items():
            flat = value.detach().flatten()
            at = [0, len(flat) // 3, len(flat) - 1]
            out[name] = {
                "sum": flat.sum().item(),
                "norm": flat.norm().item(),
                "at": at,
                "values": flat[at].tolist(),
            }
        return out

    logits, each = losses()
    rows = [torch.autograd.grad(loss, list(tensors.values()), retain_graph=True) for loss in each]
    flat = torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])
    total = {name: sum(row[n] for row in rows) for n, name in enumerate(names)}
    out = {
        "torch": torch.__version__,
        "config": config,
        "tensors": listed,
        "tokens": TOKENS,
        "targets": TARGETS,
        "logits": logits.flatten().tolist(),
        "losses": each.tolist(),
        "gradients": summary(total),
        "gram": (flat @ flat.T).tolist(),
    }

    start = {name: value.detach().clone() for name, value in tensors.items()}
    out["optimizers"] = {}
    for name in OPTIMIZERS:
        with torch.no_grad():
            for own, value in tensors.items():
                value.copy_(start[own])
        out["optimizers"][name] = train(name, tensors, losses, summary)
    return out


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_logits(sys.argv[1], sys.argv[2:])
    else:
        for kind in MODELS:
            path = Path(__file__).with_name(f"{kind}.json")
            path.write_text(json.dumps(golden(kind)) + "\n")
