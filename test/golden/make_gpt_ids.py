"""Golden token ids of OpenAI's vocabularies, made with `tiktoken` (0.14).

`python make_gpt_ids.py` writes gpt-ids.json beside this file. The lists of tokens are read from node_modules/gpt-tokenizer/data; tiktoken compares them with the hashes of OpenAI's own files.
"""

import base64
import hashlib
import json
import random
from pathlib import Path

import tiktoken
from tiktoken_ext import openai_public

from make_tokenizers import SAMPLE, text

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "node_modules/gpt-tokenizer/data"
NAMES = ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"]


def read_ranks(path, expected_hash):
    content = (DATA / Path(path).name).read_bytes()
    if hashlib.sha256(content).hexdigest() != expected_hash:
        raise SystemExit(f"{path}: not OpenAI's file")
    pairs = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def main():
    openai_public.load_tiktoken_bpe = read_ranks
    rng = random.Random(3)
    texts = [SAMPLE, "", *(text(rng) for _ in range(40))]
    cases = []
    for name in NAMES:
        encoding = tiktoken.Encoding(**getattr(openai_public, name)())
        ids = [" ".join(map(str, encoding.encode_ordinary(t))) for t in texts]
        cases.append({"name": name, "size": encoding.n_vocab, "endOfText": encoding.eot_token, "ids": ids})
    whole = {"texts": texts, "vocabularies": cases}
    (HERE / "gpt-ids.json").write_text(json.dumps(whole, ensure_ascii=False, indent=0) + "\n")


main()
