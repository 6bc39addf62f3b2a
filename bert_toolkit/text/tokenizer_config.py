"""The rules of a model's tokenizer, from the files beside its vocabulary, ours or Hugging Face's.

Hugging Face's are tokenizer.json, or tokenizer_config.json with special_tokens_map.json and
added_tokens.json. What they ask for is done, or refused in a sentence: nothing in them is passed
over that would give other token ids.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Optional

from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from tokenization import (
    CLASSIFY,
    LONGEST_WORD,
    MASK,
    PAD,
    SEPARATE,
    UNKNOWN,
    AddedToken,
    FullTokenizer,
    load_vocab,
)

RULES_FILE = "tokenizer_config.json"
TOKENIZER, SPECIAL_TOKENS, ADDED_TOKENS = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# The names of a vocabulary in a model directory; the first that is there is taken.
VOCABULARIES = ("vocab.txt", TOKENIZER)

# The limit of Hugging Face's WordPiece, where no tokenizer.json says another one.
HUGGING_FACE_LONGEST_WORD = 100


@dataclasses.dataclass(frozen=True)
class Rules:
    """How text is cut, as the arguments of FullTokenizer."""

    do_lower_case: bool = True
    strip_accents: Optional[bool] = None
    tokenize_chinese_chars: bool = True
    never_split: tuple[str, ...] = ()
    added_tokens: tuple[AddedToken, ...] = ()
    max_input_chars_per_word: int = LONGEST_WORD
    hugging_face: bool = False

    def tokenizer(self, vocab_file: str) -> FullTokenizer:
        """Loads the tokenizer with a vocabulary."""
        return FullTokenizer(vocab_file, **dataclasses.asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Returns the rules by the keys of a tokenizer_config.json, which `read` takes."""
        found: dict[str, Any] = {name: getattr(self, name) for name in NAMES}
        found["never_split"] = list(self.never_split)
        if self.hugging_face:
            found["tokenizer_class"] = "BertTokenizer"
            found["max_input_chars_per_word"] = self.max_input_chars_per_word
            found["added_tokens_decoder"] = {
                str(token.id): {
                    "content": token.content,
                    "lstrip": False,
                    "normalized": token.normalized,
                    "rstrip": False,
                    "single_word": False,
                    "special": not token.normalized,
                }
                for token in self.added_tokens
            }
        return found

    def to_json(self) -> str:
        """Returns the text of a tokenizer_config.json."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


# The rules that there are flags for, and that our own files have always had.
NAMES = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "never_split")


class Said(NamedTuple):
    """What files say of the rules.

    Attributes:
      values: some of the fields of Rules, by their names.
      path: the file that says so, for messages.
    """

    values: dict[str, Any]
    path: str


def read(vocab_file: str) -> Said:
    """Returns what the files beside a vocabulary say of the rules.

    Raises:
      UserError: a file is damaged, or asks for what our tokenizer does not do.
    """
    directory = os.path.dirname(vocab_file)
    path = os.path.join(directory, RULES_FILE)
    config = _read_object(path) or {}
    if is_hugging_face(directory, config):
        return _HuggingFace(vocab_file, config).said()
    return Said(_named(config), path)


def from_note(note: Mapping[str, Any], default: Rules) -> Rules:
    """Returns the rules that a data set's note tells, else the default."""
    if "do_lower_case" not in note:
        return dataclasses.replace(default, **_named(note))
    added = [
        AddedToken(token["content"], int(number), token["normalized"])
        for number, token in note.get("added_tokens_decoder", {}).items()
    ]
    theirs = {
        "added_tokens": tuple(added),
        "max_input_chars_per_word": note.get("max_input_chars_per_word", LONGEST_WORD),
        "hugging_face": "tokenizer_class" in note,
    }
    return dataclasses.replace(default, **theirs, **_named(note))


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that have one of our names, with what is fixed made fixed, and no nulls."""
    found = {name: values[name] for name in NAMES if values.get(name) is not None}
    if "never_split" in found:
        found["never_split"] = tuple(found["never_split"])
    return found


def _read_object(path: str) -> Optional[dict[str, Any]]:
    """Returns a JSON object; None if there is no file."""
    if not files.exists(path):
        return None
    try:
        return dict(json.loads(files.read_text(path)))
    except (ValueError, TypeError):
        raise UserError(f"{path}: not a JSON object; mend or remove it") from None


def is_hugging_face(directory: str, config: Mapping[str, Any]) -> bool:
    """Whether a vocabulary's directory is in Hugging Face's layout.

    Args:
      directory: with the vocabulary.
      config: its tokenizer_config.json, {} if it has none.
    """

    def has(name: str) -> bool:
        return files.exists(os.path.join(directory, name))

    if config.keys() - NAMES or any(map(has, (TOKENIZER, SPECIAL_TOKENS, ADDED_TOKENS))):
        return True
    return has("config.json") and not has("bert_config.json")


# --- Hugging Face's files ---

# Tokenizers that are BERT's under these names, or what a tokenizer.json says.
_CLASSES = {
    f"{name}Tokenizer{ending}"
    for name in ("Bert", "DistilBert", "Electra", "MobileBert")
    for ending in ("", "Fast")
}
_CLASSES_OF_FILES = {"PreTrainedTokenizerFast", "TokenizersBackend"}

# The parts that our sequences are made with; theirs may have other names.
_ROLES = {
    "unk_token": UNKNOWN,
    "cls_token": CLASSIFY,
    "sep_token": SEPARATE,
    "mask_token": MASK,
}

# Settings that have to be as here, if they are there at all.
_FIXED = {
    "do_basic_tokenize": True,
    "clean_text": True,
    "wordpieces_prefix": "##",
    "word_tokenizer_type": "basic",
    "subword_tokenizer_type": "wordpiece",
    "split_special_tokens": False,
}


def _refuse(path: str, found: str, expected: str) -> NoReturn:
    raise UserError(
        f"{path}: {found}; expected {expected}, as token ids would be others than the model was"
        " trained with; use a model with BERT's own WordPiece tokenizer"
    )


class _HuggingFace:
    """The files of a tokenizer in one directory."""

    def __init__(self, vocab_file: str, config: Mapping[str, Any]):
        directory = os.path.dirname(vocab_file)

        def path(name: str) -> str:
            return os.path.join(directory, name)

        self._vocab_file = vocab_file
        self._config_path, self._config = path(RULES_FILE), config
        self._special_path = path(SPECIAL_TOKENS)
        self._special = _read_object(self._special_path) or {}
        self._added_path = path(ADDED_TOKENS)
        self._added = _read_object(self._added_path) or {}
        self._tokenizer_path = path(TOKENIZER)
        self._tokenizer = _read_object(self._tokenizer_path)

    def said(self) -> Said:
        """Returns the rules; a UserError if we cannot follow them."""
        self._check_settings()
        self._check_roles()
        values, source = _named(self._config), self._config_path
        limit = self._config.get("max_input_chars_per_word", HUGGING_FACE_LONGEST_WORD)
        if self._tokenizer is not None:
            _check_tokenizer(self._tokenizer_path, self._tokenizer)
            limit = self._tokenizer["model"]["max_input_chars_per_word"]
            theirs = _normalizer_rules(self._tokenizer)
            for name, value in theirs.items():
                if values.get(name, value) != value:
                    raise UserError(
                        f"{self._tokenizer_path}: {name} is {json.dumps(value)} in it, but"
                        f" {self._config_path} says {json.dumps(values[name])}; mend the one that"
                        " is wrong"
                    )
            if not values:
                source = self._tokenizer_path
            values |= theirs
        values["max_input_chars_per_word"] = limit
        values["hugging_face"] = True
        values["added_tokens"] = self._added_tokens()
        return Said(values, source)

    def _check_settings(self) -> None:
        path, config = self._config_path, self._config
        known = _CLASSES | (_CLASSES_OF_FILES if self._tokenizer is not None else set())
        name = config.get("tokenizer_class")
        if name is not None and name not in known:
            _refuse(path, f"tokenizer_class is {name!r}", "BertTokenizer")
        for key, wanted in _FIXED.items():
            value = config.get(key)
            if value is not None and value != wanted:
                _refuse(path, f"{key} is {json.dumps(value)}", json.dumps(wanted))

    def _check_roles(self) -> None:
        for path, source in self._sources():
            for role, wanted in _ROLES.items():
                value = source.get(role)
                if value is not None and _content(value) != wanted:
                    _refuse(path, f"{role} is {_content(value)!r}", wanted)

    def _sources(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(self._config_path, self._config), (self._special_path, self._special)]

    def _added_tokens(self) -> tuple[AddedToken, ...]:
        """Returns the tokens that are whole in text, by their ids."""
        vocab = load_vocab(self._vocab_file)
        if self._tokenizer is not None and not self._vocab_file.endswith(".json"):
            self._check_same_vocabulary(vocab)
        found: dict[str, AddedToken] = {}
        for path, number, token in self._listed():
            content = token.get("content")
            if not content or content in found:
                continue
            if token.get("single_word"):
                _refuse(path, f"the added token {content!r} has single_word true", "false")
            if not isinstance(number, int) or vocab.get(content, number) != number:
                there = (
                    f"{vocab[content]} in {self._vocab_file}" if content in vocab else "a number"
                )
                raise UserError(
                    f"{path}: the added token {content!r} has the id {number}; expected {there};"
                    " use this model's own files"
                )
            normalized = bool(token.get("normalized", not token.get("special", False)))
            found[content] = AddedToken(content, number, normalized)
        for source, content in self._special_tokens():
            if content in found:
                continue
            if content in vocab:
                found[content] = AddedToken(content, vocab[content])
            elif source is not None:
                raise UserError(
                    f"{source}: the special token {content!r} has no id; expected it in"
                    f" {self._vocab_file} or among added tokens; use this model's own files"
                )
        return self._without_clashes(found.values(), vocab)

    def _without_clashes(self, tokens: Any, vocab: Mapping[str, int]) -> tuple[AddedToken, ...]:
        owners = {number: token for token, number in vocab.items()}
        for token in tokens:
            owner = owners.setdefault(token.id, token.content)
            if owner != token.content:
                raise UserError(
                    f"{os.path.dirname(self._vocab_file) or '.'}: {owner!r} and the added token"
                    f" {token.content!r} have the same id {token.id}; use this model's own files"
                )
        return tuple(sorted(tokens, key=lambda token: token.id))

    def _listed(self) -> list[tuple[str, Any, Mapping[str, Any]]]:
        """Returns (file, id, token) of all added tokens that a file lists with their ids."""
        listed: list[tuple[str, Any, Mapping[str, Any]]] = []
        if self._tokenizer is not None:
            for token in self._tokenizer.get("added_tokens") or ():
                listed.append((self._tokenizer_path, token.get("id"), token))
        for number, token in (self._config.get("added_tokens_decoder") or {}).items():
            listed.append((self._config_path, int(number), token))
        special = {content for _, content in self._special_tokens()}
        for content, number in self._added.items():
            token = {"content": content, "normalized": content not in special}
            listed.append((self._added_path, number, token))
        return listed

    def _special_tokens(self) -> list[tuple[Optional[str], str]]:
        """Returns (file, token) of all special tokens that are named; no file for BERT's own."""
        named: list[tuple[Optional[str], str]] = []
        for path, source in self._sources():
            if source.get("pad_token") is not None:
                named.append((path, _content(source["pad_token"])))
            for key in ("additional_special_tokens", "extra_special_tokens"):
                values = source.get(key) or ()
                values = values.values() if isinstance(values, dict) else values
                named += [(path, _content(value)) for value in values]
        if self._config.get("tokenizer_class") not in _CLASSES_OF_FILES:
            named += [(None, token) for token in (*_ROLES.values(), PAD)]
        return named

    def _check_same_vocabulary(self, vocab: Mapping[str, int]) -> None:
        theirs = self._tokenizer["model"]["vocab"]  # type: ignore[index]
        for token, number in theirs.items():
            if vocab.get(token) != number:
                raise UserError(
                    f"{self._vocab_file}: the id of {token!r} is {vocab.get(token)}, but"
                    f" {number} in {self._tokenizer_path}; use this model's own files"
                )


def _content(token: Any) -> str:
    return str(token.get("content")) if isinstance(token, dict) else str(token)


# Keys of the parts of a tokenizer.json, and what they have to be.
_MODEL = {"type": "WordPiece", "unk_token": UNKNOWN, "continuing_subword_prefix": "##"}


def _check_tokenizer(path: str, tokenizer: Mapping[str, Any]) -> None:
    """Raises a UserError if a tokenizer.json is not BERT's."""
    model = tokenizer.get("model") or {}
    for key, wanted in _MODEL.items():
        # The kind of the model was not written at first.
        value = model.get(key, wanted if key == "type" else None)
        if value != wanted:
            _refuse(path, f"the {key} of its model is {json.dumps(value)}", wanted)
    if not isinstance(model.get("max_input_chars_per_word"), int):
        _refuse(path, "no max_input_chars_per_word in its model", "a number")
    for key, wanted in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        part = _only(tokenizer.get(key))
        if part.get("type") != wanted:
            _refuse(path, f"its {key} is {_described(part)}", wanted)
    if _only(tokenizer["normalizer"]).get("clean_text", True) is not True:
        _refuse(path, "clean_text of its normalizer is false", "true")
    _check_processor(path, tokenizer.get("post_processor"))


def _only(part: Optional[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns a part of a tokenizer.json, or the only one in a sequence of parts."""
    part = part or {}
    inner: Sequence = part.get("normalizers") or part.get("pretokenizers") or ()
    return inner[0] if part.get("type") == "Sequence" and len(inner) == 1 else part


def _described(part: Mapping[str, Any]) -> str:
    inner = part.get("normalizers") or part.get("pretokenizers") or ()
    return " of ".join(
        [
            str(part.get("type")),
            *([", ".join(str(each.get("type")) for each in inner)] * bool(inner)),
        ]
    )


def _normalizer_rules(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    normalizer = _only(tokenizer["normalizer"])
    found = {
        "do_lower_case": normalizer.get("lowercase", True),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
    }
    return {name: value for name, value in found.items() if value is not None}


def _check_processor(path: str, processor: Optional[Mapping[str, Any]]) -> None:
    """Raises a UserError if sequences are not [CLS] A [SEP] and [CLS] A [SEP] B [SEP]."""
    if processor is None:
        return
    kind = processor.get("type")
    if kind == "BertProcessing":
        if [processor["cls"][0], processor["sep"][0]] != [CLASSIFY, SEPARATE]:
            _refuse(path, f"sequences are made with {processor['cls'][0]!r}", CLASSIFY)
        return
    if kind != "TemplateProcessing":
        _refuse(path, f"its post_processor is {kind}", "TemplateProcessing")
    expected = {
        "single": f"{CLASSIFY}:0 A:0 {SEPARATE}:0",
        "pair": f"{CLASSIFY}:0 A:0 {SEPARATE}:0 B:1 {SEPARATE}:1",
    }
    for name, wanted in expected.items():
        pieces = [value for piece in processor.get(name) or () for value in piece.values()]
        found = " ".join(f"{piece['id']}:{piece['type_id']}" for piece in pieces)
        if found != wanted:
            _refuse(path, f"{name} sequences are {found}", wanted)


# --- Writing ---


def write_vocabulary(vocab_file: str, path: str) -> None:
    """Writes a vocab.txt: as it is but for a byte-order mark, or the entries of a tokenizer.json.

    Added tokens that the vocabulary lacks have their ids in the tokenizer_config.json beside it.
    """
    if not vocab_file.endswith(".json"):
        # Not a copy: a byte-order mark would be part of the first token there.
        files.write_text(path, files.read_text(vocab_file))
        return
    files.write_text(path, "".join(f"{token}\n" for token in load_vocab(vocab_file)))
