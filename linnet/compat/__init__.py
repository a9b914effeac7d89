"""The interfaces of other libraries, on Linnet's own numerics."""
