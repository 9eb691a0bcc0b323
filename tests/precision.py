"""In which precision are models of pictures and sentences loaded?"""

import keras

POLICIES = [["mixed_bfloat16", "float32"], ["float32", "mixed_bfloat16"]]


def check_loaded_in_its_precision(make, layer, policies):
    """A model made under one policy and loaded under another keeps its own.

    Args:
        make: function that makes the model.
        layer: name of a layer that is none of its features.
        policies: the two, by name.
    """
    try:
        keras.config.set_dtype_policy(policies[0])
        model = make()
        config, older = model.get_config(), model.get_config()
        del older["dtype"]
        keras.config.set_dtype_policy(policies[1])
        loaded = [type(model).from_config(each) for each in (config, older)]
        assert keras.config.dtype_policy().name == policies[1]
    finally:
        keras.config.set_dtype_policy("float32")
    found = [each.get_layer(layer).dtype_policy.name for each in loaded]
    assert found == policies
    assert loaded[0].get_config()["dtype"] == config["dtype"]
