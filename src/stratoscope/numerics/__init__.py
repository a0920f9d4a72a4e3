"""Pure mathematics, tensor in and number or tensor out; knows no network and no file."""
