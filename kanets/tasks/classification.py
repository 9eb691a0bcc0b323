"""Classification: the class of a picture."""

from kanets.tasks.base import PICTURES, Task, lazy


class Classification(Task):
    """Pixels (B, H, W, 3) to probabilities (B, classes)."""

    name = "classification"
    model = "classifier"
    section = "model"
    figure = "accuracy"
    metric = "top-1 accuracy"
    pipeline = "image-classification"
    title = "Classifiers"
    usage = """import kanets

model = kanets.create_model(
    "{name}", num_classes=2, input_shape=(96, 96, 3)
)  # ready for compile() and fit()
"""
    contract = "take image_bytes or images and return probabilities"
    outputs = ("probabilities",)

    recipe = lazy("kanets.train.recipes.fields:Recipe")
    train = lazy("kanets.train.recipes.classifier:train_classifier")
    evaluate = lazy("kanets.evaluation.classification:evaluate")
    iter_predict = lazy("kanets.evaluation.classification:iter_predict")
    write_report = lazy("kanets.evaluation.classification:write_report")
    add_endpoints = lazy("kanets.export.classifier:add_endpoints")
    make_graph = lazy("kanets.export.classifier:make_graph")

    def recognizes(self, inputs, outputs):
        return (inputs, outputs) == ([4], [2])

    def answers(self, inputs, outputs):
        of_pictures = inputs in PICTURES and "label_map" not in outputs
        return of_pictures and "probabilities" in outputs

    def summary(self, measured):
        top = measured.get("top_5_accuracy")
        return (
            f"accuracy {measured['accuracy']:.4f} "
            f"({measured['correct']} of {measured['pictures']} pictures)"
            + ("" if top is None else f", top-5 accuracy {top:.4f}")
        )

    def details(self, measured):
        correct, total = measured["correct"], measured["pictures"]
        found = {"correct": f"{correct:,} of {total:,}"}
        if "top_5_accuracy" in measured:
            found["top-5 accuracy"] = f"{measured['top_5_accuracy']:.4f}"
        return found

    def draw(self, folder, model, source, **options):
        from kanets import data, visualize

        size = model.input_shape[1:3]
        if None not in size:  # of pictures of any size
            options = {"image_size": size, **options}
        found = data.load_test(source, class_names=model.class_names, **options)
        chosen = [i * found.num_pictures // 3 for i in range(3)]
        images = found.pictures.take(chosen).astype("uint8")
        visualize.attention_sheet(model, images, folder / "attention.png")
        return ("attention.png",)
