"""What a kind of model answers for itself.

A task is one object, which all that depends on the kind of a model asks:
recipes, the zoo, exports, evaluation, the command line and the cards. Nothing
else of this package is imported before an answer needs it, so that all of them
can import the tasks.
"""

import abc
import pkgutil

# What an export that takes pictures calls them: files, or pixels.
PICTURES = ({"image_bytes"}, {"images"})


class lazy:
    """An attribute of a class that is imported when it is asked for.

    Args:
        place: "module:attribute".
    """

    def __init__(self, place):
        self.place = place

    def __get__(self, task, kind):
        return pkgutil.resolve_name(self.place)


class Task(abc.ABC):
    """A kind of model.

    Whoever adds one derives a class, in a file of its own, and writes it in
    the table, `kanets.tasks.TASKS`.

    Attributes, each given by the class:

        name: what the zoo calls it, such as "classification".
        model: what a sentence calls such a model, such as "classifier".
        takes_pictures: whether it is pictures that it says something of.
        pictures: the folder of them in a folder of data, or "".
        writes: what `predict` writes to a folder, in words, or None.
        section: the section that only its recipe has, with the arguments of
            the net.
        recipe: the class of its recipe, best made by `kanets.typed.typed`.
        figure: the key of the figure in the results of `evaluate` and, with
            "val_" where there is a validation set, in a run's log.
        column: the column of the log that a card shows.
        kept: the model folders of a run, each with its place in an entry.
        trains_on: the part of a data set that a recipe is given, where it
            does not find it itself.
        metric, decimals: what the figure is called, and how it is written.
        pipeline, title, usage: of a card, what the Hugging Face Hub calls the
            task; of the zoo's page, the heading; and the example, with
            "{name}" for the model's name.
        contract: what an export takes and returns, to end a sentence with.
        outputs: what `verify` compares, the names of an export's outputs.
        next_steps: what to type after `kanets` when a run is complete, with
            "{run}" for its folder and "{name}" for the folder's name.
        sized_by: the output of an export of picture files that has the
            height and width it is for; None if it does not show.

    and functions, each given by the class, often `lazy`:

        train: (recipe, directory, verbose), and `report` if it has
            `write_report` -> as `kanets.recipes.train`.
        evaluate: (model, source, *, on_error, options) -> as
            `kanets.evaluation.evaluate`; its keywords are the options it has.
        iter_predict: (model, paths, *, top_k, on_bad), and `to` if it
            `writes`, as `kanets.evaluation.iter_predict`.
        write_report: (model, pictures, folder) -> as
            `kanets.evaluation.report.Report.write`; None of a task without
            reports.
        add_endpoints: (archive, model, class_names, *, options) -> class
            names and requests, for `kanets.export.export_savedmodel`; its
            keywords are the options it has.
        make_graph: (model, class_names, *, options) ->
            `kanets.export.graph.Graph`, for the other formats; likewise.
    """

    takes_pictures = True
    pictures = ""
    writes = None
    kept = {"best": "."}
    trains_on = ""
    decimals = 4
    sized_by = None
    write_report = None
    next_steps = (
        "predict {run} PICTURE",
        "export {run} --to savedmodels/{name}",
    )

    @property
    def column(self):
        return f"val_{self.figure}"

    @abc.abstractmethod
    def recognizes(self, inputs, outputs):
        """Whether a Keras model is one.

        Args:
            inputs, outputs: lists of the ranks of its tensors.
        """

    @abc.abstractmethod
    def answers(self, inputs, outputs):
        """Whether an exported model is one.

        Args:
            inputs, outputs: sets of the names of its tensors.
        """

    def build(self, builder, input_shape, num_classes, arguments):
        """A net with fresh weights.

        Args:
            builder: of a `kanets.nets.registry.Net`.
            input_shape: (H, W, C) of pictures.
            num_classes: number of classes, or None for a net without.
            arguments: dict, others of the builder.

        Returns:
            The `keras.Model` that an entry of the net holds.
        """
        return builder(
            input_shape=tuple(input_shape), classes=num_classes, **arguments
        )

    @abc.abstractmethod
    def summary(self, measured):
        """What `evaluate` returned, as text for people; may be of lines."""

    def run_summary(self, result):
        """What `train` returned, as text for people."""
        figure = self.figure
        validated = f"val_{figure}" in result
        part = "validation" if validated else "training"
        value = result[f"val_{figure}" if validated else figure]
        kept = f"epoch {result['epoch']} of {result['epochs']}"
        if not result["epoch"]:
            kept = f"the start, as no epoch of {result['epochs']} was better,"
        return (
            f"{kept} kept, "
            f"{part} {figure.replace('_', ' ')} {value:.4f}; log.csv, best/"
        )

    def entry_fields(self, arguments, model, size=None):
        """What an entry says of the net.

        Args:
            arguments: those of the net in the recipe, and its name.
            model: the model of the entry.
            size: pair of int, of the pictures it was trained on, where the
                model leaves that open.

        Returns:
            A dict of fields of `kanets.zoo.Architecture`.
        """
        arguments = dict(arguments)
        shape = tuple(model.input_shape[1:])
        if None in shape:
            shape = (*size, 3)
        return {
            "net": arguments.pop("name"),
            "arguments": arguments,
            "input_shape": shape,
            "num_classes": len(model.class_names),
        }

    @abc.abstractmethod
    def details(self, measured):
        """What a card shows besides the figure: a dict, by name."""

    @abc.abstractmethod
    def draw(self, folder, model, source, **options):
        """Draws the pictures of a card.

        Args:
            folder: `pathlib.Path` to draw to.
            model: the model.
            source: the part of the data set that it was measured on.
            **options: those it was measured with.

        Returns:
            The names of the files, a tuple.
        """
