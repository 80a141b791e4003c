"""How fast a model would be on a GPU that is not here: data sheets, what is reached of them, and its kernels."""
