"""What a suite is: tasks as declared data, and nothing that runs."""

import dataclasses
from typing import Literal

Kind = Literal["zeroshot", "multilabel", "retrieval", "multilingual", "association"]
# Of recalls: images for a text first, as CLIP_benchmark calls them.
RECALLS = ("image_retrieval_recall@1", "text_retrieval_recall@1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One data set, and what is measured on it.

    Attributes:
      name: as CLIP_benchmark has it, without `vtab/`.
      title: for a table, as open_clip's results have it.
      kind: "zeroshot": one class an image; "multilabel": any number of them; "retrieval";
        "multilingual": retrieval in every language; "association": choose k of n images, which
        is not measured here.
      metric: the main one, a key of its result.
      classes: how many there must be; None where that is not given.
      path: the whole name on the hubs, such as `vtab/pets`.
      folders: further names of its folder.
      group: column of the .npy beside an image that holds its group, for the worst of these.
      paper: names of the values of `siglip_jax.checkpoints.Accuracy`, of the metrics that they
        are of.
      classes_of_paper: big_vision tells the same classes apart.
      tfds: what `tfds:` is followed by; the feature of the classes.
      source: what reads it, where it is no folder of the suite's data.
      install: what gets the data, if something does.
    """

    name: str
    title: str
    kind: Kind = "zeroshot"
    metric: str = "acc1"
    classes: int | None = None
    path: str = ""
    folders: tuple[str, ...] = ()
    group: int | None = None
    paper: tuple[tuple[str, str], ...] = ()
    classes_of_paper: bool = True
    tfds: tuple[str, str] | None = None
    source: Literal["", "stamps", "clipart", "digits", "emoji"] = ""
    install: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The main metric, and those that have a published value elsewhere."""
        named = [metric for metric, _ in self.paper]
        return tuple(dict.fromkeys((self.metric, *named)))

    def candidates(self) -> tuple[str, ...]:
        """Names that its folder may have, the likeliest first.

        >>> Task(name="pets", title="Pets", path="vtab/pets").candidates()
        ('wds_vtab-pets', 'wds_vtab-pets_test', 'vtab-pets', 'wds_pets', 'wds_pets_test', 'pets')
        """
        whole = (self.path or self.name).replace("/", "-")
        names = [whole, self.name, *self.folders]
        found = [form for name in names for form in (f"wds_{name}", f"wds_{name}_test", name)]
        return tuple(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks that are measured together.

    Attributes:
      name: as it is typed.
      about: in one line.
      tasks: in the order of the table.
      templates: of `siglip_jax.evaluation.TEMPLATES`, in place of those that lie with the data;
        as the paper has it, where the model is prepared as the paper's.
      crop: share of the side of an image that is kept, of images of classes, where the model is
        prepared as big_vision does.
      average: name of the published mean of all tasks' main metrics, if there is one.
    """

    name: str
    about: str
    tasks: tuple[Task, ...]
    templates: str | None = None
    crop: float = 1.0
    average: str | None = None

    def task(self, name: str) -> Task:
        """The task of this name."""
        return next(task for task in self.tasks if task.name == name)
