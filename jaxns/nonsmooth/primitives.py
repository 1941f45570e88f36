"""JAX's primitives by what they compute: how much arithmetic each is, and which are smooth."""


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


# One operation for each number that comes out.
SMOOTH_ARITHMETIC = _named("add add_any mul neg square sub")
PIECEWISE_ARITHMETIC = _named(
    "abs and ceil clamp eq eq_to floor ge gt is_finite le le_to lt lt_to max min ne not or rem "
    "round select_n shift_left shift_right_arithmetic shift_right_logical sign xor"
)

# A nonlinear operation for each number that comes out.
NONLINEAR = _named(
    "acos acosh asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt cos cosh digamma erf "
    "erf_inv erfc exp exp2 expm1 igamma igamma_grad_a igammac lgamma log log1p logistic polygamma "
    "pow regularized_incomplete_beta rsqrt sin sinh sqrt tan tanh zeta"
)

# What says something of a derivative only; the others are of `jaxns.modes`.
IDENTITIES = _named("evaluable forward_only reverse_only stop_gradient")

# Numbers are moved, named, or kept as they are.
FREE = IDENTITIES | _named(
    "bitcast_convert_type broadcast_in_dim complex concatenate conj convert_element_type copy "
    "copy_p create_token device_put dynamic_slice dynamic_update_slice empty empty2 expand_dims "
    "gather imag iota lu_pivots_to_permutation name optimization_barrier pad pbroadcast "
    "platform_index pvary real reduce_precision reshape rev scatter sharding_constraint slice "
    "split squeeze stack tile transpose unstack"
)

# One operation less than numbers go in, for each that comes out.
SMOOTH_REDUCTIONS = _named("reduce_prod reduce_sum")
PIECEWISE_REDUCTIONS = _named("argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_xor")

# What else is smooth, wherever it is defined.
SMOOTH = (
    SMOOTH_ARITHMETIC
    | NONLINEAR
    | FREE
    | SMOOTH_REDUCTIONS
    | _named(
        "cholesky conv_general_dilated cumlogsumexp cumprod cumsum div dot_general eigh fft "
        "householder_product integer_pow lu one_minus_square psum qr reduce_window_sum "
        "scatter-add scatter-mul svd triangular_solve tridiagonal_solve"
    )
)
