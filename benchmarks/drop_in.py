"""Can hashed attention stand in for dense attention that was trained?

    kanets train benchmarks/vit.toml --data cifar10 --to runs/vit
    python benchmarks/drop_in.py --data cifar10/test

puts "smyrf" and "lsh" in place of the dense attention of trained models,
without training on, and writes `drop_in.csv` beside this file: a row for each
mechanism and share of the dense keys, mean and deviation over the seeds of the
hashes. The models are a SAGAN of the zoo, with one attention over 64 pooled
keys, and a ViT, the run above, with four over 64 patches and a token. Ten
minutes of one core; `--subjects` measures some of the models anew.

    share              keys that a query sees, rounds times those of a round,
                       of the keys that dense attention has
    frechet_distance,  of the pictures to real ones, by features of the
    kernel_distance    classifier that measures the zoo's GANs; the former
                       grows as pictures get fewer, the latter does not
    accuracy           of the classifier
    cosine             of outputs (a GAN's pictures, a classifier's log-
                       probabilities less their mean) and those of dense
                       attention from the same inputs: mean over these
    relative_l2        length of their difference by that of the latter

"dense" is the model itself. "smyrf" keeps its maps of queries, keys and values.
"lsh" has queries that are the keys, too: it takes the map of queries for both,
and as many values as queries, not pooled. Two controls: "random" is "smyrf"
with clusters that no hash has made, "nothing" is the model without its
attention. "smyrf" of share 1 is one cluster, and must be "dense".
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from keras import ops
from measure import machine
from tables import read, write

from kanets import attention, data, zoo
from kanets.attention.checks import logit_scale
from kanets.attention.clusters import cluster_attention, split
from kanets.attention.core import merge_heads
from kanets.attention.smyrf import balanced_clusters
from kanets.evaluation import generation
from ylg import gan
from ylg.metrics.evaluation import distances

TABLE = Path(__file__).with_suffix(".csv")
SHARES = (0.5, 0.25, 0.125)
SEEDS = (0, 1, 2)
MEASURES = (
    *("frechet_distance", "kernel_distance", "accuracy"),
    *("cosine", "relative_l2"),
)
FIELDS = (
    *("subject", "mechanism", "share", "rounds", "size", "seeds", "pictures"),
    *(f"{name}{end}" for name in MEASURES for end in ("", "_std")),
    "machine",
)


def smyrf(layer, query, key, value, rounds, size, seed):
    query, key, value = _tokens(query), *_pooled(layer, key, value)
    shape = (query.shape[-1] // layer.num_heads + 2, rounds)
    return attention.smyrf_attention(
        query,
        key,
        value,
        _normal(seed, shape),
        layer.num_heads,
        layer.scale,
        size,
    )


def lsh(layer, query, key, value, rounds, size, seed):
    query, value = _tokens(query), _tokens(value)
    buckets = 2 * query.shape[1] // size  # twice as many as chunks
    shape = (query.shape[-1] // layer.num_heads, rounds, buckets // 2)
    return attention.lsh_attention(
        query,
        value,
        _normal(seed, (layer.num_heads, *shape)),
        layer.num_heads,
        layer.scale,
        chunk_length=size,
    )


def random(layer, query, key, value, rounds, size, seed):
    heads = layer.num_heads
    tensors = [_tokens(query), *_pooled(layer, key, value)]
    query, key, value = (split(x, heads) for x in tensors)
    hashes = [
        ops.broadcast_to(
            _normal((seed, i), (1, heads, rounds, x.shape[2])),
            (ops.shape(x)[0], heads, rounds, x.shape[2]),
        )
        for i, x in enumerate((query, key))
    ]
    count = -(-key.shape[2] // size)
    clusters = [balanced_clusters(x, count) for x in hashes]
    scale = logit_scale(layer.scale, query.shape[-1])
    found, _ = cluster_attention(query, key, value, *clusters, scale)
    return merge_heads(found)


# The function, its rounds, and the keys of a round by the size of a cluster
# (a chunk looks back at another).
MECHANISMS = {
    "smyrf": (smyrf, 4, 1),
    "random": (random, 4, 1),
    "lsh": (lsh, 2, 2),
}


class ReplacedInGenerator(attention.NonLocalAttention2D):
    """SAGAN's block with another operator between its maps."""

    between = None

    def _heads(self, inputs, training, return_weights):
        if self.between is None:
            return super()._heads(inputs, training, return_weights)
        maps = (
            self._project(x, inputs, training)
            for x in (self.theta, self.phi, self.g)
        )
        return self.between(self, *maps), None


class ReplacedInTransformer(attention.DenseAttention):
    """A ViT's attention with another operator between its maps."""

    between = None

    def operator(self, inputs, query, key, value, output, **given):
        if self.between is None:
            maps = {"query": query, "key": key, "value": value}
            return super().operator(inputs, **maps, output=output, **given)
        maps = (x(inputs) for x in (query, key, value))
        return output(self.between(self, *maps))

    def _pooled(self, x):
        return x


class Generator:
    """A GAN of the zoo; what comes before its attention runs once.

    A subject has `keys`, how many dense attention sees, and `measure`.
    """

    def __init__(self, name, source, count):
        model = zoo.load_model(name)
        self.layer = model.get_layer("attention")
        before, after = self.layer.input, self.layer.output
        self.keys = int(np.prod(self.layer._key_grid(before.shape[1:3])))
        size = model.inputs[0].shape[-1]
        self.labels = np.arange(count, dtype="int32") % gan.num_classes(model)
        self.maps = keras.Model(model.inputs, before).predict(
            [gan.latents(size, count), self.labels], 100, verbose=0
        )
        self.rest = keras.Model([after, model.inputs[1]], model.outputs[0])
        self.extractor = generation.load_extractor(generation.EXTRACTOR)
        real = data.load_test(
            source, image_size=model.output_shape[1:3], batch_size=100
        )
        self.real = np.concatenate(
            [self.extractor(batch[0], (0, 255))[0] for batch in real]
        )
        self.dense = self.pictures()

    def measure(self, between=None, without=False):
        """What `MEASURES` names, of the pictures with another operator."""
        pictures = self.pictures(between, without)
        features, _ = self.extractor(pictures)
        return {
            **distances(self.real, features),
            **compared(pictures, self.dense),
        }

    def pictures(self, between=None, without=False):
        layer = ReplacedInGenerator.from_config(self.layer.get_config())
        layer.between = between
        x, label = (
            keras.Input(t.shape[1:], dtype=t.dtype) for t in self.rest.inputs
        )
        y = x if without else layer(x)
        model = keras.Model([x, label], self.rest([y, label]))
        if not without:
            layer.set_weights(self.layer.get_weights())
        return model.predict([self.maps, self.labels], 100, verbose=0)


class Classifier:
    """A ViT; see `Generator`. All of its blocks are replaced at once."""

    def __init__(self, name, source, count):
        self.model = zoo.load_model(name)
        [patches] = {
            np.prod(layer.output.shape[1:3])
            for layer in self.model.layers
            if layer.name == "patches"
        }
        self.keys = int(patches) + 1  # the token
        pictures = data.load_test(
            source, image_size=self.model.input_shape[1:3], batch_size=100
        )
        x, y = (np.concatenate(part) for part in zip(*pictures, strict=True))
        chosen = np.random.default_rng(0).permutation(len(x))[:count]
        self.pictures, self.labels = x[chosen], y[chosen]
        self.dense = self.outputs()

    def measure(self, between=None, without=False):
        outputs = self.outputs(nothing if without else between)
        return {
            "accuracy": np.mean(outputs.argmax(-1) == self.labels),
            **compared(outputs, self.dense),
        }

    def outputs(self, between=None):
        def clone(layer):
            if not isinstance(layer, attention.DenseAttention):
                return layer.from_config(layer.get_config())
            replaced = ReplacedInTransformer.from_config(layer.get_config())
            replaced.between = between
            return replaced

        model = keras.models.clone_model(self.model, clone_function=clone)
        model.set_weights(self.model.get_weights())
        scores = np.log(model.predict(self.pictures, 100, verbose=0) + 1e-30)
        return scores - scores.mean(axis=-1, keepdims=True)


def nothing(layer, query, key, value):
    return ops.zeros_like(value)


def compared(outputs, dense):
    """How like those of dense attention are the outputs?"""
    flat, dense = (x.reshape(len(x), -1) for x in (outputs, dense))
    lengths = [np.linalg.norm(x, axis=1) for x in (flat, dense)]
    cosines = np.sum(flat * dense, axis=1) / np.prod(lengths, axis=0)
    differences = np.linalg.norm(flat - dense, axis=1) / lengths[1]
    return {"cosine": cosines.mean(), "relative_l2": differences.mean()}


SUBJECTS = {"sagan_cifar10": Generator, "runs/vit": Classifier}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="cifar10", help="class folders")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS))
    options = parser.parse_args()
    rows = [
        row for row in read(TABLE) if row["subject"] not in options.subjects
    ]
    for name in options.subjects:
        subject = SUBJECTS[name](name, options.data, options.pictures)
        for row in measured(subject):
            rows.append(
                {
                    "subject": name,
                    "pictures": options.pictures,
                    "machine": machine("keras", "tensorflow"),
                    **row,
                }
            )
            print(
                *(rows[-1].get(field, "") for field in FIELDS[1:-1]), flush=True
            )
    write(TABLE, rows, FIELDS)


def measured(subject):
    """Rows without what all rows of a subject have in common."""
    yield {"mechanism": "dense", "share": 1.0, **summary([subject.measure()])}
    nothing = subject.measure(without=True)
    yield {"mechanism": "nothing", "share": 0.0, **summary([nothing])}
    yield row(subject, "smyrf", 1, subject.keys, SEEDS[:1])
    for share in SHARES:
        for mechanism, (_, rounds, keys) in MECHANISMS.items():
            size = int(share * subject.keys / (rounds * keys))
            yield row(subject, mechanism, rounds, size, SEEDS)


def row(subject, mechanism, rounds, size, seeds):
    function, _, keys = MECHANISMS[mechanism]

    def between(seed):
        return lambda *maps: function(*maps, rounds, size, seed)

    found = [subject.measure(between(seed)) for seed in seeds]
    return {
        "mechanism": mechanism,
        "share": rounds * size * keys / subject.keys,
        "rounds": rounds,
        "size": size,
        "seeds": len(seeds),
        **summary(found),
    }


def summary(found):
    """Mean and deviation of a list of measures."""
    result = {}
    for name in found[0]:
        values = [measures[name] for measures in found]
        result[name] = f"{np.mean(values):.6g}"
        if len(values) > 1:
            result[f"{name}_std"] = f"{np.std(values, ddof=1):.2g}"
    return result


def _pooled(layer, *maps):
    return (_tokens(layer._pooled(x)) for x in maps)


def _tokens(x):
    return ops.reshape(x, (-1, int(np.prod(x.shape[1:-1])), x.shape[-1]))


def _normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


if __name__ == "__main__":
    main()
