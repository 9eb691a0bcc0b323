"""What a recipe says: its fields, section by section."""

from __future__ import annotations

import functools
from typing import Literal

from kanets import tasks
from kanets.train.recipes import rules
from kanets.typed import refused, typed

_recipe = functools.partial(
    typed,
    called="a recipe",
    others=[task.section for task in tasks.TASKS.values()],
)


@typed
class Data:
    """What is trained on; see `kanets.data.load`.

    Attributes:
        source: folder, or TFDS name.
        image_size: (height, width); None if all pictures have one size.
        validation: fraction held out, where the source has no such part.
        on_error: "stop" at a picture that cannot be read, or "skip" it.
    """

    source: str = ""
    image_size: rules.Size = None
    validation: rules.Decay = 0.1
    on_error: Literal["stop", "skip"] = "stop"


@typed
class Augment:
    """Augmentation of training pictures; see `kanets.augment`."""

    flip: rules.Flag = True
    crop: rules.Whole = 0
    randaugment: rules.Whole = 0
    magnitude: rules.Fraction = 0.5
    mixup: rules.Number = 0.0
    cutmix: rules.Fraction = 0.0


@typed
class Optimize:
    """Loss and optimizer.

    Attributes:
        name: "sgd" (Nesterov, momentum 0.9) or "adamw".
        learning_rate: the peak of a cosine schedule.
        warmup_epochs: epochs of linear warm-up to it, fractions allowed.
        weight_decay: decoupled: each step takes learning rate times
            `weight_decay` of a weight, but nothing of batch norm and biases.
        label_smoothing: in 0..1.
        average: decay of a moving average of the weights, 0 for none; the
            average is what is validated and kept.
        clip: greatest norm of the whole gradient, 0 for none.
    """

    name: rules.Optimizer = "sgd"
    learning_rate: rules.Positive = 0.1
    warmup_epochs: rules.Number = 1.0
    weight_decay: rules.Number = 0.0
    label_smoothing: rules.Fraction = 0.0
    average: rules.Decay = 0.0
    clip: rules.Number = 0.0


@typed
class FineTune:
    """How a pretrained model is moved to new data.

    Attributes:
        frozen_epochs: first epochs, in which only the head is trained and
            batch norm of the frozen body runs in inference mode.
        layer_decay: each layer below the head learns by this factor slower
            than the one above it; 1 is all alike.
        body_factor: factor of the learning rate of all that is not new: of a
            segmenter with a backbone the layers of its body, of another
            model all below the head.
        norm_momentum: of the moving statistics of batch norm, of a model that
            is loaded, and of a segmenter on the body of another net than a
            KANet. A small set has few steps an epoch, and Keras's 0.99
            would go on describing the pictures the model came from.
        freeze_norm: whether batch norm keeps the statistics, scale and offset
            that it was loaded with, and normalises as at inference. A few
            dozen small batches describe the pictures worse than the many the
            model came from.
        new_head: whether the last layer starts anew. "auto": unless the
            classes of the data are those of the model, by their names, in any
            order; True: always; False: never, so that outputs whose names are
            others stand for the classes of the data in their order.
        fit_head: whether the new head of a classifier starts as a softmax
            regression on what the body says of the pictures, in place of
            random weights; a look at the data, and no epoch.
    """

    frozen_epochs: rules.Whole = 0
    layer_decay: rules.Factor = 1.0
    body_factor: rules.Factor = 1.0
    norm_momentum: rules.Fraction = 0.9
    freeze_norm: rules.Flag = False
    new_head: rules.Auto = "auto"
    fit_head: rules.Flag = False


@typed
class Distill:
    """What a net learns from another one, besides the labels.

    The loss is that of `kanets.losses.DistillationCrossentropy`. The figures
    of the log are of labels alone, and so is the loss of validation.

    Attributes:
        teacher: a classifier of the same classes, a zoo name or path, which
            sees the same augmented pictures; "" is none.
        weight: of the teacher's loss; the labels' has the rest.
        temperature: both softmaxes are softened by it.
    """

    teacher: str = ""
    weight: rules.Fraction = 0.5
    temperature: rules.Positive = 2.0

    def __post_init__(self):
        if not self.teacher and (self.weight, self.temperature) != (0.5, 2.0):
            rule = "given where its weight or temperature is"
            raise refused("distill.teacher", self.teacher, rule)


@typed
class Quantize:
    """Last epochs, that train for 8 bits; see `kanets.quantization`.

    They start from the last epoch before them, as a run of their own does from
    a model. What is kept is the best of them: a prepared model.

    Attributes:
        from_epoch: the first, counted from 1 as in the log; 0 is none.
        learning_rate_factor: of the learning rate, which falls from there to
            zero anew, without a warm-up.
    """

    from_epoch: rules.Whole = 0
    learning_rate_factor: rules.Factor = 0.1


@typed
class Prune:
    """Weights that become zero while all layers train; see `kanets.pruning`.

    Attributes:
        sparsity: of each kernel the share of zeros at the end; 0 is none.
        to_epoch: counted from 1 as in the log: that share is reached at its
            end, and the epochs after it bring the accuracy back.
        from_epoch: that with which it begins to rise.
    """

    sparsity: rules.Decay = 0.0
    to_epoch: rules.Whole = 0
    from_epoch: rules.Count = 1


@_recipe
class Recipe:
    """A training run as plain data.

    Attributes:
        model: `name` (a key of `recipes.NETS`, or a zoo name or path of a
            model to start from) and, for the nets, their arguments; "none" is
            None.
        epochs, batch_size, seed: integers.
        precision: one of `rules.Precision`. Under "float32", a model that is
            started from keeps the one it was saved with.
        jit_compile: "auto" (Keras decides), True or False.
        keep: which epoch becomes `best/`: "best" by validation accuracy (the
            last where the source has a test set in its place, which chooses
            nothing; what a fine-tune starts from, its head kept or fitted,
            counts as epoch 0), or "last".
        patience: the run ends after so many epochs of all layers without a
            better figure, where `keep` goes by one; 0 is never.
        data, augment, optimize, finetune, distill, prune, quantize: sections,
            see their classes.
    """

    model: rules.Classifier
    epochs: rules.Count = 10
    batch_size: rules.Count = 128
    seed: rules.Whole = 0
    precision: rules.Precision = "float32"
    jit_compile: rules.Auto = "auto"
    keep: Literal["best", "last"] = "best"
    patience: rules.Whole = 0
    data: Data = Data()
    augment: Augment = Augment()
    optimize: Optimize = Optimize()
    finetune: FineTune = FineTune()
    distill: Distill = Distill()
    prune: Prune = Prune()
    quantize: Quantize = Quantize()

    def __post_init__(self):
        rules.check_frozen(self)
        rules.check_quantized(self)
        rules.check_pruned(self)


@typed
class SegmentationData(Data):
    """What a segmenter is trained on; see `kanets.data.load_segmentation`.

    Attributes, besides those of `Data`:
        class_names: list of str, the meaning of the labels; None reads
            `classes.txt` of the source.
        ignore_label: the label of unlabelled pixels, or None.
    """

    class_names: rules.Names = None
    ignore_label: rules.Label = None


@typed
class SegmentationAugment:
    """See `kanets.augment.SegmentationAugmentation`."""

    flip: rules.Flag = True
    crop_size: rules.Size = None
    scale: rules.Scale = 1.0
    color: rules.Decay = 0.0


@_recipe
class SegmentationRecipe:
    """The training of a segmenter as plain data.

    Attributes:
        segmenter: `name` ("KANetSegmenter", or a zoo name or path of a
            segmenter to start from) and, for the former, the net's arguments,
            where `backbone` is a zoo name or path; "none" is None.
        balanced: whether the loss weighs classes by median frequency.
        epochs, batch_size, seed, precision, jit_compile, keep, patience: as in
            `Recipe`; the best epoch is that of the greatest mean IoU.
        data, augment, optimize, finetune, prune: sections, see their classes;
            the loss has no label smoothing.
    """

    segmenter: rules.Segmenter
    epochs: rules.Count = 10
    batch_size: rules.Count = 8
    seed: rules.Whole = 0
    balanced: rules.Flag = False
    precision: rules.Precision = "float32"
    jit_compile: rules.Auto = "auto"
    keep: Literal["best", "last"] = "best"
    patience: rules.Whole = 0
    data: SegmentationData = SegmentationData()
    augment: SegmentationAugment = SegmentationAugment()
    optimize: Optimize = Optimize()
    finetune: FineTune = FineTune()
    prune: Prune = Prune()

    def __post_init__(self):
        rules.check_frozen(self)
        rules.check_pruned(self)
        frozen = self.finetune.frozen_epochs
        if frozen and self.segmenter["name"] in rules.SEGMENTERS:
            rule = "0 for a net that is not loaded: all above its body is new"
            raise refused("finetune.frozen_epochs", frozen, rule)
        if self.finetune.fit_head:
            rule = "false for a segmenter"
            raise refused("finetune.fit_head", True, rule)
        smoothing = self.optimize.label_smoothing
        if smoothing:
            rule = "0 for a segmenter"
            raise refused("optimize.label_smoothing", smoothing, rule)


@typed
class GANOptimize:
    """The two optimizers of a GAN, both Adam.

    Attributes:
        generator_learning_rate, discriminator_learning_rate: constant.
        beta_1, beta_2: Adam's.
        discriminator_steps: updates of it for each of the generator.
        average: decay of the moving average of the generator's weights.
    """

    generator_learning_rate: rules.Positive = 1e-4
    discriminator_learning_rate: rules.Positive = 4e-4
    beta_1: rules.Decay = 0.0
    beta_2: rules.Decay = 0.9
    discriminator_steps: rules.Count = 1
    average: rules.Decay = 0.999


@typed
class Measure:
    """How generated pictures are measured after an epoch.

    Attributes:
        extractor: a classifier whose features are compared, a zoo name or
            path; "inception_v3" is that of keras.applications, a `.pth` or
            `.pb` file the Inception of 2015; "" measures nothing.
        pictures: how many generated ones, and as many real ones.
        every: epochs from one measurement to the next.
    """

    extractor: str = ""
    pictures: rules.Several = 2000
    every: rules.Count = 1


@_recipe
class GANRecipe:
    """The training of a GAN as plain data.

    Attributes:
        gan: arguments of `ylg.SAGAN`, those of `rules.GAN_ARGUMENTS`; "none" is
            None. `conditional = false` leaves the labels unused.
        epochs, batch_size, seed: integers.
        steps_per_epoch: after how many steps to write the log, the sample
            pictures and the state to resume from; 0 is once through the data.
        flip: whether pictures are mirrored at random.
        precision, jit_compile: as in `Recipe`.
        data, optimize, measure: sections, see `Data`, `GANOptimize`,
            `Measure`.
    """

    gan: rules.GAN
    epochs: rules.Count = 10
    steps_per_epoch: rules.Whole = 0
    batch_size: rules.Count = 64
    seed: rules.Whole = 0
    flip: rules.Flag = True
    precision: rules.Precision = "float32"
    jit_compile: rules.Auto = "auto"
    data: Data = Data(validation=0.0)
    optimize: GANOptimize = GANOptimize()
    measure: Measure = Measure()
