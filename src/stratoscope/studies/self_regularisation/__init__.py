"""Self-regularisation by random matrix theory (Martin and Mahoney, arXiv:1810.01075)."""
