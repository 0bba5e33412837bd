"""Find what is wrong with another pipeline around a SigLIP model.

Without knobs: a table of how far each wrong knob that is known from other systems moves
the scores of this model, for bundled pictures and texts. With knobs: the same for them.

With --embeddings: which knob, or which two, explain a pipeline's embeddings of the bundled
inputs. --write-inputs writes these as PNG and text files; embed them one at a time, and
save arrays zimg, ztxt or both, rows in the order of the files and lines, as .npz. Knobs
given beside --embeddings are taken as known.

  siglip-jax doctor --model siglip_b16_224
  siglip-jax doctor --model siglip_b16_224 --padding longest --lower none
  siglip-jax doctor --write-inputs inputs/
  siglip-jax doctor --model siglip_b16_224 --embeddings theirs.npz
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.cli.diagnosis import plain, print_diagnosis, print_effects
from siglip_jax.cli.model_arguments import PROFILES, load_model, positive
from siglip_jax.cli.progress import Bar
from siglip_jax.reference.knobs import (
    CHOICES,
    Setting,
    apply,
    check,
    choose,
    differences,
    with_antialias,
)

if TYPE_CHECKING:
    from siglip_jax.reference.doctor import Doctor, Effect

NAME = "doctor"
HELP = "what is wrong with another pipeline"
USAGE = (
    "%(prog)s --model MODEL [knobs] [--embeddings FILE.npz...]\n"
    "       %(prog)s --write-inputs FOLDER"
)
_IMAGE = ("framing", "resize", "res", "normalisation", "posemb")
_TEXT = ("padding", "pad", "length", "eos", "lower", "punctuation", "mask", "pooling")
_HELP = {
    "res": "side of the input; NaFlex: number of patches",
    "pad": "id that fills texts up",
    "length": "tokens at which texts are cut, and to which they are padded",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", help="a checkpoint's name, a file, a folder")
    parser.add_argument("--vocabulary", metavar="FILE", help="sentencepiece file to use")
    parser.add_argument(
        "--profile", choices=PROFILES, default="big_vision", help="whose preprocessing is right"
    )
    parser.add_argument("--embeddings", nargs="+", metavar="FILE.npz", help="with zimg, ztxt")
    parser.add_argument("--write-inputs", metavar="FOLDER", help="write the bundled inputs there")
    parser.add_argument("--json", action="store_true", help="the result for programs")
    group = parser.add_argument_group("knobs of the pipeline")
    for knob in (*_IMAGE, *_TEXT):
        if knob in CHOICES:
            _add_choice(group, knob)
        else:
            kind = int if knob == "pad" else positive
            group.add_argument(
                f"--{knob}", dest=f"knob_{knob}", type=kind, metavar="N", help=_HELP[knob]
            )
    group.add_argument("--antialias", choices=("on", "off"), help="of a bilinear resize")
    for option in ("activation", "image-activation", "text-activation"):
        _add_choice(group, "activation", option)
    parser.set_defaults(res=None, dtype="float32", attention="auto", fsdp=False)


def _add_choice(group: Any, knob: str, option: str | None = None) -> None:
    def value(text: str) -> str:
        try:
            return choose(knob, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    option = option or knob
    group.add_argument(
        f"--{option}",
        dest=f"knob_{option.replace('-', '_')}",
        type=value,
        metavar="VALUE",
        help=", ".join(CHOICES[knob]),
    )


def run(args: argparse.Namespace) -> int:
    if args.write_inputs:
        from siglip_jax.reference.inputs import write

        write(Path(args.write_inputs).expanduser())
        return 0
    if not args.model:
        raise ValueError("give --model MODEL, or --write-inputs FOLDER")
    model = load_model(args, texts=True)

    import dataclasses

    from siglip_jax.reference.doctor import Doctor
    from siglip_jax.reference.embeddings_file import read_embeddings

    files = [Path(name).expanduser() for name in args.embeddings or ()]
    theirs = read_embeddings(files, model.config.embed_dim)

    doctor = Doctor(
        model.model,
        model.params,
        model.profile,
        lambda profile: dataclasses.replace(model, profile=profile).tokenizer(),
    )
    stated, named = _stated(args, doctor)
    diagnoses = []
    for tower, array in theirs.items():
        with Bar(f"trying knobs of the {tower} tower", unit="settings") as bar:
            found = doctor.diagnose(tower, array, stated.get(tower, ()), progress=bar.update)
        diagnoses.append(found)
    if diagnoses:
        known = ("explained", "partly")
        stated = {f.tower: f.best.setting for f in diagnoses if f.verdict in known}
    everything = not diagnoses and not named
    with Bar("measuring", unit="settings") as bar:
        effects = _effects(doctor, stated, everything=everything, progress=bar.update)
    if args.json:
        json.dump(plain(model.name, doctor, effects, diagnoses), sys.stdout, indent=1)
        print()
        return 0
    for found in diagnoses:
        print_diagnosis(found, doctor, model.name)
    if effects:
        print_effects(effects, doctor)
    elif named and not diagnoses:
        print("these knobs are all as they should be")
    return 0


def _stated(args: argparse.Namespace, doctor: "Doctor") -> tuple[dict[str, Setting], bool]:
    """The knobs given that are not as they should be, by tower; whether any was given."""
    given = {k.removeprefix("knob_"): v for k, v in vars(args).items() if k.startswith("knob_")}
    both = given.pop("activation")
    image: dict[str, Any] = {knob: given[knob] for knob in _IMAGE}
    text: dict[str, Any] = {knob: given[knob] for knob in _TEXT}
    image["activation"] = given["image_activation"] or both
    text["activation"] = given["text_activation"] or both
    if args.antialias:
        method = image["resize"] or doctor.right["image"].resize
        image["resize"] = with_antialias(method, args.antialias == "on")
    knobs, named = {}, False
    for tower, values in (("image", image), ("text", text)):
        chosen = tuple((knob, value) for knob, value in values.items() if value is not None)
        knobs[tower] = apply(doctor.right[tower], chosen)
        named = named or bool(chosen)
    check(knobs["image"], knobs["text"], doctor.config)
    stated = {tower: differences(k, doctor.right[tower]) for tower, k in knobs.items()}
    return {tower: setting for tower, setting in stated.items() if setting}, named


def _effects(
    doctor: "Doctor", stated: dict[str, Setting], *, everything: bool, progress: Any
) -> "list[Effect]":
    """Each stated knob alone and all together; if none is stated, every known wrong knob."""
    rows: list[dict[str, Setting]]
    if stated:
        rows = [{tower: (knob,)} for tower, setting in stated.items() for knob in setting]
        if len(rows) > 1:
            rows.append(stated)
    elif everything:
        rows = [{t: one} for t in doctor.right for one in doctor.settings(t)]
    else:
        rows = []
    effects = []
    for row in rows:
        effects.append(doctor.effect(row))
        progress(len(effects), len(rows))
    if not stated:
        effects.sort(key=lambda effect: (list(effect.settings), -effect.max_logit))
    return effects
