"""Segmentation: the class of every pixel."""

from kanets.tasks.base import PICTURES, Task, lazy


class Segmentation(Task):
    """Pixels (B, H, W, 3) to probabilities (B, H, W, classes)."""

    name = "segmentation"
    model = "segmenter"
    pictures = "images"
    writes = "label maps"
    section = "segmenter"
    figure = "mean_iou"
    metric = "mean IoU"
    pipeline = "image-segmentation"
    title = "Segmenters"
    usage = """import kanets

model = kanets.create_model("{name}")
probabilities = model.predict(pixels)  # (B, H, W, 3) in 0..255, any size
tuned = kanets.create_model("{name}", num_classes=2)
"""
    contract = "take image_bytes or images and return label_map"
    outputs = ("probabilities", "label_map")
    sized_by = "label_map"

    next_steps = (
        "predict {run} PICTURE --to seen",
        "export {run} --to savedmodels/{name}",
    )

    recipe = lazy("kanets.train.recipes.fields:SegmentationRecipe")
    train = lazy("kanets.train.recipes.segmenter:train_segmenter")
    evaluate = lazy("kanets.evaluation.segmentation:evaluate")
    iter_predict = lazy("kanets.evaluation.segmentation:iter_predict")
    write_report = lazy("kanets.evaluation.segmentation:write_report")
    add_endpoints = lazy("kanets.export.segmenter:add_endpoints")
    make_graph = lazy("kanets.export.segmenter:make_graph")

    def recognizes(self, inputs, outputs):
        return (inputs, outputs) == ([4], [4])

    def answers(self, inputs, outputs):
        return inputs in PICTURES and "label_map" in outputs

    def summary(self, measured):
        lines = [
            f"  {name}: {value:.4f}" for name, value in measured["iou"].items()
        ]
        lines.append(
            f"mean IoU {measured['mean_iou']:.4f}, "
            f"pixel accuracy {measured['pixel_accuracy']:.4f} "
            f"({measured['pictures']} pictures)"
        )
        return "\n".join(lines)

    def entry_fields(self, arguments, model, size=None):
        fields = super().entry_fields(arguments, model, size)
        from kanets.nets.efficientnet_lite import readers

        if readers({layer.name for layer in model.layers}) is None:
            # Where the weights of a KANet's body came from, not what it is.
            fields["arguments"].pop("backbone", None)
        return fields

    def details(self, measured):
        return {
            "pixel accuracy": f"{measured['pixel_accuracy']:.4f}",
            **{f"IoU, {k}": f"{v:.4f}" for k, v in measured["iou"].items()},
        }

    def draw(self, folder, model, source, **options):
        import numpy as np

        from kanets import data, visualize

        found = data.load_segmentation_test(
            source, class_names=model.class_names, **options
        )
        chosen = [i * found.num_pictures // 4 for i in range(4)]
        images = found.pictures.take(chosen)
        seen = np.asarray(model.predict(images, verbose=0)).argmax(-1)
        images = images.astype("uint8")
        visualize.overlay_sheet(
            images,
            found.labels[chosen],
            seen,
            model.class_names,
            folder / "overlays.png",
            **options,
        )
        visualize.attention_sheet(model, images[:2], folder / "attention.png")
        return ("overlays.png", "attention.png")
