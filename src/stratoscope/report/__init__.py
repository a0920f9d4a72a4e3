"""What a person reads of a record: in the terminal, as rows for machines, and as one page."""
