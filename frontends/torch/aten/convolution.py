"""Convolutions, forward and backward."""

from __future__ import annotations

from typing import Any

from effcc.errors import TypeRuleError
from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value


def spread(values: Any, n: int) -> tuple[int, ...]:
    """torch's shorthand: one number for every spatial axis."""
    values = [values] if isinstance(values, int) else list(values)
    return tuple(int(v) for v in (values * n if len(values) == 1 else values))


@lowers("convolution", "_convolution")
def convolution(
    e: Emitter,
    x: Value,
    w: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> Value:
    """x [N, C, ...] (or [C, ...]), w [O, C/groups, k...] or transposed [C, O/groups, k...]."""
    n = len(w.shape) - 2
    alone = len(x.shape) == n + 1
    x = e.unsqueeze(x, 0) if alone else x
    stride, padding, dilation = spread(stride, n), spread(padding, n), spread(dilation, n)
    extra = spread(output_padding, n)
    if transposed and any(p >= max(s, d) for p, s, d in zip(extra, stride, dilation, strict=True)):
        raise TypeRuleError(f"output_padding {list(extra)} is not below stride {list(stride)} or dilation")
    operands = (x, w) if bias is None else (x, w, e.cast(bias, x.dtype))
    if transposed and x.dtype.is_integer:
        y = _transposed_of_integers(e, operands, stride, padding, dilation, extra, int(groups))
    elif transposed:
        y = e.b.conv_transpose(
            *operands,
            strides=stride,
            pads=padding * 2,
            output_pads=extra,
            dilations=dilation,
            groups=int(groups),
        )
    else:
        y = e.b.conv(*operands, strides=stride, pads=padding * 2, dilations=dilation, groups=int(groups))
    return e.reshape(y, y.shape[1:]) if alone else y


def _transposed_of_integers(
    e: Emitter, operands: Any, stride: Any, padding: Any, dilation: Any, output_padding: Any, groups: int
) -> Value:
    """The catalogue transposes convolutions of floats: here, zeros between the elements, then a convolution with the
    kernel mirrored."""
    x, w, *bias = operands
    n = len(w.shape) - 2
    before: list[Any] = []
    after: list[Any] = []
    for k in range(n):
        axis = k + 2
        size, step = x.shape[axis], stride[k]
        if step > 1:
            rank = len(x.shape)
            pads = (0,) * (rank + 1) + tuple(step - 1 if a == axis + 1 else 0 for a in range(rank + 1))
            x = e.b.pad(e.unsqueeze(x, axis + 1), pads=pads, mode="constant")
            x = e.reshape(x, (*x.shape[:axis], size * step, *x.shape[axis + 2 :]))
            x = e.slice(x, axis, 0, (size - 1) * step + 1)
        reach = dilation[k] * (w.shape[axis] - 1) - padding[k]
        before.append(reach)
        after.append(reach + output_padding[k])
    from effcc.frontends.torch.aten.view import flip

    c, o = w.shape[:2]
    w = flip(e, w, list(range(2, n + 2)))
    w = e.swap(e.reshape(w, (groups, c // groups, o, *w.shape[2:])), 1, 2)
    w = e.reshape(w, (groups * o, c // groups, *w.shape[3:]))
    x = e.b.pad(x, pads=(0, 0, *before, 0, 0, *after), mode="constant")
    return e.b.conv(x, w, *bias, strides=(1,) * n, pads=(0,) * 2 * n, dilations=dilation, groups=groups)


@lowers("convolution_backward")
def convolution_backward(
    e: Emitter,
    grad: Value,
    x: Value,
    w: Value,
    bias_sizes: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Any,
) -> Any:
    """Gradients of a convolution: of x, of w, of the bias; None where the mask says so."""
    n = len(w.shape) - 2
    stride, padding, dilation = spread(stride, n), spread(padding, n), spread(dilation, n)
    of_x = of_w = of_bias = None
    if output_mask[0]:
        of_x = (_transposed_x if transposed else _forward_x)(e, grad, x, w, stride, padding, dilation, groups)
    if output_mask[1]:
        # a transposed convolution is a convolution with its input and output exchanged
        image, kernel = (grad, x) if transposed else (x, grad)
        of_w = _weight(e, kernel, image, w, stride, padding, dilation, groups)
    if output_mask[2]:
        of_bias = e.b.sum(grad, axes=tuple(k for k in range(n + 2) if k != 1), keepdims=False)
    return of_x, of_w, of_bias


def _forward_x(
    e: Emitter, grad: Value, x: Value, w: Value, stride: Any, padding: Any, dilation: Any, groups: int
) -> Value:
    """The transposed convolution of grad by w, grown to x's size where the stride did not reach the edge."""
    n = len(stride)
    grown = tuple(
        x.shape[2 + k] - ((grad.shape[2 + k] - 1) * stride[k] - 2 * padding[k] + dilation[k] * (w.shape[2 + k] - 1) + 1)
        for k in range(n)
    )
    if all(isinstance(g, int) and g < max(stride[k], dilation[k]) for k, g in enumerate(grown)):
        return e.b.conv_transpose(
            grad, w, strides=stride, pads=padding * 2, output_pads=grown, dilations=dilation, groups=groups
        )
    y = e.b.conv_transpose(
        grad, w, strides=stride, pads=padding * 2, output_pads=(0,) * n, dilations=dilation, groups=groups
    )
    return e.b.pad(y, pads=(0,) * (n + 2) + (0, 0, *grown), mode="constant")


def _transposed_x(
    e: Emitter, grad: Value, x: Value, w: Value, stride: Any, padding: Any, dilation: Any, groups: int
) -> Value:
    """Of a transposed convolution: the plain convolution of grad by w; output padding leaves rows that w never met."""
    y = e.b.conv(grad, w, strides=stride, pads=padding * 2, dilations=dilation, groups=groups)
    for k in range(len(stride)):
        y = e.slice(y, 2 + k, 0, x.shape[2 + k])
    return y


def _weight(
    e: Emitter, grad: Value, x: Value, w: Value, stride: Any, padding: Any, dilation: Any, groups: int
) -> Value:
    """dw[o, c, k] = Σ_{n, p} grad[n, o, p] x[n, c, p·stride + k·dilation]: a convolution over the batch, stride and
    dilation exchanged; the groups become the outermost part of the exchanged batch."""
    n = len(stride)
    images = e.swap(x, 0, 1)  # [C, N, ...]: channels are the batch, the batch is what is summed
    kernels = e.swap(grad, 0, 1)  # [O, N, ...]
    if groups == 1:
        y = e.b.conv(images, kernels, strides=dilation, pads=padding * 2, dilations=stride, groups=1)  # [C, O, k...]
        y = e.swap(y, 0, 1)
    else:  # [C/g, g·N, ...] with [O, N, ...]: group j sees its own channels
        channels, batch = w.shape[1], x.shape[0]
        split = e.reshape(images, (groups, channels, batch, *x.shape[2:]))
        merged = e.reshape(e.swap(split, 0, 1), (channels, groups * batch, *x.shape[2:]))
        y = e.b.conv(
            merged, kernels, strides=dilation, pads=padding * 2, dilations=stride, groups=groups
        )  # [C/g, O, k...]
        y = e.swap(y, 0, 1)
    for k in range(n):
        y = e.slice(y, 2 + k, 0, w.shape[2 + k])
    return y
