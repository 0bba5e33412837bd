"""What an error about a model asks for, in the options of the command that met it."""

from collections.abc import Collection

from siglip_jax.errors import ModelError


def spoken(error: ModelError, options: Collection[str]) -> str:
    """The error in one line, with what to give as options.

    Args:
      options: those that the command has.

    >>> error = ModelError("x.npz is small", needs="res", advice="pass res=32", res=32, path="x")
    >>> spoken(error, ["--res"])
    'x.npz is small; give --res 32'
    >>> spoken(error, [])
    'x.npz is small; convert it first: siglip-jax convert x FOLDER --to siglip_jax --res 32'
    """
    values = error.values
    path = values.get("path", "FILE")
    first = f"convert it first: siglip-jax convert {path} FOLDER --to siglip_jax"
    res = f"--res {values.get('res')}"
    if "res_to" in values:
        res += f" (or up to {values['res_to']})"
    advice = {
        "config": "give --architecture of one like it"
        if "--architecture" in options
        else f"put that there, or {first} --architecture LIKE",
        "res": f"give {res}" if "--res" in options else f"{first} {res}",
        "pad": "give --pad 1 (as SigLIP does) or 0 (as SigLIP 2 does)"
        if "--pad" in options
        else f"{first} --pad 1 (as SigLIP does) or 0 (as SigLIP 2 does)",
        "profile": f"{first} --pad 1 (as SigLIP does) or 0 (as SigLIP 2 does)",
        "preprocessing": "give --profile big_vision, transformers or open_clip"
        if "--profile" in options
        else f"{first} --pad 1 (as SigLIP does) or 0 (as SigLIP 2 does)",
        "vocabulary": "give --vocabulary, a sentencepiece file"
        if "--vocabulary" in options
        else f"{first} --vocabulary FILE",
        "force": "choose another name, or --force to replace it",
        "classifier": "give --no-classifier to convert the tower without it",
        "base": "give the model that it is of as --base"
        if "--base" in options
        else f"{first} --base MODEL",
        "adapter": "leave out --base",
        "loop": "leave out --scan, which is for formats with big_vision's names",
    }
    return f"{error.fact}; {advice[error.needs]}"


def out_of_memory(options: Collection[str]) -> str:
    """One line that says which of the options of the command make less of it.

    >>> out_of_memory(["--batch-size", "--fsdp"])
    'out of memory; try a smaller --batch-size, or --fsdp with several devices'
    >>> out_of_memory(["--json"])
    'out of memory; close what else runs on this machine, or take one with more'
    """
    advice = {
        "--batch-size": "a smaller --batch-size",
        "--set": "--set accumulate=2 (or more), or a smaller batch",
        "--weights": "--weights bfloat16",
        "--fsdp": "--fsdp with several devices",
    }
    there = [text for option, text in advice.items() if option in options]
    if "--batch-size" in options and "--set" in options:  # `plan` has a batch of its own
        there.remove(advice["--set"])
    if not there:
        return "out of memory; close what else runs on this machine, or take one with more"
    some = ", ".join(there[:-1])
    return f"out of memory; try {f'{some}, or ' if some else ''}{there[-1]}"
