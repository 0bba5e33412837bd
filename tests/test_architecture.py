"""What each module is for and what it may import: the architecture document, kept true.

Dependencies go down this list and never up:

    messages
    run_folder (of a run or a job)
    config, checkpoints, errors
    weights (files <-> tensors), preprocessing, models
    programs (the compiled functions of the towers)
    data (images and texts from files, one at a time or as training batches)
    calibration (from logits to probabilities)
    explain (what in an image moved a score; asked by the scorer)
    scoring
    converters (files of any system; numpy only, never a model)
    fetch (from a name to files), model_files (open, once)
    pretrained (puts them together)
    evaluation
    training
    batch (embedding and scoring inside engines that run over tables)
    jobs (bulk embedding and scoring), search (over what they wrote)
    serve (over HTTP)
    plan (compiled for other devices), bench (run on these)
    suites (evaluation on many data sets, by jobs)
    verify (published numbers, live libraries), doctor (wrong settings of other pipelines)
    cli

A new module needs a row here. `jax=True` says that importing the module imports jax;
everything else must be importable without it, so that `--help` is quick and tables,
preprocessing and conversions work where there is no accelerator stack at all.
"""

import ast
import fnmatch
import functools
import graphlib
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).parents[1]
# Where the packages lie; setuptools is told the same in pyproject.toml.
ROOTS = {"siglip_jax": REPO / "siglip_jax", "siglip_jax.converters": REPO / "converters"}


class Row(NamedTuple):
    """`imports`: modules or packages of this project, beside those of the own package."""

    purpose: str
    imports: str = ""
    jax: bool = False
    torch: bool = False  # may use the other libraries, when it is asked to and they are there


# fmt: off
MODULES = {
    "siglip_jax": Row("the public names, nothing else", "checkpoints config"),
    "config": Row("architecture of a model, and how to execute it, as dataclasses"),
    "checkpoints": Row("the table of released checkpoints, lookup by any name", "config"),
    "fine_tunes": Row("the table of well-known fine-tunes, lookup by any name",
                      "checkpoints config"),
    "classifier": Row("the last layer of a fine-tune that tells classes apart"),
    "allocator": Row("glibc's malloc, told to keep what is freed"),
    "activity": Row("what the process is busy with, for a command to show"),
    "recent_rate": Row("items a second of the last seconds, and how long the rest takes"),
    "messages": Row("suggestions, near files, one-line reasons, what to install"),
    "json_text": Row("JSON that others wrote, parsed within bounds"),
    "helper": Row("processes that do a part of the work, kept for the next part"),
    "shared_slot": Row("memory that two processes see, which ends with them"),
    "regular_file": Row("a file that may be anything, read within bounds"),
    "private_folder": Row("folders and files that only their user can have written"),
    "stop": Row("told to stop once, what is in hand is finished; twice, at once"),
    "run_folder": Row("which run or job a folder belongs to, and which process writes to it"),
    "errors": Row("an error about a model, in parts that each caller words"),
    "fetch": Row("from a name to files on this machine; downloads",
                 "checkpoints download fine_tunes weights.big_vision"),
    "download": Row("one file by https: resumed, checked, whole or not at all"),
    "model_files": Row("the files of a model, opened once by whatever name",
                       "config converters errors fetch"),
    "pretrained": Row("load and save: a model with all its scores depend on",
                      "checkpoints classifier config converters errors fetch model_files models "
                      "preprocessing programs scoring weights", jax=True),

    "weights": Row("empty, so that its modules are imported one by one"),
    "weights.reader": Row("what an open checkpoint offers; which entries are parameters"),
    "weights.bounds": Row("what a file of weights may claim"),
    "weights.zarr_chunks": Row("headers and chunks of zarr, before tensorstore is given them"),
    "weights.staging": Row("outputs that appear whole or not at all"),
    "weights.npz": Row("big_vision's .npz files, a tensor at a time"),
    "weights.tensorstore_folder": Row("big_vision's tensorstore folders, a tensor at a time"),
    "weights.big_vision": Row("opens either, or a part of it"),
    "weights.layout": Row("names, shapes and dtypes of every parameter of a model", "config"),
    "weights.architecture": Row("the model that a checkpoint's shapes state",
                                "checkpoints config errors"),
    "weights.digest": Row("which weights these are, in any file format"),
    "weights.int8": Row("which weights may be one byte, and their scales"),
    "weights.routes": Row("which stored tensors make which parameter; strict", "config"),
    "weights.posemb": Row("position embeddings for another resolution"),
    "weights.load": Row("from a checkpoint onto devices", "config", jax=True),
    "weights.tree": Row("trees of parameters, nested or with names joined by '/'"),
    "weights.save": Row("from devices into a checkpoint", jax=True),

    "preprocessing": Row("the names to import"),
    "preprocessing.profiles": Row("what changes scores before the model", "checkpoints config"),
    "preprocessing.image_settings": Row("an image profile in other systems' words"),
    "preprocessing.decode": Row("files to uint8 RGB pixels"),
    "preprocessing.decode_process": Row("processes that decode, ended if it takes too long",
                                        "helper"),
    "preprocessing.decode_server": Row("such a process, which answers one file after another"),
    "preprocessing.example": Row("what a model takes of one image, and where its arrays lie"),
    "preprocessing.pixels": Row("decoded pixels, from any of their modes to RGB"),
    "preprocessing.picture_cost": Row("which images may be decoded in a thread"),
    "preprocessing.signatures": Row("images by their first bytes; what else reads some"),
    "preprocessing.resize": Row("tf.image.resize in numpy"),
    "preprocessing.torch_resize": Row("torchvision's resizes of uint8"),
    "preprocessing.images": Row("pixels to what a fixed-resolution model takes"),
    "preprocessing.naflex": Row("pixels to NaFlex's sequence of patches"),
    "preprocessing.text": Row("strings to token ids", "checkpoints"),
    "preprocessing.regex_bounds": Row("expressions of a tokenizer.json that match in time"),
    "preprocessing.tokenizer_json": Row("tokenizer.json in place of a sentencepiece model"),
    "preprocessing.device_resize": Row("the same resize on a device", jax=True),

    "models": Row("the names to import", jax=True),
    "models.attention": Row("one function, several implementations", "config", jax=True),
    "models.activations": Row("where activations lie on a mesh", jax=True),
    "models.layers": Row("dense layers and embeddings, of int8 weights too", jax=True),
    "models.stacked_weights": Row("a scan that converts weights a layer at a time",
                                  "weights.tree", jax=True),
    "models.transformer": Row("the block that all towers share", "config", jax=True),
    "models.trained": Row("parameters that are trained are float32", "weights.tree", jax=True),
    "models.vision": Row("image tower of a fixed resolution", "config preprocessing", jax=True),
    "models.naflex": Row("image tower for any aspect ratio", "config preprocessing", jax=True),
    "models.text": Row("text tower", "config", jax=True),
    "models.inputs": Row("inputs that a model refuses at trace", "config preprocessing", jax=True),
    "models.two_towers": Row("both towers, temperature and bias", "config preprocessing", jax=True),

    "programs": Row("the names to import"),
    "programs.sharding": Row("meshes, and rules that shard weights over them", jax=True),
    "programs.towers": Row("the compiled functions, without weights",
                           "config models preprocessing weights.layout", jax=True),
    "programs.classes": Row("the image tower with a classifier on it",
                            "classifier models preprocessing", jax=True),
    "programs.function": Row("a compiled function that is run a few times only",
                             jax=True),
    "programs.several_threads": Row("programs that run while other threads use the same GPU",
                                    jax=True),
    "programs.cache": Row("executables in files, for a start without tracing",
                          "config preprocessing.profiles private_folder weights.layout "
                          "weights.staging"),
    "programs.compile_times": Row("what is being compiled, and how long it took last time",
                                  "weights.staging"),
    "programs.executable_file": Row("one executable in a file: a digest and plain fields"),
    "programs.memory": Row("what devices say of their memory"),
    "programs.tasks": Row("the tasks of a model, and the inputs of each", "models preprocessing",
                          jax=True),
    "programs.exported": Row("StableHLO in a file, for a start without tracing on any machine",
                             "config models preprocessing weights.bounds weights.staging",
                             jax=True),

    "calibration": Row("the names to import"),
    "calibration.identity": Row("which model, prepared how, logits are of",
                                "preprocessing.profiles weights.digest weights.save"),
    "calibration.calibration": Row("from logits to probabilities, and what it is for"),
    "calibration.calibration_file": Row("a calibration as a small JSON file", "weights.staging"),
    "calibration.evidence": Row("scores, and which labels are right, as a fit can use them"),
    "calibration.fits": Row("scales, biases and curves that fit them"),
    "calibration.thresholds": Row("from when on a label is accepted, with bounds"),
    "calibration.fitting": Row("from scores to a calibration, by method"),
    "calibration.quality": Row("log-loss, calibration error, AUC"),
    "calibration.report": Row("how good probabilities are, before and after"),
    "calibration.figures": Row("reliability, precision and recall, drawn", "weights.staging"),

    "explain": Row("the names to import"),
    "explain.explanation": Row("maps over the patches of an image, for each label", "scoring"),
    "explain.grid": Row("where the patches of one image lie", "config preprocessing"),
    "explain.head": Row("the MAP head as a function of its attention", "config models", jax=True),
    "explain.explainer": Row("the compiled functions: where a model looks, what moved a score",
                             "models preprocessing programs", jax=True),
    "explain.explaining": Row("from an image and labels to an explanation",
                              "preprocessing scoring", jax=True),
    "explain.deletion_curve": Row("how a score falls while patches are taken away",
                                  "preprocessing scoring"),
    "explain.drawing": Row("an explanation as .png or .html", "weights.staging"),

    "scoring": Row("the names to import", jax=True),
    "scoring.scores": Row("logits, probabilities, ranking", "calibration classifier"),
    "scoring.summary": Row("what a printed model says", "config"),
    "scoring.prompts": Row("templates and their average"),
    "scoring.batches": Row("batches of one fixed shape", jax=True),
    "scoring.budget": Row("memory that threads share"),
    "scoring.meter": Row("how fast a pipeline runs, and what it waits for"),
    "scoring.rows": Row("what items become: prepared, embedded, or in error"),
    "scoring.preparation": Row("from an item to what the towers take, in bounded memory",
                               "config data.failures data.item data.stamps models preprocessing",
                               jax=True),
    "scoring.preparing": Row("processes that prepare images, several in a request",
                             "config data.item helper preprocessing shared_slot"),
    "scoring.preparing_server": Row("such a process, which answers one request after another",
                                    "allocator data.item shared_slot", jax=True),
    "scoring.ready": Row("arrays that cannot be ready for a model, refused",
                         "models preprocessing", jax=True),
    "scoring.reading": Row("items read in a thread and prepared in a pool, in order"),
    "scoring.pipeline": Row("from items to rows of embeddings; the one road",
                            "programs", jax=True),
    "scoring.scorer": Row("images and labels in, scores out",
                          "classifier config data.item explain models preprocessing programs",
                          jax=True),

    "data": Row("the names to import"),
    "data.item": Row("what a dataset gives: items in shards, pairs by index"),
    "data.columns": Row("endings, columns and keys, once for all formats"),
    "data.failures": Row("what can go wrong between here and a bucket"),
    "data.remote": Row("files in buckets, through fsspec"),
    "data.storage": Row("files here and in buckets: found, listed, read"),
    "data.stamps": Row("what tells two contents of one name apart"),
    "data.specs": Row("what the words of a command stand for: files, each of a kind",
                      "preprocessing.signatures"),
    "data.*": Row("the formats, a file each; training batches of pairs",
                  "checkpoints config errors preprocessing weights.staging"),

    "evaluation": Row("the names to import", jax=True),
    "evaluation.imagenet": Row("ImageNet's class names and the subsets of -A and -R"),
    "evaluation.labels": Row("from what is said of images to indices of classes"),
    "evaluation.labelled": Row("embeddings with a class each, to learn from and to test with",
                               jax=True),
    "evaluation.precision": Row("mean average precision of images of several classes",
                                "programs scoring", jax=True),
    "evaluation.languages": Row("recall in each language, and their mean", jax=True),
    "evaluation.choices": Row("which of several captions belongs to an image"),
    "evaluation.probes": Row("linear and nearest-neighbour probes of frozen embeddings", jax=True),
    "evaluation.few_shot": Row("the closed-form probe of the papers' 10-shot column", jax=True),
    "evaluation.task": Row("what a task is, and running one", "data scoring", jax=True),
    "evaluation.*_tasks": Row("tasks: made of captions, run on embeddings", "scoring", jax=True),
    "evaluation.figures": Row("confusion and similarity matrices, the worst errors, drawn",
                              "search.sheet", jax=True),
    "evaluation.*": Row("recall and zero-shot accuracy",
                        "config models preprocessing programs scoring", jax=True),

    "training": Row("the names to import", jax=True),
    "training.loss": Row("the sigmoid loss, and the softmax loss beside it", "models", jax=True),
    "training.ring": Row("the sigmoid loss of a batch that no device holds", "models", jax=True),
    "training.recipe": Row("everything that decides how a run ends, as dataclasses",
                           "checkpoints config data preprocessing"),
    "training.recipe_file": Row("recipes from TOML, strictly"),
    "training.optimizer": Row("optax, with big_vision's treatment by name", jax=True),
    "training.step": Row("state and batch in, state and numbers out",
                         "models preprocessing.profiles programs", jax=True),
    "training.start": Row("the model a run begins with",
                          "checkpoints config data fetch model_files models preprocessing "
                          "pretrained programs weights.layout", jax=True),
    "training.lora": Row("low-rank additions, trained in the place of weights",
                         "config converters.adapters programs weights", jax=True),
    "training.*": Row("the loop, its folder, what it keeps and tells",
                      "config data evaluation models preprocessing pretrained "
                      "programs run_folder scoring stop weights", jax=True),

    "jobs": Row("the names to import"),
    "jobs.engine": Row("what a job is run by in the place of this process, as it is named",
                       "data.failures"),
    "jobs.*": Row("bulk embedding and scoring that survives being killed",
                  "batch.worker_model calibration classifier config data evaluation model_files "
                  "models preprocessing pretrained programs run_folder scoring stop weights",
                  jax=True),

    "search": Row("the names to import", jax=True),
    "search.*": Row("finished embeddings: reading, exact nearest rows, sheets of them",
                    "config data jobs preprocessing programs scoring weights.staging", jax=True),

    "batch": Row("the names to import"),
    "batch.columns": Row("batches of columns, as engines give and take them", "data.columns"),
    "batch.items": Row("from the values of a column to items", "data.fetch data.item"),
    "batch.worker_model": Row("a model that is loaded where work is done, once a process",
                              "data.failures fetch pretrained programs scoring"),
    "batch.embedders": Row("embeddings of a column of images or texts", "data.columns scoring"),
    "batch.label_scorer": Row("scores of a column of images with labels",
                              "classifier data.columns scoring"),
    "batch.beam": Row("the callables as a model of Beam's RunInference"),

    "serve": Row("the names to import", jax=True),
    "serve.errors": Row("what a client is told when a request is refused"),
    "serve.limits": Row("what a service takes: of one request, and of all that it holds"),
    "serve.metrics": Row("what a service counts, for Prometheus"),
    "serve.admission": Row("what a service holds at a time, bounded"),
    "serve.addresses": Row("which IP addresses are of the public internet"),
    "serve.remote": Row("images by URL, of named hosts only"),
    "serve.log": Row("a line of JSON for each request, and its id"),
    "serve.connection": Row("a connection of a client, bounded", jax=True),
    "serve.server": Row("an application under uvicorn, until it is told to stop",
                        "stop weights.staging", jax=True),
    "serve.keys": Row("API keys, and that whoever asks has one"),
    "serve.together": Row("coroutines awaited together"),
    "serve.images": Row("what stands for an image in a request"),
    "serve.label_sets": Row("embeddings of labels, made once for all requests"),
    "serve.batcher": Row("examples of many requests, embedded together", "scoring", jax=True),
    "serve.served_model": Row("a model that answers many requests at a time",
                              "calibration checkpoints config data.item preprocessing "
                              "pretrained scoring", jax=True),
    "serve.index": Row("embeddings that a service searches, and thumbnails of what it finds",
                       "config data jobs.bucket jobs.space pretrained search", jax=True),
    "serve.service": Row("models, admission, metrics; no word of HTTP",
                         "calibration pretrained", jax=True),
    "serve.operation": Row("the table that routes, documents and tests come from", jax=True),
    "serve.openapi": Row("the OpenAPI document of that table", jax=True),
    "serve.body": Row("the body of a request: bounded, strict"),
    "serve.answering": Row("from a request to an answer: deadline, errors", jax=True),
    "serve.app": Row("the service as an ASGI application", "calibration pretrained", jax=True),
    "serve.tensors": Row("tensors of the open inference protocol, in JSON and behind it"),
    "serve.ray": Row("replicas under Ray Serve", "pretrained", jax=True),
    "serve.endpoints": Row("one file a family of paths"),
    "serve.endpoints.page": Row("the web page", "fetch serve", jax=True),
    "serve.endpoints.search": Row("search in the service's index", "scoring search serve",
                                  jax=True),
    "serve.endpoints.*": Row("paths of the service", "calibration config scoring serve", jax=True),

    "plan": Row("the names to import", jax=True),
    "plan.kept": Row("what a compiler said of a program, in a file",
                     "programs.compile_times weights.staging", jax=True),
    "plan.published": Row("training runs whose days a paper states"),
    "plan.measured": Row("rates that were measured, for what was not"),
    "plan.hosts": Row("cores and network of the hosts of chips"),
    "plan.duration": Row("days of all steps of a recipe"),
    "plan.bulk": Row("hours of a bulk job, and what bounds it"),
    "plan.shard_costs": Row("what the shards of a job cost, of images of all sizes"),
    "plan.simulation": Row("a bulk job on many hosts, simulated"),
    "plan.*": Row("ahead-of-time compilation for topologies, and what programs need",
                  "checkpoints config models preprocessing programs training weights", jax=True),

    "bench": Row("the names to import", jax=True),
    "bench.*": Row("how fast a model runs on the devices of this machine",
                   "checkpoints config models plan preprocessing pretrained programs weights",
                   jax=True),

    "verify": Row("the names to import"),
    "verify.inputs": Row("bundled images and texts", "weights.staging"),
    "verify.circles": Row("transformers' NaFlex test, drawn"),
    "verify.notebooks": Row("numbers that big_vision's notebooks printed"),
    "verify.published_logits": Row("published logits and what they need",
                            "checkpoints preprocessing.profiles"),
    "verify.checks": Row("of a model, without published numbers",
                         "preprocessing pretrained programs scoring weights", jax=True),
    "verify.report": Row("published numbers beside ours",
                         "checkpoints preprocessing pretrained programs scoring", jax=True),
    "verify.library_comparison": Row("what was written, run in the library it is for, beside ours",
                       "converters"),
    # These two run models, when called.
    "verify.own_outputs": Row("what siglip_jax computes for bundled inputs",
                              "config converters doctor.wrong_towers models preprocessing "
                              "programs.classes weights.load"),
    "verify.library_processing": Row("what a folder's own processor makes of bundled inputs",
                                     "config", torch=True),
    "verify.live_library": Row("what the library that a folder is for computes",
                               "config converters",
                               torch=True),

    "doctor": Row("the names to import"),
    "doctor.settings": Row("what a pipeline can set wrong", "checkpoints config preprocessing"),
    "doctor.interpolation": Row("position embeddings, each system's way", "weights.posemb"),
    "doctor.wrong_inputs": Row("what a tower is fed then", "config preprocessing"),
    "doctor.wrong_towers": Row("towers run the wrong way",
                               "config models preprocessing scoring.batches", jax=True),
    "doctor.rounding": Row("how far a right pipeline in another precision is off",
                           "models weights.int8", jax=True),
    "doctor.search": Row("which setting is wrong, and how much it matters",
                         "config models preprocessing scoring verify", jax=True),
    "doctor.embeddings_file": Row("another pipeline's embeddings",
                                  "config verify.inputs weights.bounds"),

    "suites": Row("the names to import", jax=True),
    "suites.task": Row("what a suite is: tasks as declared data"),
    "suites.catalogue": Row("the suites and their tasks"),
    "suites.published_values": Row("published values, and where each is from", "checkpoints"),
    "suites.task_data": Row("images for a job, and what is right for each", "data"),
    "suites.synsets": Row("names for classes by numbers of WordNet", "evaluation", jax=True),
    "suites.layouts": Row("the folders that people have for a task", "data", jax=True),
    "suites.offline": Row("data that need no network", "data"),
    "suites.measures": Row("metrics in CLIP_benchmark's names", "evaluation", jax=True),
    "suites.result": Row("what came of a task, in a file", "jobs.durable", jax=True),
    "suites.measurement": Row("a task, measured: embeddings by jobs, then metrics",
                              "data evaluation jobs pretrained scoring search", jax=True),
    "suites.run": Row("a suite, run: its folder, its tasks, what is missing",
                      "evaluation jobs pretrained run_folder", jax=True),
    "suites.comparison": Row("ours beside what is published, as rows", jax=True),
    "suites.figures": Row("the same as a figure", "weights.staging", jax=True),

    "cli": Row("empty"),
    "__main__": Row("python -m siglip_jax", "cli.main"),
    "cli.main": Row("the command, its errors and exit codes",
                    "data.failures errors fetch private_folder cli"),
    "cli.distributed": Row("several processes as one command: joined, watched, ended together",
                           "cli"),
    "cli.ending": Row("Ctrl-C once and twice, and threads that outlive a command",
                      "stop weights.staging"),
    "cli.completion": Row("scripts by which a shell completes the command",
                          "checkpoints fetch"),
    "cli.advice": Row("what an error about a model asks for, in options", "errors"),
    "cli.description": Row("a checkpoint's facts as plain JSON types",
                           "checkpoints config fine_tunes"),
    "cli.commands": Row("one file a subcommand, named as it is typed"),
    "cli.commands.list": Row("siglip-jax list", "checkpoints fine_tunes cli"),
    "cli.commands.show": Row("siglip-jax show", "errors fetch fine_tunes weights.layout cli"),
    "cli.commands.fetch": Row("siglip-jax fetch", "converters fetch cli"),
    "cli.commands.score": Row("siglip-jax score",
                              "calibration classifier data jobs programs scoring cli"),
    "cli.options": Row("options that several commands share"),
    "cli.options.labels": Row("options of commands that score images against labels"),
    "cli.options.former": Row("former spellings of options"),
    "cli.options.data": Row("options of all commands that read datasets", "cli"),
    "cli.options.job": Row("options of bulk jobs, and how a job is run and told of", "jobs cli"),
    "cli.options.checkpoint": Row("a checkpoint of any format, opened",
                                  "config converters fetch model_files cli"),
    "cli.options.calibration": Row("--calibration and --threshold, of score and search",
                                   "calibration"),
    "cli.options.program": Row("--program, of score and embed", "programs cli"),
    "cli.commands.embed": Row("siglip-jax embed",
                              "config data jobs programs scoring weights.staging cli"),
    "cli.commands.search": Row("siglip-jax search",
                               "calibration data.specs errors jobs search programs scoring cli"),
    "cli.commands.serve": Row("siglip-jax serve", "calibration serve cli"),
    "cli.commands.check": Row("siglip-jax check", "jobs cli"),
    "cli.plan_items": Row("plan --items: a bulk job of so many images", "config plan cli"),
    "cli.plan_output": Row("plans in words", "plan cli"),
    "cli.commands.plan": Row("siglip-jax plan", "config plan programs cli"),
    "cli.commands.bench": Row("siglip-jax bench",
                              "allocator bench config models programs cli"),
    "cli.commands.demo": Row("siglip-jax demo", "fetch pretrained programs scoring cli"),
    "cli.commands.explain": Row("siglip-jax explain", "data explain cli"),
    "cli.commands.train": Row("siglip-jax train", "training cli"),
    "cli.commands.evaluate": Row("siglip-jax evaluate", "data evaluation programs scoring cli"),
    "cli.options.task": Row("options of tasks, and the task that they ask for",
                            "data evaluation scoring cli"),
    "cli.evaluation_output": Row("what a task found, in words"),
    "cli.options.suite": Row("options of evaluate --suite, and how it is run and told of",
                             "suites cli"),
    "cli.options.model": Row("options of all commands that run a model; loads it",
                             "allocator checkpoints config fetch programs preprocessing "
                             "pretrained scoring cli"),
    "cli.commands.calibrate": Row("siglip-jax calibrate", "calibration data scoring cli"),
    "cli.calibration_output": Row("how good probabilities are, in a table", "calibration"),
    "cli.image_files": Row("files, folders, patterns, a list on stdin",
                           "data.specs data.text_list"),
    "cli.embedding": Row("images and texts to embeddings, bad ones reported", "data.item scoring",
                         jax=True),
    "cli.progress": Row("a spinner on stderr for a person, lines for a log"),
    "cli.commands.verify": Row("siglip-jax verify", "verify cli"),
    "cli.commands.doctor": Row("siglip-jax doctor", "config doctor verify cli"),
    "cli.conversion_output": Row("the plan and the certificate of a conversion", "converters"),
    "cli.doctor_output": Row("what the doctor found, in words", "doctor verify"),
    "cli.search_queries": Row("which words are texts or images, and which make one search",
                              "calibration data.specs search"),
    "cli.search_output": Row("hits of queries and groups of near-duplicates, in words and on "
                             "sheets", "calibration scoring search"),
    "cli.output": Row("aligned columns of text, JSON, and what a terminal may be given"),
    "cli.commands.*": Row("siglip-jax convert, diff",
                          "checkpoints config converters errors fetch verify weights cli"),
    "cli.*": Row("options and output that several commands share",
                 "checkpoints config converters fetch model_files pretrained programs scoring "
                 "weights"),

    "converters": Row("the names to import"),
    # One row each once their number has settled.
    "converters.*": Row("other systems' files and ours, by tables of rules",
                        "checkpoints classifier config errors weights "
                        "preprocessing.image_settings preprocessing.profiles preprocessing.text "
                        "preprocessing.tokenizer_json"),
}
# fmt: on
# What every module may import: these import nothing of this project but each other.
ANYWHERE = ("activity", "json_text", "messages", "recent_rate", "regular_file", "weights.tree")
FRAMEWORKS = {"jax", "jaxlib", "flax", "jaxtyping"}
NEVER = {"torch", "torchvision", "tensorflow", "tensorflow_text", "transformers", "big_vision"}


class Import(NamedTuple):
    name: str
    line: int
    lazy: bool


def short(name):
    return name.removeprefix("siglip_jax.")


@functools.cache
def files():
    """Full module name to file."""
    found = {}
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


@functools.cache
def imports(module):
    """All imports of a module but those for type checkers only, with full names."""
    path = files()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []

    def add(name, node, lazy):
        found.append(Import(name, node.lineno, lazy))

    def visit(node, lazy):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, node, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                add(whole if whole in files() else base, node, lazy)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(ast.parse(path.read_text("utf-8")), False)
    return tuple(found)


def row(module):
    name = short(module)
    if name in MODULES:
        return MODULES[name]
    return next((r for p, r in MODULES.items() if "*" in p and fnmatch.fnmatch(name, p)), None)


def inside(name, allowed):
    return any(name == a or name.startswith(f"{a}.") for a in allowed)


def at_import(module):
    """Every module of ours that importing `module` imports, and which of those wants jax."""
    seen, jax = set(), {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        # `import a.b` runs a/__init__.py first.
        waiting += [p for p in files() if name.startswith(f"{p}.")]
        for found in imports(name):
            if found.lazy:
                continue
            if found.name.split(".")[0] in FRAMEWORKS:
                jax[name] = found
            if found.name in files():
                waiting.append(found.name)
    return jax


def test_every_module_has_a_row_and_every_row_a_module():
    names = [short(module) for module in files()]
    assert [name for name in names if row(name) is None] == []
    assert [name for name in MODULES if "*" not in name and name not in names] == []
    banned = {"utils", "util", "common", "helpers", "misc"}
    assert [name for name in names if name.rpartition(".")[2] in banned] == []


@pytest.mark.parametrize("module", files(), ids=short)
def test_a_module_imports_what_its_row_allows(module):
    own = module.rpartition(".")[0] if files()[module].name != "__init__.py" else module
    allowed = [*row(module).imports.split(), *ANYWHERE]
    wrong = []
    for found in imports(module):
        ours = found.name in files() and found.name != "siglip_jax"
        mine = own != "siglip_jax" and inside(found.name, [own])
        if ours and not mine and not inside(short(found.name), allowed):
            wrong.append(f"line {found.line}: {short(found.name)}")
        if found.name.split(".")[0] in NEVER and not (row(module).torch and found.lazy):
            wrong.append(f"line {found.line}: {found.name}, which no one needs at run time")
    assert wrong == [], f"{short(module)} may import {allowed}"


@pytest.mark.parametrize("module", files(), ids=short)
def test_jax_is_imported_only_where_the_table_says(module):
    # scoring/__init__.py names what needs jax, so that its jax-free modules bring it too.
    parents = {p for p in files() if module.startswith(f"{p}.")}
    reasons = {name: f for name, f in at_import(module).items() if not row(module).jax}
    if any(row(parent).jax for parent in parents):
        reasons = {name: f for name, f in reasons.items() if name == module}
    assert reasons == {}, f"{short(module)} must be importable without jax"


@pytest.mark.parametrize("package", sorted({name.rpartition(".")[0] for name in files()} - {""}))
def test_no_name_of_a_package_hides_one_of_its_modules(package):
    names = {found.rpartition(".")[2] for found in files() if found.rpartition(".")[0] == package}
    tree = ast.parse(files()[package].read_text("utf-8"))
    bound = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" not in files()
    }
    bound |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert bound & names == set()


def test_there_is_no_circle():
    graph = {
        module: {f.name for f in imports(module) if f.name in files() and not f.lazy}
        # A package names its modules; a module that asks its package for another is no circle.
        - {module.rpartition(".")[0], "siglip_jax"}
        for module in files()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_the_packages_are_those_that_setuptools_is_told():
    import tomllib

    told = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {name for name, path in files().items() if path.name == "__init__.py"}
    assert packages == set(told)


def test_types_are_shipped():
    import tomllib

    # Without it, checkers take the installed package for one without annotations.
    assert (ROOTS["siglip_jax"] / "py.typed").is_file()
    told = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in told["package-data"]["siglip_jax"]
