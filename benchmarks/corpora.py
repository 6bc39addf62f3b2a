"""Makes texts to measure with from Debian packages: English, Chinese and mixed European.

The packages are bible-kjv, fortunes-{zh,de,es,it,pl,cs,ru,bg} and manpages-{zh,de,fr,ru}. Then:

    python benchmarks/corpora.py DIRECTORY
"""

import glob
import gzip
import os
import random
import re
import subprocess
import sys

FORTUNES = "/usr/share/games/fortunes"
EUROPEAN_BYTES = 6_000_000


def english():
    """Returns the King James Bible, a chapter a document and a verse a line."""
    text = subprocess.run(
        ["bible", "-f", "ge1:1-re22:21"], capture_output=True, text=True, check=True
    ).stdout
    chapters = {}
    for chapter, verse in re.findall(r"^(\S+?\d+):\d+ (.*)$", text, re.MULTILINE):
        chapters.setdefault(chapter, []).append(verse)
    return ["\n".join(verses) for verses in chapters.values()]


def fortunes(*names):
    """Returns the sayings in files or directories of the fortunes packages."""
    found = []
    for name in names:
        path = os.path.join(FORTUNES, name)
        for file in sorted(glob.glob(f"{path}/*")) if os.path.isdir(path) else [path]:
            if not file.endswith((".dat", ".u8")) and os.path.isfile(file):
                with open(file, encoding="utf-8", errors="ignore") as reader:
                    found += re.split(r"\n%\n", reader.read())
    return found


def manuals(language):
    """Returns the manual pages of a language without their markup."""
    found = []
    for path in sorted(glob.glob(f"/usr/share/man/{language}/man*/*.gz")):
        with gzip.open(path, "rt", encoding="utf-8", errors="ignore") as reader:
            lines = [line for line in reader if not line.startswith((".", "'", '\\"'))]
        found.append(re.sub(r"\\f[A-Z]|\\-|\\&", "", "".join(lines)))
    return found


def main(directory):
    os.makedirs(directory, exist_ok=True)
    chinese = fortunes("chinese", "tang300", "song100") + manuals("zh_CN")
    european = fortunes("de", "es", "it", "pl", "cs", "ru", "bg")
    european += manuals("fr") + manuals("ru") + manuals("de")
    random.Random(1).shuffle(european)
    texts = {"english": english(), "chinese": chinese, "european": european}
    for name, documents in texts.items():
        text = "\n\n".join(documents).encode()
        if name == "european":
            text = text[:EUROPEAN_BYTES].decode("utf-8", "ignore").encode()
        with open(os.path.join(directory, f"{name}.txt"), "wb") as writer:
            writer.write(text)
        print(f"{name}.txt: {len(text):,} bytes, {len(documents):,} documents")


if __name__ == "__main__":
    main(*sys.argv[1:])
