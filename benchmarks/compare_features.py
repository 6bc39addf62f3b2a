"""Compares extract_features.py with transformers on the same weights: the largest difference.

    python benchmarks/compare_features.py --bert_dir=DIR --input_file=LINES [--peer_python=PYTHON]

Needs torch and transformers, in this environment or in that of --peer_python. All layers but the
embeddings are compared, for every token of every line.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent

PEER = """
import json, sys
import torch
from transformers import BertModel, BertTokenizer
bert_dir, input_file, output_file, length, layers = sys.argv[1:]
model = BertModel.from_pretrained(bert_dir, attn_implementation="eager").eval()
tokenizer = BertTokenizer.from_pretrained(bert_dir)
with open(output_file, "w") as writer:
    for line in open(input_file, encoding="utf-8"):
        texts = line.strip().split(" ||| ")
        encoded = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=int(length))
        with torch.no_grad():
            states = model(**encoded, output_hidden_states=True).hidden_states
        tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
        values = [states[int(layer)][0].tolist() for layer in layers.split(",")]
        writer.write(json.dumps({"tokens": tokens, "values": values}) + "\\n")
"""


def main() -> None:
    """Runs both and prints the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument("--input_file", required=True)
    parser.add_argument("--layers", default="-1,-2,-3,-4")
    parser.add_argument("--max_seq_length", default="128")
    parser.add_argument("--peer_python", default=sys.executable)
    arguments = parser.parse_args()
    layers, length = arguments.layers, arguments.max_seq_length
    with tempfile.TemporaryDirectory() as directory:
        ours, theirs = f"{directory}/ours.jsonl", f"{directory}/theirs.jsonl"
        stage = [
            sys.executable,
            str(ROOT / "extract_features.py"),
            f"--input_file={arguments.input_file}",
        ]
        stage += [f"--output_file={ours}", f"--bert_dir={arguments.bert_dir}", f"--layers={layers}"]
        subprocess.run([*stage, f"--max_seq_length={length}"], check=True)
        peer = [arguments.peer_python, "-c", PEER, arguments.bert_dir, arguments.input_file, theirs]
        subprocess.run([*peer, length, layers], check=True)
        with open(ours) as our_lines, open(theirs) as their_lines:
            rows = [
                difference(json.loads(a), json.loads(b)) for a, b in zip(our_lines, their_lines)
            ]
    print(f"{len(rows)} lines, layers {layers}: largest difference {max(rows):.1e}")


def difference(ours: dict, theirs: dict) -> float:
    """Returns the largest absolute difference of a line's features; the tokens must be equal."""
    if [feature["token"] for feature in ours["features"]] != theirs["tokens"]:
        sys.exit(f"line {ours['linex_index']}: other tokens")
    return max(
        abs(x - y)
        for position, feature in enumerate(ours["features"])
        for layer, values in zip(feature["layers"], theirs["values"])
        for x, y in zip(layer["values"], values[position])
    )


if __name__ == "__main__":
    main()
