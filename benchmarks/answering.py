"""Measures question answering: ours and transformers on torch, same questions, seeds and flags.

    python benchmarks/answering.py --bert_dir=DIR --questions=DIR [--peer_python=PYTHON]
        [--seeds=1,2] [--epochs=2] [--max_seq_length=256] [--windows=0]

A model in Hugging Face's layout lies in the first directory, train.json and dev.json in SQuAD's in
the second (benchmarks/make_questions.py makes some; SQuAD's own will do); --peer_python names
another environment for torch. Both are whole processes that read, train, answer the dev questions
and write predictions; exact match and F1 of both are computed here. transformers pads to the
longest of a batch and trains with torch.optim.AdamW, warm-up, linear decay and clipped gradients.

--windows=2000,20000 measures ours instead: peak memory of answering so many windows.
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

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
BATCH, RATE, STRIDE, WARM_UP = 16, 1e-4, 128, 0.1


def questions_of(path):
    """Yields id, question, context and true answers of SQuAD's layout."""
    for article in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for row in paragraph["qas"]:
                yield row["id"], row["question"], paragraph["context"], row["answers"]


def ours(arguments, seed, directory):
    """Returns the command that trains and answers with this toolkit."""
    return [
        sys.executable, ROOT / "run_squad.py", "--do_train", "--do_predict",
        f"--train_file={arguments.questions}/train.json",
        f"--predict_file={arguments.questions}/dev.json",
        f"--bert_dir={arguments.bert_dir}", f"--output_dir={directory}", f"--seed={seed}",
        f"--max_seq_length={arguments.max_seq_length}", f"--doc_stride={STRIDE}",
        f"--train_batch_size={BATCH}", f"--learning_rate={RATE}", "--predict_batch_size=32",
        f"--num_train_epochs={arguments.epochs}", f"--warmup_proportion={WARM_UP}",
        "--adam_bias_correction",  # as torch's AdamW has it
    ]  # fmt: skip


def peer(arguments, seed, directory):
    """Returns the command that does the same with transformers."""
    return [
        arguments.peer_python, __file__, "--peer", directory, f"--seeds={seed}",
        f"--bert_dir={arguments.bert_dir}", f"--questions={arguments.questions}",
        f"--epochs={arguments.epochs}", f"--max_seq_length={arguments.max_seq_length}",
    ]  # fmt: skip


def run_peer(arguments):
    """Trains and answers with transformers; writes predictions.json."""
    import torch
    from transformers import AutoTokenizer, BertForQuestionAnswering

    torch.manual_seed(int(arguments.seeds))
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(arguments.bert_dir)
    model = BertForQuestionAnswering.from_pretrained(arguments.bert_dir)
    train = list(peer_windows(tokenizer, arguments, "train"))
    steps = int(len(train) / BATCH * arguments.epochs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    warm_up = int(steps * WARM_UP)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: step / warm_up if step < warm_up else (steps - step) / (steps - warm_up),
    )
    model.train()
    order = []
    for _ in range(steps):
        if len(order) < BATCH:
            order += torch.randperm(len(train)).tolist()
        rows, order = [train[n] for n in order[:BATCH]], order[BATCH:]
        inputs = peer_batch(tokenizer, rows)
        positions = torch.tensor([row["positions"] for row in rows])
        loss = model(**inputs, start_positions=positions[:, 0], end_positions=positions[:, 1]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    predictions = peer_answers(tokenizer, model.eval(), arguments)
    pathlib.Path(arguments.peer, "predictions.json").write_text(json.dumps(predictions))


def peer_windows(tokenizer, arguments, split):
    """Yields windows: token ids, segments, offsets of the context, positions of the answer."""
    for name, question, context, answers in questions_of(f"{arguments.questions}/{split}.json"):
        found = tokenizer(
            question, context, truncation="only_second", max_length=arguments.max_seq_length,
            stride=arguments.max_seq_length // 3, return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )  # fmt: skip
        for number, ids in enumerate(found["input_ids"]):
            segments = found["token_type_ids"][number]
            inside = found.sequence_ids(number)
            offsets = [
                place if part == 1 else None
                for place, part in zip(found["offset_mapping"][number], inside)
            ]
            yield {
                "name": name, "context": context, "ids": ids, "segments": segments,
                "offsets": offsets, "positions": peer_positions(offsets, answers),
            }  # fmt: skip


def peer_positions(offsets, answers):
    if not answers:
        return [0, 0]
    begin = answers[0]["answer_start"]
    end = begin + len(answers[0]["text"])
    tokens = [n for n, place in enumerate(offsets) if place and place[1] > begin and place[0] < end]
    whole = tokens and offsets[tokens[0]][0] <= begin and offsets[tokens[-1]][1] >= end
    return [tokens[0], tokens[-1]] if whole else [0, 0]


def peer_batch(tokenizer, rows):
    return tokenizer.pad(
        {
            "input_ids": [row["ids"] for row in rows],
            "token_type_ids": [row["segments"] for row in rows],
        },
        return_tensors="pt",
    )


def peer_answers(tokenizer, model, arguments):
    """Returns the best span of each question, over its windows."""
    import numpy as np
    import torch

    best = {}
    dev = sorted(peer_windows(tokenizer, arguments, "dev"), key=lambda row: len(row["ids"]))
    with torch.no_grad():
        for start in range(0, len(dev), 32):
            rows = dev[start : start + 32]
            found = model(**peer_batch(tokenizer, rows))
            for row, first, last in zip(rows, found.start_logits.numpy(), found.end_logits.numpy()):
                offsets = row["offsets"]
                for one in np.argsort(-first[: len(offsets)])[:20]:
                    for two in np.argsort(-last[: len(offsets)])[:20]:
                        if not offsets[one] or not offsets[two] or not one <= two < one + 30:
                            continue
                        score = float(first[one] + last[two])
                        if score > best.get(row["name"], (-1e9, ""))[0]:
                            text = row["context"][offsets[one][0] : offsets[two][1]]
                            best[row["name"]] = (score, text)
    return {name: text for name, (_, text) in best.items()}


def measure(command, directory, questions):
    """Runs a command; returns exact match, F1, seconds and peak memory in MB."""
    from bert_toolkit.tasks.answering import answer_scores

    environment = {**os.environ, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(list(map(str, command)), env=environment, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status:
            errors.seek(0)
            raise SystemExit(errors.read().decode())
    seconds = time.perf_counter() - start
    predictions = json.loads(pathlib.Path(directory, "predictions.json").read_text())
    scores = [
        answer_scores.best_of(
            answer_scores.by_words, predictions.get(name, ""), [one["text"] for one in answers]
        )
        for name, _, _, answers in questions_of(f"{questions}/dev.json")
    ]
    exact, f1 = (100 * statistics.mean(column) for column in zip(*scores))
    return exact, f1, seconds, usage.ru_maxrss / 1024


def compare(arguments):
    """Prints a row for each run, and the ratio of times."""
    seconds = {"ours": [], "transformers": []}
    print("way\tseed\texact\tF1\tseconds\tMB")
    for seed in arguments.seeds.split(","):
        for way, command in (("ours", ours), ("transformers", peer)):
            with tempfile.TemporaryDirectory() as directory:
                exact, f1, took, megabytes = measure(
                    command(arguments, seed, directory), directory, arguments.questions
                )
            seconds[way].append(took)
            print(f"{way}\t{seed}\t{exact:.1f}\t{f1:.1f}\t{took:.0f}\t{megabytes:.0f}", flush=True)
    ratio = statistics.median(seconds["transformers"]) / statistics.median(seconds["ours"])
    print(f"ours is {ratio:.2f} times as fast")


def memory(arguments):
    """Prints the peak memory of answering so many windows, each in a process of its own."""
    print("windows\tMB")
    for count in arguments.windows.split(","):
        with tempfile.TemporaryDirectory() as directory:
            rows = list(questions_of(f"{arguments.questions}/dev.json"))
            path = pathlib.Path(directory, "rows.jsonl")
            with path.open("w", encoding="utf-8") as writer:
                for number in range(int(count)):
                    _, question, context, _ = rows[number % len(rows)]
                    row = {"id": str(number), "question": question, "context": context[:120]}
                    writer.write(json.dumps(row) + "\n")
            code = (
                "import resource, run_squad, sys;"
                "run_squad.run(run_squad.Options(bert_dir=sys.argv[1], output_dir=sys.argv[2],"
                " predict_file=sys.argv[3], max_seq_length=int(sys.argv[4]),"
                " predict_batch_size=32));"
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
            )
            command = [sys.executable, "-c", code, arguments.bert_dir, f"{directory}/out", path]
            command.append(arguments.max_seq_length)
            done = subprocess.run(
                list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=True
            )
            print(f"{count}\t{done.stdout.split()[-1]}", flush=True)


def main():
    """Compares, or runs the peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--peer_python", default=sys.executable, help="has torch, transformers")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--max_seq_length", type=int, default=256)
    parser.add_argument("--windows")
    parser.add_argument("--peer", help="(one run)")
    arguments = parser.parse_args()
    if arguments.peer:
        run_peer(arguments)
    elif arguments.windows:
        memory(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
