"""Two tasks together beside each alone: movie reviews and tags of people and places.

    python benchmarks/multitask.py --data_dir=DIR --bert_dir=DIR [--seeds=1,2,3] [--rows=640]
    python benchmarks/multitask.py --data_dir=DIR --bert_dir=DIR --time

The reviews are in SST-2's layout, of which --rows are trained on; the tags are those of
sample_data. All ways see each text --epochs times. "both, annealed" has the classifier that was
trained alone with the same seed for a teacher. Printed are accuracy of the reviews and F1 of the
tags on their dev data, the mean over seeds with its standard error.

With --time, milliseconds a step of the reviews alone, and of the reviews beside the head of the
tags, whose batches are left out by their weight: the median of lines of the log, the least of
several turns.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
TAGS = ROOT / "sample_data" / "tags"


def tasks(arguments, **more):
    """Returns the two tasks as bert multitask takes them; `more` are keys of the reviews."""
    reviews = {
        "train_file": f"{arguments.data_dir}/train.tsv",
        "eval_file": f"{arguments.data_dir}/dev.tsv",
        "max_seq_length": 64,
        "max_train_examples": arguments.rows,
    }
    tags = {
        "train_file": str(TAGS / "train.conll"),
        "eval_file": str(TAGS / "dev.conll"),
        "max_seq_length": 64,
    }
    return {
        "reviews": {"kind": "classify", **reviews, **more},
        "tags": {"kind": "tag", **tags},
    }


def bert(command, out, arguments, *flags):
    """Runs a command that trains and evaluates."""
    words = [
        sys.executable,
        "-m",
        "bert_toolkit",
        command,
        f"--bert_dir={arguments.bert_dir}",
        f"--output_dir={out}",
        "--train_batch_size=16",
        "--eval_batch_size=32",
        "--predict_batch_size=32",
        f"--learning_rate={arguments.learning_rate}",
        *flags,
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")


def alone(task, out, arguments, *flags):
    """Trains for one task by the command of its kind."""
    own = [f"--{name}={value}" for name, value in task.items() if name != "kind"]
    bert(task["kind"], out, arguments, *own, *flags)


def together(listed, out, arguments, *flags):
    """Trains for several tasks."""
    path = pathlib.Path(f"{out}.json")
    path.write_text(json.dumps([{"name": name, **task} for name, task in listed.items()]))
    bert("multitask", out, arguments, f"--tasks_file={path}", *flags)


def metric_of(directory, name):
    return json.loads(pathlib.Path(directory, "eval_results.json").read_text())[name]


def compare(arguments, work):
    """Returns way -> metric -> values over seeds."""
    found = {}

    def note(way, directory, name):
        found.setdefault(way, {}).setdefault(name, []).append(metric_of(directory, name))

    for seed in map(int, arguments.seeds.split(",")):
        flags = [f"--seed={seed}", f"--num_train_epochs={arguments.epochs}"]
        listed = tasks(arguments)
        for name, metric in (("reviews", "eval_accuracy"), ("tags", "eval_f1")):
            alone(listed[name], f"{work}/{name}-{seed}", arguments, *flags)
            note("each alone", f"{work}/{name}-{seed}", metric)
        ways = {
            "both": (listed, []),
            "both, size_power 0.5": (listed, ["--size_power=0.5"]),
            "both, annealed": (tasks(arguments, teacher=f"{work}/reviews-{seed}"), []),
        }
        for way, (listed_there, more) in ways.items():
            out = f"{work}/{way}-{seed}".replace(", ", "-").replace(" ", "_")
            together(listed_there, out, arguments, *flags, *more)
            note(way, f"{out}/reviews", "eval_accuracy")
            note(way, f"{out}/tags", "eval_f1")
        print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def shown(values):
    """Returns the mean and its standard error, as text."""
    mean = f"{statistics.mean(values):.4f}"
    if len(values) < 2:
        return f"{mean} (one run)"
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def step_time(out):
    """Returns milliseconds a step: the median of the log's lines, without the first two."""
    lines = pathlib.Path(out, "training_log.jsonl").read_text().splitlines()
    return 1000 / statistics.median(json.loads(line)["steps/s"] for line in lines[2:])


def time_steps(arguments, work, turns=3):
    """Prints milliseconds a step, alone and beside another head."""
    flags = ["--log_every_steps=5", f"--num_train_epochs={arguments.epochs}"]
    listed = tasks(arguments)
    listed["tags"]["weight"] = 1e-9
    times = {"reviews alone": [], "reviews beside tags": []}
    for turn in range(turns):
        alone(listed["reviews"], f"{work}/alone-{turn}", arguments, *flags)
        times["reviews alone"].append(step_time(f"{work}/alone-{turn}"))
        together(listed, f"{work}/both-{turn}", arguments, *flags)
        times["reviews beside tags"].append(step_time(f"{work}/both-{turn}"))
    for name, values in times.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name}: {min(values):.1f} ms a step (of {each})")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--time", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if arguments.time:
            time_steps(arguments, work)
            return
        found = compare(arguments, work)
    print("| trained for | accuracy of reviews | F1 of tags |\n|---|---|---|")
    for way, metrics in found.items():
        print(f"| {way} | {shown(metrics['eval_accuracy'])} | {shown(metrics['eval_f1'])} |")


if __name__ == "__main__":
    main()
