"""Golden token ids, made with Hugging Face's `tokenizers` (0.23).

`python make_tokenizers.py` writes tokenizers.json beside this file: tokenizer.json files as they are found (GPT-2, Llama 3,
Qwen, GPT-NeoX, StarCoder, Falcon, DeepSeek, GPT-4o and some odd ones), with a small vocabulary, texts, and the ids of each.
Special tokens are encoded as text (`encode_special_tokens`), as gradmix does.

library-tokenizers.json are files of other models (WordPiece, Unigram, BPE without a byte level, …), each trained on the sample; their texts spell no
special token, which Unigram would find in them.

`python make_tokenizers.py COUNT FILE` writes as many random texts for each, for a longer comparison.
"""

import json
import random
import sys
import unicodedata
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SAMPLE = """The quick brown fox jumps over the lazy dog; it's 1234 o'clock, and they've run. I'LL SAY: "DON'T!"
const total = items.map((item) => item.price * 1.19).reduce((a, b) => a + b, 0);
    return { total, "naïve": "façade", 日本語: "テスト", emoji: "🎉🎉👩‍👩‍👧" };

\t\tДобрый день, мир! 12 345,67 ½ ² ३४५ שלום עולם\r\n"""

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"


def level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


DEEPSEEK = sequence(
    split(r"[\r\n]"),
    split(r"\s?\p{L}+"),
    split(r"\s?\p{P}+"),
    split(r"[一-龥ࠀ-一가-퟿]+"),
    {"type": "Digits", "individual_digits": True},
    level(regex=False),
)
FALCON = sequence(
    {"type": "Punctuation", "behavior": "Contiguous"},
    level(),
    {"type": "Digits", "individual_digits": False},
    split("[0-9][0-9][0-9]"),
)


def token(content, special=True, normalized=False):
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"content": content, **flags, "normalized": normalized, "special": special}


END = [token("<|endoftext|>")]
SPACES = [token(" " * n, False, True) for n in range(8, 1, -1)] + [token("é!", False, True), token("İİ", False)]

# name: pre-tokenizer, normalizer, special tokens before the vocabulary, added tokens after it, options of the model.
FILES = {
    "gpt2": (level(), None, [], END, {}),
    "special first": (level(), None, [token("<s>"), token("<pad>"), token("</s>"), token("<unk>")], [], {"unk_token": "<unk>"}),
    "prefix space": (level(prefix=True), None, END, [], {}),
    "llama 3": (sequence(split(LLAMA3), level(regex=False)), None, [], [token("<|begin_of_text|>"), token("<|end_of_text|>")], {"ignore_merges": True}),
    "qwen": (sequence(split(QWEN), level(regex=False)), {"type": "NFC"}, [], END + [token("<|im_start|>")], {}),
    "gpt-neox": (level(), {"type": "NFC"}, [token("<|padding|>")] + END, SPACES, {}),
    "starcoder": (sequence({"type": "Digits", "individual_digits": True}, level()), None, END + [token("<fim_prefix>")], [], {}),
    "falcon": (FALCON, None, [], [token(">>TITLE<<")] + END, {}),
    "deepseek": (DEEPSEEK, {"type": "Sequence", "normalizers": []}, [], END, {}),
    "gpt-4o": (sequence(split(GPT4O), level(regex=False)), None, [], END, {"ignore_merges": True}),
    "possessive": (sequence(split(POSSESSIVE), level(regex=False)), None, [], END, {}),
    "words": (sequence(split(r"\w+|[^\w\s]+|\W"), level(regex=False)), {"type": "Lowercase"}, [], END, {}),
    "merged with next": (sequence(split(" ", "MergedWithNext", False, "String"), level(regex=False)), None, [], END, {}),
    "merged with previous": (sequence(split(r"\n", "MergedWithPrevious"), level(regex=False)), None, [], END, {}),
    "removed": (sequence(split(r"\s", "Removed"), level()), None, [], END, {}),
    "inverted": (sequence(split(r"\d+|\s+", "Contiguous", True), level(prefix=True, regex=False)), None, [], END, {}),
    "unsplit": (level(regex=False), None, [], END, {}),
}
# Bytes that the vocabulary lacks, and what stands for them.
FILES["unknown"] = (level(), None, [token("<unk>")], END, {"unk_token": "<unk>"})
FILES["unknown, fused"] = (level(), None, [token("<unk>")], END, {"unk_token": "<unk>", "fuse_unk": True})


def learn():
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    learned.train_from_iterator([SAMPLE] * 3, trainer)
    model = json.loads(learned.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def build(name, vocab, merges):
    pre_tokenizer, normalizer, first, after, options = FILES[name]
    if name.startswith("unknown"):
        lost = set("Ãð½¹xq")
        vocab = [t for t in vocab if not lost & set(t)]
        merges = [(a, b) for a, b in merges if not lost & set(a + b)]
    if name == "unsplit":
        # Merges in another order than that of learning.
        merges = random.Random(7).sample(merges, len(merges))
    names = [t["content"] for t in first] + vocab
    ids = {t: i for i, t in enumerate(names)}
    added = [{"id": ids[t["content"]], **t} for t in first] + [{"id": len(names) + i, **t} for i, t in enumerate(after)]
    pairs = [f"{a} {b}" for a, b in merges] if name in ("gpt2", "falcon") else [list(m) for m in merges]
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **options, "vocab": ids, "merges": pairs,
    }
    if name == "gpt2":
        # As old files are.
        del model["type"], model["ignore_merges"], model["byte_fallback"]
        model.update(unk_token="", continuing_subword_prefix="", end_of_word_suffix="")
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": level(), "model": model,
    }


SPACE = [0x9, 0xA, 0xB, 0xC, 0xD, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
ODD = [0, 0x1C, 0x1F, 0x7F, 0xAD, 0x180E, 0x200B, 0x200D, 0x2060, 0xFEFF, 0xFFFD, 0x301, 0x345, 0x17F, 0x130, 0x3A3, 0x212A, 0x24B6, 0x2167,
       0xB2, 0xBD, 0x663, 0x1D7D8, 0x10FFFF, 0xE000, 0x1F389, 0x20000, 0x1E900, 0x5F, 0x203F, 0xAC00, 0x1100, 0x1161, 0x958]
WORDS = ["the", "The", " ", "  ", "\n", "\r\n", "\t", "fox", "İİİ", "it's", "I'LL", "'\u017f", "12", "12345", "日本", "🎉", "e\u0301", "!?", "é!",
         "don't", "<|endoftext|>", "<unk>", "        ", "const ", "=>", "SAY", "day.", "\u1e9b\u0323", "ΣΑΣ "]


def text(rng):
    parts = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.45:
            parts.append(rng.choice(WORDS))
        elif kind < 0.6:
            parts.append(chr(rng.choice(SPACE)))
        elif kind < 0.75:
            parts.append(chr(rng.choice(ODD)))
        elif kind < 0.9:
            parts.append(chr(rng.randint(32, 126)))
        else:
            parts.append(character(rng))
    return "".join(parts)


def character(rng):
    while True:
        point = rng.randint(0, 0x10FFFF) if rng.random() < 0.5 else rng.randint(0, 0x3000)
        # No halves of pairs, and nothing that Python's Unicode does not know: libraries differ by their version there.
        if not 0xD800 <= point < 0xE000 and unicodedata.category(chr(point)) != "Cn":
            return chr(point)


BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def library_files():
    """Tokenizers by name: what `from_iterator` trains them with, and what is changed in their files after that."""
    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer(lowercase=True)
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert.decoder = decoders.WordPiece()
    yield "bert", bert, trainers.WordPieceTrainer(vocab_size=250, special_tokens=BERT_SPECIALS, show_progress=False), {}

    t5 = Tokenizer(models.Unigram())
    t5.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t5.pre_tokenizer = pre_tokenizers.Metaspace()
    t5.decoder = decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=specials, unk_token="<unk>", show_progress=False)
    yield "t5", t5, trainer, {}

    llama = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    llama.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    llama.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    llama.decoder = decoders.Sequence(strip)
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, limit_alphabet=40, show_progress=False)
    yield "llama 2", llama, trainer, {"pre_tokenizer": None, "added": 3}

    gpt = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    gpt.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.StripAccents()])
    gpt.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    gpt.decoder = decoders.BPEDecoder()
    specials = ["[UNK]", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=specials, end_of_word_suffix="</w>", show_progress=False)
    yield "suffixes", gpt, trainer, {}

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    yield "words", words, trainers.WordLevelTrainer(special_tokens=["[UNK]", "[SEP]"], show_progress=False), {}


def write_library(out, count):
    cases = []
    for name, trained, trainer, changes in library_files():
        trained.train_from_iterator([SAMPLE] * 3, trainer)
        file = json.loads(trained.to_str())
        if "added" in changes:
            file["added_tokens"] = file["added_tokens"][: changes["added"]]
        if "pre_tokenizer" in changes:
            file["pre_tokenizer"] = changes["pre_tokenizer"]
        tokenizer = Tokenizer.from_str(json.dumps(file))
        tokenizer.encode_special_tokens = True
        specials = [t["content"] for t in file["added_tokens"]]
        rng = random.Random(name)
        texts = [SAMPLE, "", *(t for t in (text(rng) for _ in range(count)) if not any(s in t for s in specials))]
        ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
        back = [tokenizer.decode(i, skip_special_tokens=False) for i in ids]
        rows = [[t, " ".join(map(str, i)), b] for t, i, b in zip(texts, ids, back)]
        cases.append({"name": name, "file": file, "texts": rows})
    write(out, cases)


def write(out, cases):
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    out.write_text(f"[\n{lines}\n]\n")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("tokenizers.json")
    vocab, merges = learn()
    cases = []
    for name in FILES:
        file = build(name, vocab, merges)
        tokenizer = Tokenizer.from_str(json.dumps(file))
        tokenizer.encode_special_tokens = True
        rng = random.Random(name)
        spaces = ["a" + chr(c) + "b" for c in SPACE] + ["x".join(chr(c) * 2 for c in SPACE + ODD)]
        texts = [SAMPLE, "", *spaces[-1:], *(text(rng) for _ in range(count))]
        ids = [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]
        cases.append({"name": name, "file": file, "texts": [[t, " ".join(map(str, i))] for t, i in zip(texts, ids)]})
    write(out, cases)
    write_library(out.with_name(f"library-{out.name}"), count)


if __name__ == "__main__":
    main()
