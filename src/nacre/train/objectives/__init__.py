"""One file per objective; `nacre.train.objective.CATALOGUE` names them."""
