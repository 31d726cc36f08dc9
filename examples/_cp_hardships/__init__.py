"""What is hard about CP, a module for each: what is measured, its table and its drawing."""

#: Of the tensors that are made.
SHAPE, RANK = (20, 25, 30), 4
#: Fits of one tensor.
STARTS = 3
