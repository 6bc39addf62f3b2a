"""What pretraining data will come of a text, how long it will take and how much memory it needs.

Samples from all over the text go through the same steps as the data, and are scaled up.
"""

import dataclasses
import gzip
import random
import time
from collections.abc import Iterator, Sequence

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, tfrecord
from bert_toolkit.pretraining import masking, shards
from bert_toolkit.pretraining.corpus import Corpus, Span
from bert_toolkit.pretraining.shards import Recipe, Summary
from tokenization import FullTokenizer

SAMPLES = 32
SAMPLE_BYTES = 64 << 10
PACKED_SAMPLE_BYTES = 1 << 20
# A process with the tokenizer and its memory of pieces, before any text.
BASE_MEMORY = 90 << 20
BYTES_PER_TOKEN = 8
BYTES_PER_SENTENCE = 64
BYTES_PER_INSTANCE = 48


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What to expect.

    Attributes:
      summary: the counts of the whole run.
      text_bytes: size of the text, unpacked.
      sample_bytes: how much of it was looked at.
      seconds: of one process.
      numbers_per_instance: token ids, positions and the like that an instance keeps in memory.
    """

    summary: Summary
    text_bytes: int
    sample_bytes: int
    seconds: float
    numbers_per_instance: float

    def memory(self, num_shards: int) -> float:
        """Returns the bytes that making one of so many shards needs."""
        summary = self.summary
        text = summary.tokens * BYTES_PER_TOKEN + summary.sentences * BYTES_PER_SENTENCE
        instance = 2 * self.numbers_per_instance + BYTES_PER_INSTANCE
        return BASE_MEMORY + (text + summary.instances * instance) / num_shards


def look(paths: Sequence[str], recipe: Recipe) -> Forecast:
    """Makes instances of samples of the text, and says what that means for all of it.

    Raises:
      UserError: a file cannot be read, or there is no text in the samples.
    """
    tokenizer = recipe.rules.tokenizer(recipe.vocab_file)
    lines = list(_sample(paths))
    sample_bytes = sum(len(line.encode()) + 1 for line in lines)
    all_bytes = text_bytes(paths)
    start = time.perf_counter()
    seen = Summary()
    documents = shards.read_documents(lines, tokenizer, recipe, seen, quiet=True)
    if not documents:
        raise UserError(f"--input_file: no text in {', '.join(paths[:3])}")
    read_seconds = time.perf_counter() - start
    numbers = _make(documents, tokenizer, recipe, seen)
    make_seconds = time.perf_counter() - start - read_seconds
    scale = max(1.0, all_bytes / sample_bytes)
    repetitions = recipe.settings.dupe_factor
    per_text = ("documents", "sentences", "tokens", "unknown_tokens")
    expected = {
        name: round(value * scale * (1 if name in per_text else repetitions))
        for name, value in dataclasses.asdict(seen).items()
    }
    seconds = (read_seconds + make_seconds * repetitions) * scale
    per_instance = numbers / max(1, seen.instances)
    return Forecast(Summary(**expected), all_bytes, sample_bytes, seconds, per_instance)


def _make(documents, tokenizer: FullTokenizer, recipe: Recipe, seen: Summary) -> int:
    """Makes the instances of one repetition, counts them in `seen`, returns the numbers in them."""
    fields = shards.schema(recipe.settings)
    rngs = [random.Random(recipe.random_seed)]
    numbers = 0
    vocabulary = masking.Vocabulary(tokenizer)
    instances = masking.create_instances(documents, vocabulary, recipe.settings, rngs)
    for instance, record in shards.encoded(instances, fields):
        seen.instances += 1
        seen.instance_tokens += len(instance.input_ids)
        seen.random_next += instance.is_random_next
        seen.bytes += len(record) + tfrecord.FRAME_BYTES
        numbers += len(instance.input_ids) + 2 * len(instance.masked_ids)
        numbers += len(instance.word_starts)
    return numbers


def text_bytes(paths: Sequence[str]) -> int:
    """Returns the size of the text; of .gz files estimated from their beginning."""
    return sum(_unpacked_size(path) if path.endswith(".gz") else files.size(path) for path in paths)


def _unpacked_size(path: str) -> int:
    with files.open_binary(path, "rb") as raw, files.io_errors(path), files.gzip_errors(path):
        reader = gzip.GzipFile(fileobj=raw)
        unpacked = 0
        while raw.tell() < PACKED_SAMPLE_BYTES and (data := reader.read(SAMPLE_BYTES)):
            unpacked += len(data)
        return unpacked if not reader.peek(1) else round(unpacked / raw.tell() * files.size(path))


def _sample(paths: Sequence[str]) -> Iterator[str]:
    """Yields lines from all over the plain files, and from the beginnings of .gz files."""
    packed = [path for path in paths if path.endswith(".gz")]
    plain = [path for path in paths if not path.endswith(".gz")]
    for path in packed[:SAMPLES]:
        yield from _beginning(files.read_lines(path), SAMPLES * SAMPLE_BYTES // len(packed))
        yield ""
    if not plain:
        return
    corpus = Corpus.of(plain)
    if corpus.size <= SAMPLES * SAMPLE_BYTES:
        yield from corpus.lines(Span(0, corpus.size))
        return
    for part in corpus.spans(SAMPLES):
        lines = corpus.lines(Span(part.start, part.start + SAMPLE_BYTES))
        yield from _beginning(lines, 4 * SAMPLE_BYTES)
        yield ""


def _beginning(lines: Iterator[str], limit: int) -> Iterator[str]:
    """Yields lines up to about `limit` characters: a document may be as long as it likes."""
    length = 0
    for line in lines:
        yield line
        length += len(line)
        if length > limit:
            return
