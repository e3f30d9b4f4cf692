"""Drawing: a circuit as a graph, laid out, pictured and clickable; charts. Never imports torch."""
