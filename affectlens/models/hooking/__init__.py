"""Reading and writing inside forward passes, whoever calls the model and however."""
