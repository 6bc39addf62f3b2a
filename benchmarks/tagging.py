"""Fine-tunes a tagger with and without a CRF, and transformers' on torch: F1, seconds, memory.

    python benchmarks/tagging.py --make_from=TEXT --train_file=train.conll --eval_file=dev.conll
    python benchmarks/tagging.py --train_file=train.conll --eval_file=dev.conll --bert_dir=DIR \
        [--torch_python=PYTHON] [--seeds=1,2,3] [--epochs=2] [--learning_rate=2e-4]

The first makes files, if you have none: clauses with names of people, places and companies, which
share words, put into sentences of a text, a line each. Of the names to evaluate on half are others
than those to train on, and so are all the clauses.

Files have a word and its tag a line, separated by a tab, in IOB2. Every run is a process of its
own: batch 32, at most 64 tokens, warm-up over a tenth of the steps, AdamW with its correction. The
python of --torch_python has torch and transformers; without it that run is left out. F1 is of
entities, computed here for all from the predictions that each run writes.
"""

import argparse
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
LENGTH, BATCH = 64, 32


FIRST = "Anna Tom Mary Peter Clara Simon Ruth Oscar Nina Paul Ella Martin Sara Felix Lena Hugo"
LAST = "Weber Stone Miller Hill Baker Wood Lang Marsh Carter Berg Fisher Cole Ash Brook Lake Port"
CLAUSES = (  # to train on; to evaluate on
    """{P} , who works for {C} in {L} , said that
we drove from {L} to {L} with {P} , and
the shares of {C} fell after {P} left , for
in {L} they say that
{C} has moved to {L} ; as {P} wrote ,
{P} and {P} agree that
no one at {C} knew that
people near {L} believe that
, said {P} of {C} .
, as was reported in {L} .
, which {C} denied .
, and {P} went home to {L} .
, but {L} is far away .
, {P} told {P} .""",
    """{P} joined {C} because
on the way to {L} , {P} heard that
a court in {L} found against {C} although
{C} hired {P} when
, according to {C} .
, {P} thought in {L} .
, if {P} is right about {L} .
, and {C} closed its office in {L} .""",
)


def make(arguments, sentences=(1500, 500), seed=1):
    """Writes sentences of a text with clauses in them, to train on and to evaluate on."""
    chance = random.Random(seed)
    lines = pathlib.Path(arguments.make_from).read_text(encoding="utf-8").split("\n")
    lines = [line.split() for line in lines if 5 <= len(line.split()) <= 18]
    first, last = FIRST.split(), LAST.split()

    def name(kind, held_out):
        low, high = (10, 16) if held_out and chance.random() < 0.5 else (0, 10)
        one, other = (chance.choice(names[low:high]) for names in (first, last))
        third = chance.choice(last[:high])
        return chance.choice(
            {
                "P": (f"{one} {other}", one, f"{one} {third} {other}", other),
                "L": (f"{other} {third}", f"Old {other}", f"{other} upon {third}", other),
                "C": (f"{other} and {third}", f"{other} Bank", f"{one} {other} Group", other),
            }[kind]
        ).split()

    def sentence(held_out):
        clause = chance.choice(CLAUSES[held_out].split("\n")).split()
        carrier = [(word, "O") for word in chance.choice(lines)]
        rows = []
        for word in clause:
            words = name(word[1], held_out) if word[0] == "{" else [word]
            kind = word[1] if word[0] == "{" else ""
            rows += [
                (part, f"{'I' if place else 'B'}-{kind}" if kind else "O")
                for place, part in enumerate(words)
            ]
        return carrier + rows if clause[0] == "," else rows + carrier

    for path, count, held_out in zip(
        (arguments.train_file, arguments.eval_file), sentences, (False, True)
    ):
        made = [sentence(held_out) for _ in range(count)]
        text = "\n".join("".join(f"{word}\t{tag}\n" for word, tag in rows) for rows in made)
        pathlib.Path(path).write_text(text, encoding="utf-8")


def read(path):
    """Returns the sentences of a file: words and tags, those of the last column."""
    sentences, rows = [], []
    for line in [*pathlib.Path(path).read_text(encoding="utf-8").split("\n"), ""]:
        if line.strip():
            rows.append(line.split("\t"))
        elif rows:
            sentences.append(([row[0] for row in rows], [row[-1] for row in rows]))
            rows = []
    return sentences


def ours(arguments, seed, out, crf):
    return [
        sys.executable,
        str(ROOT / "run_token_classifier.py"),
        f"--train_file={arguments.train_file}",
        f"--predict_file={arguments.eval_file}",
        f"--bert_dir={arguments.bert_dir}",
        f"--output_dir={out}",
        f"--max_seq_length={LENGTH}",
        f"--train_batch_size={BATCH}",
        f"--predict_batch_size={BATCH}",
        f"--num_train_epochs={arguments.epochs}",
        f"--learning_rate={arguments.learning_rate}",
        f"--seed={seed}",
        "--adam_bias_correction",  # as torch has it
        "--learning_rate_schedule=linear",
        f"--{'' if crf else 'no'}crf",
    ]


def theirs(arguments, seed, out):
    return [
        arguments.torch_python,
        __file__,
        *(f"--{name}={value}" for name, value in vars(arguments).items() if value is not None),
        f"--seeds={seed}",
        f"--torch_output={out}",
    ]


def torch_run(arguments):
    """Trains and predicts with transformers, as its examples do: labels on first pieces."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    torch.manual_seed(int(arguments.seeds))
    train, dev = read(arguments.train_file), read(arguments.eval_file)
    labels = sorted({tag for _, tags in train for tag in tags})
    tokenizer = AutoTokenizer.from_pretrained(arguments.bert_dir)
    model = AutoModelForTokenClassification.from_pretrained(
        arguments.bert_dir, num_labels=len(labels)
    )

    def batch_of(sentences):
        words = [words for words, _ in sentences]
        batch = tokenizer(
            words,
            is_split_into_words=True,
            truncation=True,
            max_length=LENGTH,
            padding=True,
            return_tensors="pt",
        )
        targets = torch.full(batch["input_ids"].shape, -100)
        for row, (_, tags) in enumerate(sentences):
            seen = set()
            for place, word in enumerate(batch.word_ids(row)):
                if word is not None and word not in seen:
                    tag = tags[word]
                    targets[row, place] = labels.index(tag) if tag in labels else 0
                    seen.add(word)
        return batch, targets

    plain = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    rest = [p for n, p in model.named_parameters() if not ("bias" in n or "LayerNorm" in n)]
    groups = [{"params": rest, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, eps=1e-6)
    steps = int(len(train) / BATCH * arguments.epochs)
    warmup = max(1, int(steps * 0.1))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup + 1e-9))
    )
    generator = torch.Generator().manual_seed(int(arguments.seeds))
    order = []
    model.train()
    for _ in range(steps):
        while len(order) < BATCH:
            order += torch.randperm(len(train), generator=generator).tolist()
        batch, targets = batch_of([train[number] for number in order[:BATCH]])
        order = order[BATCH:]
        loss = model(**batch, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    lines = []
    with torch.no_grad():
        for start in range(0, len(dev), BATCH):
            part = dev[start : start + BATCH]
            batch, targets = batch_of(part)
            found = model(**batch).logits.argmax(-1)
            for row, (words, tags) in enumerate(part):
                names = [labels[n] for n in found[row][targets[row] != -100].tolist()]
                names += ["O"] * (len(words) - len(names))
                lines += [f"{one}\t{tag}\t{name}" for one, tag, name in zip(words, tags, names)]
                lines.append("")
    os.makedirs(arguments.torch_output, exist_ok=True)
    path = pathlib.Path(arguments.torch_output, "test_predictions.conll")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(command, out, truth):
    """Returns F1 of entities, strict F1, seconds, those of processors, peak MB of one run."""
    from bert_toolkit.tasks.tagging import scores

    start = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    if status:
        sys.exit(f"the run failed: {command}")
    predicted = [tags for _, tags in read(pathlib.Path(out, "test_predictions.conll"))]
    f1s = [scores.entity_scores(truth, predicted, strict)["micro"].f1 for strict in ("", "iob2")]
    return (*f1s, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--eval_file", required=True)
    parser.add_argument("--bert_dir")
    parser.add_argument("--make_from")
    parser.add_argument("--torch_python")
    parser.add_argument("--only", help="One of the ways: ours, ours, crf or transformers.")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--torch_output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make_from:
        make(arguments)
        return
    if arguments.torch_output:
        torch_run(arguments)
        return
    sys.path.insert(0, str(ROOT))
    truth = [tags for _, tags in read(arguments.eval_file)]
    ways = {
        "ours": lambda seed, out: ours(arguments, seed, out, crf=False),
        "ours, crf": lambda seed, out: ours(arguments, seed, out, crf=True),
    }
    if arguments.torch_python:
        ways["transformers"] = lambda seed, out: theirs(arguments, seed, out)
    if arguments.only:
        ways = {arguments.only: ways[arguments.only]}
    found = {way: [] for way in ways}
    for seed in map(int, arguments.seeds.split(",")):
        for way, command in ways.items():
            with tempfile.TemporaryDirectory() as out:
                found[way].append(measure(command(seed, out), out, truth))
            f1, strict, seconds, busy, memory = found[way][-1]
            print(
                f"seed {seed} {way:<13} F1 {f1:.4f}, strict {strict:.4f}, {seconds:.0f} s,"
                f" {busy:.0f} s of processors, {memory:.0f} MB",
                flush=True,
            )
    for way, rows in found.items():
        f1s, stricts, times, busy, memories = zip(*rows)
        spread = statistics.stdev(f1s) if len(rows) > 1 else 0.0
        print(
            f"{way:<13} F1 {statistics.mean(f1s):.4f} +- {spread:.4f}, strict"
            f" {statistics.mean(stricts):.4f}, {statistics.median(times):.0f} s,"
            f" {statistics.median(busy):.0f} s of processors, {max(memories):.0f} MB"
        )


if __name__ == "__main__":
    main()
