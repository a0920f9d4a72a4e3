"""Statistics of representations and performance (Choi et al., arXiv:1811.03666)."""
