"""The learning phases of neural networks (Schneider and Prabhushankar, arXiv:2312.06887)."""
