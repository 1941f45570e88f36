"""What a backward pass is made of, for those who foresee what it costs."""

from typing import Any, NamedTuple


class Work(NamedTuple):
    """With A = ∂_z F, B = ∂_θ F.

    evaluations: of F.   products: with Aᵀ.   gradients: evaluations of F followed by a product with
    Bᵀ, and by one with Aᵀ too in a mode that is not `pointwise`.   operations: what is beside.
    """

    evaluations: Any
    products: Any
    gradients: Any
    operations: Any = 0.0
