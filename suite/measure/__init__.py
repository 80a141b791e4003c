"""What a model costs: FLOPs, speed, memory, and the machine that it was measured on."""
