"""Fewer multiplications for the 3 x 3 convolutions of an OpenVINO model, which has no such method of its own.

Winograd's F(4, 3) down the columns: four rows of the output take six products of rows instead of twelve
(Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, arXiv 1509.09308, section 4.3, whose
matrices are used here along one axis). What remains are six ordinary convolutions of 1 x 3, at which
OpenVINO is as fast as the processor. In float32 the outputs differ by rounding only.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_FILTER = np.array(  # G of F(4, 3): three rows of a filter -> six
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_ACTIVATIONS = {"Relu": "relu", "Swish": "swish"}  # of the networks' 3 x 3 convolutions
_ROWS = 4  # of the output at a time
_FEWEST = 24  # channels; with fewer, moving the rows costs more than the products (measured at 512 pixels)


def apply(model: openvino.Model, opset: ModuleType) -> int:
    """Replace every convolution for which it pays, in place.

    Args:
        model: Model of float32 and of fixed shapes, one film at a time.
        opset: OpenVINO's operators, `openvino.opset13`.

    Returns:
        How many were replaced.
    """
    fitting = [node for node in model.get_ordered_ops() if _fits(node)]
    for convolution in fitting:
        _replace(convolution, opset)
    model.validate_nodes_and_infer_types()
    return len(fitting)


def _fits(node: openvino.Node) -> bool:
    if node.get_type_name() != "Convolution" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    batch, channels, height, _ = node.get_input_shape(0)
    made, _, *kernel = node.get_input_shape(1)
    geometry = (node.get_strides(), node.get_dilations(), node.get_pads_begin(), node.get_pads_end())
    return (
        kernel == [3, 3]
        and all(list(each) == [1, 1] for each in geometry)
        and batch == 1
        and height % _ROWS == 0
        and min(channels, made) >= _FEWEST
    )


def _replace(convolution: openvino.Node, opset: ModuleType) -> None:
    """Put six convolutions in the place of one, of the bias and of the activation that follow it.

    Bias and activation come before the rows are put together, and no product is an operand of the last sum:
    both let OpenVINO keep channels last throughout, without a copy. So does a 1 x 1 convolution that leaves
    fewer channels to put together.
    """
    last, bias = _biased(convolution)
    weight = convolution.input_value(1).get_node().data.astype(np.float64)
    filters = np.einsum("kr,oirs->kois", _FILTER, weight).astype(np.float32)[:, :, :, None]
    products = [
        opset.convolution(rows, opset.constant(each), [1, 1], [0, 1], [0, 1], [1, 1])
        for rows, each in zip(_combined_rows(convolution.input_value(0), opset), filters, strict=True)
    ]
    if bias is not None:  # the second product counts once in each row of the output
        products[1] = opset.add(products[1], opset.constant(bias))
    found = _sums(products, opset)
    if activation := _follower(last, *_ACTIVATIONS):
        found = [getattr(opset, _ACTIVATIONS[activation.get_type_name()])(each) for each in found]
        last = activation
    if pointwise := _pointwise(last):
        weight = pointwise.input_value(1)
        found = [opset.convolution(each, weight, [1, 1], [0, 0], [0, 0], [1, 1]) for each in found]
        last, bias = _biased(pointwise)
        if bias is not None:
            found = [opset.add(each, opset.constant(bias)) for each in found]
    whole = _interleaved(found, list(last.get_output_shape(0)), opset)
    for target in last.output(0).get_target_inputs():
        target.replace_source_output(whole.output(0))


def _follower(node: openvino.Node, *kinds: str) -> openvino.Node | None:
    """The node that takes a node's output, where it is the only one and of one of the kinds."""
    targets = list(node.output(0).get_target_inputs())
    follower = targets[0].get_node() if len(targets) == 1 else None
    return follower if follower is not None and follower.get_type_name() in kinds else None


def _pointwise(node: openvino.Node) -> openvino.Node | None:
    """The 1 x 1 convolution that alone takes a node's output and makes no more channels of it."""
    follower = _follower(node, "Convolution")
    if follower is None:
        return None
    made, taken, *kernel = follower.get_input_shape(1)
    whole = list(follower.get_output_shape(0)[2:]) == list(node.get_output_shape(0)[2:])
    return follower if kernel == [1, 1] and whole and made <= taken else None


def _biased(convolution: openvino.Node) -> tuple[openvino.Node, np.ndarray | None]:
    """The Add that follows and adds one number a channel, and these, (1, channels, 1, 1); else itself."""
    add = _follower(convolution, "Add")
    for value in add.input_values() if add is not None else []:
        constant = value.get_node()
        channels = convolution.get_output_shape(0)[1]
        if constant.get_type_name() == "Constant" and constant.data.shape == (1, channels, 1, 1):
            return add, constant.data
    return convolution, None


def _combined_rows(film: openvino.Output, opset: ModuleType) -> list[openvino.Node]:
    """B of F(4, 3): six sums of the rows 4t - 1 to 4t + 4, each (1, channels, height / 4, width)."""
    height = film.get_shape()[2]
    quarters = [
        opset.strided_slice(
            film, [0, 0, i, 0], [0, 0, height, 0], [1, 1, _ROWS, 1], [1, 1, 0, 1], [1, 1, 0, 1]
        )
        for i in range(_ROWS)
    ]

    def moved(quarter: openvino.Node, down: int) -> openvino.Node:
        return opset.pad(quarter, [0, 0, down, 0], [0, 0, -down, 0], "constant", _number(0, opset))

    rows = [moved(quarters[3], 1), *quarters, moved(quarters[0], -1)]
    add, subtract = opset.add, opset.subtract

    def times(factor: float, node: openvino.Node) -> openvino.Node:
        return opset.multiply(node, _number(factor, opset))

    even, odd = subtract(rows[4], times(4, rows[2])), subtract(rows[3], times(4, rows[1]))
    even_2, odd_2 = subtract(rows[4], rows[2]), times(2, subtract(rows[3], rows[1]))
    return [
        add(subtract(times(4, rows[0]), times(5, rows[2])), rows[4]),
        add(even, odd),
        subtract(even, odd),
        add(even_2, odd_2),
        subtract(even_2, odd_2),
        add(subtract(times(4, rows[1]), times(5, rows[3])), rows[5]),
    ]


def _sums(products: list[openvino.Node], opset: ModuleType) -> list[openvino.Node]:
    """A of F(4, 3): six products -> the rows 4t to 4t + 3 of the output."""
    add, subtract = opset.add, opset.subtract
    plus, minus = add(products[1], products[2]), subtract(products[1], products[2])
    plus_2, minus_2 = add(products[3], products[4]), subtract(products[3], products[4])
    return [
        add(add(plus, products[0]), plus_2),
        add(minus, opset.multiply(minus_2, _number(2, opset))),
        add(plus, opset.multiply(plus_2, _number(4, opset))),
        add(add(minus, products[5]), opset.multiply(minus_2, _number(8, opset))),
    ]


def _interleaved(rows: list[openvino.Node], shape: list[int], opset: ModuleType) -> openvino.Node:
    """Four times (1, channels, height / 4, width) -> (1, channels, height, width)."""
    _, channels, height, width = shape
    last = [opset.unsqueeze(opset.transpose(each, [0, 2, 3, 1]), opset.constant(2)) for each in rows]
    whole = opset.reshape(opset.concat(last, 2), [1, height, width, channels], False)
    return opset.transpose(whole, [0, 3, 1, 2])


def _number(value: float, opset: ModuleType) -> openvino.Node:
    return opset.constant(np.float32(value))
