"""Random inputs from the schemas: only AutoKD's own errors, in bounded time and memory."""
