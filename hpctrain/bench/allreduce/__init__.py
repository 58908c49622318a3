"""All-reduce over message sizes: latency, algbw and busbw of each backend on the same ranks."""
