"""Generation: pictures out of random vectors."""

from kanets.tasks.base import Task, lazy


class Generation(Task):
    """Vectors (B, latent size), maybe with labels, to pictures in [-1, 1]."""

    name = "generation"
    model = "generator"
    takes_pictures = False
    section = "gan"
    figure = column = "frechet_distance"
    kept = {"generator": ".", "discriminator": "discriminator"}
    trains_on = "train"
    metric = "Frechet distance"
    decimals = 2
    pipeline = "unconditional-image-generation"
    title = "Generators"
    usage = """import kanets
import ylg

generator = kanets.create_model("{name}")
discriminator = kanets.load_model("{name}/discriminator")
z = ylg.gan.latents(generator.inputs[0].shape[-1], count=10)
pictures = ylg.gan.draw(generator, z)  # (10, H, W, 3) in [-1, 1]
"""
    contract = "take z and return images"
    outputs = ("images",)
    sized_by = "images"

    next_steps = (
        "generate {run} --to samples.png",
        "export {run} --to savedmodels/{name}",
    )

    recipe = lazy("kanets.train.recipes.fields:GANRecipe")
    train = lazy("kanets.train.recipes.gan:train_gan")
    evaluate = lazy("kanets.evaluation.generation:evaluate")
    add_endpoints = lazy("kanets.export.generator:add_endpoints")
    make_graph = lazy("kanets.export.generator:make_graph")

    def recognizes(self, inputs, outputs):
        return inputs in ([2], [2, 1]) and outputs == [4]

    def answers(self, inputs, outputs):
        return "z" in inputs and "images" in outputs

    def build(self, builder, input_shape, num_classes, arguments):
        gan = builder(num_classes=num_classes, **arguments)
        return gan.averaged_generator

    def summary(self, measured):
        figures = ", ".join(
            f"{name} {measured[key]:.{decimals}f}"
            for key, name, decimals in (
                ("frechet_distance", "Frechet distance", 2),
                ("kernel_distance", "kernel distance", 5),
                ("precision", "precision", 3),
                ("recall", "recall", 3),
                ("inception_score", "Inception Score", 2),
            )
            if key in measured
        )
        return (
            f"{figures} "
            f"({measured['pictures']} pictures, {measured['extractor']})"
        )

    def run_summary(self, result):
        distance = result.get("frechet_distance")
        found = "" if distance is None else f"Frechet distance {distance:.2f}; "
        return (
            f"{result['epochs']} epochs; {found}log.csv, samples/, "
            "generator/, discriminator/"
        )

    def entry_fields(self, arguments, model, size=None):
        from ylg.gan import num_classes

        arguments = dict(arguments)
        arguments.pop("conditional", None)  # the number of classes says it
        shape = tuple(model.output_shape[1:])
        return {
            "net": "SAGAN",
            "arguments": {**arguments, "image_size": shape[0]},
            "input_shape": shape,
            "num_classes": num_classes(model),
        }

    def details(self, measured):
        return {
            "kernel distance": f"{measured['kernel_distance']:.5f}",
            "precision": f"{measured['precision']:.3f}",
            "recall": f"{measured['recall']:.3f}",
        }

    def draw(self, folder, model, source, **options):
        from kanets.visualize.sheets import save_pictures
        from ylg import gan

        classes = gan.num_classes(model)
        rows, columns = 6, min(classes or 10, 10)
        names = getattr(model, "class_names", None) or range(columns)
        z = gan.latents(model.inputs[0].shape[-1], rows * columns)
        labels = None if classes is None else [*range(columns)] * rows
        pictures = gan.draw(model, z, labels)
        captions = [str(name) for name in names][:columns] if classes else []
        pixels = 127.5 * (pictures + 1)
        save_pictures(pixels, columns, folder / "samples.png", captions)
        return ("samples.png",)
