"""Writes questions on short texts, from templates, in SQuAD's layout.

    python benchmarks/make_questions.py DIRECTORY [--train=400] [--dev=100] [--facts=3]
        [--filler=TEXT] [--negative=0.0]

Each text tells of several people who do something somewhere at some time; a question asks for one
of the four. dev.json has sentences that are built in another order than those of train.json, and
verbs that it lacks. --filler=TEXT puts lines of a text file between them, so that real text has to
be read; --negative is the share of questions that the text does not answer.
"""

import argparse
import json
import pathlib
import random

PEOPLE = [
    "baker",
    "doctor",
    "teacher",
    "postman",
    "guard",
    "singer",
    "driver",
    "critic",
    "owner",
    "guide",
    "writer",
    "cook",
    "farmer",
]
THINGS = [
    "book",
    "letter",
    "violin",
    "chair",
    "plate",
    "bicycle",
    "clock",
    "map",
    "coat",
    "basket",
    "lamp",
    "ticket",
    "cup",
    "ribbon",
]
LOOKS = [
    "old",
    "new",
    "red",
    "small",
    "large",
    "clean",
    "lovely",
    "broken",
    "blue",
    "heavy",
    "cheap",
    "long",
]
SITES = ["station", "church", "museum", "theatre", "harbour", "river", "library", "hotel", "mill"]
PLACES = [f"{where} the {site}" for where in ("at", "near", "behind") for site in SITES]
TIMES = ["in the morning", "in the evening", "at noon", "at night", "in winter", "in summer",
         "in spring", "before dinner", "after breakfast", "on Monday", "on Sunday"]  # fmt: skip
VERBS = {  # past -> infinitive
    "train": {"sold": "sell", "carried": "carry", "found": "find", "bought": "buy", "left": "leave",
              "cleaned": "clean", "wanted": "want"},
    "dev": {"sold": "sell", "carried": "carry", "lost": "lose", "kept": "keep", "showed": "show"},
}  # fmt: skip
ORDERS = {
    "train": ("The {who} {did} {what} {where} {when}.", "The {who} {did} {what} {when} {where}."),
    "dev": ("{when} the {who} {did} {what} {where}.",),
}


def fact(rng, split, person, thing):
    """Returns a sentence and its parts."""
    did = rng.choice(list(VERBS[split]))
    parts = {
        "who": person,
        "did": did,
        "what": f"the {rng.choice(LOOKS)} {thing}",
        "where": rng.choice(PLACES),
        "when": rng.choice(TIMES),
    }
    sentence = rng.choice(ORDERS[split]).format(**parts)
    return sentence[0].upper() + sentence[1:], {**parts, "thing": thing, "do": VERBS[split][did]}


def question(rng, parts):
    """Returns a question on a fact, and which part answers it."""
    asked = {
        "who": "Who {did} the {thing}?",
        "what": "What did the {who} {do}?",
        "where": "Where did the {who} {do} the {thing}?",
        "when": "When did the {who} {do} the {thing}?",
    }
    part = rng.choice(list(asked))
    return asked[part].format(**parts), part


def paragraph(rng, split, facts, filler, negative, number):
    """Returns a paragraph of SQuAD's with a question on each fact."""
    people, things = rng.sample(PEOPLE, facts + 1), rng.sample(THINGS, facts + 1)
    told = [fact(rng, split, person, thing) for person, thing in zip(people, things)]
    untold = told.pop()
    sentences = [sentence for sentence, _ in told]
    sentences += rng.sample(filler, min(len(filler), facts))
    rng.shuffle(sentences)
    context = " ".join(sentences)
    questions = []
    for sentence, parts in told:
        text, part = question(rng, parts)
        row = {"id": f"{split}-{number}-{len(questions)}", "question": text, "answers": []}
        if negative:
            row["is_impossible"] = rng.random() < negative
        if row.get("is_impossible"):
            row["question"] = question(rng, untold[1])[0]
        else:
            start = context.index(sentence)
            place = start + sentence.lower().index(parts[part].lower())
            answer = context[place : place + len(parts[part])]
            row["answers"] = [{"text": answer, "answer_start": place}]
        questions.append(row)
    return {"context": context, "qas": questions}


def make(split, count, facts=3, filler=(), negative=0.0, seed=1):
    """Returns `count` questions in SQuAD's layout."""
    rng = random.Random(f"{split} {seed}")
    paragraphs = [
        paragraph(rng, split, facts, list(filler), negative, number)
        for number in range(-(-count // facts))
    ]
    return {
        "version": "2.0" if negative else "1.1",
        "data": [{"title": split, "paragraphs": paragraphs}],
    }


def main():
    """Writes train.json and dev.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--dev", type=int, default=100)
    parser.add_argument("--facts", type=int, default=3)
    parser.add_argument("--filler", type=pathlib.Path)
    parser.add_argument("--negative", type=float, default=0.0)
    arguments = parser.parse_args()
    filler = arguments.filler.read_text(encoding="utf-8").splitlines() if arguments.filler else []
    filler = [line.strip() for line in filler if 20 < len(line) < 200]
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        # Different lines between the facts of the two.
        own = filler[0::2] if split == "train" else filler[1::2]
        made = make(split, getattr(arguments, split), arguments.facts, own, arguments.negative)
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        (arguments.directory / f"{split}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
