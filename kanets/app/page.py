"""The page of `kanets app`, laid out with Gradio."""

from pathlib import Path

from kanets import tasks, zoo
from kanets.app import generators, pictures

TITLE = "kanets"
ABOUT = (
    "# kanets\nVision models whose attention is cheap. Drop, paste or "
    "photograph a picture; click on it to see where that pixel looks."
)
FIRST = "kanet_lite0_imagenet"
REACH = 3.0  # of the sliders, in deviations of the latent vector


def build(runs=()):
    """The page, as a Gradio application.

    Args:
        runs: paths of runs or model folders of your own, which can be chosen
            besides the entries of the zoo.

    Returns:
        `gradio.Blocks`; its `launch()` serves it.

    Raises:
        ImportError: Gradio is not installed.
        ValueError: what `kanets.load_model` raises of a run.
    """
    gradio = _gradio()
    entries = {
        task: [e.name for e in zoo.list_models(task=task)]
        for task in tasks.TASKS
    }
    for run in map(str, runs):
        entries[_task_of(run)].insert(0, run)
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(ABOUT)
        with gradio.Tab("Pictures"):
            _classifiers(gradio, entries["classification"])
        with gradio.Tab("Every pixel"):
            _segmenters(gradio, entries["segmentation"])
        with gradio.Tab("Generators"):
            _generators(gradio, page, entries["generation"])
    return page


def _gradio():
    try:
        import gradio
    except ImportError:
        raise ImportError(
            'The app needs Gradio: pip install "kanets[app]".'
        ) from None
    return gradio


def _task_of(run):
    if (Path(run) / "generator").is_dir():
        return "generation"
    return tasks.of_model(pictures.opened(run)).name


def _model(gradio, names):
    first = FIRST if FIRST in names else names[0]
    return gradio.Dropdown(names, value=first, label="Model", interactive=True)


def _photo(gradio):
    return gradio.Image(
        type="filepath",
        image_mode=None,  # the file as it is
        sources=["upload", "webcam", "clipboard"],
        label="Your picture",
        height=320,
    )


def _panel(gradio, label, name=None):
    return gradio.Image(
        label=label,
        elem_id=name,
        interactive=False,
        height=400,
        buttons=["download", "fullscreen"],
    )


def _classifiers(gradio, names):
    with gradio.Row():
        with gradio.Column():
            model = _model(gradio, names)
            photo = _photo(gradio)
        with gradio.Column():
            best = gradio.Label(num_top_classes=5, label="Classes")
            took = gradio.Markdown()
    with gradio.Row():
        with gradio.Column():
            seen = _panel(gradio, "What the model sees: click on it", "seen")
        with gradio.Column():
            speaks = _panel(gradio, "What speaks for the class")
            name = gradio.Dropdown([], label="Class", interactive=True)
    looks = gradio.Gallery(
        label="Where the pixel looks, a layer of each size",
        elem_id="looks",
        columns=4,
        height="auto",
    )

    def look(source, path):
        if path is None:
            return {}, "", None, None, gradio.update(choices=[], value=None), []
        ranked, seconds = pictures.scores(source, path)
        chosen = next(iter(ranked))
        return (
            ranked,
            _took(seconds),
            pictures.shown(source, path),
            pictures.speaking(source, path, chosen),
            gradio.update(choices=list(ranked), value=chosen),
            pictures.attention(source, path),
        )

    def point(source, path, event: gradio.SelectData):
        column, row = event.index
        height, width = pictures.seen(source, path).shape[:2]
        scale = width / pictures.WIDTH
        position = (
            min(int(row * scale), height - 1),
            min(int(column * scale), width - 1),
        )
        return pictures.attention(source, path, position)

    outputs = [best, took, seen, speaks, name, looks]
    gradio.on([photo.change, model.change], look, [model, photo], outputs)
    name.input(pictures.speaking, [model, photo, name], speaks)
    seen.select(point, [model, photo], looks)


def _segmenters(gradio, names):
    with gradio.Row():
        with gradio.Column():
            model = _model(gradio, names)
            photo = _photo(gradio)
        with gradio.Column():
            found = gradio.AnnotatedImage(label="What the model sees")
            took = gradio.Markdown()

    def look(source, path):
        if path is None:
            return None, ""
        value, colours, seconds = pictures.segments(source, path)
        return gradio.AnnotatedImage(value, color_map=colours), _took(seconds)

    gradio.on([photo.change, model.change], look, [model, photo], [found, took])


def _generators(gradio, page, names):
    with gradio.Row():
        with gradio.Column():
            model = _model(gradio, names)
            classes = generators.class_names(names[0])
            name = gradio.Dropdown(
                classes, value=classes[0] if classes else None, label="Class"
            )
            seed = gradio.Number(0, label="Seed", precision=0)
            sliders = [
                gradio.Slider(-REACH, REACH, 0.0, label=f"Latent {i + 1}")
                for i in range(generators.SLIDERS)
            ]
        with gradio.Column():
            picture = _panel(gradio, "Drawn")
            last = gradio.Number(
                1, label="Walk to the picture of seed", precision=0
            )
            way = _panel(gradio, "The way")

    def draw(source, name, seed, *moved):
        return generators.drawn(source, seed, name, moved)

    def walk(source, name, seed, last):
        return generators.walk(source, seed, last, name)

    def choose(source):
        classes = generators.class_names(source)
        return gradio.update(
            choices=classes, value=classes[0] if classes else None
        )

    model.change(choose, model, name)
    inputs = [model, name, seed, *sliders]
    changes = [part.change for part in inputs]
    gradio.on(
        [page.load, *changes], draw, inputs, picture, show_progress="hidden"
    )
    inputs = [model, name, seed, last]
    changes = [part.change for part in inputs]
    gradio.on([page.load, *changes], walk, inputs, way, show_progress="hidden")


def _took(seconds):
    return f"{1000 * seconds:.0f} ms on this machine"
