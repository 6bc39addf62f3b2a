"""Fine-tunes a classifier with several seeds: accuracy, wall time and peak memory of each run.

    python benchmarks/finetune.py --data_dir=DIR --bert_dir=DIR [--seeds=1,2,3] [--task_name=sst-2]

Each run is run_classifier.py as a user would start it: one epoch, batch 32, 64 tokens, rate 5e-5.
With --peer_python=PYTHON, whose environment has torch and transformers, a plain program with these
does the same in turns, in the same precision on 2 threads, for data in SST-2's layout: batches
padded to their longest, AdamW, the rate falling linearly after a tenth of warm-up, the gradient
clipped, then the accuracy on dev.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import table

ROOT = pathlib.Path(__file__).parent.parent

PEER = """
import csv, json, sys
import torch, transformers
data_dir, bert_dir, seed, precision = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
torch.set_num_threads(2)
torch.manual_seed(seed)
transformers.logging.set_verbosity_error()
tokenizer = transformers.AutoTokenizer.from_pretrained(bert_dir)
model = transformers.BertForSequenceClassification.from_pretrained(bert_dir, num_labels=2)

def batches(name, shuffle):
    with open(f"{data_dir}/{name}.tsv", encoding="utf-8", newline="") as reader:
        rows = list(csv.reader(reader, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    order = torch.randperm(len(rows)).tolist() if shuffle else range(len(rows))
    rows = [rows[number] for number in order]
    for start in range(0, len(rows), 32):
        texts, labels = zip(*rows[start : start + 32])
        inputs = tokenizer(
            list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        yield inputs, torch.tensor([int(label) for label in labels])

training = list(batches("train", True))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)
schedule = transformers.get_linear_schedule_with_warmup(
    optimizer, len(training) // 10, len(training)
)
model.train()
for inputs, labels in training:
    with half:
        loss = model(**inputs, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
model.eval()
right = total = 0
with torch.no_grad(), half:
    for inputs, labels in batches("dev", False):
        right += int((model(**inputs).logits.argmax(-1) == labels).sum())
        total += len(labels)
print(json.dumps(right / total))
"""


def run(arguments: argparse.Namespace, seed: int, output_dir: str) -> tuple[float, float, float]:
    """Returns dev accuracy, seconds and peak memory in MB of one run."""
    command = [
        sys.executable,
        str(ROOT / "run_classifier.py"),
        f"--task_name={arguments.task_name}",
        f"--data_dir={arguments.data_dir}",
        f"--bert_dir={arguments.bert_dir}",
        f"--output_dir={output_dir}",
        "--do_train",
        "--do_eval",
        "--max_seq_length=64",
        "--train_batch_size=32",
        "--learning_rate=5e-5",
        "--num_train_epochs=1",
        f"--seed={seed}",
        f"--precision={arguments.precision}",
    ]
    seconds, memory, _ = measure(command)
    results = json.loads(pathlib.Path(output_dir, "eval_results.json").read_text())
    return results["eval_accuracy"], seconds, memory


def run_peer(arguments: argparse.Namespace, seed: int) -> tuple[float, float, float]:
    """Returns the same of transformers on torch."""
    command = [arguments.peer_python, "-c", PEER]
    seconds, memory, printed = measure(
        [*command, arguments.data_dir, arguments.bert_dir, str(seed), arguments.precision]
    )
    return json.loads(printed.splitlines()[-1]), seconds, memory


def measure(command: list[str]) -> tuple[float, float, str]:
    """Returns seconds and peak memory in MB of a process, and what it printed."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("the run failed")
    return time.monotonic() - start, usage.ru_maxrss / 1000, printed


def main() -> None:
    """Runs all seeds and prints a row for each, then the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--task_name", default="sst-2")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--peer_python", help="has torch and transformers")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # both on two cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    rows: dict[str, list[tuple[float, float, float]]] = {"ours": [], "transformers": []}
    for seed in map(int, arguments.seeds.split(",")):
        with tempfile.TemporaryDirectory() as output_dir:
            rows["ours"].append(run(arguments, seed, output_dir))
        if arguments.peer_python:
            rows["transformers"].append(run_peer(arguments, seed))
        for way, runs in rows.items():
            if runs:
                accuracy, seconds, memory = runs[-1]
                print(
                    f"seed {seed} {way}: accuracy {accuracy:.3f}, {seconds:.0f} s, {memory:.0f} MB"
                )
        sys.stdout.flush()
    for way, runs in rows.items():
        if runs:
            print(f"{way}, {len(runs)} runs: {summary(runs)}")
    if arguments.peer_python:
        ours, peer = (statistics.median(run[1] for run in runs) for runs in rows.values())
        print(f"ours is {peer / ours:.2f} x as fast")
        conditions = f"reviews, one epoch, {arguments.precision}, start and evaluation included"
        table.add("fine-tune, whole command", ours, peer, "transformers", "s", conditions)


def summary(runs: list[tuple[float, float, float]]) -> str:
    """Returns the mean accuracy with its standard deviation, the median time, the peak memory."""
    accuracies, times, memories = zip(*runs)
    deviation = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
    return (
        f"accuracy {statistics.mean(accuracies):.3f} +- {deviation:.3f},"
        f" {statistics.median(times):.0f} s, {max(memories):.0f} MB"
    )


if __name__ == "__main__":
    main()
