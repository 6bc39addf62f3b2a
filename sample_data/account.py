"""Says what the demo made and how good it is: python sample_data/account.py demo_output."""

import collections
import json
import math
import pathlib
import sys

out = pathlib.Path(sys.argv[1])
data = pathlib.Path(__file__).parent


def read_json(path):
    return json.loads((out / path).read_text())


def table(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


made = read_json("pretrain.tfrecord.json")["summary"]
pretrained = read_json("pretrained/eval_results.json")
reviews = read_json("reviews/eval_results.json")
vocab_size = read_json("pretrained/bert_config.json")["vocab_size"]

gold = [row[0] for row in table(data / "reviews" / "test_gold.tsv")]
_, *predictions = table(out / "reviews" / "test_predictions.tsv")
_, *test_rows = table(data / "reviews" / "test.tsv")
right = sum(row[1] == label for row, label in zip(predictions, gold))
majority = max(collections.Counter(gold).values())

rows = [json.loads(line) for line in (out / "features.jsonl").read_text().splitlines()]
tokens = sum(len(row["features"]) for row in rows)
width = len(rows[0]["features"][0]["layers"][0]["values"])

print("What the demo made")
print(f"  data        {made['sentences']} sentences -> {made['instances']:,} pretraining instances")
print(
    f"  pretrained  {pretrained['masked_lm_accuracy']:.0%} of the masked tokens of held-out text"
    f" predicted, loss {pretrained['masked_lm_loss']:.2f}"
    f" (knowing nothing: {math.log(vocab_size):.2f})"
)
print(
    f"  classifier  {reviews['eval_accuracy']:.0%} of the dev reviews and"
    f" {right / len(gold):.0%} of the test reviews are right (always guessing the commoner label:"
    f" {majority / len(gold):.0%})"
)
for row, (_, text) in list(zip(predictions, test_rows))[:3]:
    verdict = "good" if row[1] == "1" else "bad"
    print(f"              {verdict} ({max(map(float, row[2:])):.0%} sure): {text}")
print(f"  features    {len(rows)} lines, {tokens} tokens, 2 layers of {width} values each")
tags = read_json("tags/eval_results.json")
tagged = [row for row in table(out / "tags" / "test_predictions.conll") if row != [""]]
right = sum(tag == answer for _, tag, answer in tagged)
print(
    f"  tagger      {tags['eval_f1']:.0%} F1 of people and places in dev sentences, half of them"
    f" new to it; {right / len(tagged):.0%} of the words of test sentences have the right tag"
)
print(f"Everything is in {out}/; README.md says how to use your own data.")
