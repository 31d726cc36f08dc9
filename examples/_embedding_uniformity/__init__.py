"""A denoising autoencoder trained in several ways: the trainings, their tables, their drawing."""
