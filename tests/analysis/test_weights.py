"""Weights are found where contractions read constants; moments and gradients are those of the activations."""

import numpy as np
import torch

from effcc.analysis.sparsity import best_blocks, zeros
from effcc.analysis.weights import gradients, moments, weights
from effcc.ir import Builder, Tensor, f32
from effcc.ir.blob import Blob
from effcc.search.data import Samples


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def two_layers():
    b = Builder("layers")
    x = b.input("x", Tensor(f32, (5, 8)))
    first, second = b.const(Blob(normal(8, 6))), b.const(Blob(normal(3, 6, seed=1)))
    return b.graph(b.matmul(b.relu(b.matmul(x, first)), second, transpose_b=True))


def test_matmuls_and_convolutions_have_weights():
    b = Builder("both")
    x, image = b.input("x", Tensor(f32, (2, 4))), b.input("image", Tensor(f32, (1, 3, 5, 5)))
    w, turned = b.const(Blob(normal(4, 6))), b.const(Blob(normal(7, 4)))
    kernel, point = b.const(Blob(normal(8, 3, 3, 3))), b.const(Blob(normal(2, 3, 1, 1)))
    y = [b.matmul(x, w), b.matmul(x, turned, transpose_b=True)]
    y += [b.conv(image, k, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)) for k in (kernel, point)]
    found = weights(b.graph(*y))
    assert [(w.contracted, w.free, w.is_matrix) for w in found] == [
        (0, 1, True), (1, 0, True), (1, 0, False), (1, 0, True)]
    for w in (found[1], found[3]):
        assert np.array_equal(w.from_matrix(w.as_matrix(w.array)), w.array)
        assert w.as_matrix(w.array).shape[0] in (4, 3)


def test_constants_that_others_read_are_no_weights():
    b = Builder("tied")
    x, w = b.input("x", Tensor(f32, (4, 4))), b.const(Blob(normal(4, 4)))
    assert weights(b.graph(b.matmul(x, w), b.relu(w))) == []
    b = Builder("left")
    x, w = b.input("x", Tensor(f32, (4, 4))), b.const(Blob(normal(4, 4)))
    assert weights(b.graph(b.matmul(w, x))) == []


def test_moments_are_those_of_the_samples():
    graph = two_layers()
    x = normal(20, 8, seed=2)
    first, second = weights(graph)
    found = moments(graph, (first, second), Samples.load({"x": x}, graph))
    np.testing.assert_allclose(found[first.value].mean, x.mean(0), atol=1e-6)
    hidden = np.maximum(x @ first.array, 0)
    np.testing.assert_allclose(found[second.value].square, (hidden**2).mean(0), rtol=1e-5)


def test_gradients_are_of_the_mean_square_of_the_results():
    graph = two_layers()
    x = normal(5, 8, seed=2)
    first, second = weights(graph)
    (found,) = gradients(graph, (first, second), Samples.load({"x": x}, graph))
    leaves = [torch.from_numpy(w.array.copy()).requires_grad_() for w in (first, second)]
    ((torch.relu(torch.from_numpy(x) @ leaves[0]) @ leaves[1].T) ** 2).mean().backward()
    for w, leaf in zip((first, second), leaves, strict=True):
        np.testing.assert_allclose(found[w.value], leaf.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_blocks_are_found_where_the_zeros_are():
    random = np.random.default_rng(0)
    kept = random.random((8, 8)) < 0.3
    matrix = np.kron(kept, np.ones((16, 16), np.float32)) * normal(128, 128)
    found = best_blocks(matrix, 16)
    assert found.block == (16, 16) and found.kept == kept.mean() and found.cost < 0.5
    assert abs(zeros(matrix) - (1 - kept.mean())) < 0.05
    scattered = normal(128, 128) * (random.random((128, 128)) < 0.3)
    assert best_blocks(scattered, 16).cost > 0.9
