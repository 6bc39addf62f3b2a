"""The rules of BERT's tokenization, restated slowly and plainly: the oracle of the fast tokenizer."""

import unicodedata

CJK = [
    range(0x4E00, 0xA000),
    range(0x3400, 0x4DC0),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2B740),
    range(0x2B740, 0x2B820),
    range(0x2B820, 0x2CEB0),
    range(0xF900, 0xFB00),
    range(0x2F800, 0x2FA20),
]
ASCII_SYMBOLS = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def words(text, lower_case):
    cleaned = ""
    for char in text:
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            cleaned += " "
        elif char in "\0\ufffd" or category in ("Cc", "Cf"):
            continue
        elif any(ord(char) in block for block in CJK):
            cleaned += " " + char + " "
        else:
            cleaned += char
    result = []
    for word in cleaned.split():
        if lower_case:
            decomposed = unicodedata.normalize("NFD", word.lower())
            word = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
        current = ""
        for char in word:
            if char in ASCII_SYMBOLS or unicodedata.category(char)[0] == "P":
                result += [current, char]
                current = ""
            else:
                current += char
        result.append(current)
    return [piece for part in result for piece in part.split()]


def pieces(word, vocab):
    if len(word) > 200:
        return ["[UNK]"]
    found = []
    rest = word
    while rest:
        for length in range(len(rest), 0, -1):
            piece = ("##" if found else "") + rest[:length]
            if piece in vocab:
                found.append(piece)
                rest = rest[length:]
                break
        else:
            return ["[UNK]"]
    return found


def tokenize(text, vocab, lower_case):
    return [piece for word in words(text, lower_case) for piece in pieces(word, vocab)]
