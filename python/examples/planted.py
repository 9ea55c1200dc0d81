"""Writes text whose best mixture is known: domains that are Markov chains over the same letters, and a target whose documents come from them in planted shares.

    python planted.py FOLDER [--seed N] [--characters N]

writes FOLDER/NAME.jsonl for each domain and FOLDER/target.jsonl, one document per line, for `gradmix train` and for train_gpt.py. It uses only the standard library.

A model that sees a few letters cannot be sure from which chain they come, so it needs to know how often each chain occurs in the target. It learns that only from
training data with the mixture of the target.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
from typing import Dict, List

#: Shares of the domains in the target.
PLANTED = {"ada": 0.6, "bea": 0.3, "cyd": 0.1, "dan": 0.0}

LETTERS = "abcdefghijklmnop"
#: Letters per document.
LENGTH = 200


def chain(name: str, seed: int) -> List[List[float]]:
    """Returns the domain's cumulative probabilities of the next letter, with one row for each letter."""
    chances = random.Random(f"chain {seed} {name}")
    # Normalised exponential numbers are uniform on the simplex; their squares are uneven enough to tell the chains apart in some letters.
    rows = [[chances.expovariate(1) ** 2 for _ in LETTERS] for _ in LETTERS]
    return [list(itertools.accumulate(row)) for row in rows]


def documents(shares: Dict[str, float], characters: int, seed: int, name: str) -> List[str]:
    """Returns documents of about `characters` characters in total, in random order. Each comes from one chain; the chains occur in these shares."""
    draws = random.Random(f"text {seed} {name}")
    count = max(2, characters // LENGTH)
    of = [domain for domain, share in shares.items() for _ in range(round(share * count))]
    draws.shuffle(of)
    chains = {domain: chain(domain, seed) for domain in shares}
    texts = []
    for domain in of:
        rows = chains[domain]
        letter = draws.randrange(len(LETTERS))
        text = []
        for _ in range(LENGTH):
            text.append(LETTERS[letter])
            (letter,) = draws.choices(range(len(LETTERS)), cum_weights=rows[letter])
        texts.append("".join(text))
    return texts


def write(folder: str, seed: int = 1, characters: int = 100_000) -> None:
    """Writes the domains, with `characters` characters each, and a target of half as many."""
    os.makedirs(folder, exist_ok=True)
    mixtures = {name: ({name: 1.0}, characters) for name in PLANTED}
    mixtures["target"] = (PLANTED, characters // 2)
    for name, (shares, size) in mixtures.items():
        with open(os.path.join(folder, f"{name}.jsonl"), "w", encoding="utf-8") as file:
            for text in documents(shares, size, seed, name):
                file.write(json.dumps({"text": text}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes text whose best mixture is known.")
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--characters", type=int, default=100_000, help="characters per domain")
    given = parser.parse_args()
    write(given.folder, given.seed, given.characters)
