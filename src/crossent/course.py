"""The loss as a course writes it: a class with forward(A, Y) and backward()."""

from __future__ import annotations

from typing import Any, cast

from numpy.typing import ArrayLike, NDArray

from crossent import loss, softmax
from crossent.options import DEFAULTS, checked

Array = NDArray[Any]


class CrossEntropyLoss:
    """Softmax cross-entropy of logits A (N, C) against targets Y.

    With sigma the row softmax and iota_C a vector of ones::

        H(A, Y)  = (-Y o log sigma(A)) iota_C        the loss of each row, shape (N,)
        forward  = sum(H) / N                  reduction="mean"; sum(H) for "sum", H for "none"
        backward = (sigma(A) - Y) / N          "mean"; sigma(A) - Y for "sum" and "none"

    Args:
        reduction: "mean", "sum" or "none".
        options: every other option of `crossent.cross_entropy`, by name.

    Raises:
        TypeError, ValueError: there is no such option, or none of this value.

    Attributes:
        A: the logits of the last forward, None before it.
        Y: the targets of the last forward, None before it.

    Example:
        >>> import crossent
        >>> criterion = crossent.CrossEntropyLoss()
        >>> A = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]
        >>> Y = [[0, 1, 0], [1, 0, 0]]
        >>> print("%.3f" % criterion.forward(A, Y))
        2.019
        >>> criterion.backward().round(3)
        array([[ 0.33 , -0.379,  0.049],
               [-0.464,  0.243,  0.22 ]])

    Source: docs/course.md, docs/derivation.md.
    """

    def __init__(self, reduction: str = "mean", **options: Any) -> None:
        known = loss.cross_entropy.__kwdefaults__ or {}
        for name in options:
            if name not in known:
                raise TypeError(f"there is no option {name!r}; the options are {', '.join(known)}")
        checked({**DEFAULTS, "reduction": reduction, **options})
        self.reduction = reduction
        self.options = options
        self.A: ArrayLike | None = None
        self.Y: ArrayLike | None = None

    def forward(self, A: ArrayLike, Y: ArrayLike) -> Any:
        """The loss of logits A against Y: one-hot or soft rows (N, C), or class indices (N,)."""
        value = loss.cross_entropy(A, Y, **self._given())
        self.A, self.Y = A, Y
        return value

    __call__ = forward

    def backward(self) -> Array:
        """The gradient of the last forward's loss with respect to its A, of A's shape.

        Under "none" row i is the gradient of loss i.

        Raises:
            RuntimeError: no forward came before.
        """
        A, Y = self._last("backward")
        grad: Array
        _, grad = loss.cross_entropy_and_grad(A, Y, **self._given())
        return grad

    def softmax(self, x: ArrayLike) -> Array:
        """sigma(x) along the class axis; `probabilities` are those of the last A."""
        return softmax.softmax(x, axis=self.options.get("axis", -1))

    @property
    def probabilities(self) -> Array:
        """sigma(A) of the last forward, computed when asked for.

        Raises:
            RuntimeError: no forward came before.
        """
        return self.softmax(self._last("probabilities")[0])

    def _given(self) -> dict[str, Any]:
        return {"reduction": self.reduction, **self.options}

    def _last(self, wanted: str) -> tuple[ArrayLike, ArrayLike]:
        if self.A is None:
            raise RuntimeError(f"{wanted} needs a forward first: call forward(A, Y)")
        return self.A, cast("ArrayLike", self.Y)
