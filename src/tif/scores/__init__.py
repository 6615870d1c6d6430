"""What a model says of the answer tokens of given questions and answers: the forward pass, and what is read from it."""
