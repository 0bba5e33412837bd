"""A sentencepiece vocabulary of the training captions.

In the manner of SigLIP's: no token at the start, one at the end. Padding has an id of
its own, 0, as in SigLIP 2. Bytes are pieces, so that any text can be encoded.
"""

import io
from collections.abc import Iterable

import sentencepiece

PIECES = 2048
PAD, EOS, UNK = 0, 1, 2


def train_vocabulary(captions: Iterable[str], pieces: int = PIECES) -> bytes:
    """A sentencepiece model file; the same captions give the same bytes.

    Args:
      captions: training captions; lower-cased here, as the text profile does, and
        counted once each.
      pieces: size of the vocabulary.

    Raises:
      ValueError: if the captions do not hold that many pieces.
    """
    sentences = sorted({text.lower() for text in captions})
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=written,
            # Unlike "unigram" it keeps the most frequent words, such as "skin", whole.
            model_type="bpe",
            vocab_size=pieces,
            character_coverage=1.0,
            byte_fallback=True,
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNK,
            bos_id=-1,
            num_threads=1,
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"no vocabulary of {pieces} pieces comes from {len(sentences)} captions: {error}"
        ) from error
    return written.getvalue()
