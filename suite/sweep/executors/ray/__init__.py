"""A run done by many: workers of a Ray cluster, one a GPU or so many cores, and this process, the driver, which tells
them what to do and writes down what they find. They share no file system, but all can read the data."""
