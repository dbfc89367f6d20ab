"""Small parts that are trained instead of a model: one file per method; `adapted` attaches and switches them."""
