"""Other packages of the ecosystem, one module each, imported by who uses it: docs/ecosystem.md."""

__all__: list[str] = []
