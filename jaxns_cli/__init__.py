"""The command `jaxns`.

A package beside `jaxns` and not inside it: importing anything inside imports JAX, which would keep
`jaxns --help` waiting, and fails where something is wrong, which is when `jaxns doctor` is asked.
Each command is a module with `run(arguments)`, imported when it is called.
"""
