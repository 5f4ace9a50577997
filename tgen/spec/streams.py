"""What stands around the parts of a layer in Gemma 3n and Gemma 4, as data. Knows no tensor framework and no model family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerVectorSpec:
    """A vector of `width` numbers for each layer and token, which the layer adds to its result (per-layer embeddings).

    It is (e + n) / sqrt(2). e is the token's part for the layer in a table of `vocab` rows, times sqrt(width); ids beyond the table have
    row 0. n is what a matrix makes of the scaled embedding, divided by the square root of the model's width, after a norm of the layer's
    part. A matrix of the layer's result, with the activation of its feed-forward part, makes a gate that multiplies the vector; a second
    matrix takes the product to the model's width, and a norm follows.
    """

    width: int
    vocab: int


@dataclass(frozen=True, slots=True)
class StreamsSpec:
    """Several residual streams, of which the parts of every layer see the `active` one (AltUp, arXiv:2301.13310).

    The first stream is the embeddings. A matrix makes each other one of them, scaled to the same root mean square. After the layers,
    further matrices do the same to the other streams, with the size of the first one, and the result is the mean of all.

    For a vector v, let r(v) be tanh of a matrix of norm(v) / width. A layer predicts each stream as its old value plus a sum of all old
    ones, whose weights are a matrix of r(active stream). Its parts make a new active stream of the predicted one, and the difference, times
    one plus a matrix of r(new active stream), is added to each predicted stream. What the layer's vector adds is made of the active stream,
    each number times a learned one where `scaled`, and goes to all streams but the first.
    """

    count: int
    active: int
    scaled: bool
