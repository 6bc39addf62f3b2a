"""Distilled classifiers beside their teacher, and the same students without its answers.

    python benchmarks/distillation.py --data_dir=DIR --bert_dir=DIR [--epochs=4] [--seeds=1,2,3]
        [--only="2 layers, distilled;2 layers, layers too"] [--labelled=2000]

The data is in SST-2's layout: movie reviews, 8,568 to train on and 1,000 in dev. The teacher is
--bert_dir fine-tuned for an epoch, one for all seeds, or a classifier that is there already.
Students with two layers have the third and the last of six (--layers); those that learn labels have
the layers of --bert_dir, those that learn layers too the teacher's hidden states and attention. A
BiLSTM that learns labels has the teacher's embeddings all the same. A BiLSTM is trained for twice
--epochs, and for half as many passes where there are two changed copies of each text more.

With --labelled only the first rows have their labels: the teacher learns these for three epochs,
and its students the teacher's answers to all texts. Those that learn labels have as many steps.

Printed are accuracy on the dev set with its standard error over seeds (of one run, that of 1,000
answers), the weights in MB as float32, and milliseconds a text, one at a time and 32 together, the
least of several measurements in turns.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
LENGTH = 64
COPIES = 2


def arms(arguments):
    """Returns the command of each way by name: bert classify or distill, and its flags."""
    of_bert, of_lstm = arguments.epochs, 2 * arguments.epochs

    def distilled(student, rate, epochs, *more):
        return [
            "distill",
            student,
            f"--learning_rate={rate}",
            f"--num_train_epochs={epochs}",
            *more,
        ]

    share = arguments.labelled / arguments.texts if arguments.labelled else 1.0
    layers, lstm = (f"--teacher_layers={arguments.layers}", 1e-4), ("--student=bilstm", 1e-3)
    labels, copies = "--hard_label_weight=1", f"--augment={COPIES}"
    states = ["--hidden_state_weight=1", "--attention_weight=0.1"]
    return {
        "BiLSTM, labels": distilled(*lstm, of_lstm / share, labels),
        "BiLSTM, distilled": distilled(*lstm, of_lstm),
        "2 layers, labels": ["classify", "{layers}", *distilled(*layers, of_bert / share)[2:]],
        "2 layers, distilled": distilled(*layers, of_bert),
        "2 layers, layers too": distilled(*layers, of_bert, *states),
        "BiLSTM, distilled, copies": distilled(*lstm, of_lstm / 2, copies),
        "2 layers, distilled, copies": distilled(*layers, of_bert / 2, copies),
    }


def bert(command, out, arguments, seed, *flags):
    """Runs a command that trains and evaluates; returns the accuracy and the seconds it took."""
    words = [
        sys.executable,
        "-m",
        "bert_toolkit",
        command,
        f"--train_file={arguments.train_file}",
        f"--eval_file={arguments.data_dir}/dev.tsv",
        f"--output_dir={out}",
        f"--max_seq_length={LENGTH}",
        f"--seed={seed}",
        "--eval_batch_size=32",
        "--predict_batch_size=32",
        *flags,
    ]
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return accuracy_of(out), time.monotonic() - start


def divide(arguments, directory):
    """Writes the rows with labels and the texts without, if only some are to have theirs."""
    arguments.train_file = f"{arguments.data_dir}/train.tsv"
    header, *rows = pathlib.Path(arguments.train_file).read_text(encoding="utf-8").splitlines(True)
    arguments.texts = len(rows)
    arguments.unlabelled = []
    if arguments.labelled:
        arguments.train_file = f"{directory}/labelled.tsv"
        rest = [row.rpartition("\t")[0] + "\n" for row in rows[arguments.labelled :]]
        pathlib.Path(arguments.train_file).write_text(
            header + "".join(rows[: arguments.labelled]), encoding="utf-8"
        )
        pathlib.Path(directory, "rest.txt").write_text("".join(rest), encoding="utf-8")
        arguments.unlabelled = [f"--unlabeled_file={directory}/rest.txt"]


def accuracy_of(directory):
    return json.loads(pathlib.Path(directory, "eval_results.json").read_text())["eval_accuracy"]


def some_layers(bert_dir, layers, out):
    """Writes the model directory of some layers of a pretrained model."""
    from bert_toolkit.checkpoints import checkpoint_files, model_directory
    from bert_toolkit.options import ModelOptions
    from bert_toolkit.tasks.students import with_layers

    model = model_directory.find(ModelOptions(bert_dir=bert_dir))
    weights = with_layers(checkpoint_files.read(model.init_checkpoint), layers)
    tokens = list(model.tokenizer().vocab)
    config = model.config.to_dict() | {"num_hidden_layers": len(layers)}
    model_directory.write_complete(out, model, config, tokens, weights)


def megabytes(directory):
    """Returns the size of the weights of a classifier."""
    from bert_toolkit.checkpoints import checkpoint_files

    weights = checkpoint_files.read(checkpoint_files.find(directory, "bert_dir"))
    return sum(value.nbytes for value in weights.values()) / 1e6


def milliseconds(directories, texts, turns=5):
    """Returns the time a text takes each classifier, alone and with 31 others."""
    from bert_toolkit import TextClassifier

    models = {name: TextClassifier(path, LENGTH) for name, path in directories.items()}
    found = {name: [[], []] for name in models}
    for _ in range(turns + 1):  # the first turn only warms up
        for name, model in models.items():
            for place, (size, part) in enumerate(((1, texts[:50]), (32, texts[:320]))):
                start = time.monotonic()
                for first in range(0, len(part), size):
                    model.predict(part[first : first + size])
                found[name][place].append(1000 * (time.monotonic() - start) / len(part))
    return {name: [min(times[1:]) for times in both] for name, both in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--teacher_dir", help="A teacher that was trained before.")
    parser.add_argument("--layers", default="2,5")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--labelled", type=int, help="Rows that have labels; all, if not given.")
    parser.add_argument("--only", help="Names of ways, separated by semicolons.")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from bert_toolkit import tensorflow_start

    tensorflow_start.prepare()
    seeds = list(map(int, arguments.seeds.split(",")))
    with tempfile.TemporaryDirectory() as work:
        divide(arguments, work)
        chosen = arms(arguments)
        if arguments.only:
            chosen = {name: chosen[name] for name in arguments.only.split(";")}
        teacher = arguments.teacher_dir or f"{work}/teacher"
        if not arguments.teacher_dir:
            epochs = 3 if arguments.labelled else 1
            flags = [f"--bert_dir={arguments.bert_dir}", f"--num_train_epochs={epochs}"]
            bert("classify", teacher, arguments, seeds[0], *flags)
        layers = f"{work}/layers"
        some_layers(arguments.bert_dir, list(map(int, arguments.layers.split(","))), layers)
        found = {"teacher": [accuracy_of(teacher)]}
        directories = {"teacher": teacher}
        for seed in seeds:
            for name, (command, *flags) in chosen.items():
                out = f"{work}/{name}-{seed}".replace(", ", "-").replace(" ", "_")
                if command == "distill":
                    flags.append(f"--teacher_dir={teacher}")
                    flags += [] if "labels" in name else arguments.unlabelled
                    kept = pathlib.Path(work, "logits-copies" if "copies" in name else "logits")
                    if kept.exists():  # the teacher need not answer twice
                        shutil.copytree(kept, f"{out}/teacher_logits")
                flags = [flag.replace("{layers}", f"--bert_dir={layers}") for flag in flags]
                accuracy, seconds = bert(command, out, arguments, seed, *flags)
                if command == "distill":
                    shutil.copytree(f"{out}/teacher_logits", kept, dirs_exist_ok=True)
                found.setdefault(name, []).append(accuracy)
                directories[name] = out
                print(f"seed {seed} {name:<28} {accuracy:.4f}, {seconds:.0f} s", flush=True)
        lines = pathlib.Path(arguments.data_dir, "dev.tsv").read_text(encoding="utf-8").split("\n")
        texts = [line.split("\t")[0] for line in lines[1:] if line]
        times = milliseconds(directories, texts)
        sizes = {name: megabytes(path) for name, path in directories.items()}
    print("| classifier | accuracy | standard error | runs | MB | ms a text, alone | of 32 |")
    print("|---|---|---|---|---|---|---|")
    for name, scores in found.items():
        mean, count = statistics.mean(scores), len(scores)
        error = (mean * (1 - mean) / len(texts)) ** 0.5
        if count > 1:
            error = statistics.stdev(scores) / count**0.5
        one, many = times[name]
        print(
            f"| {name} | {mean:.4f} | {error:.4f} | {count} | {sizes[name]:.0f} | {one:.1f} |"
            f" {many:.2f} |"
        )


if __name__ == "__main__":
    main()
