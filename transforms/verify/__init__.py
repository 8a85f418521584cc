"""A collection against the parts of its snapshot, on workers: its rows, the rows that it should not have, its recall.

The comparing itself is that of `transforms.milvus`, which a small collection gets in the process that starts the run.
"""
