"""Operators: each is a public function, an operator of ``torch.ops.longconv``, and one or more backends."""
