"""The one table of nets: what a recipe, an entry or a card can name.

A net says where it stands and is imported when it is built, so that the table
is there before any of them. A new net is one more of its items.
"""

import dataclasses
import pkgutil


@dataclasses.dataclass(frozen=True)
class Net:
    """A net by name.

    Attributes:
        name: what recipes and entries call it.
        place: "module:attribute" of what builds it.
        task: name of its task, of `kanets.tasks.TASKS`.
        closed: names of its arguments whose layers start closed, so that
            weights of the net without them fit.
        description: what a card calls it, with its article and paper.
        architectures: what the zoo builds of it with fresh weights: by name,
            the other fields of a `kanets.zoo.Architecture`.
        timm: "module:function" of its layers' names in timm's files, or "".
        timm_name: what timm calls an architecture, "{}" for our name.
        timm_tensors: "module:function" of what must be done with the tensors
            before, as `kanets.nets.timm_names.vit_tensors`, or "".
    """

    name: str
    place: str
    task: str
    description: str
    closed: tuple = ()
    architectures: dict = dataclasses.field(default_factory=dict)
    timm: str = ""
    timm_name: str = "{}"
    timm_tensors: str = ""

    @property
    def builder(self):
        """The function or class that builds it."""
        return pkgutil.resolve_name(self.place)

    def timm_names(self, arguments):
        """The table of `kanets.zoo.foreign` for timm's files, or None.

        Args:
            arguments: dict, what the net is built with.
        """
        if not self.timm:
            return None
        return pkgutil.resolve_name(self.timm)(**arguments)

    def prepared(self, tensors, input_shape, arguments):
        """timm's tensors as the table of their names has them.

        Args:
            tensors: dict of arrays.
            input_shape: (H, W, C) of the pictures they are for.
            arguments: dict, what the net is built with.
        """
        if not self.timm_tensors:
            return tensors
        prepare = pkgutil.resolve_name(self.timm_tensors)
        return prepare(tensors, input_shape, **arguments)


def builders(task):
    """The builders of a task's nets, by name."""
    return {n.name: n.builder for n in NETS.values() if n.task == task}


NETS = {
    net.name: net
    for net in (
        Net(
            name="KANet",
            place="kanets.nets.kanet:KANet",
            task="classification",
            description='a KANet (Gao, Wang and Ji, "Kronecker Attention '
            'Networks", KDD 2020)',
            architectures={
                f"kanet_{mode}": {
                    "arguments": {"attention": f"kao_{mode}"},
                    "input_shape": (224, 224, 3),
                    "num_classes": 1000,
                }
                for mode in ("kv", "qkv")
            },
        ),
        Net(
            name="EfficientNetLite",
            place="kanets.nets.efficientnet_lite:EfficientNetLite",
            task="classification",
            description="an EfficientNet-Lite (Tan and Le, ICML 2019; "
            "tensorflow/tpu, models/official/efficientnet/lite)",
            closed=("attention", "attention_position"),
            timm="kanets.nets.timm_names:efficientnet_lite",
            timm_name="tf_{}",
            architectures={
                f"efficientnet_{variant}": {
                    "arguments": {"variant": variant},
                    "input_shape": (side, side, 3),
                    "num_classes": 1000,
                }
                for variant, side in (
                    ("lite0", 224),
                    ("lite1", 240),
                    ("lite2", 260),
                )
            },
        ),
        Net(
            name="ViT",
            place="kanets.nets.vit:ViT",
            task="classification",
            description="a ViT (Dosovitskiy et al., ICLR 2021)",
            timm="kanets.nets.timm_names:vit",
            timm_name="{}_patch16_224",
            timm_tensors="kanets.nets.timm_names:vit_tensors",
            architectures={
                f"vit_{variant}": {
                    "arguments": {"variant": variant},
                    "input_shape": (224, 224, 3),
                    "num_classes": 1000,
                }
                for variant in ("tiny", "small")
            },
        ),
        Net(
            name="MobileNetV4",
            place="kanets.nets.mobilenet_v4:MobileNetV4",
            task="classification",
            description="a MobileNetV4 (Qin et al., ECCV 2024)",
            closed=("attention",),
            timm="kanets.nets.timm_compact:mobilenet_v4",
            architectures={
                f"mobilenetv4_{variant}": {
                    "arguments": {"variant": variant},
                    "input_shape": (side, side, 3),
                    "num_classes": 1000,
                }
                for variant, side in (
                    ("conv_small", 224),
                    ("conv_medium", 256),
                    ("conv_large", 384),
                    ("hybrid_medium", 256),
                    ("hybrid_large", 384),
                )
            },
        ),
        Net(
            name="EfficientViT",
            place="kanets.nets.efficientvit:EfficientViT",
            task="classification",
            description="an EfficientViT (Cai et al., ICCV 2023)",
            timm="kanets.nets.timm_compact:efficientvit",
            architectures={
                f"efficientvit_{variant}": {
                    "arguments": {"variant": variant},
                    "input_shape": (224, 224, 3),
                    "num_classes": 1000,
                }
                for variant in ("b0", "b1", "b2", "b3")
            },
        ),
        Net(
            name="SHViT",
            place="kanets.nets.shvit:SHViT",
            task="classification",
            description="an SHViT (Yun and Ro, CVPR 2024)",
            timm="kanets.nets.timm_compact:shvit",
            architectures={
                f"shvit_{variant}": {
                    "arguments": {"variant": variant},
                    "input_shape": (side, side, 3),
                    "num_classes": 1000,
                }
                for variant, side in (
                    ("s1", 224),
                    ("s2", 224),
                    ("s3", 224),
                    ("s4", 256),
                )
            },
        ),
        Net(
            name="MobileNetV2",
            place="kanets.nets.mobilenets:MobileNetV2",
            task="classification",
            description="a MobileNetV2 (Sandler et al., CVPR 2018)",
        ),
        Net(
            name="MobileNetV3Small",
            place="kanets.nets.mobilenets:MobileNetV3Small",
            task="classification",
            description="a MobileNetV3-Small (Howard et al., ICCV 2019)",
        ),
        Net(
            name="KANetSegmenter",
            place="kanets.nets.kanet_segmenter:KANetSegmenter",
            task="segmentation",
            description="a segmenter of a dilated body, a pyramid, a Kronecker "
            "attention module and a bilinear decoder "
            "(`kanets.KANetSegmenter`)",
            architectures={
                "kanet_segmenter_qkv": {
                    "arguments": {
                        "attention": "kao_qkv",
                        "backbone_attention": "kao_qkv",
                    },
                    "input_shape": (512, 512, 3),
                    "num_classes": 21,
                },
            },
        ),
        Net(
            name="SAGAN",
            place="ylg:SAGAN",
            task="generation",
            description="the generator of a SAGAN (Zhang et al., ICML 2019), "
            "with its discriminator,",
        ),
    )
}
