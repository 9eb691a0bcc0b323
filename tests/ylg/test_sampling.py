"""Ways from one latent vector to another."""

import numpy as np

from ylg.gan import latents, spherical


def test_spherical():
    way = spherical([[2.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [1.0, 1.0]], 3)
    assert way.dtype == np.float32
    half = np.sqrt(2)
    np.testing.assert_allclose(
        way[0], [[2, 0], [half, half], [0, 2]], atol=1e-6
    )
    np.testing.assert_allclose(way[1, [0, 2]], [[0, 0], [1, 1]], atol=1e-6)
    straight = spherical([1.0, 1.0], [3.0, 3.0], 3)
    np.testing.assert_allclose(straight, [[1, 1], [2, 2], [3, 3]])
    ends = latents(7, 2)
    way = spherical(ends[0], ends[0] + 1e-9, 5)
    np.testing.assert_allclose(way, np.tile(ends[0], (5, 1)), rtol=1e-6)
    a, b = np.random.default_rng(3).normal(size=(2, 128))
    a, b = 11 * a / np.linalg.norm(a), 11 * b / np.linalg.norm(b)
    lengths = np.linalg.norm(spherical(a, b, 9), axis=1)
    np.testing.assert_allclose(lengths, 11, rtol=1e-6)
