"""Find what is wrong with another pipeline around a SigLIP model.

Without settings: a table of how far each wrong setting that is known from other systems
moves the scores of this model, for bundled images and texts. With settings: the same for them.

With --embeddings: which setting, or which two, explain a pipeline's embeddings of the bundled
inputs. --write-inputs writes these as PNG and text files; embed them one at a time, and
save arrays zimg, ztxt or both, rows in the order of the files and lines, as .npz.
Settings given beside --embeddings are taken as known.

  siglip-jax doctor --model siglip_b16_224
  siglip-jax doctor --model siglip_b16_224 --padding longest --lower none
  siglip-jax doctor --write-inputs inputs/
  siglip-jax doctor --model siglip_b16_224 --embeddings theirs.npz
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip_jax.activity import activity
from siglip_jax.cli.doctor_output import plain, print_diagnosis, print_effects
from siglip_jax.cli.options.checkpoint import add_tower_arguments
from siglip_jax.cli.options.model import PROFILES, load_model, positive, profile_name
from siglip_jax.cli.output import add_json_argument, print_json
from siglip_jax.config import Tower
from siglip_jax.doctor.settings import (
    CHOICES,
    Changes,
    apply,
    check,
    choose,
    settings_apart,
    with_antialias,
)

if TYPE_CHECKING:
    from siglip_jax.doctor.search import Doctor, Effect

NAME = "doctor"
HELP = "find what is wrong with another pipeline"
USAGE = (
    "%(prog)s --model MODEL [settings] [--embeddings FILE.npz...]\n"
    "       %(prog)s --write-inputs FOLDER"
)
_IMAGE = ("framing", "resize", "res", "normalisation", "posemb")
_TEXT = ("padding", "pad", "length", "eos", "lower", "punctuation", "mask", "pooling")
_HELP = {
    "framing": "how an image is brought to the shape of the model",
    "resize": "method of the resize",
    "res": "side of the input; NaFlex: number of patches",
    "normalisation": "range or mean and deviation of the pixels",
    "posemb": "how the position embedding is resampled",
    "padding": "how texts are padded",
    "pad": "id that fills texts up",
    "length": "tokens at which texts are cut, and to which they are padded",
    "eos": "end-of-text id of texts that are cut",
    "lower": "lower-casing of texts",
    "punctuation": "punctuation of texts",
    "mask": "attention mask of the text tower",
    "pooling": "position that the text tower pools",
    "activation": "form of GELU",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", help="name, file or folder of a model")
    add_tower_arguments(parser)
    parser.add_argument("--vocabulary", metavar="FILE", help="sentencepiece file to use")
    parser.add_argument(
        "--profile",
        type=profile_name,
        metavar="NAME",
        help=f"preprocessing that is right: {', '.join(PROFILES)} (default: the model's own)",
    )
    parser.add_argument(
        "--embeddings",
        nargs="+",
        metavar="FILE.npz",
        help="files of another pipeline's embeddings, with zimg, ztxt or both",
    )
    parser.add_argument(
        "--write-inputs",
        metavar="FOLDER",
        help="write the bundled images and texts into this folder",
    )
    add_json_argument(parser)
    group = parser.add_argument_group("settings of the pipeline")
    for key in (*_IMAGE, *_TEXT):
        if key in CHOICES:
            _add_choice(group, key)
        else:
            kind = int if key == "pad" else positive
            group.add_argument(
                f"--{key}", dest=f"setting_{key}", type=kind, metavar="N", help=_HELP[key]
            )
    group.add_argument("--antialias", choices=("on", "off"), help="antialias of a bilinear resize")
    for option in ("activation", "image-activation", "text-activation"):
        _add_choice(group, "activation", option)
    parser.set_defaults(res=None, dtype="float32", attention="auto", fsdp=False)


def _add_choice(group: Any, key: str, option: str | None = None) -> None:
    def value(text: str) -> str:
        try:
            return choose(key, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    option = option or key
    group.add_argument(
        f"--{option}",
        dest=f"setting_{option.replace('-', '_')}",
        type=value,
        metavar="VALUE",
        help=f"{_HELP[key]}: {', '.join(CHOICES[key])}",
    )


def run(args: argparse.Namespace) -> int:
    if args.write_inputs:
        from siglip_jax.verify.inputs import write

        write(Path(args.write_inputs).expanduser())
        return 0
    if not args.model:
        raise ValueError("give --model MODEL, or --write-inputs FOLDER")
    model = load_model(args)

    import dataclasses

    from siglip_jax.doctor.embeddings_file import read_embeddings
    from siglip_jax.doctor.search import Doctor

    files = [Path(name).expanduser() for name in args.embeddings or ()]
    if not files:
        what = "effects on scores (without --embeddings)"
        model.config.needs("image", "text", what=what, name=model.name)
    theirs = read_embeddings(files, model.config.embed_dim)
    for tower in theirs:
        model.config.needs(tower, what=f"embeddings of {tower}s", name=model.name)

    doctor = Doctor(
        model.model,
        model.params,
        model.profile,
        lambda profile: dataclasses.replace(model, profile=profile).tokenizer(),
    )
    stated, named = _stated(args, doctor)
    diagnoses = []
    for tower, array in theirs.items():
        with activity(f"trying settings of the {tower} tower", unit="settings") as step:
            found = doctor.diagnose(tower, array, stated.get(tower, ()), progress=step.update)
        diagnoses.append(found)
    if diagnoses:
        known = ("explained", "rows", "partly")
        stated = {f.tower: f.best.setting for f in diagnoses if f.verdict in known}
    everything = not diagnoses and not named
    with activity("measuring", unit="settings") as step:
        # One tower alone has no scores that could move.
        effects = []
        if model.config.tower is None:
            effects = _effects(doctor, stated, everything=everything, progress=step.update)
    if args.json:
        print_json(plain(model.name, doctor, effects, diagnoses))
        return 0
    for found in diagnoses:
        print_diagnosis(found, doctor, model.name)
    if effects:
        print_effects(effects, doctor)
    elif named and not diagnoses:
        print("these settings are all as they should be")
    return 0


def _stated(args: argparse.Namespace, doctor: "Doctor") -> tuple[dict[str, Changes], bool]:
    """The settings given that are not as they should be, by tower; whether any was given."""
    given = {
        k.removeprefix("setting_"): v for k, v in vars(args).items() if k.startswith("setting_")
    }
    both = given.pop("activation")
    image: dict[str, Any] = {key: given[key] for key in _IMAGE}
    text: dict[str, Any] = {key: given[key] for key in _TEXT}
    towers: tuple[tuple[Tower, dict[str, Any]], ...] = (("image", image), ("text", text))
    for tower, values in towers:
        values["activation"] = given[f"{tower}_activation"] or (
            both if tower in doctor.right else None
        )
    if args.antialias:
        doctor.config.needs("image", what="--antialias", name=args.model)
        method = image["resize"] or doctor.right["image"].resize
        image["resize"] = with_antialias(method, args.antialias == "on")
    settings, named = {}, False
    for tower, values in towers:
        chosen = tuple((key, value) for key, value in values.items() if value is not None)
        if chosen:
            doctor.config.needs(tower, what=f"--{chosen[0][0]}", name=args.model)
        if tower in doctor.right:
            settings[tower] = apply(doctor.right[tower], chosen)
        named = named or bool(chosen)
    check(settings.get("image"), settings.get("text"), doctor.config)
    stated = {tower: settings_apart(k, doctor.right[tower]) for tower, k in settings.items()}
    return {tower: setting for tower, setting in stated.items() if setting}, named


def _effects(
    doctor: "Doctor", stated: dict[str, Changes], *, everything: bool, progress: Any
) -> "list[Effect]":
    """Each stated setting alone and all together; if none is stated, every known wrong setting."""
    rows: list[dict[str, Changes]]
    if stated:
        rows = [{tower: (key,)} for tower, setting in stated.items() for key in setting]
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
