"""The distribution `jaxns` on PyPI is another library, with the same import name as this one."""

from importlib import metadata


def check() -> None:
    """Raise `ImportError` when that distribution is installed beside this one.

    Both own the directory `jaxns` of site-packages: whichever was installed last has overwritten
    files of the other, and neither can be trusted to be whole.
    """
    try:
        other = metadata.version("jaxns")
    except metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"the distribution 'jaxns' {other} is installed: it is an unrelated nested-sampling "
        "library that owns the same import name as 'jax-nonsmooth', and the two have overwritten "
        "each other's files. Keep one of them. To keep jax-nonsmooth:\n"
        "    pip uninstall jaxns jax-nonsmooth\n"
        "    pip install jax-nonsmooth"
    )
