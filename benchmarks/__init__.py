"""What the library costs, one program per question: `python -m benchmarks --list`."""
