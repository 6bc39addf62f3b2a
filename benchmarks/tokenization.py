"""Measures text to ids on one thread: ours, Hugging Face's tokenizers, tensorflow-text.

    pip install tokenizers tensorflow-text
    python benchmarks/tokenization.py --vocab_file=vocab.txt english.txt chinese.txt european.txt

Each way goes through the lines of a file: once over its first megabytes with a new tokenizer
("cold"), then over all of it, again and again ("steady"); medians, MB of UTF-8 per second.
Each way runs as its users run it, and keeps its results: ours and tokenizers give lists of ids from
encode_batch, on one thread; tensorflow-text gives ragged tensors, one for 1,000 lines, which is set
beside our encode_ragged.
"""

import argparse
import os
import statistics
import sys
import time

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", TF_CPP_MIN_LOG_LEVEL="3")
import table  # noqa: E402

sys.path[:0] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
# The script's own name is that of the module it measures.
sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]

COLD_BYTES = 2_000_000


def ours(vocab_file):
    import tokenization

    return tokenization.FullTokenizer(vocab_file).encode_batch


def ours_ragged(vocab_file):
    import tokenization

    return tokenization.FullTokenizer(vocab_file).encode_ragged


def hugging_face(vocab_file):
    import tokenizers

    tokenizer = tokenizers.BertWordPieceTokenizer(vocab_file)
    return lambda lines: [
        encoding.ids for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)
    ]


def tensorflow_text(vocab_file):
    import tensorflow as tf
    import tensorflow_text

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with open(vocab_file, encoding="utf-8") as reader:
        vocabulary = reader.read().split("\n")[:-1]
    tokenizer = tensorflow_text.FastBertTokenizer(
        vocabulary, token_out_type=tf.int64, lower_case_nfd_strip_accents=True
    )

    def encode(lines):
        found = []
        for start in range(0, len(lines), 1000):
            found.append(tokenizer.tokenize(lines[start : start + 1000]))
        return found

    return encode


WAYS = {
    "ours": ours,
    "ours, arrays": ours_ragged,
    "tokenizers": hugging_face,
    "tensorflow-text": tensorflow_text,
}
# Like with like: lists of ids, and arrays of them.
COMPARED_WITH = {"tokenizers": "ours", "tensorflow-text": "ours, arrays"}


def lines_of(path, limit=None):
    with open(path, "rb") as reader:
        text = reader.read(limit).decode("utf-8", "ignore")
    return [line for line in text.split("\n") if line]


def rate(encode, lines):
    size = sum(len(line.encode()) for line in lines) / 1e6
    start = time.perf_counter()
    encode(lines)
    return size / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vocab_file", required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    print(f"{'MB/s':<16}{'way':<18}{'cold':>8}{'steady':>8}   ours / it: cold, steady")
    for path in arguments.files:
        cold_lines, lines = lines_of(path, COLD_BYTES), lines_of(path)
        cold = {name: [] for name in WAYS}
        steady = {name: [] for name in WAYS}
        warm = {name: make(arguments.vocab_file) for name, make in WAYS.items()}
        for encode in warm.values():
            encode(lines)
        for _ in range(arguments.repetitions):  # the ways take turns: a slow moment hits all
            for name, make in WAYS.items():
                cold[name].append(rate(make(arguments.vocab_file), cold_lines))
                steady[name].append(rate(warm[name], lines))
        for name in WAYS:
            peer = COMPARED_WITH.get(name, name)
            ratios = (
                statistics.median(all_of[peer]) / statistics.median(all_of[name])
                for all_of in (cold, steady)
            )
            print(
                f"{os.path.basename(path):<16}{name:<18}{statistics.median(cold[name]):>8.1f}"
                f"{statistics.median(steady[name]):>8.1f}   "
                + ", ".join(f"{ratio:.1f}" for ratio in ratios),
                flush=True,
            )
            if name in COMPARED_WITH:
                text = os.path.basename(path)
                for kind, rates in (("the first 2 MB of a process", cold), ("steady", steady)):
                    medians = [statistics.median(rates[way]) for way in (peer, name)]
                    table.add(f"text to ids, {kind}", *medians, name, "MB/s", text)


if __name__ == "__main__":
    main()
