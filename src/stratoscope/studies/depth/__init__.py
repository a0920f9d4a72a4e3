"""How well the layers of deep networks separate classes (Schilling and others, arXiv:1811.01753)."""
