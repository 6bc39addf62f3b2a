"""The published way to pretraining data, restated plainly, to measure ours by.

Tokens are strings, text is tokenized a character at a time, every token has an entry in a list of
lists for masking, records are built by protocol buffer objects. For one seed the instances are
those of create_pretraining_data.py.
"""

import os
import random
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[0:0] = [os.path.join(ROOT, "tests")]

import plain_tokenizer  # noqa: E402
import tensorflow as tf  # noqa: E402

SPECIAL = ("[CLS]", "[SEP]")


def read_documents(path, vocab):
    documents = [[]]
    with tf.io.gfile.GFile(path) as reader:
        for line in reader:
            line = line.strip()
            if not line:
                documents.append([])
            tokens = plain_tokenizer.tokenize(line, vocab, True)
            if tokens:
                documents[-1].append(tokens)
    return [document for document in documents if document]


def document_instances(documents, index, length, short, rng):
    document, room = documents[index], length - 3
    target = rng.randint(2, room) if rng.random() < short else room
    chunk, position, size = [], 0, 0
    while position < len(document):
        chunk.append(document[position])
        size += len(document[position])
        if position == len(document) - 1 or size >= target:
            if chunk:
                split = rng.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
                first, second = [], []
                for sentence in chunk[:split]:
                    first.extend(sentence)
                is_random = len(chunk) == 1 or rng.random() < 0.5
                if is_random:
                    for _ in range(10):
                        other = rng.randint(0, len(documents) - 1)
                        if other != index:
                            break
                    start = rng.randint(0, len(documents[other]) - 1)
                    for sentence in documents[other][start:]:
                        second.extend(sentence)
                        if len(second) >= target - len(first):
                            break
                    position -= len(chunk) - split
                else:
                    for sentence in chunk[split:]:
                        second.extend(sentence)
                while len(first) + len(second) > room:
                    longer = first if len(first) > len(second) else second
                    if rng.random() < 0.5:
                        del longer[0]
                    else:
                        longer.pop()
                yield ["[CLS]", *first, "[SEP]", *second, "[SEP]"], len(first) + 2, is_random
            chunk, size = [], 0
        position += 1


def mask(tokens, words, probability, most, rng):
    candidates = [[index] for index, token in enumerate(tokens) if token not in SPECIAL]
    rng.shuffle(candidates)
    wanted = min(most, max(1, int(round(len(tokens) * probability))))
    output, chosen = list(tokens), []
    for (index,) in candidates[:wanted]:
        if rng.random() < 0.8:
            output[index] = "[MASK]"
        elif rng.random() >= 0.5:
            output[index] = words[rng.randint(0, len(words) - 1)]
        chosen.append((index, tokens[index]))
    return output, sorted(chosen)


def example(instance, vocab, length, most):
    tokens, first, is_random, chosen = instance
    ids = [vocab[token] for token in tokens]
    padding, slots = [0] * (length - len(ids)), [0] * (most - len(chosen))
    integers = {
        "input_ids": ids + padding,
        "input_mask": [1] * len(ids) + padding,
        "segment_ids": [0] * first + [1] * (len(ids) - first) + padding,
        "masked_lm_positions": [index for index, _ in chosen] + slots,
        "masked_lm_ids": [vocab[token] for _, token in chosen] + slots,
        "next_sentence_labels": [int(is_random)],
    }
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        for name, values in integers.items()
    }
    weights = [1.0] * len(chosen) + [0.0] * len(slots)
    features["masked_lm_weights"] = tf.train.Feature(float_list=tf.train.FloatList(value=weights))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def main(input_file, output_file, vocab_file, dupe_factor, length=128, most=20):
    with open(vocab_file, encoding="utf-8") as reader:
        vocab = {line.strip(): index for index, line in enumerate(reader)}
    rng = random.Random(12345)
    documents = read_documents(input_file, vocab)
    rng.shuffle(documents)
    words = list(vocab)
    instances = []
    for _ in range(int(dupe_factor)):
        for index in range(len(documents)):
            made = document_instances(documents, index, length, 0.1, rng)
            for tokens, first, is_random in made:
                masked, chosen = mask(tokens, words, 0.15, most, rng)
                instances.append((masked, first, is_random, chosen))
    rng.shuffle(instances)
    with tf.io.TFRecordWriter(output_file) as writer:
        for instance in instances:
            writer.write(example(instance, vocab, length, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
