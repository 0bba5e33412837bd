"""Sentencepiece vocabularies of every kind, trained in a moment on a few lines."""

import functools
import io

import sentencepiece

LINES = [
    f"{many} {colour} {thing}s on a {place}, {number}"
    for number, many in enumerate(("one", "two", "three", "four"))
    for colour in ("red", "green", "caf\u00e9-coloured")
    for thing in ("cat", "dog", "house", "\u732b")
    for place in ("mat", "table", "street", "garden path", "hill", "bridge over the river")
]

# As Gemma's: control pieces, no normalization, no dummy prefix, bytes.
GEMMA_LIKE = {
    "model_type": "bpe",
    "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "eos_piece": "<eos>", "bos_piece": "<bos>",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "byte_fallback": True,
    "vocab_size": 340,
}  # fmt: skip
SIGLIP_LIKE = {
    "model_type": "unigram",
    "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1,
    "byte_fallback": True,
    "vocab_size": 320,
}  # fmt: skip
WITHOUT_BYTES = {"byte_fallback": False, "vocab_size": 60}


@functools.cache
def _trained(options):
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=file,
        minloglevel=2,
        hard_vocab_limit=False,
        **dict(options),
    )
    return file.getvalue()


def trained(path, **options):
    """Writes a vocabulary with these options of the trainer, and returns its path."""
    path.write_bytes(_trained(tuple(sorted(options.items()))))
    return path
