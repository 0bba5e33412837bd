"""From class names and templates to the texts that stand for each class.

Source: big_vision `evaluators/proj/image_text/prompt_engineering.py` and
`discriminative_classifier.py`, at 0127fb6.
"""

import re
import string
from collections.abc import Sequence
from typing import Literal

from siglip_jax.evaluation.templates import CLIP_PAPER
from siglip_jax.scoring.prompts import check_templates, expand

Aliases = Literal["first", "all", "none"]
# How ImageNet and TensorFlow Datasets call classes: by numbers of WordNet's nouns.
SYNSET = re.compile(r"n\d{8}")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonicalize(text: str, *, keep: str = "") -> str:
    """`text` in lower case, without ASCII punctuation, with single spaces.

    Args:
      keep: a string left in wherever it occurs whole, such as "{}".

    >>> canonicalize("A close-up photo of_a {}.", keep="{}")
    'a closeup photo of a {}'
    """
    text = text.replace("_", " ")
    parts = text.split(keep) if keep else [text]
    # str.lower, unlike the tokenizer's own: it knows all of Unicode.
    text = keep.join(part.translate(_NO_PUNCTUATION) for part in parts).lower()
    return re.sub(r"\s+", " ", text).strip()


def class_texts(
    names: Sequence[str],
    templates: Sequence[str] = CLIP_PAPER,
    *,
    canonical: bool = True,
    aliases: Aliases = "first",
) -> list[list[str]]:
    """Of each class the texts that stand for it.

    Args:
      names: one for each class; a comma separates several names of one class.
      templates: texts with `{}` for the name; see `evaluation.templates`.
      canonical: `canonicalize` names and templates, each for itself.
      aliases: "first" of a class's names is big_vision's default, "all" take part
        alike, "none": a comma is a comma.

    Raises:
      ValueError: if there is no name or no template, a template does not have `{}`
        once, nothing is left of a name, or the names are numbers of WordNet.

    >>> class_texts(["tench, Tinca tinca", "T-shirt"], ["A {}!"])
    [['a tench'], ['a tshirt']]
    """
    if isinstance(names, str) or not len(names):
        raise ValueError(f"expected a list of class names, got {names!r}")
    if all(map(SYNSET.fullmatch, names)):
        raise ValueError(
            f"classes are numbers of WordNet, such as {names[0]}, which no model knows; give their "
            "names in the same order, for ImageNet those of imagenet_classes()"
        )
    templates = check_templates(templates)
    if canonical:
        templates = tuple(canonicalize(template, keep="{}") for template in templates)
    return [expand(_spoken(name, canonical, aliases), templates) for name in names]


def _spoken(name: str, canonical: bool, aliases: Aliases) -> list[str]:
    comma = "" if aliases == "none" else ","
    text = canonicalize(name, keep=comma) if canonical else name
    # big_vision: a space behind the comma stays, and two spaces come into the sentence.
    found = text.split(comma) if comma else [text]
    found = found[:1] if aliases == "first" else found
    if not all(alias.strip() for alias in found):
        hint = "; it is punctuation only: keep names as written" if name.strip(" ,") else ""
        raise ValueError(f"nothing is left of the class name {name!r}{hint}")
    return found
