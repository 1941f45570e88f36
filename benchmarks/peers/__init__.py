"""One problem, several libraries: solve and hypergradient at equal accuracy."""
