"""The information plane of deep networks (Shwartz-Ziv and Tishby, arXiv:1703.00810), and what was said against it."""
