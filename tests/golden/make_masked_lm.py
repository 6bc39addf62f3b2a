"""Writes what transformers says of masked tokens, texts and pairs: tests/golden/masked_lm.json.

    bert convert --bert_dir=DIR --output_dir=THEIRS
    python tests/golden/make_masked_lm.py --bert_dir=THEIRS

DIR is tests/golden/model with tests/golden/vocab.txt beside it. Needs torch and transformers.
tests/inference/test_masked_lm.py compares ours with it.
"""

import argparse
import json
import math
import pathlib

import torch
import transformers

TO_FILL = [
    "the [MASK] rejoice with gladness",
    "blessed is the [MASK] of the lord, and [MASK] shall inherit the earth.",
    "He said unto them, [MASK][MASK] my words!",
]
TARGETS = ["people", "lord", "house"]
TOP_K = 7
TEXTS = [
    "the people rejoice with gladness",
    "gladness with rejoice people the",
    "Woe!",
    "a cry of sorrow and wrath in the house of violence; blessed is the man that walketh not in the"
    " counsel of the ungodly.",
]
PAIRS = [
    ("a song of joy", "and peace"),
    ("blessed is the house of mercy", "the wicked perish in darkness, and woe unto them."),
]


def log_probabilities(model, tokenizer, texts):
    """Returns that of each token in its place, masked alone: one sequence at a time."""
    encoded = tokenizer(*texts, return_tensors="pt")
    found = []
    for place, number in enumerate(encoded["input_ids"][0].tolist()):
        if number in (tokenizer.cls_token_id, tokenizer.sep_token_id):
            continue
        ids = encoded["input_ids"].clone()
        ids[0, place] = tokenizer.mask_token_id
        logits = model(**{**encoded, "input_ids": ids}).prediction_logits[0, place].double()
        found.append(torch.log_softmax(logits, -1)[number].item())
    return found


def follows(model, tokenizer, pair):
    """Returns the probability that the second text follows the first."""
    logits = model(**tokenizer(*pair, return_tensors="pt")).seq_relationship_logits[0]
    return torch.softmax(logits.double(), -1)[0].item()


def main():
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bert_dir", required=True)
    parser.add_argument(
        "--output_file", default=str(pathlib.Path(__file__).parent / "masked_lm.json")
    )
    arguments = parser.parse_args()
    load = {"pretrained_model_name_or_path": arguments.bert_dir}
    tokenizer = transformers.BertTokenizer.from_pretrained(**load)
    model = transformers.BertForPreTraining.from_pretrained(**load).eval()
    pipeline = transformers.pipeline(
        "fill-mask",
        model=transformers.BertForMaskedLM.from_pretrained(**load).eval(),
        tokenizer=tokenizer,
    )

    def filled(text, **options):
        found = pipeline(text, **options)
        masks = [found] if isinstance(found[0], dict) else found
        return [[(one["token_str"], math.log(one["score"])) for one in mask] for mask in masks]

    with torch.no_grad():
        result = {
            "filled": {text: filled(text, top_k=TOP_K) for text in TO_FILL},
            "targets": {TO_FILL[0]: filled(TO_FILL[0], targets=TARGETS)},
            "scores": [[text, log_probabilities(model, tokenizer, [text])] for text in TEXTS]
            + [[pair, log_probabilities(model, tokenizer, pair)] for pair in PAIRS],
            "next_sentence": [[pair, follows(model, tokenizer, pair)] for pair in PAIRS],
        }
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    pathlib.Path(arguments.output_file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
